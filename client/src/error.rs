//! What may be concluded when there is no outcome.

use std::time::Duration;

use thiserror::Error;
use tonic::Status;
use unanimo_core::{IdempotencyKey, Members, TransactionId};
use unanimo_proto::ErrorReason;
use unanimo_proto::transport::BadAddress;

use crate::Doom;

/// A client that cannot be made.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No coordinator was named.
    #[error("no coordinator address was given; name at least one as host:port")]
    NoCoordinators,
    /// An address is not one.
    #[error(transparent)]
    BadAddress(#[from] BadAddress),
}

/// Why `submit` has no outcome to tell.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// The cluster refused the request before anything happened, for good or, because its id is ahead of its time, until
    /// patience was over. Definite for *this call*: it had no effect and will not have one.
    ///
    /// It says nothing about an earlier call with the same id that ended in [`Unknown`](Self::Unknown): what its members
    /// promised may still commit, since they ask for the decision by themselves. A leader with lower limits, say, refuses
    /// the repetition of what another one has begun. After such a call, only an outcome tells:
    /// [`Client::outcome`](crate::Client::outcome).
    #[error("this call was refused and had no effect: {message}")]
    Refused {
        /// Why, for programs.
        reason: ErrorReason,
        /// Why, for people.
        message: String,
    },
    /// The transaction is so old that the cluster has forgotten it. Indefinite: it may have committed or aborted before,
    /// or never have been seen; nothing will happen under this id any more. Only the participants' own data tells.
    #[error("the outcome of transaction {transaction} is not known any more: {message}")]
    Expired {
        /// The id.
        transaction: TransactionId,
        /// How old is too old.
        message: String,
    },
    /// Patience ended before an answer came, or a later attempt was refused although an earlier one may have started it.
    /// Indefinite: it may have committed, may still commit, or may never.
    #[error(
        "the outcome of transaction {transaction} is unknown after {waited:?} ({last_error}); \
         submit it again with the same id, or ask for its outcome by id"
    )]
    Unknown {
        /// The id to ask again with.
        transaction: TransactionId,
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt met.
        last_error: String,
    },
    /// The same, for a request that was submitted under an idempotency key: the key is what to ask again with.
    #[error(
        "the outcome of the request under idempotency key {key:?} is unknown after {waited:?} ({last_error}); \
         submit the same branches under the same key again"
    )]
    KeyUnknown {
        /// The key to ask again with.
        key: IdempotencyKey,
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt met.
        last_error: String,
    },
}

impl SubmitError {
    /// True only if this call did not and will not lead to a commit. That is the transaction's fate, too, unless an
    /// earlier call with the same id ended without an answer: see [`Refused`](Self::Refused).
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Expired { .. } | Self::Unknown { .. } | Self::KeyUnknown { .. } => false,
        }
    }
}

/// Why the commit of an interactive transaction has no outcome to tell.
#[derive(Debug, Error)]
pub enum CommitError {
    /// No service has joined it, so there is nothing to commit. Nothing was sent.
    #[error("no participant has joined transaction {transaction}; there is nothing to commit")]
    NoBranches {
        /// The transaction.
        transaction: TransactionId,
    },
    /// Calls that belong to it have not been answered yet. Nothing was sent, and it is aborted.
    #[error("{calls} calls of transaction {transaction} are still under way; nothing was committed")]
    CallsUnderWay {
        /// The transaction.
        transaction: TransactionId,
        /// How many.
        calls: usize,
    },
    /// It can only be aborted. Nothing was sent.
    #[error("transaction {transaction} can only be aborted: {doom}")]
    Doomed {
        /// The transaction.
        transaction: TransactionId,
        /// Why.
        doom: Doom,
    },
    /// The cluster refused the commit before anything happened. Definite for *this call*; about an earlier one that ended
    /// in [`Unknown`](Self::Unknown) it says nothing, as [`SubmitError::Refused`] explains.
    #[error("this commit was refused and had no effect: {message}")]
    Refused {
        /// Why, for programs.
        reason: ErrorReason,
        /// Why, for people.
        message: String,
    },
    /// The transaction is so old that the cluster has forgotten it. Indefinite: an earlier call may have committed it.
    /// Nothing will happen under this id any more; only the participants' own data tells.
    #[error("the outcome of transaction {transaction} is not known any more: {message}")]
    Expired {
        /// The id.
        transaction: TransactionId,
        /// How old is too old.
        message: String,
    },
    /// Patience ended before an answer came, or a later attempt was refused although an earlier one may have started it.
    /// Indefinite: it may have committed, may still commit, or may never.
    #[error(
        "the outcome of transaction {transaction} is unknown after {waited:?} ({last_error}); \
         commit it again with the same participants, or ask for its outcome by id"
    )]
    Unknown {
        /// The id to ask again with.
        transaction: TransactionId,
        /// The participants to commit it again with.
        participants: Members,
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt met.
        last_error: String,
    },
}

impl CommitError {
    /// True only if this call did not and will not lead to a commit. That is the transaction's fate, too, unless an
    /// earlier call with the same id ended without an answer: see [`SubmitError::Refused`].
    pub fn is_definite(&self) -> bool {
        match self {
            Self::NoBranches { .. }
            | Self::CallsUnderWay { .. }
            | Self::Doomed { .. }
            | Self::Refused { .. } => true,
            Self::Expired { .. } | Self::Unknown { .. } => false,
        }
    }
}

/// Why a question was not answered. Nothing may be concluded about any transaction.
#[derive(Debug, Error)]
pub enum CallError {
    /// The cluster refuses to answer this, and would again, or did until patience was over.
    #[error("refused: {message}")]
    Refused {
        /// Why, for programs.
        reason: ErrorReason,
        /// Why, for people.
        message: String,
    },
    /// Nobody answered in time.
    #[error("no coordinator answered within {waited:?}; the last error was: {last_error}")]
    NoAnswer {
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt met.
        last_error: String,
    },
}

/// A status in one line: the reason if it is one of ours, else the code.
pub(crate) fn describe(status: &Status) -> String {
    match unanimo_proto::reason_of(status) {
        Some(reason) => format!("{}: {}", reason.as_str(), status.message()),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}
