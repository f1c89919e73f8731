//! A transaction's part at one participant.
//!
//! | Phase | What it means | May it abort alone? |
//! |---|---|---|
//! | `Unknown` | nothing is known of the transaction | yes |
//! | `Joining` | the resource manager is working on an operation that the application brought | yes |
//! | `Joined` | such work is done and held, and nobody has asked for a vote | yes |
//! | `Interrupted` | as `Joining`, but the work has been given up meanwhile | it does |
//! | `Preparing` | the resource manager is working on the operation | yes |
//! | `Cancelling` | as before, but an Abort has arrived meanwhile | it does |
//! | `Promising` | the resource manager could commit; the Prepared record is not durable yet | yes |
//! | `Prepared` | the record is durable: in doubt until the decision is known (R3) | **no** |
//! | `Committing` | the decision is Commit; the resource manager carries it out | – |
//! | `Aborting` | the decision is Abort; the resource manager lets go | – |
//! | `Recording` | committed by the resource manager; the Committed record is not durable yet | – |
//! | `Finished` | committed, aborted (a tombstone, R4) or read-only | – |

mod join;

use std::fmt;

use bytes::Bytes;

pub use join::{JoinAnswer, JoinRequest, Work};

use crate::mutants::{self, Mutant};
use crate::record::Contradiction;
use crate::{
    ClusterId, Decision, Ignored, Members, Operation, Prepared, Record, RequestHash, Timestamp,
    TransactionId, Violation, Vote,
};

/// What a `Prepare` asks of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrepareRequest {
    /// The cluster that asks.
    pub cluster: ClusterId,
    /// Every member of the transaction (R6).
    pub members: Members,
    /// The request (R12).
    pub request_hash: RequestHash,
    /// What to do; absent when the branch should know already.
    pub operation: Option<Operation>,
    /// When the voting phase ends, by this participant's clock.
    pub deadline: Timestamp,
}

/// What the resource manager answered to an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// It holds what it needs, and can commit with this redo even after a restart.
    Yes {
        /// Opaque to the protocol; comes back with commit, abort and restore.
        redo: Bytes,
    },
    /// It only read and holds nothing any more.
    ReadOnly,
    /// It refuses and holds nothing.
    No {
        /// Why.
        reason: String,
    },
}

/// What may happen to a branch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BranchInput {
    /// The application brings an operation of an interactive transaction.
    Join(JoinRequest),
    /// The deadline of what was joined has passed.
    DeadlinePassed,
    /// A coordinator asks for a vote.
    Prepare(PrepareRequest),
    /// The resource manager has finished working on the operation.
    Resolved(Resolution),
    /// The record last asked for is durable.
    Recorded,
    /// The decision is Commit, for this request: told by a coordinator.
    Commit {
        /// The request that is committed.
        request_hash: RequestHash,
    },
    /// The decision is Abort.
    Abort,
    /// An inquiry of this branch is answered.
    Answered {
        /// The request that the inquiry was about.
        request_hash: RequestHash,
        /// The decision.
        decision: Decision,
    },
    /// The resource manager has carried the decision out, durably.
    Applied,
    /// The branch has been in doubt for a while.
    TimerFired,
}

/// What the driver has to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BranchEffect {
    /// Have the resource manager work on the operation; come back with [`BranchInput::Resolved`].
    Prepare(Operation),
    /// The same for a further operation of an interactive transaction that holds something already.
    Extend {
        /// What the resource manager gave for what it holds.
        redo: Bytes,
        /// What to do as well.
        operation: Operation,
    },
    /// Answer whoever brought the operation that is under way.
    TellJoiner(JoinAnswer),
    /// Answer whoever brought the operation of this input.
    AnswerJoin(JoinAnswer),
    /// Make the record durable, **then** come back with [`BranchInput::Recorded`]; nothing may be said before.
    Record(Record),
    /// Write the record when convenient: losing it in a crash breaks no rule (R4).
    Note(Record),
    /// Tell the vote to everybody who has asked for it and waits, the asker of this input included.
    Vote(Vote),
    /// Tell the vote to the asker of this input only.
    Answer(Vote),
    /// Have the resource manager commit; come back with [`BranchInput::Applied`].
    Commit {
        /// What it gave when it prepared.
        redo: Bytes,
    },
    /// Have the resource manager let go; come back with [`BranchInput::Applied`].
    Abort {
        /// What it gave when it prepared.
        redo: Bytes,
    },
    /// Acknowledge the decision to everybody who has told it and waits, the teller of this input included.
    Acknowledge,
    /// Ask the coordinator for the decision (R5).
    Inquire,
    /// Refuse the message and raise an alarm; nothing was changed (R9).
    Refuse(Violation),
    /// Nothing has to be done, and why.
    Ignored(Ignored),
}

