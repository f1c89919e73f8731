//! One replica of the decision table: what the rest of the coordinator holds.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError,
};
use openraft::metrics::WaitError;
use openraft::{ReadPolicy, ServerState};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use unanimo_core::table::{Applied, Binding, Command, DecisionRecord, Horizon, Registration};
use unanimo_core::{IdempotencyKey, ParticipantId, TransactionId};
use unanimo_proto::storage::encode_commands;
use unanimo_table::Table;

use super::admission::Admission;
use super::background::{self, WriterHandle};
use super::failure::Failure;
use super::leader_watch::LeaderWatch;
use super::log_store::MAX_APPEND_BYTES;
use super::network::Network;
use super::raft_config;
use super::service::RaftService;
use super::state_machine::StateMachine;
use super::status;
use super::storage::Storage;
use super::table_view::{self, Forgettable, REGISTRATIONS, ReadTableError, Releasable, UNENDED};
use super::type_config::{Commands, TypeConfig};
use super::{
    Background, Leader, Leadership, ProposeError, ReplicaOptions, ReplicaParts, ReplicaStatus, StartError,
};

pub(super) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(super) type Metrics = openraft::RaftMetrics<TypeConfig>;

/// The most that one command may take, in bytes. What it leaves in the table has to fit into one value of it.
const MAX_COMMAND_BYTES: usize = 48 * 1024;
/// How long a snapshot that was asked for is waited for.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(600);

/// One replica of the decision table. Cheap to clone; usable from any task.
///
/// Reads are local: they show what this node has applied. Decisions never change, so a record that is found holds
/// everywhere; that none is found means something only behind a [`read_barrier`](Self::read_barrier).
#[derive(Clone)]
pub(crate) struct Replica {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) options: ReplicaOptions,
    pub(super) raft: Raft,
    pub(super) storage: Storage,
    pub(super) leadership: watch::Sender<Leadership>,
    /// Held while the membership changes, so that one change ends before the next begins.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    writer: Mutex<Option<WriterHandle>>,
    used_before: bool,
    background: Background,
    stopping: CancellationToken,
    admission: Arc<Admission>,
}

impl Replica {
    /// Starts the replica where it stopped, and returns it with the service that the other nodes call. A table
    /// that lost what it had is rebuilt from the snapshot and the log before this returns.
    ///
    /// # Errors
    ///
    /// Every error means that the node must not run on what it has; its message says what to do.
    pub(crate) async fn start(
        options: ReplicaOptions,
        parts: ReplicaParts,
    ) -> Result<(Self, RaftService), StartError> {
        let config = raft_config::of(&options)?;
        let (connector, background) = (Arc::clone(&parts.connector), parts.background);
        let (watching, broken) = (Arc::clone(&connector), Arc::new(Notify::new()));
        let opening = options.clone();
        let opened = background::run(background, move || Storage::open(&opening, parts)).await;
        let (storage, writer) = opened.map_err(StartError::Thread)??;
        let network = Network {
            cluster: options.cluster.clone(),
            node: options.node,
            connector,
            background,
            answer_timeout: Duration::from_millis(options.election_max_ms),
        };
        let writer = WriterHandle::start(background, writer).map_err(StartError::Thread)?;
        let used_before = storage.log.is_used();
        let raft = match storage.resume(config, options.node, network).await {
            Ok(raft) => raft,
            Err(error) => {
                storage.log.journal().close();
                writer.ended().await;
                return Err(error);
            }
        };
        warn_of_other_address(&raft, &options);
        let stopping = CancellationToken::new();
        let admission = Arc::new(Admission::new(
            used_before || options.answer_when_new,
            background,
            storage.failure.clone(),
        ));
        let service = RaftService {
            cluster: options.cluster.clone(),
            node: options.node,
            raft: raft.clone(),
            snapshots: Arc::clone(&storage.snapshots),
            background,
            admission: Arc::clone(&admission),
            receiving: Arc::new(Semaphore::new(1)),
            stopping: stopping.clone(),
            broken: Arc::clone(&broken),
        };
        let watch = LeaderWatch {
            cluster: options.cluster.clone(),
            raft: raft.clone(),
            connector: watching,
            broken,
            stopping: stopping.clone(),
        };
        tokio::spawn(watch.run());
        let leadership = watch::Sender::new(Leadership::default());
        let ended = stopping.clone().drop_guard();
        tokio::spawn(follow(
            raft.metrics(),
            leadership.clone(),
            storage.failure.clone(),
            ended,
        ));
        let shared = Shared {
            options,
            raft,
            storage,
            leadership,
            changing: Arc::default(),
            writer: Mutex::new(Some(writer)),
            used_before,
            background,
            stopping,
            admission,
        };
        Ok((
            Self {
                shared: Arc::new(shared),
            },
            service,
        ))
    }

