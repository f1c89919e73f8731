//! One bank: the resource manager that a service writes to take part in transactions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::oneshot;
use unanimo_core::TransactionId;
use unanimo_participant::{Preparation, ResourceError, ResourceManager};
use unanimo_table::{Batch, Checkpointer, Table, TableError};

use crate::holds::{Holds, Refusal};
use crate::{AccountId, BankName, Cents, Operation};

/// Entries in one page of a list, and accounts in one call that loads them, at most: less than a megabyte.
pub const MAX_PAGE: usize = 10_000;

/// One bank. A clone is another handle.
///
/// The table holds `a/<account>` with its balance, and the ledger: `t/<transaction>` with what the transaction did.
/// A commit changes the balances and writes its entry of the ledger in one batch, so a commit that is repeated finds
/// the entry and changes nothing, and a crash leaves both or neither.
///
/// A prepared transaction has holds, in memory: what keeps them over a restart is the participant's journal.
#[derive(Clone)]
pub struct Bank {
    name: BankName,
    table: Arc<dyn Table>,
    checkpointer: Checkpointer,
    // Held while balances are read and changed, so that two commits cannot both start from the same balance.
    holds: Arc<Mutex<Holds>>,
}

/// Why a bank cannot go on, or was asked for something that it does not do.
#[derive(Debug, Error)]
pub enum BankError {
    /// The table failed. Whether the last change is there is not known.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The table holds something that no bank has written.
    #[error("the accounts are damaged: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// A transaction would do again what it has done, or take an account where it cannot go: the accounts do not
    /// fit the participant's journal.
    #[error("the accounts and the participant's journal do not fit: {what}; restore both from the same copy")]
    Mismatch {
        /// What does not fit.
        what: String,
    },
    /// The call cannot be carried out; nothing was changed.
    #[error("{what}")]
    Refused {
        /// Why.
        what: String,
    },
}

/// Everything added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Accounts that are open.
    pub accounts: u64,
    /// The sum of their balances in cents.
    pub balance: u128,
    /// Transactions that did something here.
    pub ledger_entries: u64,
}

impl Bank {
    /// The bank whose accounts are in this table. The checkpointer is that table's.
    pub fn new(name: BankName, table: Arc<dyn Table>, checkpointer: Checkpointer) -> Self {
        Self {
            name,
            table,
            checkpointer,
            holds: Arc::default(),
        }
    }

    /// Which bank it is.
    pub fn name(&self) -> BankName {
        self.name
    }

    /// Opens accounts, all or none, and returns when they are on disk. One that is open with the same balance is
    /// left alone.
    pub async fn load(&self, accounts: &[(AccountId, Cents)]) -> Result<(), BankError> {
        let refused = |what: String| Err(BankError::Refused { what });
        if accounts.len() > MAX_PAGE {
            return refused(format!(
                "{} accounts are too many for one call, use at most {MAX_PAGE}",
                accounts.len()
            ));
        }
        {
            let _holds = self.holds();
            let mut batch = Batch::new();
            for &(account, balance) in accounts {
                if account.bank() != self.name {
                    return refused(format!(
                        "account {account} is kept by {}, this is {}",
                        account.bank(),
                        self.name
                    ));
                }
                match self.balance(account)? {
                    Some(open) if open != balance => {
                        return refused(format!("account {account} is open already, with {open} in it"));
                    }
                    Some(_) => {}
                    None => drop(batch.put(account_key(account), balance_value(balance))),
                }
            }
            self.table.apply(batch)?;
        }
        Ok(self.checkpointer.wait_durable().await?)
    }

