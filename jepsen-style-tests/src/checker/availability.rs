use super::quiet::{MS, is_one_of, quantiles};
use super::told::Attempt;
use super::{Case, Checker, Findings, needs};
use crate::history::{Call, Event, Kind};
use crate::nemesis::Injected;

/// V27, V28: transactions go on while one coordinator node is away, and soon after every fault is over.
pub(super) struct Availability;

/// After so long without one node the others have elected a leader: twice what an election takes at most, and as much
/// again for clients to find it.
const ELECTED_MS: u64 = 3_000;
/// The shortest look at what goes on afterwards from which anything is concluded.
const LOOK_MS: u64 = 1_500;
/// The longest from the end of a fault to the next commit. A process has to start, and a branch that waits for its
/// coordinator asks again at least every few seconds.
const RECOVERY_MS: u64 = 10_000;

impl Checker for Availability {
    fn name(&self) -> &'static str {
        "availability"
    }

    fn checks(&self) -> &'static str {
        "V27, V28: commits go on 3 s after one node went away, and come back within 10 s of every fault's end"
    }

    fn applies(&self, case: &Case<'_>) -> bool {
        !case.faults.is_empty()
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let commits = commits(case);
        findings.count("commits", commits.len() as u64);
        let nodes = needs::layout(case, &mut findings).map_or(0, |layout| layout.coordinators);
        let takes_one_node = |fault: &&Injected| nodes >= 3 && takes_one_node(fault);
        for fault in case.faults.iter().filter(takes_one_node) {
            goes_on(fault, case, &commits, &mut findings);
        }
        recovers(case, &commits, &mut findings);
        needs::something(&mut findings, "recoveries");
        findings
    }
}

/// When transactions committed, in order.
fn commits(case: &Case<'_>) -> Vec<u64> {
    let mut commits: Vec<u64> = case
        .history
        .events
        .iter()
        .filter(|event| event.kind == Kind::Ok && matches!(event.call, Call::Transact { .. }))
        .map(|event| event.time_ns)
        .collect();
    commits.sort_unstable();
    commits
}

/// Whether a fault leaves a majority of three nodes, every participant and every client as they are.
fn takes_one_node(fault: &Injected) -> bool {
    is_one_of(fault, &["kill", "pause", "partition"])
        && is_one_of(fault, &["leader", "follower", "node", "coordinator"])
        && !is_one_of(
            fault,
            &["all", "participant", "participants", "clients", "raft", "way"],
        )
}

/// Whether anything commits while one node is away, once the others have had time to notice.
fn goes_on(fault: &Injected, case: &Case<'_>, commits: &[u64], findings: &mut Findings) {
    let from = fault.begun_ns.saturating_add(ELECTED_MS * MS);
    if from.saturating_add(LOOK_MS * MS) > fault.ended_ns {
        return;
    }
    findings.count("looks without a node", 1);
    let next = commits.partition_point(|at| *at < from);
    if commits.get(next).is_none_or(|at| *at > fault.ended_ns) {
        let what = format!(
            "{}: nothing committed from 3 s after it until its end",
            fault.what
        );
        findings.violate("unavailable", what, None);
        return;
    }
    let within = |event: &Event| event.time_ns >= from && event.time_ns <= fault.ended_ns;
    let mut unknown = 0;
    let mut asked = 0;
    for (invoked, completed) in case.history.operations() {
        let attempt = Attempt { invoked, completed };
        let Some(completed) = attempt
            .completed
            .filter(|completed| within(invoked) && within(completed))
        else {
            continue;
        };
        if matches!(attempt.call(), Call::Transact { .. }) && !attempt.left() {
            asked += 1;
            unknown += u64::from(completed.kind == Kind::Info && !attempt.refused_later());
        }
    }
    findings.count("operations without a node", asked);
    findings.count("of them unknown", unknown);
    // What failed was refused for a reason, by stores above all. What nobody answered is what an outage looks like.
    if asked >= 100 && unknown * 100 > asked {
        let what = format!(
            "{}: {unknown} of {asked} operations got no answer from 3 s after it",
            fault.what
        );
        findings.violate("unavailable", what, None);
    }
}

