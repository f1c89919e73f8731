//! The configuration of one coordinator node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use unanimo_core::{ClusterId, Limits};

use crate::raft::NodeId;

/// The configuration of one coordinator node: a TOML file. See `coordinator/config/node1.toml` for a sample with
/// every key explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster's name; the same on every node and for every participant.
    pub cluster: ClusterId,
    /// This node's id, never used by another node before.
    pub node: NodeId,
    /// Where this node listens, as `address:port`.
    pub listen: String,
    /// Where this node serves its metrics to Prometheus; nowhere unless it is given. Whoever reaches it can read them.
    pub metrics_address: Option<SocketAddr>,
    /// The folder that holds everything this node remembers.
    pub data: PathBuf,
    /// Every node that forms the cluster, this one included, with the address that the others reach it at.
    pub peers: BTreeMap<NodeId, String>,
    /// Whether this node joins a cluster that exists, by `unanimo add-node`, instead of forming one.
    pub join: bool,
    /// Raft's clockwork.
    pub raft: RaftConfig,
    /// Bounds (R14).
    pub limits: LimitsConfig,
    /// What is remembered, and for how long (R7).
    pub retention: RetentionConfig,
}

/// Raft's clockwork. A leader that falls silent is replaced after about 1.5 to 2 times `election_max_ms`; one whose
/// process dies on a machine that lives, at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftConfig {
    /// How often the leader is heard of. Has to exceed a round trip and a forced write.
    pub heartbeat_ms: u64,
    /// The shortest time without a leader before a node asks for votes.
    pub election_min_ms: u64,
    /// The longest such time. Also how long a leader's word holds; a stall longer than this refuses proposals.
    pub election_max_ms: u64,
    /// Entries between two snapshots of the decision table.
    pub snapshot_every_entries: u64,
    /// Entries kept behind a snapshot, so that a follower that was away briefly catches up without one.
    pub keep_entries: u64,
    /// The size of one file of the log, in MiB. Files are prepared ahead of need, so twice this is used at least.
    pub log_segment_mib: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        // 100/300-600 replaces a dead leader within about a second, and stalls of a third of a second do no harm.
        Self {
            heartbeat_ms: 100,
            election_min_ms: 300,
            election_max_ms: 600,
            snapshot_every_entries: 100_000,
            keep_entries: 100_000,
            log_segment_mib: 16,
        }
    }
}

/// Bounds on what this node takes on (R14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Transactions that may be voting or deciding at once. Each holds a task on the leader, a few KiB, and its
    /// operations.
    pub in_flight: usize,
    /// What the operations of transactions that are voting may add up to, in MiB: they are held in memory until the
    /// decision, and 10 000 of the largest would be 30 GiB.
    pub in_flight_mib: usize,
    /// Transactions whose decision may be waiting in memory for members that are away, up to 1024 for one member. Beyond
    /// it they wait in the table, and are picked up again from there.
    pub completing: usize,
    /// Interactive transactions that this node begins in a second, and at once. They cost the cluster nothing until
    /// they hold something at a participant; the limit keeps a storm of them from the participants' doors.
    pub begins_per_second: u32,
    /// Participants that the cluster knows of. Each stays in the table and in every snapshot for good, with up to
    /// 350 bytes, because a name that was forgotten could come back with an old copy of its data (R11). Ten thousand
    /// is far more services than anybody runs, and 4 MiB.
    pub participants: usize,
    /// Members of one transaction.
    pub members: usize,
    /// Bytes of one operation.
    pub operation_bytes: usize,
    /// How long the voting phase takes at most if the initiator says nothing.
    pub voting_timeout_ms: u64,
    /// The longest voting phase an initiator may ask for.
    pub longest_voting_timeout_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let request = Limits::default();
        Self {
            in_flight: 10_000,
            in_flight_mib: 256,
            completing: 50_000,
            begins_per_second: 20_000,
            participants: 10_000,
            members: request.members,
            operation_bytes: request.operation_bytes,
            voting_timeout_ms: 10_000,
            longest_voting_timeout_ms: 60_000,
        }
    }
}

impl LimitsConfig {
    /// The limits on one request.
    pub(crate) fn request(&self) -> Limits {
        Limits {
            members: self.members,
            operation_bytes: self.operation_bytes,
        }
    }

