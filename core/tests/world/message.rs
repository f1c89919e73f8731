//! What travels between the coordinator and the participants.

use std::fmt;

use unanimo_core::table::Witness;
use unanimo_core::{Members, Operation, ParticipantId, RequestHash, TransactionId, Vote};

use super::names::{Names, Seat, transaction_name};

/// Who sends or receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Coordinator(Seat),
    Participant(ParticipantId),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator(seat) => seat.fmt(f),
            Self::Participant(participant) => participant.fmt(f),
        }
    }
}

/// The answer to an inquiry. "Not yet" is the third case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Committed,
    Aborted,
    Undecided,
}

/// One message. `request_hash` names the request that a message is about; an Abort, a vote and an acknowledgement
/// do not carry it on the wire, where the call they answer tells it. The rules are checked against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Prepare {
        members: Members,
        request_hash: RequestHash,
        operation: Option<Operation>,
        remaining_ms: u64,
    },
    Commit {
        request_hash: RequestHash,
    },
    Abort {
        request_hash: RequestHash,
    },
    Inquire {
        members: Members,
        request_hash: RequestHash,
    },
    Voted {
        request_hash: RequestHash,
        vote: Vote,
        witness: Option<Witness>,
    },
    Acknowledged {
        witness: Option<Witness>,
    },
    Answered {
        request_hash: RequestHash,
        told: Told,
    },
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) transaction: TransactionId,
    pub(crate) message: Message,
}

impl Envelope {
    /// The message without its addresses.
    pub(crate) fn content(&self, names: &Names) -> String {
        let named = |hash: &RequestHash| names.request(self.transaction, *hash);
        match &self.message {
            Message::Prepare {
                request_hash,
                operation: Some(operation),
                ..
            } => format!(
                "Prepare {} {}",
                named(request_hash),
                String::from_utf8_lossy(operation.as_bytes())
            ),
            Message::Prepare { request_hash, .. } => {
                format!("Prepare {} without operation", named(request_hash))
            }
            Message::Commit { request_hash } => format!("Commit {}", named(request_hash)),
            Message::Abort { request_hash } => format!("Abort {}", named(request_hash)),
            Message::Inquire { request_hash, .. } => format!("Inquire {}", named(request_hash)),
            Message::Voted {
                request_hash,
                vote,
                witness,
            } => match witness {
                Some(witness) => format!(
                    "Voted {} {vote} {}{}",
                    named(request_hash),
                    witness.generation,
                    witness.position
                ),
                None => format!("Voted {} {vote}", named(request_hash)),
            },
            Message::Acknowledged { witness } => {
                let name = transaction_name(self.transaction);
                match witness {
                    Some(witness) => {
                        format!("Acknowledged {name} {}{}", witness.generation, witness.position)
                    }
                    None => format!("Acknowledged {name}"),
                }
            }
            Message::Answered { request_hash, told } => {
                format!("Answered {} {told:?}", named(request_hash))
            }
        }
    }

    /// The message as it is sent.
    pub(crate) fn line(&self, names: &Names) -> String {
        format!("{} → {} {}", self.from, self.to, self.content(names))
    }
}
