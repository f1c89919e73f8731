use std::error::Error;
use std::future::{Future, ready};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use thiserror::Error;
use unanimo_core::TransactionId;

/// What a resource manager answers when it is asked to prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// Everything the operation needs is held, and it can be committed with this redo even after a restart.
    Yes {
        /// Whatever [`ResourceManager::commit`] will need, in a form that only the resource manager reads. It is
        /// written to the journal before anybody hears the Yes, and comes back with every later call.
        redo: Bytes,
    },
    /// The operation only read, and nothing is held any more. The branch takes no part in phase two and does
    /// not hear the decision. Between this answer and the decision others may change what was read.
    ReadOnly,
    /// The operation is refused, and nothing is held.
    No {
        /// Why, for the initiator: "insufficient funds". Cut after 1 KiB.
        reason: String,
    },
}

/// A service's own data and locks, as the protocol sees them. The one trait that a service implements.
///
/// # What is called when
///
/// `prepare` once for a transaction, then either `commit` or `abort`. Calls for one transaction never overlap;
/// calls for different transactions do. An interactive transaction may bring several operations: the first goes to
/// `prepare`, and each one after it to `extend`, or to `prepare` again while everything before only read. After a restart `restore` comes first, for every transaction that was
/// prepared and not finished, before [`Participant::start`](crate::Participant::start) returns and before any
/// other call.
///
/// `commit`, `abort` and `restore` are repeated after [`ResourceError::Unavailable`] and after a panic, with
/// pauses, for ever: a promise cannot be given up. They are also called again after a crash that came between
/// their return and the record of it, so the second time has to change nothing. When the participant stops, a call
/// that still runs is dropped at its next await, as a crash would cut it off.
///
/// # PostgreSQL: `PREPARE TRANSACTION`
///
/// The global identifier is `'unanimo/' || participant || '/' || id`, at most 110 characters of the 200 allowed. The
/// participant's name is part of it, because the server lists and finishes the prepared transactions of everybody who
/// shares it: without the name one participant would roll back what another has promised. The server needs `max_prepared_transactions` of at least the participant's
/// [`in_flight`](crate::ParticipantOptions::in_flight).
///
/// | Call | What it does |
/// |---|---|
/// | `prepare` | `BEGIN`, the operation, `PREPARE TRANSACTION 'unanimo/…'`; the redo is empty, because the server keeps what it needs. A constraint violation is a `No`, after `ROLLBACK`. |
/// | `commit` | `COMMIT PREPARED 'unanimo/…'`. After error 42704 (`undefined_object`) look for the mark: a row with the id in a table of one's own, written by `prepare` inside the transaction. With it an earlier call has done it: `Ok`. Without it somebody has taken the promise away: `Failed`. |
/// | `abort` | `ROLLBACK PREPARED 'unanimo/…'`; 42704 is `Ok`. Also closes a connection on which the operation is still under way. |
/// | `restore` | nothing: the server brings prepared transactions back with their locks. |
/// | `prepared` | `SELECT gid FROM pg_prepared_xacts WHERE database = current_database()`, those with the prefix and this participant's name. |
///
/// A refused connection is [`ResourceError::Unavailable`]. `synchronous_commit` must not be `off`: `commit` promises
/// durability.
///
/// # MariaDB: XA
///
/// The XID's global part is the transaction's id, its branch qualifier the participant's name, at most 64 bytes each:
/// `XA START 'id','participant'`. XA statements are tied to a connection until `XA
/// PREPARE`; since 10.5 a prepared branch outlives its connection and the server, and any connection may finish it.
///
/// | Call | What it does |
/// |---|---|
/// | `prepare` | `XA START`, the operation, `XA END`, `XA PREPARE`; the redo is empty. A branch that changed nothing answers `ReadOnly`, after `XA ROLLBACK`. |
/// | `commit` | `XA COMMIT`; after error 1397 (`XAER_NOTA`) look for the mark, as above. |
/// | `abort` | `XA ROLLBACK`; 1397 is `Ok`. Also closes a connection whose branch is not yet prepared. |
/// | `restore` | nothing. |
/// | `prepared` | `XA RECOVER`, which lists the whole server: those whose branch qualifier is this participant's name. |
///
/// `innodb_flush_log_at_trx_commit` and `sync_binlog` must be 1.
///
/// With either database a crash may come after the server has prepared and before the participant has its record.
/// Nobody has heard a Yes then; [`prepared`](Self::prepared) finds it at the next start and it is aborted.
pub trait ResourceManager: Send + Sync + 'static {
    /// Does whatever can fail: checks the operation, takes locks or holds, and says whether it could be committed.
    /// Nothing of it may be visible to others yet.
    ///
    /// # Errors
    ///
    /// After `Unavailable`, or a panic, [`abort`](Self::abort) is called and the branch votes No.
    fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> impl Future<Output = Result<Preparation, ResourceError>> + Send;

    /// Does a further operation of an interactive transaction that holds something already, like
    /// [`prepare`](Self::prepare): Yes brings a redo for everything that the transaction does here, which replaces the
    /// one before; ReadOnly leaves it as it was. After No [`abort`](Self::abort) is called with the redo before, and
    /// the whole transaction can only be aborted: a part of it is nothing.
    ///
    /// Without it a service takes one operation for each transaction.
    ///
    /// # Errors
    ///
    /// `Unavailable`, or a panic, counts as No.
    fn extend(
        &self,
        transaction: TransactionId,
        redo: Bytes,
        operation: Bytes,
    ) -> impl Future<Output = Result<Preparation, ResourceError>> + Send {
        let _ = (transaction, redo, operation);
        ready(Ok(Preparation::No {
            reason: "this service takes one operation for each transaction".to_owned(),
        }))
    }

    /// Makes the effects happen and lets go of the holds. They are durable when it returns. May be called again
    /// for the same transaction, also after a restart: then it changes nothing and returns `Ok`.
    ///
    /// # Errors
    ///
    /// After `Unavailable` it is called again.
    fn commit(
        &self,
        transaction: TransactionId,
        redo: Bytes,
    ) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Lets go of everything held for the transaction, which may be nothing at all: then it returns `Ok`.
    /// The redo is absent if the transaction never said Yes.
    ///
    /// # Errors
    ///
    /// After `Unavailable` it is called again.
    fn abort(
        &self,
        transaction: TransactionId,
        redo: Option<Bytes>,
    ) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Takes the holds of a promise again after a restart, without checking whether it could be promised today.
    /// If the effects have happened already, because a crash came between a `commit` and its record, there is
    /// nothing to hold: `commit` will be called again. The order is the order of the promises. One that was aborted just
    /// before a crash may be among them, beside a newer one of the same thing: aborts are not forced to disk (R4).
    ///
    /// # Errors
    ///
    /// After `Unavailable` it is called again; until it succeeds the participant takes no traffic.
    fn restore(
        &self,
        transaction: TransactionId,
        redo: Bytes,
    ) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// What the resource manager itself keeps prepared over a restart. What is listed here and was never promised
    /// is aborted. A resource manager whose holds are in memory has nothing to list.
    ///
    /// # Errors
    ///
    /// After `Unavailable` it is called again; until it succeeds the participant takes no traffic.
    fn prepared(&self) -> impl Future<Output = Result<Vec<TransactionId>, ResourceError>> + Send {
        ready(Ok(Vec::new()))
    }
}

