//! Three coordinators and three services, each a process with a data folder of its own.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rand::Rng as _;
use thiserror::Error;

use crate::Trade;
use crate::crash::CRASH_AT;

/// The name of the cluster.
pub const CLUSTER: &str = "booking";
/// Coordinator nodes: with three of them one may be away.
pub const NODES: usize = 3;

/// Where blocks of ports begin and end: below the ports that systems hand out by themselves, so that none of them is
/// taken while its process is being started again, and beside those of the other example.
const PORTS: std::ops::Range<u16> = 15_000..20_000;
/// Ports in a block: a claim on it, three nodes and three services.
const BLOCK: u16 = 7;
/// Blocks that are tried.
const ATTEMPTS: usize = 200;

/// Where everybody serves.
#[derive(Clone, Debug)]
pub struct Addresses {
    coordinators: Vec<String>,
    services: Vec<String>,
}

impl Addresses {
    /// The coordinator nodes.
    pub fn coordinators(&self) -> &[String] {
        &self.coordinators
    }

    /// One of the services.
    pub fn service(&self, trade: Trade) -> &str {
        &self.services[trade as usize]
    }
}

/// The processes. Dropping it kills all of them and waits for their end.
pub struct Cluster {
    executable: PathBuf,
    folder: PathBuf,
    addresses: Addresses,
    coordinators: Vec<Child>,
    services: Vec<Child>,
    // Held until the end, so that another run does not take the ports.
    _claim: TcpListener,
}

/// Why the processes do not run.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// No ports could be had.
    #[error("no block of {BLOCK} free ports was found in {PORTS:?} on 127.0.0.1: {source}")]
    NoPorts {
        /// Why the last attempt failed.
        source: io::Error,
    },
    /// A file cannot be written, or a process not started or ended.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A process ended that nobody had killed.
    #[error("{who} ended by itself, see its log in {}", folder.display())]
    Ended {
        /// Which one.
        who: String,
        /// Where its log is.
        folder: PathBuf,
    },
}

impl Cluster {
    /// Starts all processes with their data in this folder. `executable` is this example's program.
    pub fn start(executable: &Path, folder: &Path) -> Result<Self, ClusterError> {
        let (claim, first) = claim_ports()?;
        let address = |place: usize| format!("127.0.0.1:{}", usize::from(first) + 1 + place);
        let mut cluster = Self {
            executable: executable.to_owned(),
            folder: folder.to_owned(),
            addresses: Addresses {
                coordinators: (0..NODES).map(address).collect(),
                services: Trade::ALL
                    .iter()
                    .map(|trade| address(NODES + *trade as usize))
                    .collect(),
            },
            coordinators: Vec::new(),
            services: Vec::new(),
            _claim: claim,
        };
        for node in 1..=NODES {
            let child = cluster.start_coordinator(node)?;
            cluster.coordinators.push(child);
        }
        for trade in Trade::ALL {
            let child = cluster.spawn_service(trade, None)?;
            cluster.services.push(child);
        }
        Ok(cluster)
    }

    /// Where everybody serves.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Kills a service and starts it again. If a crash point is named, it will die there.
    pub fn restart(&mut self, trade: Trade, crash_at: Option<&str>) -> Result<(), ClusterError> {
        end(&mut self.services[trade as usize]).map_err(|source| ClusterError::System {
            what: format!("cannot end {trade}"),
            source,
        })?;
        self.services[trade as usize] = self.spawn_service(trade, crash_at)?;
        Ok(())
    }

    /// Whether a service has died.
    pub fn has_died(&mut self, trade: Trade) -> bool {
        // A child whose state cannot be told is not there.
        !matches!(self.services[trade as usize].try_wait(), Ok(None))
    }

    /// An error if anybody has died.
    pub fn check(&mut self) -> Result<(), ClusterError> {
        let ended = |who: String, folder: &Path| {
            Err(ClusterError::Ended {
                who,
                folder: folder.to_owned(),
            })
        };
        for (place, child) in self.coordinators.iter_mut().enumerate() {
            if !matches!(child.try_wait(), Ok(None)) {
                return ended(format!("coordinator-{}", place + 1), &self.folder);
            }
        }
        for trade in Trade::ALL {
            if self.has_died(trade) {
                return ended(trade.to_string(), &self.folder);
            }
        }
        Ok(())
    }

