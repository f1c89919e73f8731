//! The coordinator's driver: what a leader does around [`Transaction`], on any node that believes to be the leader.

use std::collections::BTreeMap;
use std::time::Duration;

use unanimo_core::table::{Applied, Command, DecisionRecord, Registration, Witness};
use unanimo_core::{
    Decision, Members, Operation, ParticipantId, Request, RequestHash, Timestamp, Transaction,
    TransactionEffect, TransactionId, TransactionInput, TransactionPhase,
};

use super::World;
use super::event::Event;
use super::message::{Address, Envelope, Message, Told};
use super::names::{Seat, transaction_name};

const VOTING_TIME: Duration = Duration::from_millis(1000);

/// A transaction that a leader runs, and what its driver keeps beside it.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) transaction: Transaction,
    operations: BTreeMap<ParticipantId, Operation>,
    /// Other requests under the same id. They wait for the table: until it holds a decision, either request may
    /// still be the one that commits, so "the id is another request's" would be a guess (R12).
    rivals: Vec<RequestHash>,
}

impl Running {
    fn has_ended(&self) -> bool {
        matches!(self.transaction.phase(), TransactionPhase::Ended { .. })
    }
}

/// One node. Everything here is volatile.
#[derive(Clone, Debug)]
pub(crate) struct Coordinator {
    pub(crate) seat: Seat,
    pub(crate) up: bool,
    pub(crate) now: Timestamp,
    pub(crate) running: BTreeMap<TransactionId, Running>,
}

impl Coordinator {
    pub(crate) fn new(node: usize) -> Self {
        Self {
            seat: Seat { node, life: 1 },
            up: true,
            now: Timestamp::from_unix_ms(0),
            running: BTreeMap::new(),
        }
    }
}

impl World {
    /// An initiator submits a request. A `blind` leader does not look into the table first: it was deposed, does not
    /// know it, and its replica is behind.
    pub(crate) fn submit(&mut self, node: usize, id: TransactionId, request: &Request, blind: bool) {
        let seat = self.coordinator(node).seat;
        let hash = request.hash();
        self.names.learn(id, hash);
        if !blind && let Some(record) = self.raft.table().records().get(&id).cloned() {
            return self.answer(seat, id, hash, &record);
        }
        if let Some(running) = self.coordinator_mut(node).running.get_mut(&id) {
            if running.transaction.request_hash() == hash {
                return self.remark(format!("{seat} is running {} already", transaction_name(id)));
            }
            running.rivals.push(hash);
            let name = self.names.request(id, hash);
            return self.remark(format!(
                "{seat} keeps {name} waiting: it runs another request of that id"
            ));
        }
        let deadline = self.coordinator(node).now.after(VOTING_TIME);
        let (transaction, effects) = Transaction::submitted(id, request, deadline);
        self.start(node, transaction, request.branches().clone(), effects);
    }

    /// An initiator commits an interactive transaction.
    pub(crate) fn commit(&mut self, node: usize, id: TransactionId, members: Members) {
        let seat = self.coordinator(node).seat;
        let hash = RequestHash::of_members(&members);
        self.names.learn(id, hash);
        if let Some(record) = self.raft.table().records().get(&id).cloned() {
            return self.answer(seat, id, hash, &record);
        }
        if let Some(running) = self.coordinator_mut(node).running.get_mut(&id) {
            if running.transaction.request_hash() == hash {
                return self.remark(format!("{seat} is running {} already", transaction_name(id)));
            }
            running.rivals.push(hash);
            let name = self.names.request(id, hash);
            return self.remark(format!(
                "{seat} keeps {name} waiting: it runs another request of that id"
            ));
        }
        let deadline = self.coordinator(node).now.after(VOTING_TIME);
        let (transaction, effects) = Transaction::adopted(id, hash, members, deadline);
        self.start(node, transaction, BTreeMap::new(), effects);
    }

    fn answer(&mut self, at: Seat, transaction: TransactionId, asked: RequestHash, record: &DecisionRecord) {
        self.happened(if record.request_hash == asked {
            Event::OutcomeTold {
                at,
                transaction,
                request_hash: asked,
                decision: record.decision.clone(),
            }
        } else {
            Event::MismatchTold {
                at,
                transaction,
                request_hash: asked,
            }
        });
    }

    /// The initiator asks for an abort.
    pub(crate) fn ask_for_abort(&mut self, node: usize, id: TransactionId) {
        let at = self.coordinator(node).seat;
        self.happened(Event::AbortRequested { at, transaction: id });
        if let Some(record) = self.raft.table().records().get(&id).cloned() {
            return self.answer(at, id, record.request_hash, &record);
        }
        self.step_transaction(node, id, TransactionInput::AbortRequested);
    }

    /// The voting deadline passes by this leader's clock.
    pub(crate) fn deadline(&mut self, node: usize, id: TransactionId) {
        let at = self.coordinator(node).seat;
        self.happened(Event::DeadlineFired { at, transaction: id });
        self.step_transaction(node, id, TransactionInput::TimerFired);
    }

