use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tonic::Status;
use unanimo_client::ClientError;
use unanimo_core::{ClusterId, Contradiction, Generation, ParticipantId, TransactionId, Violation};
use unanimo_journal::{AppendError, OpenError, Sequence};
use unanimo_proto::storage::UnreadableRecord;
use unanimo_proto::{ErrorReason, refusal, with_retry_after};
use unanimo_table::TableError;

use crate::branches::FAR_AHEAD;

/// How long somebody should wait who came too early or with too much: some group commits and decisions later
/// there is room again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Why a participant does not start. Nothing was changed but a new start counted; no traffic was taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}: {source}", path.display())]
    Data {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The journal does not open; the message says what to do.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The start could not be recorded.
    #[error("the start could not be recorded: {0}")]
    Unrecorded(#[from] AppendError),
    /// The branch table does not open or failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The data folder belongs to another participant.
    #[error(
        "the data folder belongs to participant {found}, this is participant {expected}: check the paths"
    )]
    OtherParticipant {
        /// Who this is.
        expected: ParticipantId,
        /// Whose data it is.
        found: ParticipantId,
    },
    /// The data folder belongs to a participant of another cluster.
    #[error("the data folder belongs to cluster {found}, this is cluster {expected}: check the paths")]
    OtherCluster {
        /// Which cluster this is.
        expected: ClusterId,
        /// The cluster of the data.
        found: ClusterId,
    },
    /// A record that this version cannot read.
    #[error("record {sequence} of the participant journal: {source}")]
    Unreadable {
        /// Where it stands.
        sequence: Sequence,
        /// What is wrong with it.
        source: UnreadableRecord,
    },
    /// The records cannot have been written by one participant that keeps the rules.
    #[error("the data folder was mixed up or edited, restore it from a backup of this node: {0}")]
    Contradiction(#[from] Contradiction),
    /// The starts do not count up.
    #[error(
        "the data folder was mixed up or edited, restore it from a backup of this node: start {found} is recorded after start {known}"
    )]
    StartsOutOfOrder {
        /// The start before.
        known: Generation,
        /// The one found after it.
        found: Generation,
    },
    /// The branch table remembers what the journal does not have: one of them is an old copy.
    #[error(
        "the branch table is complete up to record {table}, but the journal ends with record {journal}: \
         one of them was restored from an old copy; restore both from the same one"
    )]
    JournalBehind {
        /// What the table claims.
        table: Sequence,
        /// What the journal has.
        journal: Sequence,
    },
    /// The resource manager still holds prepared what it has committed once: its data is an old copy.
    #[error(
        "the resource manager holds transaction {transaction} prepared, but it was committed: \
         its data is older than the journal; restore both from the same copy"
    )]
    ResourceManagerBehind {
        /// The transaction.
        transaction: TransactionId,
    },
    /// The resource manager holds something prepared that is closed (R7) and that this participant knows nothing of any
    /// more: it may have been committed and forgotten, so nobody rolls it back unasked.
    #[error(
        "the resource manager holds transaction {transaction} prepared, but it is closed and forgotten here: it may have \
         been committed. Look it up at the transaction's other services. If the resource manager was restored from an old \
         copy, restore newer data, as old as the journal at least; if this is all that is left, end the transaction in the \
         resource manager by hand as the others ended it. Then start again"
    )]
    ResourceManagerHoldsClosed {
        /// The transaction.
        transaction: TransactionId,
    },
    /// The coordinators' addresses are no addresses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It stopped before it was through.
    #[error("the participant stopped while it recovered: {0}")]
    Stopped(StopReason),
}

