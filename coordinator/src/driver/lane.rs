//! The way of decisions to each participant: many at a time while it answers, and one probe now and then for all of
//! them while it is away.
//!
//! However many decisions wait for a participant that is away, it costs the same few calls. They take turns, so that
//! one that it cannot carry out keeps no other waiting. So many of them wait in memory; the rest is left to the table,
//! and looked for there when the participant is back.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};
use unanimo_core::{Members, ParticipantId};

use super::participants::Participants;

/// Decisions on their way to one participant at once. More than a gRPC connection carries at a time.
const AT_ONCE: usize = 256;
/// Decisions that wait in memory for one participant that is away, at most: a few MiB, and work for a moment when it
/// is back, while the others are read from the table.
const WAITING: usize = 1024;

/// The lanes of all participants that were told something.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: Mutex<BTreeMap<ParticipantId, Arc<Lane>>>,
    returned: Arc<Notify>,
}

impl Lanes {
    pub(super) fn of(&self, participant: &ParticipantId) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(participant) {
            return Arc::clone(lane);
        }
        let lane = Arc::new(Lane::new(Arc::clone(&self.returned)));
        lanes.insert(participant.clone(), Arc::clone(&lane));
        lane
    }

    /// Whether a decision could be on its way to any of these now. What is not is looked for again when one of them is
    /// back.
    pub(super) fn take_any(&self, participants: &Members) -> bool {
        // All are looked at: each that is full has to remember that something is left.
        let full = participants.iter().filter(|member| self.of(member).is_full());
        full.count() < participants.len()
    }

    /// Told whenever a participant is back for which something was left to the table.
    pub(super) fn returned(&self) -> Arc<Notify> {
        Arc::clone(&self.returned)
    }
}

/// The way to one participant.
pub(super) struct Lane {
    state: Mutex<State>,
    /// Who holds it asks next while the participant is away. Fair: each that waits has its turn.
    next: tokio::sync::Mutex<()>,
    places: Semaphore,
    back: Notify,
    returned: Arc<Notify>,
}

#[derive(Default)]
struct State {
    away: Option<Away>,
    /// How many calls it has answered.
    answers: u64,
    /// Who waits for a turn.
    waiting: usize,
    /// Something was left to the table.
    left: bool,
}

struct Away {
    probes: u32,
    next_probe: Instant,
}

/// Leave to make one call.
pub(super) struct Turn<'a> {
    lane: &'a Lane,
    answers_before: u64,
    /// None for a probe.
    _place: Option<SemaphorePermit<'a>>,
}

/// Counts who waits, however the waiting ends.
struct Waiting<'a>(&'a Lane);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

impl Lane {
    fn new(returned: Arc<Notify>) -> Self {
        Self {
            state: Mutex::default(),
            next: tokio::sync::Mutex::new(()),
            places: Semaphore::new(AT_ONCE),
            back: Notify::new(),
            returned,
        }
    }

    /// Waits until a call may be made; none if too many wait already. May be dropped at any time.
    pub(super) async fn turn(&self) -> Option<Turn<'_>> {
        self.state().waiting += 1;
        let _waiting = Waiting(self);
        loop {
            {
                let mut state = self.state();
                if state.away.is_some() && state.waiting > WAITING {
                    state.left = true;
                    return None;
                }
            }
            if !self.is_away() {
                let place = self.places.acquire().await.ok()?;
                let state = self.state();
                if state.away.is_none() {
                    return Some(Turn {
                        lane: self,
                        answers_before: state.answers,
                        _place: Some(place),
                    });
                }
                continue;
            }
            let _next = self.next.lock().await;
            // Looked at before the state, so that no return is missed.
            let mut back = pin!(self.back.notified());
            back.as_mut().enable();
            let Some(at) = self.state().away.as_ref().map(|away| away.next_probe) else {
                continue;
            };
            // Both only wait.
            tokio::select! {
                () = sleep_until(at) => {}
                () = back => continue,
            }
            let mut state = self.state();
            let answers_before = state.answers;
            let Some(away) = &mut state.away else { continue };
            // From its beginning: a call that hangs must not keep the next one waiting for its end.
            away.next_probe = Instant::now() + Participants::pause(away.probes);
            away.probes = away.probes.saturating_add(1);
            return Some(Turn {
                lane: self,
                answers_before,
                _place: None,
            });
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.state().away.is_some()
    }

