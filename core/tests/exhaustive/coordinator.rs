//! A coordinator node: what a leader does around [`Transaction`].

use std::collections::{BTreeMap, BTreeSet};

use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::{Applied, Command, DecisionRecord, Horizon, Proposal, View as _};
use unanimo_core::{
    AbortReason, Decision, Members, RequestHash, Transaction, TransactionEffect, TransactionId,
    TransactionInput, TransactionPhase, Vote,
};

use super::Protocol;
use super::message::{Envelope, Message, Told, Voted};
use super::names::{DEADLINE, HORIZON, NOW};
use super::rule::{Met, Outcome, Rule};
use super::state::State;

/// A transaction that a node runs, and what its driver keeps beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Running {
    pub(crate) transaction: Transaction,
    /// The members (as bits) that are asked with their operations.
    with_operation: u8,
    /// Other requests under the id. They wait until one of them is decided (R12).
    rivals: BTreeSet<u8>,
}

/// One node. All of it is in memory only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    /// Whether it takes itself for the leader.
    pub(crate) leads: bool,
    pub(crate) running: BTreeMap<u8, Running>,
}

impl State {
    /// An initiator submits a request.
    pub(crate) fn submit(&mut self, model: &Protocol, node: u8, request: u8) {
        let transaction = model.names.transaction_of(request);
        let hash = model.names.hash(Some(request));
        if let Some(record) = self.record(model.names.id(transaction)) {
            return self.answer(model, transaction, request, &record);
        }
        if let Some(running) = self.node_mut(node).running.get_mut(&transaction) {
            if running.transaction.request_hash() != hash {
                running.rivals.insert(request);
            }
            return;
        }
        if self.has_closed(model, transaction) {
            return model.tally.met(Met::ExpiredToInitiator);
        }
        let (id, asked) = (model.names.id(transaction), model.names.request(request));
        let begun = Transaction::submitted(id, asked, DEADLINE);
        self.start(model, node, begun, model.members_of(request));
    }

    /// An initiator wants the transaction aborted.
    pub(crate) fn ask_for_abort(&mut self, model: &Protocol, node: u8, transaction: u8) {
        let id = model.names.id(transaction);
        if self.record(id).is_some() || self.has_closed(model, transaction) {
            return;
        }
        if self.node(node).running.contains_key(&transaction) {
            return self.step_transaction(model, node, transaction, TransactionInput::AbortRequested);
        }
        let members = model.names.members(0b11);
        let proposal = Proposal {
            transaction: id,
            decision: Decision::Abort(AbortReason::Requested),
            request_hash: RequestHash::NONE,
            unacknowledged: members.clone(),
            members,
            witnesses: BTreeMap::new(),
            decided_at: NOW,
        };
        self.propose(node, Command::Decide(proposal));
    }

    /// What an initiator is told of a decided transaction.
    fn answer(&mut self, model: &Protocol, transaction: u8, request: u8, record: &DecisionRecord) {
        if record.is_for(model.names.hash(Some(request))) {
            self.tell(model, transaction, request, record.decision.is_commit());
        } else {
            model.tally.met(Met::Mismatch);
            self.tell(model, transaction, request, false);
        }
    }

    /// Somebody hears an outcome (R2).
    fn tell(&mut self, model: &Protocol, transaction: u8, request: u8, commit: bool) {
        match self.commits(model, transaction, request) {
            Some(decided) if decided == commit => {}
            Some(_) => self.breaks(Rule::DecideBeforeSpeak, "the table holds the opposite"),
            None => self.breaks(Rule::DecideBeforeSpeak, "the table holds nothing"),
        }
    }

    /// A new leader resumes what the table holds and has not ended.
    pub(crate) fn take_over(&mut self, model: &Protocol, node: u8) {
        self.node_mut(node).leads = true;
        for (id, record) in self.raft.table.records().clone() {
            if let Some(transaction) = model.names.transaction(id).filter(|_| !record.is_ended()) {
                self.resume(model, node, transaction, record);
            }
        }
    }

    fn resume(&mut self, model: &Protocol, node: u8, transaction: u8, record: DecisionRecord) {
        if !self.node(node).running.contains_key(&transaction) {
            let resumed = Transaction::resumed(model.names.id(transaction), record);
            self.start(model, node, resumed, 0);
        }
    }

