//! Every metric of a coordinator node: its name, its labels and what it means. `docs/operations.md` says what to conclude
//! from each, and a test keeps the two alike.
//!
//! Nothing here knows who collects: whoever runs a node installs a recorder of the `metrics` crate before the node
//! starts, or none. All labels have few values: never an id, a name that somebody chose, or free text (R14).

use std::time::Duration;

use metrics::{Unit, counter, gauge, histogram};
use unanimo_core::{AbortReason, Decision};
use unanimo_proto::ErrorReason;

const TRANSACTIONS: &str = "unanimo_coordinator_transactions_total";
const DECISION_TIME: &str = "unanimo_coordinator_decision_seconds";
const IN_FLIGHT: &str = "unanimo_coordinator_in_flight";
const COMPLETING: &str = "unanimo_coordinator_completing";
const ADOPTED: &str = "unanimo_coordinator_adopted_total";
const INQUIRY_CALLS: &str = "unanimo_coordinator_inquiry_calls_total";
const INQUIRIES: &str = "unanimo_coordinator_inquiries_total";
const IS_LEADER: &str = "unanimo_coordinator_is_leader";
const LEADER_KNOWN: &str = "unanimo_coordinator_leader_known";
const LEADER_CHANGES: &str = "unanimo_coordinator_leader_changes_total";
const TERM: &str = "unanimo_coordinator_term";
const UNAPPLIED: &str = "unanimo_coordinator_unapplied_entries";
const REFUSALS: &str = "unanimo_coordinator_refusals_total";
const REPLIES_REFUSED: &str = "unanimo_coordinator_replies_refused_total";
const WATERMARK_AGE: &str = "unanimo_coordinator_watermark_age_seconds";
const FORGOTTEN: &str = "unanimo_coordinator_forgotten_total";
const ALARMS: &str = "unanimo_coordinator_alarms_total";

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

const fn metric(name: &'static str, kind: Kind, unit: Unit, meaning: &'static str) -> Metric {
    Metric {
        name,
        kind,
        unit,
        meaning,
    }
}

const ALL: [Metric; 17] = {
    use Kind::{Counter, Gauge, Histogram};
    [
        metric(
            TRANSACTIONS,
            Counter,
            Unit::Count,
            "Decisions that this node recorded as the leader, by outcome and by why it aborted.",
        ),
        metric(
            DECISION_TIME,
            Histogram,
            Unit::Seconds,
            "From the start of a run on this leader until its decision was recorded.",
        ),
        metric(
            IN_FLIGHT,
            Gauge,
            Unit::Count,
            "Transactions that are voting or deciding here.",
        ),
        metric(
            COMPLETING,
            Gauge,
            Unit::Count,
            "Decided transactions that wait here for an acknowledgement.",
        ),
        metric(
            ADOPTED,
            Counter,
            Unit::Count,
            "Undecided transactions taken over because a participant asked about them.",
        ),
        metric(
            INQUIRY_CALLS,
            Counter,
            Unit::Count,
            "Calls of participants that ask for decisions.",
        ),
        metric(
            INQUIRIES,
            Counter,
            Unit::Count,
            "Branches asked about, by the answer.",
        ),
        metric(
            IS_LEADER,
            Gauge,
            Unit::Count,
            "1 if this node leads and takes transactions, else 0.",
        ),
        metric(
            LEADER_KNOWN,
            Gauge,
            Unit::Count,
            "1 if this node knows a leader, itself included, else 0.",
        ),
        metric(
            LEADER_CHANGES,
            Counter,
            Unit::Count,
            "New leaders that this node has seen.",
        ),
        metric(
            TERM,
            Gauge,
            Unit::Count,
            "The latest term that this node knows of.",
        ),
        metric(
            UNAPPLIED,
            Gauge,
            Unit::Count,
            "Entries of the log that this node has and has yet to apply.",
        ),
        metric(
            REFUSALS,
            Counter,
            Unit::Count,
            "Calls refused, by call and reason.",
        ),
        metric(
            REPLIES_REFUSED,
            Counter,
            Unit::Count,
            "Votes and acknowledgements that were not counted, by why.",
        ),
        metric(
            WATERMARK_AGE,
            Gauge,
            Unit::Seconds,
            "How far the watermark lies behind this node's clock.",
        ),
        metric(
            FORGOTTEN,
            Counter,
            Unit::Count,
            "Decisions forgotten by this node as the leader.",
        ),
        metric(
            ALARMS,
            Counter,
            Unit::Count,
            "Broken rules of the protocol that this node has seen. Anything but zero is an alarm.",
        ),
    ]
};

