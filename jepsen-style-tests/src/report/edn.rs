//! A history as Jepsen has it: one map in each line, in EDN. Transactions are `:txn` with micro-operations, as Elle reads
//! them; faults are operations of the process `:nemesis`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::words;
use crate::history::{Action, Answer, Call, Event, History, Kind, Step, Style};
use crate::nemesis::Injected;

/// The whole history with the faults, in the order of time.
pub(super) fn history(history: &History, faults: &[Injected]) -> String {
    let lists = cells_with_lists(history);
    let events = history
        .events
        .iter()
        .map(|event| (event.time_ns, operation(event, &lists)));
    let faults = faults.iter().flat_map(|fault| {
        let evidence = fault.evidence.as_deref().map_or("nil".to_owned(), string);
        let value = format!("{{:what {}, :evidence {evidence}}}", string(&fault.what));
        let line = |at_ns, f: &str| {
            (
                at_ns,
                format!(":type :info, :process :nemesis, :f :{f}, :value {value}"),
            )
        };
        let (start, stop) = (
            format!("start-{}", keyword(&fault.fault)),
            format!("stop-{}", keyword(&fault.fault)),
        );
        [line(fault.begun_ns, &start), line(fault.ended_ns, &stop)]
    });
    let mut lines: Vec<(u64, String)> = events.chain(faults).collect();
    // Stable, so that lines of one moment stay in their order.
    lines.sort_by_key(|(at_ns, _)| *at_ns);
    let mut text = String::new();
    for (index, (at_ns, line)) in lines.iter().enumerate() {
        let written = writeln!(text, "{{:index {index}, :time {at_ns}, {line}}}");
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    text
}

/// Cells to which anybody appends: what is read of them is a list, of others a number.
fn cells_with_lists(history: &History) -> BTreeSet<String> {
    let steps = history.events.iter().flat_map(|event| event.call.steps());
    steps
        .filter(|step| matches!(step.action, Action::Append(_)))
        .map(words::cell)
        .collect()
}

fn operation(event: &Event, lists: &BTreeSet<String>) -> String {
    let kind = match event.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    };
    let (f, value) = match &event.call {
        Call::Transact { steps, .. } => {
            let steps: Vec<String> = steps.iter().map(|step| micro_operation(step, lists)).collect();
            ("txn", format!("[{}]", steps.join(" ")))
        }
        Call::Query { node, .. } => ("query", format!("{{:node {node}}}")),
        Call::Abort { members, .. } => {
            let members: Vec<String> = members.iter().map(|member| string(member)).collect();
            ("abort", format!("{{:members [{}]}}", members.join(" ")))
        }
    };
    let mut text = format!(
        ":type :{kind}, :process {}, :f :{f}, :value {value}",
        event.process.0
    );
    let mut add = |key: &str, value: String| text.push_str(&format!(", :{key} {value}"));
    if let Some(tx) = event.call.transaction() {
        add("tx", string(&tx.to_string()));
    }
    if let Call::Transact { style, key, .. } = &event.call {
        if *style == Style::Interactive {
            add("style", ":interactive".to_owned());
        }
        if let Some(key) = key {
            add("key", string(key));
        }
    }
    match &event.answer {
        Some(Answer::Committed) => add("answer", ":committed".to_owned()),
        Some(Answer::Aborted(_)) => add("answer", ":aborted".to_owned()),
        Some(Answer::Undecided) => add("answer", ":undecided".to_owned()),
        Some(Answer::Expired) => add("answer", ":expired".to_owned()),
        None => {}
    }
    if let Some(error) = &event.error {
        add("error", string(error));
    }
    // The line of history.jsonl, which the report speaks of.
    add("line", event.index.to_string());
    text
}

fn micro_operation(step: &Step, lists: &BTreeSet<String>) -> String {
    let name = words::cell(step);
    let cell = string(&name);
    match &step.action {
        Action::Add { delta, .. } => format!("[:add {cell} {delta}]"),
        Action::Append(value) => format!("[:append {cell} {value}]"),
        Action::Read { list: Some(list), .. } if lists.contains(&name) => {
            let values: Vec<String> = list.iter().map(u64::to_string).collect();
            format!("[:r {cell} [{}]]", values.join(" "))
        }
        Action::Read {
            number: Some(number), ..
        } if !lists.contains(&name) => format!("[:r {cell} {number}]"),
        Action::Read { .. } => format!("[:r {cell} nil]"),
    }
}

fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ if character.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// What is left of a name as a keyword.
fn keyword(name: &str) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || character == '-';
    name.chars()
        .map(|character| if allowed(character) { character } else { '-' })
        .collect()
}
