use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::time::Instant;
use tonic::transport::Endpoint;
use unanimo_proto::v1::admin_client::AdminClient;
use unanimo_proto::v1::{GetStatusReply, GetStatusRequest};

use super::child::Child;
use super::config::{coordinator_config, participant_arguments};
use super::disk;
use super::{Addresses, Disk, Layout, Member, Place};
use crate::network::Network;

/// How long one question to a process may take.
const QUESTION: Duration = Duration::from_secs(1);

/// The processes. Dropping it kills all of them and waits for their end. Then it unmounts their disks, and takes their
/// network away.
// The order of the fields is the order in which they go.
pub struct Cluster {
    layout: Layout,
    children: BTreeMap<Member, Child>,
    addresses: Addresses,
    folder: PathBuf,
    disks: BTreeMap<Member, Disk>,
    place: Place,
}

/// Why the processes do not run.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// A file or folder cannot be written, or no address can be had.
    #[error("cannot use {what}: {source}")]
    Unusable {
        /// What.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The system does not start, signal or end a process.
    #[error("cannot {action} {member}: {source}")]
    Process {
        /// What was to be done.
        action: &'static str,
        /// Which one.
        member: Member,
        /// Why.
        source: io::Error,
    },
    /// It did not happen in time.
    #[error("{what} did not happen within {within:?}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        within: Duration,
    },
}

impl Cluster {
    /// Starts all processes on the loopback interface, with their data in this folder. `executable` is this program.
    pub fn start(executable: &Path, folder: &Path, layout: Layout) -> Result<Self, ClusterError> {
        let (place, addresses) = Place::loopback(layout).map_err(|source| ClusterError::Unusable {
            what: "the loopback interface".to_owned(),
            source,
        })?;
        Self::start_at(place, addresses, executable, folder, layout)
    }

    /// Starts all processes at this place. Where the network is our own, each has a disk of its own too, if it can; then
    /// they are reached from the place's [`Place::clients_runtime`] alone.
    pub fn start_at(
        place: Place,
        addresses: Addresses,
        executable: &Path,
        folder: &Path,
        layout: Layout,
    ) -> Result<Self, ClusterError> {
        let disks = match place.network().is_some() && disk::unavailable().is_none() {
            true => make_disks(folder, layout)?,
            false => BTreeMap::new(),
        };
        let mut cluster = Self {
            layout,
            children: BTreeMap::new(),
            addresses,
            folder: folder.to_owned(),
            disks,
            place,
        };
        for member in layout.members() {
            let arguments = cluster.arguments(member)?;
            let child = Child::new(
                member.to_string(),
                executable.to_owned(),
                arguments,
                cluster.log(member),
            );
            cluster.children.insert(member, child);
            cluster.start_again(member)?;
        }
        Ok(cluster)
    }

    fn arguments(&self, member: Member) -> Result<Vec<String>, ClusterError> {
        let data = self.data(member);
        match member {
            Member::Coordinator(node) => {
                let config = self.folder.join(format!("{member}.toml"));
                let text = coordinator_config(node, &data, &self.addresses);
                fs::write(&config, text).map_err(|source| ClusterError::Unusable {
                    what: config.display().to_string(),
                    source,
                })?;
                Ok(vec![
                    "coordinator".to_owned(),
                    "--config".to_owned(),
                    config.display().to_string(),
                ])
            }
            Member::Participant(_) => Ok(participant_arguments(member, &data, &self.addresses)),
        }
    }

    /// How many of each there are.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Where everybody serves.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where this process keeps its data.
    pub fn data(&self, member: Member) -> PathBuf {
        self.folder.join(member.to_string())
    }

    /// The disk that this process keeps its data on, if it has one of its own.
    pub fn disk(&self, member: Member) -> Option<&Disk> {
        self.disks.get(&member)
    }

    /// Gives up what is on the disks, which would fill the machine run after run: the images are gone when the cluster
    /// is. Data in plain folders stays.
    pub fn discard_disks(&mut self) -> Result<(), ClusterError> {
        for disk in self.disks.values() {
            disk.discard().map_err(|source| ClusterError::Unusable {
                what: disk.image().display().to_string(),
                source,
            })?;
        }
        Ok(())
    }

    /// The network between the processes, if it is our own.
    pub fn network(&self) -> Option<&Network> {
        self.place.network()
    }