/// Every way to end, with its labels.
const OUTCOMES: [(&str, &str); 5] = [
    ("committed", "none"),
    ("aborted", "voted_no"),
    ("aborted", "deadline_passed"),
    ("aborted", "requested"),
    ("aborted", "presumed"),
];

/// Tells the recorder what there is, and shows everything from the start: a counter that appears only with its first
/// event hides that event from whoever computes rates.
pub(crate) fn describe() {
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
    for (outcome, reason) in OUTCOMES {
        counter!(TRANSACTIONS, "outcome" => outcome, "reason" => reason).absolute(0);
    }
    for outcome in ["committed", "aborted"] {
        let _ = histogram!(DECISION_TIME, "outcome" => outcome);
    }
    for name in [ADOPTED, INQUIRY_CALLS, LEADER_CHANGES, FORGOTTEN] {
        counter!(name).absolute(0);
    }
    for answer in [
        Answered::Committed,
        Answered::Aborted,
        Answered::Undecided,
        Answered::Refused,
    ] {
        counter!(INQUIRIES, "answer" => answer.label()).absolute(0);
    }
    for alarm in [Alarm::DecisionChanged, Alarm::DecisionRefused] {
        counter!(ALARMS, "kind" => alarm.label()).absolute(0);
    }
    for call in Call::ALL {
        // The rest of the reasons appear when they occur; these are the ones to alarm on.
        for reason in [ErrorReason::Overloaded, ErrorReason::WrongCluster] {
            counter!(REFUSALS, "call" => call.label(), "reason" => reason.as_str()).absolute(0);
        }
    }
    for reply in [Reply::Vote, Reply::Acknowledgement] {
        counter!(REPLIES_REFUSED, "reply" => reply.label(), "reason" => Mistrust::WrongSender.label())
            .absolute(0);
    }
}

/// The calls of `unanimo.v1.Coordinator`.
#[derive(Clone, Copy)]
pub(crate) enum Call {
    Submit,
    Begin,
    Commit,
    Abort,
    GetOutcome,
    Inquire,
    Register,
}

impl Call {
    const ALL: [Self; 7] = [
        Self::Submit,
        Self::Begin,
        Self::Commit,
        Self::Abort,
        Self::GetOutcome,
        Self::Inquire,
        Self::Register,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Begin => "begin",
            Self::Commit => "commit",
            Self::Abort => "abort",
            Self::GetOutcome => "get_outcome",
            Self::Inquire => "inquire",
            Self::Register => "register",
        }
    }
}

/// A call was refused; a reason is missing if the refusal is not one of ours.
pub(crate) fn refused(call: Call, reason: Option<ErrorReason>) {
    let reason = reason.map_or("OTHER", ErrorReason::as_str);
    counter!(REFUSALS, "call" => call.label(), "reason" => reason).increment(1);
}

/// What a branch in doubt was told.
#[derive(Clone, Copy)]
pub(crate) enum Answered {
    Committed,
    Aborted,
    Undecided,
    /// The question is refused; the others of its call are answered.
    Refused,
}

impl Answered {
    const fn label(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::Undecided => "undecided",
            Self::Refused => "refused",
        }
    }
}

/// A call of a participant that asked was answered.
pub(crate) fn inquired(answers: impl IntoIterator<Item = Answered>) {
    counter!(INQUIRY_CALLS).increment(1);
    for answer in answers {
        counter!(INQUIRIES, "answer" => answer.label()).increment(1);
    }
}

/// A decision of ours was recorded.
pub(crate) fn decided(decision: &Decision) {
    let (outcome, reason) = match decision {
        Decision::Commit => ("committed", "none"),
        Decision::Abort(AbortReason::VotedNo { .. }) => ("aborted", "voted_no"),
        Decision::Abort(AbortReason::DeadlinePassed { .. }) => ("aborted", "deadline_passed"),
        Decision::Abort(AbortReason::Requested) => ("aborted", "requested"),
        Decision::Abort(AbortReason::Presumed) => ("aborted", "presumed"),
    };
    counter!(TRANSACTIONS, "outcome" => outcome, "reason" => reason).increment(1);
}

