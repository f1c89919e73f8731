//! A participant's journal on a disk that forgets what was not forced to it.

use std::collections::VecDeque;

use unanimo_core::{Position, Record};

/// The records, oldest first. Positions count from 1 and go on where a released beginning ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    records: VecDeque<Record>,
    /// How many records were released at the beginning.
    released: u64,
    /// The last position that is known to be on disk.
    durable: u64,
    /// From here on nothing reached the disk, although a forced write was taken for a success.
    missing_from: Option<u64>,
}

/// What a crash left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Records that were not forced to disk and are there all the same.
    pub(crate) kept: u64,
    pub(crate) lost: u64,
}

impl Journal {
    pub(crate) fn append(&mut self, record: Record) -> Position {
        self.records.push_back(record);
        Position(self.end())
    }

    /// The position of the last record, on disk or not.
    pub(crate) fn end(&self) -> u64 {
        self.released + self.records.len() as u64
    }

    pub(crate) const fn durable(&self) -> u64 {
        self.durable
    }

    /// Whether this position has really reached the disk.
    pub(crate) fn is_on_disk(&self, position: u64) -> bool {
        position <= self.durable && self.missing_from.is_none_or(|missing| position < missing)
    }

    /// A forced write has ended well, up to here.
    pub(crate) fn synced(&mut self, upto: u64) {
        self.durable = self.durable.max(upto);
    }

    /// A forced write has failed, and nobody noticed: what it was to force is gone.
    pub(crate) fn lied(&mut self) {
        self.missing_from.get_or_insert(self.durable + 1);
    }

    /// The records with their positions.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Position, &Record)> {
        let first = self.released + 1;
        let numbered = self.records.iter().enumerate();
        numbered.map(move |(place, record)| (Position(first + place as u64), record))
    }

    pub(crate) fn record_at(&self, position: u64) -> Option<&Record> {
        let place = position.checked_sub(self.released + 1)?;
        self.records.get(place as usize)
    }

    /// Loses what is not on disk, but for `keep` thousandths of it.
    pub(crate) fn crash(&mut self, keep: u64) -> Left {
        let sure = self.missing_from.take().map_or(self.durable, |from| from - 1);
        let tail = self.end() - sure;
        let kept = if sure < self.durable {
            0
        } else {
            tail * keep / 1000
        };
        let lost = tail - kept;
        self.records.truncate((sure + kept - self.released) as usize);
        self.durable = self.end();
        Left { kept, lost }
    }

    /// Lets go of the records before this position.
    pub(crate) fn release_before(&mut self, position: u64) {
        while self.released + 1 < position && self.released < self.durable {
            self.records.pop_front();
            self.released += 1;
        }
    }

    /// The disk as it is at this moment: what was not forced to it is not there.
    pub(crate) fn copy(&self) -> Self {
        let mut copy = self.clone();
        copy.crash(0);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unanimo_core::{Generation, Timestamp, TransactionId};

    fn record(n: u32) -> Record {
        Record::Registered {
            generation: Generation::of_start(n, 0),
        }
    }

    fn journal(records: u32, durable: u64) -> Journal {
        let mut journal = Journal::default();
        for n in 1..=records {
            assert_eq!(journal.append(record(n)), Position(u64::from(n)));
        }
        journal.synced(durable);
        journal
    }

    #[test]
    fn a_crash_keeps_what_was_forced_and_perhaps_more() {
        for (keep, kept) in [(0, 0), (500, 2), (1000, 4)] {
            let mut journal = journal(7, 3);
            let lost = 4 - kept;
            assert_eq!(journal.crash(keep), Left { kept, lost });
            assert_eq!(journal.end(), 3 + kept);
            assert_eq!(journal.durable(), 3 + kept);
        }
    }

    #[test]
    fn a_forced_write_that_failed_unnoticed_takes_everything_after_it() {
        let mut journal = journal(7, 3);
        journal.lied();
        journal.synced(7);
        assert!(journal.is_on_disk(3) && !journal.is_on_disk(4));
        assert_eq!(journal.crash(1000).lost, 4);
        assert_eq!(journal.end(), 3);
    }

    #[test]
    fn positions_go_on_where_the_released_beginning_ended() {
        let mut journal = journal(7, 5);
        journal.release_before(4);
        assert_eq!(journal.records().next(), Some((Position(4), &record(4))));
        assert_eq!(journal.record_at(7), Some(&record(7)));
        assert_eq!(journal.record_at(3), None);
        // Never what is not on disk.
        journal.release_before(100);
        assert_eq!(journal.append(record(8)), Position(8));
        assert_eq!(journal.record_at(6), Some(&record(6)));
        let _ = TransactionId::first_at(Timestamp::default());
    }
}
