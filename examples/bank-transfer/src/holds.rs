//! What is promised and not yet safe.

use std::collections::BTreeMap;

use thiserror::Error;
use unanimo_core::TransactionId;

use crate::{AccountId, Cents, Operation};

/// The holds of one bank: kept in memory, and taken again at recovery from what the participant has recorded.
///
/// Money on an account can be in three states besides lying there. It can be *promised*: some prepared transaction
/// will take it or bring it, if it commits. And it can be *applied*, in the balance but not yet on disk: after a crash
/// the balance is the old one and the promise stands again. So a promise may only rely on what would be there
/// whatever happens to the others: a debit not on money that is promised or has just arrived, a credit not on room
/// that is promised or has just been made.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    accounts: BTreeMap<AccountId, Held>,
    promises: BTreeMap<TransactionId, Operation>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    promised: Flow,
    applied: Flow,
}

/// Sums of cents. Each is at most [`Cents::MAX`] for promises that were checked, and nobody promises more than a few
/// thousand times at once, so they do not overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flow {
    out: u128,
    r#in: u128,
}

/// Why a bank refuses an operation. The part before the colon is the kind of refusal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Nobody opened it.
    #[error("unknown account: {account}")]
    UnknownAccount {
        /// The account.
        account: AccountId,
    },
    /// Less is there than is asked for, or others have been promised it.
    #[error("insufficient funds: {account} has {available} available, {needed} is needed")]
    InsufficientFunds {
        /// The account.
        account: AccountId,
        /// What is not promised to others.
        available: Cents,
        /// What is asked for.
        needed: Cents,
    },
    /// The account could hold more than can be written down.
    #[error("balance too large: {account} cannot take another {amount}")]
    BalanceTooLarge {
        /// The account.
        account: AccountId,
        /// What should arrive.
        amount: Cents,
    },
}

impl Holds {
    /// Checks a promise against the balances, and takes the holds if it can be kept. `balance` is None for an account
    /// that is not open.
    pub(crate) fn promise<E>(
        &mut self,
        transaction: TransactionId,
        operation: Operation,
        balance: impl Fn(AccountId) -> Result<Option<Cents>, E>,
    ) -> Result<Result<(), Refusal>, E> {
        // Asked twice is promised once.
        self.release(transaction);
        let needed = operation.amount();
        for account in operation.accounts() {
            let balance = balance(account)?;
            let checked = if operation.debited() == Some(account) {
                self.check(account, needed, balance)
            } else {
                self.check_room(account, needed, balance)
            };
            if let Err(refusal) = checked {
                return Ok(Err(refusal));
            }
        }
        self.hold(transaction, operation);
        Ok(Ok(()))
    }

    /// Whether a debit of this much could be promised. Nothing is held.
    pub(crate) fn check(
        &self,
        account: AccountId,
        needed: Cents,
        balance: Option<Cents>,
    ) -> Result<(), Refusal> {
        let Some(balance) = balance else {
            return Err(Refusal::UnknownAccount { account });
        };
        let held = self.accounts.get(&account).copied().unwrap_or_default();
        let available = held.available(balance);
        if available < needed {
            return Err(Refusal::InsufficientFunds {
                account,
                available,
                needed,
            });
        }
        Ok(())
    }

    /// Whether a credit of this much could be promised.
    fn check_room(&self, account: AccountId, amount: Cents, balance: Option<Cents>) -> Result<(), Refusal> {
        let Some(balance) = balance else {
            return Err(Refusal::UnknownAccount { account });
        };
        let held = self.accounts.get(&account).copied().unwrap_or_default();
        if !held.has_room(balance, amount) {
            return Err(Refusal::BalanceTooLarge { account, amount });
        }
        Ok(())
    }

    /// Whether nobody is promised anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.promises.is_empty()
    }

    /// Takes the holds of a promise that was made before a restart, without asking whether it could be made today.
    pub(crate) fn hold(&mut self, transaction: TransactionId, operation: Operation) {
        self.release(transaction);
        self.promises.insert(transaction, operation);
        self.change(operation, |held| &mut held.promised, |sum, amount| sum + amount);
    }

    /// Lets go of a transaction's holds, if it has any.
    pub(crate) fn release(&mut self, transaction: TransactionId) {
        if let Some(operation) = self.promises.remove(&transaction) {
            self.change(operation, |held| &mut held.promised, taken);
        }
    }

    /// The operation is in the balances now, but not on disk.
    pub(crate) fn apply(&mut self, transaction: TransactionId, operation: Operation) {
        self.release(transaction);
        self.change(operation, |held| &mut held.applied, |sum, amount| sum + amount);
    }

    /// The operation is on disk.
    pub(crate) fn settle(&mut self, operation: Operation) {
        self.change(operation, |held| &mut held.applied, taken);
    }

    fn change(
        &mut self,
        operation: Operation,
        flow: impl Fn(&mut Held) -> &mut Flow,
        change: impl Fn(u128, u128) -> u128,
    ) {
        let amount = u128::from(operation.amount().get());
        for account in operation.accounts() {
            let held = self.accounts.entry(account).or_default();
            let flow = flow(held);
            let sum = if operation.debited() == Some(account) {
                &mut flow.out
            } else {
                &mut flow.r#in
            };
            *sum = change(*sum, amount);
            if *held == Held::default() {
                self.accounts.remove(&account);
            }
        }
    }
}

