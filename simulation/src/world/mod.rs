//! Everything there is, and how time passes in it.

mod clock;
mod crash;
mod faults;
mod heal;
mod network;
mod queue;

use std::collections::BTreeMap;
use std::rc::Rc;

use unanimo_core::{ClusterId, Members, Operation, ParticipantId, Request, TransactionId};

use crate::chance::Chance;
use crate::coordinator::Coordinator;
use crate::initiator::Initiator;
use crate::node::{Node, participant_id};
use crate::participant::Participant;
use crate::schedule::{Fate, Knobs, MS, MessageKey, Move, Schedule, Time};
use crate::watch::{Transcript, Watch};

pub(crate) use clock::{Clock, EPOCH_MS};
pub(crate) use crash::Armed;
pub(crate) use queue::{Happening, Queue, Timer};

/// The whole world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) schedule: Rc<Schedule>,
    pub(crate) knobs: Knobs,
    pub(crate) cluster: ClusterId,
    pub(crate) ids: Vec<ParticipantId>,
    pub(crate) now: Time,
    pub(crate) queue: Queue,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) participants: Vec<Participant>,
    pub(crate) initiators: Vec<Initiator>,
    pub(crate) watch: Watch,
    /// Whether things still go wrong.
    pub(crate) is_faulty: bool,
    /// Set when everything has come to rest after the faults have stopped.
    pub(crate) is_over: bool,
    cuts: BTreeMap<(Node, Node), u32>,
    isolated: BTreeMap<Node, u32>,
    slow: BTreeMap<Node, u64>,
    /// Until when whatever is sent to a node comes again.
    replayed: BTreeMap<Node, Time>,
    /// How many messages of each kind were sent.
    sent: BTreeMap<(Node, Node, u8, u32), u32>,
    /// What became of messages, for whoever wants to repeat it.
    pub(crate) fates: Vec<(MessageKey, Fate)>,
    healing: heal::Healing,
    pub(crate) calls: u64,
    pub(crate) events: u64,
}

impl World {
    pub(crate) fn new(schedule: Rc<Schedule>, transcript: Transcript) -> Self {
        let knobs = schedule.knobs.clone();
        let cluster = match ClusterId::new("simulated") {
            Ok(cluster) => cluster,
            Err(error) => unreachable!("a plain word is a name: {error}"),
        };
        let drift = |purpose, place: u64| {
            let mut chance = Chance::of(schedule.seed, purpose, place);
            let ppm = chance.below(2 * knobs.drift_ppm + 1) as i64 - knobs.drift_ppm as i64;
            Clock::drifting(ppm)
        };
        let coordinators = (0..knobs.coordinators)
            .map(|place| Coordinator::new(knobs.coordinators, drift("drift c", place)))
            .collect();
        let participants = (0..knobs.participants)
            .map(|place| Participant::new(knobs.balance as i64, drift("drift p", place)))
            .collect();
        let initiators = schedule.works.iter().map(Initiator::new).collect();
        let mut world = Self {
            ids: (0..knobs.participants as usize).map(participant_id).collect(),
            cluster,
            now: 0,
            queue: Queue::default(),
            coordinators,
            participants,
            initiators,
            watch: Watch::new(transcript),
            is_faulty: true,
            is_over: false,
            cuts: BTreeMap::new(),
            isolated: BTreeMap::new(),
            slow: BTreeMap::new(),
            replayed: BTreeMap::new(),
            sent: BTreeMap::new(),
            fates: Vec::new(),
            healing: heal::Healing::default(),
            calls: 0,
            events: 0,
            knobs,
            schedule,
        };
        world.name_transactions();
        world.begin();
        world
    }

    /// Ids are made by the clocks of initiators, some of which are wrong. Those of interactive transactions come from
    /// coordinators.
    fn name_transactions(&mut self) {
        let schedule = Rc::clone(&self.schedule);
        for work in &schedule.works {
            let interactive = matches!(work.want, crate::schedule::Want::Interactive { .. });
            if interactive || self.watch.names.id(work.transaction).is_some() {
                continue;
            }
            let mut chance = Chance::of(schedule.seed, "id", u64::from(work.transaction));
            let mut at_ms = EPOCH_MS + work.at_ms;
            if chance.permille(self.knobs.skew) {
                let by = *chance.of_these(&[300, 2_000, 30_000]);
                at_ms = if chance.permille(500) {
                    at_ms + by
                } else {
                    at_ms - by
                };
            }
            let random = u128::from(chance.bits()) << 64 | u128::from(chance.bits());
            let at = unanimo_core::Timestamp::from_unix_ms(at_ms);
            self.watch
                .names
                .learn(work.transaction, TransactionId::new(at, random));
        }
    }

