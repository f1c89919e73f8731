//! The ways in which a run can be wrong.

use std::fmt;

use thiserror::Error;
use unanimo_core::TransactionId;

use crate::{AccountId, BankName, Operation};

/// A transfer, as a violation names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Where it stands in its file.
    pub row: u64,
    /// What the one who asked for it calls it.
    pub key: String,
    /// Its transaction.
    pub transaction: TransactionId,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            row,
            key,
            transaction,
        } = self;
        write!(f, "row {row}, key {key}, transaction {transaction}")
    }
}

/// One way in which it does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// The initiator and the coordinators disagree.
    #[error("outcome differs: {culprit}: the initiator was told {told}, the coordinators have {recorded}")]
    OutcomeDiffers {
        /// The transfer.
        culprit: Culprit,
        /// What the initiator was told.
        told: String,
        /// What the coordinators have recorded.
        recorded: String,
    },
    /// A committed transfer happened at one bank and not at the other.
    #[error("half committed: {culprit}: it committed, but {missing} does not have it")]
    HalfCommitted {
        /// The transfer.
        culprit: Culprit,
        /// Who does not have it.
        missing: BankName,
    },
    /// A committed transfer happened nowhere.
    #[error("not applied: {culprit}: it committed, but no bank has it")]
    NotApplied {
        /// The transfer.
        culprit: Culprit,
    },
    /// A transfer that did not commit did something.
    #[error("effect without commit: {culprit}: {bank} has it, but the outcome is {outcome}")]
    EffectWithoutCommit {
        /// The transfer.
        culprit: Culprit,
        /// Who has it.
        bank: BankName,
        /// Its outcome.
        outcome: String,
    },
    /// A bank did something else than it was asked for.
    #[error("wrong effect: {culprit}: {bank} did {found:?} instead of {expected:?}")]
    WrongEffect {
        /// The transfer.
        culprit: Culprit,
        /// Which bank.
        bank: BankName,
        /// What it was asked for; None if it was not asked at all.
        expected: Option<Operation>,
        /// What it did.
        found: Operation,
    },
    /// A bank did something that nobody asked for.
    #[error("unasked effect: {bank} did {found:?} in transaction {transaction}, which nobody submitted")]
    UnaskedEffect {
        /// Which bank.
        bank: BankName,
        /// The transaction.
        transaction: TransactionId,
        /// What it did.
        found: Operation,
    },
    /// Something in the ledger happened twice, or not, or something that is not in the ledger happened.
    #[error("balance differs: {account} has {actual} cents, but its ledger makes it {expected} cents")]
    BalanceDiffers {
        /// The account.
        account: AccountId,
        /// What was there, and all that the ledgers say, added up.
        expected: i128,
        /// What is there.
        actual: i128,
    },
    /// An account was opened or closed meanwhile.
    #[error("accounts differ: {account} is {}", if *.appeared { "new" } else { "gone" })]
    AccountsDiffer {
        /// The account.
        account: AccountId,
        /// Whether it was not there before.
        appeared: bool,
    },
    /// There is more money than before.
    #[error("money created: {cents} cents more than before")]
    MoneyCreated {
        /// How much more.
        cents: u128,
    },
    /// There is less money than before.
    #[error("money destroyed: {cents} cents less than before")]
    MoneyDestroyed {
        /// How much less.
        cents: u128,
    },
    /// Every bank concerned had promised durably, and yet the decision was Abort.
    #[error(
        "aborted fully prepared: {transaction}: every bank concerned has the promise in its journal, the outcome is {outcome}"
    )]
    AbortedFullyPrepared {
        /// The transfer or audit.
        transaction: TransactionId,
        /// Its outcome.
        outcome: String,
    },
    /// An audit saw more or less money than there is.
    #[error("wrong audit: audit {transaction} saw {found} cents in total, but there are {expected}")]
    WrongAudit {
        /// The audit.
        transaction: TransactionId,
        /// What the banks' sums add up to.
        found: u128,
        /// What there is.
        expected: u128,
    },
    /// An audit committed, and a bank does not know what it told it; or the reverse.
    #[error("half an audit: the outcome of audit {transaction} is {outcome}, but {bank} has {} sum for it", if *.has_sum { "a" } else { "no" })]
    HalfAudit {
        /// The audit.
        transaction: TransactionId,
        /// Its outcome.
        outcome: String,
        /// The bank.
        bank: BankName,
        /// Whether the bank has a sum.
        has_sum: bool,
    },
    /// The auditor and the coordinators disagree.
    #[error(
        "outcome differs: audit {transaction}: the auditor was told {told}, the coordinators have {recorded}"
    )]
    AuditOutcomeDiffers {
        /// The audit.
        transaction: TransactionId,
        /// What the auditor was told.
        told: String,
        /// What the coordinators have recorded.
        recorded: String,
    },
    /// Somebody broke the rules of the protocol.
    #[error(
        "refused messages: the participant of {bank} refused {count} messages that break the protocol's rules"
    )]
    RefusedMessages {
        /// Whose participant.
        bank: BankName,
        /// How many.
        count: u64,
    },
}