/// How a branch ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// The effects have happened, once.
    Committed {
        /// For this request.
        request_hash: RequestHash,
    },
    /// The effects have not happened and never will.
    Aborted {
        /// What a late Prepare is told.
        reason: String,
    },
    /// There were no effects.
    ReadOnly {
        /// For this request.
        request_hash: RequestHash,
    },
}

/// How far a branch has come. See the table at the top of the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing is known of it.
    Unknown,
    /// The resource manager is working on an operation of an interactive transaction.
    Joining {
        /// The operation.
        request: JoinRequest,
        /// What was done before it.
        done: Option<Work>,
    },
    /// Work is done, and held until somebody asks for a vote or the deadline passes.
    Joined {
        /// The work.
        work: Work,
        /// When it is let go, by this participant's clock.
        deadline: Timestamp,
    },
    /// The resource manager is working on an operation, for nothing.
    Interrupted {
        /// What was done before it.
        done: Option<Work>,
        /// What a late Prepare is told.
        reason: String,
    },
    /// The resource manager is working.
    Preparing(PrepareRequest),
    /// The resource manager is working, for nothing.
    Cancelling,
    /// The promise is on its way to the disk.
    Promising(Prepared),
    /// The promise holds.
    Prepared(Prepared),
    /// The resource manager is committing what was promised.
    Committing(Prepared),
    /// The resource manager is letting go.
    Aborting {
        /// What it gave when it prepared.
        redo: Bytes,
        /// What a late Prepare is told.
        reason: String,
    },
    /// The commit is being recorded.
    Recording {
        /// The request that was committed.
        request_hash: RequestHash,
    },
    /// It is over.
    Finished(Finish),
}

/// In one word.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown",
            Self::Joining { .. } => "Joining",
            Self::Joined { .. } => "Joined",
            Self::Interrupted { .. } => "Interrupted",
            Self::Preparing(_) => "Preparing",
            Self::Cancelling => "Cancelling",
            Self::Promising(_) => "Promising",
            Self::Prepared(_) => "Prepared",
            Self::Committing(_) => "Committing",
            Self::Aborting { .. } => "Aborting",
            Self::Recording { .. } => "Recording",
            Self::Finished(Finish::Committed { .. }) => "Committed",
            Self::Finished(Finish::Aborted { .. }) => "Aborted",
            Self::Finished(Finish::ReadOnly { .. }) => "ReadOnly",
        })
    }
}

const ABORTED: &str = "the transaction is aborted";
const NEVER_SAW: &str = "this participant never saw its operation";
const TOO_LATE: &str = "the deadline passed before the participant could promise";
const OTHER_REQUEST: &str = "the transaction id belongs to another request";

/// One branch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Branch {
    transaction: TransactionId,
    phase: Phase,
}

impl Branch {
    /// A branch of which nothing is known.
    pub fn unknown(transaction: TransactionId) -> Self {
        Self {
            transaction,
            phase: Phase::Unknown,
        }
    }

    /// A branch that is over, as a participant's table remembers it.
    pub fn finished(transaction: TransactionId, finish: Finish) -> Self {
        Self {
            transaction,
            phase: Phase::Finished(finish),
        }
    }

    /// The transaction.
    pub fn transaction(&self) -> TransactionId {
        self.transaction
    }

    /// How far it has come.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The promise it holds, if it is in doubt: prepared, decision not yet known.
    pub fn in_doubt(&self) -> Option<&Prepared> {
        match &self.phase {
            Phase::Prepared(prepared) => Some(prepared),
            Phase::Unknown
            | Phase::Joining { .. }
            | Phase::Joined { .. }
            | Phase::Interrupted { .. }
            | Phase::Preparing(_)
            | Phase::Cancelling
            | Phase::Promising(_)
            | Phase::Committing(_)
            | Phase::Aborting { .. }
            | Phase::Recording { .. }
            | Phase::Finished(_) => None,
        }
    }

