//! One task that runs one transaction: carries out the effects of its state machine, in order.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use unanimo_core::table::{Command, Witness};
use unanimo_core::{
    Decision, Members, Operation, ParticipantId, RequestHash, Transaction, TransactionEffect, TransactionId,
    TransactionInput, TransactionPhase,
};
use unanimo_proto::{ErrorReason, PrepareMessage};

use super::admission::Admitted;
use super::participants::{Participants, refuses_this_call};
use super::{Answer, Decided, NewRun, Running, Shared};
use crate::metrics::{self, Alarm, Mistrust, Reply};

/// Inputs from outside that may wait for a run. Only initiators that ask for an abort use it.
const INBOX: usize = 4;

type Call = Pin<Box<dyn Future<Output = Event> + Send>>;

/// What a call came back with.
enum Event {
    Input(TransactionInput),
    /// The decision may or may not be recorded; whoever leads next knows.
    Lost,
    /// The transaction was closed meanwhile. Members that promised ask, and are told to abort.
    Expired {
        watermark: TransactionId,
    },
    /// A call that has nothing more to say. A member may be away while too much waits for such; the table remembers it.
    Parked,
}

/// A run of one transaction on the leader of one term.
pub(super) struct Run {
    shared: Arc<Shared>,
    transaction: Transaction,
    term: u64,
    started: Instant,
    deadline: Instant,
    answer: watch::Sender<Option<Answer>>,
    inbox: mpsc::Receiver<TransactionInput>,
    /// Its place in `in_flight`, until the decision is known.
    voting: Option<Admitted>,
    calls: FuturesUnordered<Call>,
}

impl Run {
    /// A run that starts with the voting phase.
    pub(super) fn voting(
        shared: Arc<Shared>,
        transaction: Transaction,
        (term, new): (u64, &NewRun),
        admitted: Admitted,
    ) -> (Self, Running) {
        Self::new(
            shared,
            transaction,
            term,
            new.voting_timeout,
            new.request_hash,
            Some(admitted),
        )
    }

    /// A run that only delivers a decision that is recorded.
    pub(super) fn completing(
        shared: Arc<Shared>,
        transaction: Transaction,
        term: u64,
        request_hash: RequestHash,
    ) -> (Self, Running) {
        Self::new(shared, transaction, term, Duration::ZERO, request_hash, None)
    }

    fn new(
        shared: Arc<Shared>,
        transaction: Transaction,
        term: u64,
        voting_timeout: Duration,
        request_hash: RequestHash,
        voting: Option<Admitted>,
    ) -> (Self, Running) {
        let told = match transaction.phase() {
            TransactionPhase::Completing { decision, .. } | TransactionPhase::Ended { decision } => {
                Some(Answer::Decided(decision.clone()))
            }
            TransactionPhase::Preparing { .. } | TransactionPhase::Deciding { .. } => None,
        };
        let (answer, told) = watch::channel(told);
        let (sender, inbox) = mpsc::channel(INBOX);
        let started = Instant::now();
        let deadline = started + voting_timeout;
        let calls = FuturesUnordered::new();
        let run = Self {
            shared,
            transaction,
            term,
            started,
            deadline,
            answer,
            inbox,
            voting,
            calls,
        };
        (
            run,
            Running {
                request_hash,
                answer: told,
                inbox: sender,
            },
        )
    }

    /// Runs the transaction until every member has acknowledged, or this node no longer leads.
    pub(super) async fn drive(mut self, effects: Vec<TransactionEffect>) {
        let mut leading = self.shared.ready.subscribe();
        self.carry_out(effects);
        while !matches!(self.transaction.phase(), TransactionPhase::Ended { .. }) {
            let preparing = matches!(self.transaction.phase(), TransactionPhase::Preparing { .. });
            // All arms are cancel safe: a call that loses stays in `calls`, the receivers take nothing when they
            // lose, and the sleep is made anew.
            let event = tokio::select! {
                Some(event) = self.calls.next() => event,
                Some(input) = self.inbox.recv() => Event::Input(input),
                () = sleep_until(self.deadline), if preparing => Event::Input(TransactionInput::TimerFired),
                _ = leading.wait_for(|ready| *ready != Some(self.term)) => Event::Lost,
            };
            match event {
                Event::Input(input) => {
                    let effects = self.transaction.step(input, self.shared.clock.now());
                    self.carry_out(effects);
                }
                Event::Lost => {
                    self.tell(Answer::Lost);
                    return;
                }
                Event::Expired { watermark } => {
                    self.tell(Answer::Expired { watermark });
                    return;
                }
                Event::Parked => {}
            }
            // The others are still told; only who is away is left to the table.
            if self.calls.is_empty()
                && matches!(self.transaction.phase(), TransactionPhase::Completing { .. })
            {
                self.record_acknowledged_so_far();
                break;
            }
        }
        // The last effects of a run are proposals. Until they are in the table, it shows members that know the decision as
        // if they did not, so this run goes on: nobody else tells them again. Cancel safe: nothing is lost but time.
        tokio::select! {
            () = async { while self.calls.next().await.is_some() {} } => {}
            _ = leading.wait_for(|ready| *ready != Some(self.term)) => {}
        }
    }

    /// Whoever delivers next should not begin with those that know the decision.
    fn record_acknowledged_so_far(&mut self) {
        let TransactionPhase::Completing { unacknowledged, .. } = self.transaction.phase() else {
            return;
        };
        let members = self.transaction.members();
        let participants: Members = members.difference(unacknowledged).cloned().collect();
        if !participants.is_empty() {
            let witnesses = self.transaction.acknowledged_at().clone();
            self.record_acknowledged(participants, witnesses);
        }
    }

