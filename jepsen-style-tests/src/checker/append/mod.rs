//! Isolation of transactions on lists, after Elle: values are unique, so a list shows in which order it was written and
//! what each reader had seen.
//!
//! From the order of each list follows who came before whom: who appended next (ww), who read it (wr), who had not seen
//! it yet (rw). What completed before another was asked for came before it too (real time). The stores promise strict
//! serializability, so none of it may go round in a circle. A circle is named after the worst that it is made of: ww
//! alone is G0, with wr it is G1c, with one rw G-single, with more of them G2; and the same with `-realtime` if it needs
//! the time. Each is reported once, with the circle in words.

mod graph;
mod lists;
#[cfg(test)]
mod tests;

use self::graph::{Edge, Graph, Why};
use self::lists::Lists;
use super::told::Fate;
use super::{Case, Checker, Findings, needs};
use crate::history::Action;

/// V11, V13: transactions on lists are strictly serializable.
pub(super) struct Append;

/// What a circle is called, and the edges that it may be made of; worst first.
const NAMES: [(&str, &[Why]); 6] = [
    ("G0", &[Why::Wrote]),
    ("G1c", &[Why::Wrote, Why::Read]),
    ("G2", &[Why::Wrote, Why::Read, Why::Missed]),
    ("G0-realtime", &[Why::Wrote, Why::Time]),
    ("G1c-realtime", &[Why::Wrote, Why::Read, Why::Time]),
    ("G2-realtime", &[Why::Wrote, Why::Read, Why::Missed, Why::Time]),
];

impl Checker for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    fn checks(&self) -> &'static str {
        "V13: transactions on lists are strictly serializable (G0, G1a, G1b, G1c, G-single, G2, with real time)"
    }

    fn applies(&self, case: &Case<'_>) -> bool {
        let mut steps = case.history.events.iter().flat_map(|event| event.call.steps());
        steps.any(|step| matches!(step.action, Action::Append(_)))
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let lists = Lists::of(case, &mut findings);
        lists.judge(&mut findings);
        let txns = lists.txns.len();
        let mut edges = edges(&lists);
        let moments = time(&lists, &mut edges);
        let mut graph = Graph::new(txns + moments, edges);
        search(&mut graph, &lists, &mut findings);
        findings.count("edges", graph.len() as u64);
        findings.count("steps", graph.steps);
        needs::something(&mut findings, "appends");
        needs::something(&mut findings, "reads");
        findings
    }
}

/// What follows from the orders of the lists.
fn edges(lists: &Lists<'_>) -> Vec<Edge> {
    let mut edges = Vec::new();
    let committed = |list: u32, value: u64| {
        let writer = lists.writer(list, value)?;
        (lists.txns[writer as usize].fate == Fate::Committed).then_some(writer)
    };
    let mut add = |from: u32, to: u32, why, list, value| {
        edges.push(Edge {
            from,
            to,
            why,
            list,
            value,
        });
    };
    for (list, order) in lists.orders.iter().enumerate() {
        let list = list as u32;
        for pair in order.windows(2) {
            if let (Some(from), Some(to)) = (committed(list, pair[0]), committed(list, pair[1])) {
                add(from, to, Why::Wrote, list, pair[1]);
            }
        }
    }
    for (reader, txn) in lists
        .txns
        .iter()
        .enumerate()
        .filter(|(_, txn)| txn.fate == Fate::Committed)
    {
        let reader = reader as u32;
        for read in &txn.reads {
            let seen = &read.values[..read.others];
            if let Some(last) = seen.last()
                && let Some(writer) = committed(read.list, *last)
            {
                add(writer, reader, Why::Read, read.list, *last);
            }
            let order = lists.orders[read.list as usize];
            if order.starts_with(seen)
                && let Some(next) = order.get(seen.len())
                // A value that is there twice was seen, and is reported for what it is.
                && !seen.contains(next)
                && let Some(writer) = committed(read.list, *next)
            {
                add(reader, writer, Why::Missed, read.list, *next);
            }
        }
    }
    edges
}

