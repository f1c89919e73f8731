//! The resource manager under test, with a place to crash before and after each of its calls.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use unanimo_participant::{Bytes, Preparation, ResourceError, ResourceManager, TransactionId};

/// A call of a resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Prepare,
    Commit,
    Abort,
    Restore,
    Prepared,
}

/// A place to crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    Before(Call),
    After(Call),
}

/// Where the next crash is, and where a call is to wait. Outlives the crash.
#[derive(Debug, Default)]
pub(crate) struct Trap {
    armed: Mutex<Option<Point>>,
    gate: Mutex<Option<Arc<Gate>>>,
}

/// Holds a call at a point until it is let go.
#[derive(Debug)]
pub(crate) struct Gate {
    point: Point,
    reached: Notify,
    opened: Notify,
}

impl Gate {
    pub(crate) fn at(point: Point) -> Arc<Self> {
        let (reached, opened) = (Notify::new(), Notify::new());
        Arc::new(Self {
            point,
            reached,
            opened,
        })
    }

    /// Returns when a call is held here.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets the call go on.
    pub(crate) fn open(&self) {
        self.opened.notify_one();
    }
}

impl Trap {
    pub(crate) fn arm(&self, point: Option<Point>) {
        *self.lock() = point;
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.lock().is_some()
    }

    /// The next call that passes this gate's point waits there; none: no call waits.
    pub(crate) fn hold(&self, gate: Option<Arc<Gate>>) {
        *self.gate.lock().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    /// The gate here. Only once.
    fn gate(&self, point: Point) -> Option<Arc<Gate>> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.take_if(|gate| gate.point == point)
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
        if let Some(gate) = self.trap.gate(point) {
            gate.reached.notify_one();
            gate.opened.notified().await;
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
        self.pass(Point::Before(Call::Prepared)).await;
        let prepared = self.manager.prepared().await;
        self.pass(Point::After(Call::Prepared)).await;
        prepared
    }
}
