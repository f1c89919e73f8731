//! gRPC status codes and what may be concluded from them, in one place.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every `google.rpc.ErrorInfo` of Unanimo.
pub const ERROR_DOMAIN: &str = "unanimo";

/// The longest hint that is followed.
const LONGEST_HINT: Duration = Duration::from_secs(2);

/// Why a call was refused. Travels as `google.rpc.ErrorInfo.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorReason {
    /// A field is missing, malformed or over a limit.
    Malformed,
    /// The call is meant for another cluster.
    WrongCluster,
    /// The call is meant for another participant or node.
    WrongTarget,
    /// A named participant never registered.
    UnknownParticipant,
    /// The transaction id belongs to a request with other branches.
    RequestMismatch,
    /// Too much is in flight; nothing of this call was started.
    Overloaded,
    /// No leader is known, or it could not be reached.
    NoLeader,
    /// The decision was asked for and it is not known whether it was recorded.
    OutcomeUnknown,
    /// A decision contradicts what this side knows as final.
    Violation,
    /// The participant knows less than it once did: it runs from an old copy of its data.
    Outdated,
    /// The process is stopping.
    ShuttingDown,
    /// The participant is restoring what it promised and takes no traffic yet.
    Recovering,
    /// A write or a forced write failed; the process stops serving.
    StorageFailed,
    /// The node or cluster is not in a state in which the call makes sense.
    BadState,
    /// The transaction is older than what is remembered. What became of it is not known any more, and nothing will
    /// happen under its id again.
    Expired,
    /// The time in the transaction's id lies too far ahead of the cluster's clocks.
    Premature,
    /// The context of an interactive transaction is damaged, of another cluster, or too old.
    BadContext,
}

impl ErrorReason {
    const ALL: [Self; 17] = [
        Self::Malformed,
        Self::WrongCluster,
        Self::WrongTarget,
        Self::UnknownParticipant,
        Self::RequestMismatch,
        Self::Overloaded,
        Self::NoLeader,
        Self::OutcomeUnknown,
        Self::Violation,
        Self::Outdated,
        Self::ShuttingDown,
        Self::Recovering,
        Self::StorageFailed,
        Self::BadState,
        Self::Expired,
        Self::Premature,
        Self::BadContext,
    ];

    /// The reason as it travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "MALFORMED",
            Self::WrongCluster => "WRONG_CLUSTER",
            Self::WrongTarget => "WRONG_TARGET",
            Self::UnknownParticipant => "UNKNOWN_PARTICIPANT",
            Self::RequestMismatch => "REQUEST_MISMATCH",
            Self::Overloaded => "OVERLOADED",
            Self::NoLeader => "NO_LEADER",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::Violation => "VIOLATION",
            Self::Outdated => "OUTDATED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Recovering => "RECOVERING",
            Self::StorageFailed => "STORAGE_FAILED",
            Self::BadState => "BAD_STATE",
            Self::Expired => "EXPIRED",
            Self::Premature => "PREMATURE",
            Self::BadContext => "BAD_CONTEXT",
        }
    }

    /// The reason that travels as this text; none if this version does not know it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    const fn code(self) -> Code {
        match self {
            Self::Malformed | Self::BadContext => Code::InvalidArgument,
            Self::Expired | Self::Premature => Code::OutOfRange,
            Self::UnknownParticipant => Code::NotFound,
            Self::RequestMismatch => Code::AlreadyExists,
            Self::Overloaded => Code::ResourceExhausted,
            Self::NoLeader | Self::ShuttingDown | Self::Recovering => Code::Unavailable,
            Self::OutcomeUnknown => Code::Aborted,
            Self::WrongCluster | Self::WrongTarget | Self::Violation | Self::Outdated | Self::BadState => {
                Code::FailedPrecondition
            }
            Self::StorageFailed => Code::Internal,
        }
    }

    /// Whether the call was refused for good: it started nothing, and repeating it unchanged gets the same answer.
    ///
    /// Even then the *transaction* may be decided by an earlier call with the same id; only a reply tells an
    /// outcome (R13).
    pub const fn is_final(self) -> bool {
        match self {
            Self::Malformed
            | Self::WrongCluster
            | Self::UnknownParticipant
            | Self::RequestMismatch
            | Self::Violation
            | Self::Outdated
            | Self::Expired
            | Self::BadContext => true,
            Self::WrongTarget
            // Time makes it untrue, and two leaders may read different clocks.
            | Self::Premature
            | Self::Overloaded
            | Self::NoLeader
            | Self::OutcomeUnknown
            | Self::ShuttingDown
            | Self::Recovering
            | Self::StorageFailed
            | Self::BadState => false,
        }
    }
}

