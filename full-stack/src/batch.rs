//! Many seeds, each in a process of its own: tokio numbers its tasks for the whole process, and the order in which a crash
//! closes connections follows from these numbers. So a seed that shares its process with others would not repeat its run.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Seeds;
use crate::outcome::Outcome;
use crate::plan::Fault;

/// What a set of runs of some size must have seen. One that stays at zero says that the runs are weak.
const COUNTERS: [&str; 29] = [
    "another_request_refused",
    "asked_for_an_outcome",
    "branch_aborted",
    "branch_committed",
    "commit_repeated_after_a_crash",
    "decision_forgotten",
    "duplicate_message",
    "failed_sync_of_a_folder",
    "failed_sync_of_a_journal",
    "failed_sync_of_a_snapshot",
    "failed_write_of_a_table",
    "in_doubt_after_a_restart",
    "inquiry",
    "leader_changed",
    "power_loss_at_end",
    "power_lost_in_the_middle_of_work",
    "promise_restored",
    "refused_by_a_service",
    "snapshot_taken",
    "stopped_after_a_failed_sync",
    "submitted_again",
    "submitted_twice_at_once",
    "told_aborted",
    "told_committed",
    "told_unknown",
    "unknown_asked_again",
    "voted_no",
    "voted_read_only",
    "transactions",
];
/// From so many seeds on, nothing of that may be zero.
const ENOUGH_SEEDS: u64 = 50;
/// How long one seed may take by the wall clock: many times what it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// So many characters of what a process complained about are kept.
const MOST_SHOWN: usize = 1000;

/// What is said of all of them.
#[derive(Debug, Default, Serialize)]
struct Summary {
    seeds: u64,
    simulated_seconds: f64,
    wall_seconds: f64,
    transactions: u64,
    faults: BTreeMap<String, u64>,
    counters: BTreeMap<String, u64>,
    /// What no run has seen although there were enough of them.
    never_seen: Vec<String>,
    violations: Vec<Found>,
}

/// A violation and how to see it again.
#[derive(Debug, Serialize)]
struct Found {
    seed: u64,
    kind: String,
    what: String,
}

/// Runs them, and prints the summary.
pub(crate) fn run(asked: &Seeds) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let started = Instant::now();
    let mut summary = Summary::default();
    for name in COUNTERS {
        summary.counters.insert(name.to_owned(), 0);
    }
    for kind in Fault::KINDS {
        summary.faults.insert(kind.to_owned(), 0);
    }
    let mut left: VecDeque<u64> = (asked.first..asked.first + asked.seeds).collect();
    let mut running: Vec<Running> = Vec::new();
    loop {
        let stopping = asked.until_violation && !summary.violations.is_empty();
        while !stopping && running.len() < asked.jobs.max(1) {
            let Some(seed) = left.pop_front() else { break };
            running.push(Running::start(seed, asked)?);
        }
        if running.is_empty() {
            break;
        }
        let (ended, going_on): (Vec<_>, Vec<_>) = running
            .into_iter()
            .map(Running::look)
            .collect::<io::Result<Vec<_>>>()?
            .into_iter()
            .partition(Running::has_ended);
        running = going_on;
        if ended.is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
        for one in ended {
            summary.take(one);
        }
    }
    summary.wall_seconds = started.elapsed().as_secs_f64();
    summary.find_never_seen();
    if asked.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!("{summary}");
    }
    let fine = summary.violations.is_empty() && summary.never_seen.is_empty();
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A seed under way: one process, or two that have to do the same.
struct Running {
    seed: u64,
    since: Instant,
    processes: Vec<Process>,
}

struct Process {
    child: Child,
    /// What it printed, read by threads so that a full pipe holds nobody up.
    output: Option<std::thread::JoinHandle<io::Result<String>>>,
    errors: Option<std::thread::JoinHandle<io::Result<String>>>,
    result: Option<Tried>,
}

/// What came of a seed.
#[derive(Debug)]
pub(crate) enum Tried {
    /// The run came to its end.
    Ended(Box<Outcome>),
    /// The process ended before.
    Crashed(String),
}

