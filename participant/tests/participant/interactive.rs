//! Client and service together: the context goes out with the calls, the replies tell who takes part.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use tonic::Status;
use tower::{Layer, Service, ServiceExt as _, service_fn};
use unanimo_client::{
    Client, ClientOptions, CommitError, Decision, Doom, InteractiveTransaction, TransactionLayer,
};
use unanimo_participant::{Bytes, Enlistment, JoinLayer, Participant};
use unanimo_proto::transport::{Connector as _, TcpConnector};
use unanimo_proto::{BRANCH_KEY, CONTEXT_KEY, Context, ErrorReason};

use crate::support::{Call, World, eventually, reason, transaction};

const PATIENCE: Duration = Duration::from_secs(10);

/// A service whose calls carry operations, one in a line, and that answers as gRPC does.
async fn bring(request: Request<&'static str>) -> Result<Response<String>, Infallible> {
    let (parts, operations) = request.into_parts();
    let mut request = tonic::Request::new(());
    *request.extensions_mut() = parts.extensions;
    let Some(enlistment) = Enlistment::find(&request).cloned() else {
        return Ok(Response::new("no transaction".to_owned()));
    };
    for operation in operations.lines() {
        if let Err(error) = enlistment.join(Bytes::from(operation)).await {
            return Ok(Status::from(error).into_http());
        }
    }
    Ok(Response::new("done".to_owned()))
}

pub(crate) fn service(
    participant: &Participant,
) -> impl Service<
    Request<&'static str>,
    Response = Response<String>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<String>, Infallible>> + Send + use<>,
> + Clone
+ use<> {
    JoinLayer::new(participant).layer(service_fn(bring))
}

/// Calls the participant's service as part of a transaction.
async fn call(
    layer: TransactionLayer,
    participant: &Participant,
    operations: &'static str,
) -> Response<String> {
    let mut channel = layer.layer(service(participant));
    let ready = channel.ready().await.unwrap();
    ready.call(Request::new(operations)).await.unwrap()
}

async fn begin(world: &World) -> InteractiveTransaction {
    let options = ClientOptions::new("test".parse().unwrap(), [world.coordinator.address.clone()]);
    let client = Client::new(options, TcpConnector::shared().as_ref()).unwrap();
    client.begin(PATIENCE).await.unwrap()
}

pub(crate) fn refused(response: &Response<String>) -> Option<ErrorReason> {
    reason(&Status::from_header_map(response.headers())?)
}

#[tokio::test]
async fn a_call_joins_and_its_reply_says_so() {
    let world = World::new();
    let (participant, _) = world.start().await;
    let tx = begin(&world).await;
    assert_eq!(tx.transaction(), transaction(1));
    // A call that brings nothing enlists nobody.
    call(tx.layer(), &participant, "").await;
    assert!(tx.participants().is_empty());
    let response = call(tx.layer(), &participant, "yes one\nyes two").await;
    assert_eq!(response.body(), "done");
    assert_eq!(tx.participants(), ["stock".parse().unwrap()].into());
    assert_eq!(world.recorder.holds(), [tx.transaction()]);
    assert_eq!(tx.doom(), None);
    assert_eq!(tx.commit(PATIENCE).await.unwrap(), Decision::Commit);
    let asked = world.coordinator.commits();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].participants, ["stock"]);
    // An abort of it would be there before that of a later one.
    let later = begin(&world).await;
    call(later.layer(), &participant, "yes").await;
    let aborted = later.transaction().to_string();
    drop(later);
    eventually("the later abort", || !world.coordinator.aborts().is_empty()).await;
    assert_eq!(world.coordinator.aborts()[0].transaction, aborted);
}

#[tokio::test]
async fn nothing_is_committed_that_nobody_joined() {
    let world = World::new();
    let error = begin(&world).await.commit(PATIENCE).await.unwrap_err();
    assert!(matches!(error, CommitError::NoBranches { .. }) && error.is_definite());
    assert_eq!(world.coordinator.commits(), []);
}

#[tokio::test]
async fn a_refused_operation_dooms_the_transaction_and_everything_is_let_go() {
    let world = World::new();
    let (participant, _) = world.start().await;
    let tx = begin(&world).await;
    let response = call(tx.layer(), &participant, "yes\nno card").await;
    // A branch is reported although the call failed.
    assert!(response.headers().contains_key(BRANCH_KEY));
    let doom = Doom::Refused {
        participant: "stock".parse().unwrap(),
    };
    assert_eq!(tx.doom(), Some(doom));
    let error = tx.commit(PATIENCE).await.unwrap_err();
    assert!(matches!(error, CommitError::Doomed { .. }) && error.is_definite());
    assert_eq!(world.coordinator.commits(), []);
    eventually("the abort in the background", || {
        world
            .coordinator
            .aborts()
            .iter()
            .any(|abort| abort.participants == ["stock"])
    })
    .await;
    eventually("let go", || world.recorder.holds().is_empty()).await;
}

