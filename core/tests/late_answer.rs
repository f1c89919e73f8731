//! The answer to an inquiry is only for a branch that is still in doubt: the others have learnt the decision since.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use unanimo_core::{
    AbortReason, Branch, BranchEffect, BranchInput, BranchPhase, Decision, Finish, Ignored, Members,
    Operation, PrepareRequest, RequestHash, Resolution, Timestamp, TransactionId,
};

const NOW: Timestamp = Timestamp::from_unix_ms(1);
const HASH: RequestHash = RequestHash::from_bytes([7; 32]);

fn in_doubt() -> Branch {
    let prepare = PrepareRequest {
        cluster: "c".parse().unwrap(),
        members: Members::from(["p1".parse().unwrap()]),
        request_hash: HASH,
        operation: Some(Operation::new("x")),
        deadline: Timestamp::from_unix_ms(1000),
    };
    let redo = Bytes::from_static(b"redo");
    let branch = Branch::unknown(TransactionId::new(NOW, 0));
    let (branch, _) = branch.step(BranchInput::Prepare(prepare), NOW);
    let (branch, _) = branch.step(BranchInput::Resolved(Resolution::Yes { redo }), NOW);
    let (branch, _) = branch.step(BranchInput::Recorded, NOW);
    assert!(branch.in_doubt().is_some());
    branch
}

fn answered(request_hash: RequestHash, decision: Decision) -> BranchInput {
    BranchInput::Answered {
        request_hash,
        decision,
    }
}

#[test]
fn a_branch_in_doubt_does_as_it_is_answered() {
    let (branch, _) = in_doubt().step(answered(HASH, Decision::Commit), NOW);
    assert!(matches!(branch.phase(), BranchPhase::Committing(_)));
    let presumed = Decision::Abort(AbortReason::Presumed);
    let (branch, _) = in_doubt().step(answered(HASH, presumed), NOW);
    assert!(matches!(branch.phase(), BranchPhase::Aborting { .. }));
}

#[test]
fn an_answer_that_comes_after_the_decision_changes_nothing_and_alarms_nobody() {
    let commit = BranchInput::Commit { request_hash: HASH };
    let (committing, _) = in_doubt().step(commit, NOW);
    let (recording, _) = committing.clone().step(BranchInput::Applied, NOW);
    let (committed, _) = recording.clone().step(BranchInput::Recorded, NOW);
    let finish = Finish::Committed { request_hash: HASH };
    assert_eq!(*committed.phase(), BranchPhase::Finished(finish));
    for branch in [committing, recording, committed] {
        for decision in [Decision::Abort(AbortReason::Presumed), Decision::Commit] {
            let (after, effects) = branch.clone().step(answered(HASH, decision), NOW);
            assert_eq!(after, branch);
            assert_eq!(effects, [BranchEffect::Ignored(Ignored::LateAnswer)]);
        }
    }
}

#[test]
fn an_answer_about_another_request_is_not_for_this_branch() {
    let other = RequestHash::from_bytes([8; 32]);
    let (after, effects) = in_doubt().step(answered(other, Decision::Commit), NOW);
    assert_eq!(after, in_doubt());
    assert_eq!(effects, [BranchEffect::Ignored(Ignored::LateAnswer)]);
}
