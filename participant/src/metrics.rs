//! Every metric of a participant: its name, its labels and what it means. `docs/operations.md` says what to conclude from
//! each, and a test keeps the two alike.
//!
//! Nothing here knows who collects: the service that embeds the participant installs a recorder of the `metrics` crate
//! before it starts the participant, or none. Every metric carries the participant's own name, so that two in one process
//! are told apart; all other labels have few values, never an id or free text (R14).

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use unanimo_core::ParticipantId;
use unanimo_proto::{BadContext, ErrorReason};

use crate::JoinError;

const IN_DOUBT_TIME: &str = "unanimo_participant_in_doubt_seconds";
const IN_DOUBT: &str = "unanimo_participant_in_doubt";
const OLDEST_IN_DOUBT: &str = "unanimo_participant_oldest_in_doubt_seconds";
const RECOVERED_IN_DOUBT: &str = "unanimo_participant_recovered_in_doubt_total";
const IN_FLIGHT: &str = "unanimo_participant_in_flight";
const REGISTERED: &str = "unanimo_participant_registered";
const INQUIRY_CALLS: &str = "unanimo_participant_inquiry_calls_total";
const INQUIRIES: &str = "unanimo_participant_inquiries_total";
const INQUIRIES_REFUSED: &str = "unanimo_participant_inquiries_refused_total";
const VOTES: &str = "unanimo_participant_votes_total";
const BRANCHES: &str = "unanimo_participant_branches_total";
const JOINS: &str = "unanimo_participant_joins_total";
const JOINS_EXPIRED: &str = "unanimo_participant_joins_expired_total";
const BAD_CONTEXTS: &str = "unanimo_participant_bad_contexts_total";
const REFUSALS: &str = "unanimo_participant_refusals_total";
const DUPLICATES: &str = "unanimo_participant_duplicates_total";
const VIOLATIONS: &str = "unanimo_participant_violations_total";
const RESOURCE_MANAGER_ERRORS: &str = "unanimo_participant_resource_manager_errors_total";

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric as whoever collects it is told of it.
struct Metric {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    meaning: &'static str,
}

const fn count(name: &'static str, meaning: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        unit: Unit::Count,
        meaning,
    }
}

const fn level(name: &'static str, unit: Unit, meaning: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        unit,
        meaning,
    }
}

const ALL: [Metric; 18] = [
    Metric {
        name: IN_DOUBT_TIME,
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        meaning: "From a branch's promise until its decision was known here, by the decision.",
    },
    level(
        IN_DOUBT,
        Unit::Count,
        "Branches that have promised and do not know the decision.",
    ),
    level(
        OLDEST_IN_DOUBT,
        Unit::Seconds,
        "For how long the oldest of them has been in doubt; 0 if there is none.",
    ),
    count(
        RECOVERED_IN_DOUBT,
        "Branches that were in doubt when this process started.",
    ),
    level(IN_FLIGHT, Unit::Count, "Branches that are not finished."),
    level(
        REGISTERED,
        Unit::Count,
        "1 once the cluster has confirmed this start, else 0: nothing new is promised.",
    ),
    count(INQUIRY_CALLS, "Calls that asked for decisions."),
    count(INQUIRIES, "Branches asked about, each time it was asked."),
    count(
        INQUIRIES_REFUSED,
        "Questions about branches that the coordinators refused to answer.",
    ),
    count(VOTES, "Votes by kind, without repeats."),
    count(BRANCHES, "Finished branches that held something, by outcome."),
    count(
        JOINS,
        "Operations of interactive transactions, by what became of them.",
    ),
    count(
        JOINS_EXPIRED,
        "Branches of interactive transactions let go because nobody asked for their vote in time.",
    ),
    count(
        BAD_CONTEXTS,
        "Calls refused because of their transaction's context, by what is wrong with it.",
    ),
    count(REFUSALS, "Messages refused, by call and reason."),
    count(
        DUPLICATES,
        "Messages that came again or too late, and changed nothing.",
    ),
    count(
        VIOLATIONS,
        "Messages that no coordinator which keeps the rules sends. Anything but zero is an alarm.",
    ),
    count(
        RESOURCE_MANAGER_ERRORS,
        "Calls of the resource manager that were unavailable or panicked.",
    ),
];

/// The calls of `unanimo.v1.Participant`.
#[derive(Clone, Copy)]
pub(crate) enum Call {
    Prepare,
    Commit,
    Abort,
}

impl Call {
    const fn label(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Commit => "commit",
            Self::Abort => "abort",
        }
    }
}

/// The metrics of one participant.
#[derive(Clone)]
pub(crate) struct Metrics {
    participant: String,
}

impl Metrics {
    /// Tells the recorder what there is, and shows the counters from the start: one that appears only with its first
    /// event hides that event from whoever computes rates.
    pub(crate) fn new(participant: &ParticipantId) -> Self {
        for Metric {
            name,
            kind,
            unit,
            meaning,
        } in ALL
        {
            match kind {
                Kind::Counter => metrics::describe_counter!(name, unit, meaning),
                Kind::Gauge => metrics::describe_gauge!(name, unit, meaning),
                Kind::Histogram => metrics::describe_histogram!(name, unit, meaning),
            }
        }
        let this = Self {
            participant: participant.to_string(),
        };
        for result in ["joined", "refused"] {
            this.joins(result).absolute(0);
        }
        for kind in ["wrong_tag", "other_cluster", "expired"] {
            this.bad_contexts(kind).absolute(0);
        }
        for call in [Call::Prepare, Call::Commit, Call::Abort] {
            // The rest of the reasons appear when they occur; these are the ones to alarm on.
            for reason in [ErrorReason::Violation, ErrorReason::WrongCluster] {
                this.refusals(call, reason).absolute(0);
            }
        }
        this
    }