/// A run has its decision.
pub(crate) fn took(decision: &Decision, time: Duration) {
    let outcome = if decision.is_commit() {
        "committed"
    } else {
        "aborted"
    };
    histogram!(DECISION_TIME, "outcome" => outcome).record(time);
}

/// An undecided transaction is taken over.
pub(crate) fn adopted() {
    counter!(ADOPTED).increment(1);
}

/// What a participant answers.
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    Vote,
    Acknowledgement,
}

impl Reply {
    const fn label(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Acknowledgement => "acknowledgement",
        }
    }
}

/// Why an answer of a participant is not counted.
#[derive(Clone, Copy)]
pub(crate) enum Mistrust {
    /// It is that of another participant, cluster or transaction than was asked.
    WrongSender,
    /// It makes no sense.
    Malformed,
    /// It comes from another start of the participant than the one that is registered (R11).
    OtherGeneration,
    /// The participant has come up again since it voted (R11).
    Superseded,
}

impl Mistrust {
    const fn label(self) -> &'static str {
        match self {
            Self::WrongSender => "wrong_sender",
            Self::Malformed => "malformed",
            Self::OtherGeneration => "other_generation",
            Self::Superseded => "superseded",
        }
    }
}

/// So many answers of participants were not counted.
pub(crate) fn mistrusted(reply: Reply, why: Mistrust, count: usize) {
    counter!(REPLIES_REFUSED, "reply" => reply.label(), "reason" => why.label()).increment(count as u64);
}

/// So many decisions were forgotten.
pub(crate) fn forgotten(count: usize) {
    counter!(FORGOTTEN).increment(count as u64);
}

/// A broken rule of the protocol (R9).
#[derive(Clone, Copy)]
pub(crate) enum Alarm {
    /// The table told two decisions of one transaction.
    DecisionChanged,
    /// A participant refuses a decision: it knows another as final.
    DecisionRefused,
}

impl Alarm {
    const fn label(self) -> &'static str {
        match self {
            Self::DecisionChanged => "decision_changed",
            Self::DecisionRefused => "decision_refused",
        }
    }
}

/// Somebody has to look.
pub(crate) fn alarm(alarm: Alarm) {
    counter!(ALARMS, "kind" => alarm.label()).increment(1);
}

/// This node has heard of a new leader.
pub(crate) fn leader_changed() {
    counter!(LEADER_CHANGES).increment(1);
}

/// How a node stands at one moment.
pub(crate) struct Standing {
    pub(crate) leads: bool,
    pub(crate) leader_known: bool,
    pub(crate) term: u64,
    pub(crate) in_flight: usize,
    pub(crate) completing: usize,
    pub(crate) unapplied: u64,
    /// None before the first transaction was closed.
    pub(crate) watermark_age: Option<Duration>,
}

impl Standing {
    /// Sets every gauge.
    #[allow(
        clippy::cast_precision_loss,
        reason = "a gauge is a float, and counts stay far below 2^53"
    )]
    pub(crate) fn show(&self) {
        gauge!(IS_LEADER).set(f64::from(u8::from(self.leads)));
        gauge!(LEADER_KNOWN).set(f64::from(u8::from(self.leader_known)));
        gauge!(TERM).set(self.term as f64);
        gauge!(IN_FLIGHT).set(self.in_flight as f64);
        gauge!(COMPLETING).set(self.completing as f64);
        gauge!(UNAPPLIED).set(self.unapplied as f64);
        gauge!(WATERMARK_AGE).set(self.watermark_age.unwrap_or_default().as_secs_f64());
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
        assert_eq!(named(page, "unanimo_coordinator_"), there_are);
    }

    #[test]
    fn names_and_units_agree() {
        for Metric { name, kind, unit, .. } in ALL {
            assert_eq!(name.ends_with("_total"), matches!(kind, Kind::Counter), "{name}");
            assert_eq!(name.ends_with("_seconds"), unit == Unit::Seconds, "{name}");
        }
    }
}
