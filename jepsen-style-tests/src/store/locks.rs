use std::collections::{BTreeMap, BTreeSet};

use unanimo_core::TransactionId;

/// Who holds which cell. Readers share, a writer is alone.
#[derive(Debug, Default)]
pub(super) struct Locks {
    cells: BTreeMap<String, Lock>,
}

#[derive(Debug, Default)]
struct Lock {
    readers: BTreeSet<TransactionId>,
    writer: Option<TransactionId>,
}

/// How a cell is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    Write,
}

impl Locks {
    /// Takes all of these, or nothing.
    pub(super) fn take(&mut self, transaction: TransactionId, wants: &[(String, Want)]) -> bool {
        let free = wants
            .iter()
            .all(|(cell, want)| self.is_free(transaction, cell, *want));
        if free {
            for (cell, want) in wants {
                let lock = self.cells.entry(cell.clone()).or_default();
                match want {
                    Want::Read => {
                        lock.readers.insert(transaction);
                    }
                    Want::Write => lock.writer = Some(transaction),
                }
            }
        }
        free
    }

    /// Lets go of everything that a transaction holds.
    pub(super) fn release(&mut self, transaction: TransactionId) {
        self.cells.retain(|_, lock| {
            lock.readers.remove(&transaction);
            if lock.writer == Some(transaction) {
                lock.writer = None;
            }
            lock.writer.is_some() || !lock.readers.is_empty()
        });
    }

    /// How many transactions hold something.
    pub(super) fn holding(&self) -> usize {
        let holders: BTreeSet<_> = self
            .cells
            .values()
            .flat_map(|lock| lock.readers.iter().chain(&lock.writer))
            .collect();
        holders.len()
    }

    fn is_free(&self, transaction: TransactionId, cell: &str, want: Want) -> bool {
        let Some(lock) = self.cells.get(cell) else {
            return true;
        };
        let others_write = lock.writer.is_some_and(|writer| writer != transaction);
        let others_read = lock.readers.iter().any(|reader| *reader != transaction);
        match want {
            Want::Read => !others_write,
            Want::Write => !others_write && !others_read,
        }
    }
}

#[cfg(test)]
mod tests {
    use unanimo_core::Timestamp;

    use super::*;

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let [a, b] = [1, 2].map(|n| TransactionId::new(Timestamp::from_unix_ms(n), 0));
        let want = |cell: &str, want| vec![(cell.to_owned(), want)];
        let mut locks = Locks::default();
        assert!(locks.take(a, &want("x", Want::Read)));
        assert!(locks.take(b, &want("x", Want::Read)));
        assert!(!locks.take(a, &want("x", Want::Write)));
        // All or nothing: y stays free.
        assert!(!locks.take(a, &[want("y", Want::Write), want("x", Want::Write)].concat()));
        assert!(locks.take(b, &want("y", Want::Write)));
        locks.release(b);
        assert_eq!(locks.holding(), 1);
        assert!(locks.take(a, &want("x", Want::Write)));
        assert!(!locks.take(b, &want("x", Want::Read)));
    }
}
