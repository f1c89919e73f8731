use std::collections::{BTreeMap, BTreeSet};

use super::told::{Fate, Transactions};
use super::{Case, Checker, Findings, needs};
use crate::history::{Action, Call, Kind, Step};

/// V11: money is neither made nor lost. Whoever reads every account at once finds the same total, and nobody ever finds
/// an account below its floor.
pub(super) struct Conservation;

/// A cell: its participant and its name.
type Account<'a> = (&'a str, &'a str);

impl Checker for Conservation {
    fn name(&self) -> &'static str {
        "conservation"
    }

    fn checks(&self) -> &'static str {
        "V11: every committed audit, and what is there at the end, has the total of the opening; nothing is below its floor"
    }

    /// Where there is an opening, and every transaction only moves what there is.
    fn applies(&self, case: &Case<'_>) -> bool {
        let adds = |step: &Step| matches!(step.action, Action::Add { .. });
        let moves = |call: &Call| {
            let mut deltas = call.steps().iter().filter_map(delta);
            deltas.try_fold(0_i64, |sum, delta| sum.checked_add(delta)) == Some(0)
        };
        case.evidence.opening.iter().any(adds) && case.history.events.iter().all(|event| moves(&event.call))
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let opening = &case.evidence.opening;
        let accounts: BTreeSet<Account<'_>> = opening
            .iter()
            .filter(|step| delta(step).is_some())
            .map(account)
            .collect();
        let total = sum(opening.iter().filter_map(delta));
        let floors = floors(case);
        let (mut asked, mut heard) = (0, 0);
        for (tx, transaction) in &Transactions::of(case).known {
            for attempt in &transaction.attempts {
                let steps = attempt.call().steps();
                let asks: BTreeSet<Account<'_>> = steps
                    .iter()
                    .filter(|step| super::told::is_read(step))
                    .map(account)
                    .collect();
                let is_audit = !accounts.is_empty() && asks.is_superset(&accounts);
                asked += u64::from(is_audit);
                if attempt.kind() != Kind::Ok || transaction.fate() != Fate::Committed {
                    continue;
                }
                let read: BTreeMap<Account<'_>, i64> = steps.iter().filter_map(number_read).collect();
                let who = format!("{tx}");
                below(&who, &read, &floors, Some(attempt.line()), &mut findings);
                if is_audit && accounts.iter().all(|account| read.contains_key(account)) {
                    heard += 1;
                    compare(
                        &who,
                        total,
                        accounts.iter().map(|account| read[account]),
                        Some(attempt.line()),
                        &mut findings,
                    );
                }
            }
        }
        findings.count("audits", heard);
        if asked > 0 && heard == 0 {
            findings.miss(format!("none of {asked} audits committed"));
        }
        at_the_end(case, &accounts, total, &floors, &mut findings);
        needs::something(&mut findings, "accounts");
        findings
    }
}

/// The total and the floors once everything is over.
fn at_the_end(
    case: &Case<'_>,
    accounts: &BTreeSet<Account<'_>>,
    total: i128,
    floors: &BTreeMap<Account<'_>, i64>,
    findings: &mut Findings,
) {
    let participants = needs::participants(case, findings);
    let mut found: BTreeMap<Account<'_>, i64> = BTreeMap::new();
    for (name, participant) in &participants {
        for (cell, evidence) in &participant.cells {
            found.insert((name, cell), evidence.number);
        }
    }
    findings.count("accounts", found.len() as u64);
    below("the end", &found, floors, None, findings);
    let here: BTreeSet<&str> = participants.iter().map(|(name, _)| name.as_str()).collect();
    if accounts.iter().all(|(participant, _)| here.contains(participant)) {
        // All there is, so that money in an account that nobody opened is found too.
        compare("the end", total, found.into_values(), None, findings);
    }
}

fn compare(
    who: &str,
    total: i128,
    numbers: impl Iterator<Item = i64>,
    line: Option<u64>,
    findings: &mut Findings,
) {
    let found = sum(numbers);
    let kind = match found.cmp(&total) {
        std::cmp::Ordering::Equal => return,
        std::cmp::Ordering::Less => "money_lost",
        std::cmp::Ordering::Greater => "money_created",
    };
    findings.violate(kind, format!("{who}: {found} instead of {total}"), line);
}

