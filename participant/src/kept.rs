use std::collections::{BTreeMap, VecDeque};

use unanimo_core::{Record, TransactionId};
use unanimo_journal::Sequence;

/// Ends of branches that are summed up together. Some kilobytes of journal are kept for longer than they must be.
const ENDS_PER_STRETCH: usize = 1024;

/// Which part of the journal is still needed (R7): enough to keep every promise, and to build a lost branch table
/// again as far as it goes.
///
/// A promise needs its record until its end is durable and in the branch table. The end of a branch needs its record
/// until its id is closed. Beginnings of the journal that hold neither can go.
#[derive(Default)]
pub(crate) struct Kept {
    /// Where the promises stand whose ends are not in the branch table.
    promises: BTreeMap<TransactionId, Sequence>,
    /// The ends, oldest first.
    ends: VecDeque<Stretch>,
}

/// A stretch of the journal, by the ends of branches in it.
struct Stretch {
    first: Sequence,
    ends: usize,
    highest: TransactionId,
}

impl Kept {
    /// A record is appended.
    pub(crate) fn appended(&mut self, sequence: Sequence, record: &Record) {
        match record {
            Record::Started { .. } | Record::Registered { .. } | Record::Closed { .. } => {}
            Record::Prepared(transaction, _) => _ = self.promises.insert(*transaction, sequence),
            Record::Committed { transaction, .. } | Record::Aborted { transaction, .. } => {
                self.ended(sequence, *transaction);
            }
        }
    }

    /// A record was found at recovery, which puts the ends it finds into the branch table.
    pub(crate) fn found(&mut self, sequence: Sequence, record: &Record) {
        self.appended(sequence, record);
        if let Record::Committed { transaction, .. } | Record::Aborted { transaction, .. } = record {
            self.remembered(*transaction);
        }
    }

    fn ended(&mut self, sequence: Sequence, transaction: TransactionId) {
        match self.ends.back_mut() {
            Some(stretch) if stretch.ends < ENDS_PER_STRETCH => {
                stretch.ends += 1;
                stretch.highest = stretch.highest.max(transaction);
            }
            Some(_) | None => self.ends.push_back(Stretch {
                first: sequence,
                ends: 1,
                highest: transaction,
            }),
        }
    }

    /// The end of the branch is durable and in the branch table.
    pub(crate) fn remembered(&mut self, transaction: TransactionId) {
        self.promises.remove(&transaction);
    }

    /// The first record that is still needed when everything below the watermark is closed, durably; none if no record
    /// is.
    pub(crate) fn needed_from(&mut self, below: TransactionId) -> Option<Sequence> {
        while self.ends.front().is_some_and(|stretch| stretch.highest < below) {
            self.ends.pop_front();
        }
        let ends = self.ends.front().map(|stretch| stretch.first);
        self.promises.values().copied().chain(ends).min()
    }

    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.promises.len(), self.ends.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unanimo_core::{RequestHash, Timestamp};

    fn transaction(n: u64) -> TransactionId {
        TransactionId::new(Timestamp::from_unix_ms(n), 0)
    }

    fn committed(n: u64) -> Record {
        Record::Committed {
            transaction: transaction(n),
            request_hash: RequestHash::from_bytes([7; 32]),
        }
    }

    #[test]
    fn an_end_is_needed_until_its_id_is_closed() {
        let mut kept = Kept::default();
        assert_eq!(kept.needed_from(transaction(1)), None);
        // The highest id of the first stretch stands in its middle.
        let stretch = ENDS_PER_STRETCH as u64;
        for n in 0..2 * stretch {
            let id = if n == stretch / 2 { 10 * stretch } else { n };
            kept.appended(Sequence::new(n + 1), &committed(id));
        }
        assert_eq!(kept.needed_from(transaction(3 * stretch)), Some(Sequence::new(1)));
        assert_eq!(
            kept.needed_from(transaction(10 * stretch)),
            Some(Sequence::new(1))
        );
        assert_eq!(kept.needed_from(transaction(10 * stretch + 1)), None);
        kept.appended(Sequence::new(5000), &committed(20 * stretch));
        assert_eq!(
            kept.needed_from(transaction(10 * stretch + 1)),
            Some(Sequence::new(5000))
        );
    }
}
