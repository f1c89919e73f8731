use super::quiet::{Disturbed, MS, is_one_of, members_named, moves_wall_clocks, quantiles};
use super::{Case, Checker, Findings, needs};
use crate::cluster::Layout;
use crate::evidence::ParticipantEvidence;
use crate::nemesis::Injected;

/// V14, V5: nobody stays in doubt for long once nothing disturbs it, and for ever never.
///
/// Time in doubt goes from the promise to the first word of how it ended, by the participant's clock. Not all of it
/// counts:
///
/// - While a member of the transaction is disturbed, or so many nodes that the others are no quorum, nobody can be
///   expected to know. Nor while everybody may be disturbed: by networks, by messages, by what names nobody.
/// - A node that is away, and leaves a quorum, costs an election and no more, however long it is away. A node that is
///   slow, or short of something, may go on leading, so the whole time is excused.
/// - Other participants excuse nothing.
///
/// A participant whose own wall clock was moved is not judged.
pub(super) struct InDoubt;

/// The longest that a branch may be in doubt while nothing is disturbed. An election takes about a second, and who did
/// not hear asks again at least every few seconds.
const BOUND_MS: u64 = 10_000;
/// How long a fault has consequences that `BOUND_MS` has no room for: connections are made again.
const SETTLE_MS: u64 = 1_000;
/// What a node that goes away costs beyond `BOUND_MS`, which has room for one election.
const ELECTION_MS: u64 = 3_000;
/// Faults that happen to processes, and say to which.
const OF_PROCESSES: [&str; 14] = [
    "kill",
    "pause",
    "power",
    "fsync",
    "disk",
    "flip",
    "truncate",
    "descriptors",
    "memory",
    "clock",
    "monotonic",
    "copy",
    "wiped",
    "restore",
];
/// Those of them that take a process away, so that a node does not go on leading.
const TAKES_AWAY: [&str; 10] = [
    "kill",
    "pause",
    "power",
    "error",
    "flip",
    "truncate",
    "monotonic",
    "copy",
    "wiped",
    "restore",
];

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
        let mut times = Vec::new();
        let mut clocks_moved = false;
        for (name, found) in needs::journals(case, &mut findings) {
            if case.faults.iter().any(|fault| moves_clock_of(&name, fault)) {
                // Two readings of a clock that was moved in between say nothing.
                findings.count("branches with moved clocks", found.promised.len() as u64);
                clocks_moved = true;
            } else {
                times.extend(judge(&name, found, began, case, &mut findings));
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
    case: &Case<'_>,
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
        if ms <= BOUND_MS {
            continue;
        }
        let members = found.promises.get(tx).map(|promise| promise.members.as_slice());
        let layout = case.evidence.layout;
        let spans = case
            .faults
            .iter()
            .filter_map(|fault| excused(fault, name, members, layout));
        let excused = Disturbed::during(spans).within(since(*promised), since(*heard)) / MS;
        if ms.saturating_sub(excused) > BOUND_MS {
            let what = format!("{tx} was in doubt at {name} for {ms} ms, of which {excused} ms are excused");
            findings.violate("in_doubt_too_long", what, None);
        }
    }
    times
}

/// Whether a fault moved the wall clock of this participant, as far as it says whose.
fn moves_clock_of(name: &str, fault: &Injected) -> bool {
    let named = members_named(fault);
    moves_wall_clocks(fault) && (named.is_empty() || named.contains(name))
}

