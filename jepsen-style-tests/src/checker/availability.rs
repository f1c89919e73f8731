use std::collections::BTreeSet;

use super::quiet::{MS, is_one_of, quantiles};
use super::told::Attempt;
use super::{Case, Checker, Findings, needs};
use crate::history::{Call, Kind};
use crate::nemesis::Injected;

/// V27, V28: transactions go on while one coordinator node is away, and soon after every fault is over.
///
/// How long it takes is counted from the moment when the cause of the fault was taken away, not from when the harness saw
/// that the cluster was whole. A run does not begin the next fault before a commit has come, or has failed to.
///
/// While one node is away most clients have to be answered: one whose operation hangs for 2 s and longer is counted against
/// those that are served, and only if there are many. A few that hang are not found here, nor those that wait in line for
/// a lock of a store, which a branch in doubt may hold (`in-doubt` says for how long it may); and where nothing commits,
/// but stores refuse for the sake of locks, decisions go on.
pub(super) struct Availability;

/// After so long without one node the others have elected a leader: twice what an election takes at most, and as much
/// again for clients to find it.
const ELECTED_MS: u64 = 3_000;
/// The shortest look at what goes on afterwards from which anything is concluded.
const LOOK_MS: u64 = 1_500;
/// An operation that is open for so long at the end of such a look hangs. On busy machines hardly any takes 1 s then.
const HANGS_MS: u64 = 2_000;
/// One client in so many may hang.
const ONE_IN: u64 = 4;
/// The longest from the end of a fault to the next commit. A branch that waits for its coordinator asks again at least
/// every few seconds.
const RECOVERY_MS: u64 = 10_000;
/// So much longer may it take if processes have to come up: on a busy machine that alone takes seconds.
const START_MS: u64 = 5_000;

impl Checker for Availability {
    fn name(&self) -> &'static str {
        "availability"
    }

    fn checks(&self) -> &'static str {
        "V27, V28: commits go on 3 s after one node went away, and come back within 10 s of every fault's end, or 15 s if \
         processes come up again"
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

/// Whether anybody was told meanwhile that a lock was in the way. Somebody decided that, and branches in doubt since the
/// node went away may hold every lock there is.
fn refused_for_locks(case: &Case<'_>, (from, until): (u64, u64)) -> bool {
    case.history.operations().into_iter().any(|(invoked, completed)| {
        let answered = completed.is_some_and(|completed| {
            completed.kind == Kind::Fail && completed.time_ns >= from && completed.time_ns <= until
        });
        answered && Attempt { invoked, completed }.met_a_lock()
    })
}

/// Whether anything commits while one node is away, once the others have had time to notice.
fn goes_on(fault: &Injected, case: &Case<'_>, commits: &[u64], findings: &mut Findings) {
    let (Some(begun), Some(until)) = (fault.in_force_ns, fault.healed_ns) else {
        return findings.miss(format!("when {} began and was over", fault.fault));
    };
    let from = begun.saturating_add(ELECTED_MS * MS);
    if from.saturating_add(LOOK_MS * MS) > until {
        return;
    }
    findings.count("looks without a node", 1);
    let next = commits.partition_point(|at| *at < from);
    if commits.get(next).is_none_or(|at| *at > until) && !refused_for_locks(case, (from, until)) {
        let what = format!(
            "{}: nothing committed from 3 s after it until its end",
            fault.what
        );
        findings.violate("unavailable", what, None);
        return;
    }
    let within = |at: u64| at >= from && at <= until;
    let (mut asked, mut unknown) = (0, 0);
    let (mut served, mut hanging) = (BTreeSet::new(), BTreeSet::new());
    for (invoked, completed) in case.history.operations() {
        let attempt = Attempt { invoked, completed };
        if !matches!(attempt.call(), Call::Transact { .. }) || attempt.left() {
            continue;
        }
        let answered = completed.map_or(u64::MAX, |completed| completed.time_ns);
        if within(answered) && attempt.kind() != Kind::Info {
            served.insert(invoked.process);
        }
        if within(answered) && within(invoked.time_ns) {
            asked += 1;
            unknown += u64::from(attempt.kind() == Kind::Info && !attempt.refused_later());
        }
        if answered > until && !attempt.met_a_lock() && invoked.time_ns.saturating_add(HANGS_MS * MS) <= until
        {
            hanging.insert(invoked.process);
        }
    }
    findings.count("operations without a node", asked);
    findings.count("of them unknown", unknown);
    findings.count("clients that hang without a node", hanging.len() as u64);
    // What failed was refused for a reason, by stores above all. What nobody answered is what an outage looks like.
    if asked >= 100 && unknown * 100 > asked {
        let what = format!(
            "{}: {unknown} of {asked} operations got no answer from 3 s after it",
            fault.what
        );
        findings.violate("unavailable", what, None);
    }
    let clients = served.union(&hanging).count() as u64;
    if hanging.len() as u64 * ONE_IN > clients {
        let what = format!(
            "{}: at its end {} of {clients} clients had waited for an answer for 2 s and longer",
            fault.what,
            hanging.len()
        );
        findings.violate("unavailable", what, None);
    }
}