    /// A message arrives at a node.
    pub(crate) fn hear_as_node(&mut self, model: &Protocol, envelope: Envelope) {
        let Envelope {
            node,
            member,
            transaction,
            message,
        } = envelope;
        let participant = model.names.participant(member).clone();
        let running = self.node(node).running.get(&transaction);
        let input = match message {
            Message::Voted {
                request,
                vote,
                witness,
            } => {
                let hash = model.names.hash(Some(request));
                // It answers a call of an earlier run.
                if running.is_none_or(|running| running.transaction.request_hash() != hash) {
                    return;
                }
                let Ok(known) = self.raft.table.registration(&participant);
                if let (Some(witness), Some(known)) = (witness, known)
                    && witness.generation != known.witness.generation
                {
                    return;
                }
                let vote = match vote {
                    Voted::Yes => Vote::Yes,
                    Voted::ReadOnly => Vote::ReadOnly,
                    Voted::No => Vote::No {
                        reason: String::new(),
                    },
                };
                TransactionInput::Voted {
                    participant,
                    vote,
                    witness,
                }
            }
            Message::Acknowledged { witness } => TransactionInput::Acknowledged { participant, witness },
            Message::Expired => return,
            Message::Inquire { request, members } => {
                return self.inquired(model, (node, member, transaction), request, members);
            }
            Message::Prepare { .. }
            | Message::Commit { .. }
            | Message::Abort { .. }
            | Message::Answered { .. } => {
                unreachable!("these go to members")
            }
        };
        if running.is_some() {
            self.step_transaction(model, node, transaction, input);
        }
    }

    /// A member in doubt asks (R5, R6).
    fn inquired(
        &mut self,
        model: &Protocol,
        (node, member, transaction): (u8, u8, u8),
        request: u8,
        members: u8,
    ) {
        let (id, hash) = (model.names.id(transaction), model.names.hash(Some(request)));
        let runs = self.node(node).running.contains_key(&transaction);
        let known = match self.record(id) {
            Some(record) => Some(record.decision_for(hash).is_commit()),
            // Every commit is kept until all have acknowledged it, so this is none (R7).
            None if self.has_closed(model, transaction) => {
                model.tally.met(Met::InquiryOfClosed);
                Some(false)
            }
            None if mutants::is_on(Mutant::M5) && runs => Some(false),
            None if mutants::is_on(Mutant::M4) && !runs => Some(false),
            None => None,
        };
        let Some(commit) = known else {
            // Nobody promises without naming whom it promised with.
            if !runs && members != 0 {
                let adopted = Transaction::adopted(id, hash, model.names.members(members), DEADLINE);
                self.start(model, node, adopted, 0);
            }
            return;
        };
        if !commit && self.commits(model, transaction, request).is_none() {
            self.breaks(
                Rule::PresumedAbort,
                "an inquiry is answered Abort without a record",
            );
        }
        // A question may come so late that nobody asks it any more, and its answer is then heard by nobody (R7).
        if self.member(member).in_doubt(transaction) {
            self.tell(model, transaction, request, commit);
        } else {
            model.tally.met(Met::LateInquiry);
        }
        let told = if commit { Told::Committed } else { Told::Aborted };
        self.send(Envelope {
            node,
            member,
            transaction,
            message: Message::Answered { request, told },
        });
    }

    /// A proposal is committed and applied, and whoever made it hears what holds.
    pub(crate) fn apply(&mut self, model: &Protocol, place: usize) {
        let proposed = self.raft_mut().pending.remove(place);
        let before = self.raft.table.records().len();
        let applied = self.raft_mut().table.apply(&proposed.command);
        if self.raft.table.records().len() < before {
            model.tally.met(match proposed.command {
                Command::Acknowledge { .. } => Met::KeptForMember,
                _ => Met::Forgotten,
            });
        }
        match (proposed.command, applied) {
            (Command::Decide(proposal), Applied::Decided(record)) => {
                let Some(transaction) = model.names.transaction(proposal.transaction) else {
                    return;
                };
                self.decided(model, transaction, &proposal, &record);
                self.found_in_table(model, proposed.by, transaction, record);
            }
            (Command::Decide(proposal), Applied::Superseded { participants }) => {
                model.tally.met(Met::Superseded);
                let transaction = model.names.transaction(proposal.transaction);
                let transaction = transaction.expect("only what is known is decided");
                let bits = model.names.bits(&participants);
                if let Some(running) = self.node_mut(proposed.by).running.get_mut(&transaction) {
                    running.with_operation &= !bits;
                    let input = TransactionInput::PromisesSuperseded { participants };
                    self.step_transaction(model, proposed.by, transaction, input);
                }
            }
            // The run is over: nobody will decide it.
            (Command::Decide(proposal), Applied::Expired { .. }) => {
                if let Some(transaction) = model.names.transaction(proposal.transaction) {
                    self.node_mut(proposed.by).running.remove(&transaction);
                }
            }
            (
                Command::Register {
                    participant,
                    registration,
                },
                applied,
            ) => {
                let member = model.names.number_of(&participant);
                let confirmed = applied == Applied::Registered;
                self.registered(model, member, registration.witness.generation, confirmed);
            }
            _ => {}
        }
    }