    /// Takes one record of the journal into account, at recovery.
    pub(crate) fn replay(self, record: Record) -> Result<Self, Contradiction> {
        let contradiction = |known, found| Contradiction {
            transaction: self.transaction,
            known,
            found,
        };
        let phase = match (self.phase, record) {
            (phase, Record::Started { .. } | Record::Registered { .. } | Record::Closed { .. }) => phase,
            (Phase::Unknown, Record::Prepared(_, prepared)) => Phase::Prepared(prepared),
            (Phase::Prepared(_), Record::Prepared(..)) => {
                return Err(contradiction("Prepared", "Prepared"));
            }
            // The table may remember what the journal has let go of, so an end may stand without its beginning.
            (Phase::Unknown | Phase::Prepared(_), Record::Committed { request_hash, .. }) => {
                Phase::Finished(Finish::Committed { request_hash })
            }
            (Phase::Unknown | Phase::Prepared(_), Record::Aborted { reason, .. }) => {
                Phase::Finished(Finish::Aborted { reason })
            }
            (Phase::Finished(Finish::Committed { request_hash }), Record::Committed { .. }) => {
                Phase::Finished(Finish::Committed { request_hash })
            }
            (Phase::Finished(Finish::Aborted { reason }), Record::Aborted { .. }) => {
                Phase::Finished(Finish::Aborted { reason })
            }
            (Phase::Finished(Finish::Committed { .. }), Record::Aborted { .. }) => {
                return Err(contradiction("Committed", "Aborted"));
            }
            (Phase::Finished(Finish::Committed { .. }), Record::Prepared(..)) => {
                return Err(contradiction("Committed", "Prepared"));
            }
            (Phase::Finished(Finish::Aborted { .. }), Record::Committed { .. }) => {
                return Err(contradiction("Aborted", "Committed"));
            }
            (Phase::Finished(Finish::Aborted { .. }), Record::Prepared(..)) => {
                return Err(contradiction("Aborted", "Prepared"));
            }
            (
                Phase::Finished(Finish::ReadOnly { .. })
                | Phase::Joining { .. }
                | Phase::Joined { .. }
                | Phase::Interrupted { .. }
                | Phase::Preparing(_)
                | Phase::Cancelling
                | Phase::Promising(_)
                | Phase::Committing(_)
                | Phase::Aborting { .. }
                | Phase::Recording { .. },
                Record::Prepared(..) | Record::Committed { .. } | Record::Aborted { .. },
            ) => unreachable!("these phases are not durable, so replay never meets them"),
        };
        Ok(Self {
            transaction: self.transaction,
            phase,
        })
    }

    /// Advances by one input. Does no IO; the driver carries out the effects in order.
    pub fn step(self, input: BranchInput, now: Timestamp) -> (Self, Vec<BranchEffect>) {
        let transaction = self.transaction;
        let (phase, effects) = match input {
            BranchInput::Join(request) => join::join(self.phase, request, now),
            BranchInput::DeadlinePassed => join::deadline_passed(transaction, self.phase),
            BranchInput::Prepare(request) => prepare(transaction, self.phase, request, now),
            BranchInput::Resolved(resolution) => resolved(transaction, self.phase, resolution, now),
            BranchInput::Recorded => recorded(self.phase),
            BranchInput::Commit { request_hash } => commit(self.phase, request_hash),
            BranchInput::Abort => abort(transaction, self.phase),
            BranchInput::Answered {
                request_hash,
                decision,
            } => answered(transaction, self.phase, request_hash, &decision),
            BranchInput::Applied => applied(transaction, self.phase),
            BranchInput::TimerFired => timer_fired(transaction, self.phase),
        };
        (Self { transaction, phase }, effects)
    }
}

type Stepped = (Phase, Vec<BranchEffect>);

fn no(reason: &str) -> Vote {
    Vote::No {
        reason: reason.to_owned(),
    }
}

fn ignored(phase: Phase, why: Ignored) -> Stepped {
    (phase, vec![BranchEffect::Ignored(why)])
}

fn refuse(phase: Phase, violation: Violation) -> Stepped {
    (phase, vec![BranchEffect::Refuse(violation)])
}

/// Ends the branch with a tombstone, and `then` says so. No need to wait for the disk (R4).
fn bury(transaction: TransactionId, reason: &str, then: Vec<BranchEffect>) -> Stepped {
    let record = Record::Aborted {
        transaction,
        reason: reason.to_owned(),
    };
    let mut effects = vec![BranchEffect::Note(record)];
    effects.extend(then);
    (
        Phase::Finished(Finish::Aborted {
            reason: reason.to_owned(),
        }),
        effects,
    )
}

