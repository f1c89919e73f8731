//! What a run leaves: one folder with everything in it.

use serde::{Deserialize, Serialize};

use crate::checker::{Findings, Verdict};
use crate::cluster::Layout;
use crate::nemesis::Injected;

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
