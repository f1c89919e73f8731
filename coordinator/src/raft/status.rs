//! openraft's view of itself, in the words of the rest of the coordinator.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::{Instant as _, LogIdOptionExt as _, ServerState};

use super::replica::{Metrics, leads};
use super::type_config::TypeConfig;
use super::{Leader, Leadership, NodeId, NodeStatus, ReplicaStatus, Role};

/// Who leads.
pub(super) fn leadership(metrics: &Metrics) -> Leadership {
    let stopped = metrics.running_state.is_err();
    Leadership {
        leader: if stopped { None } else { leader(metrics) },
        this_node_leads: !stopped && leads(metrics),
        term: metrics.current_term,
    }
}

fn leader(metrics: &Metrics) -> Option<Leader> {
    let node = metrics.current_leader?;
    let address = metrics.membership_config.get_node(&node)?.addr.clone();
    Some(Leader {
        node: NodeId(node),
        address,
        term: metrics.current_term,
    })
}

/// How long ago a majority last confirmed this leader; none if this node does not lead or has yet to be confirmed.
pub(super) fn since_quorum(metrics: &Metrics) -> Option<Duration> {
    if !leads(metrics) || metrics.running_state.is_err() {
        return None;
    }
    if metrics
        .membership_config
        .voter_ids()
        .all(|voter| voter == metrics.id)
    {
        // Its own word is the majority.
        return Some(Duration::ZERO);
    }
    metrics.last_quorum_acked.map(|at| at.elapsed())
}

/// Everything that an operator wants to know.
pub(super) fn of(metrics: &Metrics, known_nodes: BTreeSet<u64>, log_syncs: u64) -> ReplicaStatus {
    let membership = &metrics.membership_config;
    let voters: Vec<u64> = membership.voter_ids().collect();
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let nodes = membership.nodes().map(|(id, node)| NodeStatus {
        node: NodeId(*id),
        address: node.addr.clone(),
        voter: voters.contains(id),
        matched: metrics
            .replication
            .as_ref()
            .and_then(|matched| matched.get(id)?.index()),
        since_heard_ms: heard(metrics, *id).map(|at| millis(at.elapsed())),
    });
    ReplicaStatus {
        node: NodeId(metrics.id),
        role: role(metrics),
        term: metrics.current_term,
        leader: leadership(metrics).leader,
        last_log: metrics.last_log_index,
        applied: metrics.last_applied.index(),
        snapshot: metrics.snapshot.index(),
        purged: metrics.purged.index(),
        nodes: nodes.collect(),
        known_nodes: known_nodes.into_iter().map(NodeId).collect(),
        changing: membership.get_joint_config().len() > 1,
        since_quorum_ms: since_quorum(metrics).map(millis),
        log_syncs,
    }
}

fn heard(metrics: &Metrics, node: u64) -> Option<openraft::alias::InstantOf<TypeConfig>> {
    metrics.heartbeat.as_ref()?.get(&node)?.as_ref().map(|at| **at)
}

fn role(metrics: &Metrics) -> Role {
    if metrics.running_state.is_err() {
        return Role::Stopped;
    }
    match metrics.state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    }
}
