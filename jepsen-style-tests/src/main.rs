//! The `jepsen-style-tests` command: see the README beside this crate.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use jepsen_style_tests::checker::Verdict;
use jepsen_style_tests::cluster::{CLUSTER, Layout};
use jepsen_style_tests::nemesis::Fault;
use jepsen_style_tests::random::Seed;
use jepsen_style_tests::run::{Plan, run};
use jepsen_style_tests::store::StoreConfig;
use jepsen_style_tests::{nemesis, store, workload};
use tracing_subscriber::EnvFilter;

type AnyError = Box<dyn std::error::Error>;

/// Runs a cluster of real processes, lets clients work and faults happen, and judges the history.
#[derive(Debug, Parser)]
#[command(name = "jepsen-style-tests", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One run.
    Run(RunArguments),
    /// Workloads, faults, and what this machine allows.
    List,
    /// Run a coordinator node.
    #[command(hide = true)]
    Coordinator {
        #[arg(long)]
        config: PathBuf,
    },
    /// Run a participant.
    #[command(hide = true)]
    Participant {
        #[arg(long)]
        name: String,
        #[arg(long)]
        listen: String,
        #[arg(long, value_delimiter = ',')]
        coordinators: Vec<String>,
        #[arg(long)]
        data: PathBuf,
    },
}

#[derive(Debug, Args)]
struct RunArguments {
    /// What the clients do.
    #[arg(long, default_value = "bank")]
    workload: String,
    /// The faults, separated by commas. `none` for none; `all` for those that the seed draws from all, as many as fit into
    /// the time. What this machine cannot do is said, and the run is no pass for it.
    #[arg(long, default_value = "all", value_delimiter = ',')]
    nemesis: Vec<String>,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What everything is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Coordinator nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=5))]
    nodes: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Where everything goes.
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,openraft=warn".into()))
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    let result = match arguments.command {
        Command::Run(arguments) => run_once(arguments).await,
        Command::List => list(),
        Command::Coordinator { config } => coordinator(config).await,
        Command::Participant {
            name,
            listen,
            coordinators,
            data,
        } => participant(name, listen, coordinators, data).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("jepsen-style-tests: {error}");
        ExitCode::FAILURE
    })
}

async fn coordinator(config: PathBuf) -> Result<ExitCode, AnyError> {
    jepsen_style_tests::cluster::end_with_parent()?;
    let config = unanimo_coordinator::Config::load(&config)?;
    unanimo_coordinator::run(config, unanimo_coordinator::until_terminated()?).await?;
    Ok(ExitCode::SUCCESS)
}

async fn participant(
    name: String,
    listen: String,
    coordinators: Vec<String>,
    data: PathBuf,
) -> Result<ExitCode, AnyError> {
    jepsen_style_tests::cluster::end_with_parent()?;
    let config = StoreConfig {
        name: name.parse()?,
        cluster: CLUSTER.parse()?,
        listen,
        coordinators,
        data,
    };
    store::run(config).await?;
    Ok(ExitCode::SUCCESS)
}

fn list() -> Result<ExitCode, AnyError> {
    print!("{}", jepsen_style_tests::machine::list());
    Ok(ExitCode::SUCCESS)
}

/// The faults of these names, in the order of the list of all.
fn named(asked: &[String]) -> Result<Vec<Box<dyn Fault>>, AnyError> {
    let mut faults = nemesis::all();
    for name in asked.iter().filter(|name| *name != "none") {
        if !faults.iter().any(|fault| fault.name() == name) {
            return Err(format!("there is no fault {name:?}; `list` names them").into());
        }
    }
    faults.retain(|fault| asked.iter().any(|name| name == fault.name()));
    Ok(faults)
}

async fn run_once(arguments: RunArguments) -> Result<ExitCode, AnyError> {
    let (place, workload) = workload::all()
        .into_iter()
        .enumerate()
        .find(|(_, workload)| workload.name() == arguments.workload)
        .ok_or_else(|| format!("there is no workload {:?}", arguments.workload))?;
    let faults = match arguments.nemesis.iter().any(|asked| asked == "all") {
        true => nemesis::draw(
            nemesis::all(),
            Seed(arguments.seed),
            (place, workload::all().len()),
            arguments.seconds,
        ),
        false => named(&arguments.nemesis)?,
    };
    let folder = match arguments.folder {
        Some(folder) => folder,
        None => tempfile::Builder::new().prefix("jepsen-").tempdir()?.keep(),
    };
    let plan = Plan {
        seed: Seed(arguments.seed),
        lasting: Duration::from_secs(arguments.seconds),
        clients: 8,
        layout: Layout {
            coordinators: arguments.nodes,
            participants: 3,
            replaced: 0,
        },
        workload,
        faults,
        executable: std::env::current_exe()?,
        folder,
        command: std::env::args().collect::<Vec<_>>().join(" "),
    };
    let folder = plan.folder.clone();
    let result = run(plan).await?;
    std::fs::write(folder.join("result.json"), serde_json::to_vec_pretty(&result)?)?;
    println!("{}", serde_json::to_string(&result)?);
    Ok(match result.verdict {
        Verdict::Valid => ExitCode::SUCCESS,
        Verdict::Unknown | Verdict::Invalid => ExitCode::FAILURE,
    })
}
