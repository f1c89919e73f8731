//! The `jepsen-style-tests` command: see the README beside this crate.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use jepsen_style_tests::checker::Verdict;
use jepsen_style_tests::cluster::{CLUSTER, Layout};
use jepsen_style_tests::nemesis::Fault;
use jepsen_style_tests::random::Seed;
use jepsen_style_tests::report::{Stored, Summary};
use jepsen_style_tests::run::{Plan, run};
use jepsen_style_tests::store::StoreConfig;
use jepsen_style_tests::{full_stack, nemesis, store, workload};
use tracing_subscriber::EnvFilter;
use unanimo_simulation::SimulateArguments;

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
    /// Judge a run again by what it left in its folder, and write its report anew.
    Check {
        /// The folder.
        folder: PathBuf,
        /// Print the result as one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run after run with all workloads and new seeds, until the time is over or one is no pass.
    Soak(SoakArguments),
    /// Workloads, faults, and what this machine allows.
    List,
    /// Plants bugs, one at a time, and shows what finds them. Needs a build with `--features mutants`.
    Mutants(MutantsArguments),
    /// Run the protocol in simulated time instead, with everything that may go wrong: see docs/simulation.md.
    Simulate(Simulation),
    /// Run a coordinator node.
    #[command(hide = true)]
    Coordinator {
        #[arg(long)]
        config: PathBuf,
    },
    /// Run a participant.
    #[command(hide = true)]
    Participant(StoreArguments),
}

#[derive(Debug, Args)]
struct StoreArguments {
    #[arg(long)]
    name: String,
    #[arg(long)]
    listen: String,
    /// Where others reach it.
    #[arg(long)]
    address: String,
    #[arg(long, value_delimiter = ',')]
    coordinators: Vec<String>,
    #[arg(long)]
    data: PathBuf,
    /// Where it notes what it has said; not in its data folder.
    #[arg(long)]
    said: PathBuf,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// What the clients do.
    #[arg(long, default_value = "bank")]
    workload: String,
    #[command(flatten)]
    choice: Choice,
    /// What everything is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct SoakArguments {
    /// For how long; the run that is under way then is finished.
    #[arg(long)]
    minutes: u64,
    /// What the clients do, separated by commas; `all` for every workload in turn.
    #[arg(long, default_value = "all", value_delimiter = ',')]
    workload: Vec<String>,
    #[command(flatten)]
    choice: Choice,
    /// The seed of the first round of workloads; each next round has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct Simulation {
    /// The real coordinator and participant code, with gRPC and Raft, in a simulated network and on simulated disks: see
    /// docs/full-stack-simulation.md.
    #[arg(long, conflicts_with_all = ["script", "shrink", "save", "hashes", "stop"])]
    full_stack: bool,
    #[command(flatten)]
    protocol: SimulateArguments,
}

