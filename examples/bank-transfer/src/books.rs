//! What a bank has on disk: accounts, ledger, and the totals that audits were told.

use std::sync::Arc;

use unanimo_core::TransactionId;
use unanimo_table::{Batch, Table};

use crate::{AccountId, BankError, Cents, Operation};

/// Entries in one page of a list, and accounts in one call that loads them, at most: less than a megabyte.
pub const MAX_PAGE: usize = 10_000;

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

/// What a bank has on disk. A clone is another handle.
///
/// The table holds `a/<account>` with its balance, the ledger, `t/<transaction>` with what the transaction did, and
/// `u/<transaction>` with the total that an audit was told.
#[derive(Clone)]
pub(crate) struct Books {
    table: Arc<dyn Table>,
}

impl Books {
    /// The books in this table.
    pub(crate) fn new(table: Arc<dyn Table>) -> Self {
        Self { table }
    }

    /// Opens accounts with these balances, all or none.
    pub(crate) fn open_accounts(&self, balances: &[(AccountId, Cents)]) -> Result<(), BankError> {
        let mut batch = Batch::new();
        for &(account, balance) in balances {
            batch.put(account_key(account), balance_value(balance));
        }
        Ok(self.table.apply(batch)?)
    }

    /// Changes the balances and writes the ledger, in one batch. It was promised, and has not happened yet.
    pub(crate) fn carry_out(
        &self,
        transaction: TransactionId,
        operation: Operation,
    ) -> Result<(), BankError> {
        let mut batch = Batch::new();
        let mut change = |account, change: &dyn Fn(Cents) -> Option<Cents>| {
            let changed = self.balance(account)?.and_then(change);
            let changed = changed.ok_or_else(|| BankError::Mismatch {
                what: format!("transaction {transaction} was promised {operation:?}, which cannot be done"),
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
        Ok(self.table.apply(batch)?)
    }

    /// Writes down what an audit was told.
    pub(crate) fn write_audit(&self, transaction: TransactionId, total: u64) -> Result<(), BankError> {
        let mut batch = Batch::new();
        batch.put(audit_key(transaction), total.to_be_bytes());
        Ok(self.table.apply(batch)?)
    }

    /// How many accounts there are, and the sum of their balances. Nobody may write meanwhile.
    pub(crate) fn balances(&self) -> Result<(u64, u128), BankError> {
        let (mut accounts, mut sum) = (0, 0);
        let mut after = None;
        loop {
            let page = self.accounts(after, MAX_PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok((accounts, sum));
            };
            after = Some(*last);
            accounts += page.len() as u64;
            sum += page
                .iter()
                .map(|(_, balance)| u128::from(balance.get()))
                .sum::<u128>();
        }
    }

    /// How many transactions did something here.
    pub(crate) fn ledger_entries(&self) -> Result<u64, BankError> {
        let mut entries = 0;
        let mut after = None;
        loop {
            let page = self.ledger(after, MAX_PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(entries);
            };
            after = Some(*last);
            entries += page.len() as u64;
        }
    }

    /// The accounts that come after this one, in the order of their names.
    pub(crate) fn accounts(
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
    pub(crate) fn ledger(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<(TransactionId, Operation)>, BankError> {
        let entries = self.of_transactions(LEDGER, after, limit)?;
        let entry = |(transaction, value): (TransactionId, Vec<u8>)| {
            Ok((transaction, read_entry(transaction, &value)?))
        };
        entries.into_iter().map(entry).collect()
    }

    /// What audits after this one were told, in the order of their ids.
    pub(crate) fn audits(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<(TransactionId, u64)>, BankError> {
        let entries = self.of_transactions(AUDITS, after, limit)?;
        let entry = |(transaction, value): (TransactionId, Vec<u8>)| {
            let total = <[u8; 8]>::try_from(value.as_slice()).map(u64::from_be_bytes);
            let total =
                total.map_err(|_| damaged(format!("the total of audit {transaction} is {value:02x?}")))?;
            Ok((transaction, total))
        };
        entries.into_iter().map(entry).collect()
    }

    /// What stands under this prefix, by transaction.
    fn of_transactions(
        &self,
        prefix: &[u8],
        after: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<(TransactionId, Vec<u8>)>, BankError> {
        let from = after.map_or_else(|| prefix.to_vec(), |after| beyond(transaction_key(prefix, after)));
        let entries = self
            .table
            .scan(&from, Some(&end_of(prefix)), limit.min(MAX_PAGE))?;
        let entry = |(key, value): (Vec<u8>, Vec<u8>)| {
            let bits = <[u8; 16]>::try_from(&key[prefix.len()..]).map(u128::from_be_bytes);
            let transaction = bits.ok().and_then(|bits| TransactionId::from_u128(bits).ok());
            let transaction = transaction.ok_or_else(|| damaged("an entry is of no transaction"))?;
            Ok((transaction, value))
        };
        entries.into_iter().map(entry).collect()
    }

    /// Whether the transaction's effects are in the balances.
    pub(crate) fn has_applied(&self, transaction: TransactionId) -> Result<bool, BankError> {
        Ok(self.table.get(&ledger_key(transaction))?.is_some())
    }

    /// Whether the audit's total is written down.
    pub(crate) fn has_audit(&self, transaction: TransactionId) -> Result<bool, BankError> {
        Ok(self.table.get(&audit_key(transaction))?.is_some())
    }

    /// What is on an account; None if it is not open.
    pub(crate) fn balance(&self, account: AccountId) -> Result<Option<Cents>, BankError> {
        let value = self.table.get(&account_key(account))?;
        value.map(|value| read_balance(account, &value)).transpose()
    }
}

const ACCOUNTS: &[u8] = b"a/";
const LEDGER: &[u8] = b"t/";
const AUDITS: &[u8] = b"u/";

fn account_key(account: AccountId) -> Vec<u8> {
    [ACCOUNTS, account.to_string().as_bytes()].concat()
}

fn ledger_key(transaction: TransactionId) -> Vec<u8> {
    transaction_key(LEDGER, transaction)
}

fn audit_key(transaction: TransactionId) -> Vec<u8> {
    transaction_key(AUDITS, transaction)
}

fn transaction_key(prefix: &[u8], transaction: TransactionId) -> Vec<u8> {
    [prefix, &transaction.as_u128().to_be_bytes()].concat()
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

fn damaged(what: impl Into<String>) -> BankError {
    BankError::Damaged { what: what.into() }
}
