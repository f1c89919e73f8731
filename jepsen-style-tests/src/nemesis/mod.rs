//! Faults, each able to say whether it really happened.

use std::time::Duration;

use futures::future::BoxFuture;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use unanimo_core::mutants::{self, Mutant};

use crate::cluster::{Cluster, ClusterError};
use crate::late::LateAnswers;

/// A fault that happened, or was planned and did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// Which fault: `kill_leader`.
    pub fault: String,
    /// Nanoseconds since the history began.
    pub begun_ns: u64,
    /// When it had begun: whom it is for was found, and it was done to them. Absent in results from before this was noted.
    #[serde(default)]
    pub in_force_ns: Option<u64>,
    /// When its cause was taken away: the last process was started or let go, the links were whole. What the cluster
    /// needs from here on is its recovery. Absent in results from before this was noted.
    #[serde(default)]
    pub healed_ns: Option<u64>,
    /// When everything was as before, as far as the fault is concerned: whoever was started has caught up.
    pub ended_ns: u64,
    /// What it did to whom, for people: "kill -9 of c2, the leader".
    pub what: String,
    /// How it is known to have happened. Absent if it did not, or nobody can tell: then the run is no pass.
    pub evidence: Option<String>,
}

/// Why a fault could not be injected or ended. The run is no pass.
#[derive(Debug, Error)]
pub enum NemesisError {
    /// A process cannot be killed, started, or found.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// One kind of fault.
pub trait Fault: Send {
    /// Its name, as the command line has it: `kill-leader`.
    fn name(&self) -> &'static str;

    /// Why this machine cannot do it, if so.
    fn unavailable(&self) -> Option<String> {
        None
    }

    /// Whether it can pass unnoticed, because those whom it would have met had nothing to say or to write meanwhile. Then
    /// it is tried again.
    fn may_pass_unnoticed(&self) -> bool {
        false
    }

    /// How soon the cluster has to forget what is over, if it matters. The whole run is another one then.
    fn retention(&self) -> Option<Duration> {
        None
    }

    /// Called before every turn, of other faults too, for whoever has to keep something from the start of the run on.
    fn attend<'a>(&'a mut self, cluster: &'a Cluster) -> BoxFuture<'a, ()> {
        let _ = cluster;
        Box::pin(async {})
    }

    /// What was answered to the messages that it sent, in all of its turns.
    fn answers(&self) -> Vec<LateAnswers> {
        Vec::new()
    }

    /// How long it lasts once begun.
    fn lasts(&self, random: &mut StdRng) -> Duration;

    /// Begins it, and says what it does to whom.
    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>>;

    /// Ends it, so that nothing of it is left, and says how it is known to have happened: `None` if it is not. Before it
    /// waits for the cluster it notes that the cause is gone ([`Cluster::note_healed`]); one that waits for nothing need
    /// not.
    fn end<'a>(&'a mut self, cluster: &'a mut Cluster)
    -> BoxFuture<'a, Result<Option<String>, NemesisError>>;
}

/// How long the cluster may take to have its full strength again when a fault is over.
const WHOLE: Duration = Duration::from_secs(30);

mod clock;
mod disk;
mod draw;
mod fake_clock;
mod file_descriptors;
mod idle;
mod kill;
mod membership;
mod memory;
mod memory_limit;
mod messages;
mod monotonic;
mod packets;
mod partition;
mod pause;
mod process;
mod restart;
mod target;
mod transfer;

pub use draw::draw;

/// Every fault, by name.
pub fn all() -> Vec<Box<dyn Fault>> {
    if mutants::is_on(Mutant::M30) {
        return real().into_iter().map(idle::Idle::instead_of).collect();
    }
    real()
}

fn real() -> Vec<Box<dyn Fault>> {
    let mut faults: Vec<Box<dyn Fault>> = Vec::new();
    faults.extend(kill::all());
    faults.extend(pause::all());
    faults.push(Box::new(restart::RollingRestart::new()));
    faults.push(Box::new(transfer::LeaderTransfer::new()));
    faults.push(Box::new(membership::Membership::new()));
    faults.push(Box::new(file_descriptors::FileDescriptors::new()));
    faults.push(Box::new(memory::Memory::new()));
    faults.extend(clock::all());
    faults.push(Box::new(monotonic::MonotonicOffset::new()));
    faults.extend(partition::all());
    faults.extend(packets::all());
    faults.extend(disk::all());
    faults.extend(messages::all());
    faults
}
