//! A bank as a process: its accounts, the participant library, and one server for both.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use unanimo_participant::{Participant, ParticipantOptions, StartError, StopReason};
use unanimo_proto::transport::{Keepalive, MAX_MESSAGE_BYTES};
use unanimo_table::{Checkpointer, SledOptions, SledTable, Table, TableError};

use crate::bank_files::{DECISIONS, PARTICIPANT};
use crate::wire::bank_server::BankServer;
use crate::{Bank, BankName, BankService, Heard};

/// What a bank needs to know.
#[derive(Clone, Debug)]
pub struct BankConfig {
    /// Which bank it is.
    pub name: BankName,
    /// The cluster it belongs to.
    pub cluster: unanimo_core::ClusterId,
    /// Where it serves, and where coordinators reach it, as `host:port`.
    pub listen: String,
    /// Every coordinator node as `host:port`.
    pub coordinators: Vec<String>,
    /// Its data folder.
    pub data: PathBuf,
}

/// Why a bank does not serve, or not any more.
#[derive(Debug, Error)]
pub enum BankProcessError {
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
    /// The accounts do not open.
    #[error("cannot open the accounts: {0}")]
    Accounts(#[from] TableError),
    /// The accounts were damaged. Nothing can rebuild them.
    #[error(
        "the accounts were damaged; what was left is now in {}. Restore the whole data folder from a backup",
        set_aside.display()
    )]
    Damaged {
        /// Where the damaged accounts are.
        set_aside: PathBuf,
    },
    /// The participant does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The participant stopped.
    #[error("the participant stopped: {0}")]
    Stopped(StopReason),
    /// The server could not go on.
    #[error("the server failed: {0}")]
    Server(#[from] tonic::transport::Error),
    /// The reflection service rejected its own descriptors.
    #[error("the reflection service cannot start: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Runs a bank until it cannot go on.
pub async fn run(config: BankConfig) -> Result<(), BankProcessError> {
    // Bound first: a second bank at the same address fails here, before it touches any file.
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|source| BankProcessError::Listen {
            address: config.listen.clone(),
            source,
        })?;
    run_on(listener, config).await
}

/// Runs a bank on this listener until it cannot go on.
pub async fn run_on(listener: TcpListener, config: BankConfig) -> Result<(), BankProcessError> {
    let bank = open(&config)?;
    let options = ParticipantOptions::new(
        config.cluster,
        config.name.participant(),
        config.listen,
        config.coordinators,
        config.data.join(PARTICIPANT),
    );
    let decisions = config.data.join(DECISIONS);
    let resource_manager = Heard::new(bank.clone(), &decisions).map_err(|source| BankProcessError::Data {
        path: decisions,
        source,
    })?;
    // Everything that was prepared has its holds again when this returns.
    let participant = Participant::start(options, resource_manager).await?;
    tracing::info!(bank = %config.name, "serving");
    let server = serve(bank, participant.clone(), listener);
    // The process ends with whichever completes first, so nothing is lost with the other.
    tokio::select! {
        served = server => served,
        reason = participant.stopped() => Err(BankProcessError::Stopped(reason)),
    }
}

fn open(config: &BankConfig) -> Result<Bank, BankProcessError> {
    let unusable = |source| BankProcessError::Data {
        path: config.data.clone(),
        source,
    };
    std::fs::create_dir_all(&config.data).map_err(unusable)?;
    let opened = SledTable::open(config.data.join("accounts"), SledOptions::new("bank accounts"))?;
    if let Some(set_aside) = opened.set_aside {
        return Err(BankProcessError::Damaged { set_aside });
    }
    let table: Arc<dyn Table> = Arc::new(opened.table);
    let (checkpointer, writer) = Checkpointer::new(Arc::clone(&table));
    // The thread ends with the last handle on the checkpointer.
    drop(writer.spawn().map_err(unusable)?);
    Ok(Bank::new(config.name, table, checkpointer))
}

async fn serve(bank: Bank, participant: Participant, listener: TcpListener) -> Result<(), BankProcessError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(unanimo_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(crate::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (branches, health) = (participant.service(), participant.health_service());
    let service = BankServer::new(BankService { bank, participant })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Keepalive::default()
        .server()
        .add_service(branches)
        .add_service(service)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}
