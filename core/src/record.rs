//! What a participant makes durable, and how it finds its branches again.

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use crate::{Branch, ClusterId, Generation, Members, Position, RequestHash, Timestamp, TransactionId};

/// A promise, as it stands on disk: everything needed to keep it without anybody's help (R3, R6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prepared {
    /// The cluster that owns the transaction.
    pub cluster: ClusterId,
    /// Every member, so that whoever takes over can ask them all.
    pub members: Members,
    /// The request the promise was made for.
    pub request_hash: RequestHash,
    /// What the resource manager needs to commit or abort, also after a restart. Opaque here.
    pub redo: Bytes,
    /// When the voting phase ends by this participant's clock. Nothing follows from it passing (R3).
    pub deadline: Timestamp,
    /// When the promise was made, by this participant's clock. In-doubt time is measured from here.
    pub prepared_at: Timestamp,
}

/// One durable record of a participant's journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// The participant started for the n-th time. First record of every start, durable before anything is sent.
    Started {
        /// The cluster it belongs to, for ever (R11).
        cluster: ClusterId,
        /// The life that begins.
        generation: Generation,
    },
    /// The cluster has confirmed that nothing of the earlier lives is missing. Stands before every promise of this
    /// life: see [`Reach`].
    Registered {
        /// The life that it confirmed.
        generation: Generation,
    },
    /// Transactions below this one are closed here (R7): what ended under them may be dropped, and the journal may
    /// begin after them. Durable before either. It also says what a released beginning said, and only a life that is
    /// registered writes it, so whatever follows it does not rest on an earlier mark.
    Closed {
        /// The cluster it belongs to, for ever (R11).
        cluster: ClusterId,
        /// The life that writes it.
        generation: Generation,
        /// The watermark. Only rises.
        below: TransactionId,
    },
    /// The branch promised. Durable before anybody hears its Yes.
    Prepared(TransactionId, Prepared),
    /// The resource manager has committed, durably. Durable before the acknowledgement.
    Committed {
        /// The transaction.
        transaction: TransactionId,
        /// The request that was committed.
        request_hash: RequestHash,
    },
    /// The branch holds nothing and never will: a tombstone (R4). Losing it in a crash costs time, not safety.
    Aborted {
        /// The transaction.
        transaction: TransactionId,
        /// Why, for whoever asks again.
        reason: String,
    },
}

/// Records that cannot have been written by a participant that keeps the rules: somebody mixed up or edited
/// files. The participant must not start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the records of transaction {transaction} contradict each other: {found} after {known}")]
pub struct Contradiction {
    /// The transaction.
    pub transaction: TransactionId,
    /// What the records before said.
    pub known: &'static str,
    /// What the next one says.
    pub found: &'static str,
}

/// How far a participant's memory reached when it came up, as it has to tell the cluster (R11): where its journal
/// ended before the first start that the cluster has not confirmed.
///
/// What a start writes itself must not count: it could stand where lost promises once stood, and make a journal that
/// was cut short look as long as it ever was. Neither must what earlier starts wrote that were never confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    unconfirmed_from: Option<Position>,
}

impl Reach {
    /// Takes the next record of the journal into account.
    pub fn take(&mut self, position: Position, record: &Record) {
        match record {
            Record::Started { .. } => {
                self.unconfirmed_from
                    .get_or_insert(Position(position.0.saturating_sub(1)));
            }
            Record::Registered { .. } => self.unconfirmed_from = None,
            Record::Closed { .. }
            | Record::Prepared(..)
            | Record::Committed { .. }
            | Record::Aborted { .. } => {}
        }
    }

    /// What to register with; none if the last start is confirmed.
    pub fn position(self) -> Option<Position> {
        self.unconfirmed_from
    }
}

/// Folds records, oldest first, into the branches they leave behind. Branches that only ever prepared are in
/// doubt afterwards: their holds must be taken again before any traffic is accepted (R3).
pub fn recover(
    records: impl IntoIterator<Item = Record>,
) -> Result<BTreeMap<TransactionId, Branch>, Contradiction> {
    let mut branches: BTreeMap<TransactionId, Branch> = BTreeMap::new();
    for record in records {
        let transaction = match &record {
            Record::Started { .. } | Record::Registered { .. } | Record::Closed { .. } => continue,
            Record::Prepared(transaction, _)
            | Record::Committed { transaction, .. }
            | Record::Aborted { transaction, .. } => *transaction,
        };
        let branch = branches
            .remove(&transaction)
            .unwrap_or_else(|| Branch::unknown(transaction));
        branches.insert(transaction, branch.replay(record)?);
    }
    Ok(branches)
}
