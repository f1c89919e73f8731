//! Money over time, as audits saw it.

use std::collections::{BTreeMap, BTreeSet};

use super::markup::{Markup, Px};
use super::plot::{Axis, Size, line};
use super::plots::Seen;
use super::words::{self, many, number};
use crate::checker;
use crate::history::{Action, Answer, Call, Kind, Step};

/// What an audit saw: when it was over, all money, and whether the audit counts.
struct Audit {
    at_ns: u64,
    total: i128,
    accepted: bool,
}

/// The money there was at first, if the workload has any: where the checker of it has something to judge.
fn opened_with(seen: &Seen<'_>) -> Option<i128> {
    let checkers = checker::all();
    let conservation = checkers.iter().find(|checker| checker.name() == "conservation")?;
    let deltas = seen
        .case
        .evidence
        .opening
        .iter()
        .filter_map(|step| match step.action {
            Action::Add { delta, .. } => Some(i128::from(delta)),
            Action::Append(_) | Action::Read { .. } => None,
        });
    conservation.applies(&seen.case).then(|| deltas.sum())
}

/// Everything that read every account that was opened.
fn audits(seen: &Seen<'_>) -> Vec<Audit> {
    let cells = |steps: &[Step]| -> BTreeSet<String> { steps.iter().map(words::cell).collect() };
    let accounts = cells(&seen.case.evidence.opening);
    let mut audits = Vec::new();
    for (_, done) in &seen.operations {
        let Some(done) = done else { continue };
        let steps = done.call.steps();
        let numbers: BTreeMap<String, i128> = steps
            .iter()
            .filter_map(|step| match step.action {
                Action::Read {
                    number: Some(number), ..
                } => Some((words::cell(step), i128::from(number))),
                _ => None,
            })
            .collect();
        if accounts.iter().all(|account| numbers.contains_key(account)) {
            audits.push(Audit {
                at_ns: done.time_ns,
                total: accounts.iter().map(|account| numbers[account]).sum(),
                accepted: done.kind == Kind::Ok && done.answer == Some(Answer::Committed),
            });
        }
    }
    audits
}

/// What every participant has once everything is over, if all of them said so.
fn at_the_end(seen: &Seen<'_>) -> Option<i128> {
    let layout = seen.case.evidence.layout?;
    let found = &seen.case.evidence.participants;
    let all = (found.len() as u64) == layout.participants && found.values().all(|found| found.answered);
    let cells = found.values().flat_map(|found| found.cells.values());
    all.then(|| cells.map(|cell| i128::from(cell.number)).sum())
}

/// What there is to see.
pub(super) fn caption(seen: &Seen<'_>) -> String {
    let audits = audits(seen);
    let asked = seen
        .operations
        .iter()
        .filter(|(asked, _)| is_audit(seen, &asked.call))
        .count();
    let accepted = audits.iter().filter(|audit| audit.accepted).count();
    format!(
        "What each audit found when it read every account at once: {} of {} committed. Points off the line are money made \
         or lost.",
        accepted,
        many(asked as u64, "audit")
    )
}

fn is_audit(seen: &Seen<'_>, call: &Call) -> bool {
    let read: BTreeSet<String> = call
        .steps()
        .iter()
        .filter(|step| matches!(step.action, Action::Read { .. }))
        .map(words::cell)
        .collect();
    let mut opening = seen.case.evidence.opening.iter();
    !read.is_empty() && opening.all(|step| read.contains(&words::cell(step)))
}

/// Money over time.
pub(super) fn draw(seen: &Seen<'_>, size: Size) -> Option<Markup> {
    let opened = opened_with(seen)?;
    let audits = audits(seen);
    let end = at_the_end(seen);
    let totals = || audits.iter().map(|audit| audit.total).chain(end).chain([opened]);
    let (least, most) = (totals().min()?, totals().max()?);
    // Room above and below, so that money that is right lies in the middle.
    let room = ((most - least) as f64 * 0.15).max(opened as f64 * 0.005).max(2.0);
    let axis = Axis::between(least as f64 - room, most as f64 + room);
    let mut plot = seen.plot(size, "Money: what the audits saw", 150.0, axis);
    plot.explain("ok", format!("all of it, {}", number(opened)));
    plot.explain("bad", "too much or too little");
    plot.explain("open", "read, but the audit did not commit");
    plot.explain("final", "in the accounts at the end");
    let y = plot.y(opened as f64);
    let (from, to) = ((plot.x(0), y), (plot.x(seen.end_ns), y));
    line(plot.draw(), "opened", from, to);
    let class = |total: i128, right: &'static str| if total == opened { right } else { "bad" };
    for audit in &audits {
        let class = if audit.accepted {
            class(audit.total, "ok")
        } else {
            "open"
        };
        let place = (plot.x(audit.at_ns), plot.y(audit.total as f64));
        dot(
            plot.draw(),
            class,
            place,
            &format!("{} at {} s", number(audit.total), words::moment(audit.at_ns)),
        );
    }
    if let Some(total) = end {
        let place = (plot.x(seen.end_ns), plot.y(total as f64));
        dot(
            plot.draw(),
            class(total, "final"),
            place,
            &format!("{} at the end", number(total)),
        );
    }
    Some(plot.finish())
}

fn dot(svg: &mut Markup, class: &'static str, place: (f64, f64), told: &str) {
    let class = format!("sign {class}");
    svg.open(
        "circle",
        &[
            ("class", &class),
            ("cx", &Px(place.0)),
            ("cy", &Px(place.1)),
            ("r", &4),
        ],
    );
    svg.element("title", &[], told).close("circle");
}
