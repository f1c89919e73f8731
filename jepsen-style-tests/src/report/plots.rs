//! The drawings of a run.

use std::collections::BTreeMap;

use super::markup::{Markup, Px};
use super::plot::{Axis, Plot, Size, line};
use super::shapes::{ENDS, Shapes};
use super::words::{self, MS, number};
use super::{money, timeline};
use crate::checker::Case;
use crate::history::{Event, Kind};

/// A drawing, and what to say with it.
pub(super) struct Drawing {
    /// Its file, without the ending.
    pub(super) name: &'static str,
    /// What there is to see.
    pub(super) caption: String,
    pub(super) wide: Markup,
    pub(super) narrow: Markup,
}

/// A run with what every drawing needs.
pub(super) struct Seen<'a> {
    pub(super) case: Case<'a>,
    pub(super) operations: Vec<(&'a Event, Option<&'a Event>)>,
    /// When nothing happened any more.
    pub(super) end_ns: u64,
}

/// A drawing in one size.
type Draw = fn(&Seen<'_>, Size) -> Option<Markup>;

/// The longest that anybody may be in doubt while nothing is disturbed, as the checker has it.
const IN_DOUBT_BOUND_MS: f64 = 10_000.0;
/// Classes of participants; those beyond share the last.
const MEMBERS: [&str; 5] = ["m1", "m2", "m3", "m4", "m5"];

impl<'a> Seen<'a> {
    pub(super) fn new(case: Case<'a>) -> Self {
        let events = case.history.events.iter().map(|event| event.time_ns);
        let faults = case.faults.iter().map(|fault| fault.ended_ns);
        Self {
            case,
            operations: case.history.operations(),
            end_ns: events.chain(faults).max().unwrap_or_default(),
        }
    }

    pub(super) fn plot(&self, size: Size, title: &'static str, height: f64, axis: Axis) -> Plot<'a> {
        Plot::new(size, title, (0, self.end_ns), self.case.faults, height, axis)
    }

    /// How many operations ended in this way.
    pub(super) fn ended(&self, kind: Kind) -> u64 {
        let ended = self
            .operations
            .iter()
            .filter(|(_, done)| words::ended(*done) == kind);
        ended.count() as u64
    }

    pub(super) fn explain_ends(&self, plot: &mut Plot<'_>) {
        for (kind, class, text) in ENDS {
            plot.explain(class, format!("{text} ({})", number(self.ended(kind))));
        }
    }
}

/// Every drawing for which there is something to draw.
pub(super) fn all(seen: &Seen<'_>) -> Vec<Drawing> {
    let drawings: [(&'static str, Draw, String); 5] = [
        ("rate", rate, "Operations that ended in each stretch of time, one on the other.".into()),
        (
            "latency",
            latency,
            "Each operation is a point at the time when it was asked for; the scale goes in steps of ten.".into(),
        ),
        ("money", money::draw, money::caption(seen)),
        (
            "in-doubt",
            in_doubt,
            "Each point is a transaction at one participant: when it promised, and how long it then waited to hear the \
             decision, by its own clock, which a fault may have moved."
                .into(),
        ),
        (
            "timeline",
            timeline::draw,
            "Each bar is an operation, from asked to answered. A row holds processes that follow each other: after an \
             operation whose outcome is unknown a client goes on under a new number."
                .into(),
        ),
    ];
    drawings
        .into_iter()
        .filter_map(|(name, draw, caption)| {
            Some(Drawing {
                name,
                caption,
                wide: draw(seen, Size::Wide)?,
                narrow: draw(seen, Size::Narrow)?,
            })
        })
        .collect()
}

fn latency(seen: &Seen<'_>, size: Size) -> Option<Markup> {
    let ms = |(asked, done): &(&Event, Option<&Event>)| {
        let end = done.map_or(seen.end_ns, |done| done.time_ns);
        end.saturating_sub(asked.time_ns) as f64 / MS as f64
    };
    let least = seen.operations.iter().map(ms).reduce(f64::min)?;
    let most = seen.operations.iter().map(ms).fold(0.0, f64::max);
    let mut plot = seen.plot(
        size,
        "Latency of each operation",
        260.0,
        Axis::log_ms(least, most),
    );
    seen.explain_ends(&mut plot);
    for (kind, class, _) in ENDS {
        let mut points = Shapes::new(class);
        for operation in &seen.operations {
            if words::ended(operation.1) == kind {
                points.point(plot.x(operation.0.time_ns), plot.y(ms(operation)));
            }
        }
        scatter(&mut plot, points);
    }
    Some(plot.finish())
}

/// Draws points, each as large as the page wants it.
fn scatter(plot: &mut Plot, points: Shapes) {
    let mut drawn = Markup::default();
    drawn.open("g", &[("class", &"points")]);
    points.draw(&mut drawn);
    drawn.close("g");
    plot.draw().add(&drawn);
}

fn rate(seen: &Seen<'_>, size: Size) -> Option<Markup> {
    let bin_ns = bin_ns(seen.end_ns);
    let mut bins: BTreeMap<u64, [u64; 3]> = BTreeMap::new();
    for (_, done) in &seen.operations {
        let at = done.map_or(seen.end_ns, |done| done.time_ns);
        let place = ENDS.iter().position(|(kind, ..)| *kind == words::ended(*done))?;
        bins.entry(at / bin_ns).or_default()[place] += 1;
    }
    let per_second = |count: u64| count as f64 * 1e9 / bin_ns as f64;
    let most = bins
        .values()
        .map(|bin| per_second(bin.iter().sum()))
        .reduce(f64::max)?;
    let mut plot = seen.plot(size, "Operations per second", 170.0, Axis::up_to(most));
    seen.explain_ends(&mut plot);
    for (bin, counts) in &bins {
        let (left, right) = (plot.x(bin * bin_ns), plot.x((bin + 1) * bin_ns));
        let mut below = 0;
        for (count, (_, class, _)) in counts.iter().zip(ENDS) {
            let (low, high) = (plot.y(per_second(below)), plot.y(per_second(below + count)));
            below += count;
            if *count == 0 {
                continue;
            }
            // At least so high that one unknown among a thousand is seen.
            let height = if class == "info" {
                (low - high).max(2.0)
            } else {
                low - high
            };
            plot.draw().open(
                "rect",
                &[
                    ("class", &format!("bar {class}")),
                    ("x", &Px(left)),
                    ("y", &Px(low - height)),
                    ("width", &Px((right - left - 0.6).max(0.4))),
                    ("height", &Px(height)),
                ],
            );
            plot.draw().close("rect");
        }
    }
    Some(plot.finish())
}

/// A stretch of time in which operations are counted: at most 240 of them, and at least half a second.
fn bin_ns(end_ns: u64) -> u64 {
    let least = end_ns / 240;
    [500, 1_000, 2_000, 5_000, 10_000, 30_000]
        .iter()
        .map(|ms| ms * MS)
        .find(|bin| *bin >= least)
        .unwrap_or(least.max(1))
}

fn in_doubt(seen: &Seen<'_>, size: Size) -> Option<Markup> {
    let began = seen.case.evidence.began_unix_ms?;
    // The opening is before the history, and a clock that was moved may say anything.
    let times: Vec<(&String, Vec<(u64, u64)>)> = seen
        .case
        .evidence
        .participants
        .iter()
        .map(|(name, found)| {
            let heard = found.promised.iter().filter_map(|(tx, promised)| {
                let ms = found.heard.get(tx)?.saturating_sub(*promised);
                Some((promised.checked_sub(began)?.saturating_mul(MS), ms))
            });
            (name, heard.collect())
        })
        .collect();
    let most = times
        .iter()
        .flat_map(|(_, times)| times.iter().map(|(_, ms)| *ms))
        .max()?;
    let axis = Axis::log_ms(1.0, (most as f64).max(IN_DOUBT_BOUND_MS));
    let mut plot = seen.plot(size, "Time in doubt", 200.0, axis);
    let class = |place: usize| MEMBERS[place.min(MEMBERS.len() - 1)];
    for (place, (name, times)) in times.iter().enumerate() {
        let longest = times.iter().map(|(_, ms)| *ms).max().unwrap_or_default();
        plot.explain(
            class(place),
            format!("{name} (longest {})", words::millis(longest)),
        );
    }
    plot.explain("bound", "the most while nothing is disturbed");
    let y = plot.y(IN_DOUBT_BOUND_MS);
    let (from, to) = ((plot.x(0), y), (plot.x(seen.end_ns), y));
    line(plot.draw(), "bound", from, to);
    for (place, (_, times)) in times.iter().enumerate() {
        let mut points = Shapes::new(class(place));
        for (at_ns, ms) in times {
            points.point(plot.x(*at_ns), plot.y((*ms).max(1) as f64));
        }
        scatter(&mut plot, points);
    }
    Some(plot.finish())
}
