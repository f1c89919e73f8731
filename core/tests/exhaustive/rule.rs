//! The rules that a step may break, and what steps do that is worth counting.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// What `docs/protocol.md` promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rule {
    OneDecision,
    DecideBeforeSpeak,
    Promise,
    NoIsRemembered,
    PresumedAbort,
    TakeoverAdopts,
    ForgetLate,
    Once,
    KnowEachOther,
    Atomicity,
    Validity,
    NoAlarm,
}

/// What cannot be seen in a state but in how it came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Facts {
    /// The first decision applied for each transaction, also when it is forgotten.
    pub(crate) decided: BTreeMap<u8, Outcome>,
    /// What has been broken on the way here, and how.
    pub(crate) broken: BTreeMap<Rule, &'static str>,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Outcome {
    pub(crate) commit: bool,
    /// None for an abort of whatever was asked.
    pub(crate) request: Option<u8>,
    /// Those that have to hear of it.
    pub(crate) bound: u8,
}

impl Outcome {
    /// Whether this request commits.
    pub(crate) fn commits(self, request: u8) -> bool {
        self.commit && self.request == Some(request)
    }
}

/// Kinds of steps that have to occur in some exploration: a rule that was never in danger has not been tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    AbortOvertookPrepare,
    AbortWhileWorking,
    AbortWhilePromising,
    AcknowledgedAgain,
    AskedAgainByNewLeader,
    CommitRepeatedByResource,
    CrashInDoubt,
    CrashLostPromise,
    CrashLostTombstone,
    DecisionLost,
    ExpiredToInitiator,
    ExpiredToLeader,
    Forgotten,
    HoldRefused,
    InquiryOfClosed,
    KeptForMember,
    LateAcknowledgement,
    LateInquiry,
    Mismatch,
    OldCopyRefused,
    PrepareInDoubt,
    PrepareMetTombstone,
    PrepareOfAnother,
    ReadOnlyThenPromised,
    Superseded,
    UnknownAcknowledged,
}

impl Met {
    pub(crate) const ALL: [Self; 26] = [
        Self::AbortOvertookPrepare,
        Self::AbortWhileWorking,
        Self::AbortWhilePromising,
        Self::AcknowledgedAgain,
        Self::AskedAgainByNewLeader,
        Self::CommitRepeatedByResource,
        Self::CrashInDoubt,
        Self::CrashLostPromise,
        Self::CrashLostTombstone,
        Self::DecisionLost,
        Self::ExpiredToInitiator,
        Self::ExpiredToLeader,
        Self::Forgotten,
        Self::HoldRefused,
        Self::InquiryOfClosed,
        Self::KeptForMember,
        Self::LateAcknowledgement,
        Self::LateInquiry,
        Self::Mismatch,
        Self::OldCopyRefused,
        Self::PrepareInDoubt,
        Self::PrepareMetTombstone,
        Self::PrepareOfAnother,
        Self::ReadOnlyThenPromised,
        Self::Superseded,
        Self::UnknownAcknowledged,
    ];
}

/// How often each kind of step was taken.
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicU64; Met::ALL.len()]);

impl Tally {
    pub(crate) fn met(&self, what: Met) {
        self.0[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn times(&self, what: Met) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }
}
