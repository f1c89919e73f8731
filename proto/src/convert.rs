//! Public messages to core types and back. Parsing happens here, once (R9, R11).

use bytes::Bytes;
use thiserror::Error;
use tonic::Status;
use unanimo_core::table::{Registration, Witness};
use unanimo_core::{
    AbortReason, ClusterId, Decision, Generation, IdError, KeyError, Members, Operation, ParticipantId,
    Position, RequestHash, TransactionId, Vote,
};

use crate::v1;
use crate::{ErrorReason, reason_of, refusal};

/// A message that does not say what it has to. Definite: it had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MalformedMessage {
    /// A name or id is not one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// An idempotency key is not one.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A field that must be there is not.
    #[error("field {field} is missing")]
    Missing {
        /// The field, as in the .proto file.
        field: &'static str,
    },
    /// A field has the wrong length.
    #[error("field {field} has {found} bytes, it must have {expected}")]
    WrongLength {
        /// The field.
        field: &'static str,
        /// The length it must have.
        expected: usize,
        /// The length it has.
        found: usize,
    },
    /// A list names somebody twice.
    #[error("{participant} is named twice in {field}")]
    Repeated {
        /// The field.
        field: &'static str,
        /// Who.
        participant: ParticipantId,
    },
    /// A list that must name somebody is empty.
    #[error("{field} names nobody")]
    Empty {
        /// The field.
        field: &'static str,
    },
    /// The receiver is not among the members.
    #[error("participant {participant} is not among the members")]
    NotAMember {
        /// Who.
        participant: ParticipantId,
    },
    /// The reply is about something else than was asked.
    #[error("the reply is of {found}, asked was {expected}")]
    WrongReply {
        /// What was asked.
        expected: String,
        /// What came.
        found: String,
    },
}

impl From<MalformedMessage> for Status {
    fn from(error: MalformedMessage) -> Self {
        refusal(ErrorReason::Malformed, error.to_string())
    }
}

/// Refuses a message of another cluster (R11).
pub fn check_cluster(ours: &ClusterId, claimed: &str) -> Result<(), Status> {
    if claimed == ours.as_str() {
        return Ok(());
    }
    let claimed: String = claimed.chars().take(80).collect();
    let message = format!("the message is of cluster {claimed:?}, this is cluster {ours}; nothing was done");
    Err(refusal(ErrorReason::WrongCluster, message))
}

/// Parses a transaction id.
pub fn transaction_from_wire(text: &str) -> Result<TransactionId, MalformedMessage> {
    if text.is_empty() {
        return Err(MalformedMessage::Missing { field: "transaction" });
    }
    Ok(text.parse()?)
}

/// A watermark for the wire, where nothing stands for none.
pub fn watermark_to_wire(watermark: Option<TransactionId>) -> String {
    watermark.map_or_else(String::new, |watermark| watermark.to_string())
}

fn watermark_from_wire(text: &str) -> Result<Option<TransactionId>, MalformedMessage> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(text.parse()?))
}

pub(crate) fn participant_from_wire(text: &str) -> Result<ParticipantId, MalformedMessage> {
    if text.is_empty() {
        return Err(MalformedMessage::Missing { field: "participant" });
    }
    Ok(text.parse()?)
}

/// Parses a list of members, which must name somebody, and nobody twice.
pub fn members_from_wire(field: &'static str, names: &[String]) -> Result<Members, MalformedMessage> {
    let members = names_from_wire(field, names)?;
    if members.is_empty() {
        Err(MalformedMessage::Empty { field })
    } else {
        Ok(members)
    }
}

pub(crate) fn names_from_wire(field: &'static str, names: &[String]) -> Result<Members, MalformedMessage> {
    let mut members = Members::new();
    for name in names {
        let participant = ParticipantId::new(name)?;
        if !members.insert(participant.clone()) {
            return Err(MalformedMessage::Repeated { field, participant });
        }
    }
    Ok(members)
}

/// A list of members for the wire, in the order of their names.
pub fn members_to_wire(members: &Members) -> Vec<String> {
    members.iter().map(ToString::to_string).collect()
}

/// Parses the branches of a `Submit`; whether they make a request is for [`unanimo_core::Request`] to say.
pub fn operation_branches(
    branches: Vec<v1::Branch>,
) -> Result<Vec<(ParticipantId, Operation)>, MalformedMessage> {
    let parse = |branch: v1::Branch| {
        Ok((
            participant_from_wire(&branch.participant)?,
            Operation::new(branch.operation),
        ))
    };
    branches.into_iter().map(parse).collect()
}

