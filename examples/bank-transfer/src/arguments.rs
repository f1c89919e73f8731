//! The command line.

use std::path::PathBuf;

use bank_transfer::bank_process::BankConfig;
use bank_transfer::cluster::CLUSTER;
use bank_transfer::input::MAX_ROWS;
use bank_transfer::{AccountError, BankName};
use clap::{Args, Parser, Subcommand};
use unanimo_core::{ClusterId, IdError};

/// Transfers between two banks that happen on both sides or on neither, while processes are killed.
///
/// Starts three coordinators and two banks, runs transfers, kills the leader and a bank on the way, and audits what is
/// left. Ends with exit code 0 only if the audit holds: 1 if it does not or there was none, 2 on bad input, 130 if
/// interrupted.
#[derive(Debug, Parser)]
#[command(name = "bank-transfer", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArguments,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Transfers to run: a CSV file with the columns from,to,amount,key. Without it, a sample of 12,000 is run.
    #[arg(long, value_name = "FILE", conflicts_with = "transfers")]
    pub(crate) input: Option<PathBuf>,
    /// Generate this many transfers instead of reading them.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = at_least_one(MAX_ROWS))]
    pub(crate) transfers: Option<usize>,
    /// What the generated transfers are made from: the same ones for the same seed.
    #[arg(long, default_value_t = 1, conflicts_with = "input", value_name = "SEED")]
    pub(crate) seed: u64,
    /// Transfers that are under way at once.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = at_least_one(2000))]
    pub(crate) in_flight: usize,
    /// Kill nobody.
    #[arg(long)]
    pub(crate) no_faults: bool,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep everybody's data and logs in this folder, which must be new or empty. Without it they are in a temporary
    /// folder, which is removed unless something goes wrong.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write transfers as a CSV file to standard output. The sample is `generate --transfers 12000 --seed 1`.
    #[command(hide = true)]
    Generate {
        #[arg(long, value_parser = at_least_one(MAX_ROWS))]
        transfers: usize,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run a coordinator node of the cluster until standard input ends.
    #[command(hide = true)]
    Coordinator {
        #[arg(long)]
        config: PathBuf,
    },
    /// Run a bank of the cluster until standard input ends.
    #[command(hide = true)]
    Bank(BankArguments),
}

#[derive(Debug, Args)]
pub(crate) struct BankArguments {
    #[arg(long, value_parser = bank_name)]
    name: BankName,
    #[arg(long)]
    listen: String,
    #[arg(long, value_delimiter = ',')]
    coordinators: Vec<String>,
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value = CLUSTER, value_parser = cluster_id)]
    cluster: ClusterId,
}

impl From<BankArguments> for BankConfig {
    fn from(arguments: BankArguments) -> Self {
        let BankArguments {
            name,
            listen,
            coordinators,
            data,
            cluster,
        } = arguments;
        Self {
            name,
            cluster,
            listen,
            coordinators,
            data,
        }
    }
}

fn bank_name(name: &str) -> Result<BankName, AccountError> {
    name.parse()
}

fn cluster_id(name: &str) -> Result<ClusterId, IdError> {
    name.parse()
}

/// Reads a number from 1 to this.
fn at_least_one(most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(format!("use a number from 1 to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn refused(arguments: &[&str]) -> String {
        let all = ["bank-transfer"].iter().chain(arguments);
        Arguments::try_parse_from(all).unwrap_err().to_string()
    }

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
        let usual = Arguments::try_parse_from(["bank-transfer"]).unwrap();
        assert!(usual.command.is_none() && usual.run.input.is_none() && !usual.run.no_faults);
        assert_eq!(usual.run.in_flight, 64);
    }

    #[test]
    fn bad_arguments_are_refused_with_what_is_allowed() {
        let cases: [(&[&str], &str); 7] = [
            (&["--transfers", "0"], "use a number from 1 to 1000000"),
            (&["--transfers", "-5"], "use a number from 1 to 1000000"),
            (&["--transfers", "many"], "'many' for '--transfers <N>'"),
            (&["--in-flight", "0"], "use a number from 1 to 2000"),
            (&["--input", "a.csv", "--transfers", "3"], "cannot be used with"),
            (&["--input"], "--input <FILE>"),
            (&["--unknown"], "--unknown"),
        ];
        for (arguments, says) in cases {
            let error = refused(arguments);
            assert!(error.contains(says), "{arguments:?}: {error}");
        }
    }
}