    /// Whether this node is, or ever was, part of a cluster.
    pub(crate) fn is_formed(&self) -> bool {
        self.shared.used_before || self.shared.storage.log.is_used()
    }

    /// Lets a new node answer the others: it is known not to have lost its data. `note` makes durable, outside of the
    /// log, that it has answered; it is called before the first answer leaves. For a node that was ever part of a
    /// cluster this changes nothing.
    pub(crate) fn admit(&self, note: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
        self.shared.admission.admit(Box::new(note));
    }

    /// Has commands applied, together and in this order, and returns what each led to.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]: unless the error is definite nothing may be concluded. The same holds if the returned
    /// future is dropped.
    pub(crate) async fn propose(
        &self,
        commands: impl AsRef<[Command]>,
    ) -> Result<Vec<Applied>, ProposeError> {
        let encoded = encode_commands(commands.as_ref());
        check_size(commands.as_ref(), encoded.len())?;
        drop(commands);
        let proposed = self.shared.raft.client_write(Commands(encoded));
        match tokio::time::timeout(self.shared.options.propose_timeout(), proposed).await {
            Ok(Ok(response)) => Ok(response.data.0),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(self.refused(forward))
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.stopped(&fatal)),
            Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) => {
                Err(ProposeError::Unknown)
            }
            Ok(Err(RaftError::APIError(error))) => {
                unreachable!("commands change no membership and have no preconditions: {error}")
            }
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// Waits until this node has proved that it leads and has applied everything that was decided before the call.
    ///
    /// # Errors
    ///
    /// Never [`ProposeError::Unknown`]: without an answer in time it is [`ProposeError::Busy`].
    pub(crate) async fn read_barrier(&self) -> Result<(), ProposeError> {
        let proved = self.shared.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match tokio::time::timeout(self.shared.options.propose_timeout(), proved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(self.refused(forward))
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(ProposeError::Busy)
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.stopped(&fatal)),
        }
    }

    /// Who leads, now and whenever it changes.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// The record of a transaction, if this node has applied its decision.
    ///
    /// # Errors
    ///
    /// The table has failed; so has the replica.
    pub(crate) fn record(
        &self,
        transaction: TransactionId,
    ) -> Result<Option<DecisionRecord>, ReadTableError> {
        self.read(|table| table_view::record(table, transaction))
    }

    /// What this node knows of a participant.
    ///
    /// # Errors
    ///
    /// The table has failed; so has the replica.
    pub(crate) fn registration(
        &self,
        participant: &ParticipantId,
    ) -> Result<Option<Registration>, ReadTableError> {
        self.read(|table| table_view::registration(table, participant))
    }

    /// How far the cluster has come in time, and what is closed, as far as this node has applied.
    ///
    /// # Errors
    ///
    /// The table has failed; so has the replica.
    pub(crate) fn horizon(&self) -> Result<Horizon, ReadTableError> {
        self.read(table_view::horizon)
    }

    /// What may be forgotten of the first `limit` closed transactions after `after`; none when there are no more.
    ///
    /// # Errors
    ///
    /// The table has failed; so has the replica.
    pub(crate) fn forgettable(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> Result<Option<Forgettable>, ReadTableError> {
        self.read(|table| table_view::forgettable(table, after, limit))
    }

    /// What an idempotency key stands for, as far as this node has applied.
    ///
    /// # Errors
    ///
    /// The table has failed; so has the replica.
    pub(crate) fn binding(&self, key: &IdempotencyKey) -> Result<Option<Binding>, ReadTableError> {
        self.read(|table| table_view::binding(table, key))
    }

    /// What may be free of the first `limit` idempotency keys of closed transactions after `after`; none when there are no
    /// more.
    ///
    /// # Errors
    ///
    /// The table has failed; so has the replica.
    pub(crate) fn releasable(
        &self,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Option<Releasable>, ReadTableError> {
        self.read(|table| table_view::releasable(table, after, limit))
    }

    /// Participants that this node knows of, in the order of their names: the first `limit` behind `after`.
    ///
    /// # Errors
    ///
    /// The table has failed; so has the replica.
    pub(crate) fn registrations(
        &self,
        after: Option<&ParticipantId>,
        limit: usize,
    ) -> Result<Vec<(ParticipantId, Registration)>, ReadTableError> {
        self.read(|table| table_view::registrations(table, after, limit))
    }

    /// How many participants this node knows of, counted where nothing else waits for the table, and up to `limit`.
    pub(crate) async fn count_registrations_aside(&self, limit: usize) -> std::io::Result<usize> {
        let replica = self.clone();
        let count = move || {
            let (first, end) = REGISTRATIONS;
            replica.read(|table| Ok(table.scan(first, Some(end), limit)?.len()))
        };
        Ok(background::run(self.shared.background, count).await??)
    }

    /// The same as [`unended`](Self::unended), read where nothing else waits for the table.
    pub(crate) async fn unended_aside(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> std::io::Result<Vec<(TransactionId, DecisionRecord)>> {
        let replica = self.clone();
        Ok(background::run(self.shared.background, move || replica.unended(after, limit)).await??)
    }

    /// Transactions that are decided and that some member has yet to acknowledge: the first `limit` after
    /// `after`, in the order of their ids.
    ///
    /// # Errors
    ///
    /// The table has failed; so has the replica.
    pub(crate) fn unended(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> Result<Vec<(TransactionId, DecisionRecord)>, ReadTableError> {
        let from = match after {
            Some(after) => [table_view::unended_key(after).as_slice(), &[0]].concat(),
            None => UNENDED.0.to_vec(),
        };
        let mut found = Vec::new();
        self.read(|table| {
            for (key, _) in table.scan(&from, Some(UNENDED.1), limit)? {
                let transaction = table_view::transaction_of(&key)?;
                // It may have ended since the keys were read.
                let record = table_view::record(table, transaction)?.filter(|record| !record.is_ended());
                found.extend(record.map(|record| (transaction, record)));
            }
            Ok(found)
        })
    }

    /// Reads the table. If that fails, so has the replica, and whoever has to stop the process hears of it (R10): with
    /// nothing to apply this may be the first to meet the failure, and the last.
    fn read<T>(
        &self,
        read: impl FnOnce(&dyn Table) -> Result<T, ReadTableError>,
    ) -> Result<T, ReadTableError> {
        read(&*self.shared.storage.table).inspect_err(|error| self.shared.storage.failure.tell(error))
    }

    /// Takes a snapshot of everything applied, and returns when it is durable. The log may be purged after it.
    ///
    /// # Errors
    ///
    /// [`ProposeError::Failed`], and [`ProposeError::Unknown`] if it took longer than ten minutes.
    pub(crate) async fn take_snapshot(&self) -> Result<(), ProposeError> {
        let applied = self.metrics().last_applied;
        if self.metrics().snapshot >= applied {
            return Ok(());
        }
        self.shared
            .raft
            .trigger()
            .snapshot()
            .await
            .map_err(|fatal| self.stopped(&fatal))?;
        let wait = self.shared.raft.wait(Some(SNAPSHOT_PATIENCE));
        match wait
            .metrics(|metrics| metrics.snapshot >= applied, "snapshot taken")
            .await
        {
            Ok(_) => Ok(()),
            Err(WaitError::Timeout(..)) => Err(ProposeError::Unknown),
            Err(WaitError::ShuttingDown) => Err(self.stopped(&Fatal::Stopped)),
        }
    }

    /// The replica as it is now.
    pub(crate) fn status(&self) -> ReplicaStatus {
        status::of(
            &self.metrics(),
            self.shared.storage.machine.applied().known_nodes,
            self.shared.storage.log_syncs.load(Ordering::Relaxed),
        )
    }

    /// Becomes something once the replica has failed: the process has to stop serving and exit (R10).
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.storage.failure.watch()
    }

    /// Stops the replica: what it has accepted is made durable as far as possible, nothing is accepted any more.
    /// Proposals that wait get no definite answer.
    pub(crate) async fn shutdown(&self) {
        self.shared.stopping.cancel();
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::warn!(%error, "the replica did not stop in order");
        }
        // Spares the next start the entries since the last checkpoint.
        let table = Arc::clone(&self.shared.storage.table);
        let checkpoint = background::run(self.shared.background, move || table.checkpoint()).await;
        if let Ok(Err(error)) = checkpoint {
            tracing::warn!(%error, "no checkpoint at the end; the next start applies more of the log");
        }
        self.shared.storage.log.journal().close();
        let writer = self
            .shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            writer.ended().await;
        }
    }

    pub(super) fn metrics(&self) -> Metrics {
        self.shared.raft.metrics().borrow_watched().clone()
    }

    /// Why nothing was appended.
    fn refused(&self, forward: ForwardToLeader<TypeConfig>) -> ProposeError {
        match forward.reason {
            ForwardReason::LeaseExpired => ProposeError::Busy,
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => ProposeError::NotLeader {
                leader: self.leader_of(forward),
            },
        }
    }

    pub(super) fn leader_of(&self, forward: ForwardToLeader<TypeConfig>) -> Option<Leader> {
        let (node, address) = (forward.leader_id?, forward.leader_node?.addr);
        let term = self.metrics().current_term;
        Some(Leader {
            node: super::NodeId(node),
            address,
            term,
        })
    }

    fn stopped(&self, fatal: &Fatal<TypeConfig>) -> ProposeError {
        let reason = self.shared.storage.failure.reason();
        ProposeError::Failed(reason.unwrap_or_else(|| fatal.to_string()))
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("node", &self.shared.options.node)
            .finish_non_exhaustive()
    }
}

