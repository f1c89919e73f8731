//! How openraft is set up.

use openraft::{Config, SnapshotPolicy};
use unanimo_core::mutants::{self, Mutant};

use super::{ReplicaOptions, StartError};

/// Entries in one message between nodes at most; their bytes are bounded too, in the log store.
const ENTRIES_PER_MESSAGE: u64 = 1000;
/// The log is purged when there is at least this much to purge.
const PURGE_BATCH: u64 = 1000;
/// Pauses between attempts to reach a node that is away. Short, because a node that restarts is back in a second.
const PAUSES: &str = "50ms 100ms 200ms ...500ms";

/// The configuration for these options, checked.
pub(super) fn of(options: &ReplicaOptions) -> Result<Config, StartError> {
    let config = Config {
        cluster_name: options.cluster.to_string(),
        heartbeat_interval: options.heartbeat_ms,
        election_timeout_min: options.election_min_ms,
        election_timeout_max: options.election_max_ms,
        install_snapshot_timeout: options.snapshot_timeout_ms,
        max_payload_entries: ENTRIES_PER_MESSAGE,
        // A node that is further behind than the log reaches is sent a snapshot; above what a snapshot can cure.
        replication_lag_threshold: options
            .snapshot_every_entries
            .saturating_add(options.keep_entries),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_every_entries),
        max_in_snapshot_log_to_keep: options.keep_entries,
        purge_batch_size: PURGE_BATCH.min(options.snapshot_every_entries),
        // Proposals that come together share an entry or a forced write anyway; waiting for more costs latency.
        api_batch_linger_ms: 0,
        // A node that wakes up or comes back asks first, and does not push a healthy leader into a new term.
        enable_pre_vote: Some(!mutants::is_on(Mutant::M28)),
        // See `check`.
        enable_leader_restore: Some(mutants::is_on(Mutant::F1)),
        // A node that lost its log must not come back under its old id.
        allow_log_reversion: Some(false),
        backoff: PAUSES.to_owned(),
        ..Config::default()
    };
    let config = config.validate().map_err(|error| StartError::Options {
        reason: error.to_string(),
    })?;
    check(&config)?;
    Ok(config)
}

/// Refuses a configuration that loses decisions.
///
/// A leader that resumes its term after a restart gives the positions of entries that it had sent but not yet
/// forced to disk to other entries, under the same log id. The other nodes take the new for the old and confirm
/// it: logs and tables differ for ever, and an acknowledged decision exists on one node only.
fn check(config: &Config) -> Result<(), StartError> {
    let refuse = |reason: &str| {
        Err(StartError::Options {
            reason: reason.to_owned(),
        })
    };
    if config.enable_leader_restore != Some(false) && !mutants::is_on(Mutant::F1) {
        return refuse(
            "a leader must not resume its term after a restart: acknowledged decisions would be lost",
        );
    }
    if config.enable_pre_vote != Some(true) && !mutants::is_on(Mutant::M28) {
        return refuse(
            "nodes must ask before they start an election, or one that wakes up deposes a healthy leader",
        );
    }
    if config.allow_log_reversion != Some(false) {
        return refuse("a node that lost its log must not be taken back under its old id");
    }
    let SnapshotPolicy::LogsSinceLast(entries) = config.snapshot_policy else {
        return refuse("without snapshots the log grows for ever");
    };
    if entries == 0 {
        return refuse("snapshot_every_entries must be at least 1");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use unanimo_core::ClusterId;

    use super::*;
    use crate::raft::NodeId;

    fn options() -> ReplicaOptions {
        #[cfg(feature = "mutants")]
        crate::mutants::plant_what_is_asked_for().unwrap();
        ReplicaOptions::new(ClusterId::new("test").unwrap(), NodeId(1), "127.0.0.1:1")
    }

    #[test]
    fn a_leader_never_resumes_its_term_after_a_restart() {
        let config = of(&options()).unwrap();
        assert_eq!(config.enable_leader_restore, Some(false));
        for restore in [Some(true), None] {
            let config = Config {
                enable_leader_restore: restore,
                ..config.clone()
            };
            let error = check(&config).unwrap_err().to_string();
            assert!(error.contains("acknowledged decisions would be lost"), "{error}");
        }
    }

    #[test]
    fn what_disturbs_or_endangers_a_cluster_is_refused() {
        let config = of(&options()).unwrap();
        assert!(
            check(&Config {
                enable_pre_vote: None,
                ..config.clone()
            })
            .is_err()
        );
        assert!(
            check(&Config {
                allow_log_reversion: Some(true),
                ..config.clone()
            })
            .is_err()
        );
        assert!(
            check(&Config {
                snapshot_policy: SnapshotPolicy::Never,
                ..config
            })
            .is_err()
        );
        assert!(
            of(&ReplicaOptions {
                election_min_ms: 50,
                ..options()
            })
            .is_err()
        );
        assert!(
            of(&ReplicaOptions {
                snapshot_every_entries: 0,
                ..options()
            })
            .is_err()
        );
    }
}
