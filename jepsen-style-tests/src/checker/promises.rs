use super::{Case, Checker, Findings, needs};

/// V7: the promise behind every Yes that left a participant, and the end behind every Commit that it acknowledged, are
/// in its journal in the end, whatever happened to its process and its disk in between.
pub(super) struct Promises;

impl Checker for Promises {
    fn name(&self) -> &'static str {
        "promises"
    }

    fn checks(&self) -> &'static str {
        "V7: every Yes has its promise, and every acknowledged Commit its end, in the journal of who said it"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        for (name, found) in needs::journals(case, &mut findings) {
            let (Some(yes), Some(committed)) = (&found.said_yes, &found.said_committed) else {
                findings.miss(format!("what {name} has said"));
                continue;
            };
            findings.count("yes", yes.len() as u64);
            for tx in yes.iter().filter(|tx| !found.promised.contains_key(tx)) {
                let what = format!("{name} said Yes to {tx}; its journal has no promise");
                findings.violate("promise_lost", what, None);
            }
            findings.count("commits acknowledged", committed.len() as u64);
            // Below the watermark what is forgotten is acknowledged as well.
            let kept = committed.iter().filter(|tx| found.promised.contains_key(tx));
            for tx in kept.filter(|tx| !found.terminal.contains_key(tx)) {
                let what = format!("{name} acknowledged the commit of {tx}; its journal has no end of it");
                findings.violate("acknowledged_commit_lost", what, None);
            }
        }
        needs::something(&mut findings, "yes");
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, tx};

    #[test]
    fn what_was_said_and_is_there_is_right() {
        let findings = Made::with_transfers().assert(&Promises, &[]);
        assert!(findings.counted["yes"] > 5);
        assert!(findings.counted["commits acknowledged"] > 5);
    }

    #[test]
    fn a_yes_without_a_promise_is_found() {
        let mut made = Made::with_transfers();
        let found = made.participant("p2");
        found.said_yes.get_or_insert_default().insert(tx(99));
        made.assert(&Promises, &["promise_lost"]);
    }

    #[test]
    fn an_acknowledged_commit_without_an_end_is_found() {
        let mut made = Made::with_transfers();
        made.participant("p2").terminal.remove(&tx(1));
        made.assert(&Promises, &["acknowledged_commit_lost"]);
    }

    #[test]
    fn who_is_not_known_to_have_said_anything_is_no_pass() {
        let mut made = Made::with_transfers();
        made.participant("p1").said_yes = None;
        assert_eq!(Promises.check(&made.case()).verdict, Verdict::Unknown);
    }
}
