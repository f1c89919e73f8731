use super::told::{Transactions, Way};
use super::{Case, Checker, Findings, needs};

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
        for (name, participant) in journals {
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
        needs::something(&mut findings, "transactions");
        findings
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
