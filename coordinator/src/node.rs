//! One coordinator node: everything put together, started, and stopped in order.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::TcpIncoming;
use unanimo_journal::{Disk, Options as JournalOptions, RealDisk};
use unanimo_proto::internal::raft_server::RaftServer;
use unanimo_proto::transport::{Clock, Connector, Keepalive, MAX_MESSAGE_BYTES, SystemClock, TcpConnector};
use unanimo_proto::v1::admin_server::AdminServer;
use unanimo_proto::v1::coordinator_server::CoordinatorServer;
use unanimo_table::{SledOptions, SledTable, Table, TableError};

use crate::config::Config;
use crate::driver::Driver;
use crate::forming::{Forming, FormingError};
use crate::observer::observe;
use crate::raft::{Background, RaftService, Replica, ReplicaOptions, ReplicaParts, StartError};
use crate::service::{AdminService, Admission, CoordinatorService, Counted, Forwarder};

/// How long a node that stops waits for the transactions that are voting.
const DRAIN: Duration = Duration::from_secs(5);

/// Where ids get their random bits. Passed in, so that a simulation can repeat a run.
pub trait IdSource: Send + Sync + 'static {
    /// 128 random bits.
    fn random(&self) -> u128;
}

/// The randomness of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn random(&self) -> u128 {
        rand::random()
    }
}

/// What a node stands on. Real processes use [`Parts::real`]; simulations bring their own.
pub struct Parts {
    /// The data folder itself: holds the markers of membership.
    pub folder: Arc<dyn Disk>,
    /// Where Raft's log lives.
    pub log: Arc<dyn Disk>,
    /// How the journal of the log is set up.
    pub log_options: JournalOptions,
    /// Where snapshots live.
    pub snapshots: Arc<dyn Disk>,
    /// The decision table and the registry.
    pub table: Arc<dyn Table>,
    /// Called once the table has everything again that a damaged predecessor had.
    pub rebuilt: Box<dyn FnOnce() -> Result<(), TableError> + Send + Sync>,
    /// How others are reached.
    pub connector: Arc<dyn Connector>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids.
    pub ids: Arc<dyn IdSource>,
    /// Where blocking work is done.
    pub background: Background,
}

/// Why a node could not start or had to stop. Each says what to do.
#[derive(Debug, Error)]
pub enum RunError {
    /// The listening address cannot be had.
    #[error("cannot listen on {address} (configuration key listen): {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error("cannot use the data folder {folder} (configuration key data): {source}")]
    Folder {
        /// The folder.
        folder: String,
        /// Why.
        source: std::io::Error,
    },
    /// The decision table cannot be opened.
    #[error("cannot open the decision table: {0}")]
    Table(#[from] TableError),
    /// Raft's log or snapshots cannot be used.
    #[error(transparent)]
    Raft(#[from] StartError),
    /// The node cannot be part of its cluster.
    #[error(transparent)]
    Forming(#[from] FormingError),
    /// A write or a forced write failed. Nothing is retried: the process stops, and comes back from what is on
    /// disk (R10).
    #[error(
        "the storage of this node failed, so it stops: {0}. See to the disk and the room on it, then start the node \
         again: it goes on from what is on disk"
    )]
    StorageFailed(String),
    /// The server ended by itself.
    #[error("the server stopped: {0}")]
    Server(#[from] tonic::transport::Error),
    /// The reflection service rejected its own descriptors.
    #[error("the reflection service cannot start: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl Parts {
    /// Opens the folders and the table of a real process.
    pub fn real(config: &Config) -> Result<Self, RunError> {
        let open = |folder: &Path| -> Result<Arc<dyn Disk>, RunError> {
            let disk = RealDisk::open(folder).map_err(|source| RunError::Folder {
                folder: folder.display().to_string(),
                source,
            })?;
            Ok(Arc::new(disk))
        };
        let folder = open(&config.data)?;
        // The table's lock also keeps a second process out of the whole folder, so it comes first.
        let opened = SledTable::open(config.data.join("table"), SledOptions::new("decision"))?;
        let table = Arc::new(opened.table);
        let mut rebuilt: Box<dyn FnOnce() -> Result<(), TableError> + Send + Sync> = Box::new(|| Ok(()));
        if let Some(set_aside) = &opened.set_aside {
            tracing::warn!(set_aside = %set_aside.display(), "the decision table was damaged; it is rebuilt from the log");
            let table = table.clone();
            rebuilt = Box::new(move || table.rebuilt());
        }
        Ok(Self {
            folder,
            log: open(&config.data.join("log"))?,
            log_options: log_options(config),
            snapshots: open(&config.data.join("snapshots"))?,
            table,
            rebuilt,
            connector: TcpConnector::shared(),
            clock: SystemClock::shared(),
            ids: Arc::new(RandomIds),
            background: Background::Threads,
        })
    }
}

/// Runs one node until `shutdown` completes or the node cannot go on.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let listen = |source| RunError::Listen {
        address: config.listen.clone(),
        source,
    };
    // Bound first: a second node on the same machine fails here, before it touches any file.
    let listener = TcpListener::bind(&config.listen).await.map_err(listen)?;
    let parts = Parts::real(&config)?;
    run_with(
        config,
        parts,
        TcpIncoming::from(listener).with_nodelay(Some(true)),
        shutdown,
    )
    .await
}

