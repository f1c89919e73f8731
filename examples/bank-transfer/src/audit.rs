//! Compares what everybody says in the end.
//!
//! The audit trusts nobody: it takes what the initiator was told, what the coordinators have recorded, what the banks
//! have in their ledgers and on their accounts, and names each way in which they do not fit. It asks nobody and does no
//! IO, so that a test can plant anything.

use std::collections::{BTreeMap, BTreeSet};

use unanimo_core::{Decision, TransactionId};

use crate::auditor::SubmittedAudit;
use crate::load::{Submitted, Told};
use crate::operation::operations;
pub use crate::sums::AuditCounts;
use crate::sums::audit_sums;
pub use crate::violation::{Culprit, Violation};
use crate::{AccountId, BankName, Cents, Operation, Transfer};

/// What everybody says.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What the accounts began with.
    pub opening: BTreeMap<AccountId, Cents>,
    /// What is on the accounts in the end.
    pub closing: BTreeMap<AccountId, Cents>,
    /// What transactions did, as each bank says.
    pub ledgers: BTreeMap<BankName, BTreeMap<TransactionId, Operation>>,
    /// What the initiator submitted, and was told.
    pub submitted: Vec<Submitted>,
    /// What the coordinators have recorded. What is not here is undecided.
    pub recorded: BTreeMap<TransactionId, Decision>,
    /// The audits that were submitted while the transfers ran, and what the auditor was told.
    pub audits: Vec<SubmittedAudit>,
    /// The sum that each bank told each audit that committed.
    pub sums: BTreeMap<BankName, BTreeMap<TransactionId, u64>>,
    /// What each bank has promised, by its own journal.
    pub promised: BTreeMap<BankName, BTreeSet<TransactionId>>,
    /// Messages that each bank's participant refused because nobody who keeps the rules sends them.
    pub refused_messages: BTreeMap<BankName, u64>,
}

/// What the audit found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Everything that does not fit.
    pub violations: Vec<Violation>,
    /// The sum of all accounts before, in cents.
    pub total_before: u128,
    /// The sum of all accounts after, in cents.
    pub total_after: u128,
    /// Transactions that were aborted although every bank concerned had promised.
    pub aborted_fully_prepared: u64,
    /// What became of the audits that ran during the transfers.
    pub audits: AuditCounts,
}

/// Finds everything in the evidence that does not fit.
pub fn audit(evidence: &Evidence) -> Audit {
    let mut violations = Vec::new();
    for submitted in &evidence.submitted {
        audit_transfer(evidence, submitted, &mut violations);
    }
    let aborted_fully_prepared = audit_promises(evidence, &mut violations);
    let audits = audit_sums(evidence, &mut violations);
    audit_unasked(evidence, &mut violations);
    audit_accounts(evidence, &mut violations);
    for (&bank, &count) in &evidence.refused_messages {
        if count > 0 {
            violations.push(Violation::RefusedMessages { bank, count });
        }
    }
    let (total_before, total_after) = (total(&evidence.opening), total(&evidence.closing));
    if total_after > total_before {
        violations.push(Violation::MoneyCreated {
            cents: total_after - total_before,
        });
    }
    if total_after < total_before {
        violations.push(Violation::MoneyDestroyed {
            cents: total_before - total_after,
        });
    }
    Audit {
        violations,
        total_before,
        total_after,
        aborted_fully_prepared,
        audits,
    }
}

pub(crate) fn total(accounts: &BTreeMap<AccountId, Cents>) -> u128 {
    accounts.values().map(|balance| u128::from(balance.get())).sum()
}

/// One transfer: as it was told, it has to be recorded; as it is recorded, it has to have happened.
fn audit_transfer(evidence: &Evidence, submitted: &Submitted, violations: &mut Vec<Violation>) {
    let Submitted {
        transfer,
        transaction,
        told,
    } = submitted;
    let culprit = || Culprit {
        row: transfer.row,
        key: transfer.key.clone(),
        transaction: *transaction,
    };
    let recorded = evidence.recorded.get(transaction);
    if !agree(told, recorded) {
        violations.push(Violation::OutcomeDiffers {
            culprit: culprit(),
            told: describe(told),
            recorded: describe_recorded(recorded),
        });
    }
    // Where the two disagree, a commit in either word has to have happened.
    let committed = recorded.is_some_and(Decision::is_commit) || *told == Told::Decided(Decision::Commit);
    if committed {
        audit_committed(evidence, transfer, *transaction, &culprit, violations);
    } else {
        for (&bank, ledger) in &evidence.ledgers {
            if ledger.contains_key(transaction) {
                let outcome = recorded.map_or_else(|| describe(told), Decision::to_string);
                violations.push(Violation::EffectWithoutCommit {
                    culprit: culprit(),
                    bank,
                    outcome,
                });
            }
        }
    }
}