fn prepare(transaction: TransactionId, phase: Phase, request: PrepareRequest, now: Timestamp) -> Stepped {
    // Another request under the same id is refused without touching the first one (R12).
    let other_request = |phase| (phase, vec![BranchEffect::Answer(no(OTHER_REQUEST))]);
    let same = |hash: &RequestHash| *hash == request.request_hash;
    let answer = |phase, vote| (phase, vec![BranchEffect::Answer(vote)]);
    match phase {
        Phase::Unknown if now >= request.deadline => {
            bury(transaction, TOO_LATE, vec![BranchEffect::Vote(no(TOO_LATE))])
        }
        Phase::Unknown => match request.operation.clone() {
            Some(operation) => (Phase::Preparing(request), vec![BranchEffect::Prepare(operation)]),
            // Asked again by a new leader about something never seen here: the tombstone keeps a late first
            // Prepare from taking holds (R4, R6).
            None => bury(transaction, NEVER_SAW, vec![BranchEffect::Vote(no(NEVER_SAW))]),
        },
        // An operation that comes with the Prepare, or a hash that is not of its members, is another request than
        // the one that was joined.
        Phase::Joining { .. } | Phase::Joined { .. } if !join::is_asked_for_by(&request) => {
            other_request(phase)
        }
        Phase::Joining { done, .. } => join::prepare_unfinished(done),
        Phase::Joined { work, .. } => join::prepare(transaction, work, request, now),
        Phase::Preparing(first) if same(&first.request_hash) => {
            ignored(Phase::Preparing(first), Ignored::AlreadyPreparing)
        }
        Phase::Promising(first) if same(&first.request_hash) => {
            ignored(Phase::Promising(first), Ignored::AlreadyPreparing)
        }
        Phase::Prepared(first) if same(&first.request_hash) => answer(Phase::Prepared(first), Vote::Yes),
        Phase::Committing(first) if same(&first.request_hash) => answer(Phase::Committing(first), Vote::Yes),
        Phase::Recording { request_hash } if same(&request_hash) => {
            answer(Phase::Recording { request_hash }, Vote::Yes)
        }
        Phase::Finished(Finish::Committed { request_hash }) if same(&request_hash) => {
            answer(Phase::Finished(Finish::Committed { request_hash }), Vote::Yes)
        }
        Phase::Finished(Finish::ReadOnly { request_hash }) if same(&request_hash) => {
            answer(Phase::Finished(Finish::ReadOnly { request_hash }), Vote::ReadOnly)
        }
        // Whatever the request, an id that was aborted here stays so.
        Phase::Cancelling => answer(Phase::Cancelling, no(ABORTED)),
        Phase::Interrupted { done, reason } => {
            let vote = no(&reason);
            answer(Phase::Interrupted { done, reason }, vote)
        }
        Phase::Aborting { redo, reason } => {
            let vote = no(&reason);
            answer(Phase::Aborting { redo, reason }, vote)
        }
        Phase::Finished(Finish::Aborted { reason }) => {
            let vote = no(&reason);
            answer(Phase::Finished(Finish::Aborted { reason }), vote)
        }
        Phase::Preparing(_)
        | Phase::Promising(_)
        | Phase::Prepared(_)
        | Phase::Committing(_)
        | Phase::Recording { .. }
        | Phase::Finished(Finish::Committed { .. } | Finish::ReadOnly { .. }) => other_request(phase),
    }
}

/// Writes the promise down. Nobody hears of it before it is durable (R3).
fn promise(transaction: TransactionId, request: PrepareRequest, redo: Bytes, now: Timestamp) -> Stepped {
    let prepared = Prepared {
        cluster: request.cluster,
        members: if mutants::is_on(Mutant::M3) {
            Members::new()
        } else {
            request.members
        },
        request_hash: request.request_hash,
        redo,
        deadline: request.deadline,
        prepared_at: now,
    };
    let record = Record::Prepared(transaction, prepared.clone());
    (Phase::Promising(prepared), vec![BranchEffect::Record(record)])
}

