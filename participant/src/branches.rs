use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;
use unanimo_core::table::Witness;
use unanimo_core::{
    Branch, BranchEffect, BranchInput, BranchPhase, Finish, Generation, Position, Record, Timestamp,
    TransactionId, Violation, Vote,
};
use unanimo_journal::Sequence;
use unanimo_proto::transport::Clock;
use unanimo_proto::{Inquiry, PrepareVote};

use crate::doubts::Doubts;
use crate::error::Refusal;
use crate::gate::Gate;
use crate::replay::Promise;
use crate::resource_calls::ResourceCalls;
use crate::statistics::Counters;
use crate::store::Store;
use crate::{ParticipantOptions, StopReason};

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
    options: Arc<ParticipantOptions>,
    generation: Generation,
    store: Arc<Store>,
    calls: ResourceCalls,
    doubts: Arc<Doubts>,
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
    /// Branches that are not finished.
    in_flight: AtomicUsize,
    /// Branches that only read, oldest first: they are remembered here and nowhere else.
    read_only: Mutex<VecDeque<TransactionId>>,
    completions: mpsc::UnboundedSender<Completion>,
    tasks: TaskTracker,
}

/// What the writer of the journal has to tell. At most one for each branch in flight waits to be heard.
pub(crate) enum Completion {
    /// The record that the branch waits for is durable.
    Recorded(TransactionId),
    /// Everything told before has been heard.
    Barrier(oneshot::Sender<()>),
}

/// Who gave an input, and how they are told what comes of it. Whoever goes away takes nothing back.
pub(crate) enum Asker {
    Vote(oneshot::Sender<Result<PrepareVote, Refusal>>),
    Acknowledgement(oneshot::Sender<Result<(), Refusal>>),
    Nobody,
}

/// What a participant takes along to run branches.
pub(crate) struct Surroundings {
    pub(crate) options: Arc<ParticipantOptions>,
    pub(crate) generation: Generation,
    pub(crate) store: Arc<Store>,
    pub(crate) calls: ResourceCalls,
    pub(crate) doubts: Arc<Doubts>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) completions: mpsc::UnboundedSender<Completion>,
    pub(crate) tasks: TaskTracker,
}

struct Entry {
    branch: Branch,
    /// Where its Prepared record stands, if it has one that this life knows of.
    promised_at: Option<Sequence>,
    /// The branch table has it, so it need not stay here.
    remembered: bool,
    votes: Vec<oneshot::Sender<Result<PrepareVote, Refusal>>>,
    acknowledgements: Vec<oneshot::Sender<Result<(), Refusal>>>,
}

impl Entry {
    fn new(branch: Branch, remembered: bool) -> Self {
        Self {
            branch,
            promised_at: None,
            remembered,
            votes: Vec::new(),
            acknowledgements: Vec::new(),
        }
    }

    fn is_finished(&self) -> bool {
        matches!(self.branch.phase(), BranchPhase::Finished(_))
    }

    fn is_in_flight(&self) -> bool {
        !matches!(
            self.branch.phase(),
            BranchPhase::Unknown | BranchPhase::Finished(_)
        )
    }

    /// Whether nothing is lost if it is dropped from memory.
    fn is_forgettable(&self) -> bool {
        match self.branch.phase() {
            BranchPhase::Unknown => true,
            BranchPhase::Finished(_) => self.remembered,
            BranchPhase::Preparing(_)
            | BranchPhase::Cancelling
            | BranchPhase::Promising(_)
            | BranchPhase::Prepared(_)
            | BranchPhase::Committing(_)
            | BranchPhase::Aborting { .. }
            | BranchPhase::Recording { .. } => false,
        }
    }

    fn prepared_at(&self) -> Option<Timestamp> {
        self.branch.in_doubt().map(|promise| promise.prepared_at)
    }
}