    /// The table holds a decision: the first of its transaction, or else that one.
    fn decided(&mut self, model: &Protocol, transaction: u8, proposal: &Proposal, record: &DecisionRecord) {
        let request = model.names.number_of_request(record.request_hash);
        let outcome = Outcome {
            commit: record.decision.is_commit(),
            request,
            bound: model.names.bits(&record.unacknowledged),
        };
        if let Some(first) = self.facts.decided.get(&transaction) {
            if (first.commit, first.request) != (outcome.commit, outcome.request) {
                self.breaks(Rule::OneDecision, "a second decision was recorded");
            }
            if proposal.decision.is_commit() != outcome.commit {
                model.tally.met(Met::DecisionLost);
            }
            return;
        }
        let facts = std::sync::Arc::make_mut(&mut self.facts);
        facts.decided.insert(transaction, outcome);
        let agreed = |member: u8| {
            request.is_some_and(|request| {
                self.has_said(member, request, Voted::Yes) || self.has_said(member, request, Voted::ReadOnly)
            })
        };
        let members = record.members.iter().map(|member| model.names.number_of(member));
        if outcome.commit && !members.into_iter().all(agreed) {
            self.breaks(Rule::Validity, "a commit without the vote of a member");
        }
        let caused = match &record.decision {
            Decision::Commit => true,
            Decision::Abort(AbortReason::VotedNo { participant, .. }) => {
                let member = model.names.number_of(participant);
                request.is_some_and(|request| self.has_said(member, request, Voted::No))
            }
            Decision::Abort(AbortReason::DeadlinePassed { .. }) => model.scope.deadlines,
            Decision::Abort(AbortReason::Requested) => model.scope.abort_requests,
            Decision::Abort(AbortReason::Presumed) => false,
        };
        if !caused {
            self.breaks(Rule::TakeoverAdopts, "an abort that nobody wanted");
        }
    }

    fn found_in_table(&mut self, model: &Protocol, node: u8, transaction: u8, record: DecisionRecord) {
        if !self.node(node).leads {
            return;
        }
        let Some(running) = self.node_mut(node).running.get_mut(&transaction) else {
            // An abort that nobody ran is delivered all the same.
            if !record.is_ended() {
                self.resume(model, node, transaction, record);
            }
            return;
        };
        for rival in std::mem::take(&mut running.rivals) {
            self.answer(model, transaction, rival, &record);
        }
        let input = TransactionInput::DecisionRecorded(record);
        self.step_transaction(model, node, transaction, input);
    }

    fn start(
        &mut self,
        model: &Protocol,
        node: u8,
        (transaction, effects): (Transaction, Vec<TransactionEffect>),
        with_operation: u8,
    ) {
        let number = model.names.transaction(transaction.id());
        let number = number.expect("only what is known is run");
        let running = Running {
            transaction,
            with_operation,
            rivals: BTreeSet::new(),
        };
        self.node_mut(node).running.insert(number, running);
        self.carry_out_transaction(model, node, number, effects);
        self.drop_ended(node, number);
    }

    /// Gives one input to a transaction that the node runs.
    pub(crate) fn step_transaction(
        &mut self,
        model: &Protocol,
        node: u8,
        number: u8,
        input: TransactionInput,
    ) {
        let late = matches!(input, TransactionInput::Acknowledged { .. });
        let running = self.node_mut(node).running.get_mut(&number);
        let running = running.expect("the transaction is run");
        let effects = running.transaction.step(input, NOW);
        if late
            && effects
                .iter()
                .any(|effect| matches!(effect, TransactionEffect::Ignored(_)))
        {
            model.tally.met(Met::LateAcknowledgement);
        }
        self.carry_out_transaction(model, node, number, effects);
        self.drop_ended(node, number);
    }

