//! The client: the same question again until there is an answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Status};
use unanimo_core::mutants::{self, Mutant};
use unanimo_core::{
    AbortReason, ClusterId, Decision, IdempotencyKey, Members, Operation, ParticipantId, TransactionId,
};
use unanimo_proto::transport::{Clock as _, Connector, SystemClock, TcpConnector};
use unanimo_proto::v1::{self, coordinator_client::CoordinatorClient};
use unanimo_proto::{
    ErrorReason, Inquiry, InquiryAnswer, MalformedMessage, Outcome, Registering, transaction_from_wire,
};

use crate::error::describe;
use crate::nodes::Nodes;
use crate::{CallError, ClientError, ClientOptions, CommitError, InteractiveTransaction, SubmitError};

/// Talks to one cluster. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    options: Arc<ClientOptions>,
    nodes: Nodes,
}

/// Why the loop over attempts ended without an answer.
enum Unanswered {
    /// The last attempt was refused, for good or because it came too early until patience was over.
    Refused {
        reason: ErrorReason,
        message: String,
        /// Whether an attempt before it may have started something.
        may_have_started: bool,
        waited: Duration,
    },
    /// Patience is over.
    Unknown { waited: Duration, last_error: String },
}

/// More patience than this is as good as for ever, and still a time that can be computed with.
pub(crate) const LONGEST_PATIENCE: Duration = Duration::from_secs(365 * 24 * 3600);

