use std::collections::BTreeSet;

use super::answered::Judged;
use super::quiet::{delays_messages, is_one_of};
use super::told::{Transactions, Way};
use super::{Case, Checker, Findings, needs};
use crate::history::Tx;
use crate::late::{Came, Ended, LateAnswers, Reaction};
use crate::nemesis::Injected;

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
        replays_what_was_forgotten(case, &mut findings);
        for answers in &case.evidence.late {
            let Some(judged) = judge(answers) else { continue };
            judged.note(answers, &mut findings);
        }
        needs::something(&mut findings, "ended branches");
        findings
    }
}

/// A run in which messages were to come after everybody forgot their transactions has answers to some.
fn replays_what_was_forgotten(case: &Case<'_>, findings: &mut Findings) {
    let planned = |fault: &Injected| is_one_of(fault, &["forgetting"]) && delays_messages(fault);
    if !case.faults.iter().any(planned) {
        return;
    }
    let answered = |late: &&LateAnswers| {
        late.fault.contains("forgetting")
            && late.forgotten
            && late.example.is_some()
            && !matches!(late.answer, Reaction::Nothing(_))
    };
    let answers = case.evidence.late.iter().filter(answered);
    let times: u64 = answers.map(|late| late.times).fold(0, u64::saturating_add);
    findings.count("late answers: of what was forgotten", times);
    if times == 0 {
        findings.miss("any answer to a message of a transaction that was forgotten");
    }
}

