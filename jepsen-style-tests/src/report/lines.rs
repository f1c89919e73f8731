//! The lines of the processes' logs that tell what happened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use crate::cluster::Member;
use crate::nemesis::Injected;

/// What is shown of one process's log.
pub(super) struct MemberLog {
    pub(super) member: String,
    pub(super) lines: Vec<Line>,
    /// Lines that matter too and are not shown.
    pub(super) left_out: u64,
    /// Why it cannot be read, if so.
    pub(super) unreadable: Option<String>,
}

/// A line of a log, or several that say the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// Nanoseconds since the history began, by the clock of the process. Negative before it.
    pub(super) at_ns: Option<i128>,
    pub(super) level: Level,
    pub(super) text: String,
    /// How many there are of it, one after the other.
    pub(super) times: u64,
}

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Info,
    Warn,
    Error,
}

/// How long before and after the beginning and the end of a fault any line matters.
const AROUND_NS: i128 = 1_000_000_000;
/// Lines shown of one process.
const MOST: usize = 150;
/// Characters shown of a line.
const WIDTH: usize = 400;

/// What each process said that matters: warnings, errors, and everything around faults.
pub(super) fn read(
    logs: &Path,
    members: impl Iterator<Item = Member>,
    began_unix_ms: Option<u64>,
    faults: &[Injected],
) -> Vec<MemberLog> {
    let of = |member: Member| {
        let file = File::open(logs.join(format!("{member}.log")));
        let read = file.and_then(|file| relevant(BufReader::new(file), began_unix_ms, faults));
        let (lines, left_out, unreadable) = match read {
            Ok((lines, left_out)) => (lines, left_out, None),
            Err(error) => (Vec::new(), 0, Some(error.to_string())),
        };
        MemberLog {
            member: member.to_string(),
            lines,
            left_out,
            unreadable,
        }
    };
    members.map(of).collect()
}

fn relevant(
    mut log: impl io::BufRead,
    began_unix_ms: Option<u64>,
    faults: &[Injected],
) -> io::Result<(Vec<Line>, u64)> {
    let (mut lines, mut left_out): (Vec<Line>, u64) = (Vec::new(), 0);
    // The place of the last line of each kind, so that a hundred heartbeats that fail are one line.
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut bytes = Vec::new();
    // Not necessarily text: a process that was killed may have written half a character.
    while log.read_until(b'\n', &mut bytes)? > 0 {
        let line = parse(&String::from_utf8_lossy(&bytes), began_unix_ms);
        bytes.clear();
        if line.level == Level::Info && !is_near(line.at_ns, faults) {
            continue;
        }
        let shape = shape(&line);
        let same = known
            .get(&shape)
            .copied()
            .filter(|place| close(&lines[*place], &line));
        match same {
            Some(place) => lines[place].times += 1,
            None if lines.len() < MOST => {
                known.insert(shape, lines.len());
                lines.push(line);
            }
            None => left_out += 1,
        }
    }
    Ok((lines, left_out))
}

fn parse(line: &str, began_unix_ms: Option<u64>) -> Line {
    let line = line.trim_end();
    let mut words = line.splitn(2, ' ');
    let time = words.next().and_then(unix_ns);
    let rest = words.next().unwrap_or_default().trim_start();
    let leveled = [
        ("ERROR", Level::Error),
        ("WARN", Level::Warn),
        ("INFO", Level::Info),
    ]
    .into_iter()
    .find_map(|(name, level)| Some((level, rest.strip_prefix(name)?.trim_start())));
    let (level, text) = match (time, leveled) {
        (Some(_), Some(leveled)) => leveled,
        // Nothing that a process writes in order: the message of a panic, a backtrace.
        _ => (Level::Error, line),
    };
    let began_ns = began_unix_ms.map(|ms| i128::from(ms) * 1_000_000);
    Line {
        at_ns: time.zip(began_ns).map(|(at, began)| at - began),
        level,
        text: text.chars().take(WIDTH).collect(),
        times: 1,
    }
}

/// Lines that differ only in numbers have one shape.
fn shape(line: &Line) -> String {
    let letters = line
        .text
        .chars()
        .filter(|character| !character.is_ascii_hexdigit());
    format!("{:?} {}", line.level, letters.collect::<String>())
}

/// Whether a line is so soon after one of the same kind that it is not told again.
fn close(known: &Line, line: &Line) -> bool {
    match (known.at_ns, line.at_ns) {
        (Some(known), Some(at)) => at - known < 5 * AROUND_NS,
        _ => false,
    }
}

fn is_near(at_ns: Option<i128>, faults: &[Injected]) -> bool {
    let Some(at) = at_ns else { return true };
    faults.iter().any(|fault| {
        [fault.begun_ns, fault.ended_ns]
            .into_iter()
            .any(|moment| (at - i128::from(moment)).abs() <= AROUND_NS)
    })
}

/// Nanoseconds since 1970 of a time such as `2026-11-21T13:29:52.078016Z`.
fn unix_ns(text: &str) -> Option<i128> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i128>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<i128>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let nanos: i128 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    // Days since 1970 of a date, with years that begin in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + nanos)
}
