use std::collections::BTreeMap;

use super::quiet::{MS, delays_messages, members_named, moves_wall_clocks, restores};
use super::{Case, Checker, Findings, needs};
use crate::cluster::Layout;
use crate::evidence::LogLine;
use crate::nemesis::Injected;

/// How long messages that came late may still be refused after the fault that kept them: whoever sent them sends them
/// again.
const LATE_MS: u64 = 5_000;

/// V32, R9: no process panics, and nobody sends what only somebody who breaks the rules would.
pub(super) struct Panics;

impl Checker for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn checks(&self) -> &'static str {
        "V32: no panic in any log but what damage was to cause; no alarm but of replayed or forgotten messages"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let evidence = case.evidence;
        let members = needs::layout(case, &mut findings)
            .into_iter()
            .flat_map(Layout::members);
        for member in members.map(|member| member.to_string()) {
            match evidence.logs_read.contains(&member) {
                true => findings.count("logs", 1),
                false => findings.miss(format!("the log of {member}")),
            }
        }
        let mut expected = expected_panics(case);
        for panic in &evidence.panics {
            match expected.get_mut(panic.line.as_str()) {
                Some(times) if *times > 0 => {
                    *times -= 1;
                    findings.count("expected panics", 1);
                }
                _ => findings.violate("panic", format!("{}: {}", panic.member, panic.line), None),
            }
        }
        findings.count("alarms", evidence.alarms.len() as u64);
        for alarm in &evidence.alarms {
            // Who forgot a promise refuses its commit, and is right to.
            match while_restored(case, &alarm.line) || while_delayed(case, alarm) {
                true => findings.count("expected alarms", 1),
                false => findings.violate("alarm", format!("{}: {}", alarm.member, alarm.line), None),
            }
        }
        // When they were refused is not known.
        if !case.faults.iter().any(delays_messages) {
            for (name, participant) in &evidence.participants {
                if participant.refused_messages > 0 {
                    let what = format!(
                        "{name} refused {} messages that break the rules",
                        participant.refused_messages
                    );
                    findings.violate("alarm", what, None);
                }
            }
        }
        needs::something(&mut findings, "logs");
        findings
    }
}

/// The lines of panics that faults quote as expected, and how often.
fn expected_panics<'a>(case: &Case<'a>) -> BTreeMap<&'a str, u64> {
    let mut expected = BTreeMap::new();
    for said in case.faults.iter().filter_map(|fault| fault.evidence.as_deref()) {
        for line in said.split("expected panic: ").skip(1) {
            let line = line.split("; expected panic: ").next().unwrap_or(line);
            *expected.entry(line.trim_end_matches("; ")).or_default() += 1;
        }
    }
    expected
}

/// Whether a line was written while a process ran from an old data folder, or from an empty one.
fn while_restored(case: &Case<'_>, line: &str) -> bool {
    let (Some(began), Some(at)) = (case.evidence.began_unix_ms, unix_ms(line)) else {
        return false;
    };
    let mut restored = case.faults.iter().filter(|fault| restores(fault));
    restored.any(|fault| is_during(fault, began, at, 1))
}

/// Whether a line may have been written while messages came late, or again, so that some had to be refused. Without
/// such faults nobody sends one.
fn while_delayed(case: &Case<'_>, alarm: &LogLine) -> bool {
    let mut delays = case.faults.iter().filter(|fault| delays_messages(fault));
    let untrue = |fault: &Injected| {
        let named = members_named(fault);
        moves_wall_clocks(fault) && (named.is_empty() || named.contains(alarm.member.as_str()))
    };
    let at = unix_ms(&alarm.line).filter(|_| !case.faults.iter().any(untrue));
    let (Some(began), Some(at)) = (case.evidence.began_unix_ms, at) else {
        return delays.next().is_some();
    };
    delays.any(|fault| is_during(fault, began, at, LATE_MS))
}

/// Whether a moment lies within a fault, or so many milliseconds after it.
fn is_during(fault: &Injected, began: u64, at: u64, after_ms: u64) -> bool {
    let unix = |ns: u64| began.saturating_add(ns / MS);
    (unix(fault.begun_ns)..=unix(fault.ended_ns).saturating_add(after_ms)).contains(&at)
}