/// What one kind of answer is, if it is for this checker to say.
fn judge(answers: &LateAnswers) -> Option<Judged> {
    use Reaction::{Aborted, Acknowledged, Committed, No, ReadOnly, Yes};
    let LateAnswers {
        came,
        ended,
        forgotten,
        ..
    } = *answers;
    match came {
        Came::Late | Came::Again | Came::AfterRestart | Came::WithAnotherRequest | Came::Contradicting => {}
        Came::ToTheWrongOne | Came::FromAnotherCluster | Came::FromAnOldLife | Came::Malformed => {
            return None;
        }
    }
    if let Some(judged) = Judged::without_answer(&answers.answer) {
        return Some(judged);
    }
    let another = came == Came::WithAnotherRequest;
    Some(match (answers.method.as_str(), ended, &answers.answer) {
        (_, Ended::Open, _) => Judged::Same,
        // A tombstone may be lost in a crash (R4): then there is a promise, and the next inquiry ends it.
        ("Prepare", Ended::Aborted, Yes) if came == Came::AfterRestart => Judged::PromisedAgain,
        ("Prepare", Ended::Aborted, Yes) => Judged::Wrong("promised_after_abort"),
        ("Prepare", Ended::Committed, No) => Judged::Wrong("vote_changed"),
        ("Prepare", _, Yes | No | ReadOnly) => Judged::Same,
        // Of what was forgotten there is nothing left that could be committed or aborted.
        ("Commit" | "Abort", _, Acknowledged) if forgotten => Judged::Same,
        ("Commit", Ended::Committed, Acknowledged) | ("Abort", Ended::Aborted, Acknowledged) => Judged::Same,
        ("Commit", Ended::Aborted, Acknowledged) if came == Came::AfterRestart => Judged::Same,
        ("Commit", Ended::Aborted, Acknowledged) => Judged::Wrong("committed_after_abort"),
        ("Abort", Ended::Committed, Acknowledged) => Judged::Wrong("aborted_after_commit"),
        ("Submit" | "CommitTransaction" | "Inquire", _, Committed) if another => {
            Judged::Wrong("another_request_committed")
        }
        // Whoever asks about what all have acknowledged is nobody who is in doubt. Nor is he told Commit.
        ("Inquire", _, Aborted) if another || forgotten => Judged::Same,
        (_, Ended::Committed, Aborted) => Judged::Wrong("outcome_changed"),
        (_, Ended::Aborted, Committed) => Judged::Wrong("outcome_changed"),
        (_, Ended::Committed, Committed) | (_, Ended::Aborted, Aborted) => Judged::Same,
        (_, _, _) => Judged::Wrong("answer_out_of_place"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, answers, tx};

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

    #[test]
    fn the_same_answer_again_and_a_refusal_are_right() {
        use Reaction::*;
        let refused = |reason: &str| Refused(reason.to_owned());
        let right = [
            ("Prepare", Came::Again, Ended::Committed, Yes),
            ("Prepare", Came::Late, Ended::Aborted, No),
            ("Prepare", Came::Late, Ended::Open, Yes),
            ("Prepare", Came::AfterRestart, Ended::Aborted, Yes),
            ("Prepare", Came::Again, Ended::Committed, refused("EXPIRED")),
            ("Commit", Came::Again, Ended::Committed, Acknowledged),
            ("Abort", Came::Late, Ended::Aborted, Acknowledged),
            (
                "Abort",
                Came::Contradicting,
                Ended::Committed,
                refused("VIOLATION"),
            ),
            ("Submit", Came::Again, Ended::Committed, Committed),
            (
                "Submit",
                Came::WithAnotherRequest,
                Ended::Committed,
                refused("REQUEST_MISMATCH"),
            ),
            (
                "AbortTransaction",
                Came::Contradicting,
                Ended::Committed,
                Committed,
            ),
            ("Inquire", Came::WithAnotherRequest, Ended::Committed, Aborted),
            ("Inquire", Came::Again, Ended::Committed, Undecided),
        ];
        let mut made = Made::with_transfers();
        for (method, came, ended, answer) in right {
            made.evidence.late.push(answers(method, came, ended, answer));
        }
        let findings = made.assert(&LateMessages, &[]);
        assert_eq!(findings.counted["late answers: the same"], 8);
        assert_eq!(findings.counted["late answers: refused as EXPIRED"], 1);
        assert_eq!(
            findings.counted["late answers: promised again after a restart"],
            1
        );
    }

    #[test]
    fn an_answer_that_changes_what_has_ended_is_found() {
        use Reaction::*;
        let wrong = [
            ("Prepare", Came::Late, Ended::Aborted, Yes, "promised_after_abort"),
            ("Prepare", Came::Again, Ended::Committed, No, "vote_changed"),
            (
                "Commit",
                Came::Contradicting,
                Ended::Aborted,
                Acknowledged,
                "committed_after_abort",
            ),
            (
                "Abort",
                Came::Contradicting,
                Ended::Committed,
                Acknowledged,
                "aborted_after_commit",
            ),
            (
                "Submit",
                Came::WithAnotherRequest,
                Ended::Aborted,
                Committed,
                "another_request_committed",
            ),
            (
                "Submit",
                Came::Again,
                Ended::Committed,
                Aborted,
                "outcome_changed",
            ),
            (
                "Inquire",
                Came::Again,
                Ended::Aborted,
                Committed,
                "outcome_changed",
            ),
            (
                "AbortTransaction",
                Came::Contradicting,
                Ended::Committed,
                Aborted,
                "outcome_changed",
            ),
            (
                "Submit",
                Came::Again,
                Ended::Committed,
                Done,
                "answer_out_of_place",
            ),
        ];
        for (method, came, ended, answer, kind) in wrong {
            let mut made = Made::with_transfers();
            made.evidence.late.push(answers(method, came, ended, answer));
            made.assert(&LateMessages, &[kind]);
        }
    }

    #[test]
    fn a_replay_after_forgetting_of_nothing_forgotten_is_no_pass() {
        let mut made = Made::with_transfers();
        made.fault(
            "replay-after-forgetting",
            0,
            1,
            Some("1 Register refused as OUTDATED"),
        );
        let refused = || Reaction::Refused("EXPIRED".to_owned());
        made.evidence
            .late
            .push(answers("Prepare", Came::Again, Ended::Committed, refused()));
        assert_eq!(made.check(&LateMessages).verdict, Verdict::Unknown);
        let mut late = answers("Prepare", Came::Again, Ended::Committed, refused());
        late.forgotten = true;
        made.evidence.late.push(late.clone());
        assert_eq!(
            made.check(&LateMessages).verdict,
            Verdict::Unknown,
            "it was another fault"
        );
        late.fault = "replay-after-forgetting".to_owned();
        made.evidence.late.push(late);
        made.assert(&LateMessages, &[]);
    }

    #[test]
    fn of_what_was_forgotten_decisions_are_acknowledged_and_nothing_is_committed() {
        let made = |method, ended, answer| {
            let mut made = Made::with_transfers();
            let mut late = answers(method, Came::Again, ended, answer);
            late.forgotten = true;
            made.evidence.late.push(late);
            made
        };
        made("Abort", Ended::Committed, Reaction::Acknowledged).assert(&LateMessages, &[]);
        made("Inquire", Ended::Committed, Reaction::Aborted).assert(&LateMessages, &[]);
        made("Submit", Ended::Aborted, Reaction::Committed).assert(&LateMessages, &["outcome_changed"]);
        made("Submit", Ended::Committed, Reaction::Aborted).assert(&LateMessages, &["outcome_changed"]);
        made("Prepare", Ended::Aborted, Reaction::Yes).assert(&LateMessages, &["promised_after_abort"]);
    }
}
