//! A participant's journal: records are durable after a sync, and a crash keeps any prefix of what was not synced.

use unanimo_core::{Position, Record};

/// The records on disk, and those on their way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    records: Vec<Record>,
    durable: usize,
}

impl Journal {
    /// Appends a record. It is not durable yet.
    pub(crate) fn append(&mut self, record: Record) -> Position {
        self.records.push(record);
        Position(self.records.len() as u64)
    }

    /// What a restart would find if nothing more reached the disk.
    pub(crate) fn durable(&self) -> &[Record] {
        &self.records[..self.durable]
    }

    /// What a crash may lose.
    pub(crate) fn tail(&self) -> &[Record] {
        &self.records[self.durable..]
    }

    /// Makes everything durable; returns what was not.
    pub(crate) fn sync(&mut self) -> Vec<Record> {
        let synced = self.tail().to_vec();
        self.durable = self.records.len();
        synced
    }

    /// Loses the tail but for its first `keep` records. Returns what was kept and what was lost of it.
    pub(crate) fn crash(&mut self, keep: usize) -> (Vec<Record>, Vec<Record>) {
        let keep = keep.min(self.tail().len());
        let lost = self.records.split_off(self.durable + keep);
        let kept = self.tail().to_vec();
        self.durable = self.records.len();
        (kept, lost)
    }

    /// Replaces the disk by an old copy of it.
    pub(crate) fn fall_back(&mut self, records: usize) {
        self.records.truncate(records);
        self.durable = self.records.len();
    }

    /// Where the journal ends.
    pub(crate) fn end(&self) -> Position {
        Position(self.records.len() as u64)
    }
}