    fn begin(&mut self) {
        let schedule = Rc::clone(&self.schedule);
        for place in 0..self.coordinators.len() {
            self.start_coordinator(place);
        }
        for place in 0..self.participants.len() {
            self.start_participant(place);
        }
        for (place, work) in schedule.works.iter().enumerate() {
            self.queue.put(work.at_ms * MS, Happening::Work(place));
        }
        for (place, fault) in schedule.faults.iter().enumerate() {
            self.queue.put(fault.at_ms * MS, Happening::Fault(place));
        }
        self.queue
            .put(self.knobs.faults_until_ms * MS, Happening::FaultsStop);
    }

    /// Lets everything happen, until all is at rest or a rule is broken.
    pub(crate) fn run(&mut self) {
        while !self.is_over && self.watch.broken.is_none() {
            let Some((at, happening)) = self.queue.next() else {
                return;
            };
            self.now = at;
            self.watch.now = at;
            self.events += 1;
            self.happen(happening);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver(envelope) => self.deliver(*envelope),
            Happening::Timer { node, life, timer } => {
                if self.lives(node, life) {
                    self.timer_fired(node, timer);
                }
            }
            Happening::Fault(place) => self.harm(place),
            Happening::Work(place) => self.begin_work(place),
            Happening::Start { node, life } => self.start_again(node, life),
            Happening::Mended { repair } => self.mend(repair),
            Happening::FaultsStop => self.stop_faults(),
            Happening::Look => self.look(),
        }
    }

    fn timer_fired(&mut self, node: Node, timer: Timer) {
        match node {
            Node::Coordinator(place) => self.coordinator_timer(usize::from(place), timer),
            Node::Participant(place) => self.participant_timer(usize::from(place), timer),
            Node::Initiator(place) => self.initiator_timer(usize::from(place), timer),
        }
    }

    /// Which life a node is in, and whether it runs.
    pub(crate) fn life(&self, node: Node) -> (u32, bool) {
        match node {
            Node::Coordinator(place) => {
                let node = &self.coordinators[usize::from(place)];
                (node.life, node.is_up)
            }
            Node::Participant(place) => {
                let node = &self.participants[usize::from(place)];
                (node.life, node.is_up())
            }
            Node::Initiator(_) => (0, true),
        }
    }

    /// Whether the node is up in this very life.
    pub(crate) fn lives(&self, node: Node, life: u32) -> bool {
        self.life(node) == (life, true)
    }

    /// Sets a timer of the node's present life.
    pub(crate) fn wait(&mut self, node: Node, duration: Time, timer: Timer) {
        let (life, _) = self.life(node);
        let at = self.now + duration;
        self.queue.put(at, Happening::Timer { node, life, timer });
    }

    /// How many times as long everything takes at a node.
    pub(crate) fn slowness(&self, node: Node) -> u64 {
        if self.slow.is_empty() {
            return 1;
        }
        self.slow.get(&node).copied().unwrap_or(1)
    }

    /// A duration between two, for a purpose.
    pub(crate) fn duration(&self, purpose: &'static str, count: u64, least: Time, most: Time) -> Time {
        if least >= most {
            return least;
        }
        Chance::of(self.schedule.seed, purpose, count).between(least, most)
    }

    /// The request of these moves.
    pub(crate) fn request_of(&self, moves: &[(u8, Move)]) -> Rc<Request> {
        let branch = |(who, what): &(u8, Move)| {
            let operation = Operation::new(what.to_string().into_bytes());
            (self.ids[usize::from(*who)].clone(), operation)
        };
        match Request::new(moves.iter().map(branch), unanimo_core::Limits::default()) {
            Ok(request) => Rc::new(request),
            Err(error) => panic!("the script asks for what nobody may ask for: {error}"),
        }
    }

    pub(crate) fn members_of(&self, places: impl IntoIterator<Item = u8>) -> Members {
        let id = |place: u8| self.ids[usize::from(place)].clone();
        places.into_iter().map(id).collect()
    }
}
