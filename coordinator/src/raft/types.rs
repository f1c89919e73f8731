//! What the rest of the coordinator says to a replica and hears from it. No type of openraft appears here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use unanimo_core::ClusterId;
use unanimo_journal::{Disk, Options as JournalOptions};
use unanimo_proto::transport::Connector;
use unanimo_table::Table;

/// The number of a coordinator node. Never given to another node, nor to the same one after it lost its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// The node that leads, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    /// Its number.
    pub(crate) node: NodeId,
    /// Where it serves, as `host:port`.
    pub(crate) address: String,
    /// The term it leads. Terms only rise.
    pub(crate) term: u64,
}

/// Who leads. What is told here may be out of date by the time it is read: only an answer of
/// [`propose`](super::Replica::propose) or [`read_barrier`](super::Replica::read_barrier) proves leadership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// The leader, if one is known.
    pub(crate) leader: Option<Leader>,
    /// Whether it is this node.
    pub(crate) this_node_leads: bool,
    /// The latest term that this node has heard of.
    pub(crate) term: u64,
}

/// Which node this is, and its times and limits.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaOptions {
    /// The cluster. Part of every message and of the first record of the log.
    pub(crate) cluster: ClusterId,
    /// This node.
    pub(crate) node: NodeId,
    /// Where the other nodes reach this one, as `host:port`.
    pub(crate) address: String,
    /// How often the leader shows that it is alive, in milliseconds. Has to exceed the round trip plus one forced
    /// write. Default 100.
    pub(crate) heartbeat_ms: u64,
    /// The shortest time without a leader before an election, in milliseconds. Default 300.
    pub(crate) election_min_ms: u64,
    /// The longest. A new leader is there after this, plus a random time between both. Default 600: shorter times
    /// reject writes when a disk stalls, longer ones leave the cluster without a leader for seconds.
    pub(crate) election_max_ms: u64,
    /// A snapshot is taken after so many entries. Default 100 000: some tens of MiB of log.
    pub(crate) snapshot_every_entries: u64,
    /// So many entries that a snapshot covers stay in the log. A node that was away for less catches up from the
    /// log, which is much cheaper than a snapshot. Default 100 000.
    pub(crate) keep_entries: u64,
    /// How much of the log's end is kept in memory, in bytes. What is older is read from the disk. Default 64 MiB.
    pub(crate) cached_log_bytes: usize,
    /// How long a proposal may take before its outcome is unknown, in milliseconds. Without a quorum it would
    /// otherwise take for ever. Default 5000.
    pub(crate) propose_timeout_ms: u64,
    /// Whether a node that was never part of a cluster answers the others at once. If not, it refuses them until
    /// [`admit`](super::Replica::admit) is called, so that there is time to find out whether it is new or has lost its
    /// data: one that lost its data must not vote or confirm anything. Default true.
    pub(crate) answer_when_new: bool,
    /// How long sending a snapshot to one node may take, in milliseconds. Default 10 minutes.
    pub(crate) snapshot_timeout_ms: u64,
}

impl ReplicaOptions {
    /// The default times and limits for this node.
    pub(crate) fn new(cluster: ClusterId, node: NodeId, address: impl Into<String>) -> Self {
        Self {
            cluster,
            node,
            address: address.into(),
            heartbeat_ms: 100,
            election_min_ms: 300,
            election_max_ms: 600,
            snapshot_every_entries: 100_000,
            keep_entries: 100_000,
            cached_log_bytes: 64 * 1024 * 1024,
            propose_timeout_ms: 5000,
            answer_when_new: true,
            snapshot_timeout_ms: 10 * 60 * 1000,
        }
    }

    pub(super) fn propose_timeout(&self) -> Duration {
        Duration::from_millis(self.propose_timeout_ms)
    }
}

/// What a replica stands on. Passed in, so that the same code runs on a real machine and inside a simulation.
pub(crate) struct ReplicaParts {
    /// Where the log's journal is.
    pub(crate) log_disk: Arc<dyn Disk>,
    /// Where snapshots are. Nothing else may be in this directory.
    pub(crate) snapshot_disk: Arc<dyn Disk>,
    /// The decision table. If it lost what it had, it is rebuilt while the replica starts.
    pub(crate) table: Arc<dyn Table>,
    /// Reaches the other nodes.
    pub(crate) connector: Arc<dyn Connector>,
    /// The limits of the log's journal.
    pub(crate) journal_options: JournalOptions,
    /// Where blocking work is done.
    pub(crate) background: Background,
}

/// Where a replica does work that waits for a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// On threads of its own, so that nothing else waits. What real processes use.
    #[default]
    Threads,
    /// In tasks of the runtime, so that a simulation on one thread can repeat a run exactly.
    Tasks,
    /// The same, and each group of the journal waits so long for the disk: what is not written yet is lost in a crash.
    SlowTasks(Duration),
}

/// What a node does in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It orders the decisions.
    Leader,
    /// It follows and votes.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It follows and does not vote: not a member yet, or no more.
    Learner,
    /// It has stopped.
    Stopped,
}

/// What the cluster knows of one of its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeStatus {
    /// The node.
    pub(crate) node: NodeId,
    /// Where it serves, as `host:port`.
    pub(crate) address: String,
    /// Whether it votes.
    pub(crate) voter: bool,
    /// The last entry it is known to have. Only the leader knows.
    pub(crate) matched: Option<u64>,
    /// How long ago it last answered, in milliseconds. Only the leader knows.
    pub(crate) since_heard_ms: Option<u64>,
}

/// A replica at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaStatus {
    /// This node.
    pub(crate) node: NodeId,
    /// What it does.
    pub(crate) role: Role,
    /// The latest term it has heard of.
    pub(crate) term: u64,
    /// The leader, if one is known.
    pub(crate) leader: Option<Leader>,
    /// The last entry of its log.
    pub(crate) last_log: Option<u64>,
    /// The last entry that its table holds.
    pub(crate) applied: Option<u64>,
    /// The last entry that its snapshot covers.
    pub(crate) snapshot: Option<u64>,
    /// The last entry that it has dropped from the log.
    pub(crate) purged: Option<u64>,
    /// The nodes of the cluster, in the order of their numbers.
    pub(crate) nodes: Vec<NodeStatus>,
    /// Every node that ever was in the cluster, as far as this one has applied.
    pub(crate) known_nodes: Vec<NodeId>,
    /// Whether the membership is being changed right now. If it stays so, the change was interrupted; the next
    /// change finishes it.
    pub(crate) changing: bool,
    /// How long ago a majority last confirmed this leader, in milliseconds. Only the leader knows.
    pub(crate) since_quorum_ms: Option<u64>,
    /// How often the log was forced to disk since the start.
    pub(crate) log_syncs: u64,
}
