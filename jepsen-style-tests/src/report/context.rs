//! The first bad operation, with what happened around it.

use std::collections::BTreeSet;

use super::markup::Markup;
use super::plot::{Axis, Plot, Size};
use super::plots::{Drawing, Seen};
use super::shapes::{ENDS, Shapes};
use super::words;
use crate::checker::{Findings, Violation};
use crate::history::{Event, Tx};
use crate::nemesis::Injected;

/// The first bad operation.
pub(super) struct Context<'a> {
    pub(super) checker: &'a str,
    pub(super) violation: &'a Violation,
    /// It and those around it, in the order in which they were asked for.
    pub(super) around: Vec<Near<'a>>,
}

/// An operation around the bad one.
pub(super) struct Near<'a> {
    pub(super) asked: &'a Event,
    pub(super) done: Option<&'a Event>,
    pub(super) why: Why,
}

/// What an operation has to do with the bad one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// It is the bad one.
    Bad,
    /// It is of the same transaction, or the violation names its transaction.
    Named,
    /// It is about these cells too.
    Shares(Vec<String>),
}

/// The file of the drawing.
pub(super) const NAME: &str = "first-bad";
/// Operations shown because of their cells.
const MOST_SHARING: usize = 20;
/// Operations shown because they are named.
const MOST_NAMED: usize = 20;

/// The first bad operation, if a violation says which one it is.
pub(super) fn first_bad<'a>(seen: &Seen<'a>, findings: &'a [Findings]) -> Option<Context<'a>> {
    let located = findings.iter().flat_map(|findings| {
        let located = findings.violations.iter().filter_map(|violation| {
            let bad = locate(seen, violation)?;
            Some((bad, findings.checker.as_str(), violation))
        });
        located.collect::<Vec<_>>()
    });
    let (bad, checker, violation) = located.min_by_key(|(bad, ..)| *bad)?;
    Some(Context {
        checker,
        violation,
        around: around(seen, bad, violation),
    })
}

/// The place of the operation at which a violation shows: the one that it points to, or the last of the first
/// transaction that it names.
fn locate(seen: &Seen<'_>, violation: &Violation) -> Option<usize> {
    let at = |index: u64| {
        let is_it = |event: &Event| event.index == index;
        let mut operations = seen.operations.iter();
        operations.position(|(asked, done)| is_it(asked) || done.is_some_and(is_it))
    };
    let of = |tx: Tx| {
        seen.operations
            .iter()
            .rposition(|operation| transaction(operation) == Some(tx))
    };
    let pointed = violation.event.and_then(at);
    pointed.or_else(|| named(&violation.what).into_iter().find_map(of))
}

fn transaction((asked, done): &(&Event, Option<&Event>)) -> Option<Tx> {
    let told = done.and_then(|done| done.call.transaction());
    told.or_else(|| asked.call.transaction())
}

/// The transactions that a text names, in their order.
fn named(text: &str) -> Vec<Tx> {
    text.split(|character: char| !character.is_ascii_hexdigit() && character != '-')
        .filter_map(|word| Tx::try_from(word.trim_matches('-').to_owned()).ok())
        .collect()
}

fn cells((asked, _): &(&Event, Option<&Event>)) -> BTreeSet<String> {
    asked.call.steps().iter().map(words::cell).collect()
}

fn around<'a>(seen: &Seen<'a>, bad: usize, violation: &Violation) -> Vec<Near<'a>> {
    let operations = &seen.operations;
    let mut txs: BTreeSet<Tx> = named(&violation.what).into_iter().collect();
    txs.extend(transaction(&operations[bad]));
    let is_named = |operation| transaction(operation).is_some_and(|tx| txs.contains(&tx));
    let mut own_cells = cells(&operations[bad]);
    if own_cells.is_empty() {
        // A question: what it is about is what its transaction touched.
        let own = operations.iter().filter(|operation| is_named(operation));
        own_cells = own.flat_map(cells).collect();
    }
    let bad_span = span(seen, &operations[bad]);
    let mut found: Vec<(u64, usize, Why)> = Vec::new();
    for (place, operation) in operations.iter().enumerate() {
        let shared: Vec<String> = cells(operation).intersection(&own_cells).cloned().collect();
        let why = match () {
            () if place == bad => Why::Bad,
            () if is_named(operation) => Why::Named,
            () if !shared.is_empty() => Why::Shares(shared),
            () => continue,
        };
        let (from, until) = span(seen, operation);
        let apart = from.saturating_sub(bad_span.1) + bad_span.0.saturating_sub(until);
        found.push((apart, place, why));
    }
    // The nearest of each kind.
    found.sort_by_key(|(apart, place, _)| (*apart, *place));
    let (mut sharing, mut named) = (0, 0);
    found.retain(|(_, _, why)| match why {
        Why::Bad => true,
        Why::Named => {
            named += 1;
            named <= MOST_NAMED
        }
        Why::Shares(_) => {
            sharing += 1;
            sharing <= MOST_SHARING
        }
    });
    found.sort_by_key(|(_, place, _)| *place);
    let near = found.into_iter().map(|(_, place, why)| {
        let (asked, done) = operations[place];
        Near { asked, done, why }
    });
    near.collect()
}

