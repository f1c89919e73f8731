//! How far a table has applied the log, and what it knows of the members.

use std::collections::BTreeSet;

use prost::Message as _;
use unanimo_proto::MalformedMessage;
use unanimo_proto::internal as wire;
use unanimo_proto::storage::UnreadableRecord;

use super::convert::{
    log_id_from_wire, log_id_to_wire, stored_membership_from_wire, stored_membership_to_wire,
};
use super::type_config::{Entry, LogId, Membership, SnapshotMeta, StoredMembership};

/// The state that a table, or a snapshot of one, is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AppliedState {
    /// The last entry that was applied.
    pub(super) last_applied: Option<LogId>,
    /// The last membership that was applied.
    pub(super) membership: StoredMembership,
    /// Every node that ever was in a membership.
    pub(super) known_nodes: BTreeSet<u64>,
}

impl AppliedState {
    /// Takes note of an entry.
    pub(super) fn advance(&mut self, entry: &Entry, membership: Option<&Membership>) {
        self.last_applied = Some(entry.log_id);
        if let Some(membership) = membership {
            self.known_nodes.extend(membership.nodes().map(|(id, _)| *id));
            self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
        }
    }

    /// What openraft wants to know of a snapshot in this state.
    pub(super) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
        }
    }

    pub(super) fn to_wire(&self) -> wire::AppliedState {
        wire::AppliedState {
            last_applied: self.last_applied.as_ref().map(log_id_to_wire),
            membership: Some(stored_membership_to_wire(&self.membership)),
            known_nodes: self.known_nodes.iter().copied().collect(),
        }
    }

    pub(super) fn from_wire(state: wire::AppliedState) -> Result<Self, MalformedMessage> {
        Ok(Self {
            last_applied: state.last_applied.map(log_id_from_wire),
            membership: stored_membership_from_wire(state.membership)?,
            known_nodes: state.known_nodes.into_iter().collect(),
        })
    }

    /// As the value of a table.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    /// As a table's value holds it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, UnreadableRecord> {
        Ok(Self::from_wire(wire::AppliedState::decode(bytes)?)?)
    }
}
