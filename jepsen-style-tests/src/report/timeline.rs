//! What each process did, when.

use std::collections::BTreeMap;

use super::markup::Markup;
use super::plot::{Axis, Size};
use super::plots::Seen;
use super::shapes::{ENDS, Shapes};
use super::words::{self, many};
use crate::history::Process;

/// Rows at most.
const LANES: usize = 32;

/// What each process did.
pub(super) fn draw(seen: &Seen<'_>, size: Size) -> Option<Markup> {
    let lanes = lanes(seen);
    let count = lanes.values().max()? + 1;
    let shown = count.min(LANES);
    let row = 14.0;
    let height = shown as f64 * row;
    let mut plot = seen.plot(size, "What each process did", height, Axis::none());
    seen.explain_ends(&mut plot);
    if shown < count {
        plot.explain(
            "none",
            format!("{} not shown", many((count - shown) as u64, "more row")),
        );
    }
    for lane in 0..shown {
        let y = plot.top() + (lane as f64 + 0.5) * row;
        if size == Size::Wide || lane % 2 == 0 {
            plot.name_row(y + 4.0, &format!("{}", lane + 1));
        }
    }
    for (kind, class, _) in ENDS {
        let mut bars: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
        for (asked, done) in &seen.operations {
            let lane = lanes[&asked.process];
            if lane < shown && words::ended(*done) == kind {
                let end = done.map_or(seen.end_ns, |done| done.time_ns);
                let (from, to) = (plot.x(asked.time_ns), plot.x(end));
                // Short ones are seen too, and two that follow each other are two.
                bars.entry(lane)
                    .or_default()
                    .push((from, (to - 0.4).max(from + 0.8)));
            }
        }
        let mut shapes = Shapes::new(class);
        for (lane, bars) in bars {
            let y = plot.top() + (lane as f64 + 0.5) * row;
            for (from, to) in merged(bars) {
                shapes.bar(from, to, y);
            }
        }
        let mut drawn = Markup::default();
        drawn.open("g", &[("class", &"bars")]);
        shapes.draw(&mut drawn);
        drawn.close("g");
        plot.draw().add(&drawn);
    }
    Some(plot.finish())
}

/// The row of each process: the first in which nobody else is at that time.
fn lanes(seen: &Seen<'_>) -> BTreeMap<Process, usize> {
    let mut spans: BTreeMap<Process, (u64, u64)> = BTreeMap::new();
    for (asked, done) in &seen.operations {
        let end = done.map_or(seen.end_ns, |done| done.time_ns);
        let span = spans.entry(asked.process).or_insert((asked.time_ns, end));
        span.1 = span.1.max(end);
    }
    let mut in_order: Vec<_> = spans.into_iter().collect();
    in_order.sort_by_key(|(_, span)| *span);
    let mut free_from: Vec<u64> = Vec::new();
    let mut lanes = BTreeMap::new();
    for (process, (from, until)) in in_order {
        let lane = free_from.iter().position(|free| *free <= from);
        match lane {
            Some(lane) => free_from[lane] = until,
            None => free_from.push(until),
        }
        lanes.insert(process, lane.unwrap_or(free_from.len() - 1));
    }
    lanes
}

/// Bars that nobody could tell apart are one.
fn merged(bars: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let mut merged: Vec<(f64, f64)> = Vec::new();
    for (from, to) in bars {
        match merged.last_mut() {
            Some(last) if from - last.1 < 0.2 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}
