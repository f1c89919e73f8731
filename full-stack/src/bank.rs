//! The service behind each participant: accounts on a table that loses what was not checkpointed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use unanimo_core::Timestamp;
use unanimo_core::mutants::{self, Mutant};
use unanimo_participant::{Bytes, Preparation, ResourceError, ResourceManager, TransactionId};
use unanimo_table::{Batch, MemoryTable, Table, TableError};

use crate::decided::Decided;
use crate::draw::Draw;
use crate::notes::Notes;

const ACCOUNT: &str = "account/";
const APPLIED: &str = "applied/";

/// What an operation does to accounts: by how much each changes. One that changes nothing only reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes(pub(crate) BTreeMap<u64, i64>);

impl Changes {
    pub(crate) fn encode(&self) -> Bytes {
        let words: Vec<String> = self
            .0
            .iter()
            .map(|(account, by)| format!("{account}:{by}"))
            .collect();
        words.join(" ").into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let change = |word: &str| {
            let (account, by) = word.split_once(':')?;
            Some((account.parse().ok()?, by.parse().ok()?))
        };
        text.split_whitespace()
            .map(change)
            .collect::<Option<_>>()
            .map(Self)
    }
}

/// The data of one bank. A clone is another handle; it outlives the process that uses it.
#[derive(Clone)]
pub(crate) struct Vault {
    pub(crate) table: MemoryTable,
}

impl Vault {
    /// Accounts that each begin with this balance.
    pub(crate) fn new(accounts: u64, balance: i64) -> Result<Self, TableError> {
        let table = MemoryTable::new();
        let mut batch = Batch::new();
        let mut opening = Changes::default();
        for account in 0..accounts {
            batch.put(format!("{ACCOUNT}{account}"), balance.to_string());
            opening.0.insert(account, balance);
        }
        batch.put(format!("{APPLIED}{}", Self::opening()), opening.encode());
        table.apply(batch)?;
        table.checkpoint()?;
        Ok(Self { table })
    }

    /// What stands for the opening balances among all that was applied.
    pub(crate) fn opening() -> TransactionId {
        TransactionId::new(Timestamp::from_unix_ms(0), 0)
    }

    fn balance(&self, account: u64) -> Result<Option<i64>, TableError> {
        let value = self.table.get(format!("{ACCOUNT}{account}").as_bytes())?;
        Ok(value.and_then(|value| String::from_utf8(value).ok()?.parse().ok()))
    }

    fn is_applied(&self, transaction: TransactionId) -> Result<bool, TableError> {
        let mark = self.table.get(format!("{APPLIED}{transaction}").as_bytes())?;
        Ok(mark.is_some())
    }

    /// Changes accounts, and writes down by how much each has really changed, behind what was written for this transaction
    /// before: if it comes twice, it stands there twice. Returns the accounts that are below zero now.
    fn apply(&self, transaction: TransactionId, changes: &Changes) -> Result<BTreeMap<u64, i64>, TableError> {
        let mut batch = Batch::new();
        let (mut made, mut below) = (Changes::default(), BTreeMap::new());
        for (account, by) in &changes.0 {
            let before = self.balance(*account)?.unwrap_or_default();
            let after = before + by;
            if after < 0 {
                below.insert(*account, after);
            }
            batch.put(format!("{ACCOUNT}{account}"), after.to_string());
            made.0.insert(*account, after - before);
        }
        let key = format!("{APPLIED}{transaction}");
        let mut lines = self.table.get(key.as_bytes())?.unwrap_or_default();
        if !lines.is_empty() {
            lines.push(b'\n');
        }
        lines.extend_from_slice(&made.encode());
        batch.put(key, lines);
        self.table.apply(batch)?;
        Ok(below)
    }

    /// Every balance.
    pub(crate) fn balances(&self) -> Result<BTreeMap<u64, i64>, TableError> {
        let mut balances = BTreeMap::new();
        for account in 0.. {
            let Some(balance) = self.balance(account)? else {
                break;
            };
            balances.insert(account, balance);
        }
        Ok(balances)
    }

