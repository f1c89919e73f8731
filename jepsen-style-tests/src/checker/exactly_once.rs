use std::collections::{BTreeMap, BTreeSet};

use super::nameless::{Nameless, is_part};
use super::told::{Fate, Transaction, Transactions, Way};
use super::{Case, Checker, Findings, needs};
use crate::evidence::EffectEvidence;
use crate::history::{Kind, Step, Tx};

/// V10: what committed is applied once at each of its members, as it was asked for; everything else never.
///
/// An idempotency key of which nobody heard accounts for the effects of one transaction that the history does not name.
/// Nothing else does.
pub(super) struct ExactlyOnce;

impl Checker for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly-once"
    }

    fn checks(&self) -> &'static str {
        "V10: a committed transaction is applied once at each member, any other nowhere"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let participants = needs::participants(case, &mut findings);
        let transactions = Transactions::of(case);
        let mut applied: BTreeMap<Tx, BTreeSet<&str>> = BTreeMap::new();
        let mut unresolved: BTreeSet<&str> = BTreeSet::new();
        for (name, participant) in &participants {
            for effect in &participant.effects {
                findings.count("effects", 1);
                let first = applied.entry(effect.transaction).or_default().insert(name);
                if !first || effect.times != 1 {
                    let what = format!(
                        "{}: {name} has applied it {} times",
                        effect.transaction, effect.times
                    );
                    findings.violate("applied_again", what, None);
                }
                expected(name, effect, &transactions, &mut findings);
            }
            if participant.in_doubt > 0 {
                unresolved.insert(name);
                findings.miss(format!(
                    "how {} branches end that are in doubt at {name}",
                    participant.in_doubt
                ));
            }
        }
        let nameless = Nameless::of(case, &transactions, &participants);
        findings.count("effects of keys that nobody heard of", nameless.accounted);
        for (tx, places) in &nameless.from_nowhere {
            let what = format!("{tx}: {places:?} have applied what nobody asked for, or not again");
            findings.violate("effect_from_nowhere", what, None);
        }
        if nameless.perhaps > 0 {
            findings.miss("how long keys were remembered");
        }
        let present: BTreeSet<&str> = participants.iter().map(|(name, _)| name.as_str()).collect();
        let none = BTreeSet::new();
        for (tx, transaction) in &transactions.known {
            findings.count("transactions", 1);
            let applied = applied.get(tx).unwrap_or(&none);
            let concluded = |name: &&&str| present.contains(**name) && !unresolved.contains(**name);
            judge(*tx, transaction, applied, concluded, &mut findings);
        }
        needs::something(&mut findings, "transactions");
        needs::something(&mut findings, "effects");
        findings
    }
}

/// One transaction: where it was applied, and where it should have been.
fn judge(
    tx: Tx,
    transaction: &Transaction<'_>,
    applied: &BTreeSet<&str>,
    concluded: impl Fn(&&&str) -> bool,
    findings: &mut Findings,
) {
    let line = transaction.attempts.first().map(|attempt| attempt.line());
    let failed =
        !transaction.attempts.is_empty() && transaction.attempts.iter().all(|a| a.kind() == Kind::Fail);
    if !applied.is_empty() && (failed || transaction.first(Way::Abort).is_some()) {
        findings.violate(
            "aborted_and_applied",
            format!("{tx} was aborted, and applied at {applied:?}"),
            line,
        );
        return;
    }
    if transaction.fate() != Fate::Committed {
        return;
    }
    findings.count("committed", 1);
    let Some(members) = transaction.members() else {
        return;
    };
    let lacking: Vec<&&str> = members
        .iter()
        .filter(|name| !applied.contains(**name))
        .filter(concluded)
        .collect();
    if lacking.is_empty() {
        return;
    }
    let kind = if applied.is_empty() {
        "effect_lost"
    } else {
        "half_committed"
    };
    let what = format!("{tx} committed: applied at {applied:?}, not at {lacking:?}");
    findings.violate(kind, what, line);
}

