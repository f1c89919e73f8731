//! Initiators: what the client library does, for one call of an application.

use std::collections::BTreeMap;
use std::rc::Rc;

use unanimo_core::mutants::{self, Mutant};
use unanimo_core::{
    Generation, IdempotencyKey, JoinAnswer, Members, Operation, Request, RequestHash, TransactionId,
};

use crate::counters::Sometimes;
use crate::event::{Conclusion, Event};
use crate::message::{Ask, Message, Told, Why};
use crate::node::Node;
use crate::schedule::{MS, Move, Time, Want, Work};
use crate::world::{Timer, World};

const FIRST_PAUSE: Time = 20 * MS;
const LONGEST_PAUSE: Time = 500 * MS;
/// How long whoever does not know an outcome asks once more when the faults have stopped.
const LAST_PATIENCE: Time = 60_000 * MS;

/// The key with this number.
pub(crate) fn key_of(number: u64) -> IdempotencyKey {
    match IdempotencyKey::new(&format!("k{number}")) {
        Ok(key) => key,
        Err(error) => unreachable!("a letter and a number are a key: {error}"),
    }
}

/// What it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Beginning,
    /// It calls a participant with the operation at this place.
    Joining(usize),
    /// It has asked for what it wants in the end.
    Asking,
    /// One thing failed: it asks for the abort of what it began.
    Aborting,
    Done,
}

/// One call.
#[derive(Debug)]
pub(crate) struct Initiator {
    stage: Stage,
    call: u64,
    node: u8,
    deadline: Time,
    pause: Time,
    since: Time,
    may_have_started: bool,
    id: Option<TransactionId>,
    request: Option<Rc<Request>>,
    /// In which lives the participants hold its work.
    joined: BTreeMap<u8, Generation>,
    conclusion: Option<Conclusion>,
}

impl Initiator {
    pub(crate) fn new(work: &Work) -> Self {
        Self {
            stage: Stage::Waiting,
            call: 0,
            node: work.node,
            deadline: 0,
            pause: FIRST_PAUSE,
            since: 0,
            may_have_started: false,
            id: None,
            request: None,
            joined: BTreeMap::new(),
            conclusion: None,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Waiting)
    }

    pub(crate) fn does_not_know(&self) -> bool {
        self.conclusion == Some(Conclusion::Unknown)
    }
}

impl World {
    fn work(&self, place: usize) -> Work {
        self.schedule.works[place].clone()
    }

    pub(crate) fn begin_work(&mut self, place: usize) {
        if !self.is_faulty {
            return;
        }
        let work = self.work(place);
        let initiator = &mut self.initiators[place];
        initiator.deadline = self.now + work.patience_ms * MS;
        initiator.since = self.now;
        initiator.node = work.node % self.coordinators.len() as u8;
        initiator.id = self.watch.names.id(work.transaction);
        let number = self.knobs.participants as u8;
        let there = |moves: &[(u8, Move)]| -> Vec<(u8, Move)> {
            moves.iter().copied().filter(|(who, _)| *who < number).collect()
        };
        match &work.want {
            Want::Submit { moves, .. } => {
                let moves = there(moves);
                if moves.is_empty() {
                    return;
                }
                let request = self.request_of(&moves);
                if let Some(id) = self.initiators[place].id {
                    self.expect(id, request.hash(), &moves);
                }
                // Under a key it may be run as another transaction than its own.
                for id in self.ids_under_the_same_key(&work) {
                    self.expect(id, request.hash(), &moves);
                }
                self.initiators[place].request = Some(request);
                self.initiators[place].stage = Stage::Asking;
            }
            Want::Interactive { moves, .. } => {
                if there(moves).is_empty() {
                    return;
                }
                self.initiators[place].stage = Stage::Beginning;
            }
            Want::Abort { .. } | Want::Ask => {
                if self.initiators[place].id.is_none() {
                    return;
                }
                self.initiators[place].stage = Stage::Asking;
            }
        }
        self.attempt(place);
    }

    fn ids_under_the_same_key(&self, work: &Work) -> Vec<TransactionId> {
        let Want::Submit { key: Some(key), .. } = &work.want else {
            return Vec::new();
        };
        let same = self
            .schedule
            .works
            .iter()
            .filter(|other| matches!(&other.want, Want::Submit { key: Some(of), .. } if of == key));
        same.filter_map(|other| self.watch.names.id(other.transaction))
            .collect()
    }

    /// Notes what a request means, so that it can be seen at the end whether that happened.
    fn expect(&mut self, id: TransactionId, hash: RequestHash, moves: &[(u8, Move)]) {
        self.watch.names.learn_request(id, hash);
        let wanted = self.watch.history.wanted.entry((id, hash)).or_default();
        wanted.clear();
        for (who, what) in moves {
            if let Move::By(by) = what {
                *wanted.entry(*who).or_default() += by;
            }
        }
    }

