use std::sync::Arc;

use unanimo_core::{Branch, BranchPhase, Finish, TransactionId};
use unanimo_journal::Sequence;
use unanimo_proto::storage::{decode_finished_branch, encode_finished_branch};
use unanimo_table::{Batch, Table, TableError};

use crate::StopReason;

/// The key of the position up to which the table is complete. A transaction's key has 16 bytes.
const COMPLETE: &[u8] = b"complete";

/// Branches that are dropped in one batch: enough to share its cost, and few enough that others hardly wait for it.
const DROPPED_PER_BATCH: usize = 1024;

/// Remembers how branches ended, so that a message that comes late or again is answered as the first one was.
///
/// Only what is durable in the journal goes in. The table says up to which record it has everything, in the same
/// batch as the branches themselves, so whatever it loses in a crash is found again in the journal.
#[derive(Clone)]
pub(crate) struct BranchTable {
    table: Arc<dyn Table>,
}

/// A finished branch on its way into the table.
pub(crate) struct Finished {
    pub(crate) sequence: Sequence,
    pub(crate) transaction: TransactionId,
    value: Vec<u8>,
}

impl Finished {
    /// The branch whose end is recorded at `sequence`; none if it has not finished, or leaves no record.
    pub(crate) fn new(sequence: Sequence, branch: &Branch) -> Option<Self> {
        Some(Self {
            sequence,
            transaction: branch.transaction(),
            value: encode_finished_branch(branch)?,
        })
    }
}

impl BranchTable {
    pub(crate) fn new(table: Arc<dyn Table>) -> Self {
        Self { table }
    }

    /// The table has every branch that finished at or before this record.
    pub(crate) fn complete(&self) -> Result<Sequence, TableError> {
        let number = self.table.get(COMPLETE)?;
        // A value of another length is not ours; to start over from the journal is always right.
        let number = number.and_then(|value| <[u8; 8]>::try_from(value).ok());
        Ok(number.map_or(Sequence::BEFORE_FIRST, |bytes| {
            Sequence::new(u64::from_be_bytes(bytes))
        }))
    }

    /// How the branch of this transaction ended, if the table knows.
    pub(crate) fn branch(&self, transaction: TransactionId) -> Result<Option<Branch>, StopReason> {
        let value = self.table.get(&key(transaction)).map_err(StopReason::storage)?;
        value
            .map(|value| decode_finished_branch(transaction, &value))
            .transpose()
            .map_err(StopReason::storage)
    }

    /// The same at recovery, where a value that cannot be read counts as absent: the journal has it.
    pub(crate) fn finish(&self, transaction: TransactionId) -> Result<Option<Finish>, TableError> {
        let value = self.table.get(&key(transaction))?;
        let branch = value.and_then(|value| decode_finished_branch(transaction, &value).ok());
        Ok(branch.map(|branch| match branch.phase() {
            BranchPhase::Finished(finish) => finish.clone(),
            phase => unreachable!("the table holds finished branches only, not {phase:?}"),
        }))
    }

    /// Puts the branches in, after which the table is complete up to this record.
    pub(crate) fn put(&self, finished: &[Finished], complete: Sequence) -> Result<(), TableError> {
        let mut batch = Batch::new();
        for branch in finished {
            batch.put(key(branch.transaction), branch.value.as_slice());
        }
        batch.put(COMPLETE, complete.get().to_be_bytes());
        self.table.apply(batch)
    }

    /// Drops branches below the watermark, some at a time, from `from` on, and says from where to go on; none when there
    /// are no more.
    pub(crate) fn drop_below(
        &self,
        below: TransactionId,
        from: &[u8],
    ) -> Result<Option<Vec<u8>>, TableError> {
        let entries = self.table.scan(from, Some(&key(below)), DROPPED_PER_BATCH)?;
        let Some((last, _)) = entries.last() else {
            return Ok(None);
        };
        let mut next = last.clone();
        next.push(0);
        let mut batch = Batch::new();
        for (key, _) in entries {
            if key.as_slice() != COMPLETE {
                batch.remove(key);
            }
        }
        self.table.apply(batch)?;
        Ok(Some(next))
    }

    /// Returns when everything that was put is on disk.
    pub(crate) fn checkpoint(&self) -> Result<(), TableError> {
        self.table.checkpoint()
    }
}

fn key(transaction: TransactionId) -> [u8; 16] {
    transaction.as_u128().to_be_bytes()
}
