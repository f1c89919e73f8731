//! What initiators ask for.

use std::rc::Rc;

use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::{Binding, Command, DecisionRecord, Proposal, View as _};
use unanimo_core::{
    AbortReason, Decision, IdempotencyKey, Members, Request, RequestHash, Transaction, TransactionId,
    TransactionInput,
};

use super::{Caller, Continuation};
use crate::counters::Sometimes;
use crate::event::Event;
use crate::log::Waiter;
use crate::message::{Ask, Told, Why};
use crate::node::Node;
use crate::world::World;

/// What a request becomes when it is run.
enum Beginning {
    Submitted(Rc<Request>),
    /// Its members know their operations.
    Adopted(Rc<Members>),
}

impl World {
    pub(crate) fn asked(&mut self, place: usize, caller: Caller) {
        match caller.ask.clone() {
            Ask::Submit {
                transaction,
                request,
                key: None,
            } => self.submit(place, caller, transaction, request, false),
            Ask::Submit {
                transaction,
                request,
                key: Some(key),
            } => self.submit_with_key(place, caller, transaction, &request, &key),
            Ask::Begin => {
                let at = self.time_of_new_id(place);
                self.tell(place, &caller, Told::Begun(at));
            }
            Ask::Commit { transaction, members } => {
                let hash = RequestHash::of_members(&members);
                let beginning = Beginning::Adopted(members);
                self.join_or_start(place, caller, (transaction, hash), beginning, false);
            }
            Ask::Abort { transaction, members } => self.abort(place, caller, transaction, &members),
            Ask::Outcome { transaction } => self.outcome(place, caller, transaction),
        }
    }

    fn submit(
        &mut self,
        place: usize,
        caller: Caller,
        transaction: TransactionId,
        request: Rc<Request>,
        admitted: bool,
    ) {
        let hash = request.hash();
        let beginning = Beginning::Submitted(request);
        self.join_or_start(place, caller, (transaction, hash), beginning, admitted);
    }

    /// The key is bound in the table before anything is started (R12).
    fn submit_with_key(
        &mut self,
        place: usize,
        caller: Caller,
        transaction: TransactionId,
        request: &Rc<Request>,
        key: &IdempotencyKey,
    ) {
        if self.coordinators[place].ready.is_none() {
            return self.refuse(place, &caller, Why::NoLeader);
        }
        let table = &self.coordinators[place].replica.table;
        let (Ok(known), Ok(horizon)) = (table.binding(key), table.horizon());
        let kept = known.filter(|binding| {
            !horizon.has_closed(binding.transaction) || table.records().contains_key(&binding.transaction)
        });
        if let Some(binding) = kept {
            return self.bound(place, caller, false, binding);
        }
        let request_hash = request.hash();
        let mut admitted = false;
        if let Some(record) = table.records().get(&transaction) {
            if !record.is_for(request_hash) {
                return self.refuse(place, &caller, Why::Mismatch);
            }
        } else {
            if let Err(why) = self.check_age(place, transaction) {
                return self.refuse(place, &caller, why);
            }
            let members = request.branches().keys().cloned().collect();
            if !self.are_registered(place, &members) {
                return self.refuse(place, &caller, Why::UnknownParticipant);
            }
            if !self.coordinators[place].runs.contains_key(&transaction) {
                if !self.take_place(place) {
                    return self.refuse(place, &caller, Why::Overloaded);
                }
                admitted = true;
            }
        }
        let binding = Binding {
            transaction,
            request_hash,
        };
        if mutants::is_on(Mutant::M22) {
            return self.bound(place, caller, admitted, binding);
        }
        let command = Command::Bind {
            key: key.clone(),
            binding,
        };
        let then = Continuation::Bound { caller, admitted };
        self.propose(place, Some(command), Waiter::Caller(then));
        self.tell_load(place);
    }

    /// Runs the transaction that the key stands for.
    pub(crate) fn bound(&mut self, place: usize, caller: Caller, admitted: bool, binding: Binding) {
        let Ask::Submit {
            transaction, request, ..
        } = &caller.ask
        else {
            unreachable!("only a submit has a key")
        };
        let (ours, request) = (*transaction == binding.transaction, Rc::clone(request));
        if !ours {
            self.release_place(place, admitted);
            self.watch.sometimes(Sometimes::KeyFoundItsTransaction);
        }
        if binding.request_hash != request.hash() {
            self.release_place(place, admitted && ours);
            return self.outlived_its_key(place, &caller, &binding, request.hash());
        }
        self.submit(place, caller, binding.transaction, request, admitted && ours);
    }

