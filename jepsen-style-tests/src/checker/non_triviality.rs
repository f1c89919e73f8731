use super::quiet::{Disturbed, MS};
use super::told::{Attempt, Transaction, Transactions};
use super::{Case, Checker, Findings, needs};
use crate::history::{Call, Kind};
use crate::store::{LOCKED, TOO_LITTLE};

/// V4: what nothing disturbs commits. A system that always aborts breaks no other rule.
///
/// Looks at the operations that began and completed while nothing was disturbed. Not counted: what a store refused for a
/// reason of its own, what a client asked to be aborted or repeated, and clients that went away by themselves, whose
/// error says `went away`.
pub(super) struct NonTriviality;

/// How long a fault has consequences.
const SETTLE_MS: u64 = 2_000;
/// One in so many may fail.
const ONE_IN: u64 = 1000;
/// From so many on, one has to commit, whatever the reasons of the others are.
const ENOUGH: u64 = 20;

/// What became of an operation.
enum Fared {
    Committed,
    /// Refused by a store for a reason of its own.
    Refused,
    /// Not to be counted.
    Left,
    Failed,
}

impl Checker for NonTriviality {
    fn name(&self) -> &'static str {
        "non-triviality"
    }

    fn checks(&self) -> &'static str {
        "V4: while nothing is disturbed 99.9 % commit, apart from what stores refuse for reasons of their own"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let disturbed = Disturbed::by(case.faults, SETTLE_MS * MS);
        let (mut committed, mut refused) = (0, 0);
        let mut failed: Vec<Attempt<'_>> = Vec::new();
        let transactions = Transactions::of(case);
        let unnamed = Transaction::default();
        let named = transactions
            .known
            .values()
            .flat_map(|known| known.attempts.iter().map(move |a| (known, a)));
        for (transaction, attempt) in named.chain(transactions.nameless.iter().map(|a| (&unnamed, a))) {
            let until = attempt.completed.map_or(u64::MAX, |event| event.time_ns);
            if !disturbed.is_quiet(attempt.invoked.time_ns, until) {
                continue;
            }
            match fared(transaction, attempt) {
                Fared::Committed => committed += 1,
                Fared::Refused => refused += 1,
                Fared::Left => {}
                Fared::Failed => failed.push(*attempt),
            }
        }
        findings.count("committed", committed);
        findings.count("refused by stores", refused);
        findings.count("failed", failed.len() as u64);
        let total = committed + failed.len() as u64;
        findings.count("quiet operations", total + refused);
        if failed.len() as u64 * ONE_IN > total {
            for attempt in &failed {
                let what = format!("nothing was disturbed, and it failed: {}", reason(attempt));
                findings.violate("failed_for_nothing", what, Some(attempt.line()));
            }
        }
        if committed == 0 && total + refused >= ENOUGH {
            let what = format!(
                "nothing was disturbed, and none of {} operations committed",
                total + refused
            );
            findings.violate("nothing_commits", what, None);
        }
        needs::something(&mut findings, "quiet operations");
        findings
    }
}

fn fared(transaction: &Transaction<'_>, attempt: &Attempt<'_>) -> Fared {
    if attempt.kind() == Kind::Ok {
        return Fared::Committed;
    }
    let reason = reason(attempt);
    let to_be_aborted = transaction
        .questions
        .iter()
        .any(|question| matches!(question.call(), Call::Abort { .. }));
    let keyed = matches!(attempt.call(), Call::Transact { key: Some(_), .. });
    if reason.contains(LOCKED) || reason.contains(TOO_LITTLE) {
        Fared::Refused
    } else if to_be_aborted || keyed || transaction.attempts.len() > 1 || attempt.left() {
        Fared::Left
    } else {
        Fared::Failed
    }
}

/// What the client was told, and what went wrong.
fn reason(attempt: &Attempt<'_>) -> String {
    match attempt.completed {
        Some(event) => {
            let error = event.error.as_deref().unwrap_or_default();
            let answer = event
                .answer
                .as_ref()
                .map(|answer| format!("{answer:?}"))
                .unwrap_or_default();
            format!("{error} {answer}").trim().to_owned()
        }
        None => "it never completed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, transfer, tx};
    use crate::history::Answer;

    fn no(reason: &str) -> Option<Answer> {
        Some(Answer::Aborted(format!("p1 voted No: a {reason} 5")))
    }

    #[test]
    fn commits_and_refusals_of_stores_are_right() {
        let mut made = Made::new();
        made.commit(tx(1), transfer(1));
        made.fail(Some(tx(2)), transfer(1), no(LOCKED));
        made.fail(Some(tx(3)), transfer(1), no(TOO_LITTLE));
        made.info(Some(tx(4)), transfer(1));
        made.history.events.last_mut().unwrap().error = Some("the client went away".to_owned());
        made.info(Some(tx(5)), transfer(1));
        made.abort_asked(tx(5), Answer::Aborted("requested".to_owned()));
        let findings = made.assert(&NonTriviality, &[]);
        assert_eq!(findings.counted["quiet operations"], 3);
    }

    #[test]
    fn an_abort_for_nothing_is_found_and_one_during_a_fault_is_not() {
        let mut made = Made::with_transfers();
        made.wait(10_000);
        let presumed = Some(Answer::Aborted("presumed".to_owned()));
        made.fail(Some(tx(50)), transfer(1), presumed);
        made.assert(&NonTriviality, &["failed_for_nothing"]);
        made.fault("kill-leader", 9_000, 9_500, Some("killed"));
        made.assert(&NonTriviality, &[]);
    }

    #[test]
    fn one_in_a_thousand_may_fail() {
        let mut made = Made::new();
        for number in 0..1000 {
            made.commit(tx(number), transfer(0));
        }
        made.info(Some(tx(5000)), transfer(1));
        made.assert(&NonTriviality, &[]);
        made.info(Some(tx(5001)), transfer(1));
        made.assert(&NonTriviality, &["failed_for_nothing"]);
    }

    #[test]
    fn what_refuses_everything_is_found() {
        let mut made = Made::new();
        for number in 0..ENOUGH {
            made.fail(Some(tx(number)), transfer(1), no(LOCKED));
        }
        made.assert(&NonTriviality, &["nothing_commits"]);
    }

    #[test]
    fn without_a_quiet_moment_nothing_is_concluded() {
        let mut made = Made::with_transfers();
        made.fault("kill-leader", 0, 100_000, Some("killed"));
        assert_eq!(made.check(&NonTriviality).verdict, Verdict::Unknown);
    }
}