/// When a line of a log was written, which it says at its beginning: `2026-11-21T13:54:27.702618Z`.
fn unix_ms(line: &str) -> Option<u64> {
    let (date, time) = line
        .split_whitespace()
        .next()?
        .strip_suffix('Z')?
        .split_once('T')?;
    let numbers = |text: &str, between: char| -> Option<[u64; 3]> {
        let numbers: Option<Vec<u64>> = text.split(between).map(|number| number.parse().ok()).collect();
        numbers?.try_into().ok()
    };
    let (time, fraction) = time.split_once('.')?;
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let in_range = (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let ms: u64 = fraction.get(..3)?.parse().ok()?;
    // A year that begins in March has its odd day at its end.
    let (year, month) = match month {
        3.. => (year, month - 3),
        _ => (year - 1, month + 9),
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    // The first of January 1970, counted the same way.
    let days = days.checked_sub(719_468)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::Made;

    fn line(member: &str) -> LogLine {
        LogLine {
            member: member.to_owned(),
            line: "something is wrong".to_owned(),
        }
    }

    #[test]
    fn clean_logs_pass() {
        Made::with_transfers().assert(&Panics, &[]);
    }

    #[test]
    fn a_panic_and_an_alarm_are_found() {
        let mut made = Made::with_transfers();
        made.evidence.panics.push(line("c1"));
        made.assert(&Panics, &["panic"]);
        let mut made = Made::with_transfers();
        made.evidence.alarms.push(line("c1"));
        made.assert(&Panics, &["alarm"]);
        let mut made = Made::with_transfers();
        made.participant("p1").refused_messages = 1;
        made.assert(&Panics, &["alarm"]);
    }

    #[test]
    fn an_alarm_is_right_when_messages_were_replayed_and_a_panic_never_is() {
        let mut made = Made::with_transfers();
        made.evidence.alarms.push(line("p1"));
        made.participant("p1").refused_messages = 1;
        made.fault("replay-commit", 0, 1, Some("refused"));
        made.assert(&Panics, &[]);
        made.evidence.panics.push(line("p1"));
        made.assert(&Panics, &["panic"]);
    }

    #[test]
    fn an_alarm_that_is_dated_is_right_only_near_a_replay() {
        let mut made = Made::with_transfers();
        made.evidence.began_unix_ms = unix_ms("2026-11-21T13:54:27.702618Z x");
        made.fault("hold-messages", 1_000, 2_000, Some("delivered"));
        for (second, right) in [
            ("28.702", true),
            ("34.702", true),
            ("28.701", false),
            ("34.703", false),
        ] {
            let mut alarm = line("p1");
            alarm.line = format!("2026-11-21T13:54:{second}618Z ERROR a message was refused");
            made.evidence.alarms = vec![alarm];
            let wrong: &[&str] = if right { &[] } else { &["alarm"] };
            made.assert(&Panics, wrong);
        }
        // By a clock that was moved, which tells no time.
        made.fault("clock-jump", 9_000, 9_001, Some("it told another time"));
        made.faults[1].what = "p1: its clock jumps by +3.000 s".to_owned();
        made.assert(&Panics, &[]);
        made.faults[1].what = "p2: its clock jumps by +3.000 s".to_owned();
        made.assert(&Panics, &["alarm"]);
    }

    #[test]
    fn a_panic_that_a_fault_was_to_cause_is_none_as_often_as_it_was() {
        let mut made = Made::with_transfers();
        for member in ["c1", "c1"] {
            made.evidence.panics.push(line(member));
        }
        let said = "c1 served; expected panic: something else; expected panic: something is wrong";
        made.fault("bit-flip", 0, 1, Some(said));
        let findings = made.assert(&Panics, &["panic"]);
        assert_eq!(findings.counted["expected panics"], 1);
        made.evidence.panics.pop();
        made.assert(&Panics, &[]);
    }

    #[test]
    fn an_alarm_is_right_only_while_an_old_copy_was_there() {
        let mut made = Made::with_transfers();
        let began = unix_ms("2026-11-21T13:54:27.702618Z").unwrap();
        made.evidence.began_unix_ms = Some(began);
        made.fault("old-copy-participant", 1_000, 2_000, Some("p1 was refused"));
        for (second, right) in [
            ("28.702", true),
            ("29.702", true),
            ("28.701", false),
            ("29.704", false),
        ] {
            let mut alarm = line("p1");
            alarm.line = format!("2026-11-21T13:54:{second}618Z ERROR a message was refused");
            made.evidence.alarms = vec![alarm];
            let wrong: &[&str] = if right { &[] } else { &["alarm"] };
            made.assert(&Panics, wrong);
        }
        made.evidence.alarms = vec![line("p1")];
        made.assert(&Panics, &["alarm"]);
    }

    #[test]
    fn times_of_lines_are_read() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.000Z x", 0),
            ("2000-02-29T12:00:00.500Z x", 951_825_600_500),
            ("2026-11-21T13:54:27.702618Z x", 1_795_269_267_702),
        ] {
            assert_eq!(unix_ms(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "x",
            "2026-11-21 x",
            "2026-13-21T13:54:27.702Z",
            "1969-12-31T00:00:00.000Z",
        ] {
            assert_eq!(unix_ms(text), None, "{text}");
        }
    }

    #[test]
    fn a_log_that_was_not_read_is_no_pass() {
        let mut made = Made::with_transfers();
        made.evidence.logs_read.remove("c2");
        assert_eq!(made.check(&Panics).verdict, Verdict::Unknown);
        made.evidence.layout = Some(Layout {
            coordinators: u64::MAX,
            participants: u64::MAX,
            replaced: u64::MAX,
        });
        assert_eq!(made.check(&Panics).verdict, Verdict::Unknown);
    }
}
