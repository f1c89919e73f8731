use super::told::{Transactions, Way, way};
use super::{Case, Checker, Findings, expired, needs};
use crate::history::{Answer, Tx};

/// V6, V8: what a client was told is so at every node afterwards, by the node's own word, unless it is so old that it may
/// be forgotten; and what was told to be committed is committed in the journal of every member, which outlived every kill
/// and power loss of the run.
pub(super) struct Durability;

impl Checker for Durability {
    fn name(&self) -> &'static str {
        "durability"
    }

    fn checks(&self) -> &'static str {
        "V6, V8: what was told to a client is known to every node, and committed in the journal of every member"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let nodes = needs::nodes(case, &mut findings);
        let journals = needs::journals(case, &mut findings);
        for (node, outcomes) in &case.evidence.outcomes {
            for (tx, _) in outcomes.iter().filter(|(_, answer)| **answer == Answer::Expired) {
                let at = case.evidence.asked_unix_ms;
                expired::judge(*tx, &format!("node c{node}"), at, None, case, &mut findings);
            }
        }
        for (tx, transaction) in &Transactions::of(case).known {
            for told in [Way::Commit, Way::Abort] {
                let Some(event) = transaction.told(told) else {
                    continue;
                };
                findings.count("acknowledged", 1);
                let line = Some(event.index);
                for node in &nodes {
                    let answer = case
                        .evidence
                        .outcomes
                        .get(node)
                        .and_then(|outcomes| outcomes.get(tx));
                    node_knows(*tx, told, *node, answer, line, &mut findings);
                }
                let members = match told {
                    Way::Commit => transaction.members().unwrap_or_default(),
                    Way::Abort => Default::default(),
                };
                for (name, found) in journals
                    .iter()
                    .filter(|(name, _)| members.contains(name.as_str()))
                {
                    let ends = found.terminal.get(tx);
                    let committed = ends.is_some_and(|ends| ends.contains(&Answer::Committed));
                    findings.count("journal records", u64::from(committed));
                    if !committed && found.in_doubt == 0 {
                        let what = format!(
                            "line {} told that {tx} committed; the journal of {name} does not",
                            event.index
                        );
                        findings.violate("commit_lost_at_participant", what, line);
                    }
                }
            }
        }
        for (name, found) in &journals {
            if found.in_doubt > 0 {
                findings.miss(format!(
                    "how {} branches end that are in doubt at {name}",
                    found.in_doubt
                ));
            }
        }
        needs::something(&mut findings, "acknowledged");
        findings
    }
}

fn node_knows(
    tx: Tx,
    told: Way,
    node: u64,
    answer: Option<&Answer>,
    line: Option<u64>,
    findings: &mut Findings,
) {
    match answer {
        None => findings.miss(format!("what node c{node} knows of {tx}")),
        // Judged wherever it was answered.
        Some(Answer::Expired) => {}
        Some(Answer::Undecided) => {
            let what = format!("{tx} was told to be decided ({told}); node c{node} does not know");
            findings.violate("acknowledged_lost", what, line);
        }
        Some(answer) if way(answer) == Some(told) => findings.count("confirmed", 1),
        Some(answer) => {
            let what = format!("{tx} was told to be decided ({told}); node c{node} says {answer:?}");
            findings.violate("acknowledged_changed", what, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, tx};

    #[test]
    fn what_everybody_knows_is_durable() {
        let findings = Made::with_transfers().assert(&Durability, &[]);
        assert_eq!(findings.counted["confirmed"], 21);
        assert_eq!(findings.counted["journal records"], 12);
    }

    #[test]
    fn a_decision_that_a_node_lost_is_found() {
        for tx in [tx(1), Made::with_transfers().aborted()] {
            let mut made = Made::with_transfers();
            made.evidence
                .outcomes
                .get_mut(&2)
                .unwrap()
                .insert(tx, Answer::Undecided);
            made.assert(&Durability, &["acknowledged_lost"]);
        }
    }

    #[test]
    fn a_decision_that_a_node_forgot_too_early_is_found() {
        let mut made = Made::with_transfers();
        made.evidence
            .outcomes
            .get_mut(&2)
            .unwrap()
            .insert(tx(1), Answer::Expired);
        made.assert(&Durability, &["expired_too_early"]);
        // In a run in which nodes forget, and it had its time.
        made.evidence.retention_ms = Some(20_000);
        made.assert(&Durability, &[]);
        made.evidence.asked_unix_ms = Some(18_000);
        made.assert(&Durability, &["expired_too_early"]);
        made.evidence.retention_ms = None;
        assert_eq!(made.check(&Durability).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_decision_that_a_node_changed_is_found() {
        let mut made = Made::with_transfers();
        let other = Answer::Aborted("presumed".to_owned());
        made.evidence.outcomes.get_mut(&2).unwrap().insert(tx(1), other);
        made.assert(&Durability, &["acknowledged_changed"]);
    }

    #[test]
    fn a_commit_that_a_journal_lost_is_found() {
        let mut made = Made::with_transfers();
        made.participant("p2").terminal.remove(&tx(1));
        made.assert(&Durability, &["commit_lost_at_participant"]);
    }

    #[test]
    fn what_a_node_was_not_asked_is_no_pass() {
        let mut made = Made::with_transfers();
        made.evidence.outcomes.get_mut(&2).unwrap().remove(&tx(1));
        assert_eq!(made.check(&Durability).verdict, Verdict::Unknown);
        let mut made = Made::with_transfers();
        made.evidence.outcomes.remove(&2);
        assert_eq!(made.check(&Durability).verdict, Verdict::Unknown);
    }
}
