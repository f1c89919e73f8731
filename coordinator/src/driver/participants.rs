//! Calls to participants, repeated until they are answered or no longer wanted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use unanimo_core::table::{Horizon, Witness};
use unanimo_core::{
    ClusterId, Decision, Generation, ParticipantId, Position, RequestHash, TransactionId, Vote,
};
use unanimo_proto::transport::{Connector, MAX_MESSAGE_BYTES};
use unanimo_proto::v1::{self, participant_client::ParticipantClient};
use unanimo_proto::{ErrorReason, MalformedMessage, PrepareMessage, PrepareVote, reason_of, retry_after};

use crate::metrics::{self, Mistrust, Reply};
use crate::raft::Replica;

/// How long one call may take before it is made again. A resource manager that is slower than this still has its
/// vote counted: the repeated call waits for the same vote.
const ATTEMPT: Duration = Duration::from_secs(5);
/// As much of a refusal's reason as an initiator is told.
const REASON_CHARACTERS: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Short, because a participant that restarts is waited for by everybody whose locks it shares.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The participants, by their registered addresses.
pub(super) struct Participants {
    cluster: ClusterId,
    replica: Replica,
    connector: Arc<dyn Connector>,
    /// One channel for each address; they reconnect by themselves, and a channel that lets a call time out is
    /// dropped, so that the next call gets a new connection.
    channels: Mutex<BTreeMap<String, ParticipantClient<Channel>>>,
}

impl Participants {
    pub(super) fn new(cluster: ClusterId, replica: Replica, connector: Arc<dyn Connector>) -> Self {
        Self {
            cluster,
            replica,
            connector,
            channels: Mutex::new(BTreeMap::new()),
        }
    }