    /// What this process says.
    pub fn log(&self, member: Member) -> PathBuf {
        self.folder.join(format!("{member}.log"))
    }

    /// The number of this process in the system, unless it was killed and not started again.
    pub fn process(&self, member: Member) -> Option<u32> {
        self.children.get(&member).and_then(Child::id)
    }

    /// Ends a process without warning, as `kill -9` does. It is gone when this returns.
    pub fn kill(&mut self, member: Member) -> Result<(), ClusterError> {
        self.act(member, "kill", Child::kill)
    }

    /// Starts a process that was killed, with the data it left.
    pub fn start_again(&mut self, member: Member) -> Result<(), ClusterError> {
        let Self { place, children, .. } = self;
        let Some(child) = children.get_mut(&member) else {
            unreachable!("every member has a child: {member}");
        };
        place
            .at(member, || child.start())
            .map_err(|source| ClusterError::Process {
                action: "start",
                member,
                source,
            })
    }

    /// Stops a process where it is, as `kill -STOP` does.
    pub fn pause(&mut self, member: Member) -> Result<(), ClusterError> {
        self.signal(member, "pause", Signal::SIGSTOP)
    }

    /// Lets a process that was paused go on.
    pub fn resume(&mut self, member: Member) -> Result<(), ClusterError> {
        self.signal(member, "resume", Signal::SIGCONT)
    }

    /// Those that ended by themselves, and how.
    pub fn ended(&mut self) -> Vec<(Member, String)> {
        let mut ended = Vec::new();
        for (&member, child) in &mut self.children {
            if let Ok(Some(status)) = child.ended() {
                ended.push((member, status.to_string()));
            }
        }
        ended
    }

    /// What a coordinator node says of itself, if it answers.
    pub async fn status(&self, node: u64) -> Option<GetStatusReply> {
        let address = format!("http://{}", self.addresses.of(Member::Coordinator(node)));
        let endpoint = Endpoint::from_shared(address).ok()?.timeout(QUESTION);
        let ask = async {
            let channel = endpoint.connect().await.ok()?;
            let reply = AdminClient::new(channel)
                .get_status(GetStatusRequest::default())
                .await;
            Some(reply.ok()?.into_inner())
        };
        tokio::time::timeout(QUESTION, ask).await.ok()?
    }

    /// The node that leads and is ready to, if there is one.
    pub async fn leader(&self) -> Option<u64> {
        let nodes: Vec<u64> = self.layout.nodes().collect();
        let asked = nodes.iter().map(|node| async move {
            let ready = self.status(*node).await.is_some_and(|status| status.ready);
            ready.then_some(*node)
        });
        futures::future::join_all(asked)
            .await
            .into_iter()
            .flatten()
            .next()
    }

    /// Waits until a node leads.
    pub async fn wait_for_leader(&self, within: Duration) -> Result<u64, ClusterError> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            if Instant::now() >= deadline {
                return Err(ClusterError::Late {
                    what: "an election".to_owned(),
                    within,
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn act(
        &mut self,
        member: Member,
        action: &'static str,
        act: impl FnOnce(&mut Child) -> io::Result<()>,
    ) -> Result<(), ClusterError> {
        let Some(child) = self.children.get_mut(&member) else {
            unreachable!("every member has a child: {member}");
        };
        act(child).map_err(|source| ClusterError::Process {
            action,
            member,
            source,
        })
    }

    fn signal(&self, member: Member, action: &'static str, signal: Signal) -> Result<(), ClusterError> {
        let sent = match self.process(member).and_then(|id| i32::try_from(id).ok()) {
            Some(id) => kill(Pid::from_raw(id), signal).map_err(io::Error::from),
            None => Err(io::Error::other("it does not run")),
        };
        sent.map_err(|source| ClusterError::Process {
            action,
            member,
            source,
        })
    }
}

fn make_disks(folder: &Path, layout: Layout) -> Result<BTreeMap<Member, Disk>, ClusterError> {
    let mut disks = BTreeMap::new();
    for member in layout.members() {
        let made = Disk::create(folder, &member.to_string());
        let disk = made.map_err(|source| ClusterError::Unusable {
            what: format!("a disk for {member}"),
            source,
        })?;
        disks.insert(member, disk);
    }
    Ok(disks)
}