#[tokio::test]
async fn what_is_dropped_is_aborted_and_what_was_committed_is_not() {
    let world = World::new();
    let (participant, _) = world.start().await;
    let tx = begin(&world).await;
    call(tx.layer(), &participant, "yes").await;
    drop(tx);
    eventually("the abort", || world.coordinator.aborts().len() == 1).await;
    let tx = begin(&world).await;
    let layer = tx.layer();
    call(tx.layer(), &participant, "yes").await;
    tx.abort(PATIENCE).await.unwrap();
    assert_eq!(world.coordinator.aborts().len(), 2);
    // Nothing is sent under it any more.
    let response = call(layer, &participant, "yes").await;
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert_eq!(world.recorder.count(Call::Prepare, transaction(2)), 1);
}

#[tokio::test]
async fn a_participant_that_restarted_between_two_calls_dooms_the_transaction() {
    let world = World::new();
    let (participant, _) = world.start().await;
    let tx = begin(&world).await;
    call(tx.layer(), &participant, "yes one").await;
    drop(participant);
    world.crash(0);
    let (participant, _) = world.start().await;
    // The branch knows nothing of the first operation: a commit would be half of the transaction.
    let response = call(tx.layer(), &participant, "yes two").await;
    assert_eq!(response.body(), "done");
    let error = tx.commit(PATIENCE).await.unwrap_err();
    let restarted = matches!(
        &error,
        CommitError::Doomed {
            doom: Doom::Restarted { .. },
            ..
        }
    );
    assert!(restarted, "{error}");
    assert_eq!(world.coordinator.commits(), []);
}