    /// A leader looks a transaction that it runs up in the table.
    pub(crate) fn read(&mut self, node: usize, id: TransactionId) {
        match self.raft.table().records().get(&id).cloned() {
            Some(record) => self.found_in_table(node, id, record),
            None => self.remark(format!("table holds nothing of {}", transaction_name(id))),
        }
    }

    /// A leader sends again what has not been answered.
    pub(crate) fn resend(&mut self, node: usize, id: TransactionId) {
        let Some(running) = self.coordinator(node).running.get(&id).cloned() else {
            return self.remark(format!("c{node} does not run {}", transaction_name(id)));
        };
        match running.transaction.phase() {
            TransactionPhase::Preparing { tally, .. } => {
                for participant in tally.missing() {
                    self.send_prepare(node, id, participant);
                }
            }
            TransactionPhase::Completing {
                decision,
                unacknowledged,
            } => {
                for participant in unacknowledged {
                    self.send_decision(node, id, participant.clone(), decision.clone());
                }
            }
            TransactionPhase::Deciding { .. } | TransactionPhase::Ended { .. } => {}
        }
    }

    /// A new leader resumes every decided transaction that has not ended.
    pub(crate) fn take_over(&mut self, node: usize) {
        let records = self.raft.table().records().clone();
        for (id, record) in records {
            // One that ended here for another request under the id must not keep its owner from ending.
            let running = self.coordinator(node).running.get(&id);
            let busy = running.is_some_and(|running| !running.has_ended());
            if record.is_ended() || busy {
                continue;
            }
            let (transaction, effects) = Transaction::resumed(id, record);
            self.start(node, transaction, BTreeMap::new(), effects);
        }
    }

    /// A participant in doubt asks (R5, R6).
    fn inquired(
        &mut self,
        node: usize,
        asker: Address,
        id: TransactionId,
        hash: RequestHash,
        members: Members,
    ) {
        let told = match self.raft.table().records().get(&id) {
            Some(record) if record.decision_for(hash).is_commit() => Told::Committed,
            Some(_) => Told::Aborted,
            None => Told::Undecided,
        };
        if told == Told::Undecided && !self.coordinator(node).running.contains_key(&id) {
            let at = self.coordinator(node).seat;
            self.happened(Event::Adopted {
                at,
                transaction: id,
                request_hash: hash,
            });
            let deadline = self.coordinator(node).now.after(VOTING_TIME);
            let (transaction, effects) = Transaction::adopted(id, hash, members, deadline);
            self.start(node, transaction, BTreeMap::new(), effects);
        }
        let message = Message::Answered {
            request_hash: hash,
            told,
        };
        self.send_from(node, asker, id, message);
    }

    /// A participant says where it serves and how far its memory reaches.
    pub(crate) fn register(&mut self, number: usize, node: usize, address: String) {
        let participant = super::names::participant(number);
        let from = self.participant(&participant);
        let witness = Witness {
            generation: from.generation,
            position: from.came_up_with,
        };
        let seat = self.coordinator(node).seat;
        let registration = Registration { address, witness };
        self.propose(
            seat,
            Command::Register {
                participant,
                registration,
            },
        );
    }

    pub(crate) fn hear_as_coordinator(&mut self, node: usize, envelope: Envelope) {
        let id = envelope.transaction;
        let Address::Participant(participant) = envelope.from.clone() else {
            unreachable!("coordinators do not write to each other")
        };
        match envelope.message {
            Message::Voted { vote, witness, .. } => {
                let input = TransactionInput::Voted {
                    participant,
                    vote,
                    witness,
                };
                self.step_transaction(node, id, input);
            }
            Message::Acknowledged { witness } => {
                let input = TransactionInput::Acknowledged { participant, witness };
                self.step_transaction(node, id, input);
            }
            Message::Inquire {
                members,
                request_hash,
            } => {
                self.inquired(node, envelope.from, id, request_hash, members);
            }
            Message::Prepare { .. }
            | Message::Commit { .. }
            | Message::Abort { .. }
            | Message::Answered { .. } => {
                unreachable!("these go to participants")
            }
        }
    }

    /// The table has applied a proposal: the leader that made it hears what holds, if it still lives.
    pub(crate) fn hear_from_table(&mut self, by: Seat, command: &Command, applied: Applied) {
        let coordinator = self.coordinator(by.node);
        if !coordinator.up || coordinator.seat != by {
            return;
        }
        match (command, applied) {
            (Command::Decide(proposal), Applied::Decided(record)) => {
                self.found_in_table(by.node, proposal.transaction, record);
            }
            (Command::Decide(proposal), Applied::Superseded { participants }) => {
                if let Some(running) = self
                    .coordinator_mut(by.node)
                    .running
                    .get_mut(&proposal.transaction)
                {
                    // They are asked for what they know.
                    running
                        .operations
                        .retain(|member, _| !participants.contains(member));
                }
                let input = TransactionInput::PromisesSuperseded { participants };
                self.step_transaction(by.node, proposal.transaction, input);
            }
            (
                Command::Register {
                    participant,
                    registration,
                },
                Applied::Registered,
            ) => self.registration_confirmed(participant, registration.witness.generation),
            _ => {}
        }
    }

