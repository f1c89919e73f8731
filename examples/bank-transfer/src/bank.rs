//! One bank: the resource manager that a service writes to take part in transactions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use unanimo_core::{Timestamp, TransactionId};
use unanimo_participant::Preparation;
use unanimo_proto::transport::{Clock as _, SystemClock};
use unanimo_table::{Checkpointer, Table};

use crate::asked::Promised;
use crate::audit_locks::AuditLocks;
use crate::books::{Books, MAX_PAGE, Totals};
use crate::holds::Holds;
use crate::{AccountId, BankError, BankName, Cents, Operation};

/// How long after its cut an audit takes its lock: transfers begun before the cut are on their way for about as long.
const STRAGGLERS: Duration = Duration::from_millis(25);
/// How far ahead an audit's cut may be. Everything begun after it waits, so an audit may not ask for more.
const FARTHEST_CUT: Duration = Duration::from_secs(1);
/// An audit makes way when no promise has gone for so long, several times what a transfer takes: then one of them
/// probably waits for the audit at the other bank.
const AUDIT_PATIENCE: Duration = Duration::from_millis(250);
/// And it makes way after so long in any case. Half of the usual time for voting, so that its refusal is heard.
const AUDIT_LONGEST: Duration = Duration::from_secs(5);
/// How long a transfer waits for an audit, which is decided within the same time as any transaction unless a bank or
/// the leader has died. Half of the usual time for voting, so that its refusal is heard.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(5);

/// One bank. A clone is another handle.
///
/// A commit changes the balances and writes its entry of the ledger in one batch, so a commit that is repeated finds
/// the entry and changes nothing, and a crash leaves both or neither.
///
/// A prepared transaction has holds, and a prepared audit has the lock on the bank, both in memory: what keeps them over
/// a restart is the participant's journal.
#[derive(Clone)]
pub struct Bank {
    name: BankName,
    books: Books,
    pub(crate) checkpointer: Checkpointer,
    // Held while balances are read and changed, so that two commits cannot both start from the same balance, and an
    // audit reads all of them at one moment.
    promises: Arc<Mutex<Promises>>,
    // A promise was kept or let go of: audits look whether it was the last.
    promise_gone: Arc<Notify>,
    // An audit let go of its lock: transfers look whether they may begin.
    audit_gone: Arc<Notify>,
}

/// What this bank has promised.
#[derive(Debug, Default)]
struct Promises {
    holds: Holds,
    audits: AuditLocks,
}

impl Bank {
    /// The bank whose accounts are in this table. The checkpointer is that table's.
    pub fn new(name: BankName, table: Arc<dyn Table>, checkpointer: Checkpointer) -> Self {
        Self {
            name,
            books: Books::new(table),
            checkpointer,
            promises: Arc::default(),
            promise_gone: Arc::default(),
            audit_gone: Arc::default(),
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
            let _promises = self.promises();
            let mut new = Vec::new();
            for &(account, balance) in accounts {
                if account.bank() != self.name {
                    return refused(format!(
                        "account {account} is kept by {}, this is {}",
                        account.bank(),
                        self.name
                    ));
                }
                match self.books.balance(account)? {
                    Some(open) if open != balance => {
                        return refused(format!("account {account} is open already, with {open} in it"));
                    }
                    Some(_) => {}
                    None => new.push((account, balance)),
                }
            }
            self.books.open_accounts(&new)?;
        }
        Ok(self.checkpointer.wait_durable().await?)
    }

    /// Everything added up, at one moment.
    pub fn totals(&self) -> Result<Totals, BankError> {
        // No commit can come between the two scans.
        let _promises = self.promises();
        let (accounts, balance) = self.books.balances()?;
        Ok(Totals {
            accounts,
            balance,
            ledger_entries: self.books.ledger_entries()?,
        })
    }

    /// The accounts that come after this one, in the order of their names.
    pub fn accounts(
        &self,
        after: Option<AccountId>,
        limit: usize,
    ) -> Result<Vec<(AccountId, Cents)>, BankError> {
        self.books.accounts(after, limit)
    }