    fn start_coordinator(&self, node: usize) -> Result<Child, ClusterError> {
        let who = format!("coordinator-{node}");
        let config = self.folder.join(format!("{who}.toml"));
        let text = coordinator_config(node, &self.folder.join(&who), &self.addresses);
        std::fs::write(&config, text).map_err(|source| ClusterError::System {
            what: format!("cannot write {}", config.display()),
            source,
        })?;
        let config = config.display().to_string();
        self.spawn(&who, &["coordinator", "--config", &config], None)
    }

    fn spawn_service(&self, trade: Trade, crash_at: Option<&str>) -> Result<Child, ClusterError> {
        let (who, data) = (trade.to_string(), self.folder.join(trade.as_str()));
        let arguments = [
            "service",
            "--name",
            trade.as_str(),
            "--listen",
            self.addresses.service(trade),
            "--coordinators",
            &self.addresses.coordinators.join(","),
            "--data",
            &data.display().to_string(),
        ];
        self.spawn(&who, &arguments, crash_at)
    }

    fn spawn(&self, who: &str, arguments: &[&str], crash_at: Option<&str>) -> Result<Child, ClusterError> {
        let spawn = || {
            let log = self.folder.join(format!("{who}.log"));
            let log = File::options().create(true).append(true).open(log)?;
            let mut command = Command::new(&self.executable);
            command
                .args(arguments)
                .env_remove(CRASH_AT)
                // It ends when nobody holds the other end any more, whatever became of us.
                .stdin(Stdio::piped())
                .stdout(log.try_clone()?)
                .stderr(log)
                // Ctrl-C in a terminal is for us alone; we see to the others.
                .process_group(0);
            if let Some(point) = crash_at {
                command.env(CRASH_AT, point);
            }
            command.spawn()
        };
        spawn().map_err(|source| ClusterError::System {
            what: format!("cannot start {who}"),
            source,
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.services.iter_mut().chain(&mut self.coordinators) {
            // It may have died by itself; then there is nothing to end.
            let _ = end(child);
        }
    }
}

fn end(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn claim_ports() -> Result<(TcpListener, u16), ClusterError> {
    let mut random = rand::rng();
    let mut failed = io::Error::other("nothing was tried");
    for _ in 0..ATTEMPTS {
        let first = random.random_range(PORTS.start / BLOCK + 1..PORTS.end / BLOCK) * BLOCK;
        match claim_block(first) {
            Ok(claim) => return Ok((claim, first)),
            Err(source) => failed = source,
        }
    }
    Err(ClusterError::NoPorts { source: failed })
}

fn claim_block(first: u16) -> io::Result<TcpListener> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let claim = bind(first)?;
    for port in 1..BLOCK {
        // Bound and let go at once: whoever else wants it for longer is no run of this program.
        drop(bind(first + port)?);
    }
    Ok(claim)
}

/// The configuration file of a coordinator node. What is not said stays at its default.
fn coordinator_config(node: usize, data: &Path, addresses: &Addresses) -> String {
    let listen = &addresses.coordinators[node - 1];
    let mut text = format!("cluster = {CLUSTER:?}\nnode = {node}\nlisten = {listen:?}\ndata = {data:?}\n");
    for (place, address) in addresses.coordinators.iter().enumerate() {
        text += &format!("[[peers]]\nnode = {}\naddress = {address:?}\n", place + 1);
    }
    text
}

/// Ends this process as soon as its standard input does, which is when its parent is gone. To be called by children.
pub fn end_with_parent() -> io::Result<()> {
    let wait = || {
        // However it ends, there is nobody at the other end.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    };
    std::thread::Builder::new()
        .name("end-with-parent".to_owned())
        .spawn(wait)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coordinators_understand_their_configuration() {
        let addresses = Addresses {
            coordinators: (1..=NODES).map(|node| format!("127.0.0.1:{node}")).collect(),
            services: Vec::new(),
        };
        let data = Path::new("/a \"quoted\" folder");
        let text = coordinator_config(2, data, &addresses);
        let config = unanimo_coordinator::Config::parse(&text, Path::new("coordinator.toml")).unwrap();
        assert_eq!(config.cluster.as_str(), CLUSTER);
        assert_eq!(config.data, data);
        assert_eq!(config.listen, addresses.coordinators[1]);
        assert_eq!(config.peers.len(), NODES);
    }
}
