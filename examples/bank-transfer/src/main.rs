//! The `bank-transfer` command: see the README beside this crate.

mod arguments;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bank_transfer::load::{LoadOptions, Work};
use bank_transfer::progress::Progress;
use bank_transfer::report::Report;
use bank_transfer::schedule::Schedule;
use bank_transfer::{Options, bank_process, generate, input};
use clap::Parser as _;
use tempfile::TempDir;
use tracing_subscriber::EnvFilter;
use unanimo_coordinator::until_terminated;

use crate::arguments::{Arguments, Command, RunArguments};

/// How long one transfer is tried until its outcome counts as unknown: many elections.
const PATIENCE: Duration = Duration::from_secs(60);
/// What `main` returns on bad input, as clap does on bad arguments.
const BAD_INPUT: u8 = 2;
/// What a shell reports of a process that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

type AnyError = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log_level = if arguments.command.is_some() {
        "info,openraft=warn"
    } else {
        "error"
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| log_level.into()))
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let result = match arguments.command {
        None => transfer(arguments.run).await,
        Some(command) => carry_out(command).await.map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("bank-transfer: {error}");
        ExitCode::from(if error.is::<input::InputError>() {
            BAD_INPUT
        } else {
            1
        })
    })
}

/// What the processes of the cluster do, and the generator.
async fn carry_out(command: Command) -> Result<(), AnyError> {
    match command {
        Command::Generate { transfers, seed } => {
            generate::write(&generate::generate(transfers, seed), io::stdout().lock())?;
        }
        Command::Coordinator { config } => {
            bank_transfer::end_with_parent()?;
            let config = unanimo_coordinator::Config::load(&config)?;
            unanimo_coordinator::run(config, std::future::pending()).await?;
        }
        Command::Bank(bank) => {
            bank_transfer::end_with_parent()?;
            bank_process::run(bank.into()).await?;
        }
    }
    Ok(())
}

/// The run itself.
async fn transfer(arguments: RunArguments) -> Result<ExitCode, AnyError> {
    // Listened for from here on: a run that is interrupted still has to end its processes.
    let interrupted = until_terminated()?;
    // Everything that the user may have got wrong comes before anything is started.
    let (work, input, seed) = read_work(&arguments)?;
    let transfers = match &work {
        Work::Listed(transfers) => Some(transfers.len()),
        Work::Generated { .. } => None,
    };
    let folder = Folder::new(arguments.data.as_deref())?;
    let options = Options {
        work,
        input,
        seed,
        load: LoadOptions {
            in_flight: arguments.in_flight,
            patience: PATIENCE,
        },
        schedule: schedule(&arguments),
        audit_every: arguments.audit_every,
        folder: folder.path().to_owned(),
        executable: std::env::current_exe()?,
    };
    let progress = Progress::new(transfers);
    // Dropped with everything in it, the run ends its processes.
    let report = tokio::select! {
        report = bank_transfer::run(options, &progress) => report,
        () = interrupted => {
            progress.clear();
            eprintln!("bank-transfer: interrupted; all processes are ended");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    match report {
        Ok(report) => {
            print(&report, arguments.json)?;
            folder.finish(report.holds());
            Ok(if report.holds() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Err(error) => {
            folder.finish(false);
            Err(error.into())
        }
    }
}

fn schedule(arguments: &RunArguments) -> Schedule {
    match (arguments.kill_leader_every, arguments.kill_bank_every) {
        _ if arguments.no_faults => Schedule::none(),
        (None, None) => Schedule::usual(),
        (leader_every, bank_every) => Schedule::repeated(leader_every, bank_every),
    }
}

/// What to transfer, where it comes from, and its seed if it is generated.
fn read_work(arguments: &RunArguments) -> Result<(Work, String, Option<u64>), input::InputError> {
    let seed = arguments.seed;
    match (&arguments.input, arguments.transfers, arguments.seconds) {
        (Some(file), _, _) => {
            let transfers = input::read_file(file)?;
            Ok((Work::Listed(transfers), file.display().to_string(), None))
        }
        (None, Some(count), _) => {
            eprintln!("{count} transfers are generated with --seed {seed}");
            let transfers = generate::generate(count, seed);
            Ok((Work::Listed(transfers), format!("{count} generated"), Some(seed)))
        }
        (None, None, Some(seconds)) => {
            eprintln!("transfers are generated with --seed {seed} for {seconds} s");
            let lasting = Duration::from_secs(seconds as u64);
            let work = Work::Generated { seed, lasting };
            Ok((work, format!("generated for {seconds} s"), Some(seed)))
        }
        (None, None, None) => {
            let transfers = input::read(generate::SAMPLE.as_bytes(), generate::SAMPLE_NAME)?;
            Ok((Work::Listed(transfers), generate::SAMPLE_NAME.to_owned(), None))
        }
    }
}

fn print(report: &Report, json: bool) -> Result<(), AnyError> {
    let mut output = io::stdout().lock();
    if json {
        writeln!(output, "{}", serde_json::to_string(report)?)?;
    } else {
        writeln!(output, "{report}")?;
    }
    Ok(())
}

/// Where the data of a run is kept.
enum Folder {
    /// Named by the user, who keeps it.
    Named(PathBuf),
    /// Removed unless something went wrong.
    Temporary(TempDir),
}

impl Folder {
    fn new(named: Option<&Path>) -> Result<Self, AnyError> {
        let Some(named) = named else {
            return Ok(Self::Temporary(
                tempfile::Builder::new().prefix("bank-transfer-").tempdir()?,
            ));
        };
        let folder = named.display();
        let unusable = |error: io::Error| format!("cannot use the data folder {folder} (--data): {error}");
        fs::create_dir_all(named).map_err(unusable)?;
        if fs::read_dir(named).map_err(unusable)?.next().is_some() {
            return Err(format!("the data folder {folder} (--data) is not empty; name a new one").into());
        }
        // The processes may run elsewhere.
        Ok(Self::Named(named.canonicalize().map_err(unusable)?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Named(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }

    fn finish(self, holds: bool) {
        let kept = match self {
            Self::Temporary(_) if holds => return,
            Self::Temporary(folder) => folder.keep(),
            Self::Named(path) => path,
        };
        eprintln!("the data of all processes is kept in {}", kept.display());
    }
}