/// What every run has to know.
#[derive(Debug, Args)]
struct Choice {
    /// The faults, separated by commas. `none` for none; `all` for those that the seed draws from all, as many as fit into
    /// the time. What this machine cannot do is said, and the run is no pass for it.
    #[arg(long, default_value = "all", value_delimiter = ',')]
    nemesis: Vec<String>,
    /// For how long a run lasts.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
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

#[derive(Debug, Args)]
#[cfg_attr(not(feature = "mutants"), allow(dead_code))]
struct MutantsArguments {
    /// Only these, such as M1,M4.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Print the table as one line of JSON, too.
    #[arg(long)]
    json: bool,
    /// What hunts them: runs of real processes and tests, or the simulator, which has those of the protocol.
    #[arg(long, value_enum, default_value_t)]
    by: Hunters,
    /// How many runs of the simulator each has.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// For how long each is hunted at most, with one hunter.
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    /// Where the runs go.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// What hunts planted bugs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Hunters {
    /// Runs of real processes, and the tests of the crates.
    #[default]
    Processes,
    /// The simulator.
    Simulate,
}

impl MutantsArguments {
    fn in_simulation(&self) -> Result<ExitCode, AnyError> {
        let arguments = unanimo_simulation::MutantsArguments {
            only: self.only.clone(),
            seeds: self.seeds,
            json: self.json,
        };
        arguments.run(&["simulate"])
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,openraft=warn".into()))
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    #[cfg(feature = "mutants")]
    if let Err(error) = unanimo_coordinator::mutants::plant_what_is_asked_for() {
        eprintln!("jepsen-style-tests: {error}");
        return ExitCode::FAILURE;
    }
    let result = match arguments.command {
        Command::Run(arguments) => run_once(arguments).await,
        Command::Check { folder, json } => check(&folder, json),
        Command::Soak(arguments) => soak(arguments).await,
        Command::List => list(),
        Command::Mutants(arguments) if arguments.by == Hunters::Simulate => arguments.in_simulation(),
        Command::Mutants(arguments) => hunt_mutants(arguments).await,
        Command::Simulate(simulation) if simulation.full_stack => simulate_stack(&simulation.protocol),
        Command::Simulate(simulation) => simulation.protocol.run(),
        Command::Coordinator { config } => coordinator(config).await,
        Command::Participant(arguments) => participant(arguments).await,
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

async fn participant(arguments: StoreArguments) -> Result<ExitCode, AnyError> {
    jepsen_style_tests::cluster::end_with_parent()?;
    let config = StoreConfig {
        name: arguments.name.parse()?,
        cluster: CLUSTER.parse()?,
        listen: arguments.listen,
        address: arguments.address,
        coordinators: arguments.coordinators,
        data: arguments.data,
        said: arguments.said,
    };
    store::run(config).await?;
    Ok(ExitCode::SUCCESS)
}

fn simulate_stack(arguments: &SimulateArguments) -> Result<ExitCode, AnyError> {
    let asked = full_stack::FullStack {
        first: arguments.seed.unwrap_or(arguments.from),
        seeds: arguments.seed.map_or(arguments.seeds, |_| 1),
    };
    let (told, fine) = full_stack::run(asked)?;
    match arguments.json {
        true => println!("{told}"),
        false => println!("{told:#}"),
    }
    Ok(match fine {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
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

#[cfg(feature = "mutants")]
async fn hunt_mutants(arguments: MutantsArguments) -> Result<ExitCode, AnyError> {
    use jepsen_style_tests::mutants::{Campaign, chosen};
    let campaign = Campaign {
        mutants: chosen(&arguments.only)?,
        patience: Duration::from_secs(arguments.seconds),
        executable: std::env::current_exe()?,
        folder: match arguments.folder {
            Some(folder) => folder,
            None => tempfile::Builder::new().prefix("mutants-").tempdir()?.keep(),
        },
    };
    let table = campaign.run().await?;
    print!("{table}");
    if arguments.json {
        println!("{}", serde_json::to_string(&table)?);
    }
    Ok(match table.is_as_it_should_be() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

#[cfg(not(feature = "mutants"))]
async fn hunt_mutants(_: MutantsArguments) -> Result<ExitCode, AnyError> {
    Err(
        "this build has no planted bugs: cargo run -p jepsen-style-tests --features mutants -- mutants"
            .into(),
    )
}

async fn run_once(arguments: RunArguments) -> Result<ExitCode, AnyError> {
    let RunArguments {
        workload,
        choice,
        seed,
    } = arguments;
    let folder = choice.folder()?;
    let result = run(choice.plan(&workload, seed, folder.clone())?).await?;
    tell(&Stored::new(&folder, result)?.write()?, choice.json)
}

fn check(folder: &Path, json: bool) -> Result<ExitCode, AnyError> {
    let mut stored = Stored::read(folder)?;
    stored.judge();
    tell(&stored.write()?, json)
}

async fn soak(arguments: SoakArguments) -> Result<ExitCode, AnyError> {
    let SoakArguments {
        minutes,
        workload: asked,
        choice,
        seed,
    } = arguments;
    let all = workload::all()
        .into_iter()
        .map(|workload| workload.name().to_owned());
    let workloads: Vec<String> = match asked.iter().any(|asked| asked == "all") {
        true => all.collect(),
        false => asked,
    };
    let folder = choice.folder()?;
    // Every plan is tried before the first is run: a wrong name is told at once.
    for workload in &workloads {
        choice.plan(workload, seed, folder.clone())?;
    }
    let next = |number: u64| {
        let workload = &workloads[number as usize % workloads.len()];
        let own = folder.join(format!("{number:04}-{workload}"));
        // Each round of all workloads has its seed: together they draw every fault that there is.
        choice.plan(workload, seed + number / workloads.len() as u64, own)
    };
    let tell_one = |summary: &Summary| eprintln!("{summary}\n");
    let soaked = jepsen_style_tests::soak::soak(Duration::from_secs(minutes * 60), next, tell_one).await?;
    let line = serde_json::to_string(&soaked)?;
    std::fs::write(folder.join("soak.json"), &line)?;
    match choice.json {
        true => println!("{line}"),
        false => println!("{soaked}"),
    }
    Ok(exit_code(soaked.verdict))
}

fn tell(summary: &Summary, json: bool) -> Result<ExitCode, AnyError> {
    match json {
        true => println!("{}", serde_json::to_string(summary)?),
        false => println!("{summary}"),
    }
    Ok(exit_code(Some(summary.verdict)))
}

fn exit_code(verdict: Option<Verdict>) -> ExitCode {
    match verdict {
        Some(Verdict::Valid) => ExitCode::SUCCESS,
        Some(Verdict::Unknown | Verdict::Invalid) | None => ExitCode::FAILURE,
    }
}

impl Choice {
    fn folder(&self) -> Result<PathBuf, AnyError> {
        Ok(match &self.folder {
            Some(folder) => folder.clone(),
            None => tempfile::Builder::new().prefix("jepsen-").tempdir()?.keep(),
        })
    }

    fn plan(&self, workload: &str, seed: u64, folder: PathBuf) -> Result<Plan, AnyError> {
        let all = workload::all();
        let workloads = all.len();
        let mut places = all.into_iter().enumerate();
        let (place, workload) = places
            .find(|(_, known)| known.name() == workload)
            .ok_or_else(|| format!("there is no workload {workload:?}"))?;
        let seeded = Seed(seed);
        let faults = match self.nemesis.iter().any(|asked| asked == "all") {
            true => nemesis::draw(nemesis::all(), seeded, (place, workloads), self.seconds),
            false => named(&self.nemesis)?,
        };
        Ok(Plan {
            seed: seeded,
            lasting: Duration::from_secs(self.seconds),
            clients: 8,
            layout: Layout {
                coordinators: self.nodes,
                participants: 3,
                replaced: 0,
            },
            command: self.command(workload.name(), seed),
            workload,
            faults,
            executable: std::env::current_exe()?,
            folder,
        })
    }

    /// The command that plans the same run, wherever it is typed.
    fn command(&self, workload: &str, seed: u64) -> String {
        format!(
            "cargo run --release -p jepsen-style-tests -- run --workload {workload} --nemesis {} --seconds {} \
             --seed {seed} --nodes {}",
            self.nemesis.join(","),
            self.seconds,
            self.nodes
        )
    }
}
