//! The resource manager under test, with a place to crash before and after each of its calls.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use unanimo_participant::{Bytes, Preparation, ResourceError, ResourceManager, TransactionId};

/// A call of a resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Prepare,
    Commit,
    Abort,
    Restore,
}

/// A place to crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    Before(Call),
    After(Call),
}

/// Where the next crash is. Outlives the crash.
#[derive(Debug, Default)]
pub(crate) struct Trap {
    armed: Mutex<Option<Point>>,
}

impl Trap {
    pub(crate) fn arm(&self, point: Option<Point>) {
        *self.lock() = point;
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.lock().is_some()
    }

    /// Whether this is the place. Only once.
    fn springs(&self, point: Point) -> bool {
        let mut armed = self.lock();
        let springs = *armed == Some(point);
        if springs {
            *armed = None;
        }
        springs
    }

    fn lock(&self) -> MutexGuard<'_, Option<Point>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The resource manager in one life.
pub(crate) struct Watched<M> {
    pub(crate) manager: Arc<M>,
    pub(crate) trap: Arc<Trap>,
    pub(crate) crashed: watch::Sender<bool>,
}

impl<M> Watched<M> {
    async fn pass(&self, point: Point) {
        if self.trap.springs(point) {
            self.crashed.send_replace(true);
            // Nothing that comes after happens in this life.
            pending::<()>().await;
        }
    }
}

impl<M: ResourceManager> ResourceManager for Watched<M> {
    async fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        self.pass(Point::Before(Call::Prepare)).await;
        let prepared = self.manager.prepare(transaction, operation).await;
        self.pass(Point::After(Call::Prepare)).await;
        prepared
    }

    async fn extend(
        &self,
        transaction: TransactionId,
        redo: Bytes,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        self.manager.extend(transaction, redo, operation).await
    }

    async fn commit(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        self.pass(Point::Before(Call::Commit)).await;
        let committed = self.manager.commit(transaction, redo).await;
        self.pass(Point::After(Call::Commit)).await;
        committed
    }

    async fn abort(&self, transaction: TransactionId, redo: Option<Bytes>) -> Result<(), ResourceError> {
        self.pass(Point::Before(Call::Abort)).await;
        let aborted = self.manager.abort(transaction, redo).await;
        self.pass(Point::After(Call::Abort)).await;
        aborted
    }

    async fn restore(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        self.pass(Point::Before(Call::Restore)).await;
        let restored = self.manager.restore(transaction, redo).await;
        self.pass(Point::After(Call::Restore)).await;
        restored
    }

    async fn prepared(&self) -> Result<Vec<TransactionId>, ResourceError> {
        self.manager.prepared().await
    }
}
