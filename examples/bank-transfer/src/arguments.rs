//! The command line.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bank_transfer::bank_process::BankConfig;
use bank_transfer::cluster::CLUSTER;
use bank_transfer::input::MAX_ROWS;
use bank_transfer::{AccountError, BankName};
use clap::{Args, Parser, Subcommand};
use unanimo_core::{ClusterId, IdError};

/// An hour. Every transfer is remembered for the audit, in a few hundred bytes.
const MAX_SECONDS: usize = 3600;
/// A process that was killed takes a second to come back.
const KILL_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// An audit takes tens of milliseconds, in which nothing else begins.
const AUDIT_EVERY: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(3600);

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
    /// Generate transfers for so many seconds, as many as there is time for.
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        conflicts_with_all = ["input", "transfers"],
        value_parser = at_least_one(MAX_SECONDS)
    )]
    pub(crate) seconds: Option<usize>,
    /// Transfers that are under way at once.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = at_least_one(2000))]
    pub(crate) in_flight: usize,
    /// Kill nobody. Without this and the next two options, the leader is killed after a quarter and a bank after six
    /// tenths.
    #[arg(long, conflicts_with_all = ["kill_leader_every", "kill_bank_every"])]
    pub(crate) no_faults: bool,
    /// Kill the leader each time that so much has passed, such as 5s, once all three coordinators have caught up.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = duration(KILL_EVERY))]
    pub(crate) kill_leader_every: Option<Duration>,
    /// Kill one bank and then the other, each time that so much has passed, once both are there.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = duration(KILL_EVERY))]
    pub(crate) kill_bank_every: Option<Duration>,
    /// Ask for the sum of all accounts again and again while transfers run, such as every 200ms, each time as a
    /// transaction.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = duration(AUDIT_EVERY))]
    pub(crate) audit_every: Option<Duration>,
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

/// Reads a duration with its unit, within these bounds.
fn duration(
    bounds: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    let (least, most) = bounds.into_inner();
    move |text| {
        let read = |number: &str, unit| {
            Some(Duration::from_millis(
                number.parse::<u64>().ok()?.checked_mul(unit)?,
            ))
        };
        let duration = match text.find(|character: char| !character.is_ascii_digit()) {
            Some(end) => match &text[end..] {
                "ms" => read(&text[..end], 1),
                "s" => read(&text[..end], 1000),
                "m" => read(&text[..end], 60_000),
                _ => None,
            },
            None => None,
        };
        duration
            .filter(|duration| (least..=most).contains(duration))
            .ok_or_else(|| {
                format!("use a time from {least:?} to {most:?} with its unit, such as 200ms, 5s or 1m")
            })
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
        let cases: [(&[&str], &str); 21] = [
            (&["--seconds", "0"], "use a number from 1 to 3600"),
            (&["--seconds", "-1"], "use a number from 1 to 3600"),
            (&["--seconds", "5s"], "use a number from 1 to 3600"),
            (&["--seconds", "5", "--transfers", "3"], "cannot be used with"),
            (&["--seconds", "5", "--input", "a.csv"], "cannot be used with"),
            (
                &["--kill-leader-every", "5"],
                "use a time from 1s to 3600s with its unit",
            ),
            (
                &["--kill-leader-every", "0s"],
                "invalid value '0s' for '--kill-leader-every <TIME>'",
            ),
            (
                &["--kill-leader-every", "-5s"],
                "invalid value '-5s' for '--kill-leader-every <TIME>'",
            ),
            (&["--kill-bank-every", "soon"], "such as 200ms, 5s or 1m"),
            (
                &["--kill-bank-every", "5 s"],
                "invalid value '5 s' for '--kill-bank-every <TIME>'",
            ),
            (
                &["--kill-bank-every", "99999999999999999999m"],
                "use a time from 1s to 3600s",
            ),
            (&["--audit-every", "1ms"], "use a time from 20ms to 3600s"),
            (
                &["--audit-every", "2h"],
                "invalid value '2h' for '--audit-every <TIME>'",
            ),
            (
                &["--no-faults", "--kill-leader-every", "5s"],
                "cannot be used with",
            ),
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

    #[test]
    fn times_are_read_with_their_unit() {
        let read = |text: &str| {
            let arguments = ["bank-transfer", "--seconds", "60", "--kill-leader-every", text];
            Arguments::try_parse_from(arguments)
                .unwrap()
                .run
                .kill_leader_every
                .unwrap()
        };
        let times = ["1s", "1500ms", "2m", "3600s"].map(read);
        assert_eq!(times, [1000, 1500, 120_000, 3_600_000].map(Duration::from_millis));
    }
}