impl Branches {
    pub(crate) fn new(surroundings: Surroundings) -> Self {
        let Surroundings {
            options,
            generation,
            store,
            calls,
            doubts,
            gate,
            counters,
            clock,
            completions,
            tasks,
        } = surroundings;
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            options,
            generation,
            store,
            calls,
            doubts,
            gate,
            counters,
            clock,
            in_flight: AtomicUsize::new(0),
            read_only: Mutex::default(),
            completions,
            tasks,
        }
    }

    /// Brings promises back, their holds first, before any traffic (R3). Then lets go of whatever the resource
    /// manager keeps prepared that was never promised. None if the participant stops.
    pub(crate) async fn recover(&self, promises: Vec<Promise>) -> Option<Result<(), crate::StartError>> {
        for promise in promises {
            self.calls
                .restore(promise.transaction, &promise.prepared.redo)
                .await?;
            self.bring_back(promise);
        }
        for transaction in self.calls.prepared().await? {
            if self.shard(transaction).contains_key(&transaction) {
                continue;
            }
            match self.store.was_committed(transaction) {
                Ok(false) => self.calls.abort(transaction, None).await?,
                Ok(true) => return Some(Err(crate::StartError::ResourceManagerBehind { transaction })),
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
        let admitted = self.admit(&mut entry, &input, &asker);
        let read_only_before = is_read_only(&entry);
        match admitted {
            Ok(()) => self.advance(&mut entry, transaction, input, asker),
            Err(refused) => {
                if matches!(refused, Refusal::Overloaded { .. }) {
                    self.counters.overloads.increment();
                }
                asker.refuse(refused);
            }
        }
        let only_read = !read_only_before && is_read_only(&entry);
        if !entry.is_forgettable() {
            shard.insert(transaction, entry);
        }
        drop(shard);
        if only_read {
            self.remember_read_only(transaction);
        }
    }

    /// Refuses what would grow without bound (R14). What is known already is always let through.
    fn admit(&self, entry: &mut Entry, input: &BranchInput, asker: &Asker) -> Result<(), Refusal> {
        entry.votes.retain(|waiting| !waiting.is_closed());
        entry.acknowledgements.retain(|waiting| !waiting.is_closed());
        let waiting = match asker {
            Asker::Vote(_) => entry.votes.len(),
            Asker::Acknowledgement(_) => entry.acknowledgements.len(),
            Asker::Nobody => 0,
        };
        let limit = self.options.waiters_per_branch;
        if waiting >= limit {
            let what = "callers wait for this branch";
            return Err(Refusal::Overloaded { what, limit });
        }
        let is_new = matches!(entry.branch.phase(), BranchPhase::Unknown);
        let is_prepare = matches!(input, BranchInput::Prepare(_));
        let leaves_a_trace = is_prepare || matches!(input, BranchInput::Abort);
        if !(is_new && leaves_a_trace) {
            return Ok(());
        }
        let limit = self.options.unremembered;
        if self.store.unremembered() >= limit {
            let what = "finished branches are on their way to the branch table";
            return Err(Refusal::Overloaded { what, limit });
        }
        if !is_prepare {
            return Ok(());
        }
        self.gate.admit_new()?;
        let limit = self.options.in_flight;
        if self.in_flight.load(Ordering::Relaxed) >= limit {
            let what = "branches are in flight";
            return Err(Refusal::Overloaded { what, limit });
        }
        Ok(())
    }

    fn advance(
        self: &Arc<Self>,
        entry: &mut Entry,
        transaction: TransactionId,
        input: BranchInput,
        asker: Asker,
    ) {
        let (was_in_flight, was_in_doubt) = (entry.is_in_flight(), entry.prepared_at());
        let was_finished = entry.is_finished();
        let now = self.clock.now();
        let branch = std::mem::replace(&mut entry.branch, Branch::unknown(transaction));
        let (branch, effects) = branch.step(input, now);
        entry.branch = branch;
        match (was_in_flight, entry.is_in_flight()) {
            (false, true) => _ = self.in_flight.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.in_flight.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => {}
        }
        match (was_in_doubt, entry.prepared_at()) {
            (None, Some(since)) => self.doubts.arrived(transaction, since),
            (Some(since), None) => {
                self.doubts.resolved(transaction);
                self.counters.was_in_doubt(now.since(since));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        if !was_finished {
            self.count_finish(entry);
        }
        if let Err(reason) = self.carry_out(entry, transaction, effects, asker) {
            // Whoever waits hears it from the gate.
            self.gate.close(reason);
        }
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

    /// Carries out the effects in order. An error ends it: what comes after must not happen (R10).
    fn carry_out(
        self: &Arc<Self>,
        entry: &mut Entry,
        transaction: TransactionId,
        effects: Vec<BranchEffect>,
        asker: Asker,
    ) -> Result<(), StopReason> {
        let mut asker = asker;
        for effect in effects {
            match effect {
                BranchEffect::Prepare(operation) => {
                    let this = Arc::clone(self);
                    self.tasks.spawn(async move {
                        if let Some(resolution) = this.calls.prepare(transaction, &operation).await {
                            this.step(transaction, BranchInput::Resolved(resolution), Asker::Nobody);
                        }
                    });
                }
                BranchEffect::Commit { redo } => {
                    let this = Arc::clone(self);
                    self.tasks.spawn(async move {
                        if this.calls.commit(transaction, &redo).await.is_some() {
                            this.step(transaction, BranchInput::Applied, Asker::Nobody);
                        }
                    });
                }
                BranchEffect::Abort { redo } => {
                    let this = Arc::clone(self);
                    self.tasks.spawn(async move {
                        if this.calls.abort(transaction, Some(redo)).await.is_some() {
                            this.step(transaction, BranchInput::Applied, Asker::Nobody);
                        }
                    });
                }
                BranchEffect::Record(record) => {
                    let completions = self.completions.clone();
                    let sequence = self.store.record(&record, move || {
                        // Nobody listens any more once the participant has stopped.
                        let _ = completions.send(Completion::Recorded(transaction));
                    })?;
                    if matches!(record, Record::Prepared(..)) {
                        entry.promised_at = Some(sequence);
                    }
                }
                BranchEffect::Note(record) => self.store.note(&record)?,
                BranchEffect::Vote(vote) => {
                    self.count_vote(&vote);
                    tracing::debug!(tx = %transaction, participant = %self.options.name, %vote, "voted");
                    let answer = self.answer(entry, vote);
                    asker = asker.vote(&answer);
                    for waiting in entry.votes.drain(..) {
                        let _ = waiting.send(Ok(answer.clone()));
                    }
                }
                BranchEffect::Answer(vote) => {
                    self.counters.duplicates.increment();
                    asker = asker.vote(&self.answer(entry, vote));
                }
                BranchEffect::Acknowledge => {
                    asker = asker.acknowledge();
                    for waiting in entry.acknowledgements.drain(..) {
                        let _ = waiting.send(Ok(()));
                    }
                }
                BranchEffect::Inquire => self.doubts.ask(inquiry(&entry.branch)),
                BranchEffect::Refuse(violation) => {
                    self.raise_alarm(transaction, &violation);
                    asker.refuse(Refusal::Violation(violation));
                    asker = Asker::Nobody;
                }
                BranchEffect::Ignored(why) => {
                    self.counters.duplicates.increment();
                    tracing::debug!(tx = %transaction, participant = %self.options.name, ?why, "ignored");
                }
            }
        }
        // Not told yet: it is told with the others, once there is something to tell.
        match asker {
            Asker::Vote(waiting) => entry.votes.push(waiting),
            Asker::Acknowledgement(waiting) => entry.acknowledgements.push(waiting),
            Asker::Nobody => {}
        }
        Ok(())
    }

    /// A vote, and of a Yes where its promise stands. A promise of an earlier life that has ended since has no
    /// known position; that our journal reaches at least to its end is as true.
    fn answer(&self, entry: &Entry, vote: Vote) -> PrepareVote {
        let witness = match vote {
            Vote::Yes => {
                let sequence = entry.promised_at.unwrap_or_else(|| self.store.durable());
                Some(Witness {
                    generation: self.generation,
                    position: Position(sequence.get()),
                })
            }
            Vote::ReadOnly | Vote::No { .. } => None,
        };
        PrepareVote { vote, witness }
    }

    fn count_vote(&self, vote: &Vote) {
        match vote {
            Vote::Yes => self.counters.voted_yes.increment(),
            Vote::ReadOnly => self.counters.voted_read_only.increment(),
            Vote::No { .. } => self.counters.voted_no.increment(),
        }
    }

    fn raise_alarm(&self, transaction: TransactionId, violation: &Violation) {
        self.counters.violations.increment();
        tracing::error!(tx = %transaction, participant = %self.options.name, %violation, "a message was refused");
    }

    /// Keeps what only read in memory, and forgets the oldest of it.
    fn remember_read_only(&self, transaction: TransactionId) {
        let mut remembered = self.read_only.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.push_back(transaction);
        let surplus = remembered.len().saturating_sub(self.options.read_only_remembered);
        let forgotten: Vec<TransactionId> = remembered.drain(..surplus).collect();
        drop(remembered);
        for transaction in forgotten {
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

impl Asker {
    fn refuse(self, refused: Refusal) {
        // Whoever has gone away hears nothing.
        match self {
            Self::Vote(waiting) => _ = waiting.send(Err(refused)),
            Self::Acknowledgement(waiting) => _ = waiting.send(Err(refused)),
            Self::Nobody => {}
        }
    }

    /// Tells a vote to whoever asked for one.
    fn vote(self, answer: &PrepareVote) -> Self {
        match self {
            Self::Vote(waiting) => {
                let _ = waiting.send(Ok(answer.clone()));
                Self::Nobody
            }
            Self::Acknowledgement(_) | Self::Nobody => self,
        }
    }

    fn acknowledge(self) -> Self {
        match self {
            Self::Acknowledgement(waiting) => {
                let _ = waiting.send(Ok(()));
                Self::Nobody
            }
            Self::Vote(_) | Self::Nobody => self,
        }
    }
}

fn is_read_only(entry: &Entry) -> bool {
    matches!(
        entry.branch.phase(),
        BranchPhase::Finished(Finish::ReadOnly { .. })
    )
}

fn inquiry(branch: &Branch) -> Inquiry {
    let Some(promise) = branch.in_doubt() else {
        unreachable!("only a branch in doubt asks, not one in {:?}", branch.phase());
    };
    Inquiry {
        transaction: branch.transaction(),
        request_hash: promise.request_hash,
        members: promise.members.clone(),
    }
}
