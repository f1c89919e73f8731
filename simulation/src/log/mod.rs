//! A small model of a replicated log: Raft as it is published, with whole snapshots and without changes of membership.
//!
//! The coordinator's commands go through it. A leader's entries may be lost with it or be taken up by the next one, two
//! nodes may take themselves for leader, replicas lag behind, and what was not forced to a disk is lost in a crash. That
//! the model itself keeps Raft's promises is checked after every step; see
//! [`invariants::log`](crate::invariants).

mod election;
mod replica;
mod replication;

use std::collections::{BTreeMap, BTreeSet};

use unanimo_core::TransactionId;
use unanimo_core::table::Command;

use crate::coordinator::Continuation;
use crate::schedule::Time;

pub(crate) use replica::{Replica, Snapshot};

/// One entry of the log.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    /// None for the first entry of a leader, which says that it leads.
    pub(crate) command: Option<Command>,
    /// Who proposed it.
    pub(crate) by: u8,
}

/// Who waits for a proposal.
#[derive(Clone, Debug)]
pub(crate) enum Waiter {
    /// The run of a transaction waits for its decision.
    Decision {
        transaction: TransactionId,
        run: u64,
    },
    /// The run of a transaction ends when its acknowledgements are recorded.
    Acknowledgements {
        transaction: TransactionId,
        run: u64,
    },
    /// An initiator waits.
    Caller(Continuation),
    Nobody,
}

/// What a node is to the others.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    Follower,
    /// Whose votes it has, as bits.
    Candidate {
        votes: u32,
    },
    Leader(Leading),
}

/// What a leader knows.
#[derive(Clone, Debug)]
pub(crate) struct Leading {
    /// The next entry to send to each node.
    pub(crate) next: Vec<u64>,
    /// Up to where each node's disk has this log.
    pub(crate) matched: Vec<u64>,
    /// When each node was last heard.
    pub(crate) heard_at: Vec<Time>,
    /// Counts the times that it asked everybody whether it still leads.
    pub(crate) round: u64,
    /// The last round that each node has answered.
    pub(crate) echoed: Vec<u64>,
    /// The entry that says that it leads.
    pub(crate) first: u64,
    pub(crate) waiting: BTreeMap<u64, Waiter>,
    /// What was proposed and not applied for so long that nobody waits for it any more.
    pub(crate) given_up: BTreeSet<u64>,
    pub(crate) barriers: Vec<Barrier>,
}

/// Something that goes on when it is sure that this node led at some moment after it was asked for, and when everything
/// that was committed by then is applied here.
#[derive(Clone, Debug)]
pub(crate) struct Barrier {
    pub(crate) round: u64,
    pub(crate) index: u64,
    pub(crate) then: Continuation,
}
