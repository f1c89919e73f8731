//! The interactive way into a branch: the application brings operations one by one, before anybody asks for a vote.
//!
//! Nothing here is durable and nothing is promised: what has been joined is lost in a crash, let go at its deadline,
//! and given up as soon as one of its operations is refused. Only [`super::prepare`] turns it into a promise.

use bytes::Bytes;

use super::{ABORTED, BranchEffect, Phase, PrepareRequest, Resolution, Stepped, TOO_LATE};
use super::{bury, ignored, no, promise};
use crate::{ClusterId, Ignored, Operation, RequestHash, Timestamp, TransactionId, Vote};

/// One operation that the application brings to a branch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JoinRequest {
    /// The cluster that the transaction belongs to.
    pub cluster: ClusterId,
    /// What to do.
    pub operation: Operation,
    /// When the work is let go unless it was promised before, by this participant's clock.
    pub deadline: Timestamp,
}

/// What has been done for a transaction and not promised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// It only read, and holds nothing.
    Read,
    /// It holds something.
    Held {
        /// What the resource manager gave for it.
        redo: Bytes,
    },
}

/// What whoever brought an operation is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum JoinAnswer {
    /// It is done, and waits for the transaction's commit.
    Joined,
    /// It was not done, and this participant will vote No.
    Refused {
        /// Why.
        reason: String,
    },
    /// It was not done, and nothing was changed: another operation of the transaction is under way here.
    Busy,
}

const UNFINISHED: &str = "its operation was still under way when it was asked to commit";
const EXPIRED: &str = "the deadline passed before it was asked to commit";
const COMMITTING: &str = "the commit of the transaction has begun here, it takes no more operations";

fn refused(reason: &str) -> JoinAnswer {
    JoinAnswer::Refused {
        reason: reason.to_owned(),
    }
}

/// Lets go of what was done, of which nobody has heard a Yes; `then` says so before.
fn let_go(transaction: TransactionId, work: Work, reason: &str, mut then: Vec<BranchEffect>) -> Stepped {
    match work {
        Work::Read => bury(transaction, reason, then),
        Work::Held { redo } => {
            then.push(BranchEffect::Abort { redo: redo.clone() });
            let reason = reason.to_owned();
            (Phase::Aborting { redo, reason }, then)
        }
    }
}

/// Gives up an operation that is under way. The holds go once the resource manager has finished with it.
fn interrupt(done: Option<Work>, reason: &str, mut then: Vec<BranchEffect>) -> Stepped {
    let reason = reason.to_owned();
    then.insert(0, BranchEffect::TellJoiner(refused(&reason)));
    (Phase::Interrupted { done, reason }, then)
}

pub(super) fn join(phase: Phase, request: JoinRequest, now: Timestamp) -> Stepped {
    let answer = |phase, answer| (phase, vec![BranchEffect::AnswerJoin(answer)]);
    let operation = request.operation.clone();
    match phase {
        Phase::Unknown | Phase::Joined { .. } if now >= request.deadline => answer(phase, refused(EXPIRED)),
        Phase::Unknown => {
            let done = None;
            (
                Phase::Joining { request, done },
                vec![BranchEffect::Prepare(operation)],
            )
        }
        // Whoever only read holds nothing, so the next operation starts like the first.
        Phase::Joined { work: Work::Read, .. } => {
            let done = Some(Work::Read);
            (
                Phase::Joining { request, done },
                vec![BranchEffect::Prepare(operation)],
            )
        }
        Phase::Joined {
            work: Work::Held { redo },
            ..
        } => {
            let effects = vec![BranchEffect::Extend {
                redo: redo.clone(),
                operation,
            }];
            let done = Some(Work::Held { redo });
            (Phase::Joining { request, done }, effects)
        }
        Phase::Joining { .. } => answer(phase, JoinAnswer::Busy),
        Phase::Cancelling => answer(phase, refused(ABORTED)),
        Phase::Interrupted { ref reason, .. }
        | Phase::Aborting { ref reason, .. }
        | Phase::Finished(super::Finish::Aborted { ref reason }) => {
            let refused = refused(reason);
            answer(phase, refused)
        }
        Phase::Preparing(_)
        | Phase::Promising(_)
        | Phase::Prepared(_)
        | Phase::Committing(_)
        | Phase::Recording { .. }
        | Phase::Finished(super::Finish::Committed { .. } | super::Finish::ReadOnly { .. }) => {
            answer(phase, refused(COMMITTING))
        }
    }
}

