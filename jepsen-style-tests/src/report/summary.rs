use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RunResult;
use super::words::{self, many, millis, number};
use crate::checker::{Findings, Verdict};
use crate::history::{History, Kind};

/// How a run came out: what `--json` prints in one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Whether it is a pass.
    pub verdict: Verdict,
    /// What everything was drawn from.
    pub seed: u64,
    /// What the clients did.
    pub workload: String,
    /// Operations that were asked for.
    pub operations: u64,
    /// Of them, those that happened.
    pub ok: u64,
    /// Those that did not happen and will not.
    pub fail: u64,
    /// Those of which nobody knows.
    pub info: u64,
    /// How often each fault is known to have happened.
    pub faults: BTreeMap<String, u64>,
    /// Faults that did not happen, or that this machine cannot do.
    pub faults_missing: Vec<String>,
    /// What checkers object to.
    pub violations: Vec<Objection>,
    /// What nothing may be concluded without, and what went wrong in the harness.
    pub missing: Vec<String>,
    /// How long participants were in doubt. Absent if clocks were moved.
    pub in_doubt_ms: Option<Quantiles>,
    /// From when the cause of a fault was taken away to the next commit.
    pub recovery_ms: Option<Quantiles>,
    /// The page to read.
    pub report: PathBuf,
    /// The command that plans the same run.
    pub command: String,
}

/// A violation, with who found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objection {
    /// The checker.
    pub checker: String,
    /// In which way a rule was broken.
    pub kind: String,
    /// What exactly.
    pub what: String,
    /// The line of the history where it shows, from 0.
    pub event: Option<u64>,
}

/// The middle, the 99th of a hundred, and the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are at most this.
    pub p50: u64,
    /// Of a hundred, one is more.
    pub p99: u64,
    /// None is more.
    pub max: u64,
}

impl Summary {
    /// Of this run, whose page is here.
    pub(super) fn of(result: &RunResult, history: &History, report: &Path) -> Self {
        let mut counts: [u64; 3] = [0; 3];
        let operations = history.operations();
        for (_, done) in &operations {
            match words::ended(*done) {
                Kind::Ok => counts[0] += 1,
                Kind::Fail => counts[1] += 1,
                Kind::Info | Kind::Invoke => counts[2] += 1,
            }
        }
        let [ok, fail, info] = counts;
        let mut faults = BTreeMap::new();
        for fault in result.faults.iter().filter(|fault| fault.evidence.is_some()) {
            *faults.entry(fault.fault.clone()).or_default() += 1;
        }
        Self {
            verdict: result.verdict,
            seed: result.seed,
            workload: result.workload.clone(),
            operations: operations.len() as u64,
            ok,
            fail,
            info,
            faults,
            faults_missing: result.faults_missing.clone(),
            violations: result.findings.iter().flat_map(objections).collect(),
            missing: missing(result),
            in_doubt_ms: quantiles(&result.findings, "in-doubt"),
            recovery_ms: quantiles(&result.findings, "availability"),
            report: report.to_owned(),
            command: result.command.clone(),
        }
    }
}

fn objections(findings: &Findings) -> Vec<Objection> {
    let objection = |violation: &crate::checker::Violation| Objection {
        checker: findings.checker.clone(),
        kind: violation.kind.clone(),
        what: violation.what.clone(),
        event: violation.event,
    };
    findings.violations.iter().map(objection).collect()
}

/// Why nothing may be concluded, with who says so; without the faults that did not happen.
pub(super) fn missing(result: &RunResult) -> Vec<String> {
    let checkers = result.findings.iter().flat_map(|findings| {
        let said = |what: &String| format!("{}: {what}", findings.checker);
        findings.missing.iter().map(said).collect::<Vec<_>>()
    });
    let harness = result
        .problems
        .iter()
        .map(|problem| format!("harness: {problem}"));
    harness.chain(checkers).collect()
}

/// What a checker counted of times.
fn quantiles(findings: &[Findings], checker: &str) -> Option<Quantiles> {
    let counted = &findings
        .iter()
        .find(|findings| findings.checker == checker)?
        .counted;
    Some(Quantiles {
        p50: *counted.get("ms p50")?,
        p99: *counted.get("ms p99")?,
        max: *counted.get("ms max")?,
    })
}

/// For people.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = words::verdict(self.verdict);
        writeln!(f, "{verdict}: {}, seed {}", self.workload, self.seed)?;
        let counts = [self.ok, self.fail, self.info].map(number);
        let [ok, fail, info] = counts;
        writeln!(
            f,
            "  {}: {ok} ok, {fail} fail, {info} info",
            many(self.operations, "operation")
        )?;
        let faults = self.faults.iter().map(|(name, count)| format!("{name} {count}"));
        let happened = self.faults.values().sum();
        writeln!(
            f,
            "  {}: {}",
            many(happened, "fault"),
            faults.collect::<Vec<_>>().join(", ")
        )?;
        for (what, times) in [("in doubt", self.in_doubt_ms), ("recovery", self.recovery_ms)] {
            if let Some(Quantiles { p50, p99, max }) = times {
                let [p50, p99, max] = [p50, p99, max].map(millis);
                writeln!(
                    f,
                    "  {what}: half within {p50}, 99 of 100 within {p99}, at most {max}"
                )?;
            }
        }
        for objection in &self.violations {
            let kind = words::kind(&objection.kind);
            writeln!(
                f,
                "  violation: {kind} ({}): {}",
                objection.checker, objection.what
            )?;
        }
        for fault in &self.faults_missing {
            writeln!(f, "  did not happen: {fault}")?;
        }
        for missing in &self.missing {
            writeln!(f, "  missing: {missing}")?;
        }
        writeln!(f, "  report: {}", self.report.display())?;
        write!(f, "  again:  {}", self.command)
    }
}