#[tokio::test]
async fn a_call_without_an_answer_dooms_the_transaction() {
    #[derive(Debug, thiserror::Error)]
    #[error("the connection broke")]
    struct Broken;
    let world = World::new();
    let broken = service_fn(|_: Request<&'static str>| async { Err::<Response<String>, _>(Broken) });
    let silent =
        service_fn(|_: Request<&'static str>| async { Ok::<_, Broken>(Response::new(String::new())) });
    let tx = begin(&world).await;
    let mut channel = tx.channel(broken);
    assert!(
        channel
            .ready()
            .await
            .unwrap()
            .call(Request::new(""))
            .await
            .is_err()
    );
    assert!(matches!(tx.doom(), Some(Doom::Unanswered { .. })));
    // A call that the caller did not wait for.
    let tx = begin(&world).await;
    let mut channel = tx.channel(silent);
    let dropped = channel.ready().await.unwrap().call(Request::new(""));
    assert_eq!(tx.doom(), None, "it is still under way");
    drop(dropped);
    assert!(matches!(tx.doom(), Some(Doom::Unanswered { .. })));
    // A service that does not take part.
    let tx = begin(&world).await;
    let mut channel = tx.channel(silent);
    channel
        .ready()
        .await
        .unwrap()
        .call(Request::new(""))
        .await
        .unwrap();
    assert!(matches!(tx.doom(), Some(Doom::Unreported { .. })));
    // A call under way.
    let tx = begin(&world).await;
    let mut channel = tx.channel(silent);
    let _under_way = channel.ready().await.unwrap().call(Request::new(""));
    let error = tx.commit(PATIENCE).await.unwrap_err();
    assert!(
        matches!(error, CommitError::CallsUnderWay { calls: 1, .. }),
        "{error}"
    );
    assert_eq!(world.coordinator.commits(), []);
}

#[tokio::test]
async fn a_call_that_never_left_this_process_does_no_harm() {
    let world = World::new();
    let (participant, _) = world.start().await;
    let tx = begin(&world).await;
    // Nobody listens at the discard port of the loopback interface.
    let channel = TcpConnector::default().channel("127.0.0.1:9").unwrap();
    let mut channel = tx.channel(channel);
    let request = Request::new(tonic::body::Body::empty());
    assert!(channel.ready().await.unwrap().call(request).await.is_err());
    assert_eq!(tx.doom(), None);
    call(tx.layer(), &participant, "yes").await;
    assert_eq!(tx.commit(PATIENCE).await.unwrap(), Decision::Commit);
}

#[tokio::test]
async fn an_operation_that_its_method_does_not_wait_for_dooms_the_transaction() {
    let world = World::new();
    let (participant, _) = world.start().await;
    world.recorder.hold(Call::Prepare);
    let tx = begin(&world).await;
    let hasty = service_fn(|request: Request<&'static str>| async move {
        let enlistment = request.extensions().get::<Enlistment>().cloned().unwrap();
        let joining = enlistment.join(Bytes::from("yes"));
        // Begun, and given up.
        assert!(futures::poll!(Box::pin(joining)).is_pending());
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let mut channel = tx.channel(JoinLayer::new(&participant).layer(hasty));
    channel
        .ready()
        .await
        .unwrap()
        .call(Request::new(""))
        .await
        .unwrap();
    assert!(matches!(tx.doom(), Some(Doom::Refused { .. })));
    world.recorder.release(Call::Prepare);
    tx.abort(PATIENCE).await.unwrap();
    assert_eq!(world.coordinator.aborts()[0].participants, ["stock"]);
}

#[tokio::test]
async fn a_bad_context_is_refused_and_counted_without_effect() {
    let world = World::new();
    let (participant, _) = world.start().await;
    let context = Context {
        cluster: "test".parse().unwrap(),
        transaction: transaction(1),
        deadline: transaction(1).timestamp(),
        remaining: Duration::from_secs(5),
    };
    let foreign = Context {
        cluster: "elsewhere".parse().unwrap(),
        ..context.clone()
    };
    let expired = Context {
        remaining: Duration::ZERO,
        ..context.clone()
    };
    let bad = |text: &str| text.to_owned();
    let cases = [
        (
            bad(&context.to_wire().replace(";5000;", ";9000;")),
            ErrorReason::BadContext,
        ),
        (bad("nonsense"), ErrorReason::BadContext),
        (bad(""), ErrorReason::BadContext),
        (expired.to_wire(), ErrorReason::BadContext),
        (foreign.to_wire(), ErrorReason::WrongCluster),
    ];
    let send = async |values: &[String]| {
        let mut request = Request::new("yes");
        for value in values {
            request.headers_mut().append(CONTEXT_KEY, value.parse().unwrap());
        }
        let mut service = service(&participant);
        service.ready().await.unwrap().call(request).await.unwrap()
    };
    for (count, (text, expected)) in cases.iter().enumerate() {
        let response = send(std::slice::from_ref(text)).await;
        assert_eq!(refused(&response), Some(*expected), "{text}");
        assert_eq!(participant.statistics().bad_contexts, count as u64 + 1);
    }
    let twice = [context.to_wire(), context.to_wire()];
    assert_eq!(refused(&send(&twice).await), Some(ErrorReason::BadContext));
    assert_eq!(world.recorder.calls(), []);
    // A call of nobody's transaction passes untouched.
    let response = send(&[]).await;
    assert_eq!(response.body(), "no transaction");
    assert!(!response.headers().contains_key(BRANCH_KEY));
    // And a good one is good.
    assert_eq!(send(&[context.to_wire()]).await.body(), "done");
    assert_eq!(participant.statistics().bad_contexts, 6);
}

#[tokio::test]
async fn after_its_time_no_call_is_sent() {
    let world = World::new();
    let (participant, _) = world.start().await;
    let tx = begin(&world).await;
    tokio::time::pause();
    tokio::time::advance(PATIENCE).await;
    let response = call(tx.layer(), &participant, "yes").await;
    assert_eq!(refused(&response), Some(ErrorReason::BadContext));
    // It is this side that refuses; the other one has seen nothing.
    assert_eq!(participant.statistics().bad_contexts, 0);
    assert_eq!(world.recorder.calls(), []);
}

#[tokio::test]
async fn a_call_that_is_answered_takes_no_more_operations() {
    let world = World::new();
    let (participant, _) = world.start().await;
    let tx = begin(&world).await;
    let (sender, enlistment) = tokio::sync::oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let keeps = service_fn(move |request: Request<&'static str>| {
        let enlistment = request.extensions().get::<Enlistment>().cloned().unwrap();
        let sender = sender.lock().unwrap().take().unwrap();
        assert!(sender.send(enlistment).is_ok());
        async { Ok::<_, Infallible>(Response::new(String::new())) }
    });
    let mut channel = tx.channel(JoinLayer::new(&participant).layer(keeps));
    channel
        .ready()
        .await
        .unwrap()
        .call(Request::new(""))
        .await
        .unwrap();
    let late = enlistment.await.unwrap();
    assert!(late.join(Bytes::from("yes")).await.is_err());
    assert_eq!(world.recorder.calls(), []);
    assert_eq!(tx.doom(), None);
}
