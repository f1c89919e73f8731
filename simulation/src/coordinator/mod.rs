//! A coordinator node: what the shell in `coordinator/src/driver` does around
//! [`Transaction`](unanimo_core::Transaction) and the table, step by step the same, with the log's model in place of Raft.

mod calls;
mod forgetting;
mod inquiry;
mod leading;
mod run;

use std::collections::BTreeMap;

use unanimo_core::table::{Applied, View as _};
use unanimo_core::{Generation, Members, Timestamp, TransactionId};

use crate::counters::Sometimes;
use crate::event::Event;
use crate::log::{Replica, Role, Snapshot};
use crate::message::{Ask, InquiryAnswer, Message, Question, Told, Why};
use crate::node::Node;
use crate::schedule::Time;
use crate::world::{Armed, Clock, Timer, World};

pub(crate) use run::Run;

/// One node. Everything but the replica's disk is volatile.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) life: u32,
    pub(crate) is_up: bool,
    pub(crate) clock: Clock,
    pub(crate) replica: Replica,
    pub(crate) armed: Option<Armed>,
    pub(crate) next_sync_fails: Option<u64>,
    /// The term in which it leads and has applied everything that was decided before; none otherwise.
    pub(crate) ready: Option<u64>,
    /// It is finding out whether it may be ready.
    becomes_ready: bool,
    pub(crate) runs: BTreeMap<TransactionId, Run>,
    run_count: u64,
    /// Runs that are voting or deciding, and keys that are being bound.
    in_flight: u64,
    /// The highest time that a majority's clocks allow, and when that was by its own monotonic clock.
    ahead: Option<(Timestamp, Time)>,
    /// Up to when time has been counted.
    counted_until: Time,
    /// The first time that it has proposed, in which term, and when by its own monotonic clock.
    first_time: Option<(u64, Timestamp, Time)>,
    clock_round: u64,
    clocks: Vec<Timestamp>,
}

/// Who waits for an answer, and what was asked.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) node: Node,
    pub(crate) life: u32,
    pub(crate) call: u64,
    pub(crate) ask: Ask,
}

/// What goes on when something is recorded, or sure.
#[derive(Clone, Debug)]
pub(crate) enum Continuation {
    Ready {
        term: u64,
    },
    Outcome(Caller),
    /// A key is bound; whether a place was taken for its transaction.
    Bound {
        caller: Caller,
        admitted: bool,
    },
    /// An abort is recorded for no request.
    Aborted {
        caller: Caller,
        members: Members,
    },
    Registered {
        from: Node,
        life: u32,
        generation: Generation,
    },
    Inquired {
        from: Node,
        /// The asker's life and call.
        asker: (u32, u64),
        answers: Vec<(TransactionId, unanimo_core::RequestHash, InquiryAnswer)>,
        open: Vec<Question>,
    },
}

impl Coordinator {
    pub(crate) fn new(_: u64, clock: Clock) -> Self {
        Self {
            life: 0,
            is_up: false,
            clock,
            replica: Replica::new(),
            armed: None,
            next_sync_fails: None,
            ready: None,
            becomes_ready: false,
            runs: BTreeMap::new(),
            run_count: 0,
            in_flight: 0,
            ahead: None,
            counted_until: 0,
            first_time: None,
            clock_round: 0,
            clocks: Vec::new(),
        }
    }

    /// A run has voted, or nothing comes of it.
    ///
    /// # Panics
    ///
    /// Nobody has a place: one was given back twice.
    pub(crate) fn gives_a_place_back(&mut self) {
        assert!(self.in_flight > 0, "a place is given back twice");
        self.in_flight -= 1;
    }

    /// Runs that have a place among those that vote, counted one by one.
    pub(crate) fn voting(&self) -> u64 {
        self.runs.values().filter(|run| run.is_voting).count() as u64
    }

    pub(crate) fn watermark(&self) -> Option<TransactionId> {
        let Ok(horizon) = self.replica.table.horizon();
        (horizon != unanimo_core::table::Horizon::default()).then_some(horizon.watermark)
    }
}

impl World {
    pub(crate) fn start_coordinator(&mut self, place: usize) {
        let node = &mut self.coordinators[place];
        node.life += 1;
        node.is_up = true;
        let life = node.life;
        let node = Node::Coordinator(place as u8);
        self.watch.happened(&Event::Started { node, life });
        self.watch_for_leader(place);
    }

