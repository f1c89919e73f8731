use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use futures::channel::oneshot;

use crate::{Table, TableError};

type Callback = Box<dyn FnOnce(Result<(), TableError>) + Send>;
type FailureHook = Box<dyn FnOnce(TableError) + Send>;

/// Lets many callers share one checkpoint: while one is being written, everybody who arrives waits for the
/// next, and one checkpoint answers them all.
///
/// A clone is another handle. Nothing happens until the [`CheckpointWriter`] is driven, by a thread of its
/// own ([`spawn`](CheckpointWriter::spawn)) or step by step in a simulation. The queue has no bound of its
/// own: it holds one callback for each change that its caller has applied and not yet answered, and callers
/// bound those.
///
/// The first failed checkpoint is final (R10): everybody who waits or comes later gets the same error.
#[derive(Clone)]
pub struct Checkpointer {
    // The last handle closes the queue, so that the writer's thread ends by itself.
    handle: Arc<Handle>,
}

/// Writes the checkpoints that a [`Checkpointer`] asks for. Dropping it fails everybody who waits.
pub struct CheckpointWriter {
    table: Arc<dyn Table>,
    queue: Arc<Queue>,
}

/// What one [`CheckpointWriter::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointStep {
    /// Nobody was waiting.
    Idle,
    /// One checkpoint was written and answered so many callers.
    Written {
        /// How many callers shared it.
        callers: usize,
    },
    /// The checkpoint failed, or an earlier one had. There is nothing more to do.
    Failed,
    /// The checkpointer is closed and everybody has been answered. There is nothing more to do.
    Closed,
}

struct Handle {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiter>,
    hooks: Vec<FailureHook>,
    phase: Phase,
}

#[derive(Default, Clone)]
enum Phase {
    #[default]
    Open,
    /// No more callers are accepted; those who wait still get their checkpoint.
    Closing,
    /// Nobody writes any more: every caller gets this error.
    Over(TableError),
}

impl Checkpointer {
    /// A handle, and the writer that must be driven for anything to happen.
    pub fn new(table: Arc<dyn Table>) -> (Self, CheckpointWriter) {
        let queue = Arc::new(Queue::default());
        let handle = Arc::new(Handle {
            queue: Arc::clone(&queue),
        });
        (Self { handle }, CheckpointWriter { table, queue })
    }

    /// Calls back when everything that was applied before this call is on disk. Callbacks run on the writer's
    /// thread in the order of the calls, so they must be short and must not block. A call that comes too late
    /// is answered at once, on the caller's thread.
    ///
    /// After an error it is unknown whether what was applied is durable.
    pub fn durable(&self, callback: impl FnOnce(Result<(), TableError>) + Send + 'static) {
        let refused = {
            let mut state = self.handle.queue.lock();
            match state.phase.clone() {
                Phase::Open => {
                    state.waiting.push_back(Waiter {
                        callback: Some(Box::new(callback)),
                    });
                    self.handle.queue.changed.notify_one();
                    return;
                }
                Phase::Closing => TableError::Closed,
                Phase::Over(error) => error,
            }
        };
        callback(Err(refused));
    }

    /// The same as a future, which may be dropped at any time. The place in the queue is taken by this call,
    /// not by the first poll.
    ///
    /// # Errors
    ///
    /// Those of [`Table::checkpoint`], and [`TableError::Closed`].
    pub fn wait_durable(&self) -> impl Future<Output = Result<(), TableError>> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        self.durable(move |result| {
            // The receiver may be gone: its caller was cancelled and wants no answer.
            let _ = sender.send(result);
        });
        async move { receiver.await.unwrap_or(Err(TableError::Closed)) }
    }

    /// Calls the hook once, when the first checkpoint fails or has failed already. The process must stop
    /// serving. Hooks run before anybody hears of the failure.
    pub fn on_failure(&self, hook: impl FnOnce(TableError) + Send + 'static) {
        let error = {
            let mut state = self.handle.queue.lock();
            match &state.phase {
                Phase::Over(error @ TableError::Failed { .. }) => error.clone(),
                Phase::Open | Phase::Closing | Phase::Over(_) => {
                    state.hooks.push(Box::new(hook));
                    return;
                }
            }
        };
        hook(error);
    }

    /// Accepts no more callers. Those who wait get their checkpoint, then the writer ends.
    pub fn close(&self) {
        self.handle.queue.close();
    }
}

