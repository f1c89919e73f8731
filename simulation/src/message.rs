//! What travels.

use std::fmt;
use std::rc::Rc;

use unanimo_core::table::{DecisionTable, Witness};
use unanimo_core::{
    Decision, Generation, IdempotencyKey, JoinAnswer, Members, Operation, Request, RequestHash, Timestamp,
    TransactionId, Vote,
};

use crate::log::Entry;
use crate::node::Node;

/// One message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) from: Node,
    pub(crate) to: Node,
    /// The life of the receiver that it is for: replies go over the connection of the call, which ends with either
    /// process. A call finds whoever lives at the address.
    pub(crate) life: Option<u32>,
    /// The life of the sender, to which the reply goes.
    pub(crate) sender: u32,
    /// The life of the receiver when it was sent.
    pub(crate) receiver: u32,
    pub(crate) message: Message,
}

/// What an initiator asks a coordinator.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Submit {
        transaction: TransactionId,
        request: Rc<Request>,
        key: Option<IdempotencyKey>,
    },
    Begin,
    Commit {
        transaction: TransactionId,
        members: Rc<Members>,
    },
    Abort {
        transaction: TransactionId,
        members: Rc<Members>,
    },
    Outcome {
        transaction: TransactionId,
    },
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Decided {
        transaction: TransactionId,
        decision: Decision,
    },
    Begun(Timestamp),
    /// Only to who asked for the outcome.
    Undecided,
    Refused(Why),
}

/// Why a call was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    NoLeader,
    /// It is not known whether anything was recorded.
    Unknown,
    Overloaded,
    Premature,
    UnknownParticipant,
    Mismatch,
    Expired,
    Unregistered,
    Violation,
}

impl Why {
    /// Whether nobody has to ask again.
    pub(crate) const fn is_final(self) -> bool {
        matches!(
            self,
            Self::UnknownParticipant | Self::Mismatch | Self::Expired | Self::Violation
        )
    }

    /// Whether this call has started nothing.
    pub(crate) const fn is_harmless(self) -> bool {
        matches!(self, Self::NoLeader | Self::Overloaded | Self::Premature)
    }
}

/// A branch in doubt.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) transaction: TransactionId,
    pub(crate) request_hash: RequestHash,
    pub(crate) members: Members,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InquiryAnswer {
    Decided(Decision),
    Undecided,
    Refused(Why),
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// Initiator to coordinator.
    Call {
        call: u64,
        ask: Ask,
    },
    Told {
        call: u64,
        told: Told,
    },
    /// Initiator to participant: the application's own call.
    Join {
        call: u64,
        transaction: TransactionId,
        operation: Operation,
        remaining_ms: u64,
    },
    /// None: the participant does not take part now, and nothing was changed.
    Joined {
        call: u64,
        transaction: TransactionId,
        answer: Option<(Generation, JoinAnswer)>,
    },
    Prepare {
        transaction: TransactionId,
        members: Rc<Members>,
        request_hash: RequestHash,
        operation: Option<Operation>,
        remaining_ms: u64,
        watermark: Option<TransactionId>,
    },
    Voted {
        transaction: TransactionId,
        request_hash: RequestHash,
        vote: Vote,
        witness: Option<Witness>,
    },
    Deliver {
        transaction: TransactionId,
        request_hash: RequestHash,
        commit: bool,
        watermark: Option<TransactionId>,
    },
    Acknowledged {
        transaction: TransactionId,
        request_hash: RequestHash,
        commit: bool,
        witness: Option<Witness>,
    },
    /// Of a Prepare or a decision.
    Refused {
        transaction: TransactionId,
        request_hash: RequestHash,
        prepare: bool,
        why: Why,
    },
    Inquire {
        call: u64,
        questions: Vec<Question>,
    },
    Inquired {
        call: u64,
        answers: Vec<(TransactionId, RequestHash, InquiryAnswer)>,
    },
    Register {
        witness: Witness,
        address: u32,
    },
    /// None: ask somebody else. False: it knows less than it once did.
    Registered {
        generation: Generation,
        confirmed: Option<bool>,
    },
    ClockAsked {
        round: u64,
    },
    ClockTold {
        round: u64,
        at: Timestamp,
    },
    // Between replicas of the log.
    VoteAsked {
        term: u64,
        last_index: u64,
        last_term: u64,
    },
    VoteGiven {
        term: u64,
        granted: bool,
    },
    Append {
        term: u64,
        previous_index: u64,
        previous_term: u64,
        entries: Vec<Rc<Entry>>,
        commit: u64,
        round: u64,
    },
    Appended {
        term: u64,
        round: u64,
        /// Up to where the log is the leader's, and on disk; or where it may begin to be.
        matched: Result<u64, u64>,
    },
    Snapshot {
        term: u64,
        index: u64,
        index_term: u64,
        table: Rc<DecisionTable>,
        round: u64,
    },
}

