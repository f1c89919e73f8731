use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use unanimo_participant::{Bytes, Preparation, ResourceError, ResourceManager, TransactionId};

/// A call of the resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Prepare,
    Extend,
    Commit,
    Abort,
    Restore,
}

/// A resource manager that writes down what is called, and what is called that must not be. What it has committed
/// survives a crash, its holds do not.
///
/// The operation says what it does: `yes…`, `no …`, `read`, `panic`, `panic early`, `unavailable`, `broken`,
/// `large <bytes>`.
#[derive(Clone)]
pub(crate) struct Recorder {
    state: Arc<Mutex<State>>,
    /// Calls of these kinds wait.
    held: watch::Sender<BTreeSet<Call>>,
}

#[derive(Default)]
struct State {
    calls: Vec<(Call, TransactionId)>,
    running: BTreeSet<TransactionId>,
    holds: BTreeMap<TransactionId, Bytes>,
    /// How often the effects of each have happened.
    applied: BTreeMap<TransactionId, u32>,
    /// What it lists as prepared by itself.
    listed: Vec<TransactionId>,
    listings: usize,
    /// How many calls of a kind are still to fail.
    failing: BTreeMap<Call, (u32, Failure)>,
    wrong: Vec<String>,
}

#[derive(Clone, Copy)]
enum Failure {
    Unavailable,
    Broken,
    Panic,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            held: watch::Sender::new(BTreeSet::new()),
        }
    }

    /// What is left of it after a crash: what it has committed, and this test's notes.
    pub(crate) fn restart(&self) {
        let mut state = self.lock();
        state.holds.clear();
        state.running.clear();
        state.failing.clear();
        drop(state);
        self.held.send_replace(BTreeSet::new());
    }

    pub(crate) fn hold(&self, call: Call) {
        self.held.send_modify(|held| _ = held.insert(call));
    }

    pub(crate) fn release(&self, call: Call) {
        self.held.send_modify(|held| _ = held.remove(&call));
    }

    pub(crate) fn fail_unavailable(&self, call: Call, times: u32) {
        self.lock().failing.insert(call, (times, Failure::Unavailable));
    }

    pub(crate) fn fail_broken(&self, call: Call) {
        self.lock().failing.insert(call, (1, Failure::Broken));
    }

    pub(crate) fn fail_panicking(&self, call: Call, times: u32) {
        self.lock().failing.insert(call, (times, Failure::Panic));
    }

    pub(crate) fn list_as_prepared(&self, transaction: TransactionId) {
        self.lock().listed.push(transaction);
    }

    /// How often it was asked for what it keeps prepared.
    pub(crate) fn listings(&self) -> usize {
        self.lock().listings
    }

    pub(crate) fn holds(&self) -> Vec<TransactionId> {
        self.lock().holds.keys().copied().collect()
    }

    pub(crate) fn applied(&self, transaction: TransactionId) -> u32 {
        self.lock().applied.get(&transaction).copied().unwrap_or(0)
    }

    pub(crate) fn count(&self, call: Call, transaction: TransactionId) -> usize {
        let called = (call, transaction);
        self.lock().calls.iter().filter(|other| **other == called).count()
    }

    pub(crate) fn calls(&self) -> Vec<(Call, TransactionId)> {
        self.lock().calls.clone()
    }

    /// Everything that was called wrongly. Empty is right.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.lock().wrong.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn begin(&self, call: Call, transaction: TransactionId) -> Result<Running, ResourceError> {
        let failure = {
            let mut state = self.lock();
            state.calls.push((call, transaction));
            if !state.running.insert(transaction) {
                state
                    .wrong
                    .push(format!("{call:?} of {transaction} overlaps another call"));
            }
            match state.failing.get_mut(&call) {
                Some((times, failure)) if *times > 0 => {
                    *times -= 1;
                    Some(*failure)
                }
                Some(_) | None => None,
            }
        };
        let running = Running {
            recorder: self.clone(),
            transaction,
        };
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held.contains(&call)).await.unwrap();
        match failure {
            None => Ok(running),
            Some(Failure::Unavailable) => Err(ResourceError::unavailable("told to be")),
            Some(Failure::Broken) => Err(ResourceError::failed("told to break")),
            Some(Failure::Panic) => panic!("told to panic"),
        }
    }
}

