//! The decision, why a transaction was aborted, and what the protocol says instead of acting.

use std::fmt;

use crate::{Members, ParticipantId};

/// The coordinator's irrevocable word on a transaction. It exists once it stands in the decision table on a
/// quorum's disks, and not before (R1, R2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// Every member voted Yes or ReadOnly: the effects happen at all of them.
    Commit,
    /// The effects happen at none of them.
    Abort(AbortReason),
}

impl Decision {
    /// Whether this is `Commit`.
    pub fn is_commit(&self) -> bool {
        matches!(self, Self::Commit)
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit => f.write_str("Commit"),
            Self::Abort(reason) => write!(f, "Abort({reason})"),
        }
    }
}

/// Why a transaction was aborted. Told to the initiator; no rule depends on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AbortReason {
    /// A member voted No.
    VotedNo {
        /// Who refused.
        participant: ParticipantId,
        /// What its resource manager said, for example "insufficient funds".
        reason: String,
    },
    /// The voting phase ended before these members had voted.
    DeadlinePassed {
        /// Whose vote was missing.
        missing: Members,
    },
    /// The initiator asked for it.
    Requested,
    /// Somebody asked about a transaction that nobody was running and that had no record, and it could not be
    /// completed: the abort was recorded before it was told (R5).
    Presumed,
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VotedNo { participant, reason } => write!(f, "{participant} voted No: {reason}"),
            Self::DeadlinePassed { missing } => {
                f.write_str("deadline passed without a vote of ")?;
                for (place, participant) in missing.iter().enumerate() {
                    write!(f, "{}{participant}", if place == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Requested => f.write_str("requested by the initiator"),
            Self::Presumed => f.write_str("presumed: no decision was recorded and nobody was running it"),
        }
    }
}

/// A message that changed nothing, and why that is right (R9). Drivers count these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// The same vote was counted already.
    RepeatedVote,
    /// A vote that arrived after the decision was asked for.
    LateVote,
    /// A vote or acknowledgement of somebody who is not a member.
    NotAMember,
    /// The deadline passed when it no longer mattered.
    LateTimer,
    /// An acknowledgement that was counted already, or is not waited for.
    RepeatedAcknowledgement,
    /// A request to abort what is already being decided: its answer is the decision.
    AlreadyDeciding,
    /// The decision was known already.
    RepeatedDecision,
    /// The answer to an inquiry, when the branch has learnt the decision in another way.
    LateAnswer,
    /// The table wants votes again for a decision that is no longer waited for.
    LateSupersession,
    /// The branch is working on the same Prepare; whoever asked waits for the same vote.
    AlreadyPreparing,
    /// The branch is working on the same decision; whoever asked waits for the same acknowledgement.
    AlreadyApplying,
    /// A completion that belongs to an earlier phase of the branch.
    LateCompletion,
}

/// Something that cannot happen while every node keeps the rules. It is refused, changes nothing, and somebody
/// must be told (R9).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A Commit for a branch that is known as aborted.
    CommitOfAborted,
    /// An Abort for a branch that is known as committed.
    AbortOfCommitted,
    /// A Commit for a branch that never promised anything.
    CommitOfUnprepared,
    /// A Commit under this id, but for another request than the one that was prepared (R12).
    CommitOfAnotherRequest,
    /// A decision that differs from the one this side already acts on.
    DecisionChanged {
        /// The decision acted on.
        known: Decision,
        /// The other one.
        other: Decision,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommitOfAborted => f.write_str("Commit for a branch that is aborted"),
            Self::AbortOfCommitted => f.write_str("Abort for a branch that is committed"),
            Self::CommitOfUnprepared => f.write_str("Commit for a branch that never promised"),
            Self::CommitOfAnotherRequest => f.write_str("Commit for another request under the same id"),
            Self::DecisionChanged { known, other } => write!(f, "decision {other} after {known}"),
        }
    }
}