/// How long after each fault the next commit comes.
fn recovers(case: &Case<'_>, commits: &[u64], findings: &mut Findings) {
    let end = case
        .history
        .events
        .iter()
        .map(|event| event.time_ns)
        .max()
        .unwrap_or_default();
    let mut times = Vec::new();
    for fault in case.faults {
        // Until something else happens, or nobody asks any more.
        let other = |other: &&Injected| other.begun_ns >= fault.ended_ns && *other != fault;
        let next_fault = case.faults.iter().filter(other).map(|other| other.begun_ns).min();
        let until = next_fault.unwrap_or(end).min(end);
        let next = commits
            .get(commits.partition_point(|at| *at < fault.ended_ns))
            .filter(|at| **at <= until);
        let waited = next.unwrap_or(&until).saturating_sub(fault.ended_ns) / MS;
        if waited > RECOVERY_MS {
            let what = format!("{}: nothing committed for {waited} ms after its end", fault.what);
            findings.violate("slow_recovery", what, None);
        }
        match next {
            Some(_) => times.push(waited),
            None => findings.count("recoveries cut short", 1),
        }
    }
    findings.count("recoveries", times.len() as u64);
    for (place, ms) in ["ms p50", "ms p99", "ms max"]
        .iter()
        .zip(quantiles(times).into_iter().flatten())
    {
        findings.count(place, ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, transfer, tx};

    /// One commit in each tenth of a second between these.
    fn busy(made: &mut Made, tenths: std::ops::Range<u64>) {
        for tenth in tenths {
            made.now = tenth * 100 * MS;
            made.commit(tx(tenth), transfer(0));
        }
    }

    #[test]
    fn commits_that_go_on_are_right() {
        let mut made = Made::new();
        busy(&mut made, 0..200);
        assert!(!Availability.applies(&made.case()));
        made.fault("kill-leader", 1_000, 9_000, Some("killed"));
        let findings = made.assert(&Availability, &[]);
        assert_eq!(findings.counted["looks without a node"], 1);
        assert!(findings.counted["ms max"] < 100);
    }

    #[test]
    fn an_outage_while_one_node_is_away_is_found() {
        let mut made = Made::new();
        busy(&mut made, 0..30);
        busy(&mut made, 95..200);
        made.fault("pause-leader", 1_000, 9_000, Some("paused"));
        made.assert(&Availability, &["unavailable"]);
        // With everybody away it is no wonder.
        made.faults.clear();
        made.fault("kill-all", 1_000, 9_000, Some("killed"));
        made.assert(&Availability, &[]);
    }

    #[test]
    fn answers_that_do_not_come_while_one_node_is_away_are_found() {
        let mut made = Made::new();
        busy(&mut made, 0..200);
        made.now = 5_000 * MS;
        for number in 0..60 {
            made.info(Some(tx(1000 + number)), transfer(1));
            made.commit(tx(2000 + number), transfer(0));
        }
        made.fault("kill-leader", 1_000, 9_000, Some("killed"));
        made.assert(&Availability, &["unavailable"]);
        // Clients that left on purpose missed nothing, and those that were refused in the end were heard.
        for text in [
            "the client went away before it heard an answer",
            "the outcome is unknown; then it was refused: the key belongs to another request",
        ] {
            for event in &mut made.history.events {
                if event.kind == Kind::Info {
                    event.error = Some(text.to_owned());
                }
            }
            made.assert(&Availability, &[]);
        }
    }

    #[test]
    fn a_slow_recovery_is_found() {
        let mut made = Made::new();
        busy(&mut made, 0..10);
        busy(&mut made, 150..160);
        made.fault("kill-all", 1_000, 2_000, Some("killed"));
        made.assert(&Availability, &["slow_recovery"]);
    }

    #[test]
    fn a_fault_that_nothing_follows_is_no_pass() {
        let mut made = Made::new();
        busy(&mut made, 0..10);
        made.fault("kill-all", 1_000, 2_000, Some("killed"));
        assert_eq!(made.check(&Availability).verdict, Verdict::Unknown);
    }
}
