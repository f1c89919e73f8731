//! Numbers and names as people read them.

use std::fmt::Write as _;

use crate::checker::Verdict;
use crate::history::{Action, Answer, Call, Event, Kind, Step};

/// Nanoseconds in a millisecond.
pub(super) const MS: u64 = 1_000_000;

/// With a comma between thousands.
pub(super) fn number(value: impl Into<i128>) -> String {
    let value = value.into();
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "−" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "3 faults", "1 fault".
pub(super) fn many(count: u64, one: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {one}{plural}", number(count))
}

/// "230 ms", "1.2 s".
pub(super) fn millis(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..100_000 => format!("{:.1} s", ms as f64 / 1e3),
        _ => format!("{} s", ms / 1_000),
    }
}

/// Seconds since the history began: "12.345".
pub(super) fn moment(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000_000, ns / MS % 1_000)
}

pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "valid",
        Verdict::Unknown => "unknown",
        Verdict::Invalid => "invalid",
    }
}

/// "money_lost" for people: "money lost".
pub(super) fn kind(kind: &str) -> String {
    kind.replace('_', " ")
}

/// How an operation ended; without a completion nobody knows.
pub(super) fn ended(completion: Option<&Event>) -> Kind {
    match completion.map(|event| event.kind) {
        Some(Kind::Ok) => Kind::Ok,
        Some(Kind::Fail) => Kind::Fail,
        Some(Kind::Info | Kind::Invoke) | None => Kind::Info,
    }
}

/// "p1/a −5, p2/b +5": so many steps at most.
pub(super) fn call(call: &Call, most: usize) -> String {
    match call {
        Call::Transact { steps, .. } => {
            let mut text: Vec<String> = steps.iter().take(most).map(step).collect();
            if steps.len() > most {
                text.push(format!("and {} more", steps.len() - most));
            }
            text.join(", ")
        }
        Call::Query { node, .. } => format!("asks c{node} for the outcome"),
        Call::Abort { .. } => "asks for an abort".to_owned(),
    }
}

pub(super) fn step(step: &Step) -> String {
    let cell = cell(step);
    match &step.action {
        Action::Add { delta, .. } if *delta < 0 => format!("{cell} {}", number(*delta)),
        Action::Add { delta, .. } => format!("{cell} +{}", number(*delta)),
        Action::Append(value) => format!("{cell} append {value}"),
        Action::Read {
            number: None,
            list: None,
        } => format!("{cell} read"),
        Action::Read { number: read, list } => {
            let mut text = format!("{cell} =");
            let list = list.as_deref().unwrap_or_default();
            if let Some(read) = read.filter(|read| list.is_empty() || *read != 0) {
                let written = write!(text, " {}", number(read));
                debug_assert!(written.is_ok(), "a string takes everything");
            }
            if !list.is_empty() {
                text.push_str(&format!(" {list:?}"));
            }
            text
        }
    }
}

pub(super) fn cell(step: &Step) -> String {
    format!("{}/{}", step.participant, step.cell)
}

/// What came of an operation.
pub(super) fn outcome(completion: Option<&Event>) -> String {
    let Some(event) = completion else {
        return "never completed".to_owned();
    };
    let answer = match &event.answer {
        Some(Answer::Committed) => Some("committed".to_owned()),
        Some(Answer::Aborted(reason)) => Some(format!("aborted: {reason}")),
        Some(Answer::Undecided) => Some("not decided yet".to_owned()),
        Some(Answer::Expired) => Some("too old to be known".to_owned()),
        None => None,
    };
    match (answer, &event.error) {
        (Some(answer), Some(error)) if !answer.ends_with(error.as_str()) => format!("{answer}; {error}"),
        (Some(answer), _) => answer,
        (None, Some(error)) => error.clone(),
        (None, None) => "no answer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_write_them() {
        assert_eq!(number(1_234_567_i64), "1,234,567");
        assert_eq!(number(-500_i64), "−500");
        assert_eq!(
            [millis(999), millis(1_240), millis(100_900)],
            ["999 ms", "1.2 s", "100 s"]
        );
        assert_eq!(moment(12_345_678_901), "12.345");
        assert_eq!(
            [many(1, "fault"), many(2_000, "fault")],
            ["1 fault", "2,000 faults"]
        );
    }
}
