//! What the coordinators have decided, as seen where decisions come to be: a decision is one from the moment when any node
//! has applied it, and no crash takes it back. Whoever hears of it hears what is on the disks of a quorum, and a Commit rests
//! on promises that are on the disks of all members.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unanimo_core::{Decision, TransactionId};
use unanimo_proto::storage::decode_decision_record;
use unanimo_table::{Batch, Entry, Table, TableError};

use crate::disk::WatchedDisk;
use crate::failure::FailingTable;
use crate::notes::Notes;

/// Where decision records stand in a table; described where the coordinator keeps it.
const RECORD: u8 = b'd';

/// Every decision of a run, of all nodes and all their lives. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Decided {
    notes: Notes,
    decisions: Arc<Mutex<BTreeMap<TransactionId, Decision>>>,
    /// Who has to promise, of each transaction.
    writers: Arc<Mutex<BTreeMap<TransactionId, Vec<String>>>>,
    /// The logs of coordinators, and the journals of participants by name.
    logs: Arc<[WatchedDisk]>,
    journals: Arc<BTreeMap<String, WatchedDisk>>,
}

impl Decided {
    pub(crate) fn new(
        notes: Notes,
        logs: impl IntoIterator<Item = WatchedDisk>,
        journals: BTreeMap<String, WatchedDisk>,
    ) -> Self {
        Self {
            notes,
            decisions: Arc::default(),
            writers: Arc::default(),
            logs: logs.into_iter().collect(),
            journals: Arc::new(journals),
        }
    }

    /// Somebody asks for a transaction that changes something at these participants.
    pub(crate) fn expect(&self, transaction: TransactionId, writers: Vec<String>) {
        lock(&self.writers).entry(transaction).or_insert(writers);
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
        let durable = self
            .logs
            .iter()
            .filter(|log| log.has_durable(transaction))
            .count();
        if durable * 2 <= self.logs.len() {
            let nodes = self.logs.len();
            let what =
                format!("{who} hears of {transaction}, which is on the disks of {durable} of {nodes} nodes");
            self.notes.violate("heard_before_durable", what);
        }
    }

    /// A Commit is decided: who has to promise has promised, on disk (R3).
    fn check_promised(&self, transaction: TransactionId) {
        let writers = lock(&self.writers).get(&transaction).cloned().unwrap_or_default();
        let has_promised = |name: &&String| {
            let journal = self.journals.get(*name);
            journal.is_some_and(|journal| journal.has_durable(transaction))
        };
        for name in writers.iter().filter(|name| !has_promised(name)) {
            let what = format!("{transaction} is committed, and the disk of {name} has no promise");
            self.notes.violate("committed_before_promised", what);
        }
    }

