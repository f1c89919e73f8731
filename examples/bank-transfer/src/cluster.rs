//! Three coordinators and two banks, each a process with a data folder of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::BankName;
use crate::child::Child;
use crate::ports::{NoPorts, Ports};

/// The name of the cluster.
pub const CLUSTER: &str = "bank-transfer";
/// Coordinator nodes: with three of them one may be away.
pub const NODES: u64 = 3;

/// One of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A coordinator node, by its id.
    Coordinator(u64),
    /// A bank.
    Bank(BankName),
}

impl Role {
    /// Every process.
    pub fn all() -> impl Iterator<Item = Self> {
        let coordinators = (1..=NODES).map(Self::Coordinator);
        coordinators.chain(BankName::ALL.map(Self::Bank))
    }

    fn place(self) -> u16 {
        // There are five of them.
        Self::all()
            .position(|role| role == self)
            .map_or(0, |place| place as u16)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator(node) => write!(f, "coordinator-{node}"),
            Self::Bank(bank) => write!(f, "{bank}"),
        }
    }
}

/// Where everybody serves. A cheap copy for those who talk to the processes.
#[derive(Clone, Debug)]
pub struct Addresses {
    addresses: BTreeMap<Role, String>,
}

impl Addresses {
    /// Where this process serves, as `host:port`.
    pub fn of(&self, role: Role) -> &str {
        &self.addresses[&role]
    }

    /// The coordinator nodes.
    pub fn coordinators(&self) -> Vec<String> {
        (1..=NODES)
            .map(|node| self.of(Role::Coordinator(node)).to_owned())
            .collect()
    }
}

/// The processes. Dropping it kills all of them and waits for their end.
pub struct Cluster {
    children: BTreeMap<Role, Child>,
    addresses: Addresses,
    folder: PathBuf,
    // Held until the end, so that another run does not take the port of a process that is being restarted.
    _ports: Ports,
}

/// Why the processes do not run.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// No ports are free.
    #[error(transparent)]
    NoPorts(#[from] NoPorts),
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system does not start or end a process.
    #[error("cannot start or end {role}: {source}")]
    Process {
        /// Which one.
        role: Role,
        /// Why.
        source: io::Error,
    },
    /// A process ended that nobody had killed.
    #[error("{role} ended by itself: {how}")]
    Ended {
        /// Which one.
        role: Role,
        /// With which status.
        how: String,
    },
}

impl Cluster {
    /// Starts all processes with their data in this folder. `executable` is this program.
    pub fn start(executable: &Path, folder: &Path) -> Result<Self, ClusterError> {
        let ports = Ports::claim()?;
        let addresses = Addresses {
            addresses: Role::all()
                .map(|role| (role, ports.address(role.place())))
                .collect(),
        };
        let mut cluster = Self {
            children: BTreeMap::new(),
            addresses,
            folder: folder.to_owned(),
            _ports: ports,
        };
        for role in Role::all() {
            let data = cluster.data(role);
            let arguments = match role {
                Role::Coordinator(node) => {
                    let config = folder.join(format!("{role}.toml"));
                    let text = coordinator_config(node, &data, &cluster.addresses);
                    fs::write(&config, text).map_err(|source| ClusterError::Unwritable {
                        path: config.clone(),
                        source,
                    })?;
                    vec![
                        "coordinator".to_owned(),
                        "--config".to_owned(),
                        config.display().to_string(),
                    ]
                }
                Role::Bank(bank) => bank_arguments(bank, &data, &cluster.addresses),
            };
            let log = folder.join(format!("{role}.log"));
            let child = Child::new(role.to_string(), executable.to_owned(), arguments, log);
            cluster.children.insert(role, child);
            cluster.start_again(role)?;
        }
        Ok(cluster)
    }

    /// Where this process keeps its data.
    pub fn data(&self, role: Role) -> PathBuf {
        self.folder.join(role.to_string())
    }

    /// Where everybody serves.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The number of this process in the system, unless it was killed and not started again.
    pub fn process(&self, role: Role) -> Option<u32> {
        self.children.get(&role).and_then(Child::id)
    }