    fn drop_ended(&mut self, node: u8, number: u8) {
        let running = self.node(node).running.get(&number);
        if running.is_some_and(|run| matches!(run.transaction.phase(), TransactionPhase::Ended { .. })) {
            self.node_mut(node).running.remove(&number);
        }
    }

    /// Carries the effects out in the order given.
    fn carry_out_transaction(
        &mut self,
        model: &Protocol,
        node: u8,
        number: u8,
        effects: Vec<TransactionEffect>,
    ) {
        let running = &self.node(node).running[&number];
        let (hash, with_operation) = (running.transaction.request_hash(), running.with_operation);
        let members = model.names.bits(running.transaction.members());
        let request = model.names.number_of_request(hash);
        let asked = || request.expect("what is asked of members has a request");
        for effect in effects {
            match effect {
                TransactionEffect::Prepare { participant, .. } => {
                    let member = model.names.number_of(&participant);
                    let with_operation = with_operation & (1 << member) != 0;
                    if node > 0 && !with_operation {
                        model.tally.met(Met::AskedAgainByNewLeader);
                    }
                    let message = Message::Prepare {
                        request: asked(),
                        members,
                        with_operation,
                    };
                    self.send_to(node, member, number, message);
                }
                TransactionEffect::Decide(proposal) => self.decide(model, node, number, proposal),
                TransactionEffect::Answer(decision) => {
                    // An abort for nobody's request is everybody's.
                    let told = request.unwrap_or(u8::MAX);
                    self.tell(model, number, told, decision.is_commit());
                }
                TransactionEffect::AnswerMismatch { .. } => {
                    model.tally.met(Met::Mismatch);
                    self.tell(model, number, asked(), false);
                }
                TransactionEffect::Deliver {
                    participant,
                    decision,
                } => {
                    let member = model.names.number_of(&participant);
                    let commit = decision.is_commit();
                    self.tell(model, number, request.unwrap_or(u8::MAX), commit);
                    let message = match commit {
                        true => Message::Commit { request: asked() },
                        false => Message::Abort { request },
                    };
                    self.send_to(node, member, number, message);
                }
                TransactionEffect::RecordAcknowledged {
                    participants,
                    witnesses,
                } => self.propose(
                    node,
                    Command::Acknowledge {
                        transaction: model.names.id(number),
                        participants,
                        witnesses,
                    },
                ),
                TransactionEffect::Ignored(_) => {}
                TransactionEffect::Alarm(_) => self.breaks(Rule::NoAlarm, "a leader raises an alarm"),
            }
        }
    }

    fn decide(&mut self, model: &Protocol, node: u8, number: u8, proposal: Proposal) {
        let record = DecisionRecord {
            decision: proposal.decision.clone(),
            request_hash: proposal.request_hash,
            members: proposal.members.clone(),
            unacknowledged: proposal.unacknowledged.clone(),
            decided_at: proposal.decided_at,
        };
        self.propose(node, Command::Decide(proposal));
        if mutants::is_on(Mutant::M8) {
            let input = TransactionInput::DecisionRecorded(record);
            let running = self.node_mut(node).running.get_mut(&number);
            let effects = running.map(|running| running.transaction.step(input, NOW));
            self.carry_out_transaction(model, node, number, effects.unwrap_or_default());
        }
    }

    fn send_to(&mut self, node: u8, member: u8, transaction: u8, message: Message) {
        self.send(Envelope {
            node,
            member,
            transaction,
            message,
        });
    }

    /// Time has passed: everything that was begun is closed.
    pub(crate) fn close_all(&mut self, by: u8) {
        let watermark = TransactionId::first_at(HORIZON);
        let horizon = Horizon {
            time: HORIZON,
            watermark,
        };
        self.propose(by, Command::Advance(horizon));
    }

    /// The leader drops what is closed and needed by nobody.
    pub(crate) fn forget_all(&mut self, by: u8) {
        let transactions: Vec<TransactionId> = self.raft.table.records().keys().copied().collect();
        self.propose(by, Command::Forget { transactions });
    }

    pub(crate) fn record(&self, id: TransactionId) -> Option<DecisionRecord> {
        let Ok(record) = self.raft.table.record(id);
        record
    }

    /// The members that a table's record still waits for.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = &Members> {
        let records = self.raft.table.records().values();
        records.map(|record| &record.unacknowledged)
    }
}
