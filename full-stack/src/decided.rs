//! What the coordinators have decided, as seen where decisions come to be: a decision is one from the moment when any node
//! has applied it, and no crash takes it back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unanimo_core::{Decision, TransactionId};
use unanimo_proto::storage::decode_decision_record;
use unanimo_table::{Batch, Entry, MemoryTable, Table, TableError};

use crate::notes::Notes;

/// Where decision records stand in a table; described where the coordinator keeps it.
const RECORD: u8 = b'd';

/// Every decision of a run, of all nodes and all their lives. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Decided {
    notes: Notes,
    decisions: Arc<Mutex<BTreeMap<TransactionId, Decision>>>,
}

impl Decided {
    pub(crate) fn new(notes: Notes) -> Self {
        Self {
            notes,
            decisions: Arc::default(),
        }
    }

    pub(crate) fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// The decision, if there is one.
    pub(crate) fn get(&self, transaction: TransactionId) -> Option<Decision> {
        self.lock().get(&transaction).cloned()
    }

    /// Somebody hears, or acts on, an outcome: it has to be decided, and so (R2).
    pub(crate) fn check_heard(&self, who: &str, transaction: TransactionId, commit: bool) {
        let decision = self.get(transaction);
        if decision.as_ref().map(Decision::is_commit) != Some(commit) {
            let word = if commit { "Commit" } else { "Abort" };
            let what = format!("{who} hears {word} of {transaction}, and decided is {decision:?}");
            self.notes.violate("heard_before_decided", what);
        }
    }

    /// A node applies a record. The first decision holds for ever (R1).
    fn apply(&self, node: &str, key: &[u8], value: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
        let transaction = transaction_of(key)?;
        let decision = decode_decision_record(value)?.decision;
        let known = self
            .lock()
            .entry(transaction)
            .or_insert_with(|| decision.clone())
            .clone();
        if known != decision {
            let what = format!("{transaction} is {decision:?} at {node} and was {known:?} before");
            self.notes.violate("two_decisions", what);
        }
        Ok(())
    }

    /// As if a node had applied it.
    #[cfg(test)]
    pub(crate) fn suppose(&self, transaction: TransactionId, decision: Decision) {
        self.lock().insert(transaction, decision);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TransactionId, Decision>> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The transaction in the key of a decision record.
pub(crate) fn transaction_of(key: &[u8]) -> Result<TransactionId, Box<dyn std::error::Error>> {
    let bits: [u8; 16] = key[1..].try_into()?;
    Ok(TransactionId::from_u128(u128::from_be_bytes(bits))?)
}

/// The decision table of one node, with somebody who looks on.
pub(crate) struct WatchedTable {
    pub(crate) node: Arc<str>,
    pub(crate) table: MemoryTable,
    pub(crate) decided: Decided,
}

impl Table for WatchedTable {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.table.get(key)
    }

    fn apply(&self, batch: Batch) -> Result<(), TableError> {
        for (key, value) in batch.changes().filter(|(key, _)| key.first() == Some(&RECORD)) {
            let Some(value) = value else {
                self.decided.notes.count("decision_forgotten");
                continue;
            };
            if let Err(error) = self.decided.apply(&self.node, key, value) {
                self.decided.notes.violate("unreadable", error.to_string());
            }
        }
        self.table.apply(batch)
    }

    fn scan(&self, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, TableError> {
        self.table.scan(from, until, limit)
    }

    fn checkpoint(&self) -> Result<(), TableError> {
        self.table.checkpoint()
    }
}

#[cfg(test)]
mod tests {
    use unanimo_core::{AbortReason, Timestamp};

    use super::*;

    fn decided() -> (Decided, TransactionId) {
        let decided = Decided::new(Notes::new(false));
        let transaction = TransactionId::new(Timestamp::from_unix_ms(1), 1);
        (decided, transaction)
    }

    #[test]
    fn what_is_heard_before_it_is_decided_is_a_violation() {
        let (decided, transaction) = decided();
        decided.check_heard("i1", transaction, true);
        assert_eq!(decided.notes.violations()[0].kind, "heard_before_decided");
    }

    #[test]
    fn what_is_heard_otherwise_than_decided_is_a_violation() {
        let (decided, transaction) = decided();
        decided.suppose(transaction, Decision::Commit);
        decided.check_heard("i1", transaction, true);
        assert_eq!(decided.notes.violations(), []);
        decided.check_heard("i1", transaction, false);
        assert_eq!(decided.notes.violations().len(), 1);
    }

    #[test]
    fn a_second_decision_is_a_violation() {
        use unanimo_core::table::DecisionRecord;
        let (decided, transaction) = decided();
        let record = |decision| {
            let record = DecisionRecord {
                decision,
                request_hash: unanimo_core::RequestHash::NONE,
                members: unanimo_core::Members::default(),
                unacknowledged: unanimo_core::Members::default(),
                decided_at: Timestamp::from_unix_ms(1),
            };
            unanimo_proto::storage::encode_decision_record(&record)
        };
        let key = [&[RECORD], transaction.as_u128().to_be_bytes().as_slice()].concat();
        decided.apply("c1", &key, &record(Decision::Commit)).unwrap();
        decided.apply("c2", &key, &record(Decision::Commit)).unwrap();
        assert_eq!(decided.notes.violations(), []);
        let abort = Decision::Abort(AbortReason::Requested);
        decided.apply("c3", &key, &record(abort)).unwrap();
        assert_eq!(decided.notes.violations()[0].kind, "two_decisions");
    }
}
