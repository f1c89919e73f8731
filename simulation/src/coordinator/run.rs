//! One transaction on the leader of one term: its effects, carried out in order.

use std::collections::BTreeMap;
use std::rc::Rc;

use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::{Applied, Command, DecisionRecord, Proposal, View as _, Witness};
use unanimo_core::{
    Decision, Members, Operation, RequestHash, Transaction, TransactionEffect, TransactionId,
    TransactionInput, TransactionPhase, Vote,
};

use super::Caller;
use crate::counters::Sometimes;
use crate::event::Event;
use crate::log::Waiter;
use crate::message::{Message, Told, Why};
use crate::node::{Node, participant_place};
use crate::schedule::{MS, Time};
use crate::world::{Timer, World};

/// The first pause before a call is made again.
const FIRST_PAUSE_MS: u64 = 20;

/// What initiators that wait are told.
#[derive(Clone, Debug)]
enum Answer {
    Decided(Decision),
    Mismatch,
}

/// A call to a member, made again until it is answered.
#[derive(Clone, Debug)]
struct Call {
    asks: Asks,
    attempt: u32,
}

#[derive(Clone, Debug)]
enum Asks {
    Prepare(Option<Operation>),
    Deliver { commit: bool },
}

/// A run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: u64,
    pub(crate) transaction: Transaction,
    members: Rc<Members>,
    deadline: Time,
    /// It has a place among those that vote.
    pub(super) is_voting: bool,
    was_adopted: bool,
    answer: Option<Answer>,
    /// Whoever waits, and for which request.
    waiting: Vec<(Caller, RequestHash)>,
    calls: BTreeMap<u8, Call>,
    /// Acknowledgements on their way into the table; the run goes on until they are there.
    recording: u32,
    /// Members are left to the table, because too much waits for them.
    is_parked: bool,
}

impl World {
    /// Starts a run with the voting phase. It has a place already.
    pub(crate) fn start_voting(
        &mut self,
        place: usize,
        term: u64,
        transaction: Transaction,
        caller: Option<(Caller, RequestHash)>,
        effects: Vec<TransactionEffect>,
    ) {
        let voting = self.knobs.voting_ms * MS;
        let id = transaction.id();
        let was_adopted = caller.is_none();
        self.watch.history.ran_in.insert(id, term);
        let run = self.start_run(place, transaction, true, was_adopted);
        self.tell_load(place);
        let node = Node::Coordinator(place as u8);
        self.wait(node, voting, Timer::Deadline { transaction: id, run });
        if let Some(run) = self.coordinators[place].runs.get_mut(&id) {
            run.waiting.extend(caller);
        }
        self.carry_out_transaction(place, id, effects);
    }

    fn start_run(&mut self, place: usize, transaction: Transaction, votes: bool, was_adopted: bool) -> u64 {
        let (node, id) = (Node::Coordinator(place as u8), transaction.id());
        self.watch.happened(&Event::TransactionMoved {
            node,
            transaction: id,
            request_hash: transaction.request_hash(),
            from: None,
            to: transaction.phase(),
        });
        let answer = match transaction.phase() {
            TransactionPhase::Completing { decision, .. } | TransactionPhase::Ended { decision } => {
                Some(Answer::Decided(decision.clone()))
            }
            TransactionPhase::Preparing { .. } | TransactionPhase::Deciding { .. } => None,
        };
        let deadline = self.now + self.knobs.voting_ms * MS;
        let node = &mut self.coordinators[place];
        node.run_count += 1;
        let run = node.run_count;
        let members = Rc::new(transaction.members().clone());
        node.runs.insert(
            id,
            Run {
                id: run,
                transaction,
                members,
                deadline,
                is_voting: votes,
                was_adopted,
                answer,
                waiting: Vec::new(),
                calls: BTreeMap::new(),
                recording: 0,
                is_parked: false,
            },
        );
        run
    }

    /// Delivers a recorded decision, unless somebody does already.
    pub(crate) fn resume(&mut self, place: usize, _term: u64, id: TransactionId, record: DecisionRecord) {
        if record.is_ended() || self.coordinators[place].runs.contains_key(&id) {
            return;
        }
        let (transaction, effects) = Transaction::resumed(id, record);
        self.start_run(place, transaction, false, false);
        self.carry_out_transaction(place, id, effects);
    }

