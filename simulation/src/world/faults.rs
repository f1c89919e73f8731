//! What goes wrong by the schedule, and how it is mended.

use std::collections::BTreeMap;

use super::queue::Repair;
use super::{Armed, Happening, World};
use crate::event::Event;
use crate::node::Node;
use crate::schedule::{Harm, MS};

/// Several cuts may lie upon each other.
pub(super) fn one_less<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl World {
    fn exists(&self, node: Node) -> bool {
        match node {
            Node::Coordinator(place) => usize::from(place) < self.coordinators.len(),
            Node::Participant(place) => usize::from(place) < self.participants.len(),
            Node::Initiator(place) => usize::from(place) < self.initiators.len(),
        }
    }

    fn nodes(&self) -> Vec<Node> {
        let coordinators = (0..self.coordinators.len()).map(|place| Node::Coordinator(place as u8));
        let participants = (0..self.participants.len()).map(|place| Node::Participant(place as u8));
        coordinators.chain(participants).collect()
    }

    pub(super) fn harm(&mut self, place: usize) {
        let harm = self.schedule.faults[place].harm.clone();
        let all_there = match &harm {
            Harm::CrashAll { .. } => true,
            Harm::Cut { from, to, .. } => self.exists(*from) && self.exists(*to),
            Harm::Crash { node, .. }
            | Harm::FailSync { node, .. }
            | Harm::Isolate { node, .. }
            | Harm::Slow { node, .. }
            | Harm::Replay { node, .. }
            | Harm::Jump { node, .. }
            | Harm::Copy { node }
            | Harm::FallBack { node, .. }
            | Harm::Restart { node, .. }
            | Harm::Elect { node } => self.exists(*node),
        };
        if !self.is_faulty || !all_there {
            return;
        }
        self.watch.fault(harm.name());
        self.watch.happened(&Event::Harmed(&harm));
        match harm {
            Harm::Crash {
                node,
                after,
                down_ms,
                keep,
            } => self.arm(node, Armed { after, down_ms, keep }),
            Harm::CrashAll { down_ms } => {
                for node in self.nodes() {
                    self.crash(node, down_ms, 0);
                }
            }
            Harm::FailSync { node, down_ms } => self.fail_next_sync(node, down_ms),
            Harm::Cut { from, to, for_ms } => {
                self.cut(from, to);
                self.mend_after(for_ms, Repair::Cut { from, to });
            }
            Harm::Isolate { node, for_ms } => {
                *self.isolated.entry(node).or_default() += 1;
                self.mend_after(for_ms, Repair::Isolation(node));
            }
            Harm::Slow { node, times, for_ms } => {
                self.slow.insert(node, times.max(1));
                self.mend_after(for_ms, Repair::Slowness(node));
            }
            Harm::Replay { node, for_ms } => {
                self.replayed.insert(node, self.now + for_ms * MS);
            }
            Harm::Jump { node, by_ms } => {
                if let Some(clock) = self.clock_of(node) {
                    clock.jump(by_ms);
                }
            }
            Harm::Copy { node } => {
                if let Node::Participant(place) = node {
                    self.participants[usize::from(place)].copy_disk();
                }
            }
            Harm::FallBack { node, down_ms } => {
                if let Node::Participant(place) = node {
                    self.fall_back(usize::from(place), down_ms);
                }
            }
            Harm::Restart { node, down_ms } => self.crash(node, down_ms, 1000),
            Harm::Elect { node } => {
                if let Node::Coordinator(place) = node {
                    self.stand_for_election(usize::from(place));
                }
            }
        }
    }

    fn clock_of(&mut self, node: Node) -> Option<&mut super::Clock> {
        match node {
            Node::Coordinator(place) => Some(&mut self.coordinators[usize::from(place)].clock),
            Node::Participant(place) => Some(&mut self.participants[usize::from(place)].clock),
            Node::Initiator(_) => None,
        }
    }

    fn fail_next_sync(&mut self, node: Node, down_ms: u64) {
        match node {
            Node::Coordinator(place) => self.coordinators[usize::from(place)].next_sync_fails = Some(down_ms),
            Node::Participant(place) => self.participants[usize::from(place)].next_sync_fails = Some(down_ms),
            Node::Initiator(_) => {}
        }
    }

    fn mend_after(&mut self, for_ms: u64, repair: Repair) {
        let at = self.now + for_ms * MS;
        self.queue.put(at, Happening::Mended { repair });
    }

    pub(super) fn mend(&mut self, repair: Repair) {
        let node = match repair {
            Repair::Cut { from, to } => {
                self.uncut(from, to);
                from
            }
            Repair::Isolation(node) => {
                one_less(&mut self.isolated, node);
                node
            }
            Repair::Slowness(node) => {
                self.slow.remove(&node);
                node
            }
        };
        self.watch.happened(&Event::Mended(node));
    }

    /// From here on nothing goes wrong any more, and what is down comes up.
    pub(super) fn stop_faults(&mut self) {
        self.watch.happened(&Event::FaultsStopped);
        self.is_faulty = false;
        self.cuts.clear();
        self.isolated.clear();
        self.slow.clear();
        // That everything comes to rest does not depend on the clocks (R8).
        let puts_clocks_right = self.knobs.clocks_put_right != 0;
        for node in self.nodes() {
            self.disarm(node);
            if let Some(clock) = self.clock_of(node).filter(|_| puts_clocks_right) {
                clock.set();
            }
            let (life, is_up) = self.life(node);
            if !is_up {
                self.start_again(node, life);
            }
        }
        for node in &mut self.coordinators {
            node.next_sync_fails = None;
        }
        for node in &mut self.participants {
            node.next_sync_fails = None;
        }
        self.begin_healing();
    }
}