fn resolved(transaction: TransactionId, phase: Phase, resolution: Resolution, now: Timestamp) -> Stepped {
    match (phase, resolution) {
        (Phase::Joining { request, done }, resolution) => {
            join::resolved(transaction, request, done, resolution, now)
        }
        (Phase::Interrupted { done, reason }, resolution) => {
            join::resolved_for_nothing(transaction, done, &reason, resolution)
        }
        (Phase::Preparing(request), Resolution::Yes { redo }) => {
            if now >= request.deadline {
                // Nobody heard a Yes, so it is still ours to abort, and cheaper than holding until somebody says so.
                let effects = vec![
                    BranchEffect::Vote(no(TOO_LATE)),
                    BranchEffect::Abort { redo: redo.clone() },
                ];
                return (
                    Phase::Aborting {
                        redo,
                        reason: TOO_LATE.to_owned(),
                    },
                    effects,
                );
            }
            promise(transaction, request, redo, now)
        }
        (Phase::Preparing(request), Resolution::ReadOnly) => {
            let finish = Finish::ReadOnly {
                request_hash: request.request_hash,
            };
            (Phase::Finished(finish), vec![BranchEffect::Vote(Vote::ReadOnly)])
        }
        (Phase::Preparing(_), Resolution::No { reason }) => {
            let vote = BranchEffect::Vote(no(&reason));
            bury(transaction, &reason, vec![vote])
        }
        (Phase::Cancelling, Resolution::Yes { redo }) => {
            // The holds it took have to be let go before anybody hears that the branch is aborted.
            let effects = vec![BranchEffect::Abort { redo: redo.clone() }];
            (
                Phase::Aborting {
                    redo,
                    reason: ABORTED.to_owned(),
                },
                effects,
            )
        }
        (Phase::Cancelling, Resolution::ReadOnly | Resolution::No { .. }) => {
            bury(transaction, ABORTED, vec![BranchEffect::Acknowledge])
        }
        (
            phase @ (Phase::Unknown
            | Phase::Joined { .. }
            | Phase::Promising(_)
            | Phase::Prepared(_)
            | Phase::Committing(_)
            | Phase::Aborting { .. }
            | Phase::Recording { .. }
            | Phase::Finished(_)),
            Resolution::Yes { .. } | Resolution::ReadOnly | Resolution::No { .. },
        ) => ignored(phase, Ignored::LateCompletion),
    }
}

fn recorded(phase: Phase) -> Stepped {
    match phase {
        // The promise is durable: only now may it be heard (R3).
        Phase::Promising(prepared) => (Phase::Prepared(prepared), vec![BranchEffect::Vote(Vote::Yes)]),
        Phase::Recording { request_hash } => (
            Phase::Finished(Finish::Committed { request_hash }),
            vec![BranchEffect::Acknowledge],
        ),
        // An Abort overtook the record of the promise. The vote has been answered with No already.
        phase @ (Phase::Unknown
        | Phase::Joining { .. }
        | Phase::Joined { .. }
        | Phase::Interrupted { .. }
        | Phase::Preparing(_)
        | Phase::Cancelling
        | Phase::Prepared(_)
        | Phase::Committing(_)
        | Phase::Aborting { .. }
        | Phase::Finished(_)) => ignored(phase, Ignored::LateCompletion),
    }
}

fn commit(phase: Phase, request_hash: RequestHash) -> Stepped {
    let any = mutants::is_on(Mutant::M15);
    match phase {
        Phase::Prepared(prepared) if prepared.request_hash == request_hash || any => {
            let effects = vec![BranchEffect::Commit {
                redo: prepared.redo.clone(),
            }];
            (Phase::Committing(prepared), effects)
        }
        Phase::Committing(prepared) if prepared.request_hash == request_hash => {
            ignored(Phase::Committing(prepared), Ignored::AlreadyApplying)
        }
        Phase::Recording { request_hash: ours } if ours == request_hash => {
            ignored(Phase::Recording { request_hash: ours }, Ignored::AlreadyApplying)
        }
        Phase::Finished(Finish::Committed { request_hash: ours }) if ours == request_hash => (
            Phase::Finished(Finish::Committed { request_hash: ours }),
            vec![BranchEffect::Acknowledge],
        ),
        Phase::Finished(Finish::ReadOnly { request_hash: ours }) if ours == request_hash => (
            Phase::Finished(Finish::ReadOnly { request_hash: ours }),
            vec![BranchEffect::Acknowledge],
        ),
        Phase::Cancelling
        | Phase::Interrupted { .. }
        | Phase::Aborting { .. }
        | Phase::Finished(Finish::Aborted { .. }) => refuse(phase, Violation::CommitOfAborted),
        // Whoever says Commit claims a promise that nobody here has given (R9).
        Phase::Unknown
        | Phase::Joining { .. }
        | Phase::Joined { .. }
        | Phase::Preparing(_)
        | Phase::Promising(_) => refuse(phase, Violation::CommitOfUnprepared),
        Phase::Prepared(_)
        | Phase::Committing(_)
        | Phase::Recording { .. }
        | Phase::Finished(Finish::Committed { .. } | Finish::ReadOnly { .. }) => {
            refuse(phase, Violation::CommitOfAnotherRequest)
        }
    }
}