    /// Every transaction whose effects have happened, with what each of its applications has changed. The opening is one.
    pub(crate) fn applied(&self) -> Result<BTreeMap<TransactionId, Vec<Changes>>, TableError> {
        let marks = self
            .table
            .scan(APPLIED.as_bytes(), Some(b"applied0"), usize::MAX)?;
        let applied = |(key, value): (Vec<u8>, Vec<u8>)| {
            let transaction = std::str::from_utf8(&key[APPLIED.len()..]).ok()?.parse().ok()?;
            let times = value.split(|byte| *byte == b'\n').map(Changes::decode);
            Some((transaction, times.collect::<Option<_>>()?))
        };
        Ok(marks.into_iter().filter_map(applied).collect())
    }
}

/// The bank of one life of a participant: the vault, and what is held for promises.
#[derive(Clone)]
pub(crate) struct Bank {
    name: Arc<str>,
    vault: Vault,
    notes: Notes,
    decided: Decided,
    shared: Arc<Mutex<Shared>>,
    /// How long a call takes at most.
    pause: Duration,
}

struct Shared {
    holds: BTreeMap<TransactionId, Changes>,
    /// What is held since before this life, so the promise is durable.
    promised: BTreeSet<TransactionId>,
    /// What has happened and is not checkpointed: a crash may lose it for a while, so nobody spends it.
    fresh: BTreeMap<TransactionId, Changes>,
    draw: Draw,
}

impl Bank {
    pub(crate) fn new(name: &str, vault: Vault, decided: Decided, draw: Draw, pause: Duration) -> Self {
        let shared = Shared {
            holds: BTreeMap::new(),
            promised: BTreeSet::new(),
            fresh: BTreeMap::new(),
            draw,
        };
        Self {
            name: name.into(),
            vault,
            notes: decided.notes(),
            decided,
            shared: Arc::new(Mutex::new(shared)),
            pause,
        }
    }