    /// Everything added up, at one moment.
    pub fn totals(&self) -> Result<Totals, BankError> {
        // No commit can come between the two scans.
        let _holds = self.holds();
        let mut totals = Totals::default();
        let mut after = None;
        loop {
            let page = self.accounts(after, MAX_PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            totals.accounts += page.len() as u64;
            totals.balance += page
                .iter()
                .map(|(_, balance)| u128::from(balance.get()))
                .sum::<u128>();
        }
        let mut after = None;
        loop {
            let page = self.ledger(after, MAX_PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            totals.ledger_entries += page.len() as u64;
        }
        Ok(totals)
    }

    /// The accounts that come after this one, in the order of their names.
    pub fn accounts(
        &self,
        after: Option<AccountId>,
        limit: usize,
    ) -> Result<Vec<(AccountId, Cents)>, BankError> {
        let from = after.map_or_else(|| ACCOUNTS.to_vec(), |account| beyond(account_key(account)));
        let entries = self
            .table
            .scan(&from, Some(&end_of(ACCOUNTS)), limit.min(MAX_PAGE))?;
        let account = |(key, value): (Vec<u8>, Vec<u8>)| {
            let name = String::from_utf8_lossy(&key[ACCOUNTS.len()..]).into_owned();
            let account = name
                .parse()
                .map_err(|_| damaged(format!("there is an account {name:?}")))?;
            Ok((account, read_balance(account, &value)?))
        };
        entries.into_iter().map(account).collect()
    }

    /// What transactions after this one did here, in the order of their ids.
    pub fn ledger(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<(TransactionId, Operation)>, BankError> {
        let from = after.map_or_else(|| LEDGER.to_vec(), |transaction| beyond(ledger_key(transaction)));
        let entries = self
            .table
            .scan(&from, Some(&end_of(LEDGER)), limit.min(MAX_PAGE))?;
        let entry = |(key, value): (Vec<u8>, Vec<u8>)| {
            let bits = <[u8; 16]>::try_from(&key[LEDGER.len()..]).map(u128::from_be_bytes);
            let transaction = bits.ok().and_then(|bits| TransactionId::from_u128(bits).ok());
            let transaction =
                transaction.ok_or_else(|| damaged("an entry of the ledger is of no transaction"))?;
            Ok((transaction, read_entry(transaction, &value)?))
        };
        entries.into_iter().map(entry).collect()
    }

    /// Checks whether a transaction could do this, and takes the holds if so.
    fn promise(
        &self,
        transaction: TransactionId,
        operation: Operation,
    ) -> Result<Result<(), Refusal>, BankError> {
        let mut holds = self.holds();
        if self.has_applied(transaction)? {
            let what = format!("transaction {transaction} is asked for a vote after it has committed");
            return Err(BankError::Mismatch { what });
        }
        holds.promise(transaction, operation, |account| {
            // An account of the other bank is no more open here than one that does not exist.
            if account.bank() == self.name {
                self.balance(account)
            } else {
                Ok(None)
            }
        })
    }

    /// Takes the holds of a promise again, unless it has been kept already.
    fn take_again(&self, transaction: TransactionId, operation: Operation) -> Result<(), BankError> {
        let mut holds = self.holds();
        if !self.has_applied(transaction)? {
            holds.hold(transaction, operation);
        }
        Ok(())
    }

    /// Changes the balances and writes the ledger, once. False if it was done before.
    fn apply(&self, transaction: TransactionId, operation: Operation) -> Result<bool, BankError> {
        let mut holds = self.holds();
        if self.has_applied(transaction)? {
            holds.release(transaction);
            return Ok(false);
        }
        let mut batch = Batch::new();
        let mut change = |account, change: &dyn Fn(Cents) -> Option<Cents>| {
            let changed = self
                .balance(account)?
                .and_then(change)
                .ok_or_else(|| BankError::Mismatch {
                    what: format!(
                        "transaction {transaction} was promised {operation:?}, which cannot be done"
                    ),
                })?;
            batch.put(account_key(account), balance_value(changed));
            Ok::<(), BankError>(())
        };
        let amount = operation.amount();
        if let Some(account) = operation.debited() {
            change(account, &|balance| balance.checked_sub(amount))?;
        }
        if let Some(account) = operation.credited() {
            change(account, &|balance| balance.checked_add(amount))?;
        }
        batch.put(ledger_key(transaction), operation.encode());
        self.table.apply(batch)?;
        holds.apply(transaction, operation);
        Ok(true)
    }

    fn has_applied(&self, transaction: TransactionId) -> Result<bool, BankError> {
        Ok(self.table.get(&ledger_key(transaction))?.is_some())
    }

    fn balance(&self, account: AccountId) -> Result<Option<Cents>, BankError> {
        let value = self.table.get(&account_key(account))?;
        value.map(|value| read_balance(account, &value)).transpose()
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResourceManager for Bank {
    async fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        let no = |reason: String| Ok(Preparation::No { reason });
        match Operation::decode(&operation) {
            Ok(decoded) => match self.promise(transaction, decoded)? {
                Ok(()) => Ok(Preparation::Yes { redo: operation }),
                Err(refusal) => no(refusal.to_string()),
            },
            Err(malformed) => no(malformed.to_string()),
        }
    }

    async fn commit(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        let operation = read_redo(transaction, &redo)?;
        let newly_applied = self.apply(transaction, operation)?;
        let (sender, durable) = oneshot::channel();
        let holds = Arc::clone(&self.holds);
        // In the callback and not after the wait, because nobody may be waiting any more.
        self.checkpointer.durable(move |result| {
            if newly_applied && result.is_ok() {
                holds
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .settle(operation);
            }
            let _ = sender.send(result);
        });
        let durable = durable.await.unwrap_or(Err(TableError::Closed));
        Ok(durable.map_err(BankError::from)?)
    }

    async fn abort(&self, transaction: TransactionId, _redo: Option<Bytes>) -> Result<(), ResourceError> {
        self.holds().release(transaction);
        Ok(())
    }

    async fn restore(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        let operation = read_redo(transaction, &redo)?;
        Ok(self.take_again(transaction, operation)?)
    }
}

impl From<BankError> for ResourceError {
    /// None of them goes away by asking again.
    fn from(error: BankError) -> Self {
        Self::failed(error)
    }
}

const ACCOUNTS: &[u8] = b"a/";
const LEDGER: &[u8] = b"t/";

fn account_key(account: AccountId) -> Vec<u8> {
    [ACCOUNTS, account.to_string().as_bytes()].concat()
}

fn ledger_key(transaction: TransactionId) -> Vec<u8> {
    [LEDGER, &transaction.as_u128().to_be_bytes()].concat()
}

/// The first key after this one.
fn beyond(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The first key that does not begin with this prefix, which ends in a slash.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    [&prefix[..prefix.len() - 1], b"0"].concat()
}

fn balance_value(balance: Cents) -> [u8; 8] {
    balance.get().to_be_bytes()
}

fn read_balance(account: AccountId, value: &[u8]) -> Result<Cents, BankError> {
    let cents = <[u8; 8]>::try_from(value).map(u64::from_be_bytes);
    let balance = cents.ok().and_then(Cents::new);
    balance.ok_or_else(|| damaged(format!("the balance of {account} is {value:02x?}")))
}

fn read_entry(transaction: TransactionId, value: &[u8]) -> Result<Operation, BankError> {
    Operation::decode(value).map_err(|error| damaged(format!("the ledger's entry of {transaction}: {error}")))
}

fn read_redo(transaction: TransactionId, redo: &[u8]) -> Result<Operation, BankError> {
    Operation::decode(redo).map_err(|error| BankError::Mismatch {
        what: format!("the redo of {transaction}: {error}"),
    })
}

fn damaged(what: impl Into<String>) -> BankError {
    BankError::Damaged { what: what.into() }
}
