//! Nodes that lose power, at any step.

use super::{Happening, World};
use crate::counters::Sometimes;
use crate::event::Event;
use crate::node::Node;
use crate::schedule::MS;

/// A crash that comes after so many more steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Armed {
    pub(crate) after: u64,
    pub(crate) down_ms: u64,
    pub(crate) keep: u64,
}

impl World {
    fn armed(&mut self, node: Node) -> Option<&mut Option<Armed>> {
        match node {
            Node::Coordinator(place) => Some(&mut self.coordinators[usize::from(place)].armed),
            Node::Participant(place) => Some(&mut self.participants[usize::from(place)].armed),
            Node::Initiator(_) => None,
        }
    }

    pub(super) fn arm(&mut self, node: Node, armed: Armed) {
        if armed.after == 0 && self.life(node).1 {
            return self.crash(node, armed.down_ms, armed.keep);
        }
        if let Some(slot) = self.armed(node) {
            *slot = Some(armed);
        }
    }

    pub(super) fn disarm(&mut self, node: Node) {
        if let Some(slot) = self.armed(node) {
            *slot = None;
        }
    }

    /// The node has done one thing more. True if it is its last.
    pub(crate) fn ends_here(&mut self, node: Node) -> bool {
        let Some(slot) = self.armed(node) else {
            return false;
        };
        let Some(armed) = slot else { return false };
        if armed.after > 1 {
            armed.after -= 1;
            return false;
        }
        let Armed { down_ms, keep, .. } = *armed;
        *slot = None;
        if self.life(node).1 {
            self.crash(node, down_ms, keep);
        }
        true
    }

    /// The node loses power, and whatever is not on its disk.
    pub(crate) fn crash(&mut self, node: Node, down_ms: u64, keep: u64) {
        let (life, is_up) = self.life(node);
        if !is_up {
            return;
        }
        self.watch.fault("crashes");
        match node {
            Node::Coordinator(place) => self.crash_coordinator(usize::from(place), keep),
            Node::Participant(place) => self.crash_participant(usize::from(place), keep),
            Node::Initiator(_) => {}
        }
        let at = self.now + down_ms.max(1) * MS;
        self.queue.put(at, Happening::Start { node, life });
    }

    /// The node stops because its disk has failed; somebody starts it again.
    pub(crate) fn stop_for_failed_disk(&mut self, node: Node, down_ms: u64) {
        self.watch.happened(&Event::SyncFailed { node });
        self.watch.sometimes(Sometimes::DiskFailedAndNodeStopped);
        let why = "its disk has failed";
        self.watch.happened(&Event::Stopped { node, why });
        self.crash(node, down_ms, 0);
    }

    pub(super) fn start_again(&mut self, node: Node, life: u32) {
        if self.life(node) != (life, false) {
            return;
        }
        match node {
            Node::Coordinator(place) => self.start_coordinator(usize::from(place)),
            Node::Participant(place) => self.start_participant(usize::from(place)),
            Node::Initiator(_) => {}
        }
    }
}
