use super::{Case, Checker, Findings, needs};

/// V22, as far as disks show it: every node wrote down its vote before the entries of the leader that it voted for, and
/// one vote a term; logs that have an entry of the same term have the same entry; what is committed is the same
/// everywhere, and is not cut off as far as a log can still show it.
pub(super) struct RaftLog;

impl Checker for RaftLog {
    fn name(&self) -> &'static str {
        "raft-log"
    }

    fn checks(&self) -> &'static str {
        "V22: on disk, votes come before the entries of their terms, one a term; logs agree"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let logs = &case.evidence.raft_logs;
        if let Some(layout) = needs::layout(case, &mut findings) {
            for node in layout.nodes().filter(|node| !logs.nodes.contains_key(node)) {
                findings.miss(format!("the log of c{node}"));
            }
        }
        for (node, log) in &logs.nodes {
            findings.count("entries", log.entries);
            findings.count("votes", log.votes);
            for what in &log.uncovered {
                findings.violate("vote_not_written", format!("c{node}: {what}"), None);
            }
            for what in &log.repeated {
                findings.violate("voted_twice", format!("c{node}: {what}"), None);
            }
            for what in &log.committed_cut {
                findings.violate("committed_cut", format!("c{node}: {what}"), None);
            }
        }
        findings.count("entries compared", logs.compared);
        for what in &logs.disagree {
            findings.violate("logs_disagree", what, None);
        }
        needs::something(&mut findings, "entries");
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::Made;

    #[test]
    fn logs_that_agree_are_right() {
        let findings = Made::with_transfers().assert(&RaftLog, &[]);
        assert_eq!(findings.counted["entries compared"], 10);
    }

    #[test]
    fn what_the_logs_show_is_found() {
        let mut made = Made::with_transfers();
        let log = made.evidence.raft_logs.nodes.get_mut(&1).unwrap();
        log.uncovered.push("entry 2 is of term 2".to_owned());
        made.assert(&RaftLog, &["vote_not_written"]);
        let mut made = Made::with_transfers();
        let log = made.evidence.raft_logs.nodes.get_mut(&2).unwrap();
        log.repeated.push("votes for {1, 3} in term 2".to_owned());
        made.assert(&RaftLog, &["voted_twice"]);
        let mut made = Made::with_transfers();
        let log = made.evidence.raft_logs.nodes.get_mut(&2).unwrap();
        log.committed_cut.push("cut after entry 1".to_owned());
        made.assert(&RaftLog, &["committed_cut"]);
        let mut made = Made::with_transfers();
        made.evidence.raft_logs.disagree.push("entry 1".to_owned());
        made.assert(&RaftLog, &["logs_disagree"]);
    }

    #[test]
    fn logs_that_were_not_read_leave_it_unknown() {
        let mut made = Made::with_transfers();
        made.evidence.raft_logs.nodes.remove(&3);
        let findings = RaftLog.check(&made.case());
        assert_eq!(findings.verdict, Verdict::Unknown);
    }
}
