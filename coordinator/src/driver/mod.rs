//! The driver: runs transactions on the leader, from the request to the last acknowledgement.
//!
//! The protocol itself is [`unanimo_core::Transaction`]; here its effects are carried out. One task runs one
//! transaction ([`run`]); the decisions that come together share a Raft entry ([`proposer`]); members are called
//! through [`participants`], with decisions by [`lane`]; and [`takeover`] makes a new leader go on where the old one left.
//!
//! Nothing in memory matters for safety. A leader may lose all of it at any moment: decisions are in the table
//! (R1, R2), promises are in the participants' journals (R3), and what is neither is asked for again (R6).

mod admission;
mod forgetting;
mod lane;
mod participants;
mod proposer;
mod run;
mod takeover;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::{Applied, Binding, Command, DecisionRecord, Horizon, Proposal};
use unanimo_core::{
    AbortReason, ClusterId, Decision, IdempotencyKey, Members, ParticipantId, Request, RequestError,
    RequestHash, Transaction, TransactionEffect, TransactionId, TransactionInput,
};
use unanimo_proto::transport::{Clock, Connector};
use unanimo_proto::{Inquiry, InquiryAnswer, Registering};

use crate::config::{LimitsConfig, RetentionConfig};
use crate::raft::{ProposeError, Replica};
use admission::Admitted;
use forgetting::{Age, Clocks};
use lane::Lanes;
use participants::Participants;
use proposer::Proposer;
use run::Run;

/// What an initiator that waits is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Recorded in the table (R2).
    Decided(Decision),
    /// The id belongs to another request.
    Mismatch(RequestHash),
    /// The transaction was closed before it was decided. It was not decided by this run, and never will be.
    Expired {
        /// Below which transactions are closed.
        watermark: TransactionId,
    },
    /// This node lost the leadership before it knew. Ask the next leader.
    Lost,
}

/// Why a call was not carried out. Mapped to status codes in `service/status.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum DriverError {
    /// This node is not the leader, or not yet ready; nothing was started.
    #[error("this node does not lead the cluster")]
    NotLeader,
    /// This node is about to hand its leadership over; nothing was started.
    #[error("this node is stopping and hands its leadership over; another leads in a moment")]
    HandingOver,
    /// It is not known whether a decision was recorded.
    #[error("the leadership was lost before the decision was known")]
    Unknown,
    /// Too much is in flight; nothing was started (R14).
    #[error(
        "{in_flight} transactions with {bytes} bytes of operations are in flight, the limit of this node"
    )]
    Overloaded { in_flight: usize, bytes: usize },
    /// The request is larger than this cluster allows; nothing was started (R14).
    #[error(transparent)]
    NotAllowed(#[from] RequestError),
    /// A member never registered; nothing was started.
    #[error("participant {participant} is not known to this cluster; it registers when it first starts")]
    UnknownParticipant { participant: ParticipantId },
    /// The id belongs to another request (R12).
    #[error(
        "transaction {transaction} belongs to another request: its hash is {stored}, this one's is {asked}"
    )]
    Mismatch {
        transaction: TransactionId,
        stored: RequestHash,
        asked: RequestHash,
    },
    /// The transaction is closed, and there is no record of it (R7).
    #[error(
        "transaction {transaction} was begun before {}, and what is older is forgotten: its outcome is not known any \
         more, and nothing will happen under this id. Whoever repeats for longer needs a longer retention.window_seconds",
        watermark.timestamp()
    )]
    Expired {
        transaction: TransactionId,
        watermark: TransactionId,
    },
    /// The time in the id is too far ahead: it could not be forgotten when its time has come (R7).
    #[error(
        "the time in transaction id {transaction} is {ahead:?} ahead of the cluster's clocks, the limit is {tolerance:?}: \
         nothing was started; set the clock of whoever made the id"
    )]
    Premature {
        transaction: TransactionId,
        ahead: Duration,
        tolerance: Duration,
    },
    /// What is to be recorded does not fit into one entry. The limits on members and names keep decisions far below.
    #[error("{bytes} bytes are to be recorded, the limit is {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// The cluster knows as many participants as it may; this one is new (R14).
    #[error(
        "participant {participant} is new, and {limit} participants are registered already, the limit of this cluster: it \
         is not registered. Look for names that nobody uses (`unanimo status` shows all); if they are all wanted, raise \
         limits.participants on every node and restart it"
    )]
    TooManyParticipants {
        participant: ParticipantId,
        limit: usize,
    },
    /// The participant runs from an old copy of its data (R11).
    #[error("{0}")]
    Outdated(String),
    /// This node's storage failed; the process is about to stop (R10).
    #[error("the storage of this node failed: {0}")]
    StorageFailed(String),
}