    /// Ends a process without warning, as `kill -9` does. It is gone when this returns.
    pub fn kill(&mut self, role: Role) -> Result<(), ClusterError> {
        self.child(role)
            .kill()
            .map_err(|source| ClusterError::Process { role, source })
    }

    /// Starts a process that was killed, with the data it left.
    pub fn start_again(&mut self, role: Role) -> Result<(), ClusterError> {
        self.child(role)
            .start()
            .map_err(|source| ClusterError::Process { role, source })
    }

    /// An error if a process ended by itself.
    pub fn check(&mut self) -> Result<(), ClusterError> {
        for (&role, child) in &mut self.children {
            let ended = child
                .ended()
                .map_err(|source| ClusterError::Process { role, source })?;
            if let Some(status) = ended {
                return Err(ClusterError::Ended {
                    role,
                    how: status.to_string(),
                });
            }
        }
        Ok(())
    }

    /// The end of everybody's log, for people who look for what went wrong.
    pub fn log_tails(&self) -> String {
        let tail = |child: &Child| {
            format!(
                "--- {}: the end of {}\n{}\n",
                child.name(),
                child.log().display(),
                child.log_tail()
            )
        };
        self.children.values().map(tail).collect()
    }

    fn child(&mut self, role: Role) -> &mut Child {
        match self.children.get_mut(&role) {
            Some(child) => child,
            None => unreachable!("every role has a child: {role}"),
        }
    }
}

fn bank_arguments(bank: BankName, data: &Path, addresses: &Addresses) -> Vec<String> {
    [
        "bank",
        "--name",
        bank.as_str(),
        "--listen",
        addresses.of(Role::Bank(bank)),
        "--coordinators",
        &addresses.coordinators().join(","),
        "--data",
        &data.display().to_string(),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The configuration file of a coordinator node. What is not said stays at its default.
#[derive(Serialize)]
struct CoordinatorConfig<'a> {
    cluster: &'a str,
    node: u64,
    listen: &'a str,
    data: &'a Path,
    peers: Vec<Peer<'a>>,
}

#[derive(Serialize)]
struct Peer<'a> {
    node: u64,
    address: &'a str,
}

fn coordinator_config(node: u64, data: &Path, addresses: &Addresses) -> String {
    let peer = |node| Peer {
        node,
        address: addresses.of(Role::Coordinator(node)),
    };
    let config = CoordinatorConfig {
        cluster: CLUSTER,
        node,
        listen: addresses.of(Role::Coordinator(node)),
        data,
        peers: (1..=NODES).map(peer).collect(),
    };
    match toml::to_string(&config) {
        Ok(text) => text,
        Err(error) => unreachable!("the configuration has nothing that TOML cannot say: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coordinators_understand_their_configuration() {
        let ports = Ports::claim().unwrap();
        let addresses = Addresses {
            addresses: Role::all()
                .map(|role| (role, ports.address(role.place())))
                .collect(),
        };
        let data = Path::new("/a \"quoted\" folder");
        for node in 1..=NODES {
            let text = coordinator_config(node, data, &addresses);
            let config = unanimo_coordinator::Config::parse(&text, Path::new("coordinator.toml")).unwrap();
            assert_eq!(config.node, unanimo_coordinator::NodeId(node));
            assert_eq!(config.cluster.as_str(), CLUSTER);
            assert_eq!(config.data, data);
            assert_eq!(
                config.peers.values().cloned().collect::<Vec<_>>(),
                addresses.coordinators()
            );
            assert_eq!(config.listen, addresses.of(Role::Coordinator(node)));
        }
    }

    #[test]
    fn a_process_that_ends_by_itself_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::start(Path::new("/bin/false"), folder.path()).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let error = loop {
            match cluster.check() {
                Ok(()) => assert!(std::time::Instant::now() < deadline, "nobody noticed"),
                Err(error) => break error.to_string(),
            }
            std::thread::yield_now();
        };
        assert!(error.contains("ended by itself: exit status: 1"), "{error}");
        assert!(cluster.log_tails().contains("--- bank-north: the end of"));
    }
}
