//! Looks at what the audits saw that ran while the transfers did.

use unanimo_core::Decision;

use crate::BankName;
use crate::audit::{Evidence, Violation, agree, describe, describe_recorded, total};
use crate::auditor::SubmittedAudit;
use crate::load::Told;

/// What became of the audits that ran during the transfers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Those that committed.
    pub committed: u64,
    /// Those that did not: too much was going on.
    pub refused: u64,
    /// Those of which the auditor was not told what happened.
    pub unknown: u64,
    /// Those that committed and saw another sum than there is, or half of one.
    pub wrong: u64,
}

/// An audit that committed has to have seen what there is, and one that did not must have left nothing.
pub(crate) fn audit_sums(evidence: &Evidence, violations: &mut Vec<Violation>) -> AuditCounts {
    let expected = total(&evidence.opening);
    let mut counts = AuditCounts::default();
    for SubmittedAudit { transaction, told } in &evidence.audits {
        let transaction = *transaction;
        match told {
            Told::Decided(decision) if decision.is_commit() => counts.committed += 1,
            Told::Decided(_) | Told::Refused(_) => counts.refused += 1,
            Told::Unknown(_) => counts.unknown += 1,
        }
        let recorded = evidence.recorded.get(&transaction);
        if !agree(told, recorded) {
            violations.push(Violation::AuditOutcomeDiffers {
                transaction,
                told: describe(told),
                recorded: describe_recorded(recorded),
            });
        }
        let committed = [recorded, told.decision()]
            .into_iter()
            .flatten()
            .any(Decision::is_commit);
        let sum = |bank| evidence.sums.get(&bank).and_then(|sums| sums.get(&transaction));
        let before = violations.len();
        for bank in BankName::ALL {
            let has_sum = sum(bank).is_some();
            if has_sum != committed {
                violations.push(Violation::HalfAudit {
                    transaction,
                    outcome: recorded.map_or_else(|| describe(told), Decision::to_string),
                    bank,
                    has_sum,
                });
            }
        }
        let found: u128 = BankName::ALL
            .into_iter()
            .filter_map(sum)
            .map(|&sum| u128::from(sum))
            .sum();
        if committed && violations.len() == before && found != expected {
            violations.push(Violation::WrongAudit {
                transaction,
                found,
                expected,
            });
        }
        counts.wrong += u64::from(violations.len() > before);
    }
    counts
}