    /// The most that operations in flight may add up to, in bytes.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.in_flight_mib.saturating_mul(1024 * 1024)
    }

    /// The voting phase for a request that asks for `asked_ms`, where 0 asks for the default.
    pub(crate) fn voting_timeout(&self, asked_ms: u32) -> Duration {
        let asked = if asked_ms == 0 {
            self.voting_timeout_ms
        } else {
            u64::from(asked_ms)
        };
        Duration::from_millis(asked.min(self.longest_voting_timeout_ms))
    }
}

/// What is remembered, and for how long (R7). The same on every node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// For how long after the time in its id a transaction is remembered. Has to be longer than anybody repeats a
    /// request: an id that is older is refused.
    pub window_seconds: u64,
    /// How far ahead of the cluster's clocks the time in an id may be. Ids ahead of their time are remembered for
    /// longer.
    pub future_tolerance_ms: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        // People who repeat by hand come back the next morning; clocks without a time service drift by minutes.
        Self {
            window_seconds: 86_400,
            future_tolerance_ms: 600_000,
        }
    }
}

impl RetentionConfig {
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(self.window_seconds)
    }

    /// How often time moves forward. Each time costs one entry in the log, and what is remembered for longer than the
    /// window is a hundredth of it; of a window so short that it is for tests, a tenth.
    pub(crate) fn tick(&self) -> Duration {
        let second = Duration::from_secs(1);
        if self.window() < second * 100 {
            return self.window() / 10;
        }
        (self.window() / 100).clamp(second, second * 10)
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: String,
    node: u64,
    listen: String,
    metrics_address: Option<SocketAddr>,
    data: PathBuf,
    #[serde(default)]
    join: bool,
    peers: Vec<Peer>,
    #[serde(default)]
    raft: RaftConfig,
    #[serde(default)]
    limits: LimitsConfig,
    #[serde(default)]
    retention: RetentionConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    node: u64,
    address: String,
}

/// A configuration that cannot be used. Says which file, which key, and what is allowed.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {file}: {source}", file = file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or a key is missing, unknown or of the wrong type.
    #[error("the configuration file {file} is not usable: {source}", file = file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// Where and why; names the key and what is allowed.
        source: Box<toml::de::Error>,
    },
    /// A key has a value that is not allowed.
    #[error("in the configuration file {file}, key {key}: {problem}", file = file.display())]
    BadValue {
        /// The file.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a configuration file. A relative `data` folder is taken from where the process runs.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Unreadable {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(&text, file)
    }

    /// Checks the text of a configuration file; `file` is only named in errors.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let parsed: File = toml::from_str(text).map_err(|source| ConfigError::Malformed {
            file: file.to_owned(),
            source: Box::new(source),
        })?;
        let bad = |key, problem: String| ConfigError::BadValue {
            file: file.to_owned(),
            key,
            problem,
        };
        let cluster = ClusterId::new(&parsed.cluster).map_err(|error| bad("cluster", error.to_string()))?;
        let peers = checked_peers(&parsed).map_err(|problem| bad("peers", problem))?;
        check_address(&parsed.listen).map_err(|problem| bad("listen", problem))?;
        check_raft(&parsed.raft).map_err(|(key, problem)| bad(key, problem))?;
        check_limits(&parsed.limits).map_err(|(key, problem)| bad(key, problem))?;
        check_retention(&parsed.retention).map_err(|(key, problem)| bad(key, problem))?;
        if parsed.data.as_os_str().is_empty() {
            return Err(bad(
                "data",
                "name the folder that holds what this node remembers".to_owned(),
            ));
        }
        Ok(Self {
            cluster,
            node: NodeId(parsed.node),
            listen: parsed.listen,
            metrics_address: parsed.metrics_address,
            data: parsed.data,
            peers,
            join: parsed.join,
            raft: parsed.raft,
            limits: parsed.limits,
            retention: parsed.retention,
        })
    }

    /// The address that others reach this node at.
    pub fn address(&self) -> &str {
        &self.peers[&self.node]
    }
}