/// The time in which a fault excuses that a participant is in doubt about a transaction with these members.
fn excused(
    fault: &Injected,
    name: &str,
    members: Option<&[String]>,
    layout: Option<Layout>,
) -> Option<(u64, u64)> {
    let ended = fault.ended_ns.max(fault.begun_ns);
    let whole = Some((fault.begun_ns, ended.saturating_add(SETTLE_MS * MS)));
    let election = Some((
        fault.begun_ns,
        ended.min(fault.begun_ns.saturating_add(ELECTION_MS * MS)),
    ));
    let named = members_named(fault);
    let is_node = |name: &&&str| name.starts_with('c');
    let nodes = named.iter().filter(is_node).count() as u64;
    let quorum = layout.is_some_and(|layout| nodes * 2 < layout.coordinators);
    if is_one_of(fault, &["transfer"]) || fault.fault == "partition-leader" && quorum {
        return election;
    }
    if !is_one_of(fault, &OF_PROCESSES) || named.is_empty() || !quorum {
        return whole;
    }
    let takes_part = |one: &&str| {
        let among = |members: &[String]| members.iter().any(|member| member == one);
        !one.starts_with('c') && (*one == name || members.is_none_or(among))
    };
    if named.iter().any(takes_part) {
        return whole;
    }
    match nodes {
        0 => None,
        _ if is_one_of(fault, &TAKES_AWAY) => election,
        _ => whole,
    }
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
        made.fault("partition-halves", 2_000, 12_000, Some("dropped"));
        made.assert(&InDoubt, &[]);
        made.fault("partition-halves", 60_000, 90_000, Some("dropped"));
        made.assert(&InDoubt, &[]);
    }

    /// A branch of p1 and p2 that p2 knew nothing of for 20 s, of which these faults took 15.
    fn doubtful(fault: &str, what: &str) -> Made {
        let mut made = Made::with_transfers();
        *made.participant("p2").heard.get_mut(&tx(1)).unwrap() += 20_000;
        made.fault(fault, 2_000, 17_000, Some("it happened"));
        made.faults[0].what = what.to_owned();
        made
    }

    #[test]
    fn a_node_that_is_away_excuses_an_election_and_no_more() {
        for (fault, what) in [
            ("kill-leader", "kill -9 of c1"),
            ("pause-leader-long", "SIGSTOP of c3"),
            ("partition-leader", "c1, the leader, alone all the time"),
            ("leader-transfer", "leadership handed from c1 to c2"),
            ("fsync-error", "error=EIO:when=3 of fsync of c2 (process 7)"),
            ("kill-several", "kill -9 of c1 p3"),
            ("kill-participant", "kill -9 of p3"),
        ] {
            let mut made = doubtful(fault, what);
            made.assert(&InDoubt, &["in_doubt_too_long"]);
            *made.participant("p2").heard.get_mut(&tx(1)).unwrap() -= 8_000;
            if fault != "kill-participant" {
                made.assert(&InDoubt, &[]);
            }
        }
    }

    #[test]
    fn members_quorums_and_what_happens_to_everybody_excuse_their_time() {
        for (fault, what) in [
            ("kill-all", "kill -9 of c1 c2 c3 p1 p2"),
            ("kill-several", "kill -9 of c1 c2"),
            ("kill-participant", "kill -9 of p2"),
            ("pause-participant", "SIGSTOP of p1"),
            ("fsync-stall", "delay_enter=900000 of fsync of c1 (process 7)"),
            ("disk-full", "the disk of c2 is full"),
            ("packet-loss", "30 % of all packets lost"),
            ("hold-messages", "at p3 held, in silence: …"),
            ("flapping", "c1, the leader, alone again and again"),
            ("membership", "c4 added, c1 removed"),
            ("kill-leader", "kill -9"),
        ] {
            doubtful(fault, what).assert(&InDoubt, &[]);
        }
    }

    #[test]
    fn only_whose_wall_clock_was_moved_is_not_judged() {
        let mut made = doubtful("clock-jump", "p2: its clock jumps by +20.000 s");
        let findings = made.assert(&InDoubt, &[]);
        assert_eq!(findings.counted["branches with moved clocks"], 7);
        assert_eq!(findings.counted["branches"], 7);
        *made.participant("p1").heard.get_mut(&tx(2)).unwrap() += 40_000;
        made.assert(&InDoubt, &["in_doubt_too_long"]);
        // Elsewhere, or only a monotonic one: p2 is judged.
        let mut made = doubtful("clock-jump", "p3: its clock jumps by +20.000 s");
        made.assert(&InDoubt, &["in_doubt_too_long"]);
        made.faults[0].fault = "monotonic-offset".to_owned();
        made.faults[0].what = "kill -9 of c2, back with a monotonic clock +99 s off".to_owned();
        made.assert(&InDoubt, &["in_doubt_too_long"]);
        // Nobody knows whose.
        let made = doubtful("clock-jump", "a clock jumps");
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
