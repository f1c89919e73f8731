use std::collections::{BTreeMap, BTreeSet, VecDeque};

use unanimo_core::TransactionId;

/// Who holds which cell, and who waits for it. Readers share, a writer is alone (but see [`hold`](Self::hold)), and whoever comes first is served first:
/// otherwise nobody who wants many cells would ever have them all.
#[derive(Debug, Default)]
pub(super) struct Locks {
    cells: BTreeMap<String, Lock>,
}

#[derive(Debug, Default)]
struct Lock {
    readers: BTreeSet<TransactionId>,
    writers: BTreeSet<TransactionId>,
    waiting: VecDeque<(TransactionId, Want)>,
}

/// How a cell is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    Write,
}

impl Locks {
    /// Takes a cell, or stands in line for it.
    pub(super) fn take_or_wait(&mut self, transaction: TransactionId, cell: &str, want: Want) -> bool {
        let lock = self.cells.entry(cell.to_owned()).or_default();
        if !lock.is_free(transaction, want) {
            if !lock.waiting.iter().any(|(waiter, _)| *waiter == transaction) {
                lock.waiting.push_back((transaction, want));
            }
            return false;
        }
        lock.waiting.retain(|(waiter, _)| *waiter != transaction);
        lock.hold(transaction, want);
        true
    }

    /// Holds a cell for a transaction that had it before a restart, whoever else had it. Two did if the first was told to
    /// abort and let go, and nobody had written that down yet.
    pub(super) fn hold(&mut self, transaction: TransactionId, cell: &str, want: Want) {
        self.cells
            .entry(cell.to_owned())
            .or_default()
            .hold(transaction, want);
    }

    /// Stands in line no longer.
    pub(super) fn give_up(&mut self, transaction: TransactionId) {
        for lock in self.cells.values_mut() {
            lock.waiting.retain(|(waiter, _)| *waiter != transaction);
        }
        self.cells.retain(|_, lock| lock.matters());
    }

    /// Lets go of everything that a transaction holds.
    pub(super) fn release(&mut self, transaction: TransactionId) {
        self.cells.retain(|_, lock| {
            lock.readers.remove(&transaction);
            lock.writers.remove(&transaction);
            lock.waiting.retain(|(waiter, _)| *waiter != transaction);
            lock.matters()
        });
    }

    /// How many transactions hold something.
    pub(super) fn holding(&self) -> usize {
        let holders: BTreeSet<_> = self
            .cells
            .values()
            .flat_map(|lock| lock.readers.iter().chain(&lock.writers))
            .collect();
        holders.len()
    }
}

impl Lock {
    fn hold(&mut self, transaction: TransactionId, want: Want) {
        match want {
            Want::Read => self.readers.insert(transaction),
            Want::Write => self.writers.insert(transaction),
        };
    }

    fn matters(&self) -> bool {
        !self.writers.is_empty() || !self.readers.is_empty() || !self.waiting.is_empty()
    }

    fn is_free(&self, transaction: TransactionId, want: Want) -> bool {
        let others_write = self.writers.iter().any(|writer| *writer != transaction);
        let others_read = self.readers.iter().any(|reader| *reader != transaction);
        let held = match want {
            Want::Read => others_write,
            Want::Write => others_write || others_read,
        };
        // Whoever has it already would wait for those who wait for it.
        let has_it = self.writers.contains(&transaction) || self.readers.contains(&transaction);
        let mut before = self
            .waiting
            .iter()
            .take_while(|(waiter, _)| *waiter != transaction);
        let turn = before.all(|(_, waits)| (want, *waits) == (Want::Read, Want::Read));
        !held && (has_it || turn)
    }
}

#[cfg(test)]
mod tests {
    use unanimo_core::Timestamp;

    use super::*;

    fn transactions<const N: usize>() -> [TransactionId; N] {
        std::array::from_fn(|n| TransactionId::new(Timestamp::from_unix_ms(n as u64 + 1), 0))
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let [a, b] = transactions();
        let mut locks = Locks::default();
        assert!(locks.take_or_wait(a, "x", Want::Read));
        assert!(locks.take_or_wait(b, "x", Want::Read));
        assert!(!locks.take_or_wait(a, "x", Want::Write));
        locks.release(b);
        assert_eq!(locks.holding(), 1);
        assert!(locks.take_or_wait(a, "x", Want::Write));
        assert!(!locks.take_or_wait(b, "x", Want::Read));
        locks.give_up(b);
        locks.release(a);
        assert!(locks.cells.is_empty());
    }

    #[test]
    fn whoever_comes_first_is_served_first() {
        let [a, b, c, d] = transactions();
        let mut locks = Locks::default();
        assert!(locks.take_or_wait(a, "x", Want::Write));
        assert!(!locks.take_or_wait(b, "x", Want::Read));
        assert!(!locks.take_or_wait(c, "x", Want::Write));
        assert!(!locks.take_or_wait(d, "x", Want::Read));
        locks.release(a);
        // b is first, and c before d.
        assert!(!locks.take_or_wait(c, "x", Want::Write));
        assert!(!locks.take_or_wait(d, "x", Want::Read));
        assert!(locks.take_or_wait(b, "x", Want::Read));
        assert!(!locks.take_or_wait(d, "x", Want::Read));
        // b has it, and waits for nobody in line.
        assert!(locks.take_or_wait(b, "x", Want::Write));
        locks.release(b);
        locks.give_up(c);
        assert!(locks.take_or_wait(d, "x", Want::Read));
    }
}
