use super::quiet::{Disturbed, MS, moves_clocks, quantiles};
use super::{Case, Checker, Findings, needs};
use crate::evidence::ParticipantEvidence;

/// V14, V5: nobody stays in doubt for long once nothing disturbs it, and for ever never.
///
/// Time in doubt goes from the promise to the first word of how it ended, by the participant's clock. What of it was
/// disturbed, by any fault anywhere, does not count: less is found that way, and nothing wrongly.
pub(super) struct InDoubt;

/// The longest that a branch may be in doubt while nothing is disturbed. An election takes about a second, and who did
/// not hear asks again at least every few seconds.
const BOUND_MS: u64 = 10_000;
/// How long a fault has consequences: processes start, somebody is elected, connections are made again.
const SETTLE_MS: u64 = 3_000;

impl Checker for InDoubt {
    fn name(&self) -> &'static str {
        "in-doubt"
    }

    fn checks(&self) -> &'static str {
        "V5, V14: in doubt for at most 10 s while nothing is disturbed, and nobody is in doubt at the end"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        for (name, found) in needs::participants(case, &mut findings) {
            if found.in_doubt > 0 {
                let what = format!(
                    "{name} has {} branches in doubt after everything was over",
                    found.in_doubt
                );
                findings.violate("never_resolved", what, None);
            }
        }
        let Some(began) = case.evidence.began_unix_ms else {
            findings.miss("when the history began");
            return findings;
        };
        let disturbed = Disturbed::by(case.faults, SETTLE_MS * MS);
        let clocks_moved = case.faults.iter().any(moves_clocks);
        let mut times = Vec::new();
        for (name, found) in needs::journals(case, &mut findings) {
            if clocks_moved {
                // Two readings of a clock that was moved in between say nothing.
                findings.count("branches with moved clocks", found.promised.len() as u64);
            } else {
                times.extend(judge(&name, found, began, &disturbed, &mut findings));
            }
        }
        for (place, ms) in ["ms p50", "ms p99", "ms max"]
            .iter()
            .zip(quantiles(times).into_iter().flatten())
        {
            findings.count(place, ms);
        }
        if !clocks_moved {
            needs::something(&mut findings, "branches");
        }
        findings
    }
}

/// The branches of one participant: how long each was in doubt.
fn judge(
    name: &str,
    found: &ParticipantEvidence,
    began: u64,
    disturbed: &Disturbed,
    findings: &mut Findings,
) -> Vec<u64> {
    let mut times = Vec::new();
    for (tx, promised) in &found.promised {
        let Some(heard) = found.heard.get(tx) else {
            // Written down without waiting for the disk, so a crash may lose it.
            findings.count("branches that heard at a time unknown", 1);
            continue;
        };
        findings.count("branches", 1);
        let ms = heard.saturating_sub(*promised);
        times.push(ms);
        let since = |unix_ms: u64| unix_ms.saturating_sub(began).saturating_mul(MS);
        let excused = disturbed.within(since(*promised), since(*heard)) / MS;
        if ms.saturating_sub(excused) > BOUND_MS {
            let what =
                format!("{tx} was in doubt at {name} for {ms} ms, of which {excused} ms were disturbed");
            findings.violate("in_doubt_too_long", what, None);
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, tx};

    #[test]
    fn short_doubts_are_right() {
        let findings = Made::with_transfers().assert(&InDoubt, &[]);
        assert_eq!(findings.counted["branches"], 14);
        assert_eq!(findings.counted["ms max"], 2);
    }

    #[test]
    fn a_long_doubt_is_found_unless_something_disturbed_it() {
        let mut made = Made::with_transfers();
        *made.participant("p2").heard.get_mut(&tx(1)).unwrap() += 20_000;
        made.assert(&InDoubt, &["in_doubt_too_long"]);
        made.fault("kill-leader", 2_000, 10_000, Some("killed"));
        made.assert(&InDoubt, &[]);
        made.fault("kill-leader", 60_000, 90_000, Some("killed"));
        made.assert(&InDoubt, &[]);
    }

    #[test]
    fn a_doubt_that_never_ends_is_found() {
        let mut made = Made::with_transfers();
        made.participant("p2").in_doubt = 1;
        made.assert(&InDoubt, &["never_resolved"]);
    }

    #[test]
    fn what_cannot_be_dated_is_no_pass() {
        let mut made = Made::with_transfers();
        made.evidence.began_unix_ms = None;
        assert_eq!(made.check(&InDoubt).verdict, Verdict::Unknown);
        let mut made = Made::with_transfers();
        for name in ["p1", "p2"] {
            made.participant(name).heard.clear();
        }
        assert_eq!(made.check(&InDoubt).verdict, Verdict::Unknown);
    }
}