    pub(crate) fn completing(&self, place: usize) -> u64 {
        let node = &self.coordinators[place];
        (node.runs.len() as u64).saturating_sub(node.in_flight)
    }

    pub(crate) fn wait_for_run(
        &mut self,
        place: usize,
        caller: Caller,
        id: TransactionId,
        hash: RequestHash,
    ) {
        let Some(run) = self.coordinators[place].runs.get_mut(&id) else {
            return self.refuse(place, &caller, Why::Unknown);
        };
        let same = run.transaction.request_hash() == hash;
        run.waiting.push((caller, hash));
        self.watch.sometimes(if same {
            Sometimes::DuplicateJoinedARun
        } else {
            Sometimes::RivalRequestWaited
        });
        self.tell_waiting(place, id);
    }

    /// Tells whoever waits what holds, if anything does. Another request under the id looks into the table now.
    fn tell_waiting(&mut self, place: usize, id: TransactionId) {
        let Some(run) = self.coordinators[place].runs.get_mut(&id) else {
            return;
        };
        let Some(answer) = run.answer.clone() else { return };
        let ours = run.transaction.request_hash();
        for (caller, hash) in std::mem::take(&mut run.waiting) {
            if hash != ours {
                // It would wait for this run for ever, which has nothing more to say.
                let stored = self.coordinators[place].replica.table.records().get(&id).cloned();
                match stored {
                    Some(record) if record.is_for(hash) => {
                        let decision = record.decision;
                        let told = Told::Decided {
                            transaction: id,
                            decision,
                        };
                        self.tell(place, &caller, told);
                    }
                    Some(_) => {
                        self.watch.sometimes(Sometimes::RivalRequestRefused);
                        self.refuse(place, &caller, Why::Mismatch);
                    }
                    None => self.refuse(place, &caller, Why::Unknown),
                }
                continue;
            }
            match &answer {
                Answer::Decided(decision) => {
                    let decision = decision.clone();
                    let told = Told::Decided {
                        transaction: id,
                        decision,
                    };
                    self.tell(place, &caller, told);
                }
                Answer::Mismatch => {
                    self.watch.sometimes(Sometimes::RivalRequestRefused);
                    self.refuse(place, &caller, Why::Mismatch);
                }
            }
        }
    }

    fn answer(&mut self, place: usize, id: TransactionId, answer: Answer) {
        let node = &mut self.coordinators[place];
        if let Some(run) = node.runs.get_mut(&id) {
            run.answer.get_or_insert(answer);
            if std::mem::take(&mut run.is_voting) {
                node.gives_a_place_back();
            }
        }
        self.tell_waiting(place, id);
    }

    /// Ends a run that has nothing to say: this node no longer leads, or the transaction is closed.
    pub(crate) fn drop_run(&mut self, place: usize, id: TransactionId, why: Why) {
        let node = &mut self.coordinators[place];
        let Some(run) = node.runs.remove(&id) else { return };
        if run.is_voting {
            node.gives_a_place_back();
        }
        for (caller, _) in run.waiting {
            self.refuse(place, &caller, why);
        }
    }

    pub(crate) fn step_transaction(&mut self, place: usize, id: TransactionId, input: TransactionInput) {
        let node = &mut self.coordinators[place];
        let now = node.clock.wall(self.now);
        let Some(run) = node.runs.get_mut(&id) else { return };
        let from = run.transaction.phase().clone();
        let effects = run.transaction.step(input, now);
        let to = run.transaction.phase();
        if std::mem::discriminant(&from) != std::mem::discriminant(to) {
            let adopted_commit = run.was_adopted
                && matches!(to, TransactionPhase::Completing { decision, .. } if decision.is_commit());
            if adopted_commit {
                self.watch.sometimes(Sometimes::AdoptedAndCommitted);
            }
            self.watch.happened(&Event::TransactionMoved {
                node: Node::Coordinator(place as u8),
                transaction: id,
                request_hash: run.transaction.request_hash(),
                from: Some(&from),
                to,
            });
        }
        self.carry_out_transaction(place, id, effects);
    }

