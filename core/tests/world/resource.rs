//! The resource manager as the protocol sees it: it takes holds, commits durably and idempotently, and forgets its
//! holds in a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use unanimo_core::{Operation, Resolution, TransactionId};

use super::names::transaction_name;

/// What a resource manager is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Prepare(TransactionId, Operation),
    /// A further operation of a transaction that holds something already.
    Extend(TransactionId, Operation),
    Commit(TransactionId),
    Abort(TransactionId),
}

impl Work {
    pub(crate) fn transaction(&self) -> TransactionId {
        match self {
            Self::Prepare(transaction, _)
            | Self::Extend(transaction, _)
            | Self::Commit(transaction)
            | Self::Abort(transaction) => *transaction,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self {
            Self::Prepare(..) => "prepare",
            Self::Extend(..) => "extend",
            Self::Commit(_) => "commit",
            Self::Abort(_) => "abort",
        };
        write!(f, "{verb} {}", transaction_name(self.transaction()))
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    Resolved(Resolution),
    /// The effect happened now.
    Committed,
    /// The effect had happened before; nothing was changed.
    CommittedBefore,
    LetGo,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolved(Resolution::Yes { .. }) => f.write_str("Yes"),
            Self::Resolved(Resolution::ReadOnly) => f.write_str("ReadOnly"),
            Self::Resolved(Resolution::No { reason }) => write!(f, "No({reason})"),
            Self::Committed => f.write_str("done"),
            Self::CommittedBefore => f.write_str("was done before"),
            Self::LetGo => f.write_str("holds nothing"),
        }
    }
}

/// One resource manager.
///
/// An operation says how it is answered: `yes`, `read` (read-only) or `no`; `no|yes` is refused the first time and
/// promised the second, as happens to a resource manager whose state moves on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resource {
    holds: BTreeSet<TransactionId>,
    committed: BTreeSet<TransactionId>,
    prepared: BTreeMap<TransactionId, usize>,
    working: Vec<Work>,
}

impl Resource {
    /// Who holds something. Volatile.
    pub(crate) fn holds(&self) -> &BTreeSet<TransactionId> {
        &self.holds
    }

    /// What has been committed. Durable.
    pub(crate) fn committed(&self) -> &BTreeSet<TransactionId> {
        &self.committed
    }

    /// What it is working on, oldest first.
    pub(crate) fn working(&self) -> &[Work] {
        &self.working
    }

    /// Starts to work; the holds are taken on the way.
    pub(crate) fn start(&mut self, work: Work) {
        if let Work::Prepare(transaction, _) = &work {
            self.holds.insert(*transaction);
        }
        self.working.push(work);
    }

    /// Finishes one piece of work.
    pub(crate) fn finish(&mut self, place: usize) -> (Work, Finished) {
        let work = self.working.remove(place);
        let finished = match &work {
            Work::Prepare(transaction, operation) => {
                let resolution = self.resolve(*transaction, operation);
                if !matches!(resolution, Resolution::Yes { .. }) {
                    self.holds.remove(transaction);
                }
                Finished::Resolved(resolution)
            }
            // Whatever it answers, what was held before stays.
            Work::Extend(transaction, operation) => Finished::Resolved(self.resolve(*transaction, operation)),
            Work::Commit(transaction) => {
                self.holds.remove(transaction);
                if self.committed.insert(*transaction) {
                    Finished::Committed
                } else {
                    Finished::CommittedBefore
                }
            }
            Work::Abort(transaction) => {
                self.holds.remove(transaction);
                Finished::LetGo
            }
        };
        (work, finished)
    }

    fn resolve(&mut self, transaction: TransactionId, operation: &Operation) -> Resolution {
        let text = String::from_utf8_lossy(operation.as_bytes()).into_owned();
        let answers: Vec<&str> = text.split('|').collect();
        let times = self.prepared.entry(transaction).or_default();
        let answer = answers[(*times).min(answers.len() - 1)];
        *times += 1;
        match answer {
            "yes" => Resolution::Yes {
                redo: Bytes::from(text.clone().into_bytes()),
            },
            "read" => Resolution::ReadOnly,
            "no" => Resolution::No {
                reason: "refused".to_owned(),
            },
            other => panic!("no resource manager knows the operation {other:?}"),
        }
    }

    /// Takes the holds of a promise again, at recovery.
    pub(crate) fn restore(&mut self, transaction: TransactionId) {
        self.holds.insert(transaction);
    }

    /// Loses everything that is not durable.
    pub(crate) fn crash(&mut self) {
        self.holds.clear();
        self.working.clear();
    }
}