/// Whether somebody has asked for this effect, if the history has the transaction.
fn expected(name: &str, effect: &EffectEvidence, transactions: &Transactions<'_>, findings: &mut Findings) {
    let asks = |steps: &[Step]| is_part(name, steps, &effect.steps);
    let tx = effect.transaction;
    let Some(transaction) = transactions.known.get(&tx) else {
        return;
    };
    if !transaction.requests().into_iter().any(asks) {
        let line = transaction.attempts.first().map(|attempt| attempt.line());
        findings.violate(
            "wrong_effect",
            format!("{tx}: {name} has applied {:?}", effect.steps),
            line,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, add, transfer, tx};
    use crate::history::{Answer, Call, Style};

    #[test]
    fn once_everywhere_is_right() {
        let findings = Made::with_transfers().assert(&ExactlyOnce, &[]);
        assert!(findings.counted["committed"] > 0);
    }

    #[test]
    fn twice_is_found() {
        let mut made = Made::with_transfers();
        made.effect("p1", tx(1)).times = 2;
        made.assert(&ExactlyOnce, &["applied_again"]);
        let mut made = Made::with_transfers();
        let again = made.effect("p1", tx(1)).clone();
        made.participant("p1").effects.push(again);
        made.assert(&ExactlyOnce, &["applied_again"]);
    }

    #[test]
    fn half_a_commit_is_found() {
        let mut made = Made::with_transfers();
        made.participant("p2")
            .effects
            .retain(|effect| effect.transaction != tx(1));
        made.assert(&ExactlyOnce, &["half_committed"]);
    }

    #[test]
    fn a_commit_that_is_nowhere_is_found() {
        let mut made = Made::with_transfers();
        for name in ["p1", "p2"] {
            made.participant(name)
                .effects
                .retain(|effect| effect.transaction != tx(1));
        }
        made.assert(&ExactlyOnce, &["effect_lost"]);
    }

    #[test]
    fn an_aborted_transaction_that_was_applied_is_found() {
        let mut made = Made::with_transfers();
        let aborted = made.aborted();
        let mut effect = made.effect("p1", tx(1)).clone();
        effect.transaction = aborted;
        effect.steps = vec![add("", "a", -500)];
        made.participant("p1").effects.push(effect);
        made.assert(&ExactlyOnce, &["aborted_and_applied"]);
    }

    #[test]
    fn something_else_than_was_asked_for_is_found() {
        let mut made = Made::with_transfers();
        made.effect("p1", tx(1)).steps = vec![add("", "a", -6)];
        made.assert(&ExactlyOnce, &["wrong_effect"]);
    }

    #[test]
    fn what_nobody_asked_for_is_found() {
        let mut made = Made::with_transfers();
        let mut effect = made.effect("p1", tx(1)).clone();
        effect.transaction = tx(999);
        effect.steps = vec![add("", "a", 77)];
        made.participant("p1").effects.push(effect);
        made.assert(&ExactlyOnce, &["effect_from_nowhere"]);
    }

    fn keyed(transaction: Option<Tx>, key: &str, cents: i64) -> Call {
        Call::Transact {
            transaction,
            style: Style::OneShot,
            key: Some(key.to_owned()),
            steps: transfer(cents),
        }
    }

    #[test]
    fn a_key_that_nobody_heard_of_accounts_for_one_transaction() {
        let mut made = Made::with_transfers();
        for key in ["j", "k", "k"] {
            let open = made.begin(keyed(None, key, 3));
            made.complete_info(open);
        }
        made.apply(tx(50), &transfer(3));
        made.apply(tx(51), &transfer(3));
        let findings = made.assert(&ExactlyOnce, &[]);
        assert_eq!(findings.counted["effects of keys that nobody heard of"], 2);
        made.apply(tx(52), &transfer(3));
        made.assert(&ExactlyOnce, &["effect_from_nowhere"]);
    }

    #[test]
    fn a_key_that_was_told_accounts_for_nothing_else() {
        let mut made = Made::with_transfers();
        let first = made.begin(keyed(None, "k", 3));
        made.complete_info(first);
        let again = made.begin(keyed(Some(tx(60_050)), "k", 3));
        made.complete_ok(again, Answer::Committed);
        made.apply(tx(60_050), &transfer(3));
        made.assert(&ExactlyOnce, &[]);
        made.apply(tx(70_051), &transfer(3));
        made.assert(&ExactlyOnce, &["effect_from_nowhere"]);
        // It was forgotten in between, or perhaps.
        made.evidence.retention_ms = Some(10_000);
        made.assert(&ExactlyOnce, &[]);
        made.evidence.retention_ms = None;
        assert_eq!(made.check(&ExactlyOnce).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_request_that_was_refused_and_carried_out_is_found() {
        let mut made = Made::with_transfers();
        let refused = made.begin(keyed(None, "k", 3));
        made.complete_fail(refused, None);
        made.assert(&ExactlyOnce, &[]);
        made.apply(tx(50), &transfer(3));
        made.assert(&ExactlyOnce, &["effect_from_nowhere"]);
    }

    #[test]
    fn half_of_what_two_requests_became_is_found() {
        let mut made = Made::with_transfers();
        let refused = Answer::Aborted("another request".to_owned());
        made.fail(Some(tx(1)), transfer(6), Some(refused));
        made.assert(&ExactlyOnce, &[]);
        made.participant("p2")
            .effects
            .retain(|effect| effect.transaction != tx(1));
        made.assert(&ExactlyOnce, &["half_committed"]);
    }

    #[test]
    fn what_is_still_in_doubt_is_not_concluded() {
        let mut made = Made::with_transfers();
        made.participant("p2")
            .effects
            .retain(|effect| effect.transaction != tx(1));
        made.participant("p2").in_doubt = 1;
        assert_eq!(made.check(&ExactlyOnce).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_participant_that_did_not_answer_is_no_pass() {
        let mut made = Made::with_transfers();
        made.participant("p2").answered = false;
        assert_eq!(made.check(&ExactlyOnce).verdict, Verdict::Unknown);
    }
}
