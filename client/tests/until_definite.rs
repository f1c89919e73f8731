//! What the client makes of every kind of answer, and of none.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tower::{Layer as _, Service as _, service_fn};
use unanimo_client::{
    AbortReason, CallError, Client, ClientError, ClientOptions, CommitError, Decision,
    InteractiveTransaction, Operation, SubmitError, TransactionId,
};
use unanimo_core::Generation;
use unanimo_proto::transport::TcpConnector;
use unanimo_proto::v1::coordinator_server::{Coordinator, CoordinatorServer};
use unanimo_proto::{
    BRANCH_KEY, BranchReport, BranchState, ErrorReason, Outcome, refusal, v1, with_retry_after,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the coordinator does with one call.
enum Answer {
    Decide(Decision),
    Fail(Status),
    Hang,
    OfAnotherTransaction,
    Nothing,
}

/// A coordinator that answers as told, and keeps what it was asked.
#[derive(Clone)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<v1::SubmitRequest>>>,
    begun: Arc<AtomicU64>,
    /// Every abort that was asked for.
    aborts: watch::Sender<Vec<v1::AbortTransactionRequest>>,
}

impl Scripted {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> (Self, String) {
        let this = Self {
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            asked: Arc::default(),
            begun: Arc::default(),
            aborts: watch::Sender::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Server::builder().add_service(CoordinatorServer::new(this.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (this, address)
    }

    fn asked(&self) -> Vec<v1::SubmitRequest> {
        self.asked.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl Coordinator for Scripted {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        let request = request.into_inner();
        self.asked.lock().unwrap().push(request.clone());
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Hang);
        let reply = |transaction, outcome| v1::SubmitReply {
            cluster: "test".to_owned(),
            transaction,
            outcome,
        };
        match answer {
            Answer::Decide(decision) => Ok(Response::new(reply(
                request.transaction,
                Some(Outcome(decision).into()),
            ))),
            Answer::Fail(status) => Err(status),
            Answer::Hang => std::future::pending().await,
            Answer::OfAnotherTransaction => {
                let other = "018bcfe5-687b-7fff-bfff-ffffffffffff".to_owned();
                Ok(Response::new(reply(
                    other,
                    Some(Outcome(Decision::Commit).into()),
                )))
            }
            Answer::Nothing => Ok(Response::new(reply(request.transaction, None))),
        }
    }

    async fn begin(&self, _: Request<v1::BeginRequest>) -> Result<Response<v1::BeginReply>, Status> {
        let number = self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(v1::BeginReply {
            cluster: "test".to_owned(),
            transaction: format!("018bcfe5-687b-7fff-bfff-{number:012}"),
        }))
    }

    async fn commit(
        &self,
        request: Request<v1::CommitTransactionRequest>,
    ) -> Result<Response<v1::CommitTransactionReply>, Status> {
        let answer = self.answers.lock().unwrap().pop_front();
        match answer.unwrap_or(Answer::Hang) {
            Answer::Decide(decision) => Ok(Response::new(v1::CommitTransactionReply {
                cluster: "test".to_owned(),
                transaction: request.into_inner().transaction,
                outcome: Some(Outcome(decision).into()),
            })),
            Answer::Fail(status) => Err(status),
            Answer::Hang | Answer::OfAnotherTransaction | Answer::Nothing => std::future::pending().await,
        }
    }

    async fn abort(
        &self,
        request: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionReply>, Status> {
        let request = request.into_inner();
        let transaction = request.transaction.clone();
        self.aborts.send_modify(|aborts| aborts.push(request));
        Ok(Response::new(v1::AbortTransactionReply {
            cluster: "test".to_owned(),
            transaction,
            outcome: Some(Outcome(Decision::Abort(AbortReason::Requested)).into()),
        }))
    }

    async fn get_outcome(
        &self,
        request: Request<v1::GetOutcomeRequest>,
    ) -> Result<Response<v1::GetOutcomeReply>, Status> {
        let known = match self.answers.lock().unwrap().pop_front() {
            Some(Answer::Decide(decision)) => v1::get_outcome_reply::Known::Outcome(Outcome(decision).into()),
            Some(Answer::Fail(status)) => return Err(status),
            _ => v1::get_outcome_reply::Known::Undecided(v1::Undecided {}),
        };
        Ok(Response::new(v1::GetOutcomeReply {
            cluster: "test".to_owned(),
            transaction: request.into_inner().transaction,
            known: Some(known),
        }))
    }

    async fn inquire(&self, _: Request<v1::InquireRequest>) -> Result<Response<v1::InquireReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn register(&self, _: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterReply>, Status> {
        Err(refusal(ErrorReason::Outdated, "from an old copy"))
    }
}

fn client(addresses: &[&str]) -> Client {
    let mut options = ClientOptions::new("test".parse().unwrap(), addresses.iter().copied());
    options.attempt_timeout = Duration::from_millis(300);
    Client::new(options, &TcpConnector::default()).unwrap()
}

async fn submit(client: &Client, patience: Duration) -> (TransactionId, Result<Decision, SubmitError>) {
    let transaction = client.new_transaction();
    let branches = vec![("a".parse().unwrap(), Operation::new("x"))];
    (transaction, client.submit(transaction, branches, patience).await)
}

fn no_leader() -> Answer {
    Answer::Fail(with_retry_after(
        ErrorReason::NoLeader,
        "electing",
        Duration::from_millis(5),
    ))
}

#[tokio::test]
async fn every_indefinite_answer_is_asked_again_with_the_same_id_and_branches() {
    let indefinite = [
        no_leader(),
        Answer::Fail(with_retry_after(
            ErrorReason::Overloaded,
            "busy",
            Duration::from_millis(5),
        )),
        Answer::Fail(refusal(ErrorReason::OutcomeUnknown, "lost the leadership")),
        Answer::Fail(refusal(ErrorReason::StorageFailed, "disk")),
        Answer::Fail(Status::internal("proxy")),
        Answer::Hang,
        Answer::OfAnotherTransaction,
        Answer::Nothing,
        Answer::Decide(Decision::Commit),
    ];
    let attempts = indefinite.len();
    let (coordinator, address) = Scripted::start(indefinite).await;
    let (transaction, result) = submit(&client(&[&address]), PATIENCE).await;
    assert_eq!(result.unwrap(), Decision::Commit);
    let asked = coordinator.asked();
    assert_eq!(asked.len(), attempts);
    assert!(
        asked.iter().all(|request| *request == asked[0]),
        "every attempt is the same request"
    );
    assert_eq!(asked[0].transaction, transaction.to_string());
}

#[tokio::test]
async fn an_abort_is_an_outcome_and_not_an_error() {
    let (_coordinator, address) =
        Scripted::start([Answer::Decide(Decision::Abort(AbortReason::Requested))]).await;
    let (_, result) = submit(&client(&[&address]), PATIENCE).await;
    assert_eq!(result.unwrap(), Decision::Abort(AbortReason::Requested));
}

#[tokio::test]
async fn a_node_that_is_down_is_passed_over() {
    let (coordinator, address) = Scripted::start([Answer::Decide(Decision::Commit)]).await;
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let (_, result) = submit(&client(&[&gone, &address]), PATIENCE).await;
    assert_eq!(result.unwrap(), Decision::Commit);
    assert_eq!(coordinator.asked().len(), 1);
}

#[tokio::test]
async fn when_patience_ends_the_outcome_is_unknown_and_never_an_abort() {
    let (_coordinator, address) = Scripted::start([]).await;
    let (transaction, result) = submit(&client(&[&address]), Duration::from_millis(700)).await;
    let error = result.unwrap_err();
    assert!(!error.is_definite());
    let text = error.to_string();
    assert!(
        text.contains("unknown") && text.contains(&transaction.to_string()) && text.contains("same id"),
        "{text}"
    );
}

#[tokio::test]
async fn a_first_refusal_is_definite_and_a_later_one_is_not() {
    let refuse = || Answer::Fail(refusal(ErrorReason::UnknownParticipant, "who is a?"));
    // Neither a missing leader nor a node that is down can have started anything.
    let (_one, address) = Scripted::start([no_leader(), refuse()]).await;
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let (_, result) = submit(&client(&[&gone, &address, &address]), PATIENCE).await;
    let error = result.unwrap_err();
    assert!(error.is_definite(), "{error}");
    assert!(error.to_string().contains("who is a?"), "{error}");
    // An attempt whose fate nobody knows may have started it.
    let (_two, address) = Scripted::start([Answer::Fail(Status::internal("proxy")), refuse()]).await;
    let (_, result) = submit(&client(&[&address]), PATIENCE).await;
    let error = result.unwrap_err();
    assert!(!error.is_definite(), "{error}");
}

#[tokio::test]
async fn what_is_forgotten_may_have_committed_whoever_asks_again() {
    let expired = || Answer::Fail(refusal(ErrorReason::Expired, "older than the window"));
    // The first attempt says so, or one after an attempt whose fate nobody knows.
    for before in [None, Some(Answer::Fail(Status::internal("proxy")))] {
        let script = || before.as_ref().map(|_| Answer::Fail(Status::internal("proxy")));
        let (_coordinator, address) = Scripted::start(script().into_iter().chain([expired()])).await;
        let (transaction, result) = submit(&client(&[&address]), PATIENCE).await;
        let error = result.unwrap_err();
        assert!(matches!(error, SubmitError::Expired { .. }), "{error}");
        assert!(!error.is_definite() && error.to_string().contains(&transaction.to_string()));

        let (_coordinator, address) = Scripted::start(script().into_iter().chain([expired()])).await;
        let members = ["a".parse().unwrap()].into();
        let committed = client(&[&address]).commit(transaction, &members, PATIENCE).await;
        let error = committed.unwrap_err();
        assert!(matches!(error, CommitError::Expired { .. }), "{error}");
        assert!(!error.is_definite() && error.to_string().contains(&transaction.to_string()));
    }
}

/// An interactive transaction that participant `a` has joined.
async fn joined(client: &Client) -> InteractiveTransaction {
    let transaction = client.begin(PATIENCE).await.unwrap();
    let report = BranchReport {
        cluster: "test".parse().unwrap(),
        transaction: transaction.transaction(),
        participant: "a".parse().unwrap(),
        generation: Generation(1),
        state: BranchState::Joined,
    };
    let service = service_fn(|_: http::Request<()>| {
        let response = http::Response::builder().header(BRANCH_KEY, report.to_wire());
        ready(Ok::<_, Infallible>(response.body(()).unwrap()))
    });
    let mut channel = transaction.layer().layer(service);
    channel.call(http::Request::new(())).await.unwrap();
    transaction
}

#[tokio::test]
async fn the_commit_of_what_was_joined_may_have_happened_although_it_is_forgotten() {
    let refuse = |reason| Answer::Fail(refusal(reason, "why"));
    let (coordinator, address) = Scripted::start([
        refuse(ErrorReason::Expired),
        refuse(ErrorReason::UnknownParticipant),
    ])
    .await;
    let client = client(&[&address]);
    let forgotten = joined(&client).await;
    let id = forgotten.transaction().to_string();
    let error = forgotten.commit(PATIENCE).await.unwrap_err();
    assert!(matches!(error, CommitError::Expired { .. }), "{error}");
    assert!(!error.is_definite() && error.to_string().contains(&id), "{error}");
    // One that was refused is aborted, so that what is held is let go. An abort of the one before would be there earlier.
    let refused = joined(&client).await;
    let id = refused.transaction().to_string();
    let error = refused.commit(PATIENCE).await.unwrap_err();
    assert!(
        matches!(error, CommitError::Refused { .. }) && error.is_definite(),
        "{error}"
    );
    let mut aborts = coordinator.aborts.subscribe();
    let aborts = aborts.wait_for(|aborts| !aborts.is_empty()).await.unwrap();
    assert_eq!(aborts[0].transaction, id);
    assert_eq!(aborts[0].participants, ["a"]);
}

#[tokio::test]
async fn an_id_ahead_of_its_time_is_asked_for_again_until_patience_ends() {
    let premature = || Answer::Fail(refusal(ErrorReason::Premature, "a day ahead"));
    // Time passes, and another leader may read other clocks.
    let (_coordinator, address) =
        Scripted::start([premature(), premature(), Answer::Decide(Decision::Commit)]).await;
    let (_, result) = submit(&client(&[&address]), PATIENCE).await;
    assert_eq!(result.unwrap(), Decision::Commit);

    let brief = Duration::from_millis(200);
    let forever = || std::iter::repeat_with(premature).take(100);
    let (coordinator, address) = Scripted::start(forever()).await;
    let (_, result) = submit(&client(&[&address]), brief).await;
    let error = result.unwrap_err();
    // No attempt has started anything.
    let reason = ErrorReason::Premature;
    assert!(
        matches!(&error, SubmitError::Refused { reason: told, .. } if *told == reason),
        "{error}"
    );
    assert!(error.is_definite() && coordinator.asked().len() > 1);

    let unknown = Answer::Fail(Status::internal("proxy"));
    let (_coordinator, address) = Scripted::start(std::iter::once(unknown).chain(forever())).await;
    let (_, result) = submit(&client(&[&address]), brief).await;
    let error = result.unwrap_err();
    assert!(matches!(error, SubmitError::Unknown { .. }), "{error}");
}

#[tokio::test]
async fn a_question_that_is_refused_is_refused_whatever_came_before() {
    let (_coordinator, address) = Scripted::start([
        Answer::Fail(Status::internal("proxy")),
        Answer::Fail(refusal(ErrorReason::WrongCluster, "this is another one")),
    ])
    .await;
    let client = client(&[&address]);
    let error = client
        .outcome(client.new_transaction(), PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_key_is_told_of_the_transaction_it_stands_for_and_is_what_to_ask_again_with() {
    let key = "order 4711".parse().unwrap();
    let branches = || vec![("a".parse().unwrap(), Operation::new("x"))];
    let (coordinator, address) = Scripted::start([no_leader(), Answer::OfAnotherTransaction]).await;
    let told = client(&[&address])
        .submit_with_key(&key, branches(), PATIENCE)
        .await;
    let (transaction, decision) = told.unwrap();
    assert_eq!(
        (transaction.to_string().as_str(), decision),
        ("018bcfe5-687b-7fff-bfff-ffffffffffff", Decision::Commit)
    );
    let asked = coordinator.asked();
    assert!(asked.iter().all(|request| *request == asked[0]), "{asked:?}");
    assert_eq!(asked[0].idempotency_key, "order 4711");

    let (_silent, address) = Scripted::start([]).await;
    let patience = Duration::from_millis(400);
    let told = client(&[&address])
        .submit_with_key(&key, branches(), patience)
        .await;
    let error = told.unwrap_err();
    assert!(!error.is_definite());
    let text = error.to_string();
    assert!(
        text.contains("unknown") && text.contains("\"order 4711\"") && text.contains("same key"),
        "{text}"
    );
}

#[tokio::test]
async fn no_hint_and_no_patience_is_too_long_to_compute_with() {
    let forever = Duration::from_secs(i64::MAX as u64);
    let hint = Answer::Fail(with_retry_after(ErrorReason::NoLeader, "electing", forever));
    let (_coordinator, address) = Scripted::start([hint, Answer::Decide(Decision::Commit)]).await;
    let (_, result) = submit(&client(&[&address]), Duration::MAX).await;
    assert_eq!(result.unwrap(), Decision::Commit);
}

#[tokio::test]
async fn questions_are_answered_repeated_or_refused() {
    let (_coordinator, address) = Scripted::start([no_leader(), Answer::Decide(Decision::Commit)]).await;
    let client = client(&[&address]);
    let transaction = client.new_transaction();
    assert_eq!(
        client.outcome(transaction, PATIENCE).await.unwrap(),
        Some(Decision::Commit)
    );
    assert_eq!(client.outcome(transaction, PATIENCE).await.unwrap(), None);
    let registering = unanimo_proto::Registering {
        participant: "a".parse().unwrap(),
        registration: unanimo_core::table::Registration {
            address: "127.0.0.1:1".to_owned(),
            witness: Default::default(),
        },
    };
    let error = client.register(&registering, PATIENCE).await.unwrap_err();
    assert!(
        matches!(
            error,
            CallError::Refused {
                reason: ErrorReason::Outdated,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_client_needs_an_address_that_is_one() {
    let cluster: unanimo_client::ClusterId = "test".parse().unwrap();
    let none: [&str; 0] = [];
    assert!(matches!(
        Client::connect(cluster.clone(), none),
        Err(ClientError::NoCoordinators)
    ));
    let error = Client::connect(cluster, ["not an address"])
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("not an address") && error.contains("host:port"),
        "{error}"
    );
}