pub(crate) fn hash_from_wire(bytes: &[u8]) -> Result<RequestHash, MalformedMessage> {
    let hash: [u8; 32] = bytes.try_into().map_err(|_| MalformedMessage::WrongLength {
        field: "request_hash",
        expected: 32,
        found: bytes.len(),
    })?;
    Ok(RequestHash::from_bytes(hash))
}

pub(crate) fn hash_to_wire(hash: RequestHash) -> Bytes {
    Bytes::copy_from_slice(hash.as_bytes())
}

/// A definite outcome, as an initiator is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome(pub Decision);

impl From<Outcome> for v1::Outcome {
    fn from(Outcome(decision): Outcome) -> Self {
        let outcome = match decision {
            Decision::Commit => v1::outcome::Outcome::Committed(v1::Committed {}),
            Decision::Abort(reason) => v1::outcome::Outcome::Aborted(aborted_to_wire(reason)),
        };
        Self {
            outcome: Some(outcome),
        }
    }
}

impl TryFrom<Option<v1::Outcome>> for Outcome {
    type Error = MalformedMessage;

    fn try_from(outcome: Option<v1::Outcome>) -> Result<Self, MalformedMessage> {
        match outcome.and_then(|outcome| outcome.outcome) {
            Some(v1::outcome::Outcome::Committed(v1::Committed {})) => Ok(Self(Decision::Commit)),
            Some(v1::outcome::Outcome::Aborted(aborted)) => {
                Ok(Self(Decision::Abort(reason_from_wire(aborted)?)))
            }
            None => Err(MalformedMessage::Missing { field: "outcome" }),
        }
    }
}

fn aborted_to_wire(reason: AbortReason) -> v1::Aborted {
    use v1::abort_reason::{DeadlinePassed, Presumed, Reason, Requested, VotedNo};
    let reason = match reason {
        AbortReason::VotedNo { participant, reason } => Reason::VotedNo(VotedNo {
            participant: participant.to_string(),
            reason,
        }),
        AbortReason::DeadlinePassed { missing } => Reason::DeadlinePassed(DeadlinePassed {
            missing: members_to_wire(&missing),
        }),
        AbortReason::Requested => Reason::Requested(Requested {}),
        AbortReason::Presumed => Reason::Presumed(Presumed {}),
    };
    v1::Aborted {
        reason: Some(v1::AbortReason { reason: Some(reason) }),
    }
}

fn reason_from_wire(aborted: v1::Aborted) -> Result<AbortReason, MalformedMessage> {
    use v1::abort_reason::Reason;
    let missing = MalformedMessage::Missing { field: "reason" };
    Ok(
        match aborted.reason.and_then(|reason| reason.reason).ok_or(missing)? {
            Reason::VotedNo(no) => AbortReason::VotedNo {
                participant: participant_from_wire(&no.participant)?,
                reason: no.reason,
            },
            Reason::DeadlinePassed(passed) => AbortReason::DeadlinePassed {
                missing: names_from_wire("missing", &passed.missing)?,
            },
            Reason::Requested(_) => AbortReason::Requested,
            Reason::Presumed(_) => AbortReason::Presumed,
        },
    )
}

/// A parsed `Prepare`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareMessage {
    /// The transaction.
    pub transaction: TransactionId,
    /// Whom it is meant for.
    pub participant: ParticipantId,
    /// Every member, the receiver included.
    pub members: Members,
    /// The request.
    pub request_hash: RequestHash,
    /// What to do; absent when the receiver should know.
    pub operation: Option<Operation>,
    /// What is left of the voting phase.
    pub remaining: std::time::Duration,
    /// The leader's term, for logs.
    pub epoch: u64,
    /// Transactions below it are closed (R7); none if nothing is closed yet.
    pub watermark: Option<TransactionId>,
}

impl PrepareMessage {
    /// The message for the wire.
    pub fn to_wire(&self, cluster: &ClusterId) -> v1::PrepareRequest {
        v1::PrepareRequest {
            cluster: cluster.to_string(),
            transaction: self.transaction.to_string(),
            participant: self.participant.to_string(),
            members: members_to_wire(&self.members),
            request_hash: hash_to_wire(self.request_hash),
            operation: self.operation.as_ref().map(Operation::to_shared),
            remaining_ms: u32::try_from(self.remaining.as_millis()).unwrap_or(u32::MAX),
            epoch: self.epoch,
            watermark: watermark_to_wire(self.watermark),
        }
    }
}

impl TryFrom<v1::PrepareRequest> for PrepareMessage {
    type Error = MalformedMessage;

