//! What a node does when it becomes the leader, and while it is.

use unanimo_core::TransactionId;

use super::Continuation;
use crate::counters::Sometimes;
use crate::event::Event;
use crate::message::Why;
use crate::node::Node;
use crate::schedule::{MS, Time};
use crate::world::{Timer, World};

/// How often the leader checks that a quorum still follows it.
const CHECK: Time = 100 * MS;
/// How often it looks for decisions that somebody has yet to acknowledge and nobody is delivering.
const SWEEP: Time = 2_000 * MS;

impl World {
    /// It is elected. Before it says anything, everything decided before has to be applied here.
    pub(crate) fn begin_to_lead(&mut self, place: usize, term: u64) {
        if !self.leads(place) {
            return;
        }
        let node = &mut self.coordinators[place];
        node.becomes_ready = true;
        self.barrier(place, Continuation::Ready { term });
        self.wait(Node::Coordinator(place as u8), CHECK, Timer::Check);
    }

    pub(crate) fn ready(&mut self, place: usize, term: u64) {
        let now = self.now;
        let node = &mut self.coordinators[place];
        node.becomes_ready = false;
        if node.ready == Some(term) {
            return;
        }
        node.ready = Some(term);
        node.counted_until = node.clock.monotonic(now);
        let this = Node::Coordinator(place as u8);
        self.watch.happened(&Event::Ready { node: this, term });
        self.wait(this, 1, Timer::Tick { term });
        self.sweep(place, term);
    }

    /// Whatever runs is left to the next leader.
    pub(crate) fn no_longer_ready(&mut self, place: usize, why: &'static str) {
        let node = &mut self.coordinators[place];
        node.becomes_ready = false;
        if node.ready.take().is_none() {
            return;
        }
        let ids: Vec<TransactionId> = node.runs.keys().copied().collect();
        let node = Node::Coordinator(place as u8);
        self.watch.happened(&Event::Unready { node, why });
        for id in ids {
            self.drop_run(place, id, Why::Unknown);
        }
    }

    pub(crate) fn check_leadership(&mut self, place: usize) {
        if !self.leads(place) {
            return;
        }
        let term = self.coordinators[place].replica.term;
        let node = &self.coordinators[place];
        if !self.has_quorum(place) {
            self.no_longer_ready(place, "no majority answers");
        } else if node.ready.is_none() && !node.becomes_ready {
            self.coordinators[place].becomes_ready = true;
            self.barrier(place, Continuation::Ready { term });
        }
        self.wait(Node::Coordinator(place as u8), CHECK, Timer::Check);
    }

    /// Resumes decisions that members have yet to acknowledge: those of earlier leaders, and those that were parked.
    pub(crate) fn sweep(&mut self, place: usize, term: u64) {
        let node = &self.coordinators[place];
        if node.ready != Some(term) {
            return;
        }
        let open = |(id, record): (&TransactionId, &unanimo_core::table::DecisionRecord)| {
            (!record.is_ended() && !node.runs.contains_key(id)).then(|| (*id, record.clone()))
        };
        let records: Vec<_> = node.replica.table.records().iter().filter_map(open).collect();
        let mut pause = SWEEP;
        for (id, record) in records {
            if self.completing(place) >= self.knobs.completing || self.coordinators[place].ready != Some(term)
            {
                pause = CHECK;
                break;
            }
            let decided_in = self.watch.history.decided.get(&id).map(|decided| decided.term);
            self.watch.sometimes(if decided_in == Some(term) {
                Sometimes::ResumedByTheSameLeader
            } else {
                Sometimes::ResumedByANewLeader
            });
            self.resume(place, term, id, record);
        }
        if self.coordinators[place].is_up {
            self.wait(Node::Coordinator(place as u8), pause, Timer::Sweep { term });
        }
    }
}
