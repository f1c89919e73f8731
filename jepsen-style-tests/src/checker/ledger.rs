use std::collections::BTreeMap;

use super::{Case, Checker, Findings, needs};
use crate::evidence::{CellEvidence, ParticipantEvidence};
use crate::history::Action;

/// V12: what is in each cell is what the transactions that a participant has applied put there, no more and no less.
/// Two wrongs that cancel each other in the total do not cancel here.
pub(super) struct Ledger;

impl Checker for Ledger {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn checks(&self) -> &'static str {
        "V12: every cell is the sum of what was applied to it, and its list has what was appended, each once"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        for (name, participant) in needs::participants(case, &mut findings) {
            findings.count("effects", participant.effects.len() as u64);
            let expected = replay(participant);
            let none = (0, BTreeMap::new());
            for (cell, found) in &participant.cells {
                findings.count("cells", 1);
                let expected = expected.get(cell.as_str()).unwrap_or(&none);
                compare(&format!("{name}/{cell}"), expected, found, &mut findings);
            }
            for cell in expected
                .keys()
                .filter(|cell| !participant.cells.contains_key(**cell))
            {
                let what = format!("{name}/{cell} was changed, and is not there");
                findings.violate("cell_lost", what, None);
            }
        }
        needs::something(&mut findings, "cells");
        findings
    }
}

/// What a cell has to be: its number, and how often each value is in its list.
type Expected = (i128, BTreeMap<u64, i64>);

/// The cells as the effects make them.
fn replay(participant: &ParticipantEvidence) -> BTreeMap<&str, Expected> {
    let mut cells: BTreeMap<&str, Expected> = BTreeMap::new();
    for effect in &participant.effects {
        for step in &effect.steps {
            let times = i64::from(effect.times);
            match step.action {
                Action::Add { delta, .. } => {
                    cells.entry(&step.cell).or_default().0 += i128::from(delta) * i128::from(times);
                }
                Action::Append(value) => {
                    *cells.entry(&step.cell).or_default().1.entry(value).or_default() += times;
                }
                // The store writes down the cell that it read, even if there was none.
                Action::Read { .. } => {}
            }
        }
    }
    cells
}

fn compare(cell: &str, expected: &Expected, found: &CellEvidence, findings: &mut Findings) {
    if expected.0 != i128::from(found.number) {
        let what = format!("{cell} has {}, and {} was put there", found.number, expected.0);
        findings.violate("number_differs", what, None);
    }
    let mut left = expected.1.clone();
    for value in &found.list {
        *left.entry(*value).or_default() -= 1;
    }
    for (value, left) in left {
        match left {
            0 => {}
            1.. => findings.violate(
                "value_lost",
                format!("{cell}: {value} was appended and is not there"),
                None,
            ),
            _ => findings.violate(
                "value_added",
                format!("{cell}: {value} is there once too often"),
                None,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, step, tx};

    fn made() -> Made {
        let mut made = Made::with_transfers();
        made.commit(tx(20), vec![step("p1", "list", Action::Append(7))]);
        made
    }

    #[test]
    fn cells_that_are_what_was_put_there_are_right() {
        let findings = made().assert(&Ledger, &[]);
        assert_eq!(findings.counted["cells"], 3);
    }

    #[test]
    fn two_wrongs_do_not_cancel() {
        let mut made = made();
        made.participant("p1").cells.get_mut("a").unwrap().number += 1;
        made.participant("p2").cells.get_mut("b").unwrap().number -= 1;
        made.assert(&Ledger, &["number_differs"]);
    }

    #[test]
    fn an_effect_that_left_nothing_is_found() {
        let mut made = made();
        made.participant("p1").cells.remove("list");
        made.assert(&Ledger, &["cell_lost"]);
    }

    #[test]
    fn lists_have_each_value_once() {
        let mut lost = made();
        lost.participant("p1").cells.get_mut("list").unwrap().list.clear();
        lost.assert(&Ledger, &["value_lost"]);
        let mut twice = made();
        twice.participant("p1").cells.get_mut("list").unwrap().list = vec![7, 7];
        twice.assert(&Ledger, &["value_added"]);
    }

    #[test]
    fn without_cells_nothing_is_concluded() {
        let mut made = made();
        made.evidence.participants.clear();
        assert_eq!(made.check(&Ledger).verdict, Verdict::Unknown);
    }
}
