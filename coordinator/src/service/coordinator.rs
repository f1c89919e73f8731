//! The public service of initiators and participants.

use std::sync::Arc;

use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use unanimo_core::mutants::{self, Mutant};
use unanimo_core::{ClusterId, Decision, IdempotencyKey, Members, ParticipantId, TransactionId};
use unanimo_proto::v1::coordinator_client::CoordinatorClient;
use unanimo_proto::v1::{self, coordinator_server::Coordinator};
use unanimo_proto::{
    ErrorReason, Inquiry, InquiryAnswer, MalformedMessage, Outcome, Registering, check_cluster, definite,
    members_from_wire, operation_branches, refusal, refused, transaction_from_wire,
};

use super::{Admission, Forwarder};
use crate::config::LimitsConfig;
use crate::driver::{Driver, DriverError};
use crate::node::IdSource;

/// Inquiries in one call at most (R14). Participants send up to 256.
const MAX_INQUIRIES: usize = 1024;

/// Serves `unanimo.v1.Coordinator`. A call that only the leader can answer is passed on to it.
pub(crate) struct CoordinatorService {
    pub(crate) cluster: ClusterId,
    pub(crate) limits: LimitsConfig,
    pub(crate) driver: Driver,
    pub(crate) forwarder: Forwarder,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) admission: Admission,
}

impl CoordinatorService {
    fn outcome_of(&self, decision: Decision) -> Option<v1::Outcome> {
        Some(v1::Outcome::from(Outcome(decision)))
    }

    fn check_members(&self, members: Members) -> Result<Members, Status> {
        if members.len() > self.limits.members {
            let (found, limit) = (members.len(), self.limits.members);
            let message = format!(
                "{found} participants are named, the limit of this cluster is {limit}; split the transaction"
            );
            return Err(refusal(ErrorReason::Malformed, message));
        }
        Ok(members)
    }

    fn read_inquiry(&self, inquiry: v1::Inquiry, asker: &ParticipantId) -> Result<Inquiry, Status> {
        let inquiry = Inquiry::from_wire(inquiry, asker)?;
        self.check_members(inquiry.members.clone())?;
        Ok(inquiry)
    }

    /// Asks the leader about what this node cannot answer. Where there is none, "undecided" is the honest answer.
    async fn ask_leader(
        &self,
        metadata: &tonic::metadata::MetadataMap,
        asker: &ParticipantId,
        open: Vec<Inquiry>,
    ) -> Result<Vec<InquiryAnswer>, Status> {
        let undecided = |error: Status| {
            if definite(&error) {
                Err(error)
            } else {
                Ok(Vec::new())
            }
        };
        if self.driver.is_ready() {
            let told = match self.driver.inquire(open).await {
                Ok(told) => told,
                Err(error) => return undecided(error.into()),
            };
            let answer = |told: Result<InquiryAnswer, DriverError>| {
                told.unwrap_or_else(|error| match Status::from(error) {
                    error if refused(&error) => InquiryAnswer::refused(&error),
                    _ => InquiryAnswer::Undecided,
                })
            };
            return Ok(told.into_iter().map(answer).collect());
        }
        let asked: Vec<TransactionId> = open.iter().map(|inquiry| inquiry.transaction).collect();
        let request = v1::InquireRequest {
            cluster: self.cluster.to_string(),
            participant: asker.to_string(),
            inquiries: open.into_iter().map(Into::into).collect(),
        };
        let inquire = async |mut leader: CoordinatorClient<Channel>, request| leader.inquire(request).await;
        let reply = match self.forwarder.forward(metadata, request, inquire).await {
            Ok(reply) => reply,
            Err(error) => return undecided(error),
        };
        let parsed = reply.into_inner().answers.into_iter().map(TryInto::try_into);
        let told: Vec<(TransactionId, InquiryAnswer)> = parsed.collect::<Result<_, _>>().unwrap_or_default();
        if told.iter().map(|(transaction, _)| transaction).ne(asked.iter()) {
            // Answers to other questions answer none of ours.
            return Ok(Vec::new());
        }
        Ok(told.into_iter().map(|(_, answer)| answer).collect())
    }
}

