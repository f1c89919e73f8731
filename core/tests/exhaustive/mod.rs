//! The protocol as a model that is explored to the end: every order of every step that a scope allows.
//!
//! [`State`] holds the real state machines of `unanimo-core`; around them stands what a driver does, without time and
//! without IO. A message that was sent stays on its way, so it may be late, lost or repeated. What a participant wrote is
//! durable only after a sync, and a crash loses any end of the rest. Two nodes may take themselves for the leader.
//!
//! What could be seen in no single state, such as a second effect, is noted in [`rule::Facts`] by the step that does it.

mod coordinator;
mod message;
mod names;
mod participant;
mod properties;
mod rule;
mod scope;
mod state;

use std::collections::BTreeSet;
use std::sync::Arc;

use stateright::{Model, Property};
use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::{Command, Registration, Witness};
use unanimo_core::{Generation, Position, TransactionInput, TransactionPhase};

use message::Envelope;
use names::{MEMBERS, Names};
use participant::{End, Member, Work};
use rule::Tally;
use state::{Faults, Raft, State};

pub(crate) use message::Voted;
pub(crate) use rule::Met;
pub(crate) use scope::{LeaderChange, Scope};

/// The model of one scope.
#[derive(Debug)]
pub(crate) struct Protocol {
    pub(crate) scope: Scope,
    pub(crate) tally: Tally,
    names: Names,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Submit {
        node: u8,
        request: u8,
    },
    AskForAbort {
        node: u8,
        transaction: u8,
    },
    Deadline {
        node: u8,
        transaction: u8,
    },
    Deliver(Envelope),
    /// The proposal at this place is committed and applied.
    Apply(usize),
    Sync {
        member: u8,
    },
    Finish {
        member: u8,
        transaction: u8,
        work: Work,
        end: End,
    },
    Ask {
        member: u8,
        transaction: u8,
        node: u8,
    },
    Crash {
        member: u8,
        keep: usize,
    },
    FallBack {
        member: u8,
        records: usize,
    },
    Register {
        member: u8,
        node: u8,
    },
    /// What it had proposed is committed first, or lost with it.
    LeaderDies {
        keeps: bool,
    },
    LeaderDeposed {
        keeps: bool,
    },
    /// The leader looks for decisions that somebody has yet to acknowledge and nobody delivers.
    Sweep {
        node: u8,
    },
    CloseAll {
        node: u8,
    },
    ForgetAll {
        node: u8,
    },
    HearHorizon {
        member: u8,
    },
    Forget {
        member: u8,
    },
}

impl Protocol {
    pub(crate) fn new(scope: Scope) -> Self {
        Self {
            names: Names::new(scope.asked),
            tally: Tally::default(),
            scope,
        }
    }

    fn members_of(&self, request: u8) -> u8 {
        self.scope.asked[usize::from(request)].1
    }

    fn first_state(&self) -> State {
        let mut raft = Raft::default();
        if self.scope.lives {
            for member in 0..MEMBERS as u8 {
                raft.table.apply(&Command::Register {
                    participant: self.names.participant(member).clone(),
                    registration: Registration {
                        address: String::new(),
                        witness: Witness {
                            generation: Generation::of_start(1, 0),
                            position: Position(0),
                        },
                    },
                });
            }
        }
        let member = Arc::new(Member::new(self));
        let mut state = State {
            raft: Arc::new(raft),
            nodes: Default::default(),
            members: [Arc::clone(&member), member],
            network: Arc::new(BTreeSet::new()),
            facts: Arc::default(),
            faults: Faults {
                crashes: self.scope.crashes,
                leader_changes: u8::from(self.scope.leader != LeaderChange::Never),
                old_copies: self.scope.old_copies,
            },
        };
        state.node_mut(0).leads = true;
        for request in 0..self.scope.begun {
            state.submit(self, 0, request);
        }
        state
    }