    /// A decision is left to the table.
    pub(super) fn leave(&self) {
        self.state().left = true;
    }

    fn is_full(&self) -> bool {
        let mut state = self.state();
        let full = state.away.is_some() && state.waiting >= WAITING;
        state.left |= full;
        full
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// The participant is there, whatever it said.
    pub(super) fn answered(self) {
        let mut state = self.lane.state();
        state.answers += 1;
        if state.away.take().is_none() {
            return;
        }
        let left = std::mem::take(&mut state.left);
        drop(state);
        self.lane.back.notify_waiters();
        if left {
            self.lane.returned.notify_one();
        }
    }

    /// Nobody answered. If nobody answered another call either since this one began, the participant is away.
    pub(super) fn unanswered(self) {
        let mut state = self.lane.state();
        if state.answers == self.answers_before && state.away.is_none() {
            state.away = Some(Away {
                probes: 1,
                next_probe: Instant::now() + Participants::pause(0),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    #[derive(Default)]
    struct Called {
        there: AtomicBool,
        calls: AtomicUsize,
    }

    /// Calls until it is answered. False if it was left to the table.
    async fn deliver(lane: Arc<Lane>, called: Arc<Called>) -> bool {
        loop {
            let Some(turn) = lane.turn().await else {
                return false;
            };
            called.calls.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(1)).await;
            if called.there.load(Ordering::SeqCst) {
                turn.answered();
                return true;
            }
            turn.unanswered();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_participant_that_is_away_costs_a_few_calls_however_much_waits_for_it() {
        let lanes = Lanes::default();
        let name = ParticipantId::new("a").unwrap();
        let called = Arc::new(Called::default());
        let mut deliveries = JoinSet::new();
        for _ in 0..10_000 {
            deliveries.spawn(deliver(lanes.of(&name), Arc::clone(&called)));
        }
        sleep(Duration::from_secs(1)).await;
        // What was on its way when it went, and the first probes.
        let first = called.calls.swap(0, Ordering::SeqCst);
        assert!((AT_ONCE..AT_ONCE + 10).contains(&first), "{first} calls");
        sleep(Duration::from_secs(60)).await;
        let calls = called.calls.swap(0, Ordering::SeqCst);
        assert!((100..=130).contains(&calls), "{calls} calls in a minute");
        let members = Members::from([name.clone()]);
        assert!(!lanes.take_any(&members), "{WAITING} wait, the others are left");
        called.there.store(true, Ordering::SeqCst);
        let back = Instant::now();
        let mut told = 0;
        while let Some(answered) = deliveries.join_next().await {
            told += usize::from(answered.unwrap());
        }
        assert_eq!(told, WAITING);
        assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
        lanes.returned().notified().await;
        assert!(lanes.take_any(&members));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_keeps_no_other_decision_waiting() {
        let lanes = Lanes::default();
        let lane = lanes.of(&ParticipantId::new("a").unwrap());
        let called = Arc::new(Called::default());
        let hanging = tokio::spawn({
            let lane = Arc::clone(&lane);
            async move {
                for _ in 0..20 {
                    let turn = lane.turn().await.unwrap();
                    sleep(Duration::from_secs(5)).await;
                    turn.unanswered();
                }
            }
        });
        called.there.store(true, Ordering::SeqCst);
        while !hanging.is_finished() {
            // Long enough for a call that nobody answers meanwhile.
            sleep(Duration::from_secs(6)).await;
            let begun = Instant::now();
            assert!(deliver(Arc::clone(&lane), Arc::clone(&called)).await);
            assert!(
                begun.elapsed() < Duration::from_millis(600),
                "{:?}",
                begun.elapsed()
            );
        }
    }
}