/// Runs one node on the given parts, serving the connections of `incoming`.
pub async fn run_with<I, S, E>(
    config: Config,
    mut parts: Parts,
    incoming: I,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError>
where
    I: futures::Stream<Item = Result<S, E>> + Send + 'static,
    S: tokio::io::AsyncRead
        + tokio::io::AsyncWrite
        + tonic::transport::server::Connected
        + Unpin
        + Send
        + 'static,
    S::ConnectInfo: Clone + Send + Sync + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let (replica, raft) = Replica::start(replica_options(&config), replica_parts(&parts)).await?;
    // The replica notes in the table how far it has applied, and the log or the snapshot has the rest.
    std::mem::replace(&mut parts.rebuilt, Box::new(|| Ok(())))()?;
    crate::metrics::describe();
    let driver = Driver::start(
        config.cluster.clone(),
        (config.limits, config.retention),
        replica.clone(),
        parts.connector.clone(),
        parts.clock.clone(),
        // A leader that no majority has confirmed for two elections' time takes no more transactions.
        Duration::from_millis(config.raft.election_max_ms * 2),
    );
    let observing = AbortOnDropHandle::new(tokio::spawn(observe(
        replica.clone(),
        driver.clone(),
        parts.clock.clone(),
    )));
    // Whoever was part of the cluster before goes on; a new node first finds out whether it really is new.
    let admitted = Arc::new(AtomicBool::new(replica.is_formed()));
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(
        services(&config, &parts, &replica, &driver, admitted.clone(), raft).await?,
        incoming,
        stop.clone(),
    ));
    tracing::info!(cluster = %config.cluster, node = %config.node, listen = config.listen, "serving");
    let forming = Forming {
        cluster: config.cluster.clone(),
        node: config.node,
        peers: config.peers.clone(),
        join: config.join,
        replica: replica.clone(),
        folder: parts.folder.clone(),
        connector: parts.connector.clone(),
        admitted,
    };
    let result = until_stopped(&replica, forming, shutdown).await;
    if result.is_ok() {
        hand_over(&replica, &driver).await;
    }
    stop.cancel();
    drop(observing);
    driver.stop(DRAIN).await;
    replica.shutdown().await;
    // Connections that stay open do not keep the process alive.
    match tokio::time::timeout(DRAIN, server).await {
        Ok(Ok(served)) => result.and(served.map_err(RunError::from)),
        Ok(Err(_)) | Err(_) => result,
    }
}

