//! One service as a process: its shelf, its participant, and one server for both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tower::Layer as _;
use unanimo_core::{ClusterId, IdError};
use unanimo_participant::{JoinLayer, Participant, ParticipantOptions, StartError, StopReason};
use unanimo_proto::transport::Keepalive;
use unanimo_table::{Checkpointer, SledOptions, SledTable, Table, TableError};

use crate::Trade;
use crate::crash::{CrashLayer, CrashPlan};
use crate::service::TradeService;
use crate::shelf::{Shelf, ShelfError};
use crate::wire::hotel_server::HotelServer;
use crate::wire::ledger_server::LedgerServer;
use crate::wire::payment_server::PaymentServer;
use crate::wire::seats_server::SeatsServer;

/// What a service needs to know.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Which one it is.
    pub trade: Trade,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Where it serves, and where coordinators reach it, as `host:port`.
    pub listen: String,
    /// Every coordinator node as `host:port`.
    pub coordinators: Vec<String>,
    /// Its data folder.
    pub data: PathBuf,
    /// When to die.
    pub crashes: CrashPlan,
}

/// Why a service does not serve, or not any more.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The data folder cannot be made, or a thread cannot be started.
    #[error("cannot use the data folder {}: {source}", path.display())]
    Data {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The ledger does not open.
    #[error("cannot open the ledger: {0}")]
    Table(#[from] TableError),
    /// The ledger was damaged. Nothing can rebuild it.
    #[error("the ledger was damaged; what was left is in {}. Restore the data folder from a backup", set_aside.display())]
    SetAside {
        /// Where it is.
        set_aside: PathBuf,
    },
    /// The ledger cannot be read.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] IdError),
    /// The participant does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The participant stopped.
    #[error("the participant stopped: {0}")]
    Stopped(StopReason),
    /// The server could not go on.
    #[error("the server failed: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// Runs a service until it cannot go on.
pub async fn run(config: ServiceConfig) -> Result<(), ServiceError> {
    // Bound first: a second one at the same address fails here, before it touches any file.
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|source| ServiceError::Listen {
            address: config.listen.clone(),
            source,
        })?;
    let shelf = open(config.trade, &config.data)?;
    let options = ParticipantOptions::new(
        config.cluster,
        config.trade.as_str().parse()?,
        config.listen,
        config.coordinators,
        config.data.join("participant"),
    );
    // Whatever was promised is held again when this returns.
    let participant = Participant::start(options, shelf.clone()).await?;
    tracing::info!(service = %config.trade, "serving");
    let service = TradeService {
        shelf,
        participant: participant.clone(),
        crashes: config.crashes,
    };
    // The process ends with whichever completes first, so nothing is lost with the other.
    tokio::select! {
        served = serve(service, listener) => served,
        reason = participant.stopped() => Err(ServiceError::Stopped(reason)),
    }
}

fn open(trade: Trade, data: &Path) -> Result<Shelf, ServiceError> {
    let unusable = |source| ServiceError::Data {
        path: data.to_owned(),
        source,
    };
    std::fs::create_dir_all(data).map_err(unusable)?;
    let opened = SledTable::open(data.join("ledger"), SledOptions::new("ledger"))?;
    if let Some(set_aside) = opened.set_aside {
        return Err(ServiceError::SetAside { set_aside });
    }
    let table: Arc<dyn Table> = Arc::new(opened.table);
    let (checkpointer, writer) = Checkpointer::new(Arc::clone(&table));
    // The thread ends with the last handle on the checkpointer.
    drop(writer.spawn().map_err(unusable)?);
    Ok(Shelf::open(trade, table, checkpointer)?)
}

async fn serve(service: TradeService, listener: TcpListener) -> Result<(), ServiceError> {
    let participant = service.participant.clone();
    let join = JoinLayer::new(&participant);
    let router = Keepalive::default()
        .server()
        .layer(CrashLayer(service.crashes.clone()))
        .add_service(participant.service())
        .add_service(participant.health_service())
        .add_service(LedgerServer::new(service.clone()));
    let router = match service.shelf.trade() {
        Trade::Seats => router.add_service(join.layer(SeatsServer::new(service))),
        Trade::Hotel => router.add_service(join.layer(HotelServer::new(service))),
        Trade::Payment => router.add_service(join.layer(PaymentServer::new(service))),
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(router.serve_with_incoming(incoming).await?)
}
