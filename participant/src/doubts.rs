use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use unanimo_core::mutants::{self, Mutant};
use unanimo_core::{Timestamp, TransactionId};
use unanimo_proto::Inquiry;

/// The first pause of a branch whose inquiry was refused, if it would have waited for less.
const SHORTEST_REFUSED: Duration = Duration::from_millis(100);

/// The branches in doubt, and when each is to be asked about.
pub(crate) struct Doubts {
    /// A branch that is in doubt for so long asks.
    patience: Duration,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    doubts: BTreeMap<TransactionId, Doubt>,
    /// What branches want to ask, until the next call takes it along.
    questions: Vec<Inquiry>,
}

struct Doubt {
    /// When the promise was made, by the wall clock.
    since: Timestamp,
    /// When to ask next.
    due: Instant,
    /// How often in a row its inquiry was refused.
    refusals: u32,
}

impl Doubts {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            state: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// A branch has promised just now.
    pub(crate) fn arrived(&self, transaction: TransactionId, since: Timestamp) {
        self.insert(transaction, since, Instant::now() + self.patience);
    }

    /// A branch was found in doubt at recovery: it has waited long enough.
    pub(crate) fn recovered(&self, transaction: TransactionId, since: Timestamp) {
        self.insert(transaction, since, Instant::now());
    }

    fn insert(&self, transaction: TransactionId, since: Timestamp, due: Instant) {
        let mut state = self.lock();
        // Who waits for the next one to be due need not hear of a later one.
        let is_first = state.doubts.is_empty();
        let doubt = Doubt {
            since,
            due,
            refusals: 0,
        };
        state.doubts.insert(transaction, doubt);
        drop(state);
        if is_first {
            self.arrived.notify_one();
        }
    }

    /// The decision is known.
    pub(crate) fn resolved(&self, transaction: TransactionId) {
        self.lock().doubts.remove(&transaction);
    }

    /// Its inquiry was refused: it asks again after a pause that doubles each time, up to the longest. True if it was
    /// not refused before.
    pub(crate) fn refused(&self, transaction: TransactionId, longest: Duration) -> bool {
        let mut state = self.lock();
        let Some(doubt) = state.doubts.get_mut(&transaction) else {
            return false;
        };
        let first = self.patience.max(SHORTEST_REFUSED);
        let pause = first.saturating_mul(2_u32.saturating_pow(doubt.refusals));
        doubt.due = Instant::now() + pause.min(longest);
        doubt.refusals += 1;
        doubt.refusals == 1
    }

    /// The branch that a Commit for this transaction is for.
    pub(crate) fn meant_by(&self, transaction: TransactionId) -> TransactionId {
        if mutants::is_on(Mutant::M15) {
            let state = self.lock();
            let oldest = state.doubts.first_key_value().map(|(oldest, _)| *oldest);
            return oldest
                .filter(|_| !state.doubts.contains_key(&transaction))
                .unwrap_or(transaction);
        }
        transaction
    }

    /// Somebody is at work on it.
    pub(crate) fn taken_up(&self, transaction: TransactionId) {
        if let Some(doubt) = self.lock().doubts.get_mut(&transaction) {
            doubt.refusals = 0;
        }
    }

    /// A branch asks.
    pub(crate) fn ask(&self, question: Inquiry) {
        self.lock().questions.push(question);
    }

    /// What has been asked since the last call.
    pub(crate) fn questions(&self) -> Vec<Inquiry> {
        std::mem::take(&mut self.lock().questions)
    }

    /// Resolves when some branch is due. May be dropped: nothing is lost.
    pub(crate) async fn some_due(&self) {
        loop {
            let next = {
                let state = self.lock();
                state.doubts.values().map(|doubt| doubt.due).min()
            };
            match next {
                None => self.arrived.notified().await,
                Some(due) if due <= Instant::now() => return,
                // One that arrives meanwhile may be due before one that was put off.
                Some(due) => tokio::time::sleep_until(due.min(Instant::now() + self.patience)).await,
            }
        }
    }

    /// Every branch that is due, put off until `again` at the same time.
    pub(crate) fn take_due(&self, again: Instant) -> Vec<TransactionId> {
        let now = Instant::now();
        let mut state = self.lock();
        let due = state.doubts.iter_mut().filter(|(_, doubt)| doubt.due <= now);
        due.map(|(transaction, doubt)| {
            doubt.due = again;
            *transaction
        })
        .collect()
    }

    /// How many there are, and since when the oldest.
    pub(crate) fn survey(&self) -> (usize, Option<Timestamp>) {
        let state = self.lock();
        let oldest = state.doubts.values().map(|doubt| doubt.since).min();
        (state.doubts.len(), oldest)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
