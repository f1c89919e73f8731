use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tower::Layer as _;
use unanimo_coordinator::until_terminated;
use unanimo_core::{ClusterId, ParticipantId};
use unanimo_participant::{JoinLayer, Participant, ParticipantOptions, StartError, StopReason};
use unanimo_proto::transport::Keepalive;
use unanimo_table::{Checkpointer, SledOptions, SledTable, Table, TableError};

use super::Cells;
use super::said::Said;
use super::service::StoreService;
use super::tap::Tap;
use crate::tap::tap_server::TapServer;
use crate::wire::store_server::StoreServer;

/// The table of the cells, in a store's data folder.
pub(crate) const CELLS: &str = "cells";

/// What a store needs to know.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Its name.
    pub name: ParticipantId,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Where it serves, as `host:port`.
    pub listen: String,
    /// Where coordinators reach it.
    pub address: String,
    /// Every coordinator node as `host:port`.
    pub coordinators: Vec<String>,
    /// Its data folder.
    pub data: PathBuf,
    /// The file, on another disk than its data, where it notes what it has said.
    pub said: PathBuf,
}

/// Why a store does not serve, or not any more.
#[derive(Debug, Error)]
pub enum StoreError {
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
    /// The cells do not open.
    #[error("cannot open the cells: {0}")]
    Table(#[from] TableError),
    /// The cells were damaged. Nothing can rebuild them.
    #[error("the cells were damaged; what was left is in {}. Restore the data folder from a backup", set_aside.display())]
    SetAside {
        /// Where it is.
        set_aside: PathBuf,
    },
    /// The participant does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The participant stopped.
    #[error("the participant stopped: {0}")]
    Stopped(StopReason),
    /// Nobody can be told to end it.
    #[error("cannot listen for signals: {source}")]
    Signals {
        /// Why.
        source: std::io::Error,
    },
    /// The server could not go on.
    #[error("the server failed: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// Runs a store until it is asked to end (SIGTERM, SIGINT) or cannot go on.
pub async fn run(config: StoreConfig) -> Result<(), StoreError> {
    let terminated = until_terminated().map_err(|source| StoreError::Signals { source })?;
    // Bound first: a second one at the same address fails here, before it touches any file.
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|source| StoreError::Listen {
            address: config.listen.clone(),
            source,
        })?;
    let cells = open(&config.data)?;
    let said = Said::open(&config.said).map_err(|source| StoreError::Data {
        path: config.said.clone(),
        source,
    })?;
    let options = ParticipantOptions::new(
        config.cluster,
        config.name.clone(),
        config.address,
        config.coordinators,
        config.data.join("participant"),
    );
    // Whatever was promised is held again when this returns.
    let participant = Participant::start(options, cells.clone()).await?;
    tracing::info!(participant = %config.name, "serving");
    let service = StoreService {
        cells,
        participant: participant.clone(),
    };
    // The process ends with whichever completes first, so nothing is lost with the other.
    tokio::select! {
        served = serve(service, Tap::noting(said), listener) => served,
        reason = participant.stopped() => Err(StoreError::Stopped(reason)),
        () = terminated => {
            participant.shutdown().await;
            Ok(())
        }
    }
}

fn open(data: &Path) -> Result<Cells, StoreError> {
    let unusable = |source| StoreError::Data {
        path: data.to_owned(),
        source,
    };
    std::fs::create_dir_all(data).map_err(unusable)?;
    let opened = SledTable::open(data.join(CELLS), SledOptions::new("cells"))?;
    if let Some(set_aside) = opened.set_aside {
        return Err(StoreError::SetAside { set_aside });
    }
    let table: Arc<dyn Table> = Arc::new(opened.table);
    let (checkpointer, writer) = Checkpointer::new(Arc::clone(&table));
    // The thread ends with the last handle on the checkpointer.
    drop(writer.spawn().map_err(unusable)?);
    Ok(Cells::new(table, checkpointer))
}

async fn serve(service: StoreService, tap: Tap, listener: TcpListener) -> Result<(), StoreError> {
    let participant = service.participant.clone();
    let join = JoinLayer::new(&participant);
    let router = Keepalive::default()
        .server()
        .add_service(tap.before(participant.service()))
        .add_service(TapServer::new(tap))
        .add_service(participant.health_service())
        .add_service(join.layer(StoreServer::new(service)));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(router.serve_with_incoming(incoming).await?)
}
