//! The command line, for whichever program has it as a subcommand.

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use clap::Args;

use crate::run::{Keep, run};
use crate::schedule::{Schedule, draw};
use crate::set::{Report, simulate};
use crate::shrink::Shrinking;
use crate::{mutants, script};

/// Runs the protocol in simulated time, with everything that may go wrong, and checks the rules after every step.
#[derive(Clone, Debug, Args)]
pub struct SimulateArguments {
    /// How many runs.
    #[arg(long, default_value_t = 100)]
    pub seeds: u64,
    /// The first seed of them.
    #[arg(long, default_value_t = 1)]
    pub from: u64,
    /// One run only, of this seed: prints its transcript.
    #[arg(long)]
    pub seed: Option<u64>,
    /// One run only, of the script in this file: prints its transcript.
    #[arg(long, conflicts_with = "seed")]
    pub script: Option<PathBuf>,
    /// If the one run breaks a rule, look for a smaller one that does, and print that.
    #[arg(long)]
    pub shrink: bool,
    /// Put the one run that breaks a rule into this file, as a script.
    #[arg(long)]
    pub save: Option<PathBuf>,
    /// Print a hash of each run's transcript.
    #[arg(long)]
    pub hashes: bool,
    /// Print the report as one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// How many runs at a time; as many as there are cores if this is not given.
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Stop at the first run that breaks a rule.
    #[arg(long)]
    pub stop: bool,
    /// The planted bug that this process has. Needs a build with the feature `mutants`.
    #[arg(long, hide = true)]
    pub mutant: Option<String>,
}

/// Plants bugs, one at a time, and shows after how many runs each is found.
#[derive(Clone, Debug, Args)]
pub struct MutantsArguments {
    /// Only these, such as M4. All that are about the protocol if none is named.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// How many runs each has before it counts as not found.
    #[arg(long, default_value_t = 10_000)]
    pub seeds: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    pub json: bool,
}

impl SimulateArguments {
    /// Does what the arguments say. The exit code is 0 only if no rule was broken and nothing was missing.
    ///
    /// # Errors
    ///
    /// Files that cannot be read or written, scripts that are none, bugs that there are not.
    pub fn run(&self) -> Result<ExitCode, Box<dyn std::error::Error>> {
        if let Some(name) = &self.mutant {
            mutants::plant(name)?;
        }
        if let Some(path) = &self.script {
            let schedule = script::read(&std::fs::read_to_string(path)?)?;
            return self.run_one(schedule);
        }
        if let Some(seed) = self.seed {
            return self.run_one(draw(seed));
        }
        let jobs = self
            .jobs
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get));
        let end = self.from.saturating_add(self.seeds);
        let report = simulate(self.from..end, jobs, self.hashes, self.stop);
        for (seed, hash) in &report.hashes {
            println!("{seed} {hash:016x}");
        }
        self.print(&report);
        Ok(exit_code(report.is_valid()))
    }

    fn print(&self, report: &Report) {
        if self.json {
            return println!("{}", report.to_json());
        }
        for (seed, broken) in &report.violations {
            println!("seed {seed}: {broken}");
        }
        for missing in report.missing() {
            println!("never: {missing}");
        }
        println!(
            "{} runs, {:.0} s in {:.1} s, {} transactions, {} broke a rule",
            report.seeds,
            report.simulated_us as f64 / 1e6,
            report.wall_seconds,
            report.transactions,
            report.violations.len()
        );
    }

    fn run_one(&self, schedule: Schedule) -> Result<ExitCode, Box<dyn std::error::Error>> {
        let mut schedule = schedule;
        if self.shrink {
            match Shrinking::of(schedule.clone()) {
                Some(shrinking) => {
                    let (smallest, _, runs) = shrinking.finish();
                    eprintln!("shrunk in {runs} runs");
                    schedule = smallest;
                }
                None => eprintln!("no rule is broken: there is nothing to shrink"),
            }
        }
        let outcome = run(&Rc::new(schedule.clone()), Keep::Text);
        let Some(broken) = &outcome.broken else {
            print!("{}", outcome.transcript);
            return Ok(ExitCode::SUCCESS);
        };
        let text = script::write(&schedule, broken, &outcome.transcript);
        print!("{text}");
        if let Some(path) = &self.save {
            std::fs::write(path, &text)?;
        }
        Ok(ExitCode::FAILURE)
    }
}

impl MutantsArguments {
    /// Plants the bugs, one at a time, each in a process of its own: this program, called with `again` and the arguments
    /// of `simulate`. The exit code is 0 only if every one was found.
    ///
    /// # Errors
    ///
    /// A build without planted bugs, or a process that cannot be started.
    pub fn run(&self, again: &[&str]) -> Result<ExitCode, Box<dyn std::error::Error>> {
        let all_found = mutants::hunt(self, again)?;
        Ok(exit_code(all_found))
    }
}

fn exit_code(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