/// A refusal with its reason, for people and for programs.
pub fn refusal(reason: ErrorReason, message: impl Into<String>) -> Status {
    Status::with_error_details(
        reason.code(),
        message.into(),
        ErrorDetails::with_error_info(reason.as_str(), ERROR_DOMAIN, []),
    )
}

/// A refusal that says when to try again (R14).
pub fn with_retry_after(reason: ErrorReason, message: impl Into<String>, delay: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason.as_str(), ERROR_DOMAIN, []);
    details.set_retry_info(Some(delay));
    Status::with_error_details(reason.code(), message.into(), details)
}

/// The reason of a refusal, if it came from Unanimo: not from a proxy, a broken connection or an expired deadline.
pub fn reason_of(status: &Status) -> Option<ErrorReason> {
    let info = status.get_details_error_info()?;
    if info.domain != ERROR_DOMAIN {
        return None;
    }
    ErrorReason::parse(&info.reason)
}

/// When the refusing side suggests to try again, two seconds at most: nobody of ours suggests more, anybody on the way
/// may have written it, and it is computed with.
pub fn retry_after(status: &Status) -> Option<Duration> {
    let hint = status.get_details_retry_info()?.retry_delay?;
    Some(hint.min(LONGEST_HINT))
}

/// Whether repeating the call unchanged is pointless.
pub fn definite(status: &Status) -> bool {
    reason_of(status).is_some_and(ErrorReason::is_final)
}

/// Whether the call was refused for what it says: it started nothing, and at most a clock that is set right helps.
pub fn refused(status: &Status) -> bool {
    definite(status) || reason_of(status) == Some(ErrorReason::Premature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in ErrorReason::ALL {
            let status = with_retry_after(reason, "why", Duration::from_millis(250));
            assert_eq!(reason_of(&status), Some(reason));
            assert_eq!(retry_after(&status), Some(Duration::from_millis(250)));
            assert_eq!(status.message(), "why");
        }
    }

    #[test]
    fn no_hint_is_longer_than_anybody_should_wait() {
        for seconds in [3, 3600, i64::MAX as u64] {
            let hint = Duration::from_secs(seconds);
            let status = with_retry_after(ErrorReason::NoLeader, "electing", hint);
            assert_eq!(retry_after(&status), Some(LONGEST_HINT));
        }
    }

    #[test]
    fn an_id_ahead_of_its_time_is_refused_but_not_for_good() {
        let premature = refusal(ErrorReason::Premature, "a day ahead");
        assert!(refused(&premature) && !definite(&premature));
        let malformed = refusal(ErrorReason::Malformed, "no");
        assert!(refused(&malformed) && definite(&malformed));
        assert!(!refused(&refusal(ErrorReason::NoLeader, "electing")));
    }

    #[test]
    fn a_status_of_somebody_else_has_no_reason_and_is_never_definite() {
        let foreign = Status::with_error_details(
            Code::InvalidArgument,
            "no",
            ErrorDetails::with_error_info("MALFORMED", "example.org", []),
        );
        for status in [
            foreign,
            Status::deadline_exceeded("late"),
            Status::unavailable("gone"),
        ] {
            assert_eq!(reason_of(&status), None);
            assert!(!definite(&status));
        }
    }
}
