use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::{Addresses, CLUSTER, Member};

/// What of the configuration is not as it always is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How long transactions are remembered, in whole seconds.
    pub retention: Option<Duration>,
}

/// How long transactions are remembered unless a run wants something else.
const RETENTION: Duration = Duration::from_secs(24 * 3600);

impl Settings {
    /// How long transactions are remembered.
    pub(super) fn retention(self) -> Duration {
        self.retention.unwrap_or(RETENTION)
    }
}

/// The configuration file of a coordinator node. What is not said stays at its default.
#[derive(Serialize)]
struct CoordinatorConfig<'a> {
    cluster: &'a str,
    node: u64,
    listen: &'a str,
    data: &'a Path,
    join: bool,
    peers: Vec<Peer<'a>>,
    raft: Raft,
    retention: Retention,
}

/// Snapshots so often, and so little of the log behind them, that a run has some: they can be damaged, and a node that was
/// away needs one.
#[derive(Serialize)]
struct Raft {
    snapshot_every_entries: u64,
    keep_entries: u64,
}

#[derive(Serialize)]
struct Retention {
    window_seconds: u64,
}

#[derive(Serialize)]
struct Peer<'a> {
    node: u64,
    address: &'a str,
}

/// The text of a node's configuration file. The node forms a cluster with the others, or joins theirs.
pub(super) fn coordinator_config(
    node: u64,
    join: bool,
    listen: &str,
    data: &Path,
    addresses: &Addresses,
    settings: Settings,
) -> String {
    let config = CoordinatorConfig {
        cluster: CLUSTER,
        node,
        listen,
        data,
        join,
        peers: addresses
            .nodes()
            .map(|(node, address)| Peer { node, address })
            .collect(),
        raft: Raft {
            snapshot_every_entries: 400,
            keep_entries: 200,
        },
        retention: Retention {
            window_seconds: settings.retention().as_secs(),
        },
    };
    match toml::to_string(&config) {
        Ok(text) => text,
        Err(error) => unreachable!("the configuration has nothing that TOML cannot say: {error}"),
    }
}

/// The arguments of a participant.
pub(super) fn participant_arguments(
    member: Member,
    listen: &str,
    data: &Path,
    said: &Path,
    addresses: &Addresses,
) -> Vec<String> {
    [
        "participant",
        "--name",
        &member.to_string(),
        "--listen",
        listen,
        "--address",
        addresses.of(member),
        "--coordinators",
        &addresses.coordinators().join(","),
        "--data",
        &data.display().to_string(),
        "--said",
        &said.display().to_string(),
    ]
    .map(str::to_owned)
    .to_vec()
}
