//! What has to happen sometimes: a set of runs in which one of these never did has not tried what it should.

use std::collections::BTreeMap;

/// Defines the counters once: their places, their names in reports, and what they mean.
macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// Something that has to happen sometimes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Sometimes {
            $($(#[$doc])* $variant,)*
        }

        const NAMES: &[&str] = &[$($name),*];
    };
}

counters! {
    Committed "committed";
    Aborted "aborted";
    CrashedBetweenVoteAndDecision "crashed_between_vote_and_decision";
    CrashedBeforeThePromiseWasOnDisk "crashed_before_the_promise_was_on_disk";
    CrashedBetweenEffectAndRecord "crashed_between_effect_and_record";
    CrashedInRecovery "crashed_in_recovery";
    LeaderCrashedWhileVoting "leader_crashed_while_voting";
    LeaderCrashedWhileDeciding "leader_crashed_while_deciding";
    LeaderCrashedWhileDelivering "leader_crashed_while_delivering";
    AdoptedByANewLeader "adopted_by_a_new_leader";
    AdoptedByTheLeaderThatDroppedIt "adopted_by_the_leader_that_dropped_it";
    AdoptedAndCommitted "adopted_and_committed";
    ResumedByANewLeader "resumed_by_a_new_leader";
    ResumedByTheSameLeader "resumed_by_the_same_leader";
    TombstoneRefusedAPrepare "tombstone_refused_a_prepare";
    RepeatedPrepareAnsweredYes "repeated_prepare_answered_yes";
    DuplicateAnsweredFromTheTable "duplicate_answered_from_the_table";
    DuplicateJoinedARun "duplicate_joined_a_run";
    RivalRequestWaited "rival_request_waited";
    RivalRequestRefused "rival_request_refused";
    SecondDecisionFoundTheFirst "second_decision_found_the_first";
    CommitLostItsRace "commit_lost_its_race";
    VotesSuperseded "votes_superseded";
    ProposalLostWithItsLeader "proposal_lost_with_its_leader";
    ProposalTimedOut "proposal_timed_out";
    TimedOutProposalApplied "timed_out_proposal_applied";
    TwoLeadersAtOnce "two_leaders_at_once";
    SnapshotInstalled "snapshot_installed";
    EntriesAppliedAgain "entries_applied_again";
    StaleLeaderFoundOut "stale_leader_found_out";
    InquiryAnsweredByAFollower "inquiry_answered_by_a_follower";
    ClosedWithoutARecordMeantAbort "closed_without_a_record_meant_abort";
    ForgottenAndLateMessageExpired "forgotten_and_late_message_expired";
    LateCommitOfTheForgottenAcknowledged "late_commit_of_the_forgotten_acknowledged";
    CommitForgotten "commit_forgotten";
    AbortForgotten "abort_forgotten";
    CommitKeptBeyondTheWindow "commit_kept_beyond_the_window";
    InitiatorToldExpired "initiator_told_expired";
    IdTooFarAhead "id_too_far_ahead";
    KeyFoundItsTransaction "key_found_its_transaction";
    KeyReleased "key_released";
    PartOfTheTailSurvived "part_of_the_tail_survived";
    UnforcedRecordSurvived "unforced_record_survived";
    DiskFailedAndNodeStopped "disk_failed_and_node_stopped";
    OldCopyRefused "old_copy_refused";
    OldCopyAccepted "old_copy_accepted";
    MessageOutlivedItsSender "message_outlived_its_sender";
    LateMessageReachedALaterLife "late_message_reached_a_later_life";
    CommitRepeatedAfterItsEffect "commit_repeated_after_its_effect";
    OnlyRead "only_read";
    OverloadedCoordinatorRefused "overloaded_coordinator_refused";
    OverloadedParticipantRefused "overloaded_participant_refused";
    DeliveryParked "delivery_parked";
    InteractiveCommitted "interactive_committed";
    JoinedWorkExpired "joined_work_expired";
    JoinedWorkLostInACrash "joined_work_lost_in_a_crash";
    AbortAskedAndRecordedForNobody "abort_asked_and_recorded_for_nobody";
    OutcomeUnknownToItsInitiator "outcome_unknown_to_its_initiator";
    UnknownOutcomeAskedAgain "unknown_outcome_asked_again";
    UndecidedTold "undecided_told";
}

/// How often each has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counters {
    counts: Vec<u64>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            counts: vec![0; NAMES.len()],
        }
    }
}

impl Counters {
    pub(crate) fn count(&mut self, what: Sometimes) {
        self.counts[what as usize] += 1;
    }

    pub(crate) fn add(&mut self, others: &Self) {
        for (count, other) in self.counts.iter_mut().zip(&others.counts) {
            *count += other;
        }
    }

    /// All by name.
    pub(crate) fn list(&self) -> BTreeMap<&'static str, u64> {
        NAMES.iter().copied().zip(self.counts.iter().copied()).collect()
    }

    /// What never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let zero = NAMES.iter().zip(&self.counts).filter(|(_, count)| **count == 0);
        zero.map(|(name, _)| *name).collect()
    }
}
