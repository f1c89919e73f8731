//! The `booking` command: see the README beside this crate.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use booking::Trade;
use booking::cluster::{CLUSTER, Cluster, end_with_parent};
use booking::crash::CrashPlan;
use booking::process::ServiceConfig;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use unanimo_coordinator::until_terminated;

/// What a shell reports of a process that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Books journeys of a seat, a room and a payment at three services, all of it or nothing, and audits the result.
///
/// Starts three coordinators and three services, and leaves nothing running. Ends with exit code 0 only if the audit
/// holds and at least one journey was booked.
#[derive(Debug, Parser)]
#[command(name = "booking", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Role>,
    /// Journeys to book.
    #[arg(long, default_value_t = 300, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    journeys: u32,
    /// Journeys that are under way at once.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    at_once: u32,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Run a coordinator node.
    #[command(hide = true)]
    Coordinator {
        #[arg(long)]
        config: PathBuf,
    },
    /// Run one of the services.
    #[command(hide = true)]
    Service {
        #[arg(long)]
        name: Trade,
        #[arg(long)]
        listen: String,
        #[arg(long, value_delimiter = ',')]
        coordinators: Vec<String>,
        #[arg(long)]
        data: PathBuf,
    },
}

type AnyError = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match arguments.command {
        Some(_) => "info,openraft=warn",
        None => "error",
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into()))
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let result = match arguments.command {
        Some(role) => serve(role).await.map(|()| ExitCode::SUCCESS),
        None => travel(arguments.journeys as usize, arguments.at_once as usize).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("booking: {error}");
        ExitCode::FAILURE
    })
}

/// What the processes of the cluster do.
async fn serve(role: Role) -> Result<(), AnyError> {
    end_with_parent()?;
    match role {
        Role::Coordinator { config } => {
            let config = unanimo_coordinator::Config::load(&config)?;
            unanimo_coordinator::run(config, std::future::pending()).await?;
        }
        Role::Service {
            name,
            listen,
            coordinators,
            data,
        } => {
            let config = ServiceConfig {
                trade: name,
                cluster: CLUSTER.parse()?,
                listen,
                coordinators,
                data,
                crashes: CrashPlan::from_environment()?,
            };
            booking::process::run(config).await?;
        }
    }
    Ok(())
}

async fn travel(journeys: usize, at_once: usize) -> Result<ExitCode, AnyError> {
    // Listened for from here on: a run that is interrupted still has to end its processes.
    let interrupted = until_terminated()?;
    let folder = tempfile::Builder::new().prefix("booking-").tempdir()?;
    let mut cluster = Cluster::start(&std::env::current_exe()?, folder.path())?;
    let report = tokio::select! {
        report = booking::run::run(&mut cluster, journeys, at_once) => report,
        () = interrupted => {
            eprintln!("booking: interrupted; all processes are ended");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    drop(cluster);
    let right = report.as_ref().is_ok_and(booking::run::Report::holds);
    if !right {
        eprintln!("the data of all processes is kept in {}", folder.keep().display());
    }
    println!("{}", report?);
    Ok(if right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