    /// The key stands for another request: it always has, or since this one's own transaction was forgotten.
    fn outlived_its_key(&mut self, place: usize, caller: &Caller, binding: &Binding, asked: RequestHash) {
        let Ask::Submit { transaction, .. } = caller.ask else {
            unreachable!("only a submit has a key")
        };
        let table = &self.coordinators[place].replica.table;
        let (Ok(record), Ok(horizon)) = (table.record(transaction), table.horizon());
        if transaction == binding.transaction || !horizon.has_closed(transaction) {
            self.watch.sometimes(Sometimes::RivalRequestRefused);
            return self.refuse(place, caller, Why::Mismatch);
        }
        let Some(record) = record.filter(|record| record.is_for(asked)) else {
            self.watch.sometimes(Sometimes::InitiatorToldExpired);
            return self.refuse(place, caller, Why::Expired);
        };
        let decision = record.decision;
        let told = Told::Decided {
            transaction,
            decision,
        };
        self.tell(place, caller, told);
    }

    /// Takes a place among those that vote (R14).
    fn take_place(&mut self, place: usize) -> bool {
        let limit = self.knobs.in_flight;
        let node = &mut self.coordinators[place];
        if node.in_flight >= limit {
            self.watch.sometimes(Sometimes::OverloadedCoordinatorRefused);
            return false;
        }
        node.in_flight += 1;
        true
    }

    pub(crate) fn release_place(&mut self, place: usize, taken: bool) {
        if taken {
            self.coordinators[place].gives_a_place_back();
        }
    }

    /// Says how many vote or wait for their key, whatever the count of places says (R14).
    pub(crate) fn tell_load(&mut self, place: usize) {
        let node = &self.coordinators[place];
        let (count, limit) = (node.voting() + node.replica.binding(), self.knobs.in_flight);
        let node = Node::Coordinator(place as u8);
        self.watch.happened(&Event::Load { node, count, limit });
    }

    /// Answers from the table, joins a run, or starts one.
    fn join_or_start(
        &mut self,
        place: usize,
        caller: Caller,
        (transaction, hash): (TransactionId, RequestHash),
        beginning: Beginning,
        admitted: bool,
    ) {
        let refuse = |world: &mut Self, caller: &Caller, why| {
            world.release_place(place, admitted);
            world.refuse(place, caller, why);
        };
        let Some(term) = self.coordinators[place].ready else {
            return refuse(self, &caller, Why::NoLeader);
        };
        if let Some(record) = self.decided_before(place, transaction) {
            if !record.is_for(hash) {
                self.watch.sometimes(Sometimes::RivalRequestRefused);
                return refuse(self, &caller, Why::Mismatch);
            }
            self.release_place(place, admitted);
            self.watch.sometimes(Sometimes::DuplicateAnsweredFromTheTable);
            let decision = record.decision;
            let told = Told::Decided {
                transaction,
                decision,
            };
            return self.tell(place, &caller, told);
        }
        let runs = self.coordinators[place].runs.contains_key(&transaction);
        if !runs && let Err(why) = self.check_age(place, transaction) {
            return refuse(self, &caller, why);
        }
        let members = match &beginning {
            Beginning::Submitted(request) => Rc::new(request.branches().keys().cloned().collect()),
            Beginning::Adopted(members) => Rc::clone(members),
        };
        if !self.are_registered(place, &members) {
            return refuse(self, &caller, Why::UnknownParticipant);
        }
        if runs {
            self.release_place(place, admitted);
            return self.wait_for_run(place, caller, transaction, hash);
        }
        if !admitted && !self.take_place(place) {
            return self.refuse(place, &caller, Why::Overloaded);
        }
        let deadline = self.coordinators[place]
            .clock
            .wall(self.now)
            .after(std::time::Duration::from_millis(self.knobs.voting_ms));
        let (state, effects) = match &beginning {
            Beginning::Submitted(request) => Transaction::submitted(transaction, request, deadline),
            Beginning::Adopted(members) => {
                Transaction::adopted(transaction, hash, (**members).clone(), deadline)
            }
        };
        self.start_voting(place, term, state, Some((caller, hash)), effects);
    }