/// Adds what follows from time: nodes for the moments at which something completed, one after the other, so that there
/// are as many edges as transactions and not as many as pairs of them. Returns how many.
fn time(lists: &Lists<'_>, edges: &mut Vec<Edge>) -> usize {
    let mut lines: Vec<(u64, bool, u32)> = Vec::new();
    for (number, txn) in lists
        .txns
        .iter()
        .enumerate()
        .filter(|(_, txn)| txn.fate == Fate::Committed)
    {
        // The opening is there before everything.
        if number > 0 {
            lines.push((txn.asked, true, number as u32));
            lines.extend(txn.told.map(|told| (told, false, number as u32)));
        }
    }
    lines.sort_unstable();
    let mut moments = 0;
    let mut add = |from, to| {
        edges.push(Edge {
            from,
            to,
            why: Why::Time,
            list: 0,
            value: 0,
        });
    };
    let mut last = None;
    for (_, asked, txn) in lines {
        if asked {
            if let Some(last) = last {
                add(last, txn);
            }
            continue;
        }
        let moment = (lists.txns.len() + moments) as u32;
        moments += 1;
        add(txn, moment);
        if let Some(last) = last {
            add(last, moment);
        }
        last = Some(moment);
    }
    moments
}

/// Finds every circle, and names it.
fn search(graph: &mut Graph, lists: &Lists<'_>, findings: &mut Findings) {
    let all = NAMES[NAMES.len() - 1].1;
    if graph.circles(all).is_empty() {
        return;
    }
    // For all searches of a better name together.
    let budget = 4 * graph.len() as u64;
    let enough = graph.steps + budget;
    let mut named = vec![false; lists.txns.len()];
    for (name, follow) in NAMES {
        for circle in graph.circles(follow) {
            let txns: Vec<u32> = circle
                .iter()
                .copied()
                .filter(|node| (*node as usize) < named.len())
                .collect();
            // A circle within it has a worse name already.
            if txns.iter().any(|node| named[*node as usize]) {
                continue;
            }
            for node in &txns {
                named[*node as usize] = true;
            }
            let Some(first) = txns.first() else { continue };
            let single = with_one_missed(graph, &circle, follow, enough);
            let way = single
                .or_else(|| graph.way(*first, *first, &circle, follow, u64::MAX))
                .unwrap_or_default();
            let missed = way.iter().filter(|edge| edge.why == Why::Missed).count();
            let name = if missed == 1 {
                name.replace("G2", "G-single")
            } else {
                name.to_owned()
            };
            let line = txns.iter().map(|node| lists.txns[*node as usize].line).max();
            findings.violate(&name, format!("{name}: {}", in_words(&way, lists)), line);
        }
    }
}

/// A circle with only one edge of the kind that makes the difference between G-single and G2, if one is found in time.
fn with_one_missed(graph: &mut Graph, circle: &[u32], follow: &[Why], enough: u64) -> Option<Vec<Edge>> {
    if !follow.contains(&Why::Missed) {
        return None;
    }
    let others: Vec<Why> = follow.iter().copied().filter(|why| *why != Why::Missed).collect();
    let missed: Vec<Edge> = graph.between(circle, Why::Missed).collect();
    for edge in missed {
        let left = enough.saturating_sub(graph.steps);
        if left == 0 {
            return None;
        }
        if let Some(mut way) = graph.way(edge.to, edge.from, circle, &others, left) {
            way.insert(0, edge);
            return Some(way);
        }
    }
    None
}

/// A circle, for people.
fn in_words(way: &[Edge], lists: &Lists<'_>) -> String {
    let txns = lists.txns.len();
    // Moments are left out: from the transaction before them to the one after them it is one step.
    let start = way
        .iter()
        .position(|edge| (edge.from as usize) < txns)
        .unwrap_or_default();
    let mut parts = Vec::new();
    let mut before = None;
    for edge in way[start..].iter().chain(&way[..start]) {
        let (from, to) = (edge.from as usize, edge.to as usize);
        if edge.why == Why::Time {
            if from < txns {
                before = Some(from);
            }
            if to < txns
                && let Some(before) = before
            {
                let (one, other) = (&lists.txns[before], &lists.txns[to]);
                parts.push(format!(
                    "{one} was told before line {} asked for {other}",
                    other.asked
                ));
            }
            continue;
        }
        let (one, other) = (&lists.txns[from], &lists.txns[to]);
        let (list, value) = (lists.name(edge.list), edge.value);
        parts.push(match edge.why {
            Why::Wrote => format!("{other} appended {value} to {list} after {one}"),
            Why::Read => format!("{other} read {value} in {list}, which {one} appended"),
            Why::Missed | Why::Time => format!("{one} did not see {value} in {list}, which {other} appended"),
        });
    }
    parts.join("; ")
}
