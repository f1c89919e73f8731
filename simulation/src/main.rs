//! The `unanimo-simulate` command: see `docs/simulation.md`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use unanimo_simulation::{MutantsArguments, SimulateArguments};

/// Runs the protocol in simulated time.
#[derive(Debug, Parser)]
#[command(name = "unanimo-simulate", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    simulate: SimulateArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The same, as `jepsen-style-tests` calls it.
    Simulate(SimulateArguments),
    /// Plants bugs, one at a time. Needs a build with `--features mutants`.
    Mutants(MutantsArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Simulate(simulate)) => simulate.run(),
        Some(Command::Mutants(mutants)) => mutants.run(&["simulate"]),
        None => arguments.simulate.run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
