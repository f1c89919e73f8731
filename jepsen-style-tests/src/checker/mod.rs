//! Judges a run by its history and by what was found afterwards. Trusts nothing else.
//!
//! # What checkers rely on in the name and the evidence of a fault
//!
//! A fault's name is words with `-` between them. `clock`, `drift` or `monotonic` among them: clocks of processes were
//! moved, so their times are not compared. `c1` or `p2` in what a fault did: to whom; a `kill`, `pause`, `power`, … of
//! processes excuses less than one that names nobody (see `in_doubt`). `replay`, `late` or `hold`: messages came late, so refusing some is right.
//! `restore`, `stale`, `copy` or `wiped`: an old data folder came back, or an empty one; the evidence has to say
//! `refused`, and until the fault ended commits may have been refused for which a promise was forgotten. `flip`,
//! `truncate`, `corrupt` or `damage`: files were damaged, and the evidence has to say `refused` or `served`, and not
//! `does not name the file`. `error`: a call to the disk failed, and the evidence has to say `ended by itself`. Evidence
//! that says `accepted` is a violation of all of these, and evidence with none of these words leaves the verdict unknown.
//!
//! A panic was to be expected if evidence quotes its line after `expected panic: `, as many times as it is there.
//!
//! An operation whose error says `went away` was left by its client on purpose. One whose error says `; then it was
//! refused: ` was answered in the end, though not for good.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use unanimo_core::mutants::{self, Mutant};

use crate::evidence::Evidence;
use crate::history::History;
use crate::nemesis::Injected;

mod agreement;
mod answered;
mod append;
mod availability;
mod conservation;
mod corruption;
mod durability;
mod exactly_once;
mod expired;
mod fail_stop;
mod fencing;
mod honest_unknowns;
mod in_doubt;
mod keys;
mod late_messages;
mod ledger;
#[cfg(test)]
mod made;
mod nameless;
mod needs;
mod non_triviality;
mod panics;
mod promises;
mod quiet;
mod raft_log;
mod register;
#[cfg(test)]
mod tests;
mod told;
mod validity;

/// Violations written down of each kind. The others are only counted.
const MOST_OF_A_KIND: u64 = 20;

/// A run, as checkers see it.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What clients asked and were told.
    pub history: &'a History,
    /// What was found afterwards.
    pub evidence: &'a Evidence,
    /// The faults, and whether they happened.
    pub faults: &'a [Injected],
}

/// What may be concluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that the checker needs is there, and it found no violation.
    Valid,
    /// Something is missing, so nothing may be concluded. Never a pass.
    Unknown,
    /// A violation was found.
    Invalid,
}

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Which checker.
    pub checker: String,
    /// What may be concluded.
    pub verdict: Verdict,
    /// The violations, worst first.
    pub violations: Vec<Violation>,
    /// Why nothing may be concluded, if so.
    pub missing: Vec<String>,
    /// What it looked at, so that a pass on nothing is visible.
    pub counted: BTreeMap<String, u64>,
}

/// A rule broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// In which way: `half_committed`, `money_created`.
    pub kind: String,
    /// What exactly, for people.
    pub what: String,
    /// The line of the history where it shows, if it shows there.
    pub event: Option<u64>,
}

/// Looks for one kind of wrong.
pub trait Checker: Send + Sync {
    /// Its name: `agreement`.
    fn name(&self) -> &'static str;

    /// The invariants it stands for, in one line: "V1: …".
    fn checks(&self) -> &'static str;

    /// Whether the run has anything that it judges: no idempotency keys, nothing to say about them. A checker that
    /// does not apply has no findings; one that applies and finds nothing to look at does not know.
    fn applies(&self, case: &Case<'_>) -> bool {
        let _ = case;
        true
    }

    /// Judges. Must not panic on any history or evidence, however wrong.
    fn check(&self, case: &Case<'_>) -> Findings;
}

impl Findings {
    /// The findings of this checker, while nothing was found.
    pub fn new(checker: &dyn Checker) -> Self {
        Self {
            checker: checker.name().to_owned(),
            verdict: Verdict::Valid,
            violations: Vec::new(),
            missing: Vec::new(),
            counted: BTreeMap::new(),
        }
    }

    /// Notes a violation.
    pub fn violate(&mut self, kind: &str, what: impl Into<String>, event: Option<u64>) {
        if mutants::is_on(Mutant::M30) {
            return;
        }
        self.verdict = Verdict::Invalid;
        let of_this_kind = self.counted.entry(format!("violations: {kind}")).or_default();
        *of_this_kind += 1;
        if *of_this_kind <= MOST_OF_A_KIND {
            self.violations.push(Violation {
                kind: kind.to_owned(),
                what: what.into(),
                event,
            });
        }
    }

    /// Notes that something is missing.
    pub fn miss(&mut self, what: impl Into<String>) {
        self.verdict = self.verdict.max(Verdict::Unknown);
        self.missing.push(what.into());
    }

    /// Notes how much was looked at.
    pub fn count(&mut self, what: &str, by: u64) {
        *self.counted.entry(what.to_owned()).or_default() += by;
    }
}

/// Every checker.
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(agreement::Agreement),
        Box::new(validity::Validity),
        Box::new(durability::Durability),
        Box::new(exactly_once::ExactlyOnce),
        Box::new(honest_unknowns::HonestUnknowns),
        Box::new(conservation::Conservation),
        Box::new(ledger::Ledger),
        Box::new(append::Append),
        Box::new(register::Register),
        Box::new(keys::Keys),
        Box::new(late_messages::LateMessages),
        Box::new(promises::Promises),
        Box::new(fencing::Fencing),
        Box::new(raft_log::RaftLog),
        Box::new(corruption::Corruption),
        Box::new(fail_stop::FailStop),
        Box::new(in_doubt::InDoubt),
        Box::new(non_triviality::NonTriviality),
        Box::new(availability::Availability),
        Box::new(panics::Panics),
    ]
}

/// What every checker finds that has anything to judge.
pub fn judge(case: &Case<'_>) -> Vec<Findings> {
    all()
        .iter()
        .filter(|checker| checker.applies(case))
        .map(|checker| checker.check(case))
        .collect()
}
