use unanimo_proto::ErrorReason;

use super::answered::Judged;
use super::quiet::restores;
use super::{Case, Checker, Findings, needs};
use crate::late::{Came, LateAnswers, Reaction};

/// V25, R11: each life of a participant has a number of its own, and one that came back with an old data folder is
/// refused instead of believed. Messages that are for others, or of another cluster, are refused for that reason.
///
/// Of V20 it sees no more than the numbers of those lives. What a coordinator of an earlier epoch could do is seen
/// elsewhere: a second decision by agreement, a message that breaks the rules by the alarms.
pub(super) struct Fencing;

impl Checker for Fencing {
    fn name(&self) -> &'static str {
        "fencing"
    }

    fn checks(&self) -> &'static str {
        "V25: the starts of each participant only rise; restored or emptied data folders, and strangers, were refused"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        for (name, found) in needs::journals(case, &mut findings) {
            findings.count("starts", found.starts.len() as u64);
            if !found.starts.is_sorted_by(|one, next| one < next) {
                let what = format!("the starts of {name} have the numbers {:?}", found.starts);
                findings.violate("life_repeated", what, None);
            }
        }
        for fault in case.faults.iter().filter(|fault| restores(fault)) {
            let said = fault.evidence.as_deref().unwrap_or_default();
            if said.contains("accepted") {
                findings.violate("stale_restore_believed", format!("{}: {said}", fault.what), None);
            } else if said.contains("refused") {
                findings.count("restores refused", 1);
            } else {
                findings.miss(format!("what came of {}: {}", fault.fault, fault.what));
            }
        }
        for answers in &case.evidence.late {
            let Some(judged) = judge(answers) else { continue };
            judged.note(answers, &mut findings);
        }
        needs::something(&mut findings, "starts");
        findings
    }
}

/// What an answer to a stranger is.
fn judge(answers: &LateAnswers) -> Option<Judged> {
    let (reason, taken) = match answers.came {
        Came::ToTheWrongOne => (Some(ErrorReason::WrongTarget), "wrong_target_served"),
        Came::FromAnotherCluster => (Some(ErrorReason::WrongCluster), "other_cluster_served"),
        Came::FromAnOldLife => (None, "old_life_believed"),
        Came::Malformed => (None, "malformed_served"),
        Came::Late | Came::Again | Came::AfterRestart | Came::WithAnotherRequest | Came::Contradicting => {
            return None;
        }
    };
    Some(match (&answers.answer, reason) {
        (Reaction::Refused(_), None) => Judged::Refused,
        (refused @ Reaction::Refused(_), Some(reason)) if refused.is_refused_as(reason) => Judged::Refused,
        // Whether it would have been refused for the right reason is not known of one who refuses everybody.
        (Reaction::Refused(other), Some(_)) if is_for_everybody(other) => Judged::Nothing,
        (Reaction::Refused(_), Some(_)) => Judged::Wrong("stranger_not_recognised"),
        (Reaction::Nothing(_), _) => Judged::Nothing,
        (Reaction::Died, _) => Judged::Wrong("killed_by_a_message"),
        (_, _) => Judged::Wrong(taken),
    })
}

fn is_for_everybody(reason: &str) -> bool {
    use ErrorReason::{NoLeader, Recovering, ShuttingDown, StorageFailed};
    [NoLeader, Recovering, ShuttingDown, StorageFailed]
        .iter()
        .any(|refusal| refusal.as_str() == reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, answers};
    use crate::late::Ended;

    #[test]
    fn lives_that_rise_and_restores_that_were_refused_are_right() {
        let mut made = Made::with_transfers();
        made.participant("p1").starts = vec![1, 2, 5];
        made.fault(
            "restore-participant",
            0,
            1,
            Some("p1 was refused: its data is older"),
        );
        let findings = made.assert(&Fencing, &[]);
        assert_eq!(findings.counted["restores refused"], 1);
    }

    #[test]
    fn a_life_with_a_number_that_was_used_is_found() {
        for starts in [vec![1, 2, 2], vec![1, 3, 2]] {
            let mut made = Made::with_transfers();
            made.participant("p1").starts = starts;
            made.assert(&Fencing, &["life_repeated"]);
        }
    }

    #[test]
    fn a_restore_that_was_believed_is_found() {
        let mut made = Made::with_transfers();
        made.fault("stale-restore", 0, 1, Some("accepted: it serves"));
        made.assert(&Fencing, &["stale_restore_believed"]);
    }

    #[test]
    fn an_emptied_folder_that_was_believed_is_found() {
        let mut made = Made::with_transfers();
        made.fault(
            "wiped-coordinator",
            0,
            1,
            Some("c1 was refused: its folder is empty"),
        );
        made.assert(&Fencing, &[]);
        made.fault("wiped-participant", 2, 3, Some("accepted: p1 served"));
        made.assert(&Fencing, &["stale_restore_believed"]);
    }

    #[test]
    fn a_restore_of_which_nobody_knows_what_came_is_no_pass() {
        for said in [None, Some("it was copied")] {
            let mut made = Made::with_transfers();
            made.fault("stale-restore", 0, 1, said);
            assert_eq!(made.check(&Fencing).verdict, Verdict::Unknown);
        }
    }

    #[test]
    fn a_stranger_that_is_refused_for_that_is_right() {
        let mut made = Made::with_transfers();
        let mut add = |came, answer| {
            let late = answers("Commit", came, Ended::Open, answer);
            made.evidence.late.push(late);
        };
        let refused = |reason: &str| Reaction::Refused(reason.to_owned());
        add(Came::ToTheWrongOne, refused("WRONG_TARGET"));
        add(Came::FromAnotherCluster, refused("WRONG_CLUSTER"));
        add(Came::FromAnotherCluster, refused("RECOVERING"));
        add(Came::FromAnOldLife, refused("OUTDATED"));
        add(Came::Malformed, Reaction::Nothing("Internal error".to_owned()));
        add(Came::Again, Reaction::Acknowledged);
        let findings = made.assert(&Fencing, &[]);
        assert_eq!(findings.counted["late answers: refused as WRONG_CLUSTER"], 1);
        assert_eq!(findings.counted["late answers: none"], 2);
    }

    #[test]
    fn a_stranger_that_was_served_or_not_recognised_is_found() {
        let wrong = [
            (Came::ToTheWrongOne, Reaction::Yes, "wrong_target_served"),
            (Came::FromAnotherCluster, Reaction::Done, "other_cluster_served"),
            (
                Came::FromAnotherCluster,
                Reaction::Refused("VIOLATION".to_owned()),
                "stranger_not_recognised",
            ),
            (Came::FromAnOldLife, Reaction::Done, "old_life_believed"),
            (Came::Malformed, Reaction::Acknowledged, "malformed_served"),
            (Came::Malformed, Reaction::Died, "killed_by_a_message"),
        ];
        for (came, answer, kind) in wrong {
            let mut made = Made::with_transfers();
            made.evidence
                .late
                .push(answers("Commit", came, Ended::Open, answer));
            made.assert(&Fencing, &[kind]);
        }
    }
}