const KINDS: [&str; 21] = [
    "Call",
    "Told",
    "Join",
    "Joined",
    "Prepare",
    "Voted",
    "Deliver",
    "Acknowledged",
    "Refused",
    "Inquire",
    "Inquired",
    "Register",
    "Registered",
    "ClockAsked",
    "ClockTold",
    "VoteAsked",
    "VoteGiven",
    "Append",
    "Appended",
    "Snapshot",
    "AppendEntries",
];

/// The name of a kind of message.
pub(crate) fn kind_name(kind: u8) -> &'static str {
    KINDS.get(usize::from(kind)).copied().unwrap_or("?")
}

/// The kind with this name.
pub(crate) fn kind_named(name: &str) -> Option<u8> {
    KINDS
        .iter()
        .position(|kind| *kind == name)
        .map(|place| place as u8)
}

impl Message {
    /// Which kind it is, as a place in the list of their names.
    pub(crate) const fn kind(&self) -> u8 {
        match self {
            Self::Call { .. } => 0,
            Self::Told { .. } => 1,
            Self::Join { .. } => 2,
            Self::Joined { .. } => 3,
            Self::Prepare { .. } => 4,
            Self::Voted { .. } => 5,
            Self::Deliver { .. } => 6,
            Self::Acknowledged { .. } => 7,
            Self::Refused { .. } => 8,
            Self::Inquire { .. } => 9,
            Self::Inquired { .. } => 10,
            Self::Register { .. } => 11,
            Self::Registered { .. } => 12,
            Self::ClockAsked { .. } => 13,
            Self::ClockTold { .. } => 14,
            Self::VoteAsked { .. } => 15,
            Self::VoteGiven { .. } => 16,
            Self::Append { entries, .. } => {
                if entries.is_empty() {
                    17
                } else {
                    20
                }
            }
            Self::Appended { .. } => 18,
            Self::Snapshot { .. } => 19,
        }
    }

    /// The transaction that it is about.
    pub(crate) const fn transaction(&self) -> Option<TransactionId> {
        match self {
            Self::Call { ask, .. } => match ask {
                Ask::Submit { transaction, .. }
                | Ask::Commit { transaction, .. }
                | Ask::Abort { transaction, .. }
                | Ask::Outcome { transaction } => Some(*transaction),
                Ask::Begin => None,
            },
            Self::Told {
                told: Told::Decided { transaction, .. },
                ..
            }
            | Self::Join { transaction, .. }
            | Self::Joined { transaction, .. }
            | Self::Prepare { transaction, .. }
            | Self::Voted { transaction, .. }
            | Self::Deliver { transaction, .. }
            | Self::Acknowledged { transaction, .. }
            | Self::Refused { transaction, .. } => Some(*transaction),
            _ => None,
        }
    }

    /// Whether it may be lost but neither repeated nor replayed. The application's own calls are never sent twice
    /// (`docs/protocol.md`, "Interactive transactions", says what happens if something below them does).
    pub(crate) const fn comes_once(&self) -> bool {
        matches!(self, Self::Join { .. })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
