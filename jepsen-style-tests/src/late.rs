//! Messages that come late, again, or from somewhere else: what they are called, and what was answered to them.

use serde::{Deserialize, Serialize};
use tonic::Status;
use unanimo_proto::v1::{self, prepare_reply};
use unanimo_proto::{ErrorReason, reason_of};

use crate::history::Tx;

/// The answers to messages of one kind, in one situation, that were all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateAnswers {
    /// The fault that sent them.
    pub fault: String,
    /// Who answered: `p1`, `c2`.
    pub to: String,
    /// The method: `Prepare`.
    pub method: String,
    /// How the message came.
    pub came: Came,
    /// What was known of its transaction before it was sent.
    pub ended: Ended,
    /// Whether the transaction was below the watermark, so that it may have been forgotten.
    pub forgotten: bool,
    /// The answer.
    pub answer: Reaction,
    /// How many.
    pub times: u64,
    /// The transaction of one of them.
    pub example: Option<Tx>,
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// For the first time, after it was held back.
    Late,
    /// Not for the first time.
    Again,
    /// Late or again, in a later life of whom it was sent to.
    AfterRestart,
    /// To somebody whom it was not meant for.
    ToTheWrongOne,
    /// With the name of another cluster.
    FromAnotherCluster,
    /// With another request under the same transaction.
    WithAnotherRequest,
    /// With the decision that was not taken.
    Contradicting,
    /// From a life that is over.
    FromAnOldLife,
    /// As bytes that are no message, or as one that is larger than any may be.
    Malformed,
}

/// How a transaction had ended before the message was sent, as far as that is known: for a participant, what it has
/// acknowledged or voted itself; for a coordinator, what it has told participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Not known, or not at all.
    Open,
    /// Committed.
    Committed,
    /// Aborted.
    Aborted,
}

/// An answer, in a word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reaction {
    /// A vote: a promise.
    Yes,
    /// A vote: nothing to commit.
    ReadOnly,
    /// A vote: refused.
    No,
    /// A decision was acknowledged.
    Acknowledged,
    /// The transaction is committed.
    Committed,
    /// The transaction is aborted.
    Aborted,
    /// There is no decision yet.
    Undecided,
    /// Done, whatever else was asked for.
    Done,
    /// The process did not live on.
    Died,
    /// Refused, with this reason.
    Refused(String),
    /// Nothing may be concluded: no answer came, or an error that is not of Unanimo.
    Nothing(String),
}

impl Reaction {
    /// Of a participant that was to vote.
    pub fn to_prepare(answer: &Result<v1::PrepareReply, Status>) -> Self {
        match answer {
            Ok(reply) => match reply.vote {
                Some(prepare_reply::Vote::Yes(_)) => Self::Yes,
                Some(prepare_reply::Vote::ReadOnly(_)) => Self::ReadOnly,
                Some(prepare_reply::Vote::No(_)) => Self::No,
                None => Self::Nothing("no vote".to_owned()),
            },
            Err(status) => Self::refusal(status),
        }
    }

    /// Of a participant that was told a decision.
    pub fn to_decision<A>(answer: &Result<A, Status>) -> Self {
        match answer {
            Ok(_) => Self::Acknowledged,
            Err(status) => Self::refusal(status),
        }
    }

    /// Of a coordinator that was asked to carry out something.
    pub fn outcome(answer: Result<Option<v1::Outcome>, Status>) -> Self {
        match answer {
            Ok(outcome) => match outcome.and_then(|outcome| outcome.outcome) {
                Some(v1::outcome::Outcome::Committed(_)) => Self::Committed,
                Some(v1::outcome::Outcome::Aborted(_)) => Self::Aborted,
                None => Self::Nothing("no outcome".to_owned()),
            },
            Err(status) => Self::refusal(&status),
        }
    }

    /// Of somebody who did not do it.
    pub fn refusal(status: &Status) -> Self {
        match reason_of(status) {
            Some(reason) => Self::Refused(reason.as_str().to_owned()),
            None => Self::Nothing(status.code().to_string()),
        }
    }

    /// Whether it was refused for this reason.
    pub fn is_refused_as(&self, reason: ErrorReason) -> bool {
        matches!(self, Self::Refused(found) if found == reason.as_str())
    }

    /// In a word.
    pub fn word(&self) -> String {
        match self {
            Self::Yes => "yes".to_owned(),
            Self::ReadOnly => "read only".to_owned(),
            Self::No => "no".to_owned(),
            Self::Acknowledged => "acknowledged".to_owned(),
            Self::Committed => "committed".to_owned(),
            Self::Aborted => "aborted".to_owned(),
            Self::Undecided => "undecided".to_owned(),
            Self::Done => "done".to_owned(),
            Self::Died => "died".to_owned(),
            Self::Refused(reason) => format!("refused as {reason}"),
            Self::Nothing(why) => format!("nothing ({why})"),
        }
    }
}
