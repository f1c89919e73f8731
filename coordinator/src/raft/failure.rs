//! The first failure of a replica, told to whoever has to stop the process (R10).

use std::fmt::Display;
use std::sync::Arc;

use tokio::sync::watch;

/// Told once; what comes later is a consequence.
#[derive(Clone)]
pub(super) struct Failure {
    first: Arc<watch::Sender<Option<String>>>,
}

impl Failure {
    pub(super) fn new() -> Self {
        Self {
            first: Arc::new(watch::Sender::new(None)),
        }
    }

    /// The replica has failed. May be called from any thread.
    pub(super) fn tell(&self, reason: impl Display) {
        self.first.send_if_modified(|first| {
            if first.is_some() {
                return false;
            }
            tracing::error!(%reason, "the replica has failed and serves nothing more");
            *first = Some(reason.to_string());
            true
        });
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.first.subscribe()
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.first.borrow().clone()
    }
}