fn checked_peers(file: &File) -> Result<BTreeMap<NodeId, String>, String> {
    let mut peers = BTreeMap::new();
    for peer in &file.peers {
        if peer.node == 0 {
            return Err("node 0 is not allowed; ids start at 1".to_owned());
        }
        check_address(&peer.address).map_err(|problem| format!("node {}: {problem}", peer.node))?;
        if peers.values().any(|address| *address == peer.address) {
            return Err(format!("address {} is given to two nodes", peer.address));
        }
        if peers.insert(NodeId(peer.node), peer.address.clone()).is_some() {
            return Err(format!("node {} is listed twice", peer.node));
        }
    }
    if !peers.contains_key(&NodeId(file.node)) {
        let known: Vec<String> = peers.keys().map(|node| node.0.to_string()).collect();
        return Err(format!(
            "this node ({}) is not among the peers ({})",
            file.node,
            known.join(", ")
        ));
    }
    if !file.join && !matches!(peers.len(), 1 | 3 | 5 | 7) {
        return Err(format!(
            "a cluster is formed of 1, 3, 5 or 7 nodes, {} are listed",
            peers.len()
        ));
    }
    Ok(peers)
}

fn check_address(address: &str) -> Result<(), String> {
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(port)) if port != 0 => Ok(()),
        Some(_) | None => Err(format!(
            "{address:?} is not an address; use host:port with a port from 1 to 65535"
        )),
    }
}

fn check_raft(raft: &RaftConfig) -> Result<(), (&'static str, String)> {
    if raft.heartbeat_ms == 0 || raft.heartbeat_ms * 2 >= raft.election_min_ms {
        let problem = format!(
            "{} is not allowed; use 1 to {}, less than half of raft.election_min_ms",
            raft.heartbeat_ms,
            raft.election_min_ms.saturating_sub(1) / 2
        );
        return Err(("raft.heartbeat_ms", problem));
    }
    if raft.election_max_ms <= raft.election_min_ms {
        let problem = format!("{} has to exceed raft.election_min_ms", raft.election_max_ms);
        return Err(("raft.election_max_ms", problem));
    }
    if !(8..=1024).contains(&raft.log_segment_mib) {
        // The largest entry has to fit.
        let problem = format!("{} is not allowed; use 8 to 1024", raft.log_segment_mib);
        return Err(("raft.log_segment_mib", problem));
    }
    if raft.snapshot_every_entries == 0 {
        return Err((
            "raft.snapshot_every_entries",
            "0 is not allowed; use 1 or more".to_owned(),
        ));
    }
    Ok(())
}

fn check_retention(retention: &RetentionConfig) -> Result<(), (&'static str, String)> {
    // Ten years: whatever is longer is a slip of the finger.
    let longest = 10 * 366 * 86_400;
    if !(1..=longest).contains(&retention.window_seconds) {
        let problem = format!("{} is not allowed; use 1 to {longest}", retention.window_seconds);
        return Err(("retention.window_seconds", problem));
    }
    if !(1..=86_400_000).contains(&retention.future_tolerance_ms) {
        let problem = format!(
            "{} is not allowed; use 1 to 86400000, a day",
            retention.future_tolerance_ms
        );
        return Err(("retention.future_tolerance_ms", problem));
    }
    Ok(())
}

