//! What is said of a run, and of many.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::notes::Violation;

/// One run. Printed as one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) simulated_ms: u64,
    pub(crate) wall_ms: u64,
    pub(crate) transactions: u64,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) trace_lines: u64,
    pub(crate) trace_hash: String,
}