/// Runs one seed, with this bug planted if the build has bugs.
#[cfg(feature = "mutants")]
pub(crate) fn one(seed: u64, mutant: Option<&str>) -> io::Result<Tried> {
    let mut process = Process::start(seed, mutant, None)?;
    let since = Instant::now();
    loop {
        process.look(since)?;
        if let Some(tried) = process.result.take() {
            return Ok(tried);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Running {
    fn start(seed: u64, asked: &Seeds) -> io::Result<Self> {
        let count = if asked.twice { 2 } else { 1 };
        let folder = asked.folder.as_ref().map(|folder| folder.join(seed.to_string()));
        let processes = (0..count).map(|_| Process::start(seed, None, folder.as_deref()));
        Ok(Self {
            seed,
            since: Instant::now(),
            processes: processes.collect::<io::Result<_>>()?,
        })
    }

    fn look(mut self) -> io::Result<Self> {
        for process in &mut self.processes {
            process.look(self.since)?;
        }
        Ok(self)
    }

    fn has_ended(&self) -> bool {
        self.processes.iter().all(|process| process.result.is_some())
    }
}

impl Process {
    fn start(seed: u64, mutant: Option<&str>, folder: Option<&Path>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["seed", &seed.to_string()]);
        if let Some(folder) = folder {
            command.arg("--folder").arg(folder);
        }
        if let Some(mutant) = mutant {
            command.env("UNANIMO_MUTANT", mutant);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = child.stdout.take().map(read_all);
        let errors = child.stderr.take().map(read_all);
        Ok(Self {
            child,
            output,
            errors,
            result: None,
        })
    }

    fn look(&mut self, since: Instant) -> io::Result<()> {
        if self.result.is_some() {
            return Ok(());
        }
        let hangs = since.elapsed() > PATIENCE;
        if hangs {
            self.child.kill()?;
        } else if self.child.try_wait()?.is_none() {
            return Ok(());
        }
        let status = self.child.wait()?;
        let text = |thread: Option<std::thread::JoinHandle<io::Result<String>>>| {
            let joined = thread.and_then(|thread| thread.join().ok());
            joined.and_then(Result::ok).unwrap_or_default()
        };
        let (output, errors) = (text(self.output.take()), text(self.errors.take()));
        let told = output.lines().last().map(serde_json::from_str::<Outcome>);
        self.result = Some(match told {
            Some(Ok(outcome)) => Tried::Ended(Box::new(outcome)),
            Some(Err(_)) | None if hangs => Tried::Crashed(format!("no end after {PATIENCE:?}")),
            Some(Err(_)) | None => {
                let first: String = errors.chars().take(MOST_SHOWN).collect();
                Tried::Crashed(format!("the process ended with {status}: {first}"))
            }
        });
        Ok(())
    }
}

fn read_all(mut from: impl io::Read + Send + 'static) -> std::thread::JoinHandle<io::Result<String>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })
}

impl Summary {
    fn take(&mut self, ended: Running) {
        self.seeds += 1;
        let seed = ended.seed;
        let mut hashes = Vec::new();
        for (place, process) in ended.processes.into_iter().enumerate() {
            match process.result {
                Some(Tried::Ended(outcome)) => {
                    hashes.push(outcome.trace_hash.clone());
                    if place == 0 {
                        self.take_outcome(*outcome);
                    }
                }
                Some(Tried::Crashed(what)) => self.find(seed, "crashed", what),
                None => {}
            }
        }
        if hashes.windows(2).any(|pair| pair[0] != pair[1]) {
            let what = format!("two processes had the traces {}", hashes.join(" and "));
            self.find(seed, "not_repeatable", what);
        }
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        self.simulated_seconds += outcome.simulated_ms as f64 / 1000.0;
        self.transactions += outcome.transactions;
        *self.counters.entry("transactions".to_owned()).or_default() += outcome.transactions;
        for (kind, count) in outcome.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (name, count) in outcome.counters {
            *self.counters.entry(name).or_default() += count;
        }
        for violation in outcome.violations {
            self.find(outcome.seed, &violation.kind, violation.what);
        }
    }

    fn find(&mut self, seed: u64, kind: &str, what: String) {
        eprintln!("seed {seed}: {kind}: {what}");
        self.violations.push(Found {
            seed,
            kind: kind.to_owned(),
            what,
        });
    }

    fn find_never_seen(&mut self) {
        if self.seeds < ENOUGH_SEEDS {
            return;
        }
        let zero = |counts: &BTreeMap<String, u64>| {
            let zero = counts.iter().filter(|(_, count)| **count == 0);
            zero.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        self.never_seen = zero(&self.counters);
        self.never_seen.extend(zero(&self.faults));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds, {:.0} simulated seconds in {:.0}, {} transactions",
            self.seeds, self.simulated_seconds, self.wall_seconds, self.transactions
        )?;
        for (name, count) in self.faults.iter().chain(&self.counters) {
            writeln!(f, "{count:>9} {name}")?;
        }
        for name in &self.never_seen {
            writeln!(f, "never seen: {name}")?;
        }
        for found in &self.violations {
            writeln!(f, "seed {}: {}: {}", found.seed, found.kind, found.what)?;
        }
        write!(f, "{} violations", self.violations.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(seeds: u64) -> Summary {
        let mut summary = Summary {
            seeds,
            ..Summary::default()
        };
        summary.counters.insert("told_committed".to_owned(), 1);
        summary.faults.insert("cut".to_owned(), 0);
        summary.find_never_seen();
        summary
    }

    #[test]
    fn what_many_runs_never_saw_is_told_and_few_may_miss_something() {
        assert_eq!(summary(ENOUGH_SEEDS).never_seen, ["cut"]);
        assert_eq!(summary(ENOUGH_SEEDS - 1).never_seen, Vec::<String>::new());
    }
}
