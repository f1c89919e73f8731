//! The report as a table for people.

use std::fmt;

use crate::InDoubt;
use crate::distribution::Quantiles;
use crate::report::{ElectionTimeout, Report};

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
        if self.leader_kills > 0 {
            let ElectionTimeout { min, max } = self.election_timeout_ms;
            line(f, "election timeouts", &format!("{min} to {max} ms"))?;
            let InDoubt { times: spread, count } = &self.in_doubt_ms;
            let in_doubt = format!("{}, of {count} branches", times(spread));
            line(f, "in doubt at its death", &in_doubt)?;
        }
        line(f, "in doubt", &times(&self.in_doubt_all_ms.times))?;
        if self.audits + self.audits_refused + self.audits_unknown > 0 {
            let audits = format!(
                "{} while transfers ran, {} wrong, {} more made way",
                self.audits, self.audits_wrong, self.audits_refused
            );
            line(f, "audits", &audits)?;
        }
        line(f, "total before", &money(self.total_before))?;
        line(f, "total after", &money(self.total_after))?;
        line(
            f,
            "aborted fully prepared",
            &self.aborted_fully_prepared.to_string(),
        )?;
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