    /// Asks for a vote until there is one or `deadline` passes, and then waits for ever: the caller's timer ends
    /// the voting phase.
    pub(super) async fn prepare(&self, mut message: PrepareMessage, deadline: Instant) -> PrepareVote {
        let mut pause = FIRST_PAUSE;
        let mut warned = false;
        loop {
            message.remaining = deadline.saturating_duration_since(Instant::now());
            match self.prepare_once(&message).await {
                Ok(vote) => return vote,
                Err(error) => {
                    let (tx, participant) = (message.transaction, &message.participant);
                    // No refusal is a No: the member may have promised when it was asked before, by this leader or an
                    // earlier one, and refuse only now, with lower limits or at an address that serves another.
                    if unanimo_proto::refused(&error) && !warned {
                        warned = true;
                        tracing::warn!(%tx, %participant, %error, "a member refuses to be asked for its vote; it is asked again until the deadline");
                    } else {
                        tracing::debug!(%tx, %participant, %error, "prepare is repeated");
                    }
                    tokio::time::sleep(retry_after(&error).unwrap_or(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn prepare_once(&self, message: &PrepareMessage) -> Result<PrepareVote, Status> {
        let (address, mut client) = self.client(&message.participant)?;
        let request = with_deadline(message.to_wire(&self.cluster));
        let reply = self
            .bounded(&address, client.prepare(request))
            .await?
            .into_inner();
        let vote = PrepareVote::from_wire(reply, &self.cluster, &message.participant, message.transaction)
            // What it meant is not known, so it is asked again.
            .map_err(|error| {
                metrics::mistrusted(Reply::Vote, mistrust(&error), 1);
                Status::internal(format!("the vote makes no sense: {error}"))
            })?;
        self.check_witness(message, &vote)?;
        Ok(match vote.vote {
            Vote::No { reason } => PrepareVote {
                vote: Vote::No {
                    reason: shortened(&reason),
                },
                witness: None,
            },
            Vote::Yes | Vote::ReadOnly => vote,
        })
    }

    /// Only a promise of the registered start counts: one of an earlier start may be forgotten by now, and one of a
    /// start that has not registered may come from an old copy of the data (R11). It is asked for again.
    fn check_witness(&self, message: &PrepareMessage, vote: &PrepareVote) -> Result<(), Status> {
        let known = self
            .replica
            .registration(&message.participant)
            .map_err(storage_failed)?;
        match (vote.witness, known) {
            (Some(witness), Some(known)) if witness.generation != known.witness.generation => {
                metrics::mistrusted(Reply::Vote, Mistrust::OtherGeneration, 1);
                Err(Status::unavailable(format!(
                    "{} answered as {}, it is registered as {}",
                    message.participant, witness.generation, known.witness.generation
                )))
            }
            _ => Ok(()),
        }
    }

    /// Tells a decision once. Ok means that it is acknowledged, and says how far the member's journal reached, if it does.
    pub(super) async fn deliver_once(
        &self,
        participant: &ParticipantId,
        transaction: TransactionId,
        request_hash: RequestHash,
        decision: &Decision,
        epoch: u64,
    ) -> Result<Option<Witness>, Status> {
        let (address, mut client) = self.client(participant)?;
        let (cluster, tx, to) = (
            self.cluster.to_string(),
            transaction.to_string(),
            participant.to_string(),
        );
        let expected = (cluster.clone(), tx.clone(), to.clone());
        let watermark = unanimo_proto::watermark_to_wire(self.watermark());
        let (told, reached) = match decision {
            Decision::Commit => {
                let request_hash = request_hash.as_bytes().to_vec().into();
                let request = v1::CommitRequest {
                    cluster,
                    transaction: tx,
                    participant: to,
                    request_hash,
                    epoch,
                    watermark: watermark.clone(),
                };
                let reply = self
                    .bounded(&address, client.commit(with_deadline(request)))
                    .await?
                    .into_inner();
                let reached = reply.reached.map(|reached| Witness {
                    generation: Generation(reached.generation),
                    position: Position(reached.position),
                });
                ((reply.cluster, reply.transaction, reply.participant), reached)
            }
            Decision::Abort(_) => {
                let request = v1::AbortRequest {
                    cluster,
                    transaction: tx,
                    participant: to,
                    epoch,
                    watermark: watermark.clone(),
                };
                let reply = self
                    .bounded(&address, client.abort(with_deadline(request)))
                    .await?
                    .into_inner();
                ((reply.cluster, reply.transaction, reply.participant), None)
            }
        };
        if told == expected {
            Ok(reached)
        } else {
            metrics::mistrusted(Reply::Acknowledgement, Mistrust::WrongSender, 1);
            Err(Status::internal(format!(
                "the acknowledgement is of {told:?}, expected was {expected:?}"
            )))
        }
    }

    /// Below which transactions are closed, as far as this node has applied; none before anything is.
    pub(super) fn watermark(&self) -> Option<TransactionId> {
        let horizon = self.replica.horizon().unwrap_or_default();
        (horizon != Horizon::default()).then_some(horizon.watermark)
    }

    /// The pause before the n-th repetition.
    pub(super) fn pause(attempt: u32) -> Duration {
        FIRST_PAUSE
            .saturating_mul(2_u32.saturating_pow(attempt))
            .min(LONGEST_PAUSE)
    }

    fn client(&self, participant: &ParticipantId) -> Result<(String, ParticipantClient<Channel>), Status> {
        // Looked up for every call: a participant may have moved since.
        let registration = self.replica.registration(participant).map_err(storage_failed)?;
        let address = registration
            .ok_or_else(|| Status::unavailable(format!("participant {participant} is not registered")))?
            .address;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = channels.get(&address) {
            return Ok((address, client.clone()));
        }
        let channel = self
            .connector
            .channel(&address)
            .map_err(|bad| Status::unavailable(bad.to_string()))?;
        let client = ParticipantClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        channels.insert(address.clone(), client.clone());
        Ok((address, client))
    }

    async fn bounded<A>(
        &self,
        address: &str,
        call: impl Future<Output = Result<A, Status>>,
    ) -> Result<A, Status> {
        let result = timeout(ATTEMPT, call).await;
        let error = match result {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => Status::deadline_exceeded(format!("{address} did not answer within {ATTEMPT:?}")),
        };
        if error.code() == Code::DeadlineExceeded {
            self.channels
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(address);
        }
        Err(error)
    }
}

/// The reason stands in the decision record and shares an entry with other decisions, so no participant may make it
/// large (R14).
fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(REASON_CHARACTERS) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

fn with_deadline<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(ATTEMPT);
    request
}

fn storage_failed(error: impl std::fmt::Display) -> Status {
    unanimo_proto::refusal(ErrorReason::StorageFailed, error.to_string())
}

fn mistrust(error: &MalformedMessage) -> Mistrust {
    match error {
        MalformedMessage::WrongReply { .. } => Mistrust::WrongSender,
        _ => Mistrust::Malformed,
    }
}

/// Whether the participant is there and would take other calls: what it says is about this one.
pub(super) fn refuses_this_call(error: &Status) -> bool {
    matches!(
        reason_of(error),
        Some(
            ErrorReason::Malformed
                | ErrorReason::Violation
                | ErrorReason::RequestMismatch
                | ErrorReason::Expired
                | ErrorReason::Overloaded
        )
    )
}