    /// Carries the effects out in the order given. The node may crash after each.
    fn carry_out_transaction(&mut self, place: usize, id: TransactionId, effects: Vec<TransactionEffect>) {
        let node = Node::Coordinator(place as u8);
        for effect in effects {
            match effect {
                TransactionEffect::Prepare {
                    participant,
                    operation,
                } => {
                    let asks = Asks::Prepare(operation);
                    self.call(place, id, participant_place(&participant) as u8, asks);
                }
                TransactionEffect::Decide(proposal) => self.decide(place, id, proposal),
                TransactionEffect::Answer(decision) => self.answer(place, id, Answer::Decided(decision)),
                TransactionEffect::AnswerMismatch { .. } => self.answer(place, id, Answer::Mismatch),
                TransactionEffect::Deliver {
                    participant,
                    decision,
                } => {
                    let asks = Asks::Deliver {
                        commit: decision.is_commit(),
                    };
                    self.call(place, id, participant_place(&participant) as u8, asks);
                }
                TransactionEffect::RecordAcknowledged {
                    participants,
                    witnesses,
                } => self.record_acknowledged(place, id, participants, witnesses),
                TransactionEffect::Ignored(_) => {}
                TransactionEffect::Alarm(violation) => self.watch.happened(&Event::Alarm {
                    node,
                    transaction: id,
                    what: violation.to_string(),
                }),
            }
            if self.ends_here(node) {
                return;
            }
        }
        self.leave(place, id);
    }

    /// A run that has nothing to do any more is over.
    fn leave(&mut self, place: usize, id: TransactionId) {
        let Some(run) = self.coordinators[place].runs.get_mut(&id) else {
            return;
        };
        let ended = matches!(run.transaction.phase(), TransactionPhase::Ended { .. });
        if ended && run.recording == 0 {
            self.drop_run(place, id, Why::Unknown);
            return;
        }
        let TransactionPhase::Completing { unacknowledged, .. } = run.transaction.phase() else {
            return;
        };
        if !run.calls.is_empty() || run.recording > 0 {
            return;
        }
        // Who is away is left to the table. Whoever delivers next should not begin with those that know.
        let participants: Members = run.members.difference(unacknowledged).cloned().collect();
        if participants.is_empty() || !run.is_parked {
            self.drop_run(place, id, Why::Unknown);
            return;
        }
        run.is_parked = false;
        let witnesses = run.transaction.acknowledged_at().clone();
        self.record_acknowledged(place, id, participants, witnesses);
    }

    fn record_acknowledged(
        &mut self,
        place: usize,
        transaction: TransactionId,
        participants: Members,
        witnesses: BTreeMap<unanimo_core::ParticipantId, Witness>,
    ) {
        let Some(run) = self.coordinators[place].runs.get_mut(&transaction) else {
            return;
        };
        run.recording += 1;
        let run = run.id;
        let command = Command::Acknowledge {
            transaction,
            participants,
            witnesses,
        };
        self.propose(
            place,
            Some(command),
            Waiter::Acknowledgements { transaction, run },
        );
    }

    fn decide(&mut self, place: usize, id: TransactionId, proposal: Proposal) {
        let Some(run) = self.coordinators[place].runs.get_mut(&id) else {
            return;
        };
        // The votes still missing no longer matter.
        run.calls.clear();
        if mutants::is_on(Mutant::M8) {
            let record = DecisionRecord {
                decision: proposal.decision.clone(),
                request_hash: proposal.request_hash,
                members: proposal.members.clone(),
                unacknowledged: proposal.unacknowledged.clone(),
                decided_at: proposal.decided_at,
            };
            self.propose(place, Some(Command::Decide(proposal)), Waiter::Nobody);
            return self.step_transaction(place, id, TransactionInput::DecisionRecorded(record));
        }
        let waiter = Waiter::Decision {
            transaction: id,
            run: run.id,
        };
        self.propose(place, Some(Command::Decide(proposal)), waiter);
    }