fn taken(sum: u128, amount: u128) -> u128 {
    match sum.checked_sub(amount) {
        Some(rest) => rest,
        None => unreachable!("{amount} cents are let go of, but only {sum} are held"),
    }
}

impl Held {
    /// What a debit may rely on.
    fn available(&self, balance: Cents) -> Cents {
        let rest = u128::from(balance.get()).saturating_sub(self.promised.out + self.applied.r#in);
        // It is at most the balance.
        u64::try_from(rest)
            .ok()
            .and_then(Cents::new)
            .unwrap_or(Cents::ZERO)
    }

    /// Whether a credit fits in any case.
    fn has_room(&self, balance: Cents, amount: Cents) -> bool {
        let most = u128::from(balance.get()) + self.promised.r#in + self.applied.out;
        most + u128::from(amount.get()) <= u128::from(Cents::MAX.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unanimo_core::Timestamp;

    const A: &str = "north-000001";
    const B: &str = "north-000002";

    fn tx(number: u64) -> TransactionId {
        TransactionId::new(Timestamp::from_unix_ms(1_000 + number), 0)
    }

    fn cents(cents: u64) -> Cents {
        Cents::new(cents).unwrap()
    }

    fn debit(amount: u64) -> Operation {
        Operation::Debit {
            account: A.parse().unwrap(),
            amount: cents(amount),
        }
    }

    fn credit(amount: u64) -> Operation {
        Operation::Credit {
            account: A.parse().unwrap(),
            amount: cents(amount),
        }
    }

    /// Asks for a promise on accounts that all hold this much.
    fn promise(holds: &mut Holds, number: u64, operation: Operation, balance: Cents) -> Result<(), String> {
        let balance = |_| Ok::<_, ()>(Some(balance));
        holds
            .promise(tx(number), operation, balance)
            .unwrap()
            .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn what_is_promised_is_not_promised_again() {
        let mut holds = Holds::default();
        assert_eq!(promise(&mut holds, 1, debit(60), cents(100)), Ok(()));
        assert_eq!(
            promise(&mut holds, 2, debit(41), cents(100)).unwrap_err(),
            "insufficient funds: north-000001 has 0.40 available, 0.41 is needed"
        );
        assert_eq!(promise(&mut holds, 2, debit(40), cents(100)), Ok(()));
        holds.release(tx(1));
        assert_eq!(promise(&mut holds, 3, debit(60), cents(100)), Ok(()));
        // Asked again, it is not held twice.
        assert_eq!(promise(&mut holds, 3, debit(60), cents(100)), Ok(()));
    }

    #[test]
    fn a_promised_credit_is_no_money_yet() {
        let mut holds = Holds::default();
        assert_eq!(promise(&mut holds, 1, credit(50), cents(100)), Ok(()));
        assert!(promise(&mut holds, 2, debit(101), cents(100)).is_err());
    }

    #[test]
    fn money_that_arrived_is_available_once_it_is_on_disk() {
        let mut holds = Holds::default();
        assert_eq!(promise(&mut holds, 1, credit(50), cents(100)), Ok(()));
        holds.apply(tx(1), credit(50));
        assert!(promise(&mut holds, 2, debit(101), cents(150)).is_err());
        assert_eq!(promise(&mut holds, 2, debit(100), cents(150)), Ok(()));
        holds.settle(credit(50));
        assert_eq!(promise(&mut holds, 3, debit(50), cents(150)), Ok(()));
    }

    #[test]
    fn room_that_was_made_is_there_once_it_is_on_disk() {
        let mut holds = Holds::default();
        assert_eq!(promise(&mut holds, 1, debit(50), Cents::MAX), Ok(()));
        holds.apply(tx(1), debit(50));
        let balance = Cents::MAX.checked_sub(cents(50)).unwrap();
        assert_eq!(
            promise(&mut holds, 2, credit(1), balance).unwrap_err(),
            "balance too large: north-000001 cannot take another 0.01"
        );
        holds.settle(debit(50));
        assert_eq!(promise(&mut holds, 2, credit(30), balance), Ok(()));
        assert!(
            promise(&mut holds, 3, credit(21), balance).is_err(),
            "the room is promised"
        );
    }

    #[test]
    fn an_account_that_nobody_opened_is_refused_and_nothing_is_held() {
        let mut holds = Holds::default();
        let (from, to) = (A.parse().unwrap(), B.parse().unwrap());
        let operation = Operation::Transfer {
            from,
            to,
            amount: cents(1),
        };
        let only_a = |account| Ok::<_, ()>((account == from).then_some(cents(100)));
        let refusal = holds.promise(tx(1), operation, only_a).unwrap().unwrap_err();
        assert_eq!(refusal.to_string(), "unknown account: north-000002");
        assert!(holds.accounts.is_empty() && holds.promises.is_empty());
    }

    #[test]
    fn nothing_is_left_when_everything_is_let_go() {
        let mut holds = Holds::default();
        holds.hold(tx(1), debit(10));
        holds.hold(tx(2), credit(20));
        holds.apply(tx(2), credit(20));
        holds.settle(credit(20));
        holds.release(tx(1));
        holds.release(tx(1));
        assert!(holds.accounts.is_empty() && holds.promises.is_empty());
    }
}