    /// Makes one attempt.
    fn attempt(&mut self, place: usize) {
        let work = self.work(place);
        self.calls += 1;
        let call = self.calls;
        let initiator = &mut self.initiators[place];
        initiator.call = call;
        let me = Node::Initiator(place as u16);
        let (stage, node, id) = (initiator.stage, initiator.node, initiator.id);
        let ask = match (stage, &work.want, id) {
            (Stage::Beginning, ..) => Ask::Begin,
            (Stage::Joining(which), Want::Interactive { moves, .. }, Some(id)) => {
                return self.call_participant(place, call, id, moves[which]);
            }
            (Stage::Asking, Want::Submit { key, .. }, Some(transaction)) => {
                let Some(request) = initiator.request.clone() else {
                    return;
                };
                let key = key.map(key_of);
                Ask::Submit {
                    transaction,
                    request,
                    key,
                }
            }
            (Stage::Asking, Want::Interactive { moves, .. }, Some(transaction)) => {
                let members = Rc::new(self.members_of(moves.iter().map(|(who, _)| *who)));
                Ask::Commit { transaction, members }
            }
            (Stage::Aborting, Want::Interactive { moves, .. }, Some(transaction)) => {
                let members = Rc::new(self.members_of(moves.iter().map(|(who, _)| *who)));
                Ask::Abort { transaction, members }
            }
            (Stage::Asking, Want::Abort { members }, Some(transaction)) => {
                let count = self.knobs.participants as u8;
                let there = members.iter().copied().filter(|who| *who < count);
                let members = Rc::new(self.members_of(there));
                Ask::Abort { transaction, members }
            }
            (Stage::Asking, Want::Ask, Some(transaction)) => Ask::Outcome { transaction },
            _ => return,
        };
        self.send(me, Node::Coordinator(node), Message::Call { call, ask });
        self.wait(me, self.knobs.call_ms * MS, Timer::CallTimedOut { call });
    }

    /// The application's own call to a service.
    fn call_participant(
        &mut self,
        place: usize,
        call: u64,
        transaction: TransactionId,
        (who, what): (u8, Move),
    ) {
        let me = Node::Initiator(place as u16);
        let left = self.initiators[place].deadline.saturating_sub(self.now);
        let message = Message::Join {
            call,
            transaction,
            operation: Operation::new(what.to_string().into_bytes()),
            remaining_ms: left / MS,
        };
        self.send(me, Node::Participant(who), message);
        self.wait(me, self.knobs.call_ms * MS, Timer::CallTimedOut { call });
    }

    pub(crate) fn initiator_timer(&mut self, place: usize, timer: Timer) {
        match timer {
            Timer::CallTimedOut { call } if self.initiators[place].call == call => {
                if let Stage::Joining(_) = self.initiators[place].stage {
                    return self.give_up_joining(place);
                }
                self.failed(place, None);
            }
            Timer::CallNext { call } if self.initiators[place].call == call => self.attempt(place),
            Timer::CallTimedOut { .. } | Timer::CallNext { .. } => {}
            _ => unreachable!("no initiator waits for {timer:?}"),
        }
    }

    pub(crate) fn initiator_hears(&mut self, place: usize, _from: Node, message: Message) {
        match message {
            Message::Told { call, told } if self.initiators[place].call == call => self.told(place, told),
            Message::Joined { call, answer, .. } if self.initiators[place].call == call => {
                self.joined(place, answer);
            }
            Message::Told { .. } | Message::Joined { .. } => {}
            other => unreachable!("no initiator is sent {other:?}"),
        }
    }

    fn told(&mut self, place: usize, told: Told) {
        if self.initiators[place].is_done() {
            return;
        }
        match told {
            Told::Decided {
                transaction,
                decision,
            } => {
                let conclusion = if decision.is_commit() {
                    Conclusion::Committed
                } else {
                    Conclusion::Aborted
                };
                self.conclude(place, transaction, conclusion);
            }
            Told::Begun(at) => self.begun(place, at),
            Told::Undecided => self.conclude_own(place, Conclusion::Undecided),
            Told::Refused(why) => self.failed(place, Some(why)),
        }
    }

    fn begun(&mut self, place: usize, at: unanimo_core::Timestamp) {
        let work = self.work(place);
        if self.initiators[place].stage != Stage::Beginning {
            return;
        }
        let mut chance = crate::chance::Chance::of(self.schedule.seed, "id", u64::from(work.transaction));
        let random = u128::from(chance.bits()) << 64 | u128::from(chance.bits());
        let id = TransactionId::new(at, random);
        self.watch.names.learn(work.transaction, id);
        let Want::Interactive { moves, .. } = &work.want else {
            return;
        };
        let members: Members = self.members_of(moves.iter().map(|(who, _)| *who));
        self.expect(id, RequestHash::of_members(&members), moves);
        self.initiators[place].id = Some(id);
        self.initiators[place].stage = Stage::Joining(0);
        self.attempt(place);
    }

