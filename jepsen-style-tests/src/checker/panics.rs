use super::quiet::delays_messages;
use super::{Case, Checker, Findings, needs};
use crate::cluster::Layout;

/// V32, R9: no process panics, and nobody sends what only somebody who breaks the rules would.
pub(super) struct Panics;

impl Checker for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn checks(&self) -> &'static str {
        "V32: no panic in any log; and no alarm in any, unless messages were replayed"
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
        for panic in &evidence.panics {
            findings.violate("panic", format!("{}: {}", panic.member, panic.line), None);
        }
        // A message that comes late, or again, may have to be refused. Without such faults nobody sends one.
        let expected = case.faults.iter().any(delays_messages);
        findings.count("alarms", evidence.alarms.len() as u64);
        if !expected {
            for alarm in &evidence.alarms {
                findings.violate("alarm", format!("{}: {}", alarm.member, alarm.line), None);
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::Made;
    use crate::evidence::LogLine;

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
