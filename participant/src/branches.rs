use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::Witness;
use unanimo_core::{Branch, BranchInput, BranchPhase, Finish, Position, Record, Timestamp, TransactionId};
use unanimo_proto::BadContext;
use unanimo_proto::transport::Clock;

use crate::doubts::Doubts;
use crate::entry::{Asker, Entry};
use crate::error::Refusal;
use crate::gate::{Gate, spawn_watched};
use crate::replay::Promise;
use crate::resource_calls::ResourceCalls;
use crate::statistics::Counters;
use crate::store::Store;
use crate::{ParticipantOptions, StartError, StopReason};

/// How long after its deadline a branch that only read is still remembered: a takeover may ask again until the deadline,
/// and its message may be late.
const READ_ONLY_MARGIN: Duration = Duration::from_secs(10);

/// How far ahead of our own clock a watermark may lie. The coordinators' time and this clock may be a day apart, and
/// nothing is lost by hearing of a watermark late (R8); what is further ahead comes from a message that is damaged or
/// forged, and would refuse every transaction for as long as it is ahead.
pub(crate) const FAR_AHEAD: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Branches are spread over so many locks, so that a look into the branch table, which may go to the disk, holds
/// up few others.
const SHARDS: usize = 64;

/// Runs the branches: gives each input to its state machine and carries out the effects.
///
/// A branch's inputs are taken one after the other under its shard's lock, and their effects are carried out
/// under the same lock, in the order given. None of them waits: calls of the resource manager and forced writes are
/// only started there, and come back as inputs. So a record is in the journal's queue before a later effect
/// is looked at, and what may be said only after it is durable is an effect of the input that says it is.
pub(crate) struct Branches {
    shards: Vec<Mutex<BTreeMap<TransactionId, Entry>>>,
    pub(crate) options: Arc<ParticipantOptions>,
    /// This life, and how far the journal reached when it began.
    pub(crate) start: Witness,
    pub(crate) store: Arc<Store>,
    pub(crate) calls: Arc<ResourceCalls>,
    pub(crate) doubts: Arc<Doubts>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
    /// Branches that are not finished.
    in_flight: AtomicUsize,
    /// Branches that only read and the deadlines of their Prepares, the oldest deadline first: they are remembered in
    /// memory and nowhere else.
    read_only: Mutex<VecDeque<(Timestamp, TransactionId)>>,
    /// The highest watermark that a coordinator has told; it only rises. What begins below it is refused (R7). At the
    /// start it is the one that is durable.
    watermark: watch::Sender<Option<TransactionId>>,
    /// Whether somebody has been told of a watermark that was not believed.
    warned_of_watermark: AtomicBool,
    pub(crate) completions: mpsc::UnboundedSender<Completion>,
    pub(crate) tasks: TaskTracker,
}

/// What the writer of the journal has to tell. At most one for each branch in flight waits to be heard.
pub(crate) enum Completion {
    /// The record that the branch waits for is durable.
    Recorded(TransactionId),
    /// Everything told before has been heard.
    Barrier(oneshot::Sender<()>),
}

/// What a participant takes along to run branches.
pub(crate) struct Surroundings {
    pub(crate) options: Arc<ParticipantOptions>,
    /// This life, and how far the journal reached when it began.
    pub(crate) start: Witness,
    pub(crate) store: Arc<Store>,
    pub(crate) calls: ResourceCalls,
    pub(crate) doubts: Arc<Doubts>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) completions: mpsc::UnboundedSender<Completion>,
    pub(crate) tasks: TaskTracker,
}

