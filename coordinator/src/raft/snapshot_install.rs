//! Replacing what a table holds by a snapshot.
//!
//! The first change of the table is a mark, and the last one takes it away and says how far the log is applied. So
//! after a crash in between the mark is there, and the replacement starts over from the snapshot, which is durable
//! under its name before the first change. Keys that stay are never missing on the way: a decision that was once
//! readable here stays so.

use std::io;

use unanimo_proto::storage::{decode_binding, decode_decision_record};
use unanimo_table::{Batch, Table, TableError};

use super::snapshot_file::Pair;
use super::snapshot_store::SnapshotFile;
use super::table_view::{
    APPLIED, BINDINGS, BOUND, HORIZON, INSTALLING, RECORDS, REGISTRATIONS, UNENDED, put_binding, put_record,
    remove_binding, transaction_of, unended_key,
};

/// A batch is applied when it adds up to this, in bytes.
const BATCH_BYTES: usize = 1024 * 1024;
const PAGE: usize = 512;

/// Makes the table hold what the snapshot holds, durably.
pub(super) fn install(table: &dyn Table, snapshot: &SnapshotFile) -> io::Result<()> {
    let mut changes = Changes::begin(table)?;
    let mut reader = snapshot.read()?;
    let mut done: Vec<u8> = RECORDS.0.to_vec();
    while let Some(pairs) = reader.next_pairs()? {
        let Some((last, _)) = pairs.last() else { continue };
        let until = [last, [0].as_slice()].concat();
        changes.remove_others(&done, &until, &pairs)?;
        for (key, value) in pairs {
            changes.put(key, value)?;
        }
        done = until;
    }
    changes.remove_others(&done, REGISTRATIONS.1, &[])?;
    changes.batch.put(APPLIED, snapshot.state().encode());
    changes.end()
}

/// Empties a table.
pub(super) fn wipe(table: &dyn Table) -> Result<(), TableError> {
    for (from, until) in [RECORDS, HORIZON, BINDINGS, BOUND, REGISTRATIONS, UNENDED] {
        loop {
            let page = table.scan(from, Some(until), PAGE)?;
            if page.is_empty() {
                break;
            }
            let mut batch = Batch::new();
            for (key, _) in page {
                batch.remove(key);
            }
            table.apply(batch)?;
        }
    }
    let mut last = Batch::new();
    last.remove(APPLIED).remove(INSTALLING);
    table.apply(last)
}

struct Changes<'a> {
    table: &'a dyn Table,
    batch: Batch,
    bytes: usize,
}

impl<'a> Changes<'a> {
    fn begin(table: &'a dyn Table) -> io::Result<Self> {
        let mut batch = Batch::new();
        batch.put(INSTALLING, Vec::new());
        table.apply(batch).map_err(io::Error::other)?;
        Ok(Self {
            table,
            batch: Batch::new(),
            bytes: 0,
        })
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> io::Result<()> {
        self.bytes += 2 * key.len() + value.len();
        if key.starts_with(RECORDS.0) {
            let transaction = transaction_of(&key).map_err(io::Error::other)?;
            let record = decode_decision_record(&value).map_err(io::Error::other)?;
            put_record(&mut self.batch, transaction, value, &record);
        } else if key.starts_with(BINDINGS.0) {
            let binding = decode_binding(&value).map_err(io::Error::other)?;
            // The key may have stood for another transaction here.
            self.remove_bound(&key)?;
            put_binding(&mut self.batch, key, value, binding.transaction);
        } else {
            self.batch.put(key, value);
        }
        self.flush_if_large()
    }

    /// Removes what the table has between two keys and the snapshot has not; `kept` is sorted.
    fn remove_others(&mut self, from: &[u8], until: &[u8], kept: &[Pair]) -> io::Result<()> {
        let mut from = from.to_vec();
        loop {
            let page = self
                .table
                .scan(&from, Some(until), PAGE)
                .map_err(io::Error::other)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            from = [last, [0].as_slice()].concat();
            for (key, _) in page {
                let belongs = [RECORDS, BINDINGS, REGISTRATIONS]
                    .iter()
                    .any(|(prefix, _)| key.starts_with(prefix));
                if !belongs || kept.binary_search_by(|(kept, _)| kept.cmp(&key)).is_ok() {
                    continue;
                }
                self.bytes += 2 * key.len();
                if key.starts_with(RECORDS.0) {
                    self.batch
                        .remove(unended_key(transaction_of(&key).map_err(io::Error::other)?));
                }
                if key.starts_with(BINDINGS.0) {
                    self.remove_bound(&key)?;
                }
                self.batch.remove(key);
                self.flush_if_large()?;
            }
        }
    }

    /// Removes what the table has of an idempotency key.
    fn remove_bound(&mut self, key: &[u8]) -> io::Result<()> {
        if let Some(value) = self.table.get(key).map_err(io::Error::other)? {
            let binding = decode_binding(&value).map_err(io::Error::other)?;
            remove_binding(&mut self.batch, key.to_vec(), binding.transaction);
        }
        Ok(())
    }

    fn flush_if_large(&mut self) -> io::Result<()> {
        if self.bytes < BATCH_BYTES {
            return Ok(());
        }
        self.bytes = 0;
        self.table
            .apply(std::mem::take(&mut self.batch))
            .map_err(io::Error::other)
    }

    fn end(mut self) -> io::Result<()> {
        self.batch.remove(INSTALLING);
        self.table.apply(self.batch).map_err(io::Error::other)?;
        self.table.checkpoint().map_err(io::Error::other)
    }
}
