//! Run after run, until one is no pass.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

use crate::checker::Verdict;
use crate::report::{ReportError, Stored, Summary};
use crate::run::{Plan, RunError, run};

/// What is left of a run that is a pass: enough to look at. The histories of an hour would fill a disk.
const LARGE: [&str; 3] = ["history.jsonl", "history.edn", "evidence.json"];

/// How a soak came out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Soaked {
    /// The worst of all.
    pub verdict: Option<Verdict>,
    /// Runs of each workload.
    pub runs: BTreeMap<String, u64>,
    /// The first seed and the last.
    pub seeds: Option<(u64, u64)>,
    /// Operations that were asked for.
    pub operations: u64,
    /// Those that happened.
    pub ok: u64,
    /// Those that did not.
    pub fail: u64,
    /// Those of which nobody knows.
    pub info: u64,
    /// How often each fault is known to have happened.
    pub faults: BTreeMap<String, u64>,
    /// The longest that anybody was in doubt, in milliseconds.
    pub in_doubt_ms_max: Option<u64>,
    /// The longest from the end of a fault to the next commit, in milliseconds.
    pub recovery_ms_max: Option<u64>,
    /// The run that is no pass, if any.
    pub failed: Option<Summary>,
}

/// Why a soak ended without a verdict.
#[derive(Debug, Error)]
pub enum SoakError {
    /// The next run cannot be planned.
    #[error("no plan for the next run: {0}")]
    Plan(Box<dyn std::error::Error>),
    /// A run.
    #[error("the run in {}: {source}", folder.display())]
    Run {
        /// Where it was.
        folder: PathBuf,
        /// Why.
        source: RunError,
    },
    /// A report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// What a run that is a pass leaves cannot be removed.
    #[error("cannot clean up {}: {source}", path.display())]
    CleanUp {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs one plan after the other for this long, and ends with the first that is no pass. `plans` makes the next one, in a
/// folder of its own.
pub async fn soak(
    lasting: Duration,
    mut plans: impl FnMut(u64) -> Result<Plan, Box<dyn std::error::Error>>,
    mut tell: impl FnMut(&Summary),
) -> Result<Soaked, SoakError> {
    let deadline = Instant::now() + lasting;
    let mut soaked = Soaked::default();
    for number in 0.. {
        let plan = plans(number).map_err(SoakError::Plan)?;
        let folder = plan.folder.clone();
        let ended = run(plan).await;
        let result = ended.map_err(|source| SoakError::Run {
            folder: folder.clone(),
            source,
        })?;
        let summary = Stored::new(&folder, result)?.write()?;
        tell(&summary);
        soaked.add(&summary);
        if summary.verdict != Verdict::Valid {
            break;
        }
        clean_up(&folder)?;
        if Instant::now() >= deadline {
            break;
        }
    }
    Ok(soaked)
}

fn clean_up(folder: &Path) -> Result<(), SoakError> {
    for path in LARGE.map(|name| folder.join(name)) {
        std::fs::remove_file(&path).map_err(|source| SoakError::CleanUp { path, source })?;
    }
    let path = folder.join("data");
    std::fs::remove_dir_all(&path).map_err(|source| SoakError::CleanUp { path, source })
}

impl Soaked {
    /// Takes one more run into account.
    fn add(&mut self, summary: &Summary) {
        self.verdict = self.verdict.max(Some(summary.verdict));
        *self.runs.entry(summary.workload.clone()).or_default() += 1;
        let first = self.seeds.map_or(summary.seed, |(first, _)| first);
        self.seeds = Some((first, summary.seed));
        self.operations += summary.operations;
        self.ok += summary.ok;
        self.fail += summary.fail;
        self.info += summary.info;
        for (fault, count) in &summary.faults {
            *self.faults.entry(fault.clone()).or_default() += count;
        }
        self.in_doubt_ms_max = self
            .in_doubt_ms_max
            .max(summary.in_doubt_ms.map(|times| times.max));
        self.recovery_ms_max = self
            .recovery_ms_max
            .max(summary.recovery_ms.map(|times| times.max));
        if summary.verdict != Verdict::Valid {
            self.failed = Some(summary.clone());
        }
    }
}

/// For people.
impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = |counts: &BTreeMap<String, u64>| {
            let counts = counts.iter().map(|(name, count)| format!("{name} {count}"));
            counts.collect::<Vec<_>>().join(", ")
        };
        let runs: u64 = self.runs.values().sum();
        let faults: u64 = self.faults.values().sum();
        let verdict = match self.verdict {
            Some(Verdict::Valid) => "valid",
            Some(Verdict::Invalid) => "invalid",
            Some(Verdict::Unknown) | None => "unknown",
        };
        writeln!(f, "{verdict}: {runs} runs ({})", counts(&self.runs))?;
        let Self {
            operations,
            ok,
            fail,
            info,
            ..
        } = self;
        writeln!(f, "  {operations} operations: {ok} ok, {fail} fail, {info} info")?;
        writeln!(f, "  {faults} faults: {}", counts(&self.faults))?;
        if let Some((first, last)) = self.seeds {
            writeln!(f, "  seeds {first} to {last}")?;
        }
        let ms = |ms: Option<u64>| ms.map_or("not known".to_owned(), |ms| format!("{ms} ms"));
        writeln!(f, "  longest in doubt: {}", ms(self.in_doubt_ms_max))?;
        write!(f, "  slowest recovery: {}", ms(self.recovery_ms_max))?;
        match &self.failed {
            Some(failed) => write!(f, "\n\nthe one that is no pass:\n{failed}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Quantiles;

    fn summary(verdict: Verdict, workload: &str, seed: u64, max: Option<u64>) -> Summary {
        Summary {
            verdict,
            seed,
            workload: workload.to_owned(),
            operations: 10,
            ok: 7,
            fail: 2,
            info: 1,
            faults: [("kill-leader".to_owned(), 2)].into(),
            faults_missing: vec![],
            violations: vec![],
            missing: vec![],
            in_doubt_ms: max.map(|max| Quantiles { p50: 1, p99: 2, max }),
            recovery_ms: None,
            report: PathBuf::from("report.html"),
            command: format!("run --seed {seed}"),
        }
    }

    #[test]
    fn the_worst_of_all_runs_is_told_and_the_one_that_failed() {
        let mut soaked = Soaked::default();
        soaked.add(&summary(Verdict::Valid, "bank", 3, Some(50)));
        soaked.add(&summary(Verdict::Valid, "append", 4, None));
        assert_eq!(
            (soaked.verdict, soaked.failed.is_none()),
            (Some(Verdict::Valid), true)
        );
        soaked.add(&summary(Verdict::Unknown, "bank", 5, Some(20)));
        assert_eq!(soaked.verdict, Some(Verdict::Unknown));
        assert_eq!(soaked.seeds, Some((3, 5)));
        assert_eq!(
            [soaked.operations, soaked.ok, soaked.fail, soaked.info],
            [30, 21, 6, 3]
        );
        assert_eq!((soaked.faults["kill-leader"], soaked.runs["bank"]), (6, 2));
        assert_eq!((soaked.in_doubt_ms_max, soaked.recovery_ms_max), (Some(50), None));
        let told = soaked.to_string();
        assert!(
            told.starts_with("unknown: 3 runs (append 1, bank 2)") && told.ends_with("run --seed 5"),
            "{told}"
        );
    }
}