impl Branches {
    pub(crate) fn new(surroundings: Surroundings) -> Self {
        let Surroundings {
            options,
            start,
            store,
            calls,
            doubts,
            gate,
            counters,
            clock,
            completions,
            tasks,
        } = surroundings;
        let watermark = watch::Sender::new(store.closed_below());
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            options,
            start,
            store,
            calls: Arc::new(calls),
            doubts,
            gate,
            counters,
            clock,
            in_flight: AtomicUsize::new(0),
            read_only: Mutex::default(),
            watermark,
            warned_of_watermark: AtomicBool::new(false),
            completions,
            tasks,
        }
    }

    /// Brings promises back, their holds first, before any traffic (R3). Then lets go of whatever the resource
    /// manager keeps prepared that was never promised. None if the participant stops.
    pub(crate) async fn recover(&self, promises: Vec<Promise>) -> Option<Result<(), StartError>> {
        for promise in promises {
            if !mutants::is_on(Mutant::M19) {
                self.calls
                    .restore(promise.transaction, &promise.prepared.redo)
                    .await?;
            }
            self.bring_back(promise);
        }
        for transaction in self.calls.prepared().await? {
            if self.shard(transaction).contains_key(&transaction) {
                continue;
            }
            let closed = self.store.closed_below() > Some(transaction);
            match self.store.finish(transaction) {
                Ok(Some(Finish::Committed { .. })) => {
                    return Some(Err(StartError::ResourceManagerBehind { transaction }));
                }
                // It may have been committed here and forgotten since.
                Ok(None) if closed => {
                    return Some(Err(StartError::ResourceManagerHoldsClosed { transaction }));
                }
                Ok(Some(Finish::Aborted { .. } | Finish::ReadOnly { .. }) | None) => {
                    self.calls.abort(transaction, None).await?;
                }
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(()))
    }

    fn bring_back(&self, promise: Promise) {
        let Promise {
            sequence,
            transaction,
            prepared,
        } = promise;
        let since = prepared.prepared_at;
        let record = Record::Prepared(transaction, prepared);
        let branch = match unanimo_core::recover([record]) {
            Ok(mut branches) => branches.remove(&transaction),
            Err(error) => unreachable!("one record does not contradict itself: {error}"),
        };
        let mut entry = Entry::new(branch.unwrap_or_else(|| Branch::unknown(transaction)), false);
        assert!(
            entry.branch.in_doubt().is_some(),
            "a promise is in doubt after a restart"
        );
        entry.promised_at = Some(sequence);
        self.shard(transaction).insert(transaction, entry);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.counters.recovered_in_doubt.increment();
        self.doubts.recovered(transaction, since);
    }

    /// Gives one input to a branch and carries out what follows.
    pub(crate) fn step(self: &Arc<Self>, transaction: TransactionId, input: BranchInput, asker: Asker) {
        let mut shard = self.shard(transaction);
        if let Err(refused) = self.gate.go_on() {
            return asker.refuse(refused);
        }
        let mut entry = match shard.remove(&transaction) {
            Some(entry) => entry,
            None => match self.store.branch(transaction) {
                Ok(Some(branch)) => Entry::new(branch, true),
                Ok(None) => Entry::new(Branch::unknown(transaction), false),
                Err(reason) => {
                    self.gate.close(reason.clone());
                    return asker.refuse(Refusal::Stopped(reason));
                }
            },
        };
        if self.is_new_and_closed(&entry) {
            match &input {
                BranchInput::Prepare(_) | BranchInput::Join(_) => {
                    self.counters.expired.increment();
                    return asker.refuse(Refusal::Expired);
                }
                // Whatever it overtook is refused when it comes, so there is nothing that a tombstone would keep away.
                BranchInput::Abort => {
                    self.counters.duplicates.increment();
                    asker.acknowledge();
                    return;
                }
                // There is no Commit without our promise, and a promise is kept until its end is recorded; the end of one
                // that is committed is its Commit (R1, R3). So what is unknown here was committed and forgotten. The
                // coordinator may not know yet, if we learnt the decision from an inquiry, and asks until it does.
                BranchInput::Commit { .. } if self.store.closed_below() > Some(transaction) => {
                    self.counters.duplicates.increment();
                    asker.acknowledge();
                    return;
                }
                // Nothing of that age has been forgotten, so who says Commit claims a promise that was never given (R9).
                BranchInput::Commit { .. }
                | BranchInput::Resolved(_)
                | BranchInput::Recorded
                | BranchInput::Answered { .. }
                | BranchInput::Applied
                | BranchInput::TimerFired
                | BranchInput::DeadlinePassed => {}
            }
        }
        if matches!(entry.branch.phase(), BranchPhase::Unknown) && self.is_far_ahead(transaction) {
            match &input {
                BranchInput::Prepare(_) => return asker.refuse(Refusal::Premature),
                // It holds nothing, and a Prepare is refused when it comes.
                BranchInput::Abort => {
                    self.counters.duplicates.increment();
                    asker.acknowledge();
                    return;
                }
                // Applications' ids are looked at before they come here; the others note nothing about the unknown.
                BranchInput::Join(_)
                | BranchInput::Commit { .. }
                | BranchInput::Resolved(_)
                | BranchInput::Recorded
                | BranchInput::Answered { .. }
                | BranchInput::Applied
                | BranchInput::TimerFired
                | BranchInput::DeadlinePassed => {}
            }
        }
        let (had_only_read, deadline) = (entry.has_only_read(), voting_ends(&entry, &input));
        match self.admit(&mut entry, &input, &asker) {
            Ok(reserved) => self.advance(&mut entry, reserved, input, asker),
            Err(refused) => {
                if matches!(refused, Refusal::Overloaded { .. }) {
                    self.counters.overloads.increment();
                }
                asker.refuse(refused);
            }
        }
        let only_read = !had_only_read && entry.has_only_read();
        if !entry.is_forgettable() {
            shard.insert(transaction, entry);
        }
        drop(shard);
        if only_read {
            self.remember_read_only(transaction, deadline.unwrap_or_else(|| self.clock.now()));
        }
    }

    /// A coordinator has said that transactions below this one are closed (R7). A lower one than before is old news.
    pub(crate) fn raise_watermark(&self, told: Option<TransactionId>) {
        // Almost every message says what is known already, and need not wait for anybody.
        if told <= *self.watermark.borrow() {
            return;
        }
        let believed_until = self.clock.now().after(FAR_AHEAD);
        if let Some(watermark) = told.filter(|told| told.timestamp() > believed_until) {
            return self.disbelieve(watermark);
        }
        self.watermark.send_if_modified(|watermark| {
            let rises = told > *watermark;
            *watermark = told.max(*watermark);
            rises
        });
    }

    /// Refuses an application's id from far ahead.
    pub(crate) fn check_time(&self, transaction: TransactionId) -> Result<(), BadContext> {
        if self.is_far_ahead(transaction) {
            return Err(BadContext::Ahead {
                transaction,
                ahead: FAR_AHEAD,
            });
        }
        Ok(())
    }

    /// Whatever is noted of such an id stays until the watermark has come that far, and keeps the whole stretch of the
    /// journal that it stands in; and a promise would never be decided, for coordinators check ids, too, and much more
    /// closely (R7).
    fn is_far_ahead(&self, transaction: TransactionId) -> bool {
        let watermark = self.watermark.borrow().map(TransactionId::timestamp);
        // A clock may be a day behind (R8), and the watermark shows a time that is past for sure.
        let now = watermark.map_or_else(|| self.clock.now(), |watermark| self.clock.now().max(watermark));
        transaction.timestamp() > now.after(FAR_AHEAD)
    }

    fn disbelieve(&self, watermark: TransactionId) {
        self.counters.watermarks_ignored.increment();
        if !self.warned_of_watermark.swap(true, Ordering::Relaxed) {
            let (participant, at, tolerance) = (&self.options.name, watermark.timestamp(), FAR_AHEAD);
            tracing::warn!(%participant, %watermark, %at, ?tolerance, "a watermark lies too far ahead of this clock and is \
                ignored: look whether the clock is right, and who sent it");
        }
    }

    /// How far the journal is sure to reach, as every later life will have to show (R11). None before it is durable that
    /// the cluster has confirmed this life: the next one would register with where the journal ended before it.
    pub(crate) fn reached(&self) -> Option<Witness> {
        self.gate.is_registered().then(|| Witness {
            generation: self.start.generation,
            position: Position(self.store.durable().get()),
        })
    }

    /// The highest watermark that a coordinator has told, and whether it has risen since it was last looked at.
    pub(crate) fn watermark(&self) -> watch::Receiver<Option<TransactionId>> {
        self.watermark.subscribe()
    }

    /// Whether nothing is known of the branch and nothing may begin under its id any more.
    fn is_new_and_closed(&self, entry: &Entry) -> bool {
        let below = |watermark: &TransactionId| entry.branch.transaction() < *watermark;
        matches!(entry.branch.phase(), BranchPhase::Unknown)
            && self.watermark.borrow().as_ref().is_some_and(below)
    }

    /// Refuses what would grow without bound (R14). What is known already is always let through. Says whether it
    /// has reserved a place in flight.
    fn admit(&self, entry: &mut Entry, input: &BranchInput, asker: &Asker) -> Result<bool, Refusal> {
        let limit = self.options.waiters_per_branch;
        if entry.waiting_with(asker) >= limit {
            let what = "callers wait for this branch";
            return Err(Refusal::Overloaded { what, limit });
        }
        let is_new = matches!(entry.branch.phase(), BranchPhase::Unknown);
        let begins = matches!(input, BranchInput::Prepare(_) | BranchInput::Join(_));
        let leaves_a_trace = begins || matches!(input, BranchInput::Abort);
        if !(is_new && leaves_a_trace) {
            return Ok(false);
        }
        let limit = self.options.unremembered;
        if self.store.unremembered() >= limit {
            let what = "finished branches are on their way to the branch table";
            return Err(Refusal::Overloaded { what, limit });
        }
        if !begins {
            return Ok(false);
        }
        self.gate.admit_new()?;
        let limit = self.options.in_flight;
        let reserve = |count: usize| (count < limit).then_some(count + 1);
        match self
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve)
        {
            Ok(_) => Ok(true),
            Err(_) => {
                let what = "branches are in flight";
                Err(Refusal::Overloaded { what, limit })
            }
        }
    }

    fn advance(self: &Arc<Self>, entry: &mut Entry, reserved: bool, input: BranchInput, asker: Asker) {
        let transaction = entry.branch.transaction();
        let (was_in_flight, was_in_doubt) = (reserved || entry.is_in_flight(), entry.prepared_at());
        let was_finished = entry.is_finished();
        let now = self.clock.now();
        let branch = std::mem::replace(&mut entry.branch, Branch::unknown(transaction));
        let (branch, effects) = branch.step(input, now);
        entry.branch = branch;
        match (was_in_flight, entry.is_in_flight()) {
            (true, false) => _ = self.in_flight.fetch_sub(1, Ordering::Relaxed),
            (false, true) => unreachable!("only a new Prepare or Join begins a branch, and it has a place"),
            (true, true) | (false, false) => {}
        }
        match (was_in_doubt, entry.prepared_at()) {
            (None, Some(since)) => self.doubts.arrived(transaction, since),
            (Some(since), None) => {
                self.doubts.resolved(transaction);
                let committed = matches!(entry.branch.phase(), BranchPhase::Committing(_));
                self.counters.was_in_doubt(now.since(since), committed);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        if !was_finished {
            self.count_finish(entry);
        }
        self.watch_the_clock(entry, now);
        if let Err(reason) = self.carry_out(entry, effects, asker) {
            // Whoever waits hears it from the gate.
            self.gate.close(reason);
        }
    }

    /// Sees to it that what was joined is let go when its time is over. The work of one transaction has one timer, that
    /// of its first operation: the time of a transaction does not grow.
    fn watch_the_clock(self: &Arc<Self>, entry: &mut Entry, now: Timestamp) {
        let Some(deadline) = entry.joined_until() else {
            entry.timer = None;
            return;
        };
        if entry.timer.is_some() {
            return;
        }
        let (transaction, branches) = (entry.branch.transaction(), Arc::downgrade(self));
        let remaining = deadline.since(now);
        let waiting = async move {
            tokio::time::sleep(remaining).await;
            if let Some(branches) = branches.upgrade() {
                branches.counters.joins_expired.increment();
                branches.step(transaction, BranchInput::DeadlinePassed, Asker::Nobody);
            }
        };
        let timer = spawn_watched(&self.gate, waiting);
        entry.timer = Some(AbortOnDropHandle::new(timer));
    }

    fn count_finish(&self, entry: &Entry) {
        let BranchPhase::Finished(finish) = entry.branch.phase() else {
            return;
        };
        let tx = entry.branch.transaction();
        match finish {
            Finish::Committed { .. } => {
                self.counters.committed.increment();
                tracing::debug!(%tx, participant = %self.options.name, "committed");
            }
            Finish::Aborted { reason } => {
                self.counters.aborted.increment();
                tracing::debug!(%tx, participant = %self.options.name, %reason, "aborted");
            }
            Finish::ReadOnly { .. } => tracing::debug!(%tx, participant = %self.options.name, "only read"),
        }
    }

    /// Keeps what only read in memory until its deadline has passed, so that a takeover that asks again hears the same
    /// vote (R6). If there are too many, the oldest deadlines go first (R14).
    fn remember_read_only(&self, transaction: TransactionId, deadline: Timestamp) {
        let now = self.clock.now();
        let mut remembered = self.read_only.lock().unwrap_or_else(PoisonError::into_inner);
        let place = remembered.partition_point(|(other, _)| *other <= deadline);
        remembered.insert(place, (deadline, transaction));
        let over = remembered.partition_point(|(deadline, _)| deadline.after(READ_ONLY_MARGIN) < now);
        let surplus = remembered.len().saturating_sub(self.options.read_only_remembered);
        let forgotten: Vec<_> = remembered.drain(..over.max(surplus)).collect();
        drop(remembered);
        for (_, transaction) in forgotten {
            self.shard(transaction).remove(&transaction);
        }
    }

    /// The branch table has these now.
    pub(crate) fn remembered(&self, transactions: &[TransactionId]) {
        for transaction in transactions {
            let mut shard = self.shard(*transaction);
            if let Some(entry) = shard.get_mut(transaction) {
                entry.remembered = true;
                if entry.is_forgettable() {
                    shard.remove(transaction);
                }
            }
        }
    }

    /// Branches that are not finished.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn shard(&self, transaction: TransactionId) -> MutexGuard<'_, BTreeMap<TransactionId, Entry>> {
        // The low bits of an id are random.
        let place = (transaction.as_u128() % SHARDS as u128) as usize;
        self.shards[place].lock().unwrap_or_else(|poisoned| {
            // An assertion of ours failed while a branch was changed; what became of it is not known.
            self.gate.close(StopReason::Broken);
            poisoned.into_inner()
        })
    }
}

/// When the voting phase ends that this input begins, or that the branch is in.
fn voting_ends(entry: &Entry, input: &BranchInput) -> Option<Timestamp> {
    match (input, entry.branch.phase()) {
        (BranchInput::Prepare(request), _) | (_, BranchPhase::Preparing(request)) => Some(request.deadline),
        _ => None,
    }
}