/// Runs transactions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Driver {
    shared: Arc<Shared>,
}

/// What every run shares.
struct Shared {
    limits: LimitsConfig,
    replica: Replica,
    proposer: Proposer,
    participants: Participants,
    lanes: Lanes,
    clock: Arc<dyn Clock>,
    age: Age,
    clocks: Clocks,
    /// How long a leader goes on without hearing from a majority.
    quorum_patience: Duration,
    /// The term in which this node leads and has applied everything that was decided before; none otherwise.
    ready: watch::Sender<Option<u64>>,
    running: Mutex<BTreeMap<TransactionId, Running>>,
    /// Runs that are voting or deciding, against `limits.in_flight`.
    in_flight: AtomicUsize,
    /// The bytes of their operations, against `limits.in_flight_mib`.
    in_flight_bytes: AtomicUsize,
    /// New participants that are being registered, against `limits.participants`.
    newcomers: AtomicUsize,
    /// Set, under the lock of `running`, when this node stops: no run begins after that.
    handing_over: AtomicBool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A transaction that this node is running.
struct Running {
    request_hash: RequestHash,
    answer: watch::Receiver<Option<Answer>>,
    inbox: mpsc::Sender<TransactionInput>,
}

/// How many transactions this node is running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) in_flight: usize,
    pub(crate) completing: usize,
}

