//! The resource manager: one account. What it holds for a promise nobody else may spend, and each commit changes the
//! account once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use unanimo_core::mutants::{self, Mutant};
use unanimo_core::{Operation, Resolution, TransactionId};

use crate::schedule::Move;

/// What is on the bank's disk. It changes in one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) balance: i64,
    /// What has been committed.
    pub(crate) applied: BTreeSet<TransactionId>,
}

/// An account and who holds how much of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bank {
    pub(crate) books: Books,
    /// What the account will change by. Volatile.
    holds: BTreeMap<TransactionId, i64>,
}

impl Bank {
    pub(crate) fn new(balance: i64) -> Self {
        Self {
            books: Books {
                balance,
                applied: BTreeSet::new(),
            },
            holds: BTreeMap::new(),
        }
    }

    pub(crate) const fn holds(&self) -> &BTreeMap<TransactionId, i64> {
        &self.holds
    }

    /// What may be spent.
    fn free(&self) -> i64 {
        let spoken_for: i64 = self.holds.values().filter(|by| **by < 0).sum();
        self.books.balance + spoken_for
    }

    /// Works on an operation, on top of what it holds for this transaction already.
    pub(crate) fn prepare(&mut self, transaction: TransactionId, operation: &Operation) -> Resolution {
        let text = std::str::from_utf8(operation.as_bytes()).unwrap_or("");
        match Move::read(text) {
            Some(Move::By(by)) if by < 0 && self.free() + by < 0 => Resolution::No {
                reason: "not enough".to_owned(),
            },
            Some(Move::By(by)) => {
                let held = self.holds.entry(transaction).or_insert(0);
                *held += by;
                Resolution::Yes {
                    redo: Bytes::from(held.to_string().into_bytes()),
                }
            }
            Some(Move::Read) => Resolution::ReadOnly,
            Some(Move::Refused) | None => Resolution::No {
                reason: "refused".to_owned(),
            },
        }
    }

    /// Takes the hold of a promise again, at recovery.
    pub(crate) fn restore(&mut self, transaction: TransactionId, redo: &[u8]) {
        self.holds.insert(transaction, amount(redo));
    }

    /// Carries a promise out; false if that was done before.
    pub(crate) fn commit(&mut self, transaction: TransactionId, redo: &[u8]) -> bool {
        self.holds.remove(&transaction);
        let first = self.books.applied.insert(transaction);
        if first || mutants::is_on(Mutant::M17) {
            self.books.balance += amount(redo);
        }
        first
    }

    /// Lets go.
    pub(crate) fn abort(&mut self, transaction: TransactionId) {
        self.holds.remove(&transaction);
    }

    /// Loses what is in memory only.
    pub(crate) fn crash(&mut self) {
        self.holds.clear();
    }
}

fn amount(redo: &[u8]) -> i64 {
    let text = std::str::from_utf8(redo).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use unanimo_core::Timestamp;

    fn transaction(n: u64) -> TransactionId {
        TransactionId::first_at(Timestamp::from_unix_ms(n))
    }

    fn operation(text: &str) -> Operation {
        Operation::new(text.to_owned().into_bytes())
    }

    #[test]
    fn what_is_held_is_not_spent_twice_and_a_commit_counts_once() {
        let mut bank = Bank::new(10);
        let first = bank.prepare(transaction(1), &operation("-7"));
        assert!(matches!(first, Resolution::Yes { redo } if redo == "-7"));
        let second = bank.prepare(transaction(2), &operation("-4"));
        assert!(matches!(second, Resolution::No { .. }));
        bank.crash();
        bank.restore(transaction(1), b"-7");
        assert!(matches!(
            bank.prepare(transaction(2), &operation("-4")),
            Resolution::No { .. }
        ));
        assert!(bank.commit(transaction(1), b"-7"));
        assert!(!bank.commit(transaction(1), b"-7"));
        assert_eq!(bank.books.balance, 3);
        assert_eq!(bank.holds().len(), 0);
    }

    #[test]
    fn work_adds_up() {
        let mut bank = Bank::new(10);
        bank.prepare(transaction(1), &operation("-7"));
        let more = bank.prepare(transaction(1), &operation("-3"));
        assert!(matches!(more, Resolution::Yes { redo } if redo == "-10"));
        bank.abort(transaction(1));
        assert_eq!(bank.free(), 10);
    }
}