fn abort(transaction: TransactionId, phase: Phase) -> Stepped {
    match phase {
        // The Abort overtook its Prepare: the tombstone refuses it when it comes (R4).
        Phase::Unknown => bury(transaction, ABORTED, vec![BranchEffect::Acknowledge]),
        // Who waits for a vote hears No now; who told us the Abort hears the acknowledgement once the resource
        // manager has let go.
        Phase::Preparing(_) => (Phase::Cancelling, vec![BranchEffect::Vote(no(ABORTED))]),
        Phase::Promising(prepared) => {
            let redo = prepared.redo;
            let effects = vec![
                BranchEffect::Vote(no(ABORTED)),
                BranchEffect::Abort { redo: redo.clone() },
            ];
            (
                Phase::Aborting {
                    redo,
                    reason: ABORTED.to_owned(),
                },
                effects,
            )
        }
        Phase::Prepared(prepared) => {
            let redo = prepared.redo;
            let effects = vec![BranchEffect::Abort { redo: redo.clone() }];
            (
                Phase::Aborting {
                    redo,
                    reason: ABORTED.to_owned(),
                },
                effects,
            )
        }
        Phase::Joining { done, .. } => join::abort_unfinished(done),
        Phase::Joined { work, .. } => join::abort(transaction, work),
        Phase::Cancelling | Phase::Interrupted { .. } | Phase::Aborting { .. } => {
            ignored(phase, Ignored::AlreadyApplying)
        }
        Phase::Finished(Finish::Aborted { .. } | Finish::ReadOnly { .. }) => {
            (phase, vec![BranchEffect::Acknowledge])
        }
        Phase::Committing(_) | Phase::Recording { .. } | Phase::Finished(Finish::Committed { .. }) => {
            refuse(phase, Violation::AbortOfCommitted)
        }
    }
}

/// Only who is in doubt has asked. A branch that has learnt the decision since has acknowledged it, so the transaction
/// may be forgotten by now, and its question be answered like that of one that never promised: with Abort (R7).
fn answered(
    transaction: TransactionId,
    phase: Phase,
    request_hash: RequestHash,
    decision: &Decision,
) -> Stepped {
    match (phase, decision) {
        (Phase::Prepared(prepared), decision) if prepared.request_hash == request_hash => {
            let phase = Phase::Prepared(prepared);
            match decision {
                Decision::Commit => commit(phase, request_hash),
                Decision::Abort(_) => abort(transaction, phase),
            }
        }
        (phase, Decision::Commit | Decision::Abort(_)) => ignored(phase, Ignored::LateAnswer),
    }
}

fn applied(transaction: TransactionId, phase: Phase) -> Stepped {
    match phase {
        Phase::Committing(prepared) => {
            let request_hash = prepared.request_hash;
            let record = Record::Committed {
                transaction,
                request_hash,
            };
            (
                Phase::Recording { request_hash },
                vec![BranchEffect::Record(record)],
            )
        }
        Phase::Aborting { reason, .. } => bury(transaction, &reason, vec![BranchEffect::Acknowledge]),
        phase @ (Phase::Unknown
        | Phase::Joining { .. }
        | Phase::Joined { .. }
        | Phase::Interrupted { .. }
        | Phase::Preparing(_)
        | Phase::Cancelling
        | Phase::Promising(_)
        | Phase::Prepared(_)
        | Phase::Recording { .. }
        | Phase::Finished(_)) => ignored(phase, Ignored::LateCompletion),
    }
}

fn timer_fired(transaction: TransactionId, phase: Phase) -> Stepped {
    match phase {
        Phase::Prepared(_) if mutants::is_on(Mutant::M18) => abort(transaction, phase),
        // A timeout concludes nothing after a Yes; it only asks (R3, R5).
        Phase::Prepared(prepared) => (Phase::Prepared(prepared), vec![BranchEffect::Inquire]),
        phase @ (Phase::Unknown
        | Phase::Joining { .. }
        | Phase::Joined { .. }
        | Phase::Interrupted { .. }
        | Phase::Preparing(_)
        | Phase::Cancelling
        | Phase::Promising(_)
        | Phase::Committing(_)
        | Phase::Aborting { .. }
        | Phase::Recording { .. }
        | Phase::Finished(_)) => ignored(phase, Ignored::LateTimer),
    }
}