fn check_size(commands: &[Command], bytes: usize) -> Result<(), ProposeError> {
    if bytes > MAX_APPEND_BYTES {
        return Err(ProposeError::TooLarge {
            bytes,
            limit: MAX_APPEND_BYTES,
        });
    }
    if bytes <= MAX_COMMAND_BYTES {
        return Ok(());
    }
    let largest = commands
        .iter()
        .map(|command| encode_commands(std::slice::from_ref(command)).len())
        .max();
    match largest {
        Some(bytes) if bytes > MAX_COMMAND_BYTES => Err(ProposeError::TooLarge {
            bytes,
            limit: MAX_COMMAND_BYTES,
        }),
        Some(_) | None => Ok(()),
    }
}

/// The address in the membership is the one that counts, whatever the configuration says.
fn warn_of_other_address(raft: &Raft, options: &ReplicaOptions) {
    let membership = raft.metrics().borrow_watched().membership_config.clone();
    if let Some(known) = membership
        .get_node(&options.node.0)
        .filter(|known| known.addr != options.address)
    {
        tracing::warn!(
            known = known.addr,
            configured = options.address,
            "the cluster calls this node elsewhere"
        );
    }
}

/// Tells who leads, until openraft ends, by itself or because it was told to. Then the guard is dropped.
async fn follow(
    mut metrics: openraft::alias::WatchReceiverOf<TypeConfig, Metrics>,
    leadership: watch::Sender<Leadership>,
    failure: Failure,
    _stopping: DropGuard,
) {
    loop {
        let (now, running) = {
            let metrics = metrics.borrow_watched();
            (status::leadership(&metrics), metrics.running_state.clone())
        };
        leadership.send_if_modified(|told| {
            let changed = *told != now;
            *told = now;
            changed
        });
        match running {
            Ok(()) if metrics.changed().await.is_ok() => {}
            Ok(()) | Err(Fatal::Stopped) => break,
            Err(fatal) => break failure.tell(fatal),
        }
    }
    leadership.send_modify(|told| {
        *told = Leadership {
            term: told.term,
            ..Leadership::default()
        }
    });
}

/// Whether openraft counts this node as leading.
pub(super) fn leads(metrics: &Metrics) -> bool {
    metrics.state == ServerState::Leader
}
