use std::collections::{BTreeMap, BTreeSet};

use super::told::{At, Transactions, Way};
use super::{Case, Checker, Findings, needs};
use crate::history::{Call, Kind, Tx};

/// V26: who is told that it failed never sees anything of it, and who is told that it committed sees all of it.
///
/// Compares replies with effects and nothing else, so that it stands when nodes and journals agree with the reply and
/// only the data does not.
pub(super) struct HonestUnknowns;

impl Checker for HonestUnknowns {
    fn name(&self) -> &'static str {
        "honest-unknowns"
    }

    fn checks(&self) -> &'static str {
        "V26: told aborted means no effect anywhere, told committed means every effect, anything else is unknown"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        needs::nodes(case, &mut findings);
        let participants = needs::participants(case, &mut findings);
        let mut effects: BTreeMap<Tx, BTreeSet<&str>> = BTreeMap::new();
        for (name, participant) in &participants {
            for effect in &participant.effects {
                effects.entry(effect.transaction).or_default().insert(name);
            }
        }
        let none = BTreeSet::new();
        for (tx, transaction) in &Transactions::of(case).known {
            let effects = effects.get(tx).unwrap_or(&none);
            for attempt in &transaction.attempts {
                let line = attempt.line();
                let told = attempt.decision().map(|(way, _)| way);
                match (attempt.kind(), told) {
                    (Kind::Info | Kind::Invoke, _) => findings.count("unknown", 1),
                    (Kind::Ok, Some(Way::Commit)) => {
                        findings.count("told committed", 1);
                        let members = transaction.members().unwrap_or_default();
                        let lacks = |(name, found): &&(String, &crate::evidence::ParticipantEvidence)| {
                            members.contains(name.as_str())
                                && found.in_doubt == 0
                                && !effects.contains(name.as_str())
                        };
                        if let Some((name, _)) = participants.iter().find(lacks) {
                            let what = format!("{tx} was told to be committed, and {name} has nothing of it");
                            findings.violate("committed_without_effect", what, Some(line));
                        }
                    }
                    (Kind::Ok, _) => {
                        let what = format!("{tx} completed as ok, and nobody was told that it committed");
                        findings.violate("ok_without_commit", what, Some(line));
                    }
                    (Kind::Fail, told) => {
                        findings.count("told failed", 1);
                        // A repetition may be refused though the transaction goes on: it says nothing of the others.
                        let only = transaction.attempts.len() == 1;
                        if told == Some(Way::Commit) || only && committed(transaction, effects) {
                            let what = format!(
                                "{tx} was told to have failed, and it committed (effects at {effects:?})"
                            );
                            findings.violate("failed_and_committed", what, Some(line));
                        }
                    }
                }
            }
            for question in &transaction.questions {
                if let (Call::Abort { .. }, Some((Way::Abort, event))) =
                    (question.call(), question.decision())
                    && !effects.is_empty()
                    && transaction.requests().len() <= 1
                {
                    let what = format!("{tx} was told to be aborted, and has effects at {effects:?}");
                    findings.violate("aborted_with_effect", what, Some(event.index));
                }
            }
        }
        let looked = ["unknown", "told committed", "told failed"];
        let looked = looked.iter().filter_map(|what| findings.counted.get(*what)).sum();
        findings.count("replies", looked);
        needs::something(&mut findings, "replies");
        findings
    }
}

/// Whether anybody but the client has it as committed.
fn committed(transaction: &super::told::Transaction<'_>, effects: &BTreeSet<&str>) -> bool {
    let elsewhere = |at| matches!(at, At::Node(_) | At::Journal(_) | At::Applied(_));
    let seen = transaction
        .sightings
        .iter()
        .any(|sighting| sighting.way == Way::Commit && elsewhere(sighting.at));
    seen || !effects.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, transfer, tx};
    use crate::history::Answer;

    #[test]
    fn unknown_is_always_honest() {
        let mut made = Made::with_transfers();
        made.info(Some(tx(50)), transfer(1));
        made.apply(tx(50), &transfer(1));
        let findings = made.assert(&HonestUnknowns, &[]);
        assert_eq!(findings.counted["unknown"], 1);
    }

    #[test]
    fn a_timeout_reported_as_an_abort_is_found() {
        let mut made = Made::with_transfers();
        made.fail(
            Some(tx(50)),
            transfer(1),
            Some(Answer::Aborted("timeout".to_owned())),
        );
        made.apply(tx(50), &transfer(1));
        made.assert(&HonestUnknowns, &["failed_and_committed"]);
    }

    #[test]
    fn a_commit_that_nobody_asked_for_is_found() {
        let mut made = Made::with_transfers();
        made.fail(Some(tx(50)), transfer(1), Some(Answer::Committed));
        made.apply(tx(50), &transfer(1));
        made.assert(&HonestUnknowns, &["failed_and_committed"]);
    }

    #[test]
    fn a_refusal_that_went_on_is_found() {
        let mut made = Made::with_transfers();
        made.fail(Some(tx(50)), transfer(1), None);
        made.evidence
            .outcomes
            .get_mut(&1)
            .unwrap()
            .insert(tx(50), Answer::Committed);
        made.assert(&HonestUnknowns, &["failed_and_committed"]);
    }

    #[test]
    fn a_repetition_that_is_refused_says_nothing_of_the_first() {
        let mut made = Made::with_transfers();
        made.fail(Some(tx(1)), transfer(5), None);
        made.assert(&HonestUnknowns, &[]);
    }

    #[test]
    fn a_commit_of_which_nothing_is_there_is_found() {
        let mut made = Made::with_transfers();
        made.participant("p2")
            .effects
            .retain(|effect| effect.transaction != tx(1));
        made.assert(&HonestUnknowns, &["committed_without_effect"]);
    }

    #[test]
    fn an_abort_on_request_that_has_effects_is_found() {
        let mut made = Made::with_transfers();
        made.info(Some(tx(50)), transfer(1));
        made.apply(tx(50), &transfer(1));
        made.abort_asked(tx(50), Answer::Aborted("requested".to_owned()));
        made.assert(&HonestUnknowns, &["aborted_with_effect"]);
    }

    #[test]
    fn an_ok_that_says_nothing_is_found() {
        let mut made = Made::with_transfers();
        made.ok(Some(tx(50)), transfer(1), Answer::Undecided);
        made.assert(&HonestUnknowns, &["ok_without_commit"]);
    }

    #[test]
    fn without_what_participants_have_nothing_is_concluded() {
        let mut made = Made::with_transfers();
        made.evidence.participants.clear();
        assert_eq!(made.check(&HonestUnknowns).verdict, Verdict::Unknown);
    }
}