/// How long after each fault the next commit comes.
fn recovers(case: &Case<'_>, commits: &[u64], findings: &mut Findings) {
    let events = case.history.events.iter();
    let end = events.map(|event| event.time_ns).max().unwrap_or_default();
    let mut times = Vec::new();
    for fault in case.faults {
        let Some(healed) = fault.healed_ns else {
            findings.miss(format!("when {} was over", fault.fault));
            continue;
        };
        let longest = match healed < fault.ended_ns {
            true => RECOVERY_MS + START_MS,
            false => RECOVERY_MS,
        };
        // Until something else happens, or nobody asks any more.
        let other = |other: &&Injected| other.begun_ns >= fault.ended_ns && *other != fault;
        let next_fault = case.faults.iter().filter(other).map(|other| other.begun_ns).min();
        let until = next_fault.unwrap_or(end).min(end);
        let next = commits
            .get(commits.partition_point(|at| *at < healed))
            .filter(|at| **at <= until);
        let waited = next.unwrap_or(&until).saturating_sub(healed) / MS;
        if waited > longest {
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
    use crate::history::{Answer, Process};
    use crate::store::LOCKED;

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
        // Stores whose locks are held by branches in doubt refuse what comes, and that is no outage.
        made.now = 6_000 * MS;
        let locked = Answer::Aborted(format!("p1 voted No: {LOCKED}"));
        made.fail(Some(tx(5_000)), transfer(0), Some(locked));
        made.assert(&Availability, &[]);
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
    fn clients_that_hang_while_others_are_served_are_found() {
        let run = |hanging: usize| {
            let mut made = Made::new();
            busy(&mut made, 0..30);
            made.now = 3_000 * MS;
            // One that waits for whoever is away, as others do from the beginning of the fault on.
            let open: Vec<_> = (0..hanging)
                .map(|_| made.invoke(Some(tx(5000)), transfer(0)))
                .collect();
            let client = |number: usize| Process(900_000 + number as u32);
            for tenth in 31..90 {
                made.now = tenth * 100 * MS;
                let from = made.history.events.len();
                made.commit(tx(tenth), transfer(0));
                for event in &mut made.history.events[from..] {
                    event.process = client(tenth as usize % 6);
                }
            }
            made.now = 9_500 * MS;
            for open in open {
                made.complete_ok(open, Answer::Committed);
            }
            made.fault("pause-leader", 1_000, 9_000, Some("paused"));
            made
        };
        let findings = run(2).assert(&Availability, &[]);
        assert_eq!(findings.counted["clients that hang without a node"], 2);
        let mut made = run(3);
        made.assert(&Availability, &["unavailable"]);
        // Those that waited in line for a lock were served.
        let mut locked = made.clone();
        for event in &mut locked.history.events {
            if event.kind == Kind::Ok && event.time_ns >= 9_500 * MS {
                event.kind = Kind::Fail;
                event.answer = Some(Answer::Aborted(format!("p1 voted No: {LOCKED}")));
            }
        }
        assert_eq!(locked.check(&Availability).violations, []);
        // Before the others had to have elected a leader, it may be so.
        made.faults[0].healed_ns = Some(4_900 * MS);
        made.assert(&Availability, &[]);
        // It took long to find the leader, and so the fault began later.
        made.faults[0].healed_ns = Some(9_000 * MS);
        made.faults[0].in_force_ns = Some(6_000 * MS);
        made.assert(&Availability, &[]);
    }

    #[test]
    fn a_recovery_is_counted_from_when_the_cause_was_gone() {
        let mut made = Made::new();
        busy(&mut made, 0..10);
        busy(&mut made, 200..210);
        // Killed at 1 s, started at 3 s; the cluster was whole at 19.9 s, and committed at once.
        made.fault("kill-all", 1_000, 19_900, Some("killed"));
        made.assert(&Availability, &[]);
        made.faults[0].healed_ns = Some(3_000 * MS);
        made.assert(&Availability, &["slow_recovery"]);
        made.faults[0].healed_ns = Some(6_000 * MS);
        let findings = made.assert(&Availability, &[]);
        assert_eq!(findings.counted["ms max"], 14_002);
        // Nobody had to start: then it is too long.
        made.faults[0].ended_ns = 6_000 * MS;
        made.assert(&Availability, &["slow_recovery"]);
    }

    #[test]
    fn a_partition_after_which_nothing_commits_until_the_next_fault_is_found() {
        let mut made = Made::new();
        busy(&mut made, 0..10);
        busy(&mut made, 300..310);
        made.fault("partition-halves", 1_000, 5_000, Some("cut"));
        made.fault("packet-delay", 22_000, 29_000, Some("late"));
        made.assert(&Availability, &["slow_recovery"]);
    }

    #[test]
    fn a_result_that_does_not_say_when_the_cause_was_gone_is_no_pass() {
        let mut made = Made::new();
        busy(&mut made, 0..200);
        made.fault("kill-leader", 1_000, 9_000, Some("killed"));
        made.faults[0].healed_ns = None;
        assert_eq!(made.check(&Availability).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_fault_that_nothing_follows_is_no_pass() {
        let mut made = Made::new();
        busy(&mut made, 0..10);
        made.fault("kill-all", 1_000, 2_000, Some("killed"));
        assert_eq!(made.check(&Availability).verdict, Verdict::Unknown);
    }
}