fn below(
    who: &str,
    read: &BTreeMap<Account<'_>, i64>,
    floors: &BTreeMap<Account<'_>, i64>,
    line: Option<u64>,
    findings: &mut Findings,
) {
    for (account, number) in read {
        if let Some(floor) = floors.get(account)
            && number < floor
        {
            let what = format!(
                "{who}: {}/{} has {number}, less than {floor}",
                account.0, account.1
            );
            findings.violate("below_floor", what, line);
        }
    }
}

/// The lowest floor that anybody ever set under each account.
fn floors<'a>(case: &Case<'a>) -> BTreeMap<Account<'a>, i64> {
    let mut floors = BTreeMap::new();
    let calls = case.history.events.iter().flat_map(|event| event.call.steps());
    for step in case.evidence.opening.iter().chain(calls) {
        if let Action::Add { floor, .. } = step.action {
            let lowest = floors.entry(account(step)).or_insert(floor);
            *lowest = floor.min(*lowest);
        }
    }
    floors
}

fn account(step: &Step) -> Account<'_> {
    (&step.participant, &step.cell)
}

fn delta(step: &Step) -> Option<i64> {
    match step.action {
        Action::Add { delta, .. } => Some(delta),
        Action::Append(_) | Action::Read { .. } => None,
    }
}

fn number_read(step: &Step) -> Option<(Account<'_>, i64)> {
    match step.action {
        Action::Read {
            number: Some(number), ..
        } => Some((account(step), number)),
        Action::Read { number: None, .. } | Action::Add { .. } | Action::Append(_) => None,
    }
}

fn sum(numbers: impl Iterator<Item = i64>) -> i128 {
    numbers.map(i128::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, add, read_number, transfer, tx};

    fn audit(a: i64, b: i64) -> Vec<Step> {
        vec![read_number("p1", "a", a), read_number("p2", "b", b)]
    }

    #[test]
    fn money_that_only_moves_is_right() {
        let findings = Made::with_transfers().assert(&Conservation, &[]);
        assert_eq!(findings.counted["audits"], 1);
        assert_eq!(findings.counted["accounts"], 2);
    }

    #[test]
    fn an_audit_that_saw_half_a_transfer_is_found() {
        let mut made = Made::with_transfers();
        made.commit(tx(8), audit(70, 125));
        made.assert(&Conservation, &["money_lost"]);
        let mut made = Made::with_transfers();
        made.commit(tx(8), audit(75, 130));
        made.assert(&Conservation, &["money_created"]);
    }

    #[test]
    fn an_audit_that_was_not_accepted_may_have_seen_anything() {
        let mut made = Made::with_transfers();
        made.fail(Some(tx(8)), audit(1, 2), None);
        made.info(Some(tx(9)), audit(1, 2));
        made.assert(&Conservation, &[]);
    }

    #[test]
    fn money_that_is_gone_or_somewhere_else_at_the_end_is_found() {
        let mut made = Made::with_transfers();
        made.participant("p2").cells.get_mut("b").unwrap().number -= 1;
        made.assert(&Conservation, &["money_lost"]);
        let mut made = Made::with_transfers();
        made.participant("p2")
            .cells
            .entry("unheard-of".to_owned())
            .or_default()
            .number = 3;
        made.assert(&Conservation, &["money_created"]);
    }

    #[test]
    fn an_account_below_its_floor_is_found() {
        let mut made = Made::with_transfers();
        made.commit(tx(8), vec![read_number("p1", "a", -1)]);
        made.assert(&Conservation, &["below_floor"]);
        let mut made = Made::with_transfers();
        made.commit(tx(8), transfer(80));
        made.assert(&Conservation, &["below_floor"]);
    }

    #[test]
    fn audits_of_which_none_committed_are_no_pass() {
        let mut made = Made::new();
        made.fail(Some(tx(8)), audit(100, 100), None);
        assert_eq!(made.check(&Conservation).verdict, Verdict::Unknown);
    }

    #[test]
    fn it_applies_where_money_only_moves() {
        let mut made = Made::with_transfers();
        assert!(Conservation.applies(&made.case()));
        made.commit(tx(8), vec![add("p1", "a", 1)]);
        assert!(!Conservation.applies(&made.case()));
        made = Made::with_transfers();
        made.evidence.opening.clear();
        assert!(!Conservation.applies(&made.case()));
    }
}