impl CheckpointWriter {
    /// Drives the writer on a thread of its own until the checkpointer is closed (or its last handle dropped)
    /// or a checkpoint fails.
    ///
    /// # Errors
    ///
    /// If the operating system gives no thread. Everybody who waits gets [`TableError::Closed`].
    pub fn spawn(self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("table-checkpoint".to_owned())
            .spawn(move || self.run())
    }

    /// Drives the writer on this thread, as [`spawn`](Self::spawn) does.
    pub fn run(mut self) {
        loop {
            match self.step() {
                CheckpointStep::Written { .. } => {}
                CheckpointStep::Idle => self.queue.wait_for_work(),
                CheckpointStep::Failed | CheckpointStep::Closed => return,
            }
        }
    }

    /// Writes one checkpoint if anybody waits for one, and answers. Waits for nothing but the disk.
    pub fn step(&mut self) -> CheckpointStep {
        let callers = {
            let mut state = self.queue.lock();
            match state.phase {
                Phase::Over(TableError::Closed) => return CheckpointStep::Closed,
                Phase::Over(_) => return CheckpointStep::Failed,
                Phase::Closing if state.waiting.is_empty() => {
                    state.phase = Phase::Over(TableError::Closed);
                    return CheckpointStep::Closed;
                }
                Phase::Open if state.waiting.is_empty() => return CheckpointStep::Idle,
                Phase::Open | Phase::Closing => std::mem::take(&mut state.waiting),
            }
        };
        // They all have applied before they came, so a checkpoint that starts now covers every one of them.
        // Who comes from here on waits for the next.
        match self.table.checkpoint() {
            Ok(()) => {
                let count = callers.len();
                answer(callers, &Ok(()));
                CheckpointStep::Written { callers: count }
            }
            Err(error) => {
                let late = self.queue.fail(&error);
                answer(callers, &Err(error.clone()));
                answer(late, &Err(error));
                CheckpointStep::Failed
            }
        }
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        // Nobody is left to write, so nobody may be left waiting. Also the way out after a panic in a
        // callback.
        let waiting = {
            let mut state = self.queue.lock();
            if !matches!(state.phase, Phase::Over(_)) {
                state.phase = Phase::Over(TableError::Closed);
            }
            std::mem::take(&mut state.waiting)
        };
        answer(waiting, &Err(TableError::Closed));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closing;
            self.changed.notify_one();
        }
    }

    /// Blocks while the queue is open and empty.
    fn wait_for_work(&self) {
        let state = self.lock();
        let idle = |state: &mut State| state.waiting.is_empty() && matches!(state.phase, Phase::Open);
        drop(
            self.changed
                .wait_while(state, idle)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Makes the failure final, tells the hooks, and returns who arrived while the checkpoint was written.
    fn fail(&self, error: &TableError) -> VecDeque<Waiter> {
        let (hooks, late) = {
            let mut state = self.lock();
            state.phase = Phase::Over(error.clone());
            (
                std::mem::take(&mut state.hooks),
                std::mem::take(&mut state.waiting),
            )
        };
        for hook in hooks {
            hook(error.clone());
        }
        late
    }
}

fn answer(callers: VecDeque<Waiter>, result: &Result<(), TableError>) {
    for caller in callers {
        caller.answer(result.clone());
    }
}

/// A callback that is called exactly once, whatever happens: whoever waited for it would wait for ever.
struct Waiter {
    callback: Option<Callback>,
}

impl Waiter {
    fn answer(mut self, result: Result<(), TableError>) {
        if let Some(callback) = self.callback.take() {
            callback(result);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // Not answered: another callback has panicked, or the writer is gone.
        if let Some(callback) = self.callback.take() {
            callback(Err(TableError::Closed));
        }
    }
}

impl fmt::Debug for Checkpointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.handle.queue.lock().waiting.len();
        formatter
            .debug_struct("Checkpointer")
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CheckpointWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CheckpointWriter").finish_non_exhaustive()
    }
}