/// The resource manager has finished with an operation that was brought.
pub(super) fn resolved(
    transaction: TransactionId,
    request: JoinRequest,
    done: Option<Work>,
    resolution: Resolution,
    now: Timestamp,
) -> Stepped {
    let work = match (resolution, done) {
        (Resolution::Yes { redo }, _) => Work::Held { redo },
        (Resolution::ReadOnly, done) => done.unwrap_or(Work::Read),
        // A part of a transaction is nothing: with one operation refused, all of its work here is given up, so that
        // nobody commits the rest by mistake.
        (Resolution::No { reason }, done) => {
            let told = vec![BranchEffect::TellJoiner(refused(&reason))];
            return let_go(transaction, done.unwrap_or(Work::Read), &reason, told);
        }
    };
    if now >= request.deadline {
        let told = vec![BranchEffect::TellJoiner(refused(EXPIRED))];
        return let_go(transaction, work, EXPIRED, told);
    }
    let deadline = request.deadline;
    (
        Phase::Joined { work, deadline },
        vec![BranchEffect::TellJoiner(JoinAnswer::Joined)],
    )
}

/// The resource manager has finished with an operation that was given up meanwhile.
pub(super) fn resolved_for_nothing(
    transaction: TransactionId,
    done: Option<Work>,
    reason: &str,
    resolution: Resolution,
) -> Stepped {
    let work = match resolution {
        Resolution::Yes { redo } => Work::Held { redo },
        Resolution::ReadOnly | Resolution::No { .. } => done.unwrap_or(Work::Read),
    };
    match work {
        Work::Read => bury(transaction, reason, vec![BranchEffect::Acknowledge]),
        Work::Held { .. } => let_go(transaction, work, reason, Vec::new()),
    }
}

/// Whether this Prepare asks for the commit of what was joined, and not for another request under the same id: it
/// brings no operation, and its hash is that of its members (R12).
pub(super) fn is_asked_for_by(request: &PrepareRequest) -> bool {
    request.operation.is_none() && request.request_hash == RequestHash::of_members(&request.members)
}

/// The commit of the transaction has begun while an operation is under way.
pub(super) fn prepare_unfinished(done: Option<Work>) -> Stepped {
    interrupt(done, UNFINISHED, vec![BranchEffect::Vote(no(UNFINISHED))])
}

/// The commit of the transaction has begun: the work becomes a promise.
pub(super) fn prepare(
    transaction: TransactionId,
    work: Work,
    request: PrepareRequest,
    now: Timestamp,
) -> Stepped {
    if now >= request.deadline {
        let told = vec![BranchEffect::Vote(no(TOO_LATE))];
        return let_go(transaction, work, TOO_LATE, told);
    }
    match work {
        Work::Held { redo } => promise(transaction, request, redo, now),
        Work::Read => {
            let request_hash = request.request_hash;
            (
                Phase::Finished(super::Finish::ReadOnly { request_hash }),
                vec![BranchEffect::Vote(Vote::ReadOnly)],
            )
        }
    }
}

pub(super) fn abort_unfinished(done: Option<Work>) -> Stepped {
    interrupt(done, ABORTED, Vec::new())
}

pub(super) fn abort(transaction: TransactionId, work: Work) -> Stepped {
    match work {
        Work::Read => bury(transaction, ABORTED, vec![BranchEffect::Acknowledge]),
        Work::Held { .. } => let_go(transaction, work, ABORTED, Vec::new()),
    }
}

/// The deadline of the work has passed. Nothing was promised, so it is let go without asking anybody.
pub(super) fn deadline_passed(transaction: TransactionId, phase: Phase) -> Stepped {
    match phase {
        Phase::Joining { done, .. } => interrupt(done, EXPIRED, Vec::new()),
        Phase::Joined { work, .. } => let_go(transaction, work, EXPIRED, Vec::new()),
        phase @ (Phase::Unknown
        | Phase::Preparing(_)
        | Phase::Cancelling
        | Phase::Interrupted { .. }
        | Phase::Promising(_)
        | Phase::Prepared(_)
        | Phase::Committing(_)
        | Phase::Aborting { .. }
        | Phase::Recording { .. }
        | Phase::Finished(_)) => ignored(phase, Ignored::LateTimer),
    }
}
