use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::{Request, Response, Status};
use unanimo_core::{BranchInput, Operation, ParticipantId, PrepareRequest, TransactionId};
use unanimo_proto::transport::Clock;
use unanimo_proto::v1::{self, participant_server};
use unanimo_proto::{AbortMessage, CommitMessage, ErrorReason, PrepareMessage, check_cluster, refusal};

use crate::ParticipantOptions;
use crate::branches::Branches;
use crate::entry::Asker;
use crate::error::Refusal;
use crate::gate::Gate;

/// What the [`Endpoint`](crate::Endpoint) says: each method parses, gives the branch its input, and waits for what comes of
/// it. A caller that goes away stops nothing.
#[derive(Clone)]
pub(crate) struct Answering {
    pub(crate) options: Arc<ParticipantOptions>,
    pub(crate) branches: Arc<Branches>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl participant_server::Participant for Answering {
    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareReply>, Status> {
        let message = request.into_inner();
        self.check(&message.cluster, &message.participant)?;
        let message = PrepareMessage::try_from(message)?;
        self.check_limits(&message)?;
        self.branches.raise_watermark(message.watermark);
        let (transaction, patience) = (message.transaction, message.remaining + self.options.vote_margin);
        let input = BranchInput::Prepare(self.to_input(message));
        let vote = self.ask(transaction, input, Asker::Vote, patience).await?;
        let reply = vote.to_wire(&self.options.cluster, &self.options.name, transaction);
        Ok(Response::new(reply))
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitReply>, Status> {
        let message = request.into_inner();
        self.check(&message.cluster, &message.participant)?;
        let message = CommitMessage::try_from(message)?;
        self.branches.raise_watermark(message.watermark);
        let input = BranchInput::Commit {
            request_hash: message.request_hash,
        };
        let patience = self.options.acknowledge_within;
        let transaction = self.branches.doubts.meant_by(message.transaction);
        self.ask(transaction, input, Asker::Acknowledgement, patience)
            .await?;
        // After this the decision may be forgotten, so the cluster has to know a copy from before it (R7, R11).
        let reached = self.branches.reached().ok_or(Refusal::Unconfirmed)?;
        Ok(Response::new(v1::CommitReply {
            cluster: self.options.cluster.to_string(),
            transaction: message.transaction.to_string(),
            participant: self.options.name.to_string(),
            reached: Some(v1::commit_reply::Reached {
                generation: reached.generation.0,
                position: reached.position.0,
            }),
        }))
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Result<Response<v1::AbortReply>, Status> {
        let message = request.into_inner();
        self.check(&message.cluster, &message.participant)?;
        let AbortMessage {
            transaction,
            watermark,
            ..
        } = AbortMessage::try_from(message)?;
        self.branches.raise_watermark(watermark);
        let patience = self.options.acknowledge_within;
        self.ask(transaction, BranchInput::Abort, Asker::Acknowledgement, patience)
            .await?;
        Ok(Response::new(v1::AbortReply {
            cluster: self.options.cluster.to_string(),
            transaction: transaction.to_string(),
            participant: self.options.name.to_string(),
        }))
    }
}

impl Answering {
    /// Refuses what is meant for somebody else before anything else is looked at (R11).
    fn check(&self, cluster: &str, participant: &str) -> Result<(), Status> {
        check_cluster(&self.options.cluster, cluster)?;
        check_target(&self.options.name, participant)?;
        Ok(self.gate.admit()?)
    }

    /// A coordinator with the same limits never sends more (R14).
    fn check_limits(&self, message: &PrepareMessage) -> Result<(), Status> {
        let limits = &self.options.request;
        let over = |what: &str, found: usize, limit: usize| {
            let text = format!("the Prepare has {found} {what}, the limit of this participant is {limit}");
            Err(refusal(ErrorReason::Malformed, text))
        };
        if message.members.len() > limits.members {
            return over("members", message.members.len(), limits.members);
        }
        let bytes = message
            .operation
            .as_ref()
            .map(Operation::as_bytes)
            .map_or(0, <[u8]>::len);
        if bytes > limits.operation_bytes {
            return over("bytes of operation", bytes, limits.operation_bytes);
        }
        Ok(())
    }

    fn to_input(&self, message: PrepareMessage) -> PrepareRequest {
        PrepareRequest {
            cluster: self.options.cluster.clone(),
            members: message.members,
            request_hash: message.request_hash,
            operation: message.operation,
            deadline: self.clock.now().after(message.remaining),
        }
    }

    /// Gives the branch its input and waits for what it has to say.
    async fn ask<A>(
        &self,
        transaction: TransactionId,
        input: BranchInput,
        asker: impl FnOnce(oneshot::Sender<Result<A, Refusal>>) -> Asker,
        patience: Duration,
    ) -> Result<A, Status> {
        let (sender, told) = oneshot::channel();
        self.branches.step(transaction, input, asker(sender));
        // What was told before the participant stopped still holds, so it is looked at first. Both only wait.
        tokio::select! {
            biased;
            told = told => match told {
                Ok(answer) => Ok(answer?),
                // The branch was dropped untold: the participant stops.
                Err(_) => Err(Refusal::Stopped(self.gate.stopped().await).into()),
            },
            reason = self.gate.stopped() => Err(Refusal::Stopped(reason).into()),
            () = tokio::time::sleep(patience) => Err(Refusal::NotYet.into()),
        }
    }
}

fn check_target(ours: &ParticipantId, claimed: &str) -> Result<(), Status> {
    // An empty name is malformed rather than somebody else's; parsing says so.
    if claimed.is_empty() || claimed == ours.as_str() {
        return Ok(());
    }
    let claimed: String = claimed.chars().take(80).collect();
    let text = format!("the message is for participant {claimed:?}, this is {ours}; nothing was done");
    Err(refusal(ErrorReason::WrongTarget, text))
}