fn audit_committed(
    evidence: &Evidence,
    transfer: &Transfer,
    transaction: TransactionId,
    culprit: &dyn Fn() -> Culprit,
    violations: &mut Vec<Violation>,
) {
    let expected: BTreeMap<BankName, Operation> = operations(transfer.from, transfer.to, transfer.amount)
        .into_iter()
        .collect();
    let done = |bank: BankName| {
        evidence
            .ledgers
            .get(&bank)
            .and_then(|ledger| ledger.get(&transaction))
            .copied()
    };
    let missing: Vec<BankName> = expected
        .keys()
        .copied()
        .filter(|&bank| done(bank).is_none())
        .collect();
    match missing.as_slice() {
        [] => {}
        all if all.len() == expected.len() => violations.push(Violation::NotApplied { culprit: culprit() }),
        some => violations.extend(some.iter().map(|&missing| Violation::HalfCommitted {
            culprit: culprit(),
            missing,
        })),
    }
    for bank in BankName::ALL {
        let expected = expected.get(&bank).copied();
        if let Some(found) = done(bank).filter(|found| Some(*found) != expected) {
            violations.push(Violation::WrongEffect {
                culprit: culprit(),
                bank,
                expected,
                found,
            });
        }
    }
}

/// What every bank concerned had promised must not be aborted. Returns how often it was.
fn audit_promises(evidence: &Evidence, violations: &mut Vec<Violation>) -> u64 {
    let transfers = evidence.submitted.iter().map(|submitted| {
        let Submitted {
            transfer,
            transaction,
            told,
        } = submitted;
        let concerned = operations(transfer.from, transfer.to, transfer.amount);
        let banks: Vec<BankName> = concerned.into_iter().map(|(bank, _)| bank).collect();
        (*transaction, told, banks)
    });
    let audits = evidence
        .audits
        .iter()
        .map(|audit| (audit.transaction, &audit.told, BankName::ALL.to_vec()));
    let mut found = 0;
    for (transaction, told, banks) in transfers.chain(audits) {
        let abort = [evidence.recorded.get(&transaction), told.decision()]
            .into_iter()
            .flatten()
            .find(|decision| !decision.is_commit());
        let promised = |bank: &BankName| {
            let promises = evidence.promised.get(bank);
            promises.is_some_and(|promises| promises.contains(&transaction))
        };
        if let Some(abort) = abort.filter(|_| banks.iter().all(promised)) {
            found += 1;
            violations.push(Violation::AbortedFullyPrepared {
                transaction,
                outcome: abort.to_string(),
            });
        }
    }
    found
}

/// Every entry of a ledger has to be of a transaction that was submitted.
fn audit_unasked(evidence: &Evidence, violations: &mut Vec<Violation>) {
    let asked: BTreeSet<TransactionId> = evidence
        .submitted
        .iter()
        .map(|submitted| submitted.transaction)
        .collect();
    for (&bank, ledger) in &evidence.ledgers {
        for (&transaction, &found) in ledger {
            if !asked.contains(&transaction) {
                violations.push(Violation::UnaskedEffect {
                    bank,
                    transaction,
                    found,
                });
            }
        }
    }
}

/// Every account has to hold what it began with and all that the ledgers say, added up: that an entry was applied
/// exactly once can be seen nowhere else.
fn audit_accounts(evidence: &Evidence, violations: &mut Vec<Violation>) {
    let mut expected: BTreeMap<AccountId, i128> = evidence
        .opening
        .iter()
        .map(|(&account, balance)| (account, i128::from(balance.get())))
        .collect();
    for operation in evidence.ledgers.values().flat_map(BTreeMap::values) {
        let amount = i128::from(operation.amount().get());
        if let Some(account) = operation.debited() {
            *expected.entry(account).or_default() -= amount;
        }
        if let Some(account) = operation.credited() {
            *expected.entry(account).or_default() += amount;
        }
    }
    let accounts: BTreeSet<AccountId> = evidence
        .opening
        .keys()
        .chain(evidence.closing.keys())
        .copied()
        .collect();
    for &account in &accounts {
        if evidence.opening.contains_key(&account) != evidence.closing.contains_key(&account) {
            let appeared = evidence.closing.contains_key(&account);
            violations.push(Violation::AccountsDiffer { account, appeared });
        }
    }
    for account in accounts
        .iter()
        .chain(expected.keys())
        .copied()
        .collect::<BTreeSet<_>>()
    {
        let expected = expected.get(&account).copied().unwrap_or_default();
        let actual = evidence
            .closing
            .get(&account)
            .map_or(0, |balance| i128::from(balance.get()));
        if actual != expected {
            violations.push(Violation::BalanceDiffers {
                account,
                expected,
                actual,
            });
        }
    }
}

/// Whether what the initiator was told is what the coordinators have.
pub(crate) fn agree(told: &Told, recorded: Option<&Decision>) -> bool {
    match (told, recorded) {
        (Told::Decided(told), Some(recorded)) => told == recorded,
        (Told::Decided(_), None) | (Told::Refused(_), Some(_)) => false,
        // Unknown stays unknown: whatever is recorded holds.
        (Told::Refused(_), None) | (Told::Unknown(_), _) => true,
    }
}

pub(crate) fn describe_recorded(recorded: Option<&Decision>) -> String {
    recorded.map_or_else(|| "no decision".to_owned(), Decision::to_string)
}

pub(crate) fn describe(told: &Told) -> String {
    match told {
        Told::Decided(decision) => decision.to_string(),
        Told::Refused(message) => message.clone(),
        Told::Unknown(_) => "that it is unknown".to_owned(),
    }
}