    pub(crate) fn crash_coordinator(&mut self, place: usize, keep: u64) {
        self.count_what_the_crash_meets(place);
        let node = &mut self.coordinators[place];
        let tail = node.replica.last_index() - node.replica.durable.min(node.replica.last_index());
        let again = node.replica.applied > node.replica.snapshot.index;
        let lost = node.replica.crash(tail * keep / 1000);
        node.is_up = false;
        node.ready = None;
        node.becomes_ready = false;
        node.runs.clear();
        node.in_flight = 0;
        node.ahead = None;
        node.clocks.clear();
        let node = Node::Coordinator(place as u8);
        if again {
            self.watch.sometimes(Sometimes::EntriesAppliedAgain);
        }
        self.watch.happened(&Event::Crashed {
            node,
            left: None,
            lost,
        });
    }

    fn count_what_the_crash_meets(&mut self, place: usize) {
        use unanimo_core::TransactionPhase as Phase;
        let node = &self.coordinators[place];
        let phases = node.runs.values().map(|run| run.transaction.phase());
        let mut met = [false; 3];
        for phase in phases {
            match phase {
                Phase::Preparing { .. } => met[0] = true,
                Phase::Deciding { .. } => met[1] = true,
                Phase::Completing { .. } => met[2] = true,
                Phase::Ended { .. } => {}
            }
        }
        let counters = [
            Sometimes::LeaderCrashedWhileVoting,
            Sometimes::LeaderCrashedWhileDeciding,
            Sometimes::LeaderCrashedWhileDelivering,
        ];
        for (counter, met) in counters.into_iter().zip(met) {
            if met {
                self.watch.sometimes(counter);
            }
        }
    }

    pub(crate) fn coordinator_timer(&mut self, place: usize, timer: Timer) {
        match timer {
            Timer::Election => self.election_due(place),
            Timer::Heartbeat { term } => self.heartbeat(place, term),
            Timer::LogSynced { upto } => self.log_synced(place, upto),
            Timer::ProposalDue { term, index } => self.proposal_due(place, term, index),
            Timer::Apply => self.apply_committed(place),
            Timer::Check => self.check_leadership(place),
            Timer::Sweep { term } => self.sweep(place, term),
            Timer::Tick { term } => self.tick(place, term),
            Timer::ClocksRead { round } => self.clocks_read(place, round),
            Timer::Deadline { transaction, run } => self.deadline_passed(place, transaction, run),
            Timer::CallAgain {
                transaction,
                run,
                member,
                attempt,
            } => self.call_again(place, transaction, run, member, attempt),
            _ => unreachable!("no coordinator waits for {timer:?}"),
        }
    }

    pub(crate) fn coordinator_hears(&mut self, place: usize, from: Node, life: u32, message: Message) {
        let me = Node::Coordinator(place as u8);
        match message {
            Message::Call { call, ask } => self.asked(
                place,
                Caller {
                    node: from,
                    life,
                    call,
                    ask,
                },
            ),
            Message::Voted {
                transaction,
                request_hash,
                vote,
                witness,
            } => self.voted(place, from, (transaction, request_hash), vote, witness),
            Message::Acknowledged {
                transaction,
                request_hash,
                commit,
                witness,
            } => self.acknowledged(place, from, (transaction, request_hash), commit, witness),
            Message::Refused {
                transaction,
                request_hash,
                prepare,
                why,
            } => self.refused(place, from, (transaction, request_hash), prepare, why),
            Message::Inquire { call, questions } => self.inquired(place, from, (life, call), questions),
            Message::Register { witness, address } => self.register(place, from, life, witness, address),
            Message::ClockAsked { round } => {
                let at = self.coordinators[place].clock.wall(self.now);
                self.reply(me, from, life, Message::ClockTold { round, at });
            }
            Message::ClockTold { round, at } => {
                let node = &mut self.coordinators[place];
                if node.clock_round == round {
                    node.clocks.push(at);
                }
            }
            Message::VoteAsked {
                term,
                last_index,
                last_term,
            } => self.vote_asked(place, from, life, term, (last_index, last_term)),
            Message::VoteGiven { term, granted } => self.vote_given(place, from, term, granted),
            Message::Append {
                term,
                previous_index,
                previous_term,
                entries,
                commit,
                round,
            } => self.append_heard(
                place,
                from,
                (term, round, commit),
                (previous_index, previous_term),
                &entries,
            ),
            Message::Appended { term, round, matched } => {
                self.appended_heard(place, from, term, round, matched)
            }
            Message::Snapshot {
                term,
                index,
                index_term,
                table,
                round,
            } => {
                let snapshot = Snapshot {
                    index,
                    term: index_term,
                    table,
                };
                self.snapshot_heard(place, from, (term, round), snapshot);
            }
            Message::Told { .. }
            | Message::Join { .. }
            | Message::Joined { .. }
            | Message::Prepare { .. }
            | Message::Deliver { .. }
            | Message::Inquired { .. }
            | Message::Registered { .. } => unreachable!("no coordinator is sent {message:?}"),
        }
    }