#[tonic::async_trait]
impl Coordinator for CoordinatorService {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        let (metadata, _, message) = request.into_parts();
        check_cluster(&self.cluster, &message.cluster)?;
        let transaction = transaction_from_wire(&message.transaction)?;
        let key = match message.idempotency_key.as_str() {
            "" => None,
            key => Some(IdempotencyKey::new(key).map_err(MalformedMessage::from)?),
        };
        if !self.driver.is_ready() {
            return self
                .forwarder
                .forward(&metadata, message, async |mut leader, request| {
                    leader.submit(request).await
                })
                .await;
        }
        let timeout = self.limits.voting_timeout(message.voting_timeout_ms);
        let branches = operation_branches(message.branches)?;
        // As large as any node may allow: the driver knows whether the limits of this one matter.
        let request = unanimo_core::Request::new(branches, unanimo_core::Limits::default())
            .map_err(|error| refusal(ErrorReason::Malformed, error.to_string()))?;
        let (transaction, decision) = match key {
            Some(key) => {
                self.driver
                    .submit_with_key(key, transaction, &request, timeout)
                    .await?
            }
            None => (
                transaction,
                self.driver.submit(transaction, &request, timeout).await?,
            ),
        };
        Ok(Response::new(v1::SubmitReply {
            cluster: self.cluster.to_string(),
            transaction: transaction.to_string(),
            outcome: self.outcome_of(decision),
        }))
    }

    async fn begin(&self, request: Request<v1::BeginRequest>) -> Result<Response<v1::BeginReply>, Status> {
        check_cluster(&self.cluster, &request.get_ref().cluster)?;
        self.admission.admit()?;
        let transaction = TransactionId::new(self.driver.time_of_new_id()?, self.ids.random());
        Ok(Response::new(v1::BeginReply {
            cluster: self.cluster.to_string(),
            transaction: transaction.to_string(),
        }))
    }

    async fn commit(
        &self,
        request: Request<v1::CommitTransactionRequest>,
    ) -> Result<Response<v1::CommitTransactionReply>, Status> {
        let (metadata, _, message) = request.into_parts();
        check_cluster(&self.cluster, &message.cluster)?;
        let transaction = transaction_from_wire(&message.transaction)?;
        let members = members_from_wire("participants", &message.participants)?;
        if !self.driver.is_ready() {
            return self
                .forwarder
                .forward(&metadata, message, async |mut leader, request| {
                    leader.commit(request).await
                })
                .await;
        }
        let timeout = self.limits.voting_timeout(message.voting_timeout_ms);
        let decision = self.driver.commit(transaction, members, timeout).await?;
        Ok(Response::new(v1::CommitTransactionReply {
            cluster: self.cluster.to_string(),
            transaction: transaction.to_string(),
            outcome: self.outcome_of(decision),
        }))
    }

    async fn abort(
        &self,
        request: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionReply>, Status> {
        let (metadata, _, message) = request.into_parts();
        check_cluster(&self.cluster, &message.cluster)?;
        let transaction = transaction_from_wire(&message.transaction)?;
        let members = match message.participants.as_slice() {
            [] => Members::new(),
            named => members_from_wire("participants", named)?,
        };
        if !self.driver.is_ready() {
            return self
                .forwarder
                .forward(&metadata, message, async |mut leader, request| {
                    leader.abort(request).await
                })
                .await;
        }
        let decision = self.driver.abort(transaction, members).await?;
        Ok(Response::new(v1::AbortTransactionReply {
            cluster: self.cluster.to_string(),
            transaction: transaction.to_string(),
            outcome: self.outcome_of(decision),
        }))
    }

    async fn get_outcome(
        &self,
        request: Request<v1::GetOutcomeRequest>,
    ) -> Result<Response<v1::GetOutcomeReply>, Status> {
        use v1::get_outcome_reply::Known;
        let (metadata, _, message) = request.into_parts();
        check_cluster(&self.cluster, &message.cluster)?;
        let transaction = transaction_from_wire(&message.transaction)?;
        let known = match self.driver.outcome(transaction).await {
            Ok(Some(decision)) => Known::Outcome(v1::Outcome::from(Outcome(decision))),
            Ok(None) => Known::Undecided(v1::Undecided {}),
            Err(DriverError::NotLeader) if mutants::is_on(Mutant::M12) => Known::Undecided(v1::Undecided {}),
            // Only the leader may say "undecided", after a read barrier.
            Err(DriverError::NotLeader) => {
                return self
                    .forwarder
                    .forward(&metadata, message, async |mut leader, request| {
                        leader.get_outcome(request).await
                    })
                    .await;
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Response::new(v1::GetOutcomeReply {
            cluster: self.cluster.to_string(),
            transaction: transaction.to_string(),
            known: Some(known),
        }))
    }

    async fn inquire(
        &self,
        request: Request<v1::InquireRequest>,
    ) -> Result<Response<v1::InquireReply>, Status> {
        let (metadata, _, message) = request.into_parts();
        check_cluster(&self.cluster, &message.cluster)?;
        let asker = ParticipantId::new(&message.participant).map_err(MalformedMessage::from)?;
        if message.inquiries.len() > MAX_INQUIRIES {
            let found = message.inquiries.len();
            let message =
                format!("{found} inquiries in one call, the limit is {MAX_INQUIRIES}; send several calls");
            return Err(refusal(ErrorReason::Malformed, message));
        }
        // Each is answered for itself: a bad one keeps no other branch in doubt.
        let asked: Vec<String> = message
            .inquiries
            .iter()
            .map(|inquiry| inquiry.transaction.clone())
            .collect();
        let (mut answers, mut open) = (Vec::with_capacity(asked.len()), Vec::new());
        for (place, inquiry) in message.inquiries.into_iter().enumerate() {
            answers.push(match self.read_inquiry(inquiry, &asker) {
                Err(error) => InquiryAnswer::refused(&error),
                Ok(inquiry) => match self.driver.known_decision(&inquiry)? {
                    Some(decision) => InquiryAnswer::Decided(decision),
                    None => {
                        open.push((place, inquiry));
                        InquiryAnswer::Undecided
                    }
                },
            });
        }
        if !open.is_empty() {
            let (places, open): (Vec<usize>, Vec<Inquiry>) = open.into_iter().unzip();
            // In the order of the questions: one id may be asked about for two requests.
            let told = self.ask_leader(&metadata, &asker, open).await?;
            for (place, answer) in places.into_iter().zip(told) {
                answers[place] = answer;
            }
        }
        let answers = asked
            .into_iter()
            .zip(answers)
            .map(|(asked, answer)| answer.to_wire(asked));
        Ok(Response::new(v1::InquireReply {
            cluster: self.cluster.to_string(),
            answers: answers.collect(),
        }))
    }

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterReply>, Status> {
        let (metadata, _, message) = request.into_parts();
        check_cluster(&self.cluster, &message.cluster)?;
        if !self.driver.is_ready() {
            return self
                .forwarder
                .forward(&metadata, message, async |mut leader, request| {
                    leader.register(request).await
                })
                .await;
        }
        self.driver.register(Registering::try_from(message)?).await?;
        Ok(Response::new(v1::RegisterReply {
            cluster: self.cluster.to_string(),
        }))
    }
}
