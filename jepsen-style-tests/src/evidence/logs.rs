use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use super::{Evidence, LogLine};
use crate::cluster::Member;

/// What the standard library writes when a thread panics.
const PANIC: &str = "panicked at";
/// What a coordinator and a participant write when somebody broke a rule of the protocol.
const ALARMS: [&str; 2] = ["a rule of the protocol was broken", "a message was refused"];
/// Lines kept of each kind from each process. One is enough to fail a run, unless a fault excuses it, and a log may have
/// millions.
const MOST: usize = 100;
/// Characters kept of a line.
const WIDTH: usize = 500;

/// Looks through a process's log for lines that no correct process writes.
pub(super) fn read(evidence: &mut Evidence, member: Member, log: &Path) -> io::Result<()> {
    let mut lines = BufReader::new(File::open(log)?);
    let mut line = Vec::new();
    let (mut panics, mut alarms) = (0, 0);
    // Not necessarily text: a process that was killed may have written half a character.
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let kept = || LogLine {
            member: member.to_string(),
            line: text.trim_end().chars().take(WIDTH).collect(),
        };
        if text.contains(PANIC) && panics < MOST {
            panics += 1;
            evidence.panics.push(kept());
        }
        if ALARMS.iter().any(|alarm| text.contains(alarm)) && alarms < MOST {
            alarms += 1;
            evidence.alarms.push(kept());
        }
        line.clear();
    }
    evidence.logs_read.insert(member.to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_that_panics_again_and_again_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(
            &log,
            "panicked at src/x.rs\na message was refused\n".repeat(2 * MOST),
        )
        .unwrap();
        let mut evidence = Evidence::default();
        for number in [1, 2] {
            read(&mut evidence, Member::Participant(number), &log).unwrap();
        }
        for lines in [&evidence.panics, &evidence.alarms] {
            let members: Vec<&str> = lines.iter().map(|line| line.member.as_str()).collect();
            assert_eq!(members, [["p1"; MOST], ["p2"; MOST]].concat());
        }
    }

    #[test]
    fn panics_and_alarms_are_found_whatever_else_is_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("p1.log");
        let text = b"serving\n\xff\xfe\nthread 'main' panicked at src/x.rs:1:2:\nno\n\
            ERROR a message was refused tx=1 violation=Commit for a branch that is aborted";
        std::fs::write(&log, text).unwrap();
        let mut evidence = Evidence::default();
        read(&mut evidence, Member::Participant(1), &log).unwrap();
        let lines = |found: &[LogLine]| found.iter().map(|line| line.line.clone()).collect::<Vec<_>>();
        assert_eq!(
            lines(&evidence.panics),
            ["thread 'main' panicked at src/x.rs:1:2:"]
        );
        assert_eq!(evidence.alarms.len(), 1);
        assert!(evidence.logs_read.contains("p1"));
        assert!(
            read(
                &mut evidence,
                Member::Participant(2),
                &folder.path().join("p2.log")
            )
            .is_err()
        );
        assert!(!evidence.logs_read.contains("p2"));
    }
}