/// A call under way.
struct Running {
    recorder: Recorder,
    transaction: TransactionId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.recorder.lock().running.remove(&self.transaction);
    }
}

impl ResourceManager for Recorder {
    #[allow(clippy::manual_async_fn)]
    fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> impl Future<Output = Result<Preparation, ResourceError>> + Send {
        assert_ne!(
            &operation[..],
            b"panic early",
            "told to panic before the first await"
        );
        async move {
            let _running = self.begin(Call::Prepare, transaction).await?;
            let text = String::from_utf8_lossy(&operation).into_owned();
            let mut state = self.lock();
            if state.applied.contains_key(&transaction) {
                state
                    .wrong
                    .push(format!("{transaction} is prepared after its commit"));
            }
            let held = state.holds.insert(transaction, operation.clone());
            if held.is_some() {
                state.wrong.push(format!("{transaction} is prepared twice"));
            }
            let (kind, rest) = text.split_once(' ').unwrap_or((&text, ""));
            let answer = match kind {
                "yes" => return Ok(Preparation::Yes { redo: operation }),
                "large" => {
                    let redo = Bytes::from(vec![7; rest.parse().unwrap()]);
                    state.holds.insert(transaction, redo.clone());
                    return Ok(Preparation::Yes { redo });
                }
                // These keep what they hold, and have to be aborted.
                "unavailable" => return Err(ResourceError::unavailable("no connection")),
                "broken" => return Err(ResourceError::failed("input/output error")),
                "panic" => {
                    drop(state);
                    panic!("told to panic");
                }
                "read" => Preparation::ReadOnly,
                "no" => Preparation::No {
                    reason: rest.to_owned(),
                },
                other => panic!("no such operation: {other}"),
            };
            state.holds.remove(&transaction);
            Ok(answer)
        }
    }

    async fn extend(
        &self,
        transaction: TransactionId,
        redo: Bytes,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        let _running = self.begin(Call::Extend, transaction).await?;
        let text = String::from_utf8_lossy(&operation).into_owned();
        let mut state = self.lock();
        if state.holds.get(&transaction) != Some(&redo) {
            state
                .wrong
                .push(format!("{transaction} is extended without its hold"));
        }
        let (kind, rest) = text.split_once(' ').unwrap_or((&text, ""));
        Ok(match kind {
            "yes" => {
                let redo = Bytes::from([&redo[..], b", ", &operation[..]].concat());
                state.holds.insert(transaction, redo.clone());
                Preparation::Yes { redo }
            }
            "read" => Preparation::ReadOnly,
            "no" => Preparation::No {
                reason: rest.to_owned(),
            },
            other => panic!("no such operation: {other}"),
        })
    }

    async fn commit(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        let _running = self.begin(Call::Commit, transaction).await?;
        let mut state = self.lock();
        let held = state.holds.remove(&transaction);
        if state.applied.contains_key(&transaction) {
            // The mark of the first time is found: nothing is changed.
            return Ok(());
        }
        if held != Some(redo) {
            state
                .wrong
                .push(format!("{transaction} is committed without its hold"));
        }
        *state.applied.entry(transaction).or_default() += 1;
        Ok(())
    }

    async fn abort(&self, transaction: TransactionId, redo: Option<Bytes>) -> Result<(), ResourceError> {
        let _running = self.begin(Call::Abort, transaction).await?;
        let mut state = self.lock();
        let held = state.holds.remove(&transaction);
        if state.applied.contains_key(&transaction) {
            state
                .wrong
                .push(format!("{transaction} is aborted after its commit"));
        }
        if redo.is_some() && held != redo {
            state
                .wrong
                .push(format!("{transaction} is aborted without its hold"));
        }
        Ok(())
    }

    async fn restore(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        let _running = self.begin(Call::Restore, transaction).await?;
        let mut state = self.lock();
        if !state.applied.contains_key(&transaction) && state.holds.insert(transaction, redo).is_some() {
            state.wrong.push(format!("{transaction} is restored twice"));
        }
        Ok(())
    }

    async fn prepared(&self) -> Result<Vec<TransactionId>, ResourceError> {
        let mut state = self.lock();
        state.listings += 1;
        Ok(state.listed.clone())
    }
}