    fn try_from(message: v1::PrepareRequest) -> Result<Self, MalformedMessage> {
        let participant = participant_from_wire(&message.participant)?;
        let members = members_from_wire("members", &message.members)?;
        if !members.contains(&participant) {
            return Err(MalformedMessage::NotAMember { participant });
        }
        Ok(Self {
            transaction: transaction_from_wire(&message.transaction)?,
            participant,
            members,
            request_hash: hash_from_wire(&message.request_hash)?,
            operation: message.operation.map(Operation::new),
            remaining: std::time::Duration::from_millis(u64::from(message.remaining_ms)),
            epoch: message.epoch,
            watermark: watermark_from_wire(&message.watermark)?,
        })
    }
}

/// A vote and where its promise stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareVote {
    /// The vote.
    pub vote: Vote,
    /// Of a Yes: where its record stands in the participant's journal.
    pub witness: Option<Witness>,
}

impl PrepareVote {
    /// The reply for the wire.
    pub fn to_wire(
        &self,
        cluster: &ClusterId,
        participant: &ParticipantId,
        transaction: TransactionId,
    ) -> v1::PrepareReply {
        use v1::prepare_reply::{No, ReadOnly, Vote as WireVote, Yes};
        let witness = self.witness.unwrap_or_default();
        let vote = match &self.vote {
            Vote::Yes => WireVote::Yes(Yes {
                generation: witness.generation.0,
                position: witness.position.0,
            }),
            Vote::ReadOnly => WireVote::ReadOnly(ReadOnly {}),
            Vote::No { reason } => WireVote::No(No {
                reason: reason.clone(),
            }),
        };
        v1::PrepareReply {
            cluster: cluster.to_string(),
            transaction: transaction.to_string(),
            participant: participant.to_string(),
            vote: Some(vote),
        }
    }

    /// Parses the reply to a `Prepare`, which must be of this participant about this transaction.
    pub fn from_wire(
        reply: v1::PrepareReply,
        cluster: &ClusterId,
        participant: &ParticipantId,
        transaction: TransactionId,
    ) -> Result<Self, MalformedMessage> {
        use v1::prepare_reply::Vote as WireVote;
        let found = format!("{} {} {}", reply.cluster, reply.participant, reply.transaction);
        let expected = format!("{cluster} {participant} {transaction}");
        if found != expected {
            return Err(MalformedMessage::WrongReply { expected, found });
        }
        Ok(
            match reply.vote.ok_or(MalformedMessage::Missing { field: "vote" })? {
                WireVote::Yes(yes) => {
                    let witness = Witness {
                        generation: Generation(yes.generation),
                        position: Position(yes.position),
                    };
                    Self {
                        vote: Vote::Yes,
                        witness: Some(witness),
                    }
                }
                WireVote::ReadOnly(_) => Self {
                    vote: Vote::ReadOnly,
                    witness: None,
                },
                WireVote::No(no) => Self {
                    vote: Vote::No { reason: no.reason },
                    witness: None,
                },
            },
        )
    }
}

/// A parsed `Commit` to a participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitMessage {
    /// The transaction.
    pub transaction: TransactionId,
    /// Whom it is meant for.
    pub participant: ParticipantId,
    /// The request that is committed.
    pub request_hash: RequestHash,
    /// Transactions below it are closed (R7); none if nothing is closed yet.
    pub watermark: Option<TransactionId>,
}

impl TryFrom<v1::CommitRequest> for CommitMessage {
    type Error = MalformedMessage;

    fn try_from(message: v1::CommitRequest) -> Result<Self, MalformedMessage> {
        Ok(Self {
            transaction: transaction_from_wire(&message.transaction)?,
            participant: participant_from_wire(&message.participant)?,
            request_hash: hash_from_wire(&message.request_hash)?,
            watermark: watermark_from_wire(&message.watermark)?,
        })
    }
}

/// A parsed `Abort` to a participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortMessage {
    /// The transaction.
    pub transaction: TransactionId,
    /// Whom it is meant for.
    pub participant: ParticipantId,
    /// Transactions below it are closed (R7); none if nothing is closed yet.
    pub watermark: Option<TransactionId>,
}

impl TryFrom<v1::AbortRequest> for AbortMessage {
    type Error = MalformedMessage;

    fn try_from(message: v1::AbortRequest) -> Result<Self, MalformedMessage> {
        Ok(Self {
            transaction: transaction_from_wire(&message.transaction)?,
            participant: participant_from_wire(&message.participant)?,
            watermark: watermark_from_wire(&message.watermark)?,
        })
    }
}

/// One branch in doubt, as its participant asks about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// The transaction.
    pub transaction: TransactionId,
    /// The request the branch prepared for.
    pub request_hash: RequestHash,
    /// Every member.
    pub members: Members,
}