fn span(seen: &Seen<'_>, (asked, done): &(&Event, Option<&Event>)) -> (u64, u64) {
    (asked.time_ns, done.map_or(seen.end_ns, |done| done.time_ns))
}

impl Context<'_> {
    /// The operations around, one in each row, with the faults.
    pub(super) fn drawing(&self, seen: &Seen<'_>) -> Drawing {
        Drawing {
            name: NAME,
            caption: "The bad operation and those that have to do with it, in the order in which they were asked for. \
                      The numbers are those of the table."
                .to_owned(),
            wide: self.draw(seen, Size::Wide),
            narrow: self.draw(seen, Size::Narrow),
        }
    }

    fn draw(&self, seen: &Seen<'_>, size: Size) -> Markup {
        let spans: Vec<(u64, u64)> = self
            .around
            .iter()
            .map(|near| span(seen, &(near.asked, near.done)))
            .collect();
        let from = spans.iter().map(|span| span.0).min().unwrap_or_default();
        let until = spans.iter().map(|span| span.1).max().unwrap_or(seen.end_ns);
        let room = (until - from) / 20;
        let shown = (from.saturating_sub(room), until.saturating_add(room));
        let row = 16.0;
        let height = self.around.len() as f64 * row;
        let title = "Around the first bad operation";
        let mut plot = Plot::new(size, title, shown, seen.case.faults, height, Axis::none());
        for (_, class, text) in ENDS {
            plot.explain(class, text);
        }
        plot.explain("bad", "the bad one");
        for (place, near) in self.around.iter().enumerate() {
            let y = plot.top() + (place as f64 + 0.5) * row;
            plot.name_row(y + 4.0, &(place + 1).to_string());
            let (from, until) = spans[place];
            let ended = words::ended(near.done);
            let class = ENDS
                .iter()
                .find(|(kind, ..)| *kind == ended)
                .map_or("info", |(_, class, _)| class);
            let mut drawn = Markup::default();
            drawn.open(
                "g",
                &[("class", &if near.why == Why::Bad { "bars halo" } else { "bars" })],
            );
            let mut bar = Shapes::new(class);
            let left = plot.x(from);
            bar.bar(left, plot.x(until).max(left + 1.5), y);
            bar.draw(&mut drawn);
            drawn.close("g");
            plot.draw().add(&drawn);
        }
        plot.finish()
    }
}

impl Context<'_> {
    /// What was disturbed while the bad operation was under way, or last before it.
    pub(super) fn disturbed(&self, seen: &Seen<'_>) -> Option<String> {
        let bad = self.around.iter().find(|near| near.why == Why::Bad)?;
        let (from, until) = span(seen, &(bad.asked, bad.done));
        let named = |(place, fault): (usize, &Injected)| format!("{} {}", place + 1, fault.fault);
        let faults = || seen.case.faults.iter().enumerate();
        let meanwhile = faults().filter(|(_, fault)| fault.begun_ns <= until && fault.ended_ns >= from);
        let meanwhile: Vec<String> = meanwhile.map(named).collect();
        if !meanwhile.is_empty() {
            return Some(format!(
                "It was under way while this happened: {}.",
                meanwhile.join(", ")
            ));
        }
        let before = faults().filter(|(_, fault)| fault.ended_ns < from);
        let last = before.max_by_key(|(_, fault)| fault.ended_ns)?;
        let after = words::millis((from - last.1.ended_ns) / words::MS);
        Some(format!(
            "It was asked for {after} after {} was over.",
            named(last)
        ))
    }
}

impl Why {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Bad => "the bad one".to_owned(),
            Self::Named => "named with it".to_owned(),
            Self::Shares(cells) if cells.len() > 4 => format!("{} cells in common", cells.len()),
            Self::Shares(cells) => cells.join(", "),
        }
    }
}
