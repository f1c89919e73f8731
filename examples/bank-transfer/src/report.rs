//! What a run has shown, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use unanimo_core::{AbortReason, Decision};

use crate::audit::Audit;
use crate::distribution::Quantiles;
use crate::faults::Injected;
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
    /// Transfers of the input.
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
    /// From the submission to the definite answer.
    pub latency_ms: Quantiles,
    /// From a branch's promise until it knew the decision, over both banks.
    pub in_doubt_ms: Quantiles,
    /// Definite answers for each second of the load.
    pub transfers_per_second: f64,
    /// How long the load took, in seconds.
    pub load_seconds: f64,
}

/// What a report is made of.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) input: String,
    pub(crate) seed: Option<u64>,
    pub(crate) transfers: usize,
    pub(crate) load: Load,
    pub(crate) injected: Injected,
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
            audit,
        } = findings;
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
            total_before: audit.total_before,
            total_after: audit.total_after,
            leader_kills: injected.leader_kills,
            participant_kills: injected.participant_kills,
            without_leader_ms: rounded(milliseconds(longest)),
            latency_ms: Quantiles::of(&load.latencies, 1000.0),
            in_doubt_ms: injected.in_doubt.quantiles(),
            transfers_per_second: rounded(load.latencies.len() as f64 / seconds.max(0.001)),
            load_seconds: rounded(seconds),
        }
    }

    /// Whether everything is as it should be: every transfer has a definite outcome, and the audit found nothing.
    pub fn holds(&self) -> bool {
        let all_definite = self.unknown == 0 && self.refused == 0 && self.submitted == self.transfers;
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

/// The table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, name: &str, value: &str| writeln!(f, "  {name:<24} {value}");
        let times = |quantiles: &Quantiles| {
            let Quantiles { p50, p99, max } = quantiles;
            format!("p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")
        };
        match self.seed {
            Some(seed) => line(f, "input", &format!("{}, seed {seed}", self.input))?,
            None => line(f, "input", &self.input)?,
        }
        line(
            f,
            "submitted",
            &format!("{} of {}", self.submitted, self.transfers),
        )?;
        line(f, "committed", &self.committed.to_string())?;
        line(f, "aborted", &self.aborted.to_string())?;
        for (reason, count) in &self.aborted_by_reason {
            line(f, &format!("  {reason}"), &format!("  {count}"))?;
        }
        line(f, "refused", &self.refused.to_string())?;
        line(f, "unknown", &self.unknown.to_string())?;
        line(f, "latency", &times(&self.latency_ms))?;
        let speed = format!(
            "{:.0} a second, for {:.1} s",
            self.transfers_per_second, self.load_seconds
        );
        line(f, "transfers", &speed)?;
        line(f, "leader killed", &times_killed(self.leader_kills))?;
        line(f, "bank killed", &times_killed(self.participant_kills))?;
        line(
            f,
            "longest without leader",
            &format!("{:.0} ms", self.without_leader_ms),
        )?;
        line(f, "in doubt", &times(&self.in_doubt_ms))?;
        line(f, "total before", &money(self.total_before))?;
        line(f, "total after", &money(self.total_after))?;
        line(f, "violations", &self.violations.to_string())?;
        for violation in &self.first_violations {
            writeln!(f, "    {violation}")?;
        }
        let hidden = self.violations.saturating_sub(self.first_violations.len() as u64);
        if hidden > 0 {
            writeln!(f, "    and {hidden} more")?;
        }
        match self.holds() {
            true => write!(
                f,
                "The audit holds: every transfer happened exactly once or not at all, as its initiator was told."
            ),
            false => write!(f, "THE AUDIT DOES NOT HOLD."),
        }
    }
}

fn times_killed(count: u64) -> String {
    match count {
        0 => "not once".to_owned(),
        1 => "once".to_owned(),
        more => format!("{more} times"),
    }
}