impl From<Inquiry> for v1::Inquiry {
    fn from(inquiry: Inquiry) -> Self {
        Self {
            transaction: inquiry.transaction.to_string(),
            request_hash: hash_to_wire(inquiry.request_hash),
            members: members_to_wire(&inquiry.members),
        }
    }
}

impl Inquiry {
    /// Parses an inquiry of `asker`, who must be a member.
    pub fn from_wire(inquiry: v1::Inquiry, asker: &ParticipantId) -> Result<Self, MalformedMessage> {
        let members = members_from_wire("members", &inquiry.members)?;
        if !members.contains(asker) {
            return Err(MalformedMessage::NotAMember {
                participant: asker.clone(),
            });
        }
        Ok(Self {
            transaction: transaction_from_wire(&inquiry.transaction)?,
            request_hash: hash_from_wire(&inquiry.request_hash)?,
            members,
        })
    }
}

/// What an inquiry is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InquiryAnswer {
    /// Recorded: this is the decision.
    Decided(Decision),
    /// Ask again later.
    Undecided,
    /// This inquiry was refused and changed nothing. The branch stays in doubt (R3).
    Refused {
        /// Why; none if this version does not know the reason.
        reason: Option<ErrorReason>,
        /// Why, for people.
        message: String,
    },
}

impl InquiryAnswer {
    /// The refusal that a whole call would have been answered with.
    pub fn refused(status: &Status) -> Self {
        Self::Refused {
            reason: reason_of(status),
            message: status.message().to_owned(),
        }
    }

    /// The answer for the wire, to a question about `transaction`, whatever was written there.
    pub fn to_wire(self, transaction: impl ToString) -> v1::InquiryAnswer {
        use v1::inquiry_answer::Answer;
        let answer = match self {
            Self::Decided(Decision::Commit) => Answer::Committed(v1::Committed {}),
            Self::Decided(Decision::Abort(reason)) => Answer::Aborted(aborted_to_wire(reason)),
            Self::Undecided => Answer::Undecided(v1::Undecided {}),
            Self::Refused { reason, message } => Answer::Refused(v1::InquiryRefused {
                reason: reason.map_or_else(String::new, |reason| reason.as_str().to_owned()),
                message,
            }),
        };
        v1::InquiryAnswer {
            transaction: transaction.to_string(),
            answer: Some(answer),
        }
    }
}

impl TryFrom<v1::InquiryAnswer> for (TransactionId, InquiryAnswer) {
    type Error = MalformedMessage;

    fn try_from(answer: v1::InquiryAnswer) -> Result<Self, MalformedMessage> {
        use v1::inquiry_answer::Answer;
        let transaction = transaction_from_wire(&answer.transaction)?;
        let told = match answer
            .answer
            .ok_or(MalformedMessage::Missing { field: "answer" })?
        {
            Answer::Committed(_) => InquiryAnswer::Decided(Decision::Commit),
            Answer::Aborted(aborted) => InquiryAnswer::Decided(Decision::Abort(reason_from_wire(aborted)?)),
            Answer::Undecided(_) => InquiryAnswer::Undecided,
            Answer::Refused(refused) => InquiryAnswer::Refused {
                reason: ErrorReason::parse(&refused.reason),
                message: refused.message,
            },
        };
        Ok((transaction, told))
    }
}

/// A parsed `Register`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registering {
    /// Who.
    pub participant: ParticipantId,
    /// Where, and how far its memory reaches.
    pub registration: Registration,
}

impl Registering {
    /// The message for the wire.
    pub fn to_wire(&self, cluster: &ClusterId) -> v1::RegisterRequest {
        v1::RegisterRequest {
            cluster: cluster.to_string(),
            participant: self.participant.to_string(),
            address: self.registration.address.clone(),
            generation: self.registration.witness.generation.0,
            position: self.registration.witness.position.0,
        }
    }
}

impl TryFrom<v1::RegisterRequest> for Registering {
    type Error = MalformedMessage;

    fn try_from(message: v1::RegisterRequest) -> Result<Self, MalformedMessage> {
        if message.address.is_empty() {
            return Err(MalformedMessage::Missing { field: "address" });
        }
        if message.address.len() > 256 {
            let found = message.address.len();
            return Err(MalformedMessage::WrongLength {
                field: "address",
                expected: 256,
                found,
            });
        }
        let witness = Witness {
            generation: Generation(message.generation),
            position: Position(message.position),
        };
        Ok(Self {
            participant: participant_from_wire(&message.participant)?,
            registration: Registration {
                address: message.address,
                witness,
            },
        })
    }
}