    /// For whom something is held.
    pub(crate) fn holds(&self) -> Vec<TransactionId> {
        self.lock().holds.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(&self) {
        let most = self.pause.as_micros() as u64;
        let pause = self.lock().draw.between(0, most);
        tokio::time::sleep(Duration::from_micros(pause)).await;
    }

    fn trace(&self, transaction: TransactionId, what: &str) {
        self.notes.trace(&self.name, format!("{transaction} {what}"));
    }

    /// Whether there is enough for these changes beside everything that is held.
    fn covers(&self, shared: &Shared, changes: &Changes) -> Result<bool, ResourceError> {
        for (account, by) in &changes.0 {
            let Some(balance) = self.vault.balance(*account).map_err(broken)? else {
                return Ok(false);
            };
            let held = shared.holds.values().filter_map(|held| held.0.get(account));
            let promised: i64 = held.filter(|by| **by < 0).sum();
            let fresh = shared.fresh.values().filter_map(|fresh| fresh.0.get(account));
            let unspendable: i64 = fresh.filter(|by| **by > 0).sum();
            if *by < 0 && balance + promised - unspendable + by < 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn apply(&self, transaction: TransactionId, changes: &Changes) -> Result<(), ResourceError> {
        for (account, balance) in self.vault.apply(transaction, changes).map_err(broken)? {
            let what = format!(
                "{} has {balance} in account {account} after {transaction}",
                self.name
            );
            self.notes.violate("overdrawn", what);
        }
        Ok(())
    }
}

impl ResourceManager for Bank {
    async fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        self.work().await;
        let no = |reason: &str| {
            Ok(Preparation::No {
                reason: reason.to_owned(),
            })
        };
        let Some(changes) = Changes::decode(&operation) else {
            return no("not understood");
        };
        if changes.0.is_empty() {
            self.trace(transaction, "only reads");
            return Ok(Preparation::ReadOnly);
        }
        let mut shared = self.lock();
        if !self.covers(&shared, &changes)? {
            drop(shared);
            self.notes.count("refused_by_a_service");
            self.trace(transaction, "is refused: not enough");
            return no("not enough");
        }
        shared.holds.insert(transaction, changes);
        drop(shared);
        self.trace(transaction, "is prepared");
        Ok(Preparation::Yes { redo: operation })
    }

    async fn commit(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        self.decided.check_heard(&self.name, transaction, true);
        self.work().await;
        let changes = Changes::decode(&redo).unwrap_or_default();
        let is_applied = self.vault.is_applied(transaction).map_err(broken)?;
        if is_applied {
            self.notes.count("commit_repeated_after_a_crash");
        }
        if !is_applied || mutants::is_on(Mutant::M17) {
            self.apply(transaction, &changes)?;
            self.lock().fresh.insert(transaction, changes);
            self.trace(transaction, "has happened");
        }
        // A crash may come here, and take along what is not checkpointed yet.
        self.work().await;
        self.vault.table.checkpoint().map_err(broken)?;
        let mut shared = self.lock();
        shared.holds.remove(&transaction);
        shared.fresh.remove(&transaction);
        Ok(())
    }

    async fn abort(&self, transaction: TransactionId, _: Option<Bytes>) -> Result<(), ResourceError> {
        let promised = self.lock().promised.contains(&transaction);
        if promised {
            // A promise is let go of for a decision only (R3). In its first life nobody here knows whether it was promised:
            // the time for it may have been over.
            self.decided.check_heard(&self.name, transaction, false);
        }
        self.work().await;
        if self.vault.is_applied(transaction).map_err(broken)? {
            let what = format!(
                "{} is told to abort {transaction}, which has happened there",
                self.name
            );
            self.notes.violate("aborted_after_commit", what);
        }
        self.lock().holds.remove(&transaction);
        self.trace(transaction, "is let go");
        Ok(())
    }

    async fn restore(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        if self.vault.is_applied(transaction).map_err(broken)? || mutants::is_on(Mutant::M19) {
            return Ok(());
        }
        let changes = Changes::decode(&redo).unwrap_or_default();
        let mut shared = self.lock();
        shared.holds.insert(transaction, changes);
        shared.promised.insert(transaction);
        drop(shared);
        self.notes.count("promise_restored");
        self.trace(transaction, "is held again");
        Ok(())
    }
}

fn broken(error: TableError) -> ResourceError {
    ResourceError::failed(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_is_written_down_as_often_as_it_was() {
        let vault = Vault::new(2, 10).unwrap();
        let transaction = TransactionId::new(Timestamp::from_unix_ms(1), 1);
        let changes = Changes(BTreeMap::from([(0, -4), (1, 4)]));
        assert_eq!(vault.apply(transaction, &changes).unwrap(), BTreeMap::new());
        assert_eq!(
            vault.applied().unwrap()[&transaction],
            std::slice::from_ref(&changes)
        );
        vault.apply(transaction, &changes).unwrap();
        assert_eq!(
            vault.applied().unwrap()[&transaction],
            [changes.clone(), changes.clone()]
        );
        assert_eq!(vault.balances().unwrap(), BTreeMap::from([(0, 2), (1, 18)]));
        assert_eq!(
            vault.apply(transaction, &changes).unwrap(),
            BTreeMap::from([(0, -2)])
        );
        let opening = Changes(BTreeMap::from([(0, 10), (1, 10)]));
        assert_eq!(vault.applied().unwrap()[&Vault::opening()], [opening]);
    }

    #[test]
    fn changes_read_back_as_they_were_written() {
        let changes = Changes(BTreeMap::from([(0, -5), (3, 5)]));
        assert_eq!(Changes::decode(&changes.encode()), Some(changes));
        assert_eq!(Changes::decode(b""), Some(Changes::default()));
        assert_eq!(Changes::decode(b"garbage"), None);
    }
}