fn check_limits(limits: &LimitsConfig) -> Result<(), (&'static str, String)> {
    let at_least_one = [
        ("limits.in_flight", limits.in_flight),
        ("limits.completing", limits.completing),
        ("limits.begins_per_second", limits.begins_per_second as usize),
        ("limits.participants", limits.participants),
        ("limits.members", limits.members),
        ("limits.operation_bytes", limits.operation_bytes),
    ];
    for (key, value) in at_least_one {
        if value == 0 {
            return Err((key, "0 is not allowed; use 1 or more".to_owned()));
        }
    }
    if limits.in_flight_mib < 4 {
        // The largest request has 3 MiB of operations and would never be taken.
        let problem = format!("{} is not allowed; use 4 or more", limits.in_flight_mib);
        return Err(("limits.in_flight_mib", problem));
    }
    let most = Limits::default();
    if limits.members > most.members {
        return Err((
            "limits.members",
            format!("{} is not allowed; use at most {}", limits.members, most.members),
        ));
    }
    if limits.operation_bytes > most.operation_bytes {
        let problem = format!(
            "{} is not allowed; use at most {}",
            limits.operation_bytes, most.operation_bytes
        );
        return Err(("limits.operation_bytes", problem));
    }
    if limits.voting_timeout_ms == 0 || limits.voting_timeout_ms > limits.longest_voting_timeout_ms {
        let problem = format!(
            "{} is not allowed; use 1 to limits.longest_voting_timeout_ms ({})",
            limits.voting_timeout_ms, limits.longest_voting_timeout_ms
        );
        return Err(("limits.voting_timeout_ms", problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../config/node1.toml");

    fn refused(text: &str) -> String {
        Config::parse(text, Path::new("node1.toml"))
            .unwrap_err()
            .to_string()
    }

    fn with(from: &str, to: &str) -> String {
        assert!(SAMPLE.contains(from), "the sample has {from}");
        SAMPLE.replace(from, to)
    }

    #[test]
    fn the_samples_are_accepted_and_agree() {
        let samples = [
            SAMPLE,
            include_str!("../config/node2.toml"),
            include_str!("../config/node3.toml"),
        ];
        let configs: Vec<Config> = samples
            .iter()
            .map(|text| Config::parse(text, Path::new("node.toml")).unwrap())
            .collect();
        for (place, config) in configs.iter().enumerate() {
            assert_eq!(config.node, NodeId(place as u64 + 1));
            assert_eq!(
                (&config.cluster, &config.peers),
                (&configs[0].cluster, &configs[0].peers)
            );
            assert_eq!(config.listen, config.address());
            assert_eq!(config.limits, LimitsConfig::default());
            assert_eq!(config.raft, RaftConfig::default());
            assert_eq!(config.retention, RetentionConfig::default());
        }
    }

    #[test]
    fn a_bad_value_is_refused_with_the_file_the_key_and_what_is_allowed() {
        let cases = [
            (
                with("cluster = \"demo\"", "cluster = \"De mo\""),
                "key cluster",
                "a-z",
            ),
            (
                with("cluster = \"demo\"", ""),
                "missing field `cluster`",
                "node1.toml",
            ),
            (
                with("node = 1\nlisten", "node = 9\nlisten"),
                "key peers",
                "not among the peers (1, 2, 3)",
            ),
            (
                with("node = 1\nlisten", "node = \"one\"\nlisten"),
                "node = \"one\"",
                "invalid type",
            ),
            (
                with("listen = \"127.0.0.1:7101\"", "listen = \"7101\""),
                "key listen",
                "host:port",
            ),
            (with("listen =", "lisen ="), "lisen", "expected one of"),
            (
                with(
                    "# metrics_address = \"127.0.0.1:9101\"",
                    "metrics_address = \"9101\"",
                ),
                "metrics_address",
                "invalid socket address",
            ),
            (
                with("node = 3", "node = 2"),
                "key peers",
                "node 2 is listed twice",
            ),
            (
                with("127.0.0.1:7103", "127.0.0.1:7102"),
                "key peers",
                "given to two nodes",
            ),
            (
                with("heartbeat_ms = 100", "heartbeat_ms = 150"),
                "key raft.heartbeat_ms",
                "1 to 149",
            ),
            (
                with("election_max_ms = 600", "election_max_ms = 200"),
                "key raft.election_max_ms",
                "exceed",
            ),
            (
                with("in_flight = 10000", "in_flight = 0"),
                "key limits.in_flight",
                "1 or more",
            ),
            (
                with("in_flight_mib = 256", "in_flight_mib = 3"),
                "key limits.in_flight_mib",
                "4 or more",
            ),
            (
                with("in_flight = 10000", "inflight = 1"),
                "inflight",
                "expected one of",
            ),
            (
                with("voting_timeout_ms = 10000", "voting_timeout_ms = 99999"),
                "key limits.voting_timeout_ms",
                "60000",
            ),
            (
                with("window_seconds = 86400", "window_seconds = 0"),
                "key retention.window_seconds",
                "use 1 to",
            ),
            (
                with("future_tolerance_ms = 600000", "future_tolerance_ms = 0"),
                "key retention.future_tolerance_ms",
                "a day",
            ),
            (
                with("members = 64", "members = 65"),
                "key limits.members",
                "at most 64",
            ),
        ];
        for (text, names, says) in cases {
            let error = refused(&text);
            assert!(
                error.contains(names) && error.contains(says) && error.contains("node1.toml"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("no/such/node.toml"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no/such/node.toml"), "{error}");
    }
}
