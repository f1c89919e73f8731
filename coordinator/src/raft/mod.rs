//! The replicated decision table: Raft, the table it feeds, and nothing else of the coordinator.
//!
//! A [`Replica`] is one node's share. Commands go in through [`Replica::propose`], are ordered and made durable on a
//! majority, and are applied to the table on every node in the same order: that is the commit point (R2), and the
//! table keeps the first decision of each transaction for ever (R1).
//!
//! ```text
//! propose ──> openraft ──> log_store ──────> journal            durable before it counts
//!                 │  └────> network ──> service of the others
//!                 └───────> state_machine ──> table, snapshots  what was decided
//! ```
//!
//! Promises:
//!
//! * What `propose` returned stays, whatever crashes, as long as a majority keeps its disks.
//! * Only [`ProposeError::NotLeader`], [`ProposeError::Busy`] and [`ProposeError::TooLarge`] are definite. Anything
//!   else may have been applied, or still be.
//! * A leader never resumes its term after a restart: it would give positions of the log out twice. Every start
//!   checks this.
//! * A table that is lost or fell back is rebuilt from the snapshot and the log. If both do not reach far enough,
//!   the node refuses to start, and says what to do.
//! * The first error of a write stops the replica ([`Replica::failed`]); nothing is retried (R10).
//!
//! openraft's types stay inside this module, and its layouts reach neither the wire nor the disk: `convert`.
//!
//! Left out: a node that was emptied and comes back under its old id is not recognised by the others. Node ids
//! must not be used again; [`Replica::add_node`] refuses those that the cluster has seen.

mod admission;
mod applied_state;
mod background;
mod before_images;
mod convert;
mod counted_disk;
mod error;
mod failure;
mod leader_watch;
mod log_records;
mod log_store;
mod membership;
mod network;
mod raft_config;
mod replica;
#[cfg(feature = "simulation")]
mod seeded_runtime;
mod service;
mod snapshot_file;
mod snapshot_install;
mod snapshot_sender;
mod snapshot_store;
mod state_machine;
mod status;
mod storage;
mod table_view;
mod type_config;
mod types;

#[cfg(test)]
mod tests;

pub use error::StartError;
pub(crate) use error::{MembershipError, ProposeError};
pub(crate) use replica::Replica;
#[cfg(feature = "simulation")]
pub use seeded_runtime::seed_raft;
pub(crate) use service::RaftService;
pub(crate) use table_view::{Forgettable, Releasable};
pub use types::{Background, NodeId};
pub(crate) use types::{Leader, Leadership, NodeStatus, ReplicaOptions, ReplicaParts, ReplicaStatus, Role};
