use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use unanimo_core::{Operation, Resolution, TransactionId};

use crate::gate::Gate;
use crate::pause::{Jitter, Pauses};
use crate::resource::AnyResourceManager;
use crate::statistics::Counters;
use crate::{ParticipantOptions, Preparation, ResourceError, StopReason};

/// The pause before the first repetition: a lock that is held a moment too long is worth no more.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest reason of a No: it stands in the journal and in the branch table, and travels to the initiator.
const REASON_BYTES: usize = 1024;

/// Calls the resource manager, and deals with its errors and panics so that nobody else has to.
pub(crate) struct ResourceCalls {
    manager: Arc<dyn AnyResourceManager>,
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    jitter: Arc<Jitter>,
    redo_bytes: usize,
    retry_pause_max: Duration,
}

/// A call that did not succeed.
enum Trouble {
    /// It may be repeated.
    Passing(String),
    /// The participant has stopped.
    Final,
}

impl ResourceCalls {
    pub(crate) fn new(
        manager: Arc<dyn AnyResourceManager>,
        options: &ParticipantOptions,
        gate: Arc<Gate>,
        counters: Arc<Counters>,
        jitter: Arc<Jitter>,
    ) -> Self {
        Self {
            manager,
            gate,
            counters,
            jitter,
            redo_bytes: options.redo_bytes,
            retry_pause_max: options.retry_pause_max,
        }
    }

    /// Prepares. None if the participant stops; then nothing may be concluded.
    pub(crate) async fn prepare(
        &self,
        transaction: TransactionId,
        operation: &Operation,
    ) -> Option<Resolution> {
        // Inside a block of its own, so that a panic before the first await is caught as well.
        let call = async { self.manager.prepare(transaction, operation.to_shared()).await };
        let reason = match self.attempt(transaction, "prepare", call).await {
            Ok(Preparation::Yes { redo }) if redo.len() > self.redo_bytes => {
                let reason = self.too_long(&redo);
                self.abort(transaction, Some(redo)).await?;
                reason
            }
            Ok(Preparation::Yes { redo }) => return Some(Resolution::Yes { redo }),
            Ok(Preparation::ReadOnly) => return Some(Resolution::ReadOnly),
            Ok(Preparation::No { reason }) => reason,
            Err(Trouble::Passing(reason)) => {
                // It may hold anything by now.
                self.abort(transaction, None).await?;
                reason
            }
            Err(Trouble::Final) => return None,
        };
        Some(Resolution::No {
            reason: shortened(reason),
        })
    }

    /// Adds an operation to what is held with this redo. After a No the caller lets go of everything. None if the
    /// participant stops; then nothing may be concluded.
    pub(crate) async fn extend(
        &self,
        transaction: TransactionId,
        redo: &Bytes,
        operation: &Operation,
    ) -> Option<Resolution> {
        let (redo, operation) = (redo.clone(), operation.to_shared());
        let call = async { self.manager.extend(transaction, redo, operation).await };
        let reason = match self.attempt(transaction, "extend", call).await {
            Ok(Preparation::Yes { redo }) if redo.len() > self.redo_bytes => self.too_long(&redo),
            Ok(Preparation::Yes { redo }) => return Some(Resolution::Yes { redo }),
            Ok(Preparation::ReadOnly) => return Some(Resolution::ReadOnly),
            Ok(Preparation::No { reason }) | Err(Trouble::Passing(reason)) => reason,
            Err(Trouble::Final) => return None,
        };
        Some(Resolution::No {
            reason: shortened(reason),
        })
    }

    fn too_long(&self, redo: &Bytes) -> String {
        format!(
            "the resource manager's redo has {} bytes, the limit of this participant is {}",
            redo.len(),
            self.redo_bytes
        )
    }

    /// Commits, however often it takes. None if the participant stops.
    pub(crate) async fn commit(&self, transaction: TransactionId, redo: &Bytes) -> Option<()> {
        let call = || self.manager.commit(transaction, redo.clone());
        self.insist(transaction, "commit", call).await
    }

    /// Lets go, however often it takes. None if the participant stops.
    pub(crate) async fn abort(&self, transaction: TransactionId, redo: Option<Bytes>) -> Option<()> {
        let call = || self.manager.abort(transaction, redo.clone());
        self.insist(transaction, "abort", call).await
    }

    /// Takes holds again, however often it takes. None if the participant stops.
    pub(crate) async fn restore(&self, transaction: TransactionId, redo: &Bytes) -> Option<()> {
        let call = || self.manager.restore(transaction, redo.clone());
        self.insist(transaction, "restore", call).await
    }

    /// What the resource manager keeps prepared by itself. None if the participant stops.
    pub(crate) async fn prepared(&self) -> Option<Vec<TransactionId>> {
        self.insist("all", "list", || self.manager.prepared()).await
    }

    /// Repeats a call until it succeeds or the participant stops.
    async fn insist<'a, T>(
        &'a self,
        transaction: impl std::fmt::Display + Copy,
        what: &'static str,
        call: impl Fn() -> BoxFuture<'a, Result<T, ResourceError>>,
    ) -> Option<T> {
        let mut pauses = Pauses::new(FIRST_PAUSE, self.retry_pause_max);
        loop {
            let pause = match self.attempt(transaction, what, async { call().await }).await {
                Ok(done) => return Some(done),
                Err(Trouble::Passing(_)) => pauses.next(&self.jitter),
                Err(Trouble::Final) => return None,
            };
            // Either may be dropped: the sleep has no effect, and the gate keeps its state.
            tokio::select! {
                () = self.gate.stopping() => return None,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Calls once. A panic of the resource manager is its trouble, not that of other transactions.
    async fn attempt<T>(
        &self,
        transaction: impl std::fmt::Display,
        what: &'static str,
        call: impl Future<Output = Result<T, ResourceError>>,
    ) -> Result<T, Trouble> {
        // A call that is dropped here is one that a crash would have cut off: recovery takes care of it.
        let called = tokio::select! {
            biased;
            called = AssertUnwindSafe(call).catch_unwind() => called,
            _ = self.gate.stopped() => return Err(Trouble::Final),
        };
        let trouble = match called {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(ResourceError::Unavailable { source })) => {
                format!("the resource manager is unavailable: {source}")
            }
            Ok(Err(ResourceError::Failed { source })) => {
                let source = source.into();
                self.gate.close(StopReason::ResourceManagerFailed { source });
                return Err(Trouble::Final);
            }
            Err(panic) => format!("the resource manager panicked: {}", panic_text(panic.as_ref())),
        };
        self.counters.resource_manager_errors.increment();
        tracing::warn!(tx = %transaction, call = what, error = %trouble, "a call of the resource manager failed");
        Err(Trouble::Passing(trouble))
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_BYTES {
        let boundary = (0..=REASON_BYTES).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(boundary.unwrap_or(0));
        reason.push('…');
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(shortened("insufficient funds".to_owned()), "insufficient funds");
        let cut = shortened(format!("x{}", "ä".repeat(1000)));
        assert_eq!(cut.len(), 1 + 511 * 2 + "…".len());
        assert!(cut.ends_with("ä…"));
    }
}