/// Why a participant serves no longer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// It was asked to.
    Shutdown,
    /// The journal or the branch table failed. Nobody knows what is on disk: the process must end and start again,
    /// on a disk that works (R10).
    StorageFailed {
        /// What failed.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The resource manager's storage failed. The process must end and start again (R10).
    ResourceManagerFailed {
        /// What it said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// An assertion of this crate failed, in what changes a branch or in the background, which is a bug. The process must
    /// end and start again: the journal knows better than its memory.
    Broken,
    /// The cluster has seen more of this participant than it remembers: it runs from an old copy of its data, or
    /// twice (R11). Starting it again does not help.
    Outdated {
        /// What the cluster said.
        message: String,
    },
    /// The cluster refuses to know this participant. Starting it again with the same options does not help.
    Refused {
        /// What the cluster said.
        message: String,
    },
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("it was shut down"),
            Self::StorageFailed { source } => write!(
                f,
                "its storage failed: {source}. See to the disk and the room on it, then start it again: it goes on \
                 from what is on disk"
            ),
            Self::ResourceManagerFailed { source } => write!(f, "its resource manager failed: {source}"),
            Self::Broken => f.write_str("an assertion of its own failed"),
            Self::Outdated { message } => {
                write!(
                    f,
                    "it runs from an old copy of its data, or a second time: {message}"
                )
            }
            Self::Refused { message } => write!(f, "the cluster refused to register it: {message}"),
        }
    }
}

impl StopReason {
    pub(crate) fn storage(source: impl Error + Send + Sync + 'static) -> Self {
        Self::StorageFailed {
            source: Arc::new(source),
        }
    }
}

/// Why serving ended otherwise than asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The participant stopped by itself.
    #[error("the participant stopped: {0}")]
    Stopped(StopReason),
    /// The server could not go on.
    #[error("the server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Why a message is not answered with a vote or an acknowledgement.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// Promises are still being restored.
    Recovering,
    /// A new transaction, before the cluster has confirmed that this participant's memory is whole (R11).
    Unregistered,
    /// A commit that is done, before it is durable that the cluster has confirmed this life (R11).
    Unconfirmed,
    /// A shutdown is under way.
    ShuttingDown,
    /// Nothing is served any more.
    Stopped(StopReason),
    /// Too much is going on; nothing was started.
    Overloaded { what: &'static str, limit: usize },
    /// A message that no coordinator which keeps the rules sends.
    Violation(Violation),
    /// Transactions with such old ids are closed (R7).
    Expired,
    /// The id lies so far ahead that what is noted of it could not be forgotten (R7).
    Premature,
    /// The vote or acknowledgement is not there yet.
    NotYet,
}

impl From<Refusal> for Status {
    fn from(refused: Refusal) -> Self {
        match refused {
            Refusal::Recovering => with_retry_after(
                ErrorReason::Recovering,
                "the participant is restoring what it promised; nothing was done",
                RETRY_AFTER,
            ),
            Refusal::Unregistered => with_retry_after(
                ErrorReason::Recovering,
                "the participant has not registered since it started; nothing was done",
                RETRY_AFTER,
            ),
            Refusal::Unconfirmed => with_retry_after(
                ErrorReason::Recovering,
                "it is committed, but the participant's registration is not confirmed yet; ask again",
                RETRY_AFTER,
            ),
            Refusal::ShuttingDown => refusal(
                ErrorReason::ShuttingDown,
                "the participant is stopping; nothing was done",
            ),
            Refusal::Stopped(reason) => refusal(
                match reason {
                    StopReason::Shutdown => ErrorReason::ShuttingDown,
                    StopReason::StorageFailed { .. }
                    | StopReason::ResourceManagerFailed { .. }
                    | StopReason::Broken => ErrorReason::StorageFailed,
                    StopReason::Outdated { .. } | StopReason::Refused { .. } => ErrorReason::Outdated,
                },
                format!("the participant serves no longer: {reason}"),
            ),
            Refusal::Overloaded { what, limit } => with_retry_after(
                ErrorReason::Overloaded,
                format!("more than {limit} {what}; nothing was started"),
                RETRY_AFTER,
            ),
            Refusal::Violation(violation) => refusal(
                ErrorReason::Violation,
                format!("{violation}; nothing was changed"),
            ),
            Refusal::Expired => refusal(
                ErrorReason::Expired,
                "the transaction lies below the watermark; nothing was done",
            ),
            Refusal::Premature => refusal(
                ErrorReason::Premature,
                format!(
                    "the transaction's id lies {FAR_AHEAD:?} or more ahead of this participant's clock; nothing was done"
                ),
            ),
            Refusal::NotYet => Self::unavailable("not finished yet; the branch goes on, ask again"),
        }
    }
}