    fn record_acknowledged(&mut self, participants: Members, witnesses: BTreeMap<ParticipantId, Witness>) {
        let (shared, transaction) = (self.shared.clone(), self.transaction.id());
        self.calls.push(Box::pin(async move {
            let command = Command::Acknowledge {
                transaction,
                participants,
                witnesses,
            };
            shared.proposer.propose_lazily(command).await;
            Event::Parked
        }));
    }

    fn carry_out(&mut self, effects: Vec<TransactionEffect>) {
        let tx = self.transaction.id();
        for effect in effects {
            match effect {
                TransactionEffect::Prepare {
                    participant,
                    operation,
                } => self.prepare(participant, operation),
                TransactionEffect::Decide(proposal) => {
                    // The votes still missing no longer matter.
                    self.calls.clear();
                    let shared = self.shared.clone();
                    self.calls.push(Box::pin(async move {
                        match shared.decide(proposal).await {
                            Ok(Decided::Record(record)) => {
                                Event::Input(TransactionInput::DecisionRecorded(record))
                            }
                            Ok(Decided::Expired { watermark }) => Event::Expired { watermark },
                            Ok(Decided::Superseded(participants)) => {
                                metrics::mistrusted(Reply::Vote, Mistrust::Superseded, participants.len());
                                tracing::info!(%tx, ?participants, "came up again since they voted, and are asked again");
                                Event::Input(TransactionInput::PromisesSuperseded { participants })
                            }
                            Err(error) => {
                                tracing::info!(%tx, %error, "the decision is left to the next leader");
                                Event::Lost
                            }
                        }
                    }));
                }
                TransactionEffect::Answer(decision) => {
                    tracing::debug!(%tx, %decision, "decided");
                    self.tell(Answer::Decided(decision));
                }
                TransactionEffect::AnswerMismatch { stored } => self.tell(Answer::Mismatch(stored)),
                TransactionEffect::Deliver {
                    participant,
                    decision,
                } => self.deliver(participant, decision),
                TransactionEffect::RecordAcknowledged {
                    participants,
                    witnesses,
                } => self.record_acknowledged(participants, witnesses),
                TransactionEffect::Ignored(why) => tracing::trace!(%tx, ?why, "ignored"),
                TransactionEffect::Alarm(violation) => {
                    metrics::alarm(Alarm::DecisionChanged);
                    tracing::error!(%tx, %violation, "a rule of the protocol was broken; nothing was changed");
                }
            }
        }
    }

    fn prepare(&mut self, participant: ParticipantId, operation: Option<Operation>) {
        let message = PrepareMessage {
            transaction: self.transaction.id(),
            participant: participant.clone(),
            members: self.transaction.members().clone(),
            request_hash: self.transaction.request_hash(),
            operation,
            remaining: Duration::ZERO,
            epoch: self.term,
            watermark: self.shared.participants.watermark(),
        };
        let (shared, deadline) = (self.shared.clone(), self.deadline);
        self.calls.push(Box::pin(async move {
            let told = shared.participants.prepare(message, deadline).await;
            Event::Input(TransactionInput::Voted {
                participant,
                vote: told.vote,
                witness: told.witness,
            })
        }));
    }

    fn deliver(&mut self, participant: ParticipantId, decision: Decision) {
        let delivery = Delivery {
            shared: self.shared.clone(),
            transaction: self.transaction.id(),
            request_hash: self.transaction.request_hash(),
            participant,
            decision,
            term: self.term,
        };
        self.calls.push(Box::pin(delivery.until_acknowledged()));
    }

    fn tell(&mut self, answer: Answer) {
        if let (Answer::Decided(decision), Some(_)) = (&answer, &self.voting) {
            metrics::took(decision, self.started.elapsed());
        }
        // The first answer is the answer; later ones can only repeat it.
        self.answer.send_if_modified(|told| {
            let first = told.is_none();
            told.get_or_insert(answer);
            first
        });
        self.voting = None;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // However a run ends, also by a panic: nobody waits for it in vain, and the id can be run again.
        self.voting = None;
        self.shared.running().remove(&self.transaction.id());
    }
}

/// One decision on its way to one member.
struct Delivery {
    shared: Arc<Shared>,
    transaction: TransactionId,
    request_hash: RequestHash,
    participant: ParticipantId,
    decision: Decision,
    term: u64,
}

impl Delivery {
    async fn until_acknowledged(self) -> Event {
        let Self {
            shared,
            transaction: tx,
            request_hash,
            participant,
            decision,
            term,
        } = self;
        let lane = shared.lanes.of(&participant);
        for attempt in 0.. {
            let Some(turn) = lane.turn().await else {
                return Event::Parked;
            };
            let told = shared
                .participants
                .deliver_once(&participant, tx, request_hash, &decision, term)
                .await;
            let error = match told {
                Ok(witness) => {
                    turn.answered();
                    return Event::Input(TransactionInput::Acknowledged { participant, witness });
                }
                Err(error) => error,
            };
            if unanimo_proto::reason_of(&error) == Some(ErrorReason::Violation) {
                metrics::alarm(Alarm::DecisionRefused);
                tracing::error!(%tx, %participant, %decision, %error, "a participant refuses the decision");
            } else {
                tracing::debug!(%tx, %participant, %error, "the decision is delivered again");
            }
            if refuses_this_call(&error) {
                turn.answered();
            } else {
                turn.unanswered();
            }
            if shared.completing() > shared.limits.completing {
                lane.leave();
                return Event::Parked;
            }
            // While it is away the lane says when it is called again.
            if !lane.is_away() {
                tokio::time::sleep(Participants::pause(attempt)).await;
            }
        }
        Event::Parked
    }
}