    /// What initiators and timers do.
    fn initiators_and_timers(&self, state: &State, actions: &mut Vec<Action>) {
        for node in (0..2).filter(|node| state.node(*node).leads) {
            if self.scope.retries {
                actions.extend(
                    self.names
                        .requests()
                        .map(|request| Action::Submit { node, request }),
                );
            }
            for transaction in self.names.transactions() {
                if self.scope.abort_requests {
                    actions.push(Action::AskForAbort { node, transaction });
                }
                let running = state.node(node).running.get(&transaction);
                let preparing = running
                    .is_some_and(|run| matches!(run.transaction.phase(), TransactionPhase::Preparing { .. }));
                if self.scope.deadlines && preparing {
                    actions.push(Action::Deadline { node, transaction });
                }
            }
        }
    }

    /// What goes wrong.
    fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        if state.faults.leader_changes > 0 {
            let keeps = [false, true].into_iter();
            let keeps = keeps.filter(|keeps| !keeps || !state.raft.pending.is_empty());
            match self.scope.leader {
                LeaderChange::Never => {}
                LeaderChange::Dies => actions.extend(keeps.map(|keeps| Action::LeaderDies { keeps })),
                LeaderChange::Deposed => actions.extend(keeps.map(|keeps| Action::LeaderDeposed { keeps })),
            }
        }
        if state.faults.crashes == 0 {
            return;
        }
        for member in 0..MEMBERS as u8 {
            let at = state.member(member);
            if at.refused {
                continue;
            }
            actions.extend((0..=at.tail.len()).map(|keep| Action::Crash { member, keep }));
            if state.faults.old_copies > 0 {
                actions.extend((2..at.disk.len()).map(|records| Action::FallBack { member, records }));
            }
        }
    }

    /// What goes on by itself, sooner or later, if nothing goes wrong. [`properties`] needs to know when nothing does.
    fn progress(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend((0..state.raft.pending.len()).map(Action::Apply));
        for member in (0..MEMBERS as u8).filter(|member| !state.member(*member).refused) {
            self.progress_of(state, member, actions);
        }
        let leader = (0..2).rfind(|node| state.node(*node).leads);
        if let Some(node) = leader.filter(|_| state.raft.pending.is_empty()) {
            actions.push(Action::Sweep { node });
        }
        if let Some(node) = leader.filter(|_| self.scope.forgetting) {
            let closed = state.has_closed(self, 0);
            if !closed {
                actions.push(Action::CloseAll { node });
            }
            let records = state.raft.table.records().values();
            let forgettable = |record: &unanimo_core::table::DecisionRecord| {
                !record.decision.is_commit() || record.is_ended()
            };
            if closed && (mutants::is_on(Mutant::M14) || records.into_iter().any(forgettable)) {
                actions.push(Action::ForgetAll { node });
            }
        }
        let alive = |envelope: &&Envelope| match envelope.goes_to_node() {
            true => state.node(envelope.node).leads,
            false => !state.member(envelope.member).refused,
        };
        actions.extend(state.network.iter().filter(alive).copied().map(Action::Deliver));
    }

    fn progress_of(&self, state: &State, member: u8, actions: &mut Vec<Action>) {
        let at = state.member(member);
        if !at.tail.is_empty() {
            actions.push(Action::Sync { member });
        }
        for (transaction, work) in at.work.iter().copied() {
            let finish = |end| Action::Finish {
                member,
                transaction,
                work,
                end,
            };
            match work {
                Work::Commit(_) | Work::Abort => actions.push(finish(End::Applied)),
                Work::Prepare(_)
                    if self.scope.contended && at.holds.iter().any(|other| *other != transaction) =>
                {
                    self.tally.met(Met::HoldRefused);
                    actions.push(finish(End::Answered(Voted::No)));
                }
                Work::Prepare(_) => {
                    actions.extend(self.scope.answers.iter().map(|vote| finish(End::Answered(*vote))));
                    if self.scope.tardy {
                        actions.push(finish(End::Tardy));
                    }
                }
            }
        }
        for transaction in self.names.transactions().filter(|one| at.in_doubt(*one)) {
            for node in (0..2).filter(|node| state.node(*node).leads) {
                actions.push(Action::Ask {
                    member,
                    transaction,
                    node,
                });
            }
        }
        if self.scope.lives {
            let Ok(known) =
                unanimo_core::table::View::registration(&state.raft.table, self.names.participant(member));
            if known.is_none_or(|known| known.witness.generation != at.generation) {
                let nodes = (0..2).filter(|node| state.node(*node).leads);
                actions.extend(nodes.map(|node| Action::Register { member, node }));
            }
        }
        if self.scope.forgetting && state.has_closed(self, 0) {
            if !at.heard_horizon {
                actions.push(Action::HearHorizon { member });
            }
            if at.has_closed() {
                actions.push(Action::Forget { member });
            }
        }
    }

    /// Participants finish what they need not wait for.
    fn settle(&self, state: &mut State) {
        for member in 0..MEMBERS as u8 {
            while !state.member(member).is_quiet() {
                if !state.member(member).tail.is_empty() {
                    state.sync(self, member);
                    continue;
                }
                let decided = |(_, work): &&(u8, Work)| !matches!(work, Work::Prepare(_));
                let Some(work) = state.member(member).work.iter().find(decided).copied() else {
                    break;
                };
                state.finish(self, member, work, End::Applied);
            }
        }
    }

    fn leader_dies(&self, state: &mut State, keeps: bool) {
        state.faults.leader_changes -= 1;
        if keeps {
            // What the next leader finds in its log is applied before it does anything else.
            while !state.raft.pending.is_empty() {
                state.apply(self, 0);
            }
        }
        *state.node_mut(0) = Default::default();
        if !state.raft.pending.is_empty() {
            state.raft_mut().pending.clear();
        }
        state.take_over(self, 1);
    }

    fn leader_deposed(&self, state: &mut State, keeps: bool) {
        state.faults.leader_changes -= 1;
        if !keeps && !state.raft.pending.is_empty() {
            state.raft_mut().pending.clear();
        }
        state.take_over(self, 1);
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.progress(state, actions);
        self.initiators_and_timers(state, actions);
        self.faults(state, actions);
    }

    /// None if nothing has changed.
    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Submit { node, request } => state.submit(self, node, request),
            Action::AskForAbort { node, transaction } => state.ask_for_abort(self, node, transaction),
            Action::Deadline { node, transaction } => {
                state.step_transaction(self, node, transaction, TransactionInput::TimerFired);
            }
            Action::Deliver(envelope) if envelope.goes_to_node() => state.hear_as_node(self, envelope),
            Action::Deliver(envelope) => state.hear_as_member(self, envelope),
            Action::Apply(place) => state.apply(self, place),
            Action::Sync { member } => state.sync(self, member),
            Action::Finish {
                member,
                transaction,
                work,
                end,
            } => state.finish(self, member, (transaction, work), end),
            Action::Ask {
                member,
                transaction,
                node,
            } => state.ask(self, member, transaction, node),
            Action::Crash { member, keep } => {
                state.faults.crashes -= 1;
                state.crash(self, member, keep);
            }
            Action::FallBack { member, records } => {
                state.faults.crashes -= 1;
                state.faults.old_copies -= 1;
                state.fall_back(self, member, records);
            }
            Action::Register { member, node } => state.register(self, member, node),
            Action::LeaderDies { keeps } => self.leader_dies(&mut state, keeps),
            Action::LeaderDeposed { keeps } => self.leader_deposed(&mut state, keeps),
            Action::Sweep { node } => state.take_over(self, node),
            Action::CloseAll { node } => state.close_all(node),
            Action::ForgetAll { node } => state.forget_all(node),
            Action::HearHorizon { member } => state.hear_horizon(self, member),
            Action::Forget { member } => state.forget(self, member),
        }
        if self.scope.prompt {
            self.settle(&mut state);
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(&self.scope)
    }
}