impl Client {
    /// A client over TCP with the usual options. Connects when first used.
    pub fn connect(
        cluster: ClusterId,
        coordinators: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, ClientError> {
        Self::new(
            ClientOptions::new(cluster, coordinators),
            TcpConnector::shared().as_ref(),
        )
    }

    /// A client with these options over this connector.
    pub fn new(options: ClientOptions, connector: &dyn Connector) -> Result<Self, ClientError> {
        let nodes = Nodes::new(&options.coordinators, connector)?;
        Ok(Self {
            options: Arc::new(options),
            nodes,
        })
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterId {
        &self.options.cluster
    }

    /// A new transaction id, made of this machine's clock and randomness.
    pub fn new_transaction(&self) -> TransactionId {
        let id = uuid::Uuid::now_v7().as_u128();
        match TransactionId::from_u128(id) {
            Ok(id) => id,
            Err(error) => unreachable!("a version 7 UUID was asked for: {error}"),
        }
    }

    /// Runs one transaction: every participant named does its operation, or none does.
    ///
    /// The answer is definite and irrevocable. `submit` repeats the same request until it has it or `patience` is
    /// over; calling it again with the same id and branches is safe at any time and gives the same answer (R12).
    pub async fn submit(
        &self,
        transaction: TransactionId,
        branches: Vec<(ParticipantId, Operation)>,
        patience: Duration,
    ) -> Result<Decision, SubmitError> {
        let request = self.submit_request(transaction, branches);
        let (_, decision) = self.submit_until_answered(transaction, request, patience).await?;
        Ok(decision)
    }

    /// Runs one transaction under a key of the caller's, for callers that cannot keep a transaction's id: the same key
    /// with the same branches gives the outcome of the same transaction for the cluster's whole retention window, from
    /// whichever process and through whichever node it comes (R12). Returns that transaction's id, too.
    ///
    /// The same key with other branches is refused with [`ErrorReason::RequestMismatch`], which names the hashes of both.
    /// An abort is an outcome, too: to try the same thing again after one, take a new key.
    pub async fn submit_with_key(
        &self,
        key: &IdempotencyKey,
        branches: Vec<(ParticipantId, Operation)>,
        patience: Duration,
    ) -> Result<(TransactionId, Decision), SubmitError> {
        let transaction = self.new_transaction();
        let request = v1::SubmitRequest {
            idempotency_key: key.to_string(),
            ..self.submit_request(transaction, branches)
        };
        let submitted = self.submit_until_answered(transaction, request, patience).await;
        submitted.map_err(|error| match error {
            SubmitError::Unknown {
                waited, last_error, ..
            } => SubmitError::KeyUnknown {
                key: key.clone(),
                waited,
                last_error,
            },
            definite => definite,
        })
    }

    fn submit_request(
        &self,
        transaction: TransactionId,
        branches: Vec<(ParticipantId, Operation)>,
    ) -> v1::SubmitRequest {
        let branch = |(participant, operation): (ParticipantId, Operation)| v1::Branch {
            participant: participant.to_string(),
            operation: operation.to_shared(),
        };
        let voting_timeout = self.options.voting_timeout.unwrap_or_default();
        v1::SubmitRequest {
            cluster: self.options.cluster.to_string(),
            transaction: transaction.to_string(),
            branches: branches.into_iter().map(branch).collect(),
            voting_timeout_ms: u32::try_from(voting_timeout.as_millis()).unwrap_or(u32::MAX),
            idempotency_key: String::new(),
        }
    }

    async fn submit_until_answered(
        &self,
        transaction: TransactionId,
        request: v1::SubmitRequest,
        patience: Duration,
    ) -> Result<(TransactionId, Decision), SubmitError> {
        let keyed = !request.idempotency_key.is_empty();
        let call = async |mut node: CoordinatorClient<Channel>, request| {
            let reply: v1::SubmitReply = node.submit(request).await?.into_inner();
            // A key may stand for a transaction that was submitted before.
            let told = if keyed {
                self.check_cluster(&reply.cluster)?;
                transaction_from_wire(&reply.transaction).map_err(unreadable)?
            } else {
                self.check_reply(transaction, &reply.cluster, &reply.transaction)?;
                transaction
            };
            let Outcome(decision) = Outcome::try_from(reply.outcome).map_err(unreadable)?;
            Ok((told, decision))
        };
        let answered = self.until_answered(patience, request, call).await;
        if mutants::is_on(Mutant::M21) && matches!(answered, Err(Unanswered::Unknown { .. })) {
            return Ok((transaction, Decision::Abort(AbortReason::Requested)));
        }
        answered.map_err(|unanswered| match unanswered.of_transaction() {
            Unanswered::Refused {
                reason: ErrorReason::Expired,
                message,
                ..
            } => SubmitError::Expired { transaction, message },
            Unanswered::Refused { reason, message, .. } => SubmitError::Refused { reason, message },
            Unanswered::Unknown { waited, last_error } => SubmitError::Unknown {
                transaction,
                waited,
                last_error,
            },
        })
    }

    /// Begins an interactive transaction, which has `timeout` to get to its commit: after it the participants let go
    /// of whatever was not promised. The id comes from a coordinator, whose clock the cluster's limits on ids go by
    /// (R7), and which turns away more beginners than it can bear (R14). Nothing is recorded.
    ///
    /// # Errors
    ///
    /// [`CallError`] if no coordinator handed out an id within `timeout`.
    pub async fn begin(&self, timeout: Duration) -> Result<InteractiveTransaction, CallError> {
        let request = v1::BeginRequest {
            cluster: self.options.cluster.to_string(),
        };
        let call = async |mut node: CoordinatorClient<Channel>, request| {
            let reply: v1::BeginReply = node.begin(request).await?.into_inner();
            self.check_cluster(&reply.cluster)?;
            transaction_from_wire(&reply.transaction).map_err(unreadable)
        };
        let transaction = self.until_answered(timeout, request, call).await?;
        let now = SystemClock.now();
        Ok(InteractiveTransaction::new(
            self.clone(),
            transaction,
            now,
            timeout,
        ))
    }

    /// Commits an interactive transaction whose participants hold their work already. Usually called through
    /// [`InteractiveTransaction::commit`], which knows them; directly to ask again after
    /// [`CommitError::Unknown`], also from another process. The participants have to be the same ones each time: they are
    /// what the request is known by (R12).
    ///
    /// # Errors
    ///
    /// [`CommitError::Refused`], [`CommitError::Expired`] and [`CommitError::Unknown`].
    pub async fn commit(
        &self,
        transaction: TransactionId,
        participants: &Members,
        patience: Duration,
    ) -> Result<Decision, CommitError> {
        let voting_timeout = self.options.voting_timeout.unwrap_or_default();
        let request = v1::CommitTransactionRequest {
            cluster: self.options.cluster.to_string(),
            transaction: transaction.to_string(),
            participants: participants.iter().map(ToString::to_string).collect(),
            voting_timeout_ms: u32::try_from(voting_timeout.as_millis()).unwrap_or(u32::MAX),
        };
        let call = async |mut node: CoordinatorClient<Channel>, request| {
            let reply: v1::CommitTransactionReply = node.commit(request).await?.into_inner();
            self.check_reply(transaction, &reply.cluster, &reply.transaction)?;
            let Outcome(decision) = Outcome::try_from(reply.outcome).map_err(unreadable)?;
            Ok(decision)
        };
        self.until_answered(patience, request, call)
            .await
            .map_err(|unanswered| match unanswered.of_transaction() {
                Unanswered::Refused {
                    reason: ErrorReason::Expired,
                    message,
                    ..
                } => CommitError::Expired { transaction, message },
                Unanswered::Refused { reason, message, .. } => CommitError::Refused { reason, message },
                Unanswered::Unknown { waited, last_error } => CommitError::Unknown {
                    transaction,
                    participants: participants.clone(),
                    waited,
                    last_error,
                },
            })
    }

    /// Aborts a transaction unless it is decided, and returns what holds. The participants named are told.
    ///
    /// # Errors
    ///
    /// [`CallError`] if no coordinator answered.
    pub async fn abort(
        &self,
        transaction: TransactionId,
        participants: &Members,
        patience: Duration,
    ) -> Result<Decision, CallError> {
        let request = v1::AbortTransactionRequest {
            cluster: self.options.cluster.to_string(),
            transaction: transaction.to_string(),
            participants: participants.iter().map(ToString::to_string).collect(),
        };
        let call = async |mut node: CoordinatorClient<Channel>, request| {
            let reply: v1::AbortTransactionReply = node.abort(request).await?.into_inner();
            self.check_reply(transaction, &reply.cluster, &reply.transaction)?;
            let Outcome(decision) = Outcome::try_from(reply.outcome).map_err(unreadable)?;
            Ok(decision)
        };
        self.until_answered(patience, request, call)
            .await
            .map_err(CallError::from)
    }

    /// Asks for a transaction's outcome. None means that it was not decided as of this call, which says nothing
    /// about later: it may be running, or never have been seen.
    pub async fn outcome(
        &self,
        transaction: TransactionId,
        patience: Duration,
    ) -> Result<Option<Decision>, CallError> {
        let request = v1::GetOutcomeRequest {
            cluster: self.options.cluster.to_string(),
            transaction: transaction.to_string(),
        };
        let call = async |mut node: CoordinatorClient<Channel>, request| {
            use v1::get_outcome_reply::Known;
            let reply: v1::GetOutcomeReply = node.get_outcome(request).await?.into_inner();
            self.check_reply(transaction, &reply.cluster, &reply.transaction)?;
            match reply.known {
                Some(Known::Outcome(outcome)) => {
                    Ok(Some(Outcome::try_from(Some(outcome)).map_err(unreadable)?.0))
                }
                Some(Known::Undecided(_)) => Ok(None),
                None => Err(Status::internal("the reply says neither outcome nor undecided")),
            }
        };
        self.until_answered(patience, request, call)
            .await
            .map_err(CallError::from)
    }

    /// Asks for the decisions of branches in doubt (R5). Participants use it.
    pub async fn inquire(
        &self,
        participant: &ParticipantId,
        inquiries: Vec<Inquiry>,
        patience: Duration,
    ) -> Result<Vec<(TransactionId, InquiryAnswer)>, CallError> {
        let request = v1::InquireRequest {
            cluster: self.options.cluster.to_string(),
            participant: participant.to_string(),
            inquiries: inquiries.into_iter().map(Into::into).collect(),
        };
        let call = async |mut node: CoordinatorClient<Channel>, request| {
            let reply: v1::InquireReply = node.inquire(request).await?.into_inner();
            self.check_cluster(&reply.cluster)?;
            let answers: Result<Vec<_>, _> = reply.answers.into_iter().map(TryInto::try_into).collect();
            answers.map_err(unreadable)
        };
        self.until_answered(patience, request, call)
            .await
            .map_err(CallError::from)
    }

    /// Tells the cluster where a participant serves and how far its memory reaches (R11). Participants use it.
    /// [`ErrorReason::Outdated`] is final: the participant runs from an old copy of its data.
    pub async fn register(&self, registering: &Registering, patience: Duration) -> Result<(), CallError> {
        let request = registering.to_wire(&self.options.cluster);
        let call = async |mut node: CoordinatorClient<Channel>, request| {
            let reply: v1::RegisterReply = node.register(request).await?.into_inner();
            self.check_cluster(&reply.cluster)
        };
        self.until_answered(patience, request, call)
            .await
            .map_err(CallError::from)
    }

    fn check_cluster(&self, claimed: &str) -> Result<(), Status> {
        if claimed == self.options.cluster.as_str() {
            return Ok(());
        }
        Err(Status::internal(format!(
            "the reply is of cluster {claimed:?}, asked was {}",
            self.options.cluster
        )))
    }

    fn check_reply(&self, asked: TransactionId, cluster: &str, transaction: &str) -> Result<(), Status> {
        self.check_cluster(cluster)?;
        let told = transaction_from_wire(transaction).map_err(unreadable)?;
        if told == asked {
            return Ok(());
        }
        Err(Status::internal(format!(
            "the reply is of transaction {told}, asked was {asked}"
        )))
    }

    /// Makes attempts, each at the node that answered last, until one is answered, refused for good, or patience
    /// is over. Dropping the future is safe: the cluster finishes what it has started.
    async fn until_answered<Q: Clone, A, F: Future<Output = Result<A, Status>>>(
        &self,
        patience: Duration,
        request: Q,
        call: impl Fn(CoordinatorClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, Unanswered> {
        let started = Instant::now();
        let deadline = started + patience.min(LONGEST_PATIENCE);
        let mut pause = self.options.first_pause;
        let mut may_have_started = false;
        loop {
            let (place, node) = self.nodes.preferred();
            let until = deadline.min(Instant::now() + self.options.attempt_timeout.min(LONGEST_PATIENCE));
            let mut attempt = Request::new(request.clone());
            // The server learns how long anybody listens, and gives up with us.
            attempt.set_timeout(until.saturating_duration_since(Instant::now()));
            let error = match timeout_at(until, call(node, attempt)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer to this attempt"),
            };
            let reason = unanimo_proto::reason_of(&error);
            tracing::debug!(error = %describe(&error), "an attempt failed");
            let refused = |reason, may_have_started| Unanswered::Refused {
                reason,
                message: error.message().to_owned(),
                may_have_started,
                waited: started.elapsed(),
            };
            if let Some(reason) = reason.filter(|reason| reason.is_final()) {
                return Err(refused(reason, may_have_started));
            }
            // Overload, a missing leader, an id ahead of its time and a refused connection started nothing; of anything
            // else nobody knows.
            let harmless = matches!(
                reason,
                Some(ErrorReason::Overloaded | ErrorReason::NoLeader | ErrorReason::Premature)
            ) || never_connected(&error);
            may_have_started |= !harmless;
            if mutants::is_on(Mutant::M21) && may_have_started {
                return Err(Unanswered::Unknown {
                    waited: started.elapsed(),
                    last_error: describe(&error),
                });
            }
            if !matches!(reason, Some(ErrorReason::Overloaded)) {
                self.nodes.avoid(place);
            }
            // A hint of no time at all is no reason to ask without a pause.
            let hint = unanimo_proto::retry_after(&error).map(|hint| hint.max(self.options.first_pause));
            let resume = Instant::now() + hint.unwrap_or(pause).min(LONGEST_PATIENCE);
            if resume >= deadline {
                return Err(match reason {
                    // The time in the id is what somebody has to see to.
                    Some(reason @ ErrorReason::Premature) => refused(reason, may_have_started),
                    _ => Unanswered::Unknown {
                        waited: started.elapsed(),
                        last_error: describe(&error),
                    },
                });
            }
            tokio::time::sleep_until(resume).await;
            pause = pause.saturating_mul(2).min(self.options.longest_pause);
        }
    }
}

impl Unanswered {
    /// The same for a call that may lead to a commit: a refusal says nothing about attempts before it. Only that the
    /// transaction is forgotten by now is true whatever they did.
    fn of_transaction(self) -> Self {
        match self {
            Self::Refused {
                reason,
                message,
                may_have_started: true,
                waited,
            } if reason != ErrorReason::Expired => Self::Unknown {
                waited,
                last_error: format!("{}: {message}", reason.as_str()),
            },
            refused_or_unknown => refused_or_unknown,
        }
    }
}

/// A reply that makes no sense. Nothing follows from it: the call may have been carried out.
fn unreadable(error: MalformedMessage) -> Status {
    Status::internal(format!("the reply makes no sense: {error}"))
}

/// Whether the call never left this process because no connection could be made.
pub(crate) fn never_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(cause) = source {
        if cause.is::<tonic::ConnectError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

impl From<Unanswered> for CallError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Refused { reason, message, .. } => Self::Refused { reason, message },
            Unanswered::Unknown { waited, last_error } => Self::NoAnswer { waited, last_error },
        }
    }
}
