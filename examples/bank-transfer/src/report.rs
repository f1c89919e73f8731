//! What a run has shown, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use unanimo_coordinator::RaftConfig;
use unanimo_core::{AbortReason, Decision};

use crate::audit::Audit;
use crate::distribution::Quantiles;
use crate::faults::Injected;
use crate::in_doubt::{InDoubt, InDoubtTimes};
use crate::load::{Load, Submitted, Told};

/// Violations that are shown; all of them are counted.
const SHOWN: usize = 20;

/// What a run has shown. Serialised, it is what `--json` prints. Money is in cents, times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Where the transfers came from.
    pub input: String,
    /// The seed, if they were generated.
    pub seed: Option<u64>,
    /// Transfers of the input; in a run that lasts for a given time, those there was time for.
    pub transfers: u64,
    /// Transfers that were submitted: all of them, unless some outcome was unknown.
    pub submitted: u64,
    /// Those that happened.
    pub committed: u64,
    /// Those that did not happen.
    pub aborted: u64,
    /// Why they did not.
    pub aborted_by_reason: BTreeMap<String, u64>,
    /// Those that were refused before they were started.
    pub refused: u64,
    /// Those of which the initiator was not told what happened.
    pub unknown: u64,
    /// What the audit found that does not fit.
    pub violations: u64,
    /// The first of them, for people.
    pub first_violations: Vec<String>,
    /// Transactions that were aborted although every bank concerned had promised. They are among the violations too.
    pub aborted_fully_prepared: u64,
    /// Audits that ran during the transfers, and committed.
    pub audits: u64,
    /// Those of them that saw another sum than there is. They are among the violations too.
    pub audits_wrong: u64,
    /// Audits that made way for transfers, or met a bank that was away.
    pub audits_refused: u64,
    /// Audits of which the auditor was not told what happened.
    pub audits_unknown: u64,
    /// The sum of all accounts before.
    pub total_before: u128,
    /// The sum of all accounts after.
    pub total_after: u128,
    /// How often the leader was killed.
    pub leader_kills: u64,
    /// How often a bank was killed.
    pub participant_kills: u64,
    /// The longest time without a leader after a kill, until a new one took transactions.
    pub without_leader_ms: f64,
    /// How long a follower waits for a leader that is silent before it asks for votes, as configured.
    pub election_timeout_ms: ElectionTimeout,
    /// From the submission to the definite answer.
    pub latency_ms: Quantiles,
    /// From a branch's promise until its bank knew the decision, for the branches that were prepared when a leader
    /// was killed. None if no leader was.
    pub in_doubt_ms: InDoubt,
    /// The same for every branch.
    pub in_doubt_all_ms: InDoubt,
    /// Definite answers for each second of the load.
    pub transfers_per_second: f64,
    /// How long the load took, in seconds.
    pub load_seconds: f64,
}

/// The configured limits of an election timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ElectionTimeout {
    /// The shortest.
    pub min: u64,
    /// The longest.
    pub max: u64,
}

/// What a report is made of.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) input: String,
    pub(crate) seed: Option<u64>,
    pub(crate) transfers: usize,
    pub(crate) load: Load,
    pub(crate) injected: Injected,
    pub(crate) in_doubt: InDoubtTimes,
    pub(crate) audit: Audit,
}

impl Report {
    pub(crate) fn new(findings: Findings) -> Self {
        let Findings {
            input,
            seed,
            transfers,
            load,
            injected,
            in_doubt,
            audit,
        } = findings;
        let raft = RaftConfig::default();
        let count = |what: fn(&Told) -> bool| {
            load.submitted
                .iter()
                .filter(|submitted| what(&submitted.told))
                .count() as u64
        };
        let seconds = load.elapsed.as_secs_f64();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let longest = injected.without_leader.iter().copied().max().unwrap_or_default();
        Self {
            input,
            seed,
            transfers: transfers as u64,
            submitted: load.submitted.len() as u64,
            committed: count(|told| *told == Told::Decided(Decision::Commit)),
            aborted: count(|told| matches!(told, Told::Decided(Decision::Abort(_)))),
            aborted_by_reason: by_reason(&load.submitted),
            refused: count(|told| matches!(told, Told::Refused(_))),
            unknown: count(|told| matches!(told, Told::Unknown(_))),
            violations: audit.violations.len() as u64,
            first_violations: audit
                .violations
                .iter()
                .take(SHOWN)
                .map(ToString::to_string)
                .collect(),
            aborted_fully_prepared: audit.aborted_fully_prepared,
            audits: audit.audits.committed,
            audits_wrong: audit.audits.wrong,
            audits_refused: audit.audits.refused,
            audits_unknown: audit.audits.unknown,
            total_before: audit.total_before,
            total_after: audit.total_after,
            leader_kills: injected.leader_kills,
            participant_kills: injected.participant_kills,
            without_leader_ms: rounded(milliseconds(longest)),
            election_timeout_ms: ElectionTimeout {
                min: raft.election_min_ms,
                max: raft.election_max_ms,
            },
            latency_ms: Quantiles::of(&load.latencies, 1000.0),
            in_doubt_ms: in_doubt.at_leader_deaths(),
            in_doubt_all_ms: in_doubt.all(),
            transfers_per_second: rounded(load.latencies.len() as f64 / seconds.max(0.001)),
            load_seconds: rounded(seconds),
        }
    }

    /// Whether everything is as it should be: every transfer has a definite outcome, and the audit found nothing.
    pub fn holds(&self) -> bool {
        let all_definite =
            self.unknown + self.audits_unknown + self.refused == 0 && self.submitted == self.transfers;
        all_definite && self.violations == 0 && self.total_before == self.total_after
    }
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn by_reason(submitted: &[Submitted]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for submitted in submitted {
        if let Told::Decided(Decision::Abort(reason)) = &submitted.told {
            *counts.entry(kind(reason)).or_default() += 1;
        }
    }
    counts
}

/// The kind of an abort, without what differs from one to the next.
fn kind(reason: &AbortReason) -> String {
    match reason {
        // A bank says the kind first, then a colon, then which account.
        AbortReason::VotedNo { reason, .. } => reason
            .split_once(':')
            .map_or(reason.as_str(), |(kind, _)| kind)
            .to_owned(),
        AbortReason::DeadlinePassed { .. } => "a vote came too late".to_owned(),
        AbortReason::Requested => "requested by the initiator".to_owned(),
        AbortReason::Presumed => "presumed".to_owned(),
    }
}

#[cfg(test)]
mod tests;
