use std::collections::{BTreeMap, BTreeSet};

use super::quiet::{Disturbed, MS};
use super::told::{Attempt, Transaction, Transactions, same_request};
use super::{Case, Checker, Findings, needs};
use crate::history::{Call, Kind, Step};
use crate::store::{LOCKED, TOO_LITTLE};

/// V4: what nothing disturbs commits. A system that always aborts breaks no other rule.
///
/// Looks at the operations that began and completed while nothing was disturbed. Not counted: what a store refused for a
/// reason of its own, what a client asked to be aborted or repeated, and clients that went away by themselves, whose
/// error says `went away`. Under an idempotency key all repetitions of one request hear the same, so they count, unless
/// the key was used for two requests, for one while something was disturbed, or by a client that went away.
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
        let is_quiet = |attempt: &Attempt<'_>| {
            let until = attempt.completed.map_or(u64::MAX, |event| event.time_ns);
            disturbed.is_quiet(attempt.invoked.time_ns, until)
        };
        let left = keys_left(&transactions, is_quiet);
        let unnamed = Transaction::default();
        let named = transactions
            .known
            .values()
            .flat_map(|known| known.attempts.iter().map(move |a| (known, a)));
        for (transaction, attempt) in named.chain(transactions.nameless.iter().map(|a| (&unnamed, a))) {
            if !is_quiet(attempt) {
                continue;
            }
            match fared(transaction, attempt, &left) {
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

/// The keys of which nothing is said: used for two requests, while something was disturbed, or by who went away.
fn keys_left<'a>(
    transactions: &Transactions<'a>,
    is_quiet: impl Fn(&Attempt<'_>) -> bool,
) -> BTreeSet<&'a str> {
    let mut left = BTreeSet::new();
    let mut requests: BTreeMap<&str, &[Step]> = BTreeMap::new();
    let named = transactions.known.values().flat_map(|known| &known.attempts);
    for attempt in named.chain(&transactions.nameless) {
        let Some(key) = key(attempt) else { continue };
        let steps = attempt.call().steps();
        let first = requests.entry(key).or_insert(steps);
        if !same_request(first, steps) || attempt.left() || !is_quiet(attempt) {
            left.insert(key);
        }
    }
    left
}

fn key<'a>(attempt: &Attempt<'a>) -> Option<&'a str> {
    match attempt.call() {
        Call::Transact { key, .. } => key.as_deref(),
        Call::Query { .. } | Call::Abort { .. } => None,
    }
}

fn fared(transaction: &Transaction<'_>, attempt: &Attempt<'_>, keys_left: &BTreeSet<&str>) -> Fared {
    if attempt.kind() == Kind::Ok {
        return Fared::Committed;
    }
    let reason = reason(attempt);
    let to_be_aborted = transaction
        .questions
        .iter()
        .any(|question| matches!(question.call(), Call::Abort { .. }));
    let left = match key(attempt) {
        Some(key) => keys_left.contains(key),
        None => transaction.attempts.len() > 1,
    };
    if reason.contains(LOCKED) || reason.contains(TOO_LITTLE) {
        Fared::Refused
    } else if to_be_aborted || left || attempt.left() {
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
    use crate::checker::made::{Made, Open, transfer, tx};
    use crate::history::{Answer, Style};

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

    fn keyed(made: &mut Made, cents: i64, completes: impl FnOnce(&mut Made, Open)) {
        let open = made.begin(Call::Transact {
            transaction: None,
            style: Style::OneShot,
            key: Some("k".to_owned()),
            steps: transfer(cents),
        });
        completes(made, open);
    }

    #[test]
    fn a_key_that_fails_for_nothing_is_found_unless_it_had_a_reason() {
        let fails = |made: &mut Made, open| {
            made.complete_fail(open, Some(Answer::Aborted("presumed".to_owned())));
        };
        let leaves = |made: &mut Made, open| {
            made.complete_info(open);
            made.history.events.last_mut().unwrap().error = Some("the client went away".to_owned());
        };
        let mut made = Made::with_transfers();
        made.wait(10_000);
        keyed(&mut made, 1, fails);
        keyed(&mut made, 1, fails);
        let findings = made.assert(&NonTriviality, &["failed_for_nothing"]);
        assert_eq!(findings.counted["failed"], 2);
        // Its client went away from it, it stands for another request, or it was used before, during a fault.
        let mut left = made.clone();
        keyed(&mut left, 1, leaves);
        left.assert(&NonTriviality, &[]);
        let mut other = made.clone();
        keyed(&mut other, 2, |made, open| made.complete_fail(open, None));
        other.assert(&NonTriviality, &[]);
        let mut during = Made::with_transfers();
        during.wait(10_000);
        keyed(&mut during, 1, fails);
        during.fault("kill-leader", 9_000, 10_500, Some("killed"));
        during.wait(10_000);
        keyed(&mut during, 1, fails);
        during.assert(&NonTriviality, &[]);
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