    /// What is decided, as whoever is about to decide sees it.
    fn decided_before(&self, place: usize, transaction: TransactionId) -> Option<DecisionRecord> {
        let records = self.coordinators[place].replica.table.records();
        records
            .get(&transaction)
            .filter(|_| !mutants::is_on(Mutant::M6))
            .cloned()
    }

    fn abort(&mut self, place: usize, caller: Caller, transaction: TransactionId, members: &Members) {
        if self.coordinators[place].ready.is_none() {
            return self.refuse(place, &caller, Why::NoLeader);
        }
        if let Some(record) = self.decided_before(place, transaction) {
            let decision = record.decision;
            let told = Told::Decided {
                transaction,
                decision,
            };
            return self.tell(place, &caller, told);
        }
        let node = Node::Coordinator(place as u8);
        if let Some(run) = self.coordinators[place].runs.get(&transaction) {
            let hash = run.transaction.request_hash();
            self.watch.happened(&Event::AbortAsked { node, transaction });
            self.wait_for_run(place, caller, transaction, hash);
            return self.step_transaction(place, transaction, TransactionInput::AbortRequested);
        }
        if let Err(why) = self.check_age(place, transaction) {
            return self.refuse(place, &caller, why);
        }
        if !self.are_registered(place, members) {
            return self.refuse(place, &caller, Why::UnknownParticipant);
        }
        let decision = Decision::Abort(AbortReason::Requested);
        if mutants::is_on(Mutant::M4) {
            let told = Told::Decided {
                transaction,
                decision,
            };
            return self.tell(place, &caller, told);
        }
        self.watch.happened(&Event::AbortAsked { node, transaction });
        let proposal = Proposal {
            transaction,
            decision,
            // Nobody here knows what was asked under this id, so it is the outcome of whatever was (R12).
            request_hash: RequestHash::NONE,
            unacknowledged: members.clone(),
            members: members.clone(),
            witnesses: std::collections::BTreeMap::new(),
            decided_at: self.coordinators[place].clock.wall(self.now),
        };
        let members = members.clone();
        let then = Continuation::Aborted { caller, members };
        self.propose(place, Some(Command::Decide(proposal)), Waiter::Caller(then));
    }

    pub(crate) fn abort_recorded(
        &mut self,
        place: usize,
        caller: Caller,
        _: &Members,
        record: DecisionRecord,
    ) {
        let Ask::Abort { transaction, .. } = caller.ask else {
            unreachable!("only who asked for an abort waits for one")
        };
        let decision = record.decision.clone();
        if let Some(term) = self.coordinators[place].ready {
            self.resume(place, term, transaction, record);
        }
        let told = Told::Decided {
            transaction,
            decision,
        };
        self.tell(place, &caller, told);
    }

    fn outcome(&mut self, place: usize, caller: Caller, transaction: TransactionId) {
        let table = &self.coordinators[place].replica.table;
        if let Some(record) = table.records().get(&transaction) {
            let decision = record.decision.clone();
            let told = Told::Decided {
                transaction,
                decision,
            };
            return self.tell(place, &caller, told);
        }
        let Ok(horizon) = table.horizon();
        if horizon.has_closed(transaction) {
            return self.refuse(place, &caller, Why::Expired);
        }
        if self.coordinators[place].ready.is_none() {
            return if mutants::is_on(Mutant::M12) {
                self.tell(place, &caller, Told::Undecided)
            } else {
                self.refuse(place, &caller, Why::NoLeader)
            };
        }
        self.barrier(place, Continuation::Outcome(caller));
    }

    pub(crate) fn outcome_after_barrier(&mut self, place: usize, caller: &Caller) {
        let Ask::Outcome { transaction } = caller.ask else {
            unreachable!("only who asked for an outcome waits for one")
        };
        let record = self.coordinators[place].replica.table.records().get(&transaction);
        let told = match record.cloned() {
            Some(record) => Told::Decided {
                transaction,
                decision: record.decision,
            },
            None => {
                self.watch.sometimes(Sometimes::UndecidedTold);
                Told::Undecided
            }
        };
        self.tell(place, caller, told);
    }
}
