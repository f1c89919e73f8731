use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use unanimo_core::{AbortReason, Decision, TransactionId};
use unanimo_proto::v1::coordinator_server::{Coordinator, CoordinatorServer};
use unanimo_proto::{ErrorReason, InquiryAnswer, Outcome, refusal, transaction_from_wire, v1};

use super::world::CLUSTER;

/// A coordinator that answers what it is told to, on a thread of its own, so that it outlives the participant.
#[derive(Clone)]
pub(crate) struct FakeCoordinator {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    decisions: BTreeMap<TransactionId, Decision>,
    inquiries: Vec<v1::InquireRequest>,
    registrations: Vec<v1::RegisterRequest>,
    refuse_registration: Option<ErrorReason>,
    failing_inquiries: u32,
    refused_inquiry: Option<TransactionId>,
    /// Only this one of a call.
    refused_alone: Option<TransactionId>,
    /// Transactions handed out, the first of them 1.
    begun: u128,
    /// What initiators wanted to commit and to abort.
    commits: Vec<v1::CommitTransactionRequest>,
    aborts: Vec<v1::AbortTransactionRequest>,
}

impl FakeCoordinator {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (sender, receiver) = std::sync::mpsc::channel();
        let served = Served(Arc::clone(&state));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap().to_string()).unwrap();
                tonic::transport::Server::builder()
                    .add_service(CoordinatorServer::new(served))
                    .serve_with_incoming(TcpListenerStream::new(listener))
                    .await
                    .unwrap();
            });
        });
        Self {
            address: receiver.recv().unwrap(),
            state,
        }
    }

    pub(crate) fn commit(&self, transaction: TransactionId) {
        self.decide(transaction, Decision::Commit);
    }

    pub(crate) fn abort(&self, transaction: TransactionId) {
        self.decide(transaction, Decision::Abort(AbortReason::Requested));
    }

    fn decide(&self, transaction: TransactionId, decision: Decision) {
        self.state.lock().unwrap().decisions.insert(transaction, decision);
    }

    pub(crate) fn refuse_registration(&self, reason: Option<ErrorReason>) {
        self.state.lock().unwrap().refuse_registration = reason;
    }

    pub(crate) fn fail_inquiries(&self, times: u32) {
        self.state.lock().unwrap().failing_inquiries = times;
    }

    /// Refuses every inquiry that asks about this transaction.
    pub(crate) fn refuse_inquiries_about(&self, transaction: TransactionId) {
        self.state.lock().unwrap().refused_inquiry = Some(transaction);
    }

    /// Refuses what a call asks about this transaction, and answers the rest of it.
    pub(crate) fn refuse_to_answer_about(&self, transaction: Option<TransactionId>) {
        self.state.lock().unwrap().refused_alone = transaction;
    }

    pub(crate) fn inquiries(&self) -> Vec<v1::InquireRequest> {
        self.state.lock().unwrap().inquiries.clone()
    }

    pub(crate) fn commits(&self) -> Vec<v1::CommitTransactionRequest> {
        self.state.lock().unwrap().commits.clone()
    }

    pub(crate) fn aborts(&self) -> Vec<v1::AbortTransactionRequest> {
        self.state.lock().unwrap().aborts.clone()
    }

    pub(crate) fn registrations(&self) -> Vec<v1::RegisterRequest> {
        self.state.lock().unwrap().registrations.clone()
    }
}

struct Served(Arc<Mutex<State>>);

#[tonic::async_trait]
impl Coordinator for Served {
    async fn inquire(
        &self,
        request: Request<v1::InquireRequest>,
    ) -> Result<Response<v1::InquireReply>, Status> {
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        state.inquiries.push(request.clone());
        if state.failing_inquiries > 0 {
            state.failing_inquiries -= 1;
            return Err(refusal(ErrorReason::NoLeader, "an election is under way"));
        }
        let refused = state.refused_inquiry.map(|transaction| transaction.to_string());
        if let Some(refused) = refused
            && request
                .inquiries
                .iter()
                .any(|inquiry| inquiry.transaction == refused)
        {
            return Err(refusal(ErrorReason::Malformed, "told to refuse"));
        }
        let answer = |inquiry: v1::Inquiry| {
            let transaction = transaction_from_wire(&inquiry.transaction).unwrap();
            let answer = match state.decisions.get(&transaction) {
                _ if state.refused_alone == Some(transaction) => InquiryAnswer::Refused {
                    reason: Some(ErrorReason::UnknownParticipant),
                    message: "told to refuse".to_owned(),
                },
                Some(decision) => InquiryAnswer::Decided(decision.clone()),
                None => InquiryAnswer::Undecided,
            };
            answer.to_wire(transaction)
        };
        Ok(Response::new(v1::InquireReply {
            cluster: CLUSTER.to_owned(),
            answers: request.inquiries.into_iter().map(answer).collect(),
        }))
    }

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterReply>, Status> {
        let mut state = self.0.lock().unwrap();
        state.registrations.push(request.into_inner());
        match state.refuse_registration {
            Some(reason) => Err(refusal(reason, "told to refuse")),
            None => Ok(Response::new(v1::RegisterReply {
                cluster: CLUSTER.to_owned(),
            })),
        }
    }

    async fn submit(&self, _: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        Err(Status::unimplemented("not asked of participants"))
    }

    async fn begin(&self, _: Request<v1::BeginRequest>) -> Result<Response<v1::BeginReply>, Status> {
        let mut state = self.0.lock().unwrap();
        state.begun += 1;
        Ok(Response::new(v1::BeginReply {
            cluster: CLUSTER.to_owned(),
            transaction: super::transaction(state.begun).to_string(),
        }))
    }

    async fn commit(
        &self,
        request: Request<v1::CommitTransactionRequest>,
    ) -> Result<Response<v1::CommitTransactionReply>, Status> {
        let request = request.into_inner();
        self.0.lock().unwrap().commits.push(request.clone());
        Ok(Response::new(v1::CommitTransactionReply {
            cluster: CLUSTER.to_owned(),
            transaction: request.transaction,
            outcome: Some(Outcome(Decision::Commit).into()),
        }))
    }

    async fn abort(
        &self,
        request: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionReply>, Status> {
        let request = request.into_inner();
        self.0.lock().unwrap().aborts.push(request.clone());
        Ok(Response::new(v1::AbortTransactionReply {
            cluster: CLUSTER.to_owned(),
            transaction: request.transaction,
            outcome: Some(Outcome(Decision::Abort(AbortReason::Requested)).into()),
        }))
    }

    async fn get_outcome(
        &self,
        _: Request<v1::GetOutcomeRequest>,
    ) -> Result<Response<v1::GetOutcomeReply>, Status> {
        Err(Status::unimplemented("not asked of participants"))
    }
}
