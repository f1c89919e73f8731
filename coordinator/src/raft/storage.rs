//! What a replica stands on, opened and brought together.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use openraft::{Config, LogIdOptionExt as _};
use unanimo_journal::Writer;
use unanimo_table::Table;

use super::counted_disk::CountedDisk;
use super::failure::Failure;
use super::log_records::Owner;
use super::log_store::{LogStore, MAX_APPEND_BYTES};
use super::network::Network;
use super::replica::Raft;
use super::snapshot_store::SnapshotStore;
use super::state_machine::StateMachine;
use super::{NodeId, ReplicaOptions, ReplicaParts, StartError};

/// The log, the table and the snapshots of one replica.
pub(super) struct Storage {
    pub(super) log: LogStore,
    pub(super) log_syncs: Arc<AtomicU64>,
    pub(super) machine: StateMachine,
    pub(super) table: Arc<dyn Table>,
    pub(super) snapshots: Arc<SnapshotStore>,
    pub(super) failure: Failure,
}

impl Storage {
    /// Opens everything. Waits for the disk. Nothing becomes durable before the writer runs.
    pub(super) fn open(options: &ReplicaOptions, parts: ReplicaParts) -> Result<(Self, Writer), StartError> {
        check_limits(&parts)?;
        let failure = Failure::new();
        let snapshots = SnapshotStore::open(parts.snapshot_disk, options.cluster.clone());
        let snapshots = Arc::new(snapshots.map_err(StartError::Snapshots)?);
        let (disk, log_syncs) = CountedDisk::wrap(parts.log_disk);
        let owner = Owner {
            cluster: options.cluster.clone(),
            node: options.node,
        };
        let covering = Some(Arc::clone(&snapshots));
        let (log, writer) = LogStore::open(
            disk,
            parts.journal_options,
            owner,
            options.cached_log_bytes,
            covering,
        )?;
        let told = failure.clone();
        log.journal().on_failure(move |failed| told.tell(failed));
        let table = parts.table;
        let machine = StateMachine::open(
            Arc::clone(&table),
            Arc::clone(&snapshots),
            parts.background,
            failure.clone(),
        )?;
        let storage = Self {
            log,
            log_syncs,
            machine,
            table,
            snapshots,
            failure,
        };
        storage.close_gap()?;
        Ok((storage, writer))
    }

    /// Has openraft take up where it stopped: it installs the snapshot if the table has less, and applies what the
    /// log has beyond.
    pub(super) async fn resume(
        &self,
        config: Config,
        node: NodeId,
        network: Network,
    ) -> Result<Raft, StartError> {
        let (log, machine) = (self.log.clone(), self.machine.clone());
        let raft = Raft::new(node.0, Arc::new(config), network, log, machine).await;
        raft.map_err(|error| StartError::Resume {
            reason: error.to_string(),
        })
    }

    /// Brings log, table and snapshot together after a crash may have left them at different places.
    fn close_gap(&self) -> Result<(), StartError> {
        let (purged, last) = self.log.bounds();
        let applied = self.machine.applied().last_applied;
        // A log that is gone took the votes with it, and with them what keeps this node from voting twice in a term.
        if !self.log.is_used() && applied.is_some() {
            return Err(StartError::LogContents {
                reason: format!(
                    "the decision table ends at entry {}, but the log is empty",
                    applied.index().unwrap_or_default()
                ),
            });
        }
        // Nobody takes an entry before its leader's vote is on disk. So a vote of an earlier term than an entry that
        // is here was copied from earlier: what this node voted and confirmed since then is not in it.
        let reached = applied.max(self.snapshots.last_log_id());
        if let Some(reached) = reached {
            let (entry_term, vote_term) = (**reached.committed_leader_id(), self.log.vote_term());
            if vote_term < Some(entry_term) {
                return Err(StartError::OldLog {
                    index: reached.index,
                    entry_term,
                    vote_term: vote_term.unwrap_or_default(),
                });
            }
        }
        // What the table lacks and the log has dropped, a snapshot must have.
        if let Some(purged) = purged
            && reached < Some(purged)
        {
            return Err(StartError::Gap {
                applied: applied.index(),
                purged: purged.index,
            });
        }
        // The table may have reached the disk before the log did. Then the log is taken up behind the table, and what
        // is before counts as purged; so a snapshot has to cover it.
        if applied > last {
            tracing::info!(
                ?applied,
                ?last,
                "the table is ahead of the log; a snapshot is taken"
            );
            self.machine.take_snapshot().map_err(StartError::Snapshots)?;
        }
        Ok(())
    }
}

/// The largest entry has to fit into one record of the journal.
fn check_limits(parts: &ReplicaParts) -> Result<(), StartError> {
    let (limit, needed) = (
        parts.journal_options.max_record_bytes as usize,
        MAX_APPEND_BYTES + 1024,
    );
    if limit >= needed {
        return Ok(());
    }
    Err(StartError::Options {
        reason: format!("max_record_bytes of the log is {limit}, at least {needed} are needed"),
    })
}
