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
        Writing::Threads => joined(tokio::task::spawn_blocking(work).await),
        Writing::Tasks | Writing::SlowTasks(_) => work(),
    }
}

/// What a blocking task returned; its panic goes on here.
pub(crate) fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