fn replica_options(config: &Config) -> ReplicaOptions {
    let mut options = ReplicaOptions::new(config.cluster.clone(), config.node, config.address().to_owned());
    // A node that lost its disk must not vote or acknowledge as if it were new: `Forming` admits it.
    options.answer_when_new = false;
    options.heartbeat_ms = config.raft.heartbeat_ms;
    options.election_min_ms = config.raft.election_min_ms;
    options.election_max_ms = config.raft.election_max_ms;
    options.snapshot_every_entries = config.raft.snapshot_every_entries;
    options.keep_entries = config.raft.keep_entries;
    options
}

fn log_options(config: &Config) -> JournalOptions {
    let mut options = JournalOptions::new("raft log");
    options.segment_bytes = config.raft.log_segment_mib * 1024 * 1024;
    // Half of the smallest segment that is allowed, and as much as one message carries.
    options.max_record_bytes = 4 * 1024 * 1024;
    options
}

fn replica_parts(parts: &Parts) -> ReplicaParts {
    ReplicaParts {
        log_disk: parts.log.clone(),
        snapshot_disk: parts.snapshots.clone(),
        table: parts.table.clone(),
        connector: parts.connector.clone(),
        journal_options: parts.log_options.clone(),
        background: parts.background,
    }
}

/// Waits for a reason to stop.
async fn until_stopped(
    replica: &Replica,
    forming: Forming,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let mut failed = replica.failed();
    let failed = async {
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the replica is gone".to_owned(),
        }
    };
    let forming = async {
        match forming.until_formed().await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    // Each arm ends the process, so nothing is lost with those that do not complete.
    tokio::select! {
        () = shutdown => Ok(()),
        reason = failed => Err(RunError::StorageFailed(reason)),
        error = forming => Err(error.into()),
    }
}

/// Lets another node lead before this one stops, so that nobody has to wait for an election. Transactions that are
/// voting get their answer first: the next leader would have to tell their initiators that it does not know.
async fn hand_over(replica: &Replica, driver: &Driver) {
    driver.drain(DRAIN).await;
    let status = replica.status();
    // Who is furthest takes over fastest.
    let successor = status
        .nodes
        .iter()
        .filter(|other| other.voter && other.node != status.node)
        .max_by_key(|other| other.matched);
    let Some(successor) = successor.filter(|_| driver.is_ready()) else {
        return;
    };
    let mut ready = driver.readiness();
    match replica.transfer_leader(successor.node).await {
        Ok(()) => {
            let _ = tokio::time::timeout(DRAIN, ready.wait_for(Option::is_none)).await;
            tracing::info!(to = %successor.node, "leadership is handed over");
        }
        Err(error) => tracing::info!(%error, "leadership could not be handed over"),
    }
}

async fn services(
    config: &Config,
    parts: &Parts,
    replica: &Replica,
    driver: &Driver,
    admitted: Arc<AtomicBool>,
    raft: RaftService,
) -> Result<tonic::service::Routes, RunError> {
    let forwarder = Forwarder::new(config.node, replica.clone(), parts.connector.clone());
    let coordinator = CoordinatorService {
        cluster: config.cluster.clone(),
        limits: config.limits,
        driver: driver.clone(),
        forwarder,
        ids: parts.ids.clone(),
        admission: Admission::new(config.limits.begins_per_second),
    };
    let admin = AdminService {
        cluster: config.cluster.clone(),
        node: config.node,
        replica: replica.clone(),
        driver: driver.clone(),
        admitted,
        clock: parts.clock.clone(),
    };
    let raft = RaftServer::new(raft)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_serving::<CoordinatorServer<Counted<CoordinatorService>>>()
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(unanimo_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(
            CoordinatorServer::new(Counted(coordinator))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(AdminServer::new(admin))
        .add_service(raft)
        .add_service(health_service)
        .add_service(reflection);
    Ok(routes.routes())
}

async fn serve<I, S, E>(
    routes: tonic::service::Routes,
    incoming: I,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    I: futures::Stream<Item = Result<S, E>>,
    S: tokio::io::AsyncRead
        + tokio::io::AsyncWrite
        + tonic::transport::server::Connected
        + Unpin
        + Send
        + 'static,
    S::ConnectInfo: Clone + Send + Sync + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Keepalive::default()
        .server()
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}