    /// Answers a caller.
    pub(crate) fn tell(&mut self, place: usize, caller: &Caller, told: Told) {
        let call = caller.call;
        let from = Node::Coordinator(place as u8);
        self.reply(from, caller.node, caller.life, Message::Told { call, told });
    }

    pub(crate) fn refuse(&mut self, place: usize, caller: &Caller, why: Why) {
        self.tell(place, caller, Told::Refused(why));
    }

    /// A proposal was applied, or is lost to this node with its leadership.
    pub(crate) fn go_on(&mut self, place: usize, then: Continuation, applied: Option<Applied>) {
        match (then, applied) {
            (Continuation::Bound { caller, admitted }, Some(Applied::Bound(binding))) => {
                self.bound(place, caller, admitted, binding);
            }
            (Continuation::Bound { caller, admitted }, Some(_)) => {
                self.release_place(place, admitted);
                self.refuse(place, &caller, Why::Expired);
            }
            (Continuation::Aborted { caller, members }, Some(Applied::Decided(record))) => {
                self.abort_recorded(place, caller, &members, record);
            }
            (Continuation::Aborted { caller, .. }, Some(_)) => self.refuse(place, &caller, Why::Expired),
            (
                Continuation::Registered {
                    from,
                    life,
                    generation,
                },
                Some(applied),
            ) => {
                let confirmed = Some(applied == Applied::Registered);
                let registered = Message::Registered {
                    generation,
                    confirmed,
                };
                self.reply(Node::Coordinator(place as u8), from, life, registered);
            }
            (then, _) => self.give_up(place, then),
        }
    }

    /// Nothing comes of it here any more.
    pub(crate) fn give_up(&mut self, place: usize, then: Continuation) {
        let me = Node::Coordinator(place as u8);
        match then {
            Continuation::Ready { .. } => self.coordinators[place].becomes_ready = false,
            Continuation::Outcome(caller) => self.refuse(place, &caller, Why::NoLeader),
            Continuation::Bound { caller, admitted } => {
                self.release_place(place, admitted);
                self.refuse(place, &caller, Why::Unknown);
            }
            Continuation::Aborted { caller, .. } => self.refuse(place, &caller, Why::Unknown),
            Continuation::Registered {
                from,
                life,
                generation,
            } => {
                let registered = Message::Registered {
                    generation,
                    confirmed: None,
                };
                self.reply(me, from, life, registered);
            }
            Continuation::Inquired {
                from,
                asker,
                mut answers,
                open,
            } => {
                let refused = |one: Question| {
                    let answer = InquiryAnswer::Refused(Why::NoLeader);
                    (one.transaction, one.request_hash, answer)
                };
                answers.extend(open.into_iter().map(refused));
                let (life, call) = asker;
                self.reply(me, from, life, Message::Inquired { call, answers });
            }
        }
    }

    /// It is sure that this node led when it was asked, and everything from before is applied.
    pub(crate) fn pass(&mut self, place: usize, then: Continuation) {
        match then {
            Continuation::Ready { term } => self.ready(place, term),
            Continuation::Outcome(caller) => self.outcome_after_barrier(place, &caller),
            Continuation::Inquired {
                from,
                asker,
                answers,
                open,
            } => self.inquired_after_barrier(place, from, asker, answers, open),
            Continuation::Bound { .. } | Continuation::Aborted { .. } | Continuation::Registered { .. } => {
                unreachable!("these wait for the table")
            }
        }
    }

    /// Records where a participant serves and how far its memory reaches (R11).
    fn register(
        &mut self,
        place: usize,
        from: Node,
        life: u32,
        witness: unanimo_core::table::Witness,
        address: u32,
    ) {
        let generation = witness.generation;
        let Node::Participant(who) = from else { return };
        let then = Continuation::Registered {
            from,
            life,
            generation,
        };
        if self.coordinators[place].ready.is_none() {
            return self.give_up(place, then);
        }
        let command = unanimo_core::table::Command::Register {
            participant: self.ids[usize::from(who)].clone(),
            registration: unanimo_core::table::Registration {
                address: format!("p{}:{address}", who + 1),
                witness,
            },
        };
        self.propose(place, Some(command), crate::log::Waiter::Caller(then));
    }

    /// A member that never registered cannot have promised anything, nor hear what is decided.
    pub(crate) fn are_registered(&self, place: usize, members: &Members) -> bool {
        let table = &self.coordinators[place].replica.table;
        members.iter().all(|member| {
            let Ok(known) = table.registration(member);
            known.is_some()
        })
    }

    pub(crate) fn leads(&self, place: usize) -> bool {
        matches!(self.coordinators[place].replica.role, Role::Leader(_))
    }
}
