use super::told::{Attempt, Transaction, Transactions, Way};
use super::{Case, Checker, Findings, expired, needs};
use crate::history::{Answer, Call, Tx};

/// V9: the decision on each transaction is a register that is written once, and linearizable.
///
/// Because it is written once, linear time is enough. Let the value be the first that anybody read, at the earliest
/// completion of an operation that read it. Every other value is a violation, and so is a query that was asked after
/// that moment and found nothing. Operations whose outcome is unknown may take effect at any time, or never.
pub(super) struct Register;

impl Checker for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn checks(&self) -> &'static str {
        "V9: the decision on each transaction is a linearizable register, written once"
    }

    fn applies(&self, case: &Case<'_>) -> bool {
        let asks = |call: &Call| matches!(call, Call::Query { .. } | Call::Abort { .. });
        case.history.events.iter().any(|event| asks(&event.call))
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let transactions = Transactions::of(case);
        let named = transactions.nameless.is_empty();
        for (tx, transaction) in &transactions.known {
            findings.count("registers", 1);
            judge(*tx, transaction, named, case, &mut findings);
        }
        needs::something(&mut findings, "answers");
        findings
    }
}

/// One transaction. `named`: every attempt of the history says which transaction it was.
fn judge(tx: Tx, transaction: &Transaction<'_>, named: bool, case: &Case<'_>, findings: &mut Findings) {
    let operations: Vec<Attempt<'_>> = transaction.operations();
    let mut read: Vec<(u64, Way)> = operations
        .iter()
        .filter_map(|operation| operation.decision())
        .map(|(way, event)| (event.index, way))
        .collect();
    read.sort_unstable();
    let answered = operations
        .iter()
        .filter(|operation| operation.told().is_some())
        .count();
    findings.count("answers", answered as u64);
    for operation in &operations {
        if let Some((Answer::Expired, event)) = operation.told() {
            let at = expired::unix_ms(case, event.time_ns);
            let whose = format!("line {}", event.index);
            expired::judge(tx, &whose, at, Some(event.index), case, findings);
        }
    }
    let Some(&(first, value)) = read.first() else {
        return;
    };
    if let Some((line, other)) = read.iter().find(|(_, way)| *way != value) {
        let what = format!("{tx}: line {first} read {value}, line {line} read {other}");
        findings.violate("two_values", what, Some(*line));
    }
    for operation in &operations {
        if let Some((Answer::Undecided, event)) = operation.told()
            && operation.invoked.index > first
        {
            let what = format!(
                "{tx}: line {first} had read {value}; asked in line {}, line {} read nothing",
                operation.invoked.index, event.index
            );
            findings.violate("stale_read", what, Some(event.index));
        }
    }
    // An abort may come from the cluster itself. A commit needs somebody who asked for the transaction.
    let asked = transaction
        .attempts
        .iter()
        .any(|attempt| attempt.invoked.index < first);
    if value == Way::Commit && named && !asked {
        let what = format!("{tx}: line {first} read commit before anybody had asked for the transaction");
        findings.violate("value_from_nowhere", what, Some(first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, transfer, tx};

    fn aborted() -> Answer {
        Answer::Aborted("requested".to_owned())
    }

    #[test]
    fn nothing_then_the_same_for_ever_is_right() {
        let mut made = Made::new();
        let asked = made.invoke(Some(tx(1)), transfer(1));
        made.query(tx(1), 1, Answer::Undecided);
        made.query(tx(1), 2, Answer::Committed);
        made.complete_ok(asked, Answer::Committed);
        made.query(tx(1), 3, Answer::Committed);
        made.abort_asked(tx(1), Answer::Committed);
        made.query(tx(1), 3, Answer::Expired);
        made.assert(&Register, &["expired_too_early"]);
        made.evidence.retention_ms = Some(20_000);
        made.assert(&Register, &[]);
        made.evidence.retention_ms = None;
        assert_eq!(made.check(&Register).verdict, Verdict::Unknown);
    }

    #[test]
    fn the_request_that_won_an_id_is_compared_though_another_lost() {
        let mut made = Made::new();
        made.ok(Some(tx(1)), transfer(1), Answer::Committed);
        made.fail(Some(tx(1)), transfer(2), Some(aborted()));
        made.assert(&Register, &[]);
        made.fail(Some(tx(1)), transfer(1), Some(aborted()));
        made.assert(&Register, &["two_values"]);
    }

    #[test]
    fn a_query_that_overlaps_the_first_read_may_find_nothing() {
        let mut made = Made::new();
        let asked = made.invoke(Some(tx(1)), transfer(1));
        let query = made.invoke_query(tx(1), 1);
        made.complete_ok(asked, Answer::Committed);
        made.complete_ok(query, Answer::Undecided);
        made.assert(&Register, &[]);
    }

    #[test]
    fn a_query_that_finds_nothing_after_somebody_found_something_is_stale() {
        let mut made = Made::new();
        made.info(Some(tx(1)), transfer(1));
        made.query(tx(1), 1, Answer::Committed);
        made.query(tx(1), 2, Answer::Undecided);
        made.assert(&Register, &["stale_read"]);
    }

    #[test]
    fn two_values_are_found() {
        let mut made = Made::new();
        made.info(Some(tx(1)), transfer(1));
        made.query(tx(1), 1, Answer::Committed);
        made.abort_asked(tx(1), aborted());
        made.assert(&Register, &["two_values"]);
    }

    #[test]
    fn a_commit_that_nobody_asked_for_is_found_and_an_abort_is_not_one() {
        let mut made = Made::new();
        made.query(tx(1), 1, Answer::Committed);
        made.ok(Some(tx(1)), transfer(1), Answer::Committed);
        made.assert(&Register, &["value_from_nowhere"]);
        let mut made = Made::new();
        made.query(tx(1), 1, aborted());
        made.assert(&Register, &[]);
    }

    #[test]
    fn another_request_under_the_same_id_hears_of_itself() {
        let mut made = Made::new();
        made.ok(Some(tx(1)), transfer(1), Answer::Committed);
        made.fail(Some(tx(1)), transfer(2), Some(aborted()));
        made.query(tx(1), 1, Answer::Committed);
        made.assert(&Register, &[]);
    }

    #[test]
    fn it_applies_only_where_somebody_asks_and_needs_an_answer() {
        let mut made = Made::with_transfers();
        assert!(!Register.applies(&made.case()));
        let _ = made.invoke_query(tx(999), 1);
        assert!(Register.applies(&made.case()));
        let mut made = Made::new();
        let _ = made.invoke_query(tx(999), 1);
        assert_eq!(made.check(&Register).verdict, Verdict::Unknown);
    }
}
