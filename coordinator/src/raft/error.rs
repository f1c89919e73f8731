//! Why a replica refuses, and what may be concluded from it.

use thiserror::Error;
use unanimo_core::ClusterId;
use unanimo_journal::OpenError;
use unanimo_proto::storage::UnreadableRecord;
use unanimo_table::TableError;

use super::{Leader, NodeId};

/// Why a replica does not start. Nothing was changed by it, but for what recovery repairs.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The options contradict themselves or a rule.
    #[error("the options of the replica are wrong: {reason}")]
    Options {
        /// What is wrong.
        reason: String,
    },
    /// The log's journal does not open.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The log's journal opens, but what it holds is not a log.
    #[error(
        "the raft log makes no sense: {reason}. Remove this node from the cluster and add an empty one under a \
         new id; never edit or delete files of the log"
    )]
    LogContents {
        /// What is wrong with it.
        reason: String,
    },
    /// The log is a copy from before the decision table or the snapshot.
    #[error(
        "the raft log is older than the decision table: it knows of term {vote_term}, and entry {index} of term \
         {entry_term} was taken already. It is an earlier copy, and what this node voted and confirmed since is lost. \
         Put this node's own newest log back, or remove this node from the cluster and add an empty one under a new id"
    )]
    OldLog {
        /// The last entry that the table or the snapshot holds.
        index: u64,
        /// Its term.
        entry_term: u64,
        /// The term of the last vote in the log.
        vote_term: u64,
    },
    /// The data folder belongs to another node.
    #[error(
        "the data folder belongs to node {found} of cluster {found_cluster}, but this is node {expected} of cluster \
         {expected_cluster}: check the configured node id, cluster and data folder"
    )]
    OtherOwner {
        /// Whose the data is.
        found: NodeId,
        /// And of which cluster.
        found_cluster: ClusterId,
        /// This node.
        expected: NodeId,
        /// Its cluster.
        expected_cluster: ClusterId,
    },
    /// The decision table cannot be used.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A record of the decision table cannot be read.
    #[error("the decision table holds an unreadable record: {0}")]
    TableContents(#[from] UnreadableRecord),
    /// The table lost decisions that are no longer in the log, and no usable snapshot has them.
    #[error(
        "the decision table ends at entry {}, the log begins after entry {purged}, and no usable snapshot covers \
         the gap: remove this node from the cluster and add an empty one under a new id",
        applied.map_or("none".to_owned(), |index| index.to_string())
    )]
    Gap {
        /// The last entry the table holds.
        applied: Option<u64>,
        /// The last entry that was dropped from the log.
        purged: u64,
    },
    /// The disk that holds the snapshots does not work.
    #[error("the snapshot folder cannot be used: {0}")]
    Snapshots(#[source] std::io::Error),
    /// The operating system gave no thread.
    #[error("no thread for the log writer: {0}")]
    Thread(#[source] std::io::Error),
    /// The Raft core refused what it found.
    #[error("the replica cannot resume: {reason}")]
    Resume {
        /// What it said.
        reason: String,
    },
}

/// Why a proposal or a read barrier has no answer. `NotLeader`, `Busy` and `TooLarge` are definite.
#[derive(Clone, Debug, Error)]
pub(crate) enum ProposeError {
    /// Another node leads. Nothing was proposed here and nothing will come of it.
    #[error("this node does not lead{}", leader.as_ref().map_or(String::new(), |leader| format!("; {} does", leader.node)))]
    NotLeader {
        /// The leader, if one is known.
        leader: Option<Leader>,
    },
    /// This node leads but has not heard from a majority lately. Nothing was proposed; try again here, soon.
    #[error("this node leads, but a majority has not confirmed it lately")]
    Busy,
    /// The commands do not fit into one entry. Nothing was proposed.
    #[error("{bytes} bytes of commands are too large for one entry, the limit is {limit}")]
    TooLarge {
        /// The encoded size of the commands.
        bytes: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// The outcome is not known: the commands may have been applied, or may be applied later, or never. Read the
    /// table behind a barrier to find out; conclude nothing from this.
    #[error("it is not known whether the commands are or will be applied")]
    Unknown,
    /// The replica has stopped, and why. Whether the commands are applied is not known.
    #[error("the replica has stopped: {0}")]
    Failed(String),
}

/// Why the cluster was not formed or its membership not changed.
#[derive(Clone, Debug, Error)]
pub(crate) enum MembershipError {
    /// This node belongs to a cluster already.
    #[error("this node is part of a cluster already")]
    Formed,
    /// This node is not among the members it was asked to form a cluster of.
    #[error("node {node} is not among the members of the cluster to be formed")]
    NotAMember {
        /// This node.
        node: NodeId,
    },
    /// Another node leads. Nothing was changed.
    #[error("this node does not lead{}", leader.as_ref().map_or(String::new(), |leader| format!("; {} does", leader.node)))]
    NotLeader {
        /// The leader, if one is known.
        leader: Option<Leader>,
    },
    /// The id was given out before. A node that lost its data may have promised what it no longer knows, so it
    /// has to come back under a new id.
    #[error("node id {node} was given out before; ids are never used again, choose a new one")]
    UsedBefore {
        /// The id.
        node: NodeId,
    },
    /// The id belongs to a member.
    #[error("node {node} is a member already, at {address}")]
    Member {
        /// The id.
        node: NodeId,
        /// Where the member serves.
        address: String,
    },
    /// No member has this id.
    #[error("node {node} is not a member of the cluster")]
    NoMember {
        /// The id.
        node: NodeId,
    },
    /// The last voter cannot be removed.
    #[error("node {node} is the last voter of the cluster and cannot be removed")]
    LastVoter {
        /// The id.
        node: NodeId,
    },
    /// The new node has not caught up yet; it follows, but does not vote. Adding it again goes on from there.
    #[error("node {node} has not caught up yet; add it again to go on")]
    CatchingUp {
        /// The id.
        node: NodeId,
    },
    /// The outcome is not known; the status shows it.
    #[error("it is not known whether the membership was changed: {reason}")]
    Unknown {
        /// What was said.
        reason: String,
    },
    /// The replica has stopped, and why.
    #[error("the replica has stopped: {0}")]
    Failed(String),
}
