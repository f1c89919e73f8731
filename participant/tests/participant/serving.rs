//! The real thing: files, threads, sled, TCP, health and reflection.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use unanimo_core::Vote;
use unanimo_participant::{Participant, ParticipantOptions, ServeError, StartError, StopReason};
use unanimo_proto::ErrorReason;
use unanimo_proto::transport::{Connector as _, MAX_MESSAGE_BYTES, TcpConnector};
use unanimo_proto::v1::participant_client::ParticipantClient;

use crate::support::{Call, FakeCoordinator, Peer, Recorder, eventually, reason, transaction};

const SERVICE: &str = "unanimo.v1.Participant";

struct Served {
    participant: Participant,
    channel: Channel,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<Result<(), ServeError>>,
}

async fn serve(folder: &std::path::Path, coordinator: &FakeCoordinator, recorder: &Recorder) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let options = || {
        let coordinators = [coordinator.address.clone()];
        ParticipantOptions::new(
            "test".parse().unwrap(),
            "stock".parse().unwrap(),
            address.clone(),
            coordinators,
            folder,
        )
    };
    // The life before this one may still be letting go of its files.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let participant = loop {
        match Participant::start(options(), recorder.clone()).await {
            Ok(participant) => break participant,
            Err(StartError::Data { .. } | StartError::Table(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    eventually("registered", || participant.statistics().registered).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = participant.clone();
    let ended = tokio::spawn(async move { serving.serve(listener, async { _ = stopped.await }).await });
    let channel = TcpConnector::default().channel(&address).unwrap();
    Served {
        participant,
        channel,
        stop,
        ended,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_restarts_and_serves_again() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, recorder) = (FakeCoordinator::start(), Recorder::new());
    let served = serve(folder.path(), &coordinator, &recorder).await;
    let (committed, in_doubt) = (transaction(1), transaction(2));
    let cluster = "test".parse().unwrap();
    let mut client = ParticipantClient::new(served.channel.clone());
    for tx in [committed, in_doubt] {
        let wire = Peer::message(tx, Some("yes")).to_wire(&cluster);
        client.prepare(wire).await.unwrap();
    }
    client.commit(Peer::commit_request(committed)).await.unwrap();
    // A second participant on the same data is refused while this one lives.
    let options = ParticipantOptions::new(cluster, "stock".parse().unwrap(), "h:1", ["h:2"], folder.path());
    let second = Participant::start(options, Recorder::new()).await.err().unwrap();
    assert!(matches!(second, StartError::Data { .. }), "{second}");
    served.stop.send(()).unwrap();
    served.ended.await.unwrap().unwrap();
    assert!(client.commit(Peer::commit_request(committed)).await.is_err());
    drop((served.participant, served.channel, client));
    recorder.restart();

    let served = serve(folder.path(), &coordinator, &recorder).await;
    assert_eq!(served.participant.generation().starts(), 2);
    assert_eq!(recorder.holds(), [in_doubt]);
    let mut client = ParticipantClient::new(served.channel.clone());
    client.commit(Peer::commit_request(committed)).await.unwrap();
    client.commit(Peer::commit_request(in_doubt)).await.unwrap();
    assert_eq!(recorder.count(Call::Commit, committed), 1);
    assert_eq!(recorder.applied(in_doubt), 1);
    served.stop.send(()).unwrap();
    served.ended.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_branch_table_is_set_aside_and_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, recorder) = (FakeCoordinator::start(), Recorder::new());
    let served = serve(folder.path(), &coordinator, &recorder).await;
    let peer = Peer::new(&served.participant);
    peer.yes(transaction(1)).await;
    peer.commit(transaction(1)).await.unwrap();
    served.stop.send(()).unwrap();
    served.ended.await.unwrap().unwrap();
    drop((served.participant, served.channel, peer));
    let database = folder.path().join("branches").join("db");
    let half = std::fs::metadata(&database).unwrap().len() / 2;
    std::fs::write(&database, vec![0xff; half as usize]).unwrap();

    let served = serve(folder.path(), &coordinator, &recorder).await;
    let peer = Peer::new(&served.participant);
    peer.commit(transaction(1)).await.unwrap();
    assert_eq!(peer.prepare(transaction(1), "yes").await.unwrap().vote, Vote::Yes);
    assert_eq!(recorder.count(Call::Commit, transaction(1)), 1);
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.contains("damaged")), "{names:?}");
    served.participant.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_transactions_at_once_share_syncs_and_all_finish() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, recorder) = (FakeCoordinator::start(), Recorder::new());
    let served = serve(folder.path(), &coordinator, &recorder).await;
    let peer = Peer::new(&served.participant);
    let running: Vec<_> = (1..=500)
        .map(|n| {
            let peer = peer.clone();
            tokio::spawn(async move {
                peer.yes(transaction(n)).await;
                if n % 3 == 0 {
                    peer.abort(transaction(n)).await.unwrap();
                } else {
                    peer.commit(transaction(n)).await.unwrap();
                }
            })
        })
        .collect();
    for transaction in running {
        transaction.await.unwrap();
    }
    let statistics = served.participant.statistics();
    assert_eq!((statistics.committed, statistics.aborted), (334, 166));
    assert_eq!((statistics.in_flight, statistics.in_doubt), (0, 0));
    assert!(recorder.holds().is_empty());
    assert!(recorder.wrong().is_empty(), "{:?}", recorder.wrong());
    served.stop.send(()).unwrap();
    served.ended.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_tell_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, recorder) = (FakeCoordinator::start(), Recorder::new());
    let served = serve(folder.path(), &coordinator, &recorder).await;

    let mut health = HealthClient::new(served.channel.clone());
    let mut watched = health
        .watch(HealthCheckRequest {
            service: SERVICE.to_owned(),
        })
        .await
        .unwrap()
        .into_inner();
    while watched.next().await.unwrap().unwrap().status() != ServingStatus::Serving {}

    let mut reflection = ServerReflectionClient::new(served.channel.clone());
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies = reflection
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let reply = replies.next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else {
        panic!("{reply:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == SERVICE), "{names:?}");

    // A watcher sees the end coming, and does not hold it up.
    recorder.fail_broken(Call::Prepare);
    let status = Peer::new(&served.participant)
        .prepare(transaction(1), "yes")
        .await
        .unwrap_err();
    assert_eq!(reason(&status), Some(ErrorReason::StorageFailed));
    while let Some(Ok(reply)) = watched.next().await {
        if reply.status() == ServingStatus::NotServing {
            break;
        }
    }
    let ended = served.ended.await.unwrap();
    assert!(matches!(
        ended,
        Err(ServeError::Stopped(StopReason::ResourceManagerFailed { .. }))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_refused_and_the_next_one_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, recorder) = (FakeCoordinator::start(), Recorder::new());
    let served = serve(folder.path(), &coordinator, &recorder).await;
    let mut client =
        ParticipantClient::new(served.channel.clone()).max_encoding_message_size(2 * MAX_MESSAGE_BYTES);
    let mut wire = Peer::message(transaction(1), Some("yes")).to_wire(&"test".parse().unwrap());
    wire.operation = Some(vec![0; MAX_MESSAGE_BYTES].into());
    let status = client.prepare(wire.clone()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange);
    wire.operation = Some("yes".into());
    client.prepare(wire).await.unwrap();
    assert_eq!(recorder.count(Call::Prepare, transaction(1)), 1);
    served.stop.send(()).unwrap();
    served.ended.await.unwrap().unwrap();
}
