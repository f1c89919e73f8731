use std::collections::BTreeSet;

use super::quiet::delays_messages;
use super::told::{Transactions, Way};
use super::{Case, Checker, Findings, needs};
use crate::history::Tx;

/// V16, V17: what has ended stays ended. A message that comes late, or again, changes nothing: no promise, no lock and no
/// effect comes of it.
pub(super) struct LateMessages;

impl Checker for LateMessages {
    fn name(&self) -> &'static str {
        "late-messages"
    }

    fn checks(&self) -> &'static str {
        "V16, V17: late and repeated messages of ended transactions make no promise, hold no lock and apply nothing"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let journals = needs::journals(case, &mut findings);
        for (name, found) in &journals {
            findings.count("ended branches", found.terminal.len() as u64);
            for tx in &found.promised_after_end {
                let what = format!("{tx}: the journal of {name} has a promise after its end");
                findings.violate("promised_after_end", what, None);
            }
        }
        let participants = needs::participants(case, &mut findings);
        let aborted: BTreeSet<Tx> = Transactions::of(case)
            .known
            .iter()
            .filter(|(_, transaction)| {
                transaction.told(Way::Abort).is_some() && transaction.requests().len() <= 1
            })
            .map(|(tx, _)| *tx)
            .collect();
        for (name, found) in &participants {
            findings.count("effects", found.effects.len() as u64);
            for effect in found
                .effects
                .iter()
                .filter(|effect| aborted.contains(&effect.transaction))
            {
                let what = format!(
                    "{}: {name} has applied it, and a client was told that it was aborted",
                    effect.transaction
                );
                findings.violate("applied_after_abort", what, None);
            }
            if found.holding > 0 && found.in_doubt == 0 {
                let what = format!(
                    "{name} holds the locks of {} transactions, and none is in doubt",
                    found.holding
                );
                findings.violate("locks_left", what, None);
            }
        }
        for fault in case.faults.iter().filter(|fault| delays_messages(fault)) {
            match fault.evidence.as_deref() {
                Some(text) if text.contains("accepted") => {
                    findings.violate("late_message_accepted", format!("{}: {text}", fault.what), None);
                }
                Some(_) => findings.count("replays", 1),
                None => findings.miss(format!("whether {} happened", fault.fault)),
            }
        }
        needs::something(&mut findings, "ended branches");
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, tx};

    #[test]
    fn what_ended_and_stays_so_is_right() {
        let mut made = Made::with_transfers();
        made.fault("replay-prepare", 0, 1, Some("refused: it was aborted"));
        let findings = made.assert(&LateMessages, &[]);
        assert_eq!(findings.counted["replays"], 1);
    }

    #[test]
    fn a_promise_after_the_end_is_found() {
        let mut made = Made::with_transfers();
        let aborted = made.aborted();
        made.participant("p1").promised_after_end.insert(aborted);
        made.assert(&LateMessages, &["promised_after_end"]);
    }

    #[test]
    fn an_effect_of_what_was_aborted_is_found() {
        let mut made = Made::with_transfers();
        let aborted = made.aborted();
        made.effect("p1", tx(1)).transaction = aborted;
        made.assert(&LateMessages, &["applied_after_abort"]);
    }

    #[test]
    fn locks_that_nothing_holds_are_found() {
        let mut made = Made::with_transfers();
        made.participant("p1").holding = 1;
        made.assert(&LateMessages, &["locks_left"]);
    }

    #[test]
    fn a_late_message_that_was_accepted_is_found() {
        let mut made = Made::with_transfers();
        made.fault("late-commit", 0, 1, Some("accepted"));
        made.assert(&LateMessages, &["late_message_accepted"]);
    }

    #[test]
    fn a_replay_that_nobody_saw_is_no_pass() {
        let mut made = Made::with_transfers();
        made.fault("late-commit", 0, 1, None);
        assert_eq!(made.check(&LateMessages).verdict, Verdict::Unknown);
    }
}