impl Driver {
    /// Starts the driver of one node; it works whenever its replica leads.
    pub(crate) fn start(
        cluster: ClusterId,
        (limits, retention): (LimitsConfig, RetentionConfig),
        replica: Replica,
        connector: Arc<dyn Connector>,
        clock: Arc<dyn Clock>,
        quorum_patience: Duration,
    ) -> Self {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            proposer: Proposer::start(replica.clone(), &tasks, stop.clone()),
            participants: Participants::new(cluster.clone(), replica.clone(), Arc::clone(&connector)),
            lanes: Lanes::default(),
            limits,
            replica,
            age: Age::new(retention, Arc::clone(&clock)),
            clocks: Clocks {
                cluster,
                connector,
                clock: Arc::clone(&clock),
            },
            clock,
            quorum_patience,
            ready: watch::Sender::new(None),
            running: Mutex::new(BTreeMap::new()),
            in_flight: AtomicUsize::new(0),
            in_flight_bytes: AtomicUsize::new(0),
            newcomers: AtomicUsize::new(0),
            handing_over: AtomicBool::new(false),
            tasks,
            stop,
        });
        shared.tasks.spawn(takeover::lead_whenever_elected(
            Arc::downgrade(&shared),
            shared.stop.clone(),
        ));
        Self { shared }
    }

    /// Runs a one-shot request under an idempotency key: the transaction that the key stands for, which is this one if
    /// it is the first. Returns which one it is.
    ///
    /// The key is bound in the table before anything is started. So whoever leads next finds the one transaction that
    /// may be running under the key, and its promises decide (R6, R12).
    pub(crate) async fn submit_with_key(
        &self,
        key: IdempotencyKey,
        transaction: TransactionId,
        request: &Request,
        voting_timeout: Duration,
    ) -> Result<(TransactionId, Decision), DriverError> {
        let asked = request.hash();
        let (binding, admitted) = match self.bound(&key)? {
            Some(binding) => (binding, None),
            None => self.bind(key, transaction, request).await?,
        };
        if binding.request_hash != asked {
            return self.shared.outlived_its_key(transaction, asked, &binding);
        }
        let transaction = binding.transaction;
        let decision = self
            .submit_admitted(transaction, request, voting_timeout, admitted)
            .await?;
        Ok((transaction, decision))
    }

    /// What a key stands for, unless it has had its time.
    fn bound(&self, key: &IdempotencyKey) -> Result<Option<Binding>, DriverError> {
        let shared = &self.shared;
        shared.leading()?;
        let horizon = shared.horizon()?;
        let binding = shared.replica.binding(key);
        let Some(binding) = binding.map_err(|error| DriverError::StorageFailed(error.to_string()))? else {
            return Ok(None);
        };
        let open = !horizon.has_closed(binding.transaction);
        let kept = open || shared.record(binding.transaction)?.is_some();
        Ok(kept.then_some(binding))
    }

    /// Binds a key to this transaction, unless it is bound meanwhile. Returns what it stands for, and a place to run
    /// the transaction if that is this one and nobody ran it yet.
    async fn bind(
        &self,
        key: IdempotencyKey,
        transaction: TransactionId,
        request: &Request,
    ) -> Result<(Binding, Option<Admitted>), DriverError> {
        let shared = &self.shared;
        let request_hash = request.hash();
        let mut admitted = None;
        // What is refused binds nothing.
        let horizon = shared.horizon()?;
        if let Some(record) = shared.record(transaction)? {
            if !record.is_for(request_hash) {
                return Err(DriverError::Mismatch {
                    transaction,
                    stored: record.request_hash,
                    asked: request_hash,
                });
            }
        } else {
            shared.age.check(transaction, horizon)?;
            request.check(shared.limits.request())?;
            shared.check_registered(&request.branches().keys().cloned().collect())?;
            if !shared.runs(transaction) {
                admitted = Some(shared.admit(request.operation_bytes())?);
            }
        }
        let binding = Binding {
            transaction,
            request_hash,
        };
        if mutants::is_on(Mutant::M22) {
            return Ok((binding, admitted));
        }
        match shared.propose(Command::Bind { key, binding }).await? {
            Applied::Bound(bound) => {
                let ours = bound.transaction == transaction;
                Ok((bound, admitted.filter(|_| ours)))
            }
            Applied::Expired { watermark } => Err(DriverError::Expired {
                transaction,
                watermark,
            }),
            other => unreachable!("a key was to be bound, the table applied {other:?}"),
        }
    }

    /// Runs a one-shot request, or joins the run of the same request, and waits for the answer (R12).
    pub(crate) async fn submit(
        &self,
        transaction: TransactionId,
        request: &Request,
        voting_timeout: Duration,
    ) -> Result<Decision, DriverError> {
        self.submit_admitted(transaction, request, voting_timeout, None)
            .await
    }

    async fn submit_admitted(
        &self,
        transaction: TransactionId,
        request: &Request,
        voting_timeout: Duration,
        admitted: Option<Admitted>,
    ) -> Result<Decision, DriverError> {
        let new = NewRun {
            transaction,
            request_hash: request.hash(),
            operation_bytes: request.operation_bytes(),
            voting_timeout,
            admitted,
        };
        let members = request.branches().keys().cloned().collect();
        let check = || request.check(self.shared.limits.request());
        let begin = |deadline| Transaction::submitted(transaction, request, deadline);
        self.join_or_start(new, &members, check, begin).await
    }

    /// Commits an interactive transaction: its members have been told their operations already.
    pub(crate) async fn commit(
        &self,
        transaction: TransactionId,
        members: Members,
        voting_timeout: Duration,
    ) -> Result<Decision, DriverError> {
        let asked = RequestHash::of_members(&members);
        let new = NewRun {
            transaction,
            request_hash: asked,
            operation_bytes: 0,
            voting_timeout,
            admitted: None,
        };
        let check = || self.shared.check_count(&members);
        let begin = |deadline| Transaction::adopted(transaction, asked, members.clone(), deadline);
        self.join_or_start(new, &members, check, begin).await
    }

    /// Aborts a transaction unless it is decided, and returns what holds.
    pub(crate) async fn abort(
        &self,
        transaction: TransactionId,
        members: Members,
    ) -> Result<Decision, DriverError> {
        let term = self.shared.leading()?;
        // Before the record: see `known_decision`.
        let horizon = self.shared.horizon()?;
        if let Some(record) = self.shared.decided_before(transaction)? {
            return Ok(record.decision);
        }
        let running = self.shared.running().get(&transaction).map(|running| {
            (
                running.inbox.clone(),
                running.answer.clone(),
                running.request_hash,
            )
        });
        if let Some((inbox, answer, request_hash)) = running {
            // A run that ends meanwhile has its answer out already.
            let _ = inbox.send(TransactionInput::AbortRequested).await;
            return self.answered(transaction, request_hash, answer).await;
        }
        self.shared.age.check(transaction, horizon)?;
        self.shared.check_not_handing_over()?;
        self.shared.check_count(&members)?;
        self.shared.check_registered(&members)?;
        if mutants::is_on(Mutant::M4) {
            return Ok(Decision::Abort(AbortReason::Requested));
        }
        let proposal = Proposal {
            transaction,
            decision: Decision::Abort(AbortReason::Requested),
            // Nobody here knows what was asked under this id, so it is the outcome of whatever was (R12).
            request_hash: RequestHash::NONE,
            unacknowledged: members.clone(),
            members,
            witnesses: BTreeMap::new(),
            decided_at: self.shared.clock.now(),
        };
        match self.shared.decide(proposal).await? {
            Decided::Record(record) => {
                self.shared.resume(transaction, record.clone(), term);
                Ok(record.decision)
            }
            Decided::Superseded(participants) => {
                unreachable!("an Abort rests on no votes, not on those of {participants:?}")
            }
            Decided::Expired { watermark } => Err(DriverError::Expired {
                transaction,
                watermark,
            }),
        }
    }

    /// What is decided, as far as this node has applied; after a read barrier if it leads and knows nothing.
    pub(crate) async fn outcome(&self, transaction: TransactionId) -> Result<Option<Decision>, DriverError> {
        // Before the record: see `known_decision`.
        let horizon = self.shared.horizon()?;
        if let Some(record) = self.shared.record(transaction)? {
            // Decisions never change, so any replica that has applied one may tell it.
            return Ok(Some(record.decision));
        }
        // Neither do closed transactions come back.
        if horizon.has_closed(transaction) {
            return Err(DriverError::Expired {
                transaction,
                watermark: horizon.watermark,
            });
        }
        self.shared.leading()?;
        self.shared.barrier().await?;
        Ok(self.shared.record(transaction)?.map(|record| record.decision))
    }

    /// What this node knows of time.
    pub(crate) fn horizon(&self) -> Result<Horizon, DriverError> {
        self.shared.horizon()
    }

    /// What time a new id says.
    pub(crate) fn time_of_new_id(&self) -> Result<unanimo_core::Timestamp, DriverError> {
        Ok(self.shared.age.of_new_id(self.shared.horizon()?))
    }

    /// The decision for a branch in doubt, if this node has applied one.
    pub(crate) fn known_decision(&self, inquiry: &Inquiry) -> Result<Option<Decision>, DriverError> {
        // Looked at first: what is closed by then, and has no record afterwards, has none for good. The other way round a
        // replica that catches up could apply the decision and the watermark in between.
        let horizon = self.shared.horizon()?;
        if let Some(record) = self.shared.record(inquiry.transaction)? {
            return Ok(Some(record.decision_for(inquiry.request_hash)));
        }
        // A commit is kept until every member has acknowledged it, and the one that asks has not (R7). So if there ever
        // was a decision, it was an abort; and there will be none, because the transaction is closed.
        let closed = horizon.has_closed(inquiry.transaction);
        Ok(closed.then_some(Decision::Abort(AbortReason::Presumed)))
    }

    /// Answers branches in doubt, each for itself. What nobody is running and has no record is taken over: asked again,
    /// and decided in the table before anybody is told (R5, R6).
    pub(crate) async fn inquire(
        &self,
        inquiries: Vec<Inquiry>,
    ) -> Result<Vec<Result<InquiryAnswer, DriverError>>, DriverError> {
        let term = self.shared.leading()?;
        let mut barrier_needed = false;
        for Inquiry { transaction, .. } in &inquiries {
            barrier_needed |= !self.shared.runs(*transaction) && self.shared.record(*transaction)?.is_none();
        }
        if barrier_needed {
            // An old leader must not take over what a newer one has decided or is running.
            self.shared.barrier().await?;
        }
        let answer = |inquiry| self.answer_or_adopt(inquiry, term);
        Ok(inquiries.into_iter().map(answer).collect())
    }

    fn answer_or_adopt(&self, inquiry: Inquiry, term: u64) -> Result<InquiryAnswer, DriverError> {
        // Looked at first: what it has closed is answered, and so never taken over.
        let horizon = self.shared.horizon()?;
        if let Some(decision) = self.known_decision(&inquiry)? {
            return Ok(InquiryAnswer::Decided(decision));
        }
        if mutants::is_on(Mutant::M5) && self.shared.runs(inquiry.transaction) {
            return Ok(InquiryAnswer::Decided(Decision::Abort(AbortReason::Presumed)));
        }
        if !self.shared.runs(inquiry.transaction) {
            if mutants::is_on(Mutant::M4) {
                return Ok(InquiryAnswer::Decided(Decision::Abort(AbortReason::Presumed)));
            }
            // What is taken over is decided, and what is decided must be forgotten some day (R7).
            self.shared.age.check(inquiry.transaction, horizon)?;
            // Nobody can have promised together with a member that never existed.
            self.shared.check_registered(&inquiry.members)?;
        }
        self.adopt(inquiry, term);
        Ok(InquiryAnswer::Undecided)
    }

    /// Takes over an undecided transaction, unless it is running here.
    fn adopt(&self, inquiry: Inquiry, term: u64) {
        let Inquiry {
            transaction,
            request_hash,
            members,
        } = inquiry;
        let mut new = NewRun {
            transaction,
            request_hash,
            operation_bytes: 0,
            voting_timeout: self.shared.limits.voting_timeout(0),
            admitted: None,
        };
        let begin = |deadline| Transaction::adopted(transaction, request_hash, members, deadline);
        // Overload is no harm: the participant asks again.
        match self.shared.start_run(&mut new, term, begin) {
            Ok(Started::New(_)) => {
                crate::metrics::adopted();
                tracing::info!(tx = %transaction, "taking over an undecided transaction");
            }
            Ok(Started::Joined { .. }) => {}
            Err(error) => tracing::debug!(tx = %transaction, %error, "not taken over now"),
        }
    }

    /// Records where a participant serves and how far its memory reaches (R11).
    pub(crate) async fn register(&self, registering: Registering) -> Result<(), DriverError> {
        self.shared.leading()?;
        let Registering {
            participant,
            registration,
        } = registering;
        let _counted = self.shared.admit_participant(&participant).await?;
        let offered = registration.clone();
        let command = Command::Register {
            participant: participant.clone(),
            registration,
        };
        match self.shared.propose(command).await? {
            Applied::Registered => {
                tracing::info!(%participant, address = offered.address, generation = %offered.witness.generation, "registered");
                Ok(())
            }
            Applied::Outdated { known } => Err(DriverError::Outdated(format!(
                "participant {participant} at {} starts as {} with its journal at {}, but the cluster has seen {} and {} of it at {}: \
                 it runs from an old copy of its data, or a second copy is running. Start it from its newest data folder; \
                 if that is lost, give the service a new participant name",
                offered.address,
                offered.witness.generation,
                offered.witness.position,
                known.witness.generation,
                known.witness.position,
                known.address,
            ))),
            other => unreachable!("a registration was proposed, the table applied {other:?}"),
        }
    }

    /// Whether this node leads and has applied everything decided before.
    pub(crate) fn is_ready(&self) -> bool {
        self.shared.ready.borrow().is_some()
    }

    /// Follows whether this node is ready to lead.
    pub(crate) fn readiness(&self) -> watch::Receiver<Option<u64>> {
        self.shared.ready.subscribe()
    }

    /// How much this node is running.
    pub(crate) fn load(&self) -> Load {
        let in_flight = self.shared.in_flight.load(Ordering::Relaxed);
        let running = self.shared.running().len();
        Load {
            in_flight,
            completing: running.saturating_sub(in_flight),
        }
    }

    /// Stops taking new transactions and waits until those that are voting have their answer, at most `patience`.
    pub(crate) async fn drain(&self, patience: Duration) {
        {
            let _no_run_begins = self.shared.running();
            self.shared.handing_over.store(true, Ordering::Relaxed);
        }
        let deadline = tokio::time::Instant::now() + patience;
        while self.shared.in_flight.load(Ordering::Relaxed) > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends every run and lets go of the replica. What was running is left to the next leader.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.shared.stop.cancel();
        self.shared.ready.send_replace(None);
        self.shared.tasks.close();
        if tokio::time::timeout(patience, self.shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some runs did not end in time");
        }
    }

    /// Answers from the table, joins a run of the same request, or starts one. While another request runs under the
    /// id, waits for what the table says: until then either may still win it.
    async fn join_or_start(
        &self,
        mut new: NewRun,
        members: &Members,
        check: impl Fn() -> Result<(), RequestError>,
        begin: impl Fn(unanimo_core::Timestamp) -> (Transaction, Vec<TransactionEffect>),
    ) -> Result<Decision, DriverError> {
        let (transaction, asked) = (new.transaction, new.request_hash);
        loop {
            let term = self.shared.leading()?;
            let horizon = self.shared.horizon()?;
            if let Some(record) = self.shared.decided_before(transaction)? {
                let stored = record.request_hash;
                return if record.is_for(asked) {
                    Ok(record.decision)
                } else {
                    Err(DriverError::Mismatch {
                        transaction,
                        stored,
                        asked,
                    })
                };
            }
            if !self.shared.running().contains_key(&transaction) {
                self.shared.age.check(transaction, horizon)?;
            }
            // Only now: what was decided under other limits is told all the same (R12).
            check()?;
            self.shared.check_registered(members)?;
            let started = self.shared.start_run(&mut new, term, &begin)?;
            let (request_hash, answer) = match started {
                Started::New(answer) => (asked, answer),
                Started::Joined { request_hash, answer } => (request_hash, answer),
            };
            let told = self.answered(transaction, request_hash, answer).await;
            if request_hash == asked {
                return told;
            }
            // Whoever won the id, it stands in the table now; anything else is for the caller to try again.
            match told {
                Ok(_) | Err(DriverError::Mismatch { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn answered(
        &self,
        transaction: TransactionId,
        asked: RequestHash,
        mut answer: watch::Receiver<Option<Answer>>,
    ) -> Result<Decision, DriverError> {
        let told = match answer.wait_for(Option::is_some).await {
            Ok(told) => told.clone(),
            // The run ended without a word: it was dropped with the runtime.
            Err(_) => None,
        };
        match told {
            Some(Answer::Decided(decision)) => Ok(decision),
            Some(Answer::Mismatch(stored)) => Err(DriverError::Mismatch {
                transaction,
                stored,
                asked,
            }),
            Some(Answer::Expired { watermark }) => Err(DriverError::Expired {
                transaction,
                watermark,
            }),
            Some(Answer::Lost) | None => Err(DriverError::Unknown),
        }
    }
}

/// What a run is started with.
struct NewRun {
    transaction: TransactionId,
    request_hash: RequestHash,
    operation_bytes: usize,
    voting_timeout: Duration,
    /// A place that is taken already.
    admitted: Option<Admitted>,
}

/// What came of proposing a decision.
enum Decided {
    Record(DecisionRecord),
    Superseded(Members),
    Expired { watermark: TransactionId },
}

/// What came of asking for a run.
enum Started {
    New(watch::Receiver<Option<Answer>>),
    Joined {
        request_hash: RequestHash,
        answer: watch::Receiver<Option<Answer>>,
    },
}

/// A new participant that is being registered.
struct Newcomer<'a>(&'a AtomicUsize);

impl<'a> Newcomer<'a> {
    /// One more, and how many there are with it.
    fn counted(newcomers: &'a AtomicUsize) -> (Self, usize) {
        let before = newcomers.fetch_add(1, Ordering::SeqCst);
        (Self(newcomers), before + 1)
    }
}

impl Drop for Newcomer<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, BTreeMap<TransactionId, Running>> {
        // The map is consistent between any two statements, so a panic elsewhere does not spoil it.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self, transaction: TransactionId) -> bool {
        self.running().contains_key(&transaction)
    }

    /// The term in which this node leads and is ready.
    fn leading(&self) -> Result<u64, DriverError> {
        (*self.ready.borrow()).ok_or(DriverError::NotLeader)
    }

    fn check_not_handing_over(&self) -> Result<(), DriverError> {
        if self.handing_over.load(Ordering::Relaxed) {
            return Err(DriverError::HandingOver);
        }
        Ok(())
    }

    /// What whoever repeats a request is told whose key stands for another one. Either it always has; or the key is free
    /// since the request's own transaction was closed, and somebody else has taken it: then that it had no effect would
    /// not be true.
    fn outlived_its_key(
        &self,
        transaction: TransactionId,
        asked: RequestHash,
        binding: &Binding,
    ) -> Result<(TransactionId, Decision), DriverError> {
        // Before the horizon: a record that is dropped between the two is of what is closed.
        let record = self.record(transaction)?;
        let horizon = self.horizon()?;
        if transaction == binding.transaction || !horizon.has_closed(transaction) {
            return Err(DriverError::Mismatch {
                transaction: binding.transaction,
                stored: binding.request_hash,
                asked,
            });
        }
        match record {
            Some(record) if record.is_for(asked) => Ok((transaction, record.decision)),
            Some(_) | None => Err(DriverError::Expired {
                transaction,
                watermark: horizon.watermark,
            }),
        }
    }

    fn record(&self, transaction: TransactionId) -> Result<Option<DecisionRecord>, DriverError> {
        self.replica
            .record(transaction)
            .map_err(|error| DriverError::StorageFailed(error.to_string()))
    }

    /// The same for who is about to decide.
    fn decided_before(&self, transaction: TransactionId) -> Result<Option<DecisionRecord>, DriverError> {
        if mutants::is_on(Mutant::M6) {
            return Ok(None);
        }
        self.record(transaction)
    }

    fn registration(
        &self,
        participant: &ParticipantId,
    ) -> Result<Option<unanimo_core::table::Registration>, DriverError> {
        self.replica
            .registration(participant)
            .map_err(|error| DriverError::StorageFailed(error.to_string()))
    }

    fn horizon(&self) -> Result<Horizon, DriverError> {
        self.replica
            .horizon()
            .map_err(|error| DriverError::StorageFailed(error.to_string()))
    }

    /// A member that never registered cannot have promised anything, nor hear what is decided.
    fn check_registered(&self, members: &Members) -> Result<(), DriverError> {
        for participant in members {
            if self.registration(participant)?.is_none() {
                let participant = participant.clone();
                return Err(DriverError::UnknownParticipant { participant });
            }
        }
        Ok(())
    }

    /// Refuses a participant that is new if there are as many as there may be. Counts it until the guard is dropped.
    async fn admit_participant(
        &self,
        participant: &ParticipantId,
    ) -> Result<Option<Newcomer<'_>>, DriverError> {
        if self.registration(participant)?.is_some() {
            return Ok(None);
        }
        let limit = self.limits.participants;
        let (newcomer, newcomers) = Newcomer::counted(&self.newcomers);
        // Counted after it stands among the newcomers: each of the others is there or in the table, or for a moment in
        // both. So never too many are let in; at the very limit one may have to come again.
        let known = self.replica.count_registrations_aside(limit).await;
        let known = known.map_err(|error| DriverError::StorageFailed(error.to_string()))?;
        if known + newcomers > limit {
            let participant = participant.clone();
            return Err(DriverError::TooManyParticipants { participant, limit });
        }
        Ok(Some(newcomer))
    }

    fn check_count(&self, members: &Members) -> Result<(), RequestError> {
        let limit = self.limits.members;
        if members.len() > limit {
            return Err(RequestError::TooManyBranches { limit });
        }
        Ok(())
    }

    async fn barrier(&self) -> Result<(), DriverError> {
        self.replica.read_barrier().await.map_err(DriverError::from)
    }

    async fn propose(&self, command: Command) -> Result<Applied, DriverError> {
        self.proposer.propose(command).await.map_err(DriverError::from)
    }

    /// Records a decision, and returns what came of it: the one that stands (R1), or who has to vote again (R11).
    async fn decide(&self, proposal: Proposal) -> Result<Decided, DriverError> {
        if mutants::is_on(Mutant::M8) {
            let record = DecisionRecord {
                decision: proposal.decision.clone(),
                request_hash: proposal.request_hash,
                members: proposal.members.clone(),
                unacknowledged: proposal.unacknowledged.clone(),
                decided_at: proposal.decided_at,
            };
            let proposer = self.proposer.clone();
            self.tasks
                .spawn(async move { proposer.propose(Command::Decide(proposal)).await });
            return Ok(Decided::Record(record));
        }
        let (ours, decided_at) = (proposal.decision.clone(), proposal.decided_at);
        match self.propose(Command::Decide(proposal)).await? {
            Applied::Decided(record) => {
                if (&record.decision, record.decided_at) == (&ours, decided_at) {
                    crate::metrics::decided(&ours);
                }
                Ok(Decided::Record(record))
            }
            Applied::Superseded { participants } => Ok(Decided::Superseded(participants)),
            Applied::Expired { watermark } => Ok(Decided::Expired { watermark }),
            other => unreachable!("a decision was proposed, the table applied {other:?}"),
        }
    }

    /// Starts a run, or finds the one there is.
    fn start_run(
        self: &Arc<Self>,
        new: &mut NewRun,
        term: u64,
        begin: impl FnOnce(unanimo_core::Timestamp) -> (Transaction, Vec<TransactionEffect>),
    ) -> Result<Started, DriverError> {
        let mut running = self.running();
        if let Some(found) = running.get(&new.transaction) {
            let (request_hash, answer) = (found.request_hash, found.answer.clone());
            return Ok(Started::Joined { request_hash, answer });
        }
        let admitted = match new.admitted.take() {
            Some(admitted) => admitted,
            None => self.admit_among(&running, new.operation_bytes)?,
        };
        let (state, effects) = begin(self.clock.now().after(new.voting_timeout));
        let (run, handle) = Run::voting(self.clone(), state, (term, new), admitted);
        let answer = handle.answer.clone();
        running.insert(new.transaction, handle);
        drop(running);
        self.tasks.spawn(run.drive(effects));
        Ok(Started::New(answer))
    }

    /// Delivers a recorded decision, unless somebody does already.
    fn resume(self: &Arc<Self>, transaction: TransactionId, record: DecisionRecord, term: u64) {
        if record.is_ended() {
            return;
        }
        let mut running = self.running();
        let Entry::Vacant(vacant) = running.entry(transaction) else {
            return;
        };
        let request_hash = record.request_hash;
        let (state, effects) = Transaction::resumed(transaction, record);
        let (run, handle) = Run::completing(self.clone(), state, term, request_hash);
        vacant.insert(handle);
        drop(running);
        self.tasks.spawn(run.drive(effects));
    }

    /// Whether a majority has confirmed this leader lately.
    fn has_quorum(&self) -> bool {
        let patience = self.quorum_patience.as_millis();
        self.replica
            .status()
            .since_quorum_ms
            .is_none_or(|since| u128::from(since) < patience)
    }

    /// Runs that wait for acknowledgements only.
    fn completing(&self) -> usize {
        self.running()
            .len()
            .saturating_sub(self.in_flight.load(Ordering::Relaxed))
    }
}

impl From<ProposeError> for DriverError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { .. } | ProposeError::Busy => Self::NotLeader,
            ProposeError::Unknown => Self::Unknown,
            ProposeError::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
            ProposeError::Failed(message) => Self::StorageFailed(message),
        }
    }
}
