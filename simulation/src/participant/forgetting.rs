//! Forgets what the coordinators have closed (R7): first the watermark is made durable, then finished branches below it
//! go, then the beginning of the journal.

use unanimo_core::{BranchPhase, Record};

use super::Participant;
use crate::event::Event;
use crate::node::Node;
use crate::schedule::MS;
use crate::world::{Timer, World};

impl World {
    pub(super) fn forget_soon(&mut self, place: usize) {
        let node = &mut self.participants[place];
        if !node.is_registered || std::mem::replace(&mut node.forget_scheduled, true) {
            return;
        }
        let pause = self.knobs.forget_pause_ms * MS;
        self.wait(Node::Participant(place as u8), pause, Timer::Forget);
    }

    /// Makes the watermark durable. Only in a life that the cluster has confirmed.
    pub(super) fn close_what_was_told(&mut self, place: usize) {
        let cluster = self.cluster.clone();
        let node = &mut self.participants[place];
        node.forget_scheduled = false;
        let Some(below) = node.watermark.filter(|told| Some(*told) > node.closed) else {
            return;
        };
        if !node.is_registered || node.closing_at.is_some() {
            return;
        }
        let generation = node.generation;
        let record = Record::Closed {
            cluster,
            generation,
            below,
        };
        let position = self.write(place, record, true);
        self.participants[place].closing_at = Some((position, below));
        self.sync(place);
    }

    /// The watermark may be durable now.
    pub(super) fn forget_what_is_closed(&mut self, place: usize, durable: u64) {
        let node = &mut self.participants[place];
        let Some((position, below)) = node.closing_at.filter(|(position, _)| *position <= durable) else {
            return;
        };
        node.closing_at = None;
        node.closed = node.closed.max(Some(below));
        let at = place as u8;
        self.watch.happened(&Event::Closed { at, below });
        let node = &mut self.participants[place];
        let finished = |phase: &BranchPhase| matches!(phase, BranchPhase::Finished(_));
        node.branches
            .retain(|id, entry| *id >= below || !finished(entry.branch.phase()));
        node.release_journal(position);
        self.forget_soon(place);
    }
}

impl Participant {
    /// Lets go of the beginning of the journal as far as nobody needs it: no promise without its end stands there, and no
    /// end of a branch that is not closed.
    fn release_journal(&mut self, closed_at: u64) {
        let mut ended = std::collections::BTreeSet::new();
        let durable = self.journal.durable();
        for (position, record) in self.journal.records() {
            if let Record::Committed { transaction, .. } | Record::Aborted { transaction, .. } = record
                && position.0 <= durable
            {
                ended.insert(*transaction);
            }
        }
        let needed = self.journal.records().find(|(position, record)| match record {
            _ if position.0 >= closed_at => true,
            Record::Prepared(id, _) => !ended.contains(id),
            Record::Committed { transaction, .. } | Record::Aborted { transaction, .. } => {
                Some(*transaction) >= self.closed
            }
            Record::Started { .. } | Record::Registered { .. } | Record::Closed { .. } => false,
        });
        let before = needed.map_or(closed_at, |(position, _)| position.0);
        self.journal.release_before(before);
    }
}