    fn name(&self) -> String {
        self.participant.clone()
    }

    /// How long branches were in doubt that were decided so.
    pub(crate) fn in_doubt_time(&self, decision: &'static str) -> Histogram {
        histogram!(IN_DOUBT_TIME, "participant" => self.name(), "decision" => decision)
    }

    pub(crate) fn recovered_in_doubt(&self) -> Counter {
        counter!(RECOVERED_IN_DOUBT, "participant" => self.name())
    }

    pub(crate) fn inquiry_calls(&self) -> Counter {
        counter!(INQUIRY_CALLS, "participant" => self.name())
    }

    pub(crate) fn inquiries(&self) -> Counter {
        counter!(INQUIRIES, "participant" => self.name())
    }

    pub(crate) fn inquiries_refused(&self) -> Counter {
        counter!(INQUIRIES_REFUSED, "participant" => self.name())
    }

    pub(crate) fn votes(&self, vote: &'static str) -> Counter {
        counter!(VOTES, "participant" => self.name(), "vote" => vote)
    }

    pub(crate) fn branches(&self, outcome: &'static str) -> Counter {
        counter!(BRANCHES, "participant" => self.name(), "outcome" => outcome)
    }

    pub(crate) fn joins_expired(&self) -> Counter {
        counter!(JOINS_EXPIRED, "participant" => self.name())
    }

    pub(crate) fn duplicates(&self) -> Counter {
        counter!(DUPLICATES, "participant" => self.name())
    }

    pub(crate) fn violations(&self) -> Counter {
        counter!(VIOLATIONS, "participant" => self.name())
    }

    pub(crate) fn resource_manager_errors(&self) -> Counter {
        counter!(RESOURCE_MANAGER_ERRORS, "participant" => self.name())
    }

    fn joins(&self, result: &'static str) -> Counter {
        counter!(JOINS, "participant" => self.name(), "result" => result)
    }

    fn bad_contexts(&self, kind: &'static str) -> Counter {
        counter!(BAD_CONTEXTS, "participant" => self.name(), "kind" => kind)
    }

    fn refusals(&self, call: Call, reason: ErrorReason) -> Counter {
        counter!(REFUSALS, "participant" => self.name(), "call" => call.label(), "reason" => reason.as_str())
    }

    /// A message was refused.
    pub(crate) fn refused(&self, call: Call, reason: ErrorReason) {
        self.refusals(call, reason).increment(1);
    }

    /// A context was not fit for use.
    pub(crate) fn bad_context(&self, error: &BadContext) {
        let kind = match error {
            BadContext::Unreadable { .. } => "unreadable",
            BadContext::OtherForm { .. } => "other_form",
            BadContext::WrongTag { .. } => "wrong_tag",
            BadContext::Malformed { .. } => "malformed",
            BadContext::OtherCluster { .. } => "other_cluster",
            BadContext::Expired { .. } => "expired",
            BadContext::Ahead { .. } => "ahead",
        };
        self.bad_contexts(kind).increment(1);
    }

    /// What became of an operation of an interactive transaction.
    pub(crate) fn joined(&self, result: &Result<(), JoinError>) {
        let result = match result {
            Ok(()) => "joined",
            Err(JoinError::Refused { .. }) => "refused",
            Err(JoinError::Busy) => "busy",
            Err(JoinError::BadContext(_)) => "bad_context",
            Err(JoinError::TooLarge { .. }) => "too_large",
            Err(JoinError::TooLate) => "too_late",
            Err(JoinError::NotStarted(_)) => "not_started",
            Err(JoinError::Unknown(_)) => "unknown",
        };
        self.joins(result).increment(1);
    }

    pub(crate) fn gauges(&self) -> Gauges {
        Gauges {
            in_doubt: gauge!(IN_DOUBT, "participant" => self.name()),
            oldest_in_doubt: gauge!(OLDEST_IN_DOUBT, "participant" => self.name()),
            in_flight: gauge!(IN_FLIGHT, "participant" => self.name()),
            registered: gauge!(REGISTERED, "participant" => self.name()),
        }
    }
}

/// How a participant stands at one moment.
pub(crate) struct Gauges {
    in_doubt: Gauge,
    oldest_in_doubt: Gauge,
    in_flight: Gauge,
    registered: Gauge,
}

impl Gauges {
    #[allow(
        clippy::cast_precision_loss,
        reason = "a gauge is a float, and counts stay far below 2^53"
    )]
    pub(crate) fn show(&self, in_doubt: usize, oldest: Option<Duration>, in_flight: usize, registered: bool) {
        self.in_doubt.set(in_doubt as f64);
        self.oldest_in_doubt.set(oldest.unwrap_or_default().as_secs_f64());
        self.in_flight.set(in_flight as f64);
        self.registered.set(f64::from(u8::from(registered)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names in backticks that begin with `prefix`.
    fn named<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
        let quoted = text.split('`').skip(1).step_by(2);
        let names = quoted.map(|text| text.split('{').next().unwrap_or_default());
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    #[test]
    fn operators_read_of_every_metric_there_is_and_of_no_other() {
        let there_are: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(there_are.len(), ALL.len(), "no name is given twice");
        let page = include_str!("../../docs/operations.md");
        assert_eq!(named(page, "unanimo_participant_"), there_are);
    }

    #[test]
    fn names_and_units_agree() {
        for Metric { name, kind, unit, .. } in ALL {
            assert_eq!(name.ends_with("_total"), matches!(kind, Kind::Counter), "{name}");
            assert_eq!(name.ends_with("_seconds"), unit == Unit::Seconds, "{name}");
        }
    }
}
