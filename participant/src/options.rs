use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use unanimo_core::{ClusterId, Limits, ParticipantId};
use unanimo_journal::Disk;
use unanimo_proto::transport::{Clock, Connector};
use unanimo_table::Table;

/// Who a participant is, and its limits (R14). Start from [`ParticipantOptions::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct ParticipantOptions {
    /// The cluster it belongs to, for ever: its data folder remembers, and refuses another one (R11).
    pub cluster: ClusterId,
    /// Its name, for ever, over restarts and moves.
    pub name: ParticipantId,
    /// Where coordinators reach it, as `host:port`.
    pub address: String,
    /// Every coordinator node as `host:port`. One that answers is enough.
    pub coordinators: Vec<String>,
    /// Its data folder, which it shares with nobody. Holds `journal/` and `branches/`; created if missing.
    pub data: PathBuf,
    /// Branches that are not finished, at most. Each holds its redo in memory and locks in the resource manager.
    /// Beyond it a new transaction is refused with a hint when to try again; known ones go on. The default, 4096,
    /// is what one connection may carry, and with redos of 64 KiB a quarter of a gigabyte.
    pub in_flight: usize,
    /// The request's limits. The same as the cluster's.
    pub request: Limits,
    /// The longest redo in bytes; with a longer one the branch votes No. Default 64 KiB: it is forced to disk
    /// with every vote.
    pub redo_bytes: usize,
    /// Callers that wait for one branch's vote, or for its acknowledgement, at most. Callers repeat while the first call
    /// still waits, so there are a few; default 32.
    pub waiters_per_branch: usize,
    /// Finished branches that are kept in memory because the branch table does not have them yet, at most. Beyond
    /// it new transactions are refused until it catches up. Default 65 536, some tens of megabytes.
    pub unremembered: usize,
    /// Branches that only read are remembered in memory until some seconds after their deadline, so many of them at
    /// most, the oldest deadlines dropped first (R4 does not need them). Default 4096.
    pub read_only_remembered: usize,
    /// How long the work of an interactive transaction is held without a promise, whatever its context says. Default
    /// 5 minutes: a person may be at the other end, and everybody else waits for the holds.
    pub joined_for_at_most: Duration,
    /// A branch that is in doubt for so long asks for its decision. The default, 300 ms, is many times a healthy
    /// transaction, and less than an election.
    pub inquiry_after: Duration,
    /// Branches in one inquiry. Default 256: with 64 members each, half of the largest message.
    pub inquiry_batch: usize,
    /// The longest pause between two rounds of inquiry. Default 500 ms: a new leader is found that much later at
    /// worst, and a round costs few calls.
    pub inquiry_pause_max: Duration,
    /// The longest pause before the resource manager is asked again after `Unavailable`, and between two attempts
    /// to register. Default 1 s.
    pub retry_pause_max: Duration,
    /// How long a `Prepare` waits for the vote after the voting phase is over; then the caller is told to ask
    /// again. The branch goes on. Default 200 ms, for messages that were on their way.
    pub vote_margin: Duration,
    /// How long a `Commit` or `Abort` waits until it can be acknowledged; then the caller is told to ask again.
    /// The branch goes on. Default 10 s.
    pub acknowledge_within: Duration,
    /// The shortest pause between two times that closed transactions are forgotten, each of which forces one record to
    /// disk. Default 1 s.
    pub forget_pause: Duration,
    /// How long a shutdown waits for calls of the resource manager that are running. Default 5 s; recovery takes
    /// care of what did not finish.
    pub shutdown_patience: Duration,
    /// Size of a segment file of the journal in bytes. Default 64 MiB.
    pub segment_bytes: u64,
    /// After so many finished branches the branch table is made durable. It only shortens the rebuilding of a
    /// table after a crash, because the journal has everything. Default 16 384.
    pub checkpoint_after: usize,
}

impl ParticipantOptions {
    /// The usual limits.
    pub fn new(
        cluster: ClusterId,
        name: ParticipantId,
        address: impl Into<String>,
        coordinators: impl IntoIterator<Item = impl Into<String>>,
        data: impl Into<PathBuf>,
    ) -> Self {
        Self {
            cluster,
            name,
            address: address.into(),
            coordinators: coordinators.into_iter().map(Into::into).collect(),
            data: data.into(),
            in_flight: 4096,
            request: Limits::default(),
            redo_bytes: 64 * 1024,
            waiters_per_branch: 32,
            unremembered: 65_536,
            read_only_remembered: 4096,
            joined_for_at_most: Duration::from_secs(300),
            inquiry_after: Duration::from_millis(300),
            inquiry_batch: 256,
            inquiry_pause_max: Duration::from_millis(500),
            retry_pause_max: Duration::from_secs(1),
            vote_margin: Duration::from_millis(200),
            acknowledge_within: Duration::from_secs(10),
            forget_pause: Duration::from_secs(1),
            shutdown_patience: Duration::from_secs(5),
            segment_bytes: 64 * 1024 * 1024,
            checkpoint_after: 16_384,
        }
    }
}

/// What a participant takes from the machine. [`Participant::start`](crate::Participant::start) brings the real
/// ones; a simulation or a test brings its own.
pub struct Parts {
    /// The directory of the journal.
    pub disk: Arc<dyn Disk>,
    /// The branch table. It may have lost anything: what is missing comes from the journal.
    pub table: Arc<dyn Table>,
    /// How coordinators are reached.
    pub connector: Arc<dyn Connector>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where the jitter of pauses starts. Two participants with the same seed ask at the same moments.
    pub seed: u64,
    /// Tells this life from one that began from a copy of the same data (R11). Two starts with the same number are
    /// taken for one.
    pub random: u32,
    /// Who writes to the disk.
    pub writing: Writing,
}

/// Who writes to the disk and the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Threads of their own, as disks need.
    Threads,
    /// Tasks of the runtime that block it while they write: for simulated disks, in the order that the runtime
    /// decides, so that a run can be repeated.
    Tasks,
    /// The same, and each group of the journal waits so long for the disk: what is not written yet is lost in a crash.
    SlowTasks(Duration),
}
