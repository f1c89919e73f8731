//! The `unanimo-full-stack` command: see the documentation of the crate's parts, and `docs/full-stack-simulation.md`.

mod bank;
mod batch;
mod clock;
mod decided;
mod disk;
mod draw;
mod failure;
mod history;
mod hosts;
#[cfg(feature = "mutants")]
mod hunt;
mod initiator;
mod journals;
mod judge;
mod ledger;
mod links;
mod machine;
mod network;
mod notes;
mod observer;
mod outcome;
mod plan;
mod process_clock;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Runs the real coordinator and participant in a simulated network, on simulated disks, from seeds.
#[derive(Debug, Parser)]
#[command(name = "unanimo-full-stack", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One seed. Prints what came of it as one line of JSON.
    Seed {
        /// Which.
        seed: u64,
        /// Print the trace before it.
        #[arg(long)]
        trace: bool,
        /// Write the history and the evidence into this folder, for the checkers of the jepsen-style tests.
        #[arg(long)]
        folder: Option<PathBuf>,
    },
    /// Many seeds, each in a process of its own.
    Seeds(Seeds),
    /// Plants bugs, one at a time, and counts the seeds that find each.
    #[cfg(feature = "mutants")]
    Mutants(hunt::Hunt),
}

#[derive(Debug, Args)]
pub(crate) struct Seeds {
    /// How many.
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Run each seed twice, and compare the traces.
    #[arg(long)]
    twice: bool,
    /// Stop at the first seed with a violation.
    #[arg(long)]
    until_violation: bool,
    /// Write the history and the evidence of each seed into a folder in this one.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !cfg!(tokio_unstable) {
        eprintln!(
            "unanimo-full-stack: this build cannot repeat a run, because tokio takes no seed in it. Build it with\n\
             RUSTFLAGS='--cfg tokio_unstable' cargo run --release -p unanimo-full-stack --target-dir target/full-stack -- ..."
        );
        return ExitCode::FAILURE;
    }
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    #[cfg(feature = "mutants")]
    if let Err(error) = unanimo_coordinator::mutants::plant_what_is_asked_for() {
        eprintln!("unanimo-full-stack: {error}");
        return ExitCode::FAILURE;
    }
    let result = match arguments.command {
        Command::Seed { seed, trace, folder } => one(seed, trace, folder.as_deref()),
        Command::Seeds(seeds) => batch::run(&seeds),
        #[cfg(feature = "mutants")]
        Command::Mutants(asked) => hunt::hunt(&asked),
    };
    result.unwrap_or_else(|error| {
        eprintln!("unanimo-full-stack: {error}");
        ExitCode::FAILURE
    })
}

fn one(seed: u64, trace: bool, folder: Option<&Path>) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let outcome = run::run(seed, trace, folder)?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(match outcome.violations.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
