use std::sync::Arc;

use tokio::sync::mpsc;
use unanimo_core::{BranchInput, Generation, TransactionId};

use crate::branches::{Branches, Completion};
use crate::entry::Asker;
use crate::gate::Gate;
use crate::store::Store;
use crate::{StopReason, Writing};

/// Gives branches what the journal's writer has to tell. One task, so that the writer never waits for a branch.
pub(crate) async fn hear(
    mut completed: mpsc::UnboundedReceiver<Completion>,
    branches: Arc<Branches>,
    gate: Arc<Gate>,
) {
    loop {
        // Whatever is heard is dealt with at once; nothing is lost when the gate wins, for it is closed then.
        let completion = tokio::select! {
            biased;
            completion = completed.recv() => completion,
            _ = gate.stopped() => None,
        };
        match completion {
            Some(Completion::Recorded(transaction)) => {
                branches.step(transaction, BranchInput::Recorded, Asker::Nobody);
            }
            Some(Completion::Barrier(heard)) => _ = heard.send(()),
            None => return,
        }
    }
}

/// Moves finished branches from memory to the branch table, many at a time.
pub(crate) async fn remember(store: Arc<Store>, branches: Arc<Branches>, gate: Arc<Gate>, writing: Writing) {
    loop {
        // Both only wait.
        tokio::select! {
            () = gate.stopping() => return,
            () = store.progress() => {}
        }
        loop {
            let remembering = Arc::clone(&store);
            match blocking(writing, move || remembering.remember()).await {
                Ok(transactions) if transactions.is_empty() => break,
                Ok(transactions) => branches.remembered(&transactions),
                Err(reason) => return gate.close(reason),
            }
        }
    }
}

/// Forgets what the coordinators have closed, at most once per pause (R7): first the watermark is made durable, then
/// finished branches below it leave the branch table, then the journal lets go of their records. Only in a life that
/// the cluster has confirmed.
pub(crate) async fn forget(
    store: Arc<Store>,
    branches: Arc<Branches>,
    gate: Arc<Gate>,
    generation: Generation,
    writing: Writing,
) {
    let mut watermark = branches.watermark();
    tokio::select! {
        () = gate.stopping() => return,
        () = gate.registered() => {}
    }
    loop {
        let below = *watermark.borrow_and_update();
        if let Some(below) = below {
            let forgotten = tokio::select! {
                () = gate.stopping() => return,
                forgotten = forget_below(&store, &branches, generation, below, writing) => forgotten,
            };
            if let Err(reason) = forgotten {
                return gate.close(reason);
            }
        }
        tokio::select! {
            () = gate.stopping() => return,
            // Fails only if the sender is gone, and we hold it.
            _ = watermark.changed() => {}
        }
        // What becomes closed meanwhile is forgotten together.
        tokio::select! {
            () = gate.stopping() => return,
            () = tokio::time::sleep(branches.options.forget_pause) => {}
        }
    }
}

/// May be dropped: what is left is forgotten another time.
async fn forget_below(
    store: &Arc<Store>,
    branches: &Branches,
    generation: Generation,
    below: TransactionId,
    writing: Writing,
) -> Result<(), StopReason> {
    store
        .close_below(&branches.options.cluster, generation, below)
        .await?;
    let mut from = Some(Vec::new());
    while let Some(key) = from {
        let dropping = Arc::clone(store);
        from = blocking(writing, move || dropping.drop_closed(&key)).await?;
    }
    store.release_closed();
    Ok(())
}

/// Runs what blocks where it holds up nobody, or in place in a simulation.
pub(crate) async fn blocking<T: Send + 'static>(
    writing: Writing,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match writing {
        Writing::Threads => aside(work).await,
        Writing::Tasks | Writing::SlowTasks(_) => work(),
    }
}

/// Runs what blocks on a thread for such work; its panic goes on here. A runtime that shuts down takes no more of it, and is
/// about to drop whoever waits.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Says when the task that has it ends, and whether by a panic.
    struct Ends(mpsc::Sender<bool>);

    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.0.send(thread::panicking());
        }
    }

    #[test]
    fn who_has_work_for_a_runtime_that_shuts_down_does_not_panic() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let (ended, has_ended) = mpsc::channel();
        runtime.spawn(async move {
            let _ends = Ends(ended);
            begun.send(()).unwrap();
            // The worker stays in here while the runtime is told to shut down.
            may_go_on.recv().unwrap();
            blocking(Writing::Threads, || ()).await;
        });
        has_begun.recv().unwrap();
        runtime.shutdown_background();
        go_on.send(()).unwrap();
        assert!(!has_ended.recv().unwrap(), "it panicked");
    }

    #[tokio::test]
    #[should_panic(expected = "on a thread of its own")]
    async fn a_panic_goes_on_where_the_work_is_waited_for() {
        blocking(Writing::Threads, || panic!("on a thread of its own")).await;
    }
}
