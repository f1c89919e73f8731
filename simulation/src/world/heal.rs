//! The end of a run: the faults have stopped, and everything must come to rest within a bound. Then the accounts are what
//! the committed transactions make them, all replicas hold the same table, and every initiator can learn its outcome.

use unanimo_core::{BranchPhase, TransactionPhase};

use super::{Happening, World};
use crate::event::Event;
use crate::initiator::Initiator;
use crate::node::Node;
use crate::participant::Presence;
use crate::schedule::{MS, Time};

/// How often somebody looks whether everything is at rest.
const LOOK: Time = 250 * MS;
/// How long it may take: the longest patience of an initiator, and then a branch whose id was made by a clock that was
/// ahead, and which nobody takes over before its time has come.
const BOUND: Time = 150_000 * MS;
/// How far a replica may be behind at rest: the leader goes on writing down what time it is.
const BEHIND: u64 = 64;

/// How far the healing has come.
#[derive(Debug, Default)]
pub(super) struct Healing {
    began: Time,
}

impl World {
    pub(super) fn begin_healing(&mut self) {
        self.healing.began = self.now;
        self.queue.put(self.now + LOOK, Happening::Look);
    }

    pub(super) fn look(&mut self) {
        if let Some(what) = self.unfinished() {
            if self.now > self.healing.began + BOUND {
                return self.watch.happened(&Event::Stuck { what });
            }
            return self.queue.put(self.now + LOOK, Happening::Look);
        }
        // A refusal after an attempt that nobody answered says nothing either, so some ask more than once.
        if self.initiators.iter().any(Initiator::does_not_know) {
            for place in 0..self.initiators.len() {
                self.ask_again(place);
            }
            return self.queue.put(self.now + LOOK, Happening::Look);
        }
        self.watch.happened(&Event::AtRest);
        self.settle();
        self.is_over = true;
    }

    /// The first thing that is not at rest.
    fn unfinished(&self) -> Option<String> {
        let initiators = self.initiators.iter().enumerate();
        for (place, initiator) in initiators {
            let me = Node::Initiator(place as u16);
            if !initiator.is_done() {
                return Some(format!("{me} waits for an answer"));
            }
        }
        for place in 0..self.participants.len() {
            if let Some(what) = self.unfinished_at(place) {
                return Some(format!("{} {what}", Node::Participant(place as u8)));
            }
        }
        self.unfinished_at_coordinators()
    }

    fn unfinished_at(&self, place: usize) -> Option<String> {
        let participant = &self.participants[place];
        if participant.presence != Presence::Serving || !participant.is_registered {
            return Some("is not registered".to_owned());
        }
        if participant.runs_from_a_copy() {
            return Some("runs from an old copy".to_owned());
        }
        for (id, entry) in &participant.branches {
            let phase = entry.branch.phase();
            if !matches!(phase, BranchPhase::Unknown | BranchPhase::Finished(_)) {
                let number = self.watch.names.number(*id);
                return Some(format!("t{number} is {phase}"));
            }
        }
        if let Some(id) = participant.bank.holds().keys().next() {
            return Some(format!("holds something for t{}", self.watch.names.number(*id)));
        }
        None
    }

    fn unfinished_at_coordinators(&self) -> Option<String> {
        let leader = self.coordinators.iter().find(|node| node.ready.is_some());
        let Some(leader) = leader else {
            return Some("nobody leads".to_owned());
        };
        for (id, record) in leader.replica.table.records() {
            if !record.is_ended() {
                return Some(format!("t{} is not acknowledged", self.watch.names.number(*id)));
            }
        }
        for (place, node) in self.coordinators.iter().enumerate() {
            let me = Node::Coordinator(place as u8);
            if node.replica.applied + BEHIND < leader.replica.applied {
                return Some(format!("{me} is behind"));
            }
            for (id, run) in &node.runs {
                let phase = run.transaction.phase();
                if !matches!(phase, TransactionPhase::Ended { .. }) {
                    let number = self.watch.names.number(*id);
                    return Some(format!("{me} t{number} is {phase}"));
                }
            }
        }
        None
    }

    /// Compares what there is with what there should be.
    fn settle(&mut self) {
        for place in 0..self.participants.len() {
            let at = place as u8;
            let mut expected = self.knobs.balance as i64;
            for (id, decided) in &self.watch.history.decided {
                if decided.record.decision.is_commit() {
                    let wanted = self.watch.history.wanted.get(&(*id, decided.record.request_hash));
                    expected += wanted.and_then(|wanted| wanted.get(&at)).copied().unwrap_or(0);
                }
            }
            let balance = self.participants[place].bank.books.balance;
            self.watch.happened(&Event::Settled {
                at,
                balance,
                expected,
            });
        }
        let Some(leader) = self.coordinators.iter().find(|node| node.ready.is_some()) else {
            return;
        };
        let differs = self.coordinators.iter().position(|node| {
            node.replica.applied == leader.replica.applied && node.replica.table != leader.replica.table
        });
        if let Some(place) = differs {
            let node = Node::Coordinator(place as u8);
            self.watch.happened(&Event::Differs { node });
        }
    }
}