fn money(cents: u128) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Violation;
    use crate::distribution::new_histogram;
    use crate::generate::generate;
    use crate::wire;
    use unanimo_core::{Timestamp, TransactionId};

    fn voted_no(reason: &str) -> Told {
        let participant = crate::BankName::North.participant();
        Told::Decided(Decision::Abort(AbortReason::VotedNo {
            participant,
            reason: reason.to_owned(),
        }))
    }

    fn report(told: Vec<Told>, audit: Audit) -> Report {
        let transfers = generate(told.len(), 1);
        let mut latencies = new_histogram();
        for _ in 0..told
            .iter()
            .filter(|told| matches!(told, Told::Decided(_)))
            .count()
        {
            latencies.record(2500).unwrap();
        }
        let submit = |(transfer, told): (crate::Transfer, Told)| Submitted {
            transaction: TransactionId::new(Timestamp::from_unix_ms(transfer.row), 0),
            transfer,
            told,
        };
        let mut injected = Injected {
            leader_kills: 1,
            participant_kills: 2,
            without_leader: vec![Duration::from_millis(1030), Duration::from_millis(900)],
            ..Injected::default()
        };
        injected.in_doubt.add(&[wire::InDoubtCount {
            milliseconds: 3,
            branches: 99,
        }]);
        injected.in_doubt.add(&[wire::InDoubtCount {
            milliseconds: 400,
            branches: 1,
        }]);
        Report::new(Findings {
            input: "sample".to_owned(),
            seed: None,
            transfers: told.len(),
            load: Load {
                submitted: transfers.into_iter().zip(told).map(submit).collect(),
                latencies,
                elapsed: Duration::from_secs(2),
            },
            injected,
            audit,
        })
    }

    fn clean() -> Audit {
        Audit {
            violations: vec![],
            total_before: 123_456,
            total_after: 123_456,
        }
    }

    fn outcomes() -> Vec<Told> {
        vec![
            Told::Decided(Decision::Commit),
            voted_no("insufficient funds: north-000001 has 1.00 available, 2.00 is needed"),
            voted_no("insufficient funds: north-000002 has 0.00 available, 2.00 is needed"),
            Told::Decided(Decision::Abort(AbortReason::Presumed)),
        ]
    }

    #[test]
    fn the_json_has_what_programs_look_for() {
        let json: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&report(outcomes(), clean())).unwrap()).unwrap();
        let expected = serde_json::json!({
            "input": "sample", "seed": null, "transfers": 4,
            "submitted": 4, "committed": 1, "aborted": 3, "refused": 0, "unknown": 0,
            "aborted_by_reason": { "insufficient funds": 2, "presumed": 1 },
            "violations": 0, "first_violations": [],
            "total_before": 123_456, "total_after": 123_456,
            "leader_kills": 1, "participant_kills": 2, "without_leader_ms": 1030.0,
            "latency_ms": { "p50": 2.501, "p99": 2.501, "max": 2.501 },
            "in_doubt_ms": { "p50": 3.0, "p99": 3.0, "max": 400.0 },
            "transfers_per_second": 2.0, "load_seconds": 2.0,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn people_are_told_the_same() {
        let text = report(outcomes(), clean()).to_string();
        for line in [
            "  committed                1\n",
            "  aborted                  3\n",
            "    insufficient funds       2\n",
            "  longest without leader   1030 ms\n",
            "  in doubt                 p50 3.0 ms, p99 3.0 ms, max 400.0 ms\n",
            "  total after              1234.56\n",
            "  bank killed              2 times\n",
            "The audit holds",
        ] {
            assert!(text.contains(line), "{text}\nhas no\n{line}");
        }
    }

    #[test]
    fn it_holds_only_if_everything_is_definite_and_nothing_was_found() {
        assert!(report(outcomes(), clean()).holds());
        let mut unknown = outcomes();
        unknown[1] = Told::Unknown("patience is over".to_owned());
        assert!(!report(unknown, clean()).holds());
        let mut refused = outcomes();
        refused[1] = Told::Refused("no such participant".to_owned());
        assert!(!report(refused, clean()).holds());
        let mut unfinished = report(outcomes(), clean());
        unfinished.transfers += 1;
        assert!(!unfinished.holds());
        let violation = Violation::MoneyCreated { cents: 1 };
        let violated = report(
            outcomes(),
            Audit {
                violations: vec![violation.clone(); 23],
                ..clean()
            },
        );
        assert!(!violated.holds());
        assert_eq!((violated.violations, violated.first_violations.len()), (23, 20));
        let text = violated.to_string();
        assert!(
            text.contains("and 3 more") && text.ends_with("THE AUDIT DOES NOT HOLD."),
            "{text}"
        );
        assert!(
            !report(
                outcomes(),
                Audit {
                    total_after: 123_457,
                    ..clean()
                }
            )
            .holds()
        );
    }
}