    /// What transactions after this one did here, in the order of their ids.
    pub fn ledger(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<(TransactionId, Operation)>, BankError> {
        self.books.ledger(after, limit)
    }

    /// What audits after this one were told, if they committed, in the order of their ids.
    pub fn audits(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<(TransactionId, u64)>, BankError> {
        self.books.audits(after, limit)
    }

    /// Promises to move money, once no audit is in the way.
    pub(crate) async fn prepare_move(
        &self,
        transaction: TransactionId,
        operation: Operation,
    ) -> Result<Preparation, BankError> {
        let mut patience = None;
        loop {
            // Made before looking, so that no audit can end in between unnoticed.
            let audit_gone = self.audit_gone.notified();
            if let Some(answer) = self.promise(transaction, operation)? {
                return Ok(answer);
            }
            let until = *patience.get_or_insert_with(|| Instant::now() + TRANSFER_PATIENCE);
            if timeout_at(until, audit_gone).await.is_err() {
                return Ok(busy("an audit has the bank"));
            }
        }
    }

    /// Checks whether a transaction could do this, and takes the holds if so. None while an audit is in the way.
    fn promise(
        &self,
        transaction: TransactionId,
        operation: Operation,
    ) -> Result<Option<Preparation>, BankError> {
        let mut promises = self.promises();
        self.check_new(transaction)?;
        if promises.audits.keep_out(transaction) {
            return Ok(None);
        }
        let promised = promises
            .holds
            .promise(transaction, operation, |account| self.own_balance(account))?;
        Ok(Some(match promised {
            Ok(()) => Preparation::Yes {
                redo: Promised::Move(operation).encode(),
            },
            Err(refusal) => Preparation::No {
                reason: refusal.to_string(),
            },
        }))
    }

    /// Says whether so much is there and promised to nobody. Holds nothing, so it neither waits for audits nor stops
    /// them.
    pub(crate) fn check(&self, account: AccountId, at_least: Cents) -> Result<Preparation, BankError> {
        let promises = self.promises();
        let checked = promises
            .holds
            .check(account, at_least, self.own_balance(account)?);
        Ok(match checked {
            Ok(()) => Preparation::ReadOnly,
            Err(refusal) => Preparation::No {
                reason: refusal.to_string(),
            },
        })
    }

    /// Reads the sum of all accounts once no transfer is promised, and keeps new ones out until the audit is decided:
    /// see [`audit_locks`](crate::audit_locks).
    pub(crate) async fn prepare_audit(
        &self,
        audit: TransactionId,
        cut: Timestamp,
    ) -> Result<Preparation, BankError> {
        let to_cut = cut.since(SystemClock.now());
        if to_cut > FARTHEST_CUT {
            let reason =
                format!("malformed operation: the cut is {to_cut:?} ahead, use at most {FARTHEST_CUT:?}");
            return Ok(Preparation::No { reason });
        }
        if !self.promises().audits.announce(audit, cut) {
            return Ok(busy("too many audits at once"));
        }
        let to_lock = cut.after(STRAGGLERS).since(SystemClock.now());
        if !to_lock.is_zero() {
            sleep(to_lock).await;
        }
        let mut longest = None;
        loop {
            // Made before looking, so that no promise can go in between unnoticed.
            let promise_gone = self.promise_gone.notified();
            if let Some(total) = self.lock_and_read(audit)? {
                let redo = Promised::Audited { total }.encode();
                return Ok(Preparation::Yes { redo });
            }
            let now = Instant::now();
            let until = (now + AUDIT_PATIENCE).min(*longest.get_or_insert(now + AUDIT_LONGEST));
            if timeout_at(until, promise_gone).await.is_err() {
                self.release(audit);
                return Ok(busy("transfers are under way"));
            }
        }
    }

    /// The sum of all accounts, with the lock taken. None, and no lock, while a transfer is promised.
    fn lock_and_read(&self, audit: TransactionId) -> Result<Option<u64>, BankError> {
        let mut promises = self.promises();
        self.check_new(audit)?;
        if !promises.holds.is_empty() {
            return Ok(None);
        }
        let (_, sum) = self.books.balances()?;
        let Ok(total) = u64::try_from(sum) else {
            let what = format!("the sum of all accounts is {sum} cents");
            return Err(BankError::Damaged { what });
        };
        promises.audits.hold(audit);
        Ok(Some(total))
    }

    /// Lets go of whatever the transaction has.
    pub(crate) fn release(&self, transaction: TransactionId) {
        let mut promises = self.promises();
        promises.holds.release(transaction);
        promises.audits.release(transaction);
        drop(promises);
        self.promise_gone.notify_waiters();
        self.audit_gone.notify_waiters();
    }

    /// Changes the balances and writes the ledger, once. False if it was done before.
    pub(crate) fn apply(&self, transaction: TransactionId, operation: Operation) -> Result<bool, BankError> {
        let mut promises = self.promises();
        let newly_applied = !self.books.has_applied(transaction)?;
        if newly_applied {
            self.books.carry_out(transaction, operation)?;
            promises.holds.apply(transaction, operation);
        } else {
            promises.holds.release(transaction);
        }
        drop(promises);
        self.promise_gone.notify_waiters();
        Ok(newly_applied)
    }

    /// What was applied is on disk.
    pub(crate) fn settle(&self, operation: Operation) {
        self.promises().holds.settle(operation);
    }

    /// Writes down what an audit was told, and lets go of its lock: it is decided, so all have voted.
    pub(crate) fn apply_audit(&self, audit: TransactionId, total: u64) -> Result<(), BankError> {
        self.books.write_audit(audit, total)?;
        self.release(audit);
        Ok(())
    }

    /// Takes again what was promised before a restart, unless it has happened: then there is nothing to hold.
    pub(crate) fn take_again(&self, transaction: TransactionId, promised: Promised) -> Result<(), BankError> {
        let mut promises = self.promises();
        match promised {
            Promised::Move(operation) if !self.books.has_applied(transaction)? => {
                promises.holds.hold(transaction, operation);
            }
            Promised::Audited { .. } if !self.books.has_audit(transaction)? => {
                promises.audits.hold(transaction)
            }
            Promised::Move(_) | Promised::Audited { .. } => {}
        }
        Ok(())
    }

    /// An error if the transaction has committed here: then nobody may ask for a vote.
    fn check_new(&self, transaction: TransactionId) -> Result<(), BankError> {
        if self.books.has_applied(transaction)? || self.books.has_audit(transaction)? {
            let what = format!("transaction {transaction} is asked for a vote after it has committed");
            return Err(BankError::Mismatch { what });
        }
        Ok(())
    }

    /// What is on an account. One of the other bank is no more open here than one that does not exist.
    fn own_balance(&self, account: AccountId) -> Result<Option<Cents>, BankError> {
        if account.bank() == self.name {
            self.books.balance(account)
        } else {
            Ok(None)
        }
    }

    fn promises(&self) -> MutexGuard<'_, Promises> {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not now, but it may be tried again.
fn busy(why: &str) -> Preparation {
    Preparation::No {
        reason: format!("busy: {why}"),
    }
}
