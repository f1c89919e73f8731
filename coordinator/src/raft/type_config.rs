//! The types that openraft works with here. Terms have at most one leader each, so a term names its leader.

use std::fmt;

use bytes::Bytes;
use openraft::alias;
use unanimo_core::table::Applied;

#[cfg(feature = "simulation")]
use super::seeded_runtime::SeededRuntime as Runtime;
#[cfg(not(feature = "simulation"))]
use openraft::impls::TokioRuntime as Runtime;

openraft::declare_raft_types!(
    /// What this crate fills openraft's type parameters with.
    pub(crate) TypeConfig:
        D = Commands,
        R = Outcome,
        NodeId = u64,
        Node = openraft::BasicNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

/// The commands of one entry, encoded once: the log, the wire and the table all take them as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commands(pub(crate) Bytes);

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of commands", self.0.len())
    }
}

/// What each command of one entry led to, in their order; empty for an entry without commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome(pub(crate) Vec<Applied>);

pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type Payload = openraft::EntryPayload<Commands, u64, openraft::BasicNode>;
pub(crate) type Membership = openraft::Membership<u64, openraft::BasicNode>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