/// Why a resource manager did not do what it was asked.
#[derive(Debug, Error)]
pub enum ResourceError {
    /// Not now: a connection was refused, a database is restarting. Trying again may help.
    #[error("the resource manager is unavailable: {source}")]
    Unavailable {
        /// What it met.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Its storage is broken: it is not known what is on disk. The participant stops (R10).
    #[error("the resource manager's storage failed: {source}")]
    Failed {
        /// What it met.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ResourceError {
    /// Try again later, because of this.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable {
            source: source.into(),
        }
    }

    /// Stop, because of this.
    pub fn failed(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed {
            source: source.into(),
        }
    }
}

/// A resource manager whose type is forgotten, so that nothing else in this crate is generic over it.
pub(crate) trait AnyResourceManager: Send + Sync + 'static {
    fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> BoxFuture<'_, Result<Preparation, ResourceError>>;
    fn extend(
        &self,
        transaction: TransactionId,
        redo: Bytes,
        operation: Bytes,
    ) -> BoxFuture<'_, Result<Preparation, ResourceError>>;
    fn commit(&self, transaction: TransactionId, redo: Bytes) -> BoxFuture<'_, Result<(), ResourceError>>;
    fn abort(
        &self,
        transaction: TransactionId,
        redo: Option<Bytes>,
    ) -> BoxFuture<'_, Result<(), ResourceError>>;
    fn restore(&self, transaction: TransactionId, redo: Bytes) -> BoxFuture<'_, Result<(), ResourceError>>;
    fn prepared(&self) -> BoxFuture<'_, Result<Vec<TransactionId>, ResourceError>>;
}

impl<R: ResourceManager> AnyResourceManager for R {
    fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> BoxFuture<'_, Result<Preparation, ResourceError>> {
        ResourceManager::prepare(self, transaction, operation).boxed()
    }

    fn extend(
        &self,
        transaction: TransactionId,
        redo: Bytes,
        operation: Bytes,
    ) -> BoxFuture<'_, Result<Preparation, ResourceError>> {
        ResourceManager::extend(self, transaction, redo, operation).boxed()
    }

    fn commit(&self, transaction: TransactionId, redo: Bytes) -> BoxFuture<'_, Result<(), ResourceError>> {
        ResourceManager::commit(self, transaction, redo).boxed()
    }

    fn abort(
        &self,
        transaction: TransactionId,
        redo: Option<Bytes>,
    ) -> BoxFuture<'_, Result<(), ResourceError>> {
        ResourceManager::abort(self, transaction, redo).boxed()
    }

    fn restore(&self, transaction: TransactionId, redo: Bytes) -> BoxFuture<'_, Result<(), ResourceError>> {
        ResourceManager::restore(self, transaction, redo).boxed()
    }

    fn prepared(&self) -> BoxFuture<'_, Result<Vec<TransactionId>, ResourceError>> {
        ResourceManager::prepared(self).boxed()
    }
}