    /// A proposal of this leader has been applied; none: not in time, and nobody knows whether it will be.
    pub(crate) fn waiter_hears(&mut self, place: usize, waiter: Waiter, applied: Option<Applied>) {
        let is_there = |world: &Self, id: &TransactionId, run: u64| {
            let runs = &world.coordinators[place].runs;
            runs.get(id).is_some_and(|found| found.id == run)
        };
        match (waiter, applied) {
            (Waiter::Decision { transaction, run }, Some(applied)) if is_there(self, &transaction, run) => {
                let input = match applied {
                    Applied::Decided(record) => TransactionInput::DecisionRecorded(record),
                    Applied::Superseded { participants } => {
                        TransactionInput::PromisesSuperseded { participants }
                    }
                    _ => {
                        self.watch.sometimes(Sometimes::InitiatorToldExpired);
                        return self.drop_run(place, transaction, Why::Expired);
                    }
                };
                let again = matches!(input, TransactionInput::PromisesSuperseded { .. });
                self.step_transaction(place, transaction, input);
                // The deadline may have passed meanwhile.
                if again && let Some(run) = self.coordinators[place].runs.get(&transaction) {
                    let left = run.deadline.saturating_sub(self.now);
                    let run = run.id;
                    let node = Node::Coordinator(place as u8);
                    self.wait(node, left, Timer::Deadline { transaction, run });
                }
            }
            (Waiter::Decision { transaction, run }, None) if is_there(self, &transaction, run) => {
                self.drop_run(place, transaction, Why::Unknown);
            }
            (Waiter::Acknowledgements { transaction, run }, _) if is_there(self, &transaction, run) => {
                if let Some(run) = self.coordinators[place].runs.get_mut(&transaction) {
                    run.recording -= 1;
                }
                self.leave(place, transaction);
            }
            (Waiter::Caller(then), applied) => self.go_on(place, then, applied),
            (Waiter::Decision { .. } | Waiter::Acknowledgements { .. } | Waiter::Nobody, _) => {}
        }
    }

    pub(crate) fn deadline_passed(&mut self, place: usize, transaction: TransactionId, run: u64) {
        let Some(found) = self.coordinators[place].runs.get(&transaction) else {
            return;
        };
        let votes = matches!(found.transaction.phase(), TransactionPhase::Preparing { .. });
        if found.id != run || !votes {
            return;
        }
        let node = Node::Coordinator(place as u8);
        let voting = self.knobs.voting_ms * MS;
        self.watch.happened(&Event::DeadlineFired {
            node,
            transaction,
            voting,
            attempt: self.knobs.attempt_ms * MS,
        });
        self.step_transaction(place, transaction, TransactionInput::TimerFired);
    }

    fn call(&mut self, place: usize, id: TransactionId, member: u8, asks: Asks) {
        if let Some(run) = self.coordinators[place].runs.get_mut(&id) {
            run.calls.insert(member, Call { asks, attempt: 0 });
            self.call_once(place, id, member);
        }
    }

    fn call_once(&mut self, place: usize, id: TransactionId, member: u8) {
        let watermark = self.coordinators[place].watermark();
        let (now, node) = (self.now, &mut self.coordinators[place]);
        let Some(run) = node.runs.get_mut(&id) else { return };
        let Some(call) = run.calls.get_mut(&member) else {
            return;
        };
        call.attempt += 1;
        let attempt = call.attempt;
        let request_hash = run.transaction.request_hash();
        let message = match &call.asks {
            Asks::Prepare(operation) => Message::Prepare {
                transaction: id,
                members: Rc::clone(&run.members),
                request_hash,
                operation: operation.clone(),
                // A duration, so that the clocks of two nodes need not agree (R8).
                remaining_ms: run.deadline.saturating_sub(now) / MS,
                watermark,
            },
            Asks::Deliver { commit } => Message::Deliver {
                transaction: id,
                request_hash,
                commit: *commit,
                watermark,
            },
        };
        let run = run.id;
        let node = Node::Coordinator(place as u8);
        self.send(node, Node::Participant(member), message);
        let timer = Timer::CallAgain {
            transaction: id,
            run,
            member,
            attempt,
        };
        self.wait(node, self.knobs.attempt_ms * MS, timer);
    }

