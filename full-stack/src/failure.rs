//! What was planned to fail, and whether it has: from then on the process that it happened to has to end (R10).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use unanimo_table::{Batch, Entry, MemoryTable, Table, TableError};

use crate::notes::Notes;

/// The parts of a machine's storage, each of which may fail by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Raft's log, or a participant's journal.
    Journal,
    /// A coordinator's marks of membership.
    Folder,
    Snapshots,
    /// The decision table, or the branch table.
    Table,
}

impl Part {
    /// What is counted when it fails.
    fn counter(self) -> &'static str {
        match self {
            Self::Journal => "failed_sync_of_a_journal",
            Self::Folder => "failed_sync_of_a_folder",
            Self::Snapshots => "failed_sync_of_a_snapshot",
            Self::Table => "failed_write_of_a_table",
        }
    }
}

/// Whether one part of a machine has failed in the present life. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) notes: Notes,
    pub(crate) host: Arc<str>,
    part: Part,
    since: Arc<Mutex<Option<Duration>>>,
}

impl Failure {
    pub(crate) fn new(notes: &Notes, host: &Arc<str>, part: Part) -> Self {
        Self {
            notes: notes.clone(),
            host: Arc::clone(host),
            part,
            since: Arc::default(),
        }
    }

    /// Since when, if it has failed.
    pub(crate) fn since(&self) -> Option<Duration> {
        *self.lock()
    }

    /// The next life begins.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    /// The process was just told that it failed.
    pub(crate) fn happened(&self) {
        let mut since = self.lock();
        if since.is_none() {
            *since = Some(self.notes.now());
            self.notes.count(self.part.counter());
            self.notes
                .trace(&self.host, format!("is told that its {:?} has failed", self.part));
        }
    }

    /// The process goes on writing to what has failed: it must not, because nobody knows what is there (R10).
    pub(crate) fn check_untouched(&self, what: &str) {
        if let Some(since) = self.since() {
            let what = format!(
                "{} {what} at its {:?}, which had failed at {since:?}",
                self.host, self.part
            );
            self.notes.violate("went_on_after_a_failure", what);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Duration>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A table of which it is noted when it fails. It refuses everything from then on by itself.
#[derive(Clone)]
pub(crate) struct FailingTable {
    pub(crate) table: MemoryTable,
    pub(crate) failure: Failure,
}

impl FailingTable {
    fn note<T>(&self, result: Result<T, TableError>) -> Result<T, TableError> {
        if matches!(result, Err(TableError::Failed { .. })) {
            self.failure.happened();
        }
        result
    }
}

impl Table for FailingTable {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.note(self.table.get(key))
    }

    fn apply(&self, batch: Batch) -> Result<(), TableError> {
        self.note(self.table.apply(batch))
    }

    fn scan(&self, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, TableError> {
        self.note(self.table.scan(from, until, limit))
    }

    fn checkpoint(&self) -> Result<(), TableError> {
        self.note(self.table.checkpoint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_fails_is_noted_once() {
        let notes = Notes::new(false);
        let failure = Failure::new(&notes, &"c1".into(), Part::Table);
        let table = FailingTable {
            table: MemoryTable::new(),
            failure: failure.clone(),
        };
        table.checkpoint().unwrap();
        assert_eq!(failure.since(), None);
        table.table.fail_next_checkpoint();
        assert!(table.checkpoint().is_err());
        assert!(table.get(b"key").is_err());
        assert_eq!(failure.since(), Some(Duration::ZERO));
        assert_eq!(notes.counters()["failed_write_of_a_table"], 1);
    }
}
