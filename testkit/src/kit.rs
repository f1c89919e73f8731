//! Tests every rule under every schedule.

use crate::Service;
use crate::matrix::{Cell, Matrix, Row};
use crate::rule::{Expected, Rule};
use crate::run::Run;
use crate::schedule::Schedule;

/// Tests a service. Blocks until it is done, some seconds at most, and must not be called from async code.
///
/// `fresh` makes the service with fresh data, the same each time; it is called once for each run.
///
/// # Panics
///
/// If the service does not do its `operation` at all, so that there is nothing to compare with.
pub fn test<S: Service>(fresh: impl Fn() -> S) -> Matrix {
    let expected = match expected(&fresh) {
        Ok(expected) => expected,
        Err(why) => panic!("the operation cannot be carried out even if nothing goes wrong: {why}"),
    };
    let row = |rule: Rule| Row {
        rule: rule.name(),
        cells: Schedule::ALL
            .into_iter()
            .map(|schedule| cell(&fresh, rule, schedule, &expected))
            .collect(),
    };
    Matrix {
        schedules: Schedule::ALL.into_iter().map(Schedule::name).collect(),
        rows: Rule::ALL.into_iter().map(row).collect(),
    }
}

fn expected<S: Service>(fresh: &impl Fn() -> S) -> Result<Expected, String> {
    let mut run = Run::new(fresh(), Schedule::Calm, 0);
    let before = run.effects()?;
    let operation = run.operations.operation.clone();
    run.yes(1, &operation, "with fresh data")?;
    run.commit(1)?;
    let after = run.effects()?;
    if before == after {
        return Err(format!("it leaves {before:?} as it was"));
    }
    Ok(Expected { before, after })
}

fn cell<S: Service>(fresh: &impl Fn() -> S, rule: Rule, schedule: Schedule, expected: &Expected) -> Cell {
    if !schedule.is_calm() && !rule.is_about_crashes() {
        return Cell::NotApplicable;
    }
    match schedule {
        Schedule::JournalWrites => at_every_write(fresh, rule, schedule, expected, |writes| writes.0),
        Schedule::TableWrites => at_every_write(fresh, rule, schedule, expected, |writes| writes.1),
        Schedule::Calm | Schedule::Twice | Schedule::Late | Schedule::AfterAnswers | Schedule::At(_) => {
            let mut run = Run::new(fresh(), schedule, 0);
            one(&mut run, rule, expected)
        }
    }
}

fn one<S: Service>(run: &mut Run<S>, rule: Rule, expected: &Expected) -> Cell {
    if !rule.applies(run) {
        return Cell::NotApplicable;
    }
    match rule.test(run, expected) {
        Err(why) => Cell::Failed(why),
        Ok(()) if run.was_reached() => Cell::Passed,
        Ok(()) => Cell::NotReached,
    }
}

/// Counts the writes of a run that is left alone, and cuts the power at each of them in a run of its own.
fn at_every_write<S: Service>(
    fresh: &impl Fn() -> S,
    rule: Rule,
    schedule: Schedule,
    expected: &Expected,
    of: impl Fn((u64, u64)) -> u64,
) -> Cell {
    let mut undisturbed = Run::new(fresh(), Schedule::Calm, 0);
    let cell = one(&mut undisturbed, rule, expected);
    let writes = of(undisturbed.writes());
    match cell {
        Cell::Passed if writes > 0 => {}
        Cell::Passed | Cell::NotApplicable => return Cell::NotApplicable,
        // What fails without a crash is told elsewhere.
        Cell::Failed(_) | Cell::NotReached => return Cell::NotReached,
    }
    let mut reached = false;
    for write in 0..writes {
        let mut run = Run::new(fresh(), schedule, write);
        match schedule {
            Schedule::TableWrites => run.power_off_at_table_write(write),
            _ => run.power_off_at_journal_write(write),
        }
        match one(&mut run, rule, expected) {
            Cell::Failed(why) => return Cell::Failed(format!("at one of the writes: {why}")),
            Cell::Passed => reached = true,
            Cell::NotReached | Cell::NotApplicable => {}
        }
    }
    if reached { Cell::Passed } else { Cell::NotReached }
}
