use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::StopReason;
use crate::error::Refusal;

/// Whether the participant serves. Only ever moves on: recovering, serving, stopping, stopped.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    Recovering,
    Serving,
    /// No new calls; what runs may finish.
    Stopping,
    /// Nothing is answered and nothing is started any more.
    Stopped(StopReason),
}

/// Runs a task in the background. If it panics the participant stops.
pub(crate) fn spawn_watched(
    gate: &Arc<Gate>,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(watched(gate, task))
}

/// A task that nobody waits for. If it panics the participant stops: nobody would do its work any more, and branches in
/// doubt that nobody asks about stay so.
pub(crate) fn watched<F: Future<Output = ()>>(
    gate: &Arc<Gate>,
    task: F,
) -> impl Future<Output = ()> + use<F> {
    let watched = Watched(Arc::clone(gate));
    async move {
        let _watched = watched;
        task.await;
    }
}

struct Watched(Arc<Gate>);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close(StopReason::Broken);
        }
    }
}

/// Holds the [`Standing`], and everybody looks at it before they act.
pub(crate) struct Gate {
    standing: watch::Sender<Standing>,
    /// Whether the cluster has confirmed since this start that our memory is whole.
    registered: watch::Sender<bool>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            standing: watch::Sender::new(Standing::Recovering),
            registered: watch::Sender::new(false),
        }
    }

    /// Lets a call in, or says why not.
    pub(crate) fn admit(&self) -> Result<(), Refusal> {
        match &*self.standing.borrow() {
            Standing::Recovering => Err(Refusal::Recovering),
            Standing::Serving => Ok(()),
            Standing::Stopping => Err(Refusal::ShuttingDown),
            Standing::Stopped(reason) => Err(Refusal::Stopped(reason.clone())),
        }
    }

    /// Lets work on a branch go on, or says why not.
    pub(crate) fn go_on(&self) -> Result<(), Refusal> {
        match &*self.standing.borrow() {
            Standing::Recovering | Standing::Serving | Standing::Stopping => Ok(()),
            Standing::Stopped(reason) => Err(Refusal::Stopped(reason.clone())),
        }
    }

    /// Lets somebody make a promise under a new transaction, or says why not.
    pub(crate) fn admit_new(&self) -> Result<(), Refusal> {
        if self.is_registered() {
            Ok(())
        } else {
            Err(Refusal::Unregistered)
        }
    }

    /// The cluster knows where we are, and that we know all we have ever promised; that it does is on disk.
    pub(crate) fn register(&self) {
        self.registered.send_replace(true);
    }

    pub(crate) fn is_registered(&self) -> bool {
        *self.registered.borrow()
    }

    /// Resolves when the cluster has confirmed it.
    pub(crate) async fn registered(&self) {
        // Fails only if the sender is gone, and it is ours.
        let _ = self
            .registered
            .subscribe()
            .wait_for(|registered| *registered)
            .await;
    }

    /// Recovery is over.
    pub(crate) fn serve(&self) {
        self.standing.send_if_modified(|standing| {
            let recovering = matches!(standing, Standing::Recovering);
            if recovering {
                *standing = Standing::Serving;
            }
            recovering
        });
    }

    /// A shutdown begins.
    pub(crate) fn stop(&self) {
        self.standing.send_if_modified(|standing| {
            let running = matches!(standing, Standing::Recovering | Standing::Serving);
            if running {
                *standing = Standing::Stopping;
            }
            running
        });
    }

    /// Nothing goes on from here. The first reason stays.
    pub(crate) fn close(&self, reason: StopReason) {
        self.standing.send_if_modified(|standing| {
            let first = !matches!(standing, Standing::Stopped(_));
            if first {
                if !matches!(reason, StopReason::Shutdown) {
                    tracing::error!(%reason, "the participant stops");
                }
                *standing = Standing::Stopped(reason);
            }
            first
        });
    }

    /// Resolves when a shutdown begins or the participant has stopped.
    pub(crate) async fn stopping(&self) {
        let ended = |standing: &Standing| matches!(standing, Standing::Stopping | Standing::Stopped(_));
        // Fails only if the sender is gone, and it is ours.
        let _ = self.standing.subscribe().wait_for(ended).await;
    }

    /// Resolves when nothing is answered any more, with the reason.
    pub(crate) async fn stopped(&self) -> StopReason {
        let mut standing = self.standing.subscribe();
        let stopped = standing
            .wait_for(|standing| matches!(standing, Standing::Stopped(_)))
            .await;
        match stopped.as_deref() {
            Ok(Standing::Stopped(reason)) => reason.clone(),
            Ok(Standing::Recovering | Standing::Serving | Standing::Stopping) | Err(_) => {
                StopReason::Shutdown
            }
        }
    }

    /// Where it stands now.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_stops_the_participant_and_one_that_ends_does_not() {
        let gate = Arc::new(Gate::new());
        gate.serve();
        let (sender, ended) = tokio::sync::oneshot::channel::<()>();
        spawn_watched(&gate, async move {
            drop(sender);
        });
        assert!(ended.await.is_err());
        gate.admit().unwrap();
        spawn_watched(&gate, async { panic!("an assertion of ours") });
        let stopped = tokio::time::timeout(std::time::Duration::from_secs(10), gate.stopped());
        assert!(matches!(stopped.await.unwrap(), StopReason::Broken));
        assert!(gate.admit().is_err());
    }
}