    fn joined(&mut self, place: usize, answer: Option<(Generation, JoinAnswer)>) {
        let work = self.work(place);
        let Want::Interactive { moves, aborts } = &work.want else {
            return;
        };
        let Stage::Joining(which) = self.initiators[place].stage else {
            return;
        };
        let Some((generation, JoinAnswer::Joined)) = answer else {
            return self.give_up_joining(place);
        };
        let (who, _) = moves[which];
        let before = self.initiators[place].joined.insert(who, generation);
        // In another life it has lost what it held in the first.
        if before.is_some_and(|before| before != generation) {
            return self.give_up_joining(place);
        }
        let next = which + 1;
        self.initiators[place].stage = match (next < moves.len(), *aborts) {
            (true, _) => Stage::Joining(next),
            (false, false) => Stage::Asking,
            (false, true) => Stage::Aborting,
        };
        self.attempt(place);
    }

    /// Somebody may hold something that nobody can name: the transaction can only be aborted.
    fn give_up_joining(&mut self, place: usize) {
        self.initiators[place].stage = Stage::Aborting;
        self.attempt(place);
    }

    /// An attempt has failed: none means that nobody has answered.
    fn failed(&mut self, place: usize, why: Option<Why>) {
        let initiator = &mut self.initiators[place];
        if initiator.is_done() {
            return;
        }
        let started = initiator.may_have_started;
        if let Some(why) = why.filter(|why| why.is_final()) {
            let conclusion = match why {
                Why::Expired => Conclusion::Expired,
                _ if started => Conclusion::Unknown,
                _ => Conclusion::Refused(why),
            };
            return self.conclude_own(place, conclusion);
        }
        initiator.may_have_started |= !why.is_some_and(Why::is_harmless);
        if mutants::is_on(Mutant::M21) && initiator.may_have_started {
            return self.conclude_own(place, Conclusion::Aborted);
        }
        if why != Some(Why::Overloaded) {
            initiator.node = (initiator.node + 1) % self.coordinators.len() as u8;
        }
        let initiator = &mut self.initiators[place];
        let pause = initiator.pause;
        initiator.pause = (pause * 2).min(LONGEST_PAUSE);
        if self.now + pause >= initiator.deadline {
            let conclusion = match why {
                Some(why @ Why::Premature) if !initiator.may_have_started => Conclusion::Refused(why),
                _ => Conclusion::Unknown,
            };
            return self.conclude_own(place, conclusion);
        }
        self.calls += 1;
        let call = self.calls;
        self.initiators[place].call = call;
        self.wait(Node::Initiator(place as u16), pause, Timer::CallNext { call });
    }

    fn conclude_own(&mut self, place: usize, conclusion: Conclusion) {
        match self.initiators[place].id {
            Some(id) => self.conclude(place, id, conclusion),
            // It never came so far as to have an id.
            None => self.initiators[place].stage = Stage::Done,
        }
    }

    fn conclude(&mut self, place: usize, transaction: TransactionId, conclusion: Conclusion) {
        let work = self.work(place);
        let stage = std::mem::replace(&mut self.initiators[place].stage, Stage::Done);
        let (request_hash, key) = match &work.want {
            Want::Submit { key, .. } => {
                let request = self.initiators[place].request.as_ref();
                (request.map(|request| request.hash()), *key)
            }
            Want::Interactive { moves, .. } if stage == Stage::Asking => {
                let members = self.members_of(moves.iter().map(|(who, _)| *who));
                (Some(RequestHash::of_members(&members)), None)
            }
            Want::Interactive { .. } | Want::Abort { .. } | Want::Ask => (None, None),
        };
        let asked_again = self.initiators[place].does_not_know();
        if conclusion == Conclusion::Unknown {
            self.watch.sometimes(Sometimes::OutcomeUnknownToItsInitiator);
        } else if asked_again {
            self.watch.sometimes(Sometimes::UnknownOutcomeAskedAgain);
        }
        if matches!(work.want, Want::Interactive { .. }) && conclusion == Conclusion::Committed {
            self.watch.sometimes(Sometimes::InteractiveCommitted);
        }
        let since = self.initiators[place].since;
        self.watch.happened(&Event::Concluded {
            initiator: Node::Initiator(place as u16),
            since,
            transaction,
            request_hash,
            key,
            conclusion: &conclusion,
        });
        self.initiators[place].conclusion = Some(conclusion);
    }

    /// Whoever does not know an outcome asks once more.
    pub(crate) fn ask_again(&mut self, place: usize) {
        if !self.initiators[place].does_not_know() {
            return;
        }
        let initiator = &mut self.initiators[place];
        initiator.stage = match self.schedule.works[place].want {
            Want::Interactive { aborts: true, .. } => Stage::Aborting,
            _ => Stage::Asking,
        };
        if matches!(self.schedule.works[place].want, Want::Interactive { .. })
            && initiator.joined.len() < self.schedule.works[place].members()
        {
            initiator.stage = Stage::Aborting;
        }
        initiator.since = self.now;
        initiator.may_have_started = false;
        initiator.pause = FIRST_PAUSE;
        initiator.deadline = self.now + LAST_PATIENCE;
        self.attempt(place);
    }
}
