//! A participant: what the library in `participant/src` does around [`Branch`](unanimo_core::Branch), with a journal and a
//! resource manager that forget in a crash what was not on disk.

mod branches;
mod doubts;
mod effects;
mod forgetting;
mod recovery;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use unanimo_core::{Branch, BranchPhase, Generation, Operation, Position, Timestamp, TransactionId};

use crate::bank::Bank;
use crate::journal::Journal;
use crate::message::{InquiryAnswer, Message};
use crate::node::Node;
use crate::schedule::Time;
use crate::world::{Armed, Clock, Timer, World};

pub(crate) use doubts::Doubts;

/// Whether it can be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Down,
    /// Its records are read and its holds are taken again; that it has started is not on disk yet.
    Recovering,
    Serving,
}

/// Who waits for an answer: somebody's call in some life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    node: Node,
    life: u32,
    /// What an initiator's call is known by, and which request a Prepare is for.
    call: u64,
    request_hash: unanimo_core::RequestHash,
}

/// A branch in memory, and who waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) branch: Branch,
    /// Where its promise stands, if this life knows.
    promised_at: Option<Position>,
    votes: Vec<Asker>,
    acknowledgements: Vec<(Asker, bool)>,
    joiner: Option<Asker>,
    /// The timer of what was joined runs.
    is_timed: bool,
}

/// Something that the resource manager works on.
#[derive(Clone, Debug)]
enum Effort {
    Prepare(Operation),
    Extend(Operation),
    Commit(bytes::Bytes),
    Abort,
}

/// One participant.
#[derive(Debug)]
pub(crate) struct Participant {
    pub(crate) life: u32,
    pub(crate) presence: Presence,
    pub(crate) clock: Clock,
    pub(crate) armed: Option<Armed>,
    pub(crate) next_sync_fails: Option<u64>,
    pub(crate) journal: Journal,
    pub(crate) bank: Bank,
    /// The disk as somebody copied it.
    copied: Option<(Journal, Bank)>,
    /// The newest disk, while an old copy is in its place.
    newest: Option<(Journal, Bank)>,
    // What follows is volatile.
    pub(crate) generation: Generation,
    /// How far its memory reached when it came up.
    reach: Position,
    pub(crate) is_registered: bool,
    /// The record that says that it is registered, until that is on disk.
    confirmed_at: Option<u64>,
    pub(crate) branches: BTreeMap<TransactionId, Entry>,
    /// Branches that wait for a record to be on disk, by its position.
    recording: BTreeMap<u64, TransactionId>,
    forced_upto: u64,
    syncing: Option<u64>,
    notes: u64,
    efforts: BTreeMap<u64, (TransactionId, Effort)>,
    effort_count: u64,
    pub(crate) doubts: Doubts,
    /// The highest watermark that a coordinator has told, and the one that is on disk.
    watermark: Option<TransactionId>,
    closed: Option<TransactionId>,
    closing_at: Option<(u64, TransactionId)>,
    forget_scheduled: bool,
    read_only: VecDeque<(Timestamp, TransactionId)>,
    /// The coordinator that is asked first.
    preferred: u8,
    /// The last address it served at; every disk that is put in has its own.
    address: u32,
}

impl Participant {
    pub(crate) fn new(balance: i64, clock: Clock) -> Self {
        Self {
            life: 0,
            presence: Presence::Down,
            clock,
            armed: None,
            next_sync_fails: None,
            journal: Journal::default(),
            bank: Bank::new(balance),
            copied: None,
            newest: None,
            generation: Generation::default(),
            reach: Position(0),
            is_registered: false,
            confirmed_at: None,
            branches: BTreeMap::new(),
            recording: BTreeMap::new(),
            forced_upto: 0,
            syncing: None,
            notes: 0,
            efforts: BTreeMap::new(),
            effort_count: 0,
            doubts: Doubts::default(),
            watermark: None,
            closed: None,
            closing_at: None,
            forget_scheduled: false,
            read_only: VecDeque::new(),
            preferred: 0,
            address: 1,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.presence != Presence::Down
    }

    /// Whether an old disk is in the place of the newest.
    pub(crate) const fn runs_from_a_copy(&self) -> bool {
        self.newest.is_some()
    }

    /// Branches that are not finished.
    pub(crate) fn in_flight(&self) -> u64 {
        let flying = |entry: &&Entry| {
            !matches!(
                entry.branch.phase(),
                BranchPhase::Unknown | BranchPhase::Finished(_)
            )
        };
        self.branches.values().filter(flying).count() as u64
    }

    pub(crate) fn copy_disk(&mut self) {
        let mut bank = self.bank.clone();
        bank.crash();
        self.copied = Some((self.journal.copy(), bank));
    }

    /// The branches in doubt.
    pub(crate) fn in_doubt(&self) -> BTreeSet<TransactionId> {
        let doubted = |(id, entry): (&TransactionId, &Entry)| entry.branch.in_doubt().map(|_| *id);
        self.branches.iter().filter_map(doubted).collect()
    }
}

impl Entry {
    fn new(branch: Branch, promised_at: Option<Position>) -> Self {
        Self {
            branch,
            promised_at,
            votes: Vec::new(),
            acknowledgements: Vec::new(),
            joiner: None,
            is_timed: false,
        }
    }
}

impl World {
    pub(crate) fn participant_timer(&mut self, place: usize, timer: Timer) {
        match timer {
            Timer::Synced { upto } => self.synced(place, upto),
            Timer::WorkDone { work } => self.work_done(place, work),
            Timer::Register => self.ask_to_register(place),
            Timer::Inquire => self.inquire(place),
            Timer::JoinExpires { transaction } => self.join_expires(place, transaction),
            Timer::Forget => self.close_what_was_told(place),
            _ => unreachable!("no participant waits for {timer:?}"),
        }
    }

    pub(crate) fn participant_hears(&mut self, place: usize, from: Node, life: u32, message: Message) {
        match message {
            Message::Inquired { call, answers } => {
                if self.participants[place].doubts.hears(call, self.now) {
                    self.heard_answers(place, answers);
                }
            }
            Message::Registered {
                generation,
                confirmed,
            } => self.heard_of_registration(place, generation, confirmed),
            message => self.heard_request(place, from, life, message),
        }
    }

    fn heard_answers(
        &mut self,
        place: usize,
        answers: Vec<(TransactionId, unanimo_core::RequestHash, InquiryAnswer)>,
    ) {
        for (transaction, request_hash, answer) in answers {
            self.heard_answer(place, transaction, request_hash, answer);
            if !self.participants[place].is_up() {
                return;
            }
        }
    }

    pub(crate) fn duration_at(
        &self,
        place: usize,
        purpose: &'static str,
        count: u64,
        range: (u64, u64),
    ) -> Time {
        let node = Node::Participant(place as u8);
        let count = count << 8 ^ place as u64;
        self.duration(purpose, count, range.0, range.1) * self.slowness(node)
    }
}
