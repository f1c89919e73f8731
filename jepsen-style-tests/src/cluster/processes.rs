use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use unanimo_coordinator::OperatorError;
use unanimo_proto::v1::admin_client::AdminClient;
use unanimo_proto::v1::{GetStatusReply, GetStatusRequest};

use super::child::{Child, Surroundings};
use super::config::{Settings, coordinator_config, participant_arguments};
use super::disk;
use super::{Addresses, Disk, Layout, Member, Place};
use crate::network::Network;
use crate::random::Seed;
use crate::wire;
use crate::wire::store_client::StoreClient;

/// How long one question to a process may take.
const QUESTION: Duration = Duration::from_secs(1);

/// The processes. Dropping it kills all of them and waits for their end. Then it unmounts their disks, and takes their
/// network away.
// The order of the fields is the order in which they go.
pub struct Cluster {
    pub(super) layout: Layout,
    pub(super) children: BTreeMap<Member, Child>,
    pub(super) addresses: Addresses,
    /// Tells who follows it that the addresses have changed.
    pub(super) changes: watch::Sender<Addresses>,
    /// Nodes that were removed.
    pub(super) former: Vec<Member>,
    /// When the cause of the latest fault was taken away.
    healed: Option<std::time::Instant>,
    /// Those that may end by themselves, once, because of what was done to them; and whether for the rest of the run.
    may_end: BTreeMap<Member, bool>,
    executable: PathBuf,
    folder: PathBuf,
    settings: Settings,
    disks: BTreeMap<Member, Disk>,
    pub(super) place: Place,
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
    /// A node does not do what an operator tells it.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// It is not running any more, and nobody ended it.
    #[error("{member} ended by itself: {status}")]
    Ended {
        /// Which one.
        member: Member,
        /// How.
        status: ExitStatus,
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
        let (place, addresses) =
            Place::loopback(layout, Seed(0)).map_err(|source| ClusterError::Unusable {
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
        Self::start_with(place, addresses, executable, folder, layout, Settings::default())
    }

    /// The same with another configuration.
    pub fn start_with(
        place: Place,
        addresses: Addresses,
        executable: &Path,
        folder: &Path,
        layout: Layout,
        settings: Settings,
    ) -> Result<Self, ClusterError> {
        let disks = match place.network().has_namespaces() && disk::unavailable().is_none() {
            true => make_disks(folder, layout)?,
            false => BTreeMap::new(),
        };
        let mut cluster = Self {
            layout,
            children: BTreeMap::new(),
            changes: watch::Sender::new(addresses.clone()),
            addresses,
            former: Vec::new(),
            healed: None,
            may_end: BTreeMap::new(),
            executable: executable.to_owned(),
            folder: folder.to_owned(),
            settings,
            disks,
            place,
        };
        for member in layout.members() {
            cluster.start_new(member, false)?;
        }
        Ok(cluster)
    }

    /// Starts a process that has never run. A node joins a cluster that exists, or forms one.
    pub(super) fn start_new(&mut self, member: Member, join: bool) -> Result<(), ClusterError> {
        let arguments = self.arguments(member, join)?;
        let log = self.log(member);
        let child = Child::new(member.to_string(), self.executable.clone(), arguments, log);
        self.children.insert(member, child);
        self.start_again(member)
    }

    /// Makes a disk for a new process, if the others have disks of their own.
    pub(super) fn add_disk(&mut self, member: Member) -> Result<(), ClusterError> {
        if !self.disks.is_empty() {
            self.disks.insert(member, make_disk(&self.folder, member)?);
        }
        Ok(())
    }

    pub(super) fn arguments(&self, member: Member, join: bool) -> Result<Vec<String>, ClusterError> {
        let (listen, data) = (self.place.listens(self.addresses.of(member)), self.data(member));
        match member {
            Member::Coordinator(node) => {
                let config = self.folder.join(format!("{member}.toml"));
                let text = coordinator_config(node, join, &listen, &data, &self.addresses, self.settings);
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
            Member::Participant(_) => {
                let said = self.said(member);
                Ok(participant_arguments(
                    member,
                    &listen,
                    &data,
                    &said,
                    &self.addresses,
                ))
            }
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

    /// The addresses whenever they have changed, for whoever keeps connections.
    pub fn follow(&self) -> watch::Receiver<Addresses> {
        self.changes.subscribe()
    }

    /// How long nodes remember what is over.
    pub fn retention(&self) -> Duration {
        self.settings.retention()
    }

    /// Nodes that were removed. Their processes have ended; their data and logs are still there.
    pub fn former(&self) -> &[Member] {
        &self.former
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

    /// The network between the processes.
    pub fn network(&self) -> &Network {
        self.place.network()
    }

    /// What this process says.
    pub fn log(&self, member: Member) -> PathBuf {
        self.folder.join(format!("{member}.log"))
    }

    /// Where a participant notes what it has said: on no disk that faults happen to.
    pub(crate) fn said(&self, member: Member) -> PathBuf {
        self.folder.join(format!("{member}.said"))
    }

    /// The number of this process in the system, unless it was killed and not started again.
    pub fn process(&self, member: Member) -> Option<u32> {
        self.children.get(&member).and_then(Child::id)
    }

    /// Ends a process without warning, as `kill -9` does. It is gone when this returns.
    pub fn kill(&mut self, member: Member) -> Result<(), ClusterError> {
        self.act(member, "kill", Child::kill)
    }

    /// Ends all of these without warning and at the same moment. They are gone when this returns. Each has to be running:
    /// one that has ended by itself is nobody's victim.
    pub fn kill_together(&mut self, members: &[Member]) -> Result<(), ClusterError> {
        for member in members {
            if let Some(status) = self.end_of(*member)? {
                return Err(ended_by_itself(*member, status));
            }
        }
        for member in members {
            self.signal(*member, "kill", Signal::SIGKILL)?;
        }
        for member in members {
            let mut had_ended = None;
            self.act(*member, "kill", |child| {
                had_ended = child.kill_running()?;
                Ok(())
            })?;
            if let Some(status) = had_ended {
                return Err(ended_by_itself(*member, status));
            }
        }
        Ok(())
    }

    /// Notes that the cause of a fault has just been taken away. What counts is the last time.
    pub fn note_healed(&mut self) {
        self.healed = Some(std::time::Instant::now());
    }

    /// When that was noted last, since this was asked last.
    pub fn take_healed(&mut self) -> Option<std::time::Instant> {
        self.healed.take()
    }

    /// This process may end by itself once, because of what was done to it, until the next fault begins.
    pub fn let_end(&mut self, member: Member) {
        self.may_end.entry(member).or_insert(false);
    }

    /// So too, at any time: it finds what was done to it when it looks there.
    pub fn let_end_some_time(&mut self, member: Member) {
        self.may_end.insert(member, true);
    }

    /// Whether this process may have ended by itself. It may not another time.
    pub fn take_may_end(&mut self, member: Member) -> bool {
        self.may_end.remove(&member).is_some()
    }

    /// Starts those again that have ended by themselves since the last fault. Returns how, and of each whether it might: of
    /// any other it is a find. From now on nobody may, but for whom it may come at any time.
    pub fn start_ended(&mut self) -> Result<Vec<(ClusterError, bool)>, ClusterError> {
        let mut found = Vec::new();
        for (member, status) in self.ended() {
            let might = self.take_may_end(member);
            found.push((ClusterError::Ended { member, status }, might));
            self.start_again(member)?;
        }
        for member in self.layout.members() {
            // A fault that failed has left it so.
            if self.process(member).is_none() {
                self.start_again(member)?;
            }
        }
        self.may_end.retain(|_, at_any_time| *at_any_time);
        Ok(found)
    }

    /// Asks a process to end in order, as `kill -TERM` does.
    pub fn terminate(&self, member: Member) -> Result<(), ClusterError> {
        self.signal(member, "terminate", Signal::SIGTERM)
    }

    /// Waits until a process has ended, and says how. It can be started again.
    pub async fn wait_for_end(
        &mut self,
        member: Member,
        within: Duration,
    ) -> Result<ExitStatus, ClusterError> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.end_of(member)? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(ClusterError::Late {
                    what: format!("the end of {member}"),
                    within,
                });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How a process ended, if it ended by itself.
    pub fn end_of(&mut self, member: Member) -> Result<Option<ExitStatus>, ClusterError> {
        let mut status = None;
        self.act(member, "wait for", |child| {
            status = child.ended()?;
            Ok(())
        })?;
        Ok(status)
    }

    /// Starts a process that was killed or has ended, with the data it left.
    pub fn start_again(&mut self, member: Member) -> Result<(), ClusterError> {
        self.start_in(member, &Surroundings::default())
    }

    /// So too, in surroundings that are not the usual ones. They are gone with the process.
    pub fn start_in(&mut self, member: Member, surroundings: &Surroundings) -> Result<(), ClusterError> {
        let Self { place, children, .. } = self;
        let Some(child) = children.get_mut(&member) else {
            unreachable!("every member has a child: {member}");
        };
        place
            .at(member, || child.start(surroundings))
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
    pub fn ended(&mut self) -> Vec<(Member, ExitStatus)> {
        let mut ended = Vec::new();
        for (&member, child) in &mut self.children {
            if let Ok(Some(status)) = child.ended() {
                ended.push((member, status));
            }
        }
        ended
    }

    /// What a coordinator node says of itself, if it answers.
    pub async fn status(&self, node: u64) -> Option<GetStatusReply> {
        let ask = |channel| async {
            let mut admin = AdminClient::new(channel);
            admin.get_status(GetStatusRequest::default()).await
        };
        self.ask(Member::Coordinator(node), ask).await
    }

    /// What a participant says of itself, if it answers.
    pub async fn store_status(&self, participant: u64) -> Option<wire::GetStatusReply> {
        let ask = |channel| async {
            let mut store = StoreClient::new(channel);
            store.get_status(wire::GetStatusRequest {}).await
        };
        self.ask(Member::Participant(participant), ask).await
    }

    /// By how many milliseconds a process's wall clock is ahead of ours, if it answers: at least, and at most. It told the
    /// time at some moment between our question and its answer.
    pub async fn ahead(&self, member: Member) -> Option<RangeInclusive<i64>> {
        let asked = now_unix_ms()?;
        let said = match member {
            Member::Coordinator(node) => self.status(node).await?.wall_clock_unix_ms,
            Member::Participant(number) => self.store_status(number).await?.wall_clock_unix_ms,
        };
        let (said, answered) = (i64::try_from(said).ok()?, now_unix_ms()?);
        // Both are cut to whole milliseconds.
        Some(said.saturating_sub(answered).saturating_sub(1)..=said.saturating_sub(asked).saturating_add(1))
    }

    /// Asks over a connection of its own, so that a process which takes no connections does not answer.
    async fn ask<A, F>(&self, member: Member, ask: impl FnOnce(Channel) -> F) -> Option<A>
    where
        F: Future<Output = Result<tonic::Response<A>, tonic::Status>>,
    {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addresses.of(member))).ok()?;
        let answer = async {
            let channel = endpoint.connect().await.ok()?;
            Some(ask(channel).await.ok()?.into_inner())
        };
        tokio::time::timeout(QUESTION, answer).await.ok()?
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

fn now_unix_ms() -> Option<i64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

fn ended_by_itself(member: Member, status: ExitStatus) -> ClusterError {
    ClusterError::Ended { member, status }
}

fn make_disks(folder: &Path, layout: Layout) -> Result<BTreeMap<Member, Disk>, ClusterError> {
    let mut disks = BTreeMap::new();
    for member in layout.members() {
        disks.insert(member, make_disk(folder, member)?);
    }
    Ok(disks)
}

fn make_disk(folder: &Path, member: Member) -> Result<Disk, ClusterError> {
    Disk::create(folder, &member.to_string()).map_err(|source| ClusterError::Unusable {
        what: format!("a disk for {member}"),
        source,
    })
}
