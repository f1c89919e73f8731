//! The `unanimo` command: runs a coordinator node, and asks or tells running ones.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use unanimo_coordinator::{Config, Operator, export_metrics, run, until_terminated};

/// All of these services, or none of them: the coordinator of distributed transactions.
#[derive(Parser)]
#[command(name = "unanimo", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a coordinator node until SIGTERM or Ctrl-C.
    Serve {
        /// The node's configuration file; coordinator/config/node1.toml is a sample.
        #[arg(long)]
        config: PathBuf,
    },
    /// Show what a node knows of itself and its cluster.
    Status {
        /// The node, as host:port.
        #[arg(long, default_value = "127.0.0.1:7101")]
        node: String,
    },
    /// Hand leadership to another voter. Ask the leader.
    TransferLeader {
        /// The leader, as host:port.
        #[arg(long)]
        node: String,
        /// The id of the next leader.
        #[arg(long)]
        to: u64,
    },
    /// Add a voter that has been started with `join = true`. Ask the leader.
    AddNode {
        /// The leader, as host:port.
        #[arg(long)]
        node: String,
        /// The new node's id, never used before.
        #[arg(long)]
        id: u64,
        /// The new node's address, as host:port.
        #[arg(long)]
        address: String,
    },
    /// Remove a voter for good. Ask the leader.
    RemoveNode {
        /// The leader, as host:port.
        #[arg(long)]
        node: String,
        /// The id, which must never be used again.
        #[arg(long)]
        id: u64,
    },
    /// Write a snapshot of the decision table now.
    Snapshot {
        /// The node, as host:port.
        #[arg(long)]
        node: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "info,openraft=warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    #[cfg(feature = "mutants")]
    if let Err(error) = unanimo_coordinator::mutants::plant_what_is_asked_for() {
        eprintln!("unanimo: {error}");
        return ExitCode::FAILURE;
    }
    match carry_out(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unanimo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn carry_out(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Serve { config } => {
            let config = Config::load(&config)?;
            if let Some(address) = config.metrics_address {
                export_metrics(address)?;
            }
            run(config, until_terminated()?).await?;
        }
        Command::Status { node } => print!("{}", Operator::of(&node)?.status().await?),
        Command::TransferLeader { node, to } => Operator::of(&node)?.transfer_leader(to).await?,
        Command::AddNode { node, id, address } => Operator::of(&node)?.add_node(id, address).await?,
        Command::RemoveNode { node, id } => Operator::of(&node)?.remove_node(id).await?,
        Command::Snapshot { node } => Operator::of(&node)?.snapshot().await?,
    }
    Ok(())
}
