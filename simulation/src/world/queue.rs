//! What happens when. Time jumps from one thing to the next.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use unanimo_core::TransactionId;

use crate::message::Envelope;
use crate::node::Node;
use crate::schedule::Time;

/// Something that will happen.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Deliver(Box<Envelope>),
    /// Of one life of a node: nothing if that is over.
    Timer {
        node: Node,
        life: u32,
        timer: Timer,
    },
    Fault(usize),
    Work(usize),
    /// A node that is down comes up, if nobody has started it since.
    Start {
        node: Node,
        life: u32,
    },
    /// A cut between two nodes, or around one, or its slowness is over.
    Mended {
        repair: Repair,
    },
    FaultsStop,
    /// Is everything at rest?
    Look,
}

/// What is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Repair {
    Cut { from: Node, to: Node },
    Isolation(Node),
    Slowness(Node),
}

/// What a node waits for.
#[derive(Clone, Debug)]
pub(crate) enum Timer {
    // Coordinators.
    Election,
    Heartbeat {
        term: u64,
    },
    LogSynced {
        upto: u64,
    },
    /// What was proposed should have been applied.
    ProposalDue {
        term: u64,
        index: u64,
    },
    Apply,
    Check,
    Sweep {
        term: u64,
    },
    Tick {
        term: u64,
    },
    ClocksRead {
        round: u64,
    },
    Deadline {
        transaction: TransactionId,
        run: u64,
    },
    /// A call to a member has had no answer, or is to be made again.
    CallAgain {
        transaction: TransactionId,
        run: u64,
        member: u8,
        attempt: u32,
    },
    // Participants.
    Synced {
        upto: u64,
    },
    WorkDone {
        work: u64,
    },
    Register,
    Inquire,
    JoinExpires {
        transaction: TransactionId,
    },
    Forget,
    // Initiators.
    CallTimedOut {
        call: u64,
    },
    CallNext {
        call: u64,
    },
}

#[derive(Debug)]
struct Queued {
    at: Time,
    order: u64,
    happening: Happening,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    /// The greatest is the one that comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Everything that will happen; what is due at the same time happens in the order in which it was put in.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Queued>,
    order: u64,
}

impl Queue {
    pub(crate) fn put(&mut self, at: Time, happening: Happening) {
        self.order += 1;
        let order = self.order;
        self.heap.push(Queued { at, order, happening });
    }

    pub(crate) fn next(&mut self) -> Option<(Time, Happening)> {
        self.heap.pop().map(|queued| (queued.at, queued.happening))
    }
}
