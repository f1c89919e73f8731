//! What the driver cannot do, as gRPC statuses. The only place where they meet.

use std::time::Duration;

use tonic::Status;
use unanimo_proto::{ErrorReason, refusal, with_retry_after};

use super::admission::Crowded;
use crate::driver::DriverError;

/// When to try again while there is no leader. An election takes several times as long, but the new leader should
/// not wait for its callers.
const NO_LEADER_PAUSE: Duration = Duration::from_millis(50);
/// When to try again after an overload: long enough for some of what is in flight to finish.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(100);

/// When to try again to register while there are too many participants: an operator has to do something first.
const CROWDED_PAUSE: Duration = Duration::from_secs(5);

impl From<DriverError> for Status {
    fn from(error: DriverError) -> Self {
        let message = error.to_string();
        match error {
            DriverError::NotLeader => no_leader(),
            // For the caller the same: nothing was started, and another node will take it.
            DriverError::HandingOver => with_retry_after(ErrorReason::NoLeader, message, NO_LEADER_PAUSE),
            DriverError::Unknown => with_retry_after(ErrorReason::OutcomeUnknown, message, NO_LEADER_PAUSE),
            DriverError::Overloaded { .. } => {
                with_retry_after(ErrorReason::Overloaded, message, OVERLOAD_PAUSE)
            }
            DriverError::TooManyParticipants { .. } => {
                with_retry_after(ErrorReason::Overloaded, message, CROWDED_PAUSE)
            }
            DriverError::NotAllowed(_) | DriverError::TooLarge { .. } => {
                refusal(ErrorReason::Malformed, message)
            }
            DriverError::UnknownParticipant { .. } => refusal(ErrorReason::UnknownParticipant, message),
            DriverError::Mismatch { .. } => refusal(ErrorReason::RequestMismatch, message),
            DriverError::Expired { .. } => refusal(ErrorReason::Expired, message),
            DriverError::Premature { .. } => refusal(ErrorReason::Premature, message),
            DriverError::Outdated(_) => refusal(ErrorReason::Outdated, message),
            DriverError::StorageFailed(_) => refusal(ErrorReason::StorageFailed, message),
        }
    }
}

impl From<Crowded> for Status {
    fn from(crowded: Crowded) -> Self {
        let message = format!(
            "more than {} interactive transactions begin in a second, the limit of this node; nothing was started",
            crowded.per_second
        );
        with_retry_after(ErrorReason::Overloaded, message, crowded.retry_after)
    }
}

/// There is no leader that this node knows of and can reach; nothing was started.
pub(super) fn no_leader() -> Status {
    with_retry_after(
        ErrorReason::NoLeader,
        "no leader is known at the moment; the cluster is electing one, or a majority of its nodes is away",
        NO_LEADER_PAUSE,
    )
}