    fn found_in_table(&mut self, node: usize, id: TransactionId, record: DecisionRecord) {
        self.step_transaction(node, id, TransactionInput::DecisionRecorded(record.clone()));
        let at = self.coordinator(node).seat;
        let running = self.coordinator_mut(node).running.get_mut(&id);
        for rival in running
            .map(|running| std::mem::take(&mut running.rivals))
            .unwrap_or_default()
        {
            self.answer(at, id, rival, &record);
        }
    }

    fn start(
        &mut self,
        node: usize,
        transaction: Transaction,
        operations: BTreeMap<ParticipantId, Operation>,
        effects: Vec<TransactionEffect>,
    ) {
        let id = transaction.id();
        self.happened(Event::TransactionMoved {
            at: self.coordinator(node).seat,
            transaction: id,
            request_hash: transaction.request_hash(),
            from: None,
            to: transaction.phase().clone(),
        });
        let running = Running {
            transaction,
            operations,
            rivals: Vec::new(),
        };
        self.coordinator_mut(node).running.insert(id, running);
        self.carry_out_transaction(node, id, effects);
    }

    fn step_transaction(&mut self, node: usize, id: TransactionId, input: TransactionInput) {
        let (now, at) = (self.coordinator(node).now, self.coordinator(node).seat);
        let Some(running) = self.coordinator_mut(node).running.get_mut(&id) else {
            return self.remark(format!("{at} does not run {}", transaction_name(id)));
        };
        let from = running.transaction.phase().clone();
        let effects = running.transaction.step(input, now);
        let to = running.transaction.phase().clone();
        let request_hash = running.transaction.request_hash();
        if from.to_string() != to.to_string() {
            self.happened(Event::TransactionMoved {
                at,
                transaction: id,
                request_hash,
                from: Some(from),
                to,
            });
        }
        self.carry_out_transaction(node, id, effects);
    }

    /// Carries the effects out in the order given.
    fn carry_out_transaction(&mut self, node: usize, id: TransactionId, effects: Vec<TransactionEffect>) {
        let at = self.coordinator(node).seat;
        for effect in effects {
            let request_hash = self.coordinator(node).running[&id].transaction.request_hash();
            match effect {
                TransactionEffect::Prepare { participant, .. } => self.send_prepare(node, id, participant),
                TransactionEffect::Decide(proposal) => self.propose(at, Command::Decide(proposal)),
                TransactionEffect::Answer(decision) => self.happened(Event::OutcomeTold {
                    at,
                    transaction: id,
                    request_hash,
                    decision,
                }),
                TransactionEffect::AnswerMismatch { .. } => self.happened(Event::MismatchTold {
                    at,
                    transaction: id,
                    request_hash,
                }),
                TransactionEffect::Deliver {
                    participant,
                    decision,
                } => self.send_decision(node, id, participant, decision),
                TransactionEffect::RecordAcknowledged {
                    participants,
                    witnesses,
                } => self.propose(
                    at,
                    Command::Acknowledge {
                        transaction: id,
                        participants,
                        witnesses,
                    },
                ),
                TransactionEffect::Ignored(why) => self.happened(Event::TransactionIgnored {
                    at,
                    transaction: id,
                    why,
                }),
                TransactionEffect::Alarm(violation) => self.happened(Event::TransactionAlarmed {
                    at,
                    transaction: id,
                    violation,
                }),
            }
        }
    }

    fn propose(&mut self, by: Seat, command: Command) {
        self.happened(Event::Proposed {
            by,
            command: command.clone(),
        });
        self.raft.propose(by, command);
    }

    fn send_prepare(&mut self, node: usize, id: TransactionId, participant: ParticipantId) {
        let coordinator = self.coordinator(node);
        let running = &coordinator.running[&id];
        let TransactionPhase::Preparing { deadline, .. } = running.transaction.phase() else {
            unreachable!("only a transaction that collects votes asks for them")
        };
        let message = Message::Prepare {
            members: running.transaction.members().clone(),
            request_hash: running.transaction.request_hash(),
            operation: running.operations.get(&participant).cloned(),
            // A duration, so that the clocks of two nodes need not agree (R8).
            remaining_ms: deadline.since(coordinator.now).as_millis() as u64,
        };
        self.send_from(node, Address::Participant(participant), id, message);
    }

    fn send_decision(
        &mut self,
        node: usize,
        id: TransactionId,
        participant: ParticipantId,
        decision: Decision,
    ) {
        let request_hash = self.coordinator(node).running[&id].transaction.request_hash();
        let message = match decision {
            Decision::Commit => Message::Commit { request_hash },
            Decision::Abort(_) => Message::Abort { request_hash },
        };
        self.send_from(node, Address::Participant(participant), id, message);
    }

    fn send_from(&mut self, node: usize, to: Address, transaction: TransactionId, message: Message) {
        let from = Address::Coordinator(self.coordinator(node).seat);
        self.send(Envelope {
            from,
            to,
            transaction,
            message,
        });
    }
}
