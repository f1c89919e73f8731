//! What a run leaves: one folder with everything in it.
//!
//! `history.jsonl` and `evidence.json` are what is known, `result.json` is what the checkers found, and everything else is
//! made from these three, as often as one likes: `history.edn` for Jepsen's own tools, the drawings, and a page that
//! says what happened.

mod context;
mod edn;
mod lines;
mod markup;
mod money;
mod page;
mod plot;
mod plots;
mod shapes;
mod stored;
mod style;
mod summary;
#[cfg(test)]
mod tests;
mod timeline;
mod words;

use serde::{Deserialize, Serialize};

use crate::checker::{Findings, Verdict};
use crate::cluster::Layout;
use crate::nemesis::Injected;

pub use stored::{ReportError, Stored};
pub use summary::{Objection, Quantiles, Summary};

/// What a run was and how it came out: `result.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunResult {
    /// Whether it is a pass.
    pub verdict: Verdict,
    /// What everything was drawn from.
    pub seed: u64,
    /// What the clients did.
    pub workload: String,
    /// How many of each there were.
    pub layout: Layout,
    /// For how long faults happened.
    pub seconds: u64,
    /// The command that plans the same run.
    pub command: String,
    /// What each checker found.
    pub findings: Vec<Findings>,
    /// The faults.
    pub faults: Vec<Injected>,
    /// Faults that were planned and did not happen, or that this machine cannot do.
    pub faults_missing: Vec<String>,
    /// What went wrong in the harness itself. Then the run is no pass.
    pub problems: Vec<String>,
}

impl RunResult {
    /// What follows from what the checkers found, if not everything went as planned. What was found invalid stays so.
    pub fn conclude(findings: &[Findings], faults_missing: &[String], problems: &[String]) -> Verdict {
        let complete = faults_missing.is_empty() && problems.is_empty();
        match findings.iter().map(|findings| findings.verdict).max() {
            Some(Verdict::Valid) if !complete => Verdict::Unknown,
            Some(verdict) => verdict,
            None => Verdict::Unknown,
        }
    }
}