    pub(crate) fn call_again(&mut self, place: usize, id: TransactionId, run: u64, member: u8, attempt: u32) {
        let completing = self.completing(place);
        let Some(found) = self.coordinators[place].runs.get_mut(&id) else {
            return;
        };
        if found.id != run
            || found
                .calls
                .get(&member)
                .is_none_or(|call| call.attempt != attempt)
        {
            return;
        }
        let delivers = matches!(found.calls[&member].asks, Asks::Deliver { .. });
        if delivers && completing > self.knobs.completing {
            found.calls.remove(&member);
            found.is_parked = true;
            self.watch.sometimes(Sometimes::DeliveryParked);
            return self.leave(place, id);
        }
        self.call_once(place, id, member);
    }

    /// Makes the call again after a pause that grows.
    fn pause_and_call_again(&mut self, place: usize, id: TransactionId, member: u8) {
        let Some(run) = self.coordinators[place].runs.get(&id) else {
            return;
        };
        let Some(call) = run.calls.get(&member) else {
            return;
        };
        let pause = FIRST_PAUSE_MS << call.attempt.min(10);
        let timer = Timer::CallAgain {
            transaction: id,
            run: run.id,
            member,
            attempt: call.attempt,
        };
        let pause = pause.min(self.knobs.pause_max_ms) * MS;
        self.wait(Node::Coordinator(place as u8), pause, timer);
    }

    /// The run that a reply is for, if this member's word is waited for.
    fn waits_for(
        &self,
        place: usize,
        from: Node,
        (id, hash): (TransactionId, RequestHash),
        prepare: bool,
    ) -> Option<u8> {
        let Node::Participant(member) = from else {
            return None;
        };
        let run = self.coordinators[place].runs.get(&id)?;
        let call = run.calls.get(&member)?;
        let same = run.transaction.request_hash() == hash;
        (same && matches!(call.asks, Asks::Prepare(_)) == prepare).then_some(member)
    }

    /// A member votes. Whether the vote was waited for does not matter while the run collects votes: it may be late, or
    /// come again (R9).
    pub(crate) fn voted(
        &mut self,
        place: usize,
        from: Node,
        (id, request_hash): (TransactionId, RequestHash),
        vote: Vote,
        witness: Option<Witness>,
    ) {
        let Node::Participant(member) = from else { return };
        let Some(run) = self.coordinators[place].runs.get(&id) else {
            return;
        };
        let votes = matches!(run.transaction.phase(), TransactionPhase::Preparing { .. });
        if !votes || run.transaction.request_hash() != request_hash {
            return;
        }
        let participant = self.ids[usize::from(member)].clone();
        // Only a promise of the registered start counts (R11).
        let Ok(known) = self.coordinators[place].replica.table.registration(&participant);
        if let (Some(witness), Some(known)) = (&witness, known)
            && witness.generation != known.witness.generation
        {
            return self.pause_and_call_again(place, id, member);
        }
        self.watch.happened(&Event::VoteReached {
            node: Node::Coordinator(place as u8),
            at: member,
            transaction: id,
            request_hash,
            vote: &vote,
        });
        if let Some(run) = self.coordinators[place].runs.get_mut(&id) {
            run.calls.remove(&member);
        }
        let input = TransactionInput::Voted {
            participant,
            vote,
            witness,
        };
        self.step_transaction(place, id, input);
    }

    pub(crate) fn acknowledged(
        &mut self,
        place: usize,
        from: Node,
        asked: (TransactionId, RequestHash),
        _commit: bool,
        witness: Option<Witness>,
    ) {
        let Some(member) = self.waits_for(place, from, asked, false) else {
            return;
        };
        if let Some(run) = self.coordinators[place].runs.get_mut(&asked.0) {
            run.calls.remove(&member);
        }
        let participant = self.ids[usize::from(member)].clone();
        let input = TransactionInput::Acknowledged { participant, witness };
        self.step_transaction(place, asked.0, input);
    }

    pub(crate) fn refused(
        &mut self,
        place: usize,
        from: Node,
        asked: (TransactionId, RequestHash),
        prepare: bool,
        _why: Why,
    ) {
        // No refusal is a No, and none is an acknowledgement.
        if let Some(member) = self.waits_for(place, from, asked, prepare) {
            self.pause_and_call_again(place, asked.0, member);
        }
    }
}