    /// A node applies a record. The first decision holds for ever (R1).
    fn apply(&self, node: &str, key: &[u8], value: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
        let transaction = transaction_of(key)?;
        let decision = decode_decision_record(value)?.decision;
        let known = self.get(transaction);
        if known.is_none() && decision.is_commit() {
            self.check_promised(transaction);
        }
        let known = known.unwrap_or_else(|| {
            self.lock().insert(transaction, decision.clone());
            decision.clone()
        });
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
        lock(&self.decisions)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The transaction in the key of a decision record.
pub(crate) fn transaction_of(key: &[u8]) -> Result<TransactionId, Box<dyn std::error::Error>> {
    let bits: [u8; 16] = key[1..].try_into()?;
    Ok(TransactionId::from_u128(u128::from_be_bytes(bits))?)
}

/// The decision table of one node, with somebody who looks on.
pub(crate) struct WatchedTable {
    pub(crate) node: Arc<str>,
    pub(crate) table: FailingTable,
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
    use unanimo_journal::Disk;

    use super::*;
    use crate::clock::EPOCH;
    use crate::failure::{Failure, Part};

    fn decided() -> (Decided, TransactionId) {
        let decided = Decided::new(
            Notes::new(false),
            logs(&["c1"]),
            logs(&["p1"]).map(named).collect(),
        );
        let transaction = TransactionId::new(Timestamp::from_unix_ms(EPOCH.as_millis() as u64), 1);
        (decided, transaction)
    }

    fn logs(names: &[&str]) -> impl Iterator<Item = WatchedDisk> {
        let failure = |name: &&str| Failure::new(&Notes::new(false), &(*name).into(), Part::Journal);
        names
            .iter()
            .map(failure)
            .map(WatchedDisk::new)
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn named(disk: WatchedDisk) -> (String, WatchedDisk) {
        (disk.failure.host.to_string(), disk)
    }

    /// Writes something about a transaction, and syncs it or not.
    fn write(disk: &WatchedDisk, transaction: TransactionId, sync: bool) {
        let file = disk.create(&disk.list().unwrap().len().to_string()).unwrap();
        file.write_at(&transaction.as_u128().to_be_bytes(), 0).unwrap();
        if sync {
            file.sync_data().unwrap();
        }
    }

    fn kinds(decided: &Decided) -> Vec<String> {
        let violations = decided.notes.violations();
        violations.into_iter().map(|violation| violation.kind).collect()
    }

    fn record(decision: Decision) -> Vec<u8> {
        use unanimo_core::table::DecisionRecord;
        let record = DecisionRecord {
            decision,
            request_hash: unanimo_core::RequestHash::NONE,
            members: unanimo_core::Members::default(),
            unacknowledged: unanimo_core::Members::default(),
            decided_at: Timestamp::from_unix_ms(1),
        };
        unanimo_proto::storage::encode_decision_record(&record)
    }

    fn key(transaction: TransactionId) -> Vec<u8> {
        [&[RECORD], transaction.as_u128().to_be_bytes().as_slice()].concat()
    }

    #[test]
    fn what_is_heard_before_a_quorum_has_it_on_disk_is_a_violation() {
        let (mut decided, transaction) = decided();
        decided.logs = logs(&["c1", "c2", "c3"]).collect();
        decided.suppose(transaction, Decision::Commit);
        write(&decided.logs[0], transaction, true);
        write(&decided.logs[1], transaction, false);
        decided.check_heard("i1", transaction, true);
        assert_eq!(kinds(&decided), ["heard_before_durable"]);
        write(&decided.logs[1], transaction, true);
        decided.check_heard("i1", transaction, true);
        assert_eq!(kinds(&decided).len(), 1);
    }

    #[test]
    fn a_commit_on_a_promise_that_is_not_on_disk_is_a_violation() {
        for promised in [true, false] {
            let (decided, transaction) = decided();
            decided.expect(transaction, vec!["p1".to_owned()]);
            write(&decided.journals["p1"], transaction, promised);
            decided
                .apply("c1", &key(transaction), &record(Decision::Commit))
                .unwrap();
            let expected: &[&str] = if promised {
                &[]
            } else {
                &["committed_before_promised"]
            };
            assert_eq!(kinds(&decided), expected);
        }
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
        write(&decided.logs[0], transaction, true);
        decided.check_heard("i1", transaction, true);
        assert_eq!(decided.notes.violations(), []);
        decided.check_heard("i1", transaction, false);
        assert_eq!(decided.notes.violations().len(), 1);
    }

    #[test]
    fn a_second_decision_is_a_violation() {
        let (decided, transaction) = decided();
        let key = key(transaction);
        decided.apply("c1", &key, &record(Decision::Commit)).unwrap();
        decided.apply("c2", &key, &record(Decision::Commit)).unwrap();
        assert_eq!(decided.notes.violations(), []);
        let abort = Decision::Abort(AbortReason::Requested);
        decided.apply("c3", &key, &record(abort)).unwrap();
        assert_eq!(decided.notes.violations()[0].kind, "two_decisions");
    }
}
