use std::collections::BTreeMap;

use super::told::{Transactions, Way};
use super::{Case, Checker, Findings, needs};
use crate::evidence::ParticipantEvidence;
use crate::history::Tx;

/// V1, V2: whoever has a decision on a transaction has the same, and it never changes.
pub(super) struct Agreement;

impl Checker for Agreement {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn checks(&self) -> &'static str {
        "V1, V2: clients, nodes, journals and effects have one decision for each transaction, for ever"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        needs::nodes(case, &mut findings);
        needs::participants(case, &mut findings);
        let journals = needs::journals(case, &mut findings);
        let transactions = Transactions::of(case);
        for (tx, transaction) in &transactions.known {
            findings.count("transactions", 1);
            findings.count("sightings", transaction.sightings.len() as u64);
            let [commit, abort] = [Way::Commit, Way::Abort].map(|way| transaction.first(way));
            if let (Some(commit), Some(abort)) = (commit, abort) {
                let what = format!("{tx} has two decisions: {commit}; {abort}");
                findings.violate("two_decisions", what, commit.event().max(abort.event()));
            }
        }
        for (name, participant) in &journals {
            for (tx, ends) in &participant.terminal {
                let mut ways: Vec<Way> = ends.iter().filter_map(super::told::way).collect();
                ways.dedup();
                if ways.len() > 1 {
                    let what =
                        format!("{tx}: the journal of {name} ends it as {ways:?}, one after the other");
                    findings.violate("decision_changed", what, None);
                }
            }
        }
        among_journals(&journals, &transactions, &mut findings);
        needs::something(&mut findings, "transactions");
        findings
    }
}

/// Transactions of which no line of the history has the id: submitted under a key, and nobody heard of them.
fn among_journals(
    journals: &[(String, &ParticipantEvidence)],
    transactions: &Transactions<'_>,
    findings: &mut Findings,
) {
    let mut ended: BTreeMap<Tx, BTreeMap<Way, &str>> = BTreeMap::new();
    for (name, found) in journals {
        for (tx, ends) in &found.terminal {
            if !transactions.known.contains_key(tx) {
                let ways = ended.entry(*tx).or_default();
                ways.extend(
                    ends.iter()
                        .filter_map(super::told::way)
                        .map(|way| (way, name.as_str())),
                );
            }
        }
    }
    findings.count("transactions of journals only", ended.len() as u64);
    for (tx, ways) in ended {
        if let (Some(one), Some(other)) = (ways.get(&Way::Commit), ways.get(&Way::Abort))
            && one != other
        {
            let what =
                format!("{tx} has two decisions: the journal of {one} commits it, that of {other} aborts it");
            findings.violate("two_decisions", what, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, tx};
    use crate::history::Answer;

    #[test]
    fn everybody_has_the_same() {
        Made::with_transfers().assert(&Agreement, &[]);
    }

    #[test]
    fn a_node_that_has_another_decision_is_found() {
        let mut made = Made::with_transfers();
        let aborted = Answer::Aborted("presumed".to_owned());
        made.evidence.outcomes.get_mut(&3).unwrap().insert(tx(1), aborted);
        made.assert(&Agreement, &["two_decisions"]);
    }

    #[test]
    fn a_participant_that_went_its_own_way_is_found() {
        let mut made = Made::with_transfers();
        let ends = vec![Answer::Aborted("timeout".to_owned())];
        made.participant("p2").terminal.insert(tx(1), ends);
        made.assert(&Agreement, &["two_decisions"]);
    }

    #[test]
    fn an_effect_of_what_was_told_to_be_aborted_is_found() {
        let mut made = Made::with_transfers();
        let effect = made.participant("p1").effects[0].clone();
        let aborted = made.aborted();
        made.participant("p1")
            .effects
            .push(crate::evidence::EffectEvidence {
                transaction: aborted,
                ..effect
            });
        made.assert(&Agreement, &["two_decisions"]);
    }

    #[test]
    fn a_journal_that_changes_its_mind_is_found_though_nobody_else_noticed() {
        let mut made = Made::with_transfers();
        let ends = vec![Answer::Aborted("no".to_owned()), Answer::Committed];
        made.participant("p2").terminal.insert(tx(777), ends);
        made.assert(&Agreement, &["decision_changed"]);
    }

    #[test]
    fn journals_that_differ_are_found_though_no_client_heard_of_the_transaction() {
        let mut made = Made::with_transfers();
        for (name, end) in [
            ("p1", Answer::Committed),
            ("p2", Answer::Aborted("no".to_owned())),
        ] {
            made.participant(name).terminal.insert(tx(777), vec![end]);
        }
        made.assert(&Agreement, &["two_decisions"]);
        made.participant("p2")
            .terminal
            .insert(tx(777), vec![Answer::Committed]);
        made.assert(&Agreement, &[]);
    }

    #[test]
    fn two_answers_to_clients_are_found_in_the_history_alone() {
        let mut made = Made::with_transfers();
        made.query(tx(1), 1, Answer::Aborted("no".to_owned()));
        let findings = made.assert(&Agreement, &["two_decisions"]);
        assert_eq!(
            findings.violations[0].event,
            Some(made.history.events.len() as u64 - 1)
        );
    }

    #[test]
    fn nothing_is_concluded_from_nothing() {
        let made = Made::new();
        assert_eq!(made.check(&Agreement).verdict, Verdict::Unknown);
    }
}
