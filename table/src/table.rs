use crate::{Batch, TableError};

/// The longest key, in bytes. Index pages hold a few hundred keys and must fit into one message of sled's
/// log.
pub const MAX_KEY_BYTES: usize = 1024;

/// The longest value, in bytes. A leaf holds about twenty values and must fit into one message of sled's log:
/// what does not fit goes to side files that sled never syncs.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// The most that the keys and values of one batch may add up to, in bytes. A batch holds back every other
/// write of the process while it is applied, so a large change is cut into several batches.
pub const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// An ordered map from byte strings to byte strings that outlives the process.
///
/// What is applied is visible at once and durable at the next [`checkpoint`](Table::checkpoint). After a
/// crash the table is what it was at its last checkpoint plus some of the batches applied since then: always
/// the first of them in the order of their application, and never a part of one.
///
/// After the first error of a write or a checkpoint nobody knows any more what is on disk, so every later
/// call answers [`TableError::Failed`]; the process must stop serving (R10).
pub trait Table: Send + Sync + 'static {
    /// The value of `key`, or `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`TableError::TooLarge`] and [`TableError::EmptyKey`] for a key that no table can hold, and
    /// [`TableError::Failed`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;

    /// Carries out the whole batch, or nothing of it. Every `get` and `scan` that starts later sees it; it is
    /// *not* durable before a checkpoint that starts later has returned.
    ///
    /// # Errors
    ///
    /// [`TableError::TooLarge`] and [`TableError::EmptyKey`] change nothing. After [`TableError::Failed`] the
    /// batch may be found applied or not when the table is opened again.
    fn apply(&self, batch: Batch) -> Result<(), TableError>;

    /// The entries from `from` (inclusive) until `until` (exclusive, to the end of the table if `None`), in
    /// the order of their keys, at most `limit` of them. One call sees one state of the table, never half a
    /// batch. For the next page pass the last key followed by a zero byte. `from` may be empty, for the first
    /// page.
    ///
    /// # Errors
    ///
    /// [`TableError::Failed`].
    fn scan(&self, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, TableError>;

    /// Returns when everything that was applied before the call is on disk. Blocks for the time of a sync:
    /// many concurrent callers share one through a [`Checkpointer`](crate::Checkpointer).
    ///
    /// # Errors
    ///
    /// [`TableError::Failed`]: nothing since the last good checkpoint may be taken as durable.
    fn checkpoint(&self) -> Result<(), TableError>;
}
