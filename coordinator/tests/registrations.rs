//! Participants without number: what the cluster refuses, and what goes on all the same (R14).

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::time::Duration;

use cluster::{TestCluster, TestParticipant, new_transaction};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use unanimo_coordinator::Operator;
use unanimo_core::Decision;
use unanimo_proto::v1::{self, admin_client::AdminClient};
use unanimo_proto::{ErrorReason, reason_of, retry_after};

fn registering(name: &str, generation: u64) -> v1::RegisterRequest {
    v1::RegisterRequest {
        cluster: "test".to_owned(),
        participant: name.to_owned(),
        address: "127.0.0.1:9".to_owned(),
        generation,
        position: 1,
    }
}

/// Registers many names at once, and returns the refusals.
async fn register_all(cluster: &TestCluster, names: impl Iterator<Item = String>) -> Vec<Status> {
    let client = cluster.coordinator(0).await;
    let mut calls = JoinSet::new();
    for name in names {
        let mut client = client.clone();
        calls.spawn(async move { client.register(registering(&name, 1)).await });
    }
    let told = calls.join_all().await;
    told.into_iter().filter_map(Result::err).collect()
}

async fn known(cluster: &TestCluster) -> usize {
    cluster.status(0).await.unwrap().participants.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn new_names_past_the_limit_are_refused_and_known_ones_go_on() {
    let cluster = TestCluster::start_with(1, "[limits]\nparticipants = 5\n").await;
    let a = TestParticipant::start(&cluster, "a").await;
    // All at once: whatever they race for, there are never more than five.
    let refused = register_all(&cluster, (0..40).map(|n| format!("new-{n}"))).await;
    assert!(known(&cluster).await <= 5);
    for error in &refused {
        assert_eq!(
            (reason_of(error), error.code()),
            (Some(ErrorReason::Overloaded), Code::ResourceExhausted)
        );
        assert!(error.message().contains("limits.participants"), "{error}");
        assert!(retry_after(error).is_some_and(|delay| delay > Duration::ZERO));
    }
    // Who was refused at the very limit only because others were on their way is taken the next time.
    let mut client = cluster.coordinator(0).await;
    for n in 0..40 {
        let _ = client.register(registering(&format!("new-{n}"), 1)).await;
    }
    assert_eq!(known(&cluster).await, 5);
    // Those that are known come up again, and move.
    a.register(&cluster, 2, 8).await.unwrap();
    a.change(|a| a.generation = 2);
    let told = cluster.submit_at(0, new_transaction(), &[(&a, "x")]).await;
    assert_eq!(told.unwrap(), Decision::Commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_participants_are_shown_page_by_page_and_left_out_of_what_nodes_ask_each_other() {
    let cluster = TestCluster::start(1).await;
    let name = |n: usize| format!("participant-{n:04}");
    let refused = register_all(&cluster, (0..1001).map(name)).await;
    assert!(refused.is_empty(), "{refused:?}");
    let address = format!("http://{}", cluster.address(0));
    let mut admin = AdminClient::connect(address).await.unwrap();
    let mut ask = async |omit_participants, participants_after: &str| {
        let request = v1::GetStatusRequest {
            cluster: String::new(),
            omit_participants,
            participants_after: participants_after.to_owned(),
        };
        admin.get_status(request).await.map(tonic::Response::into_inner)
    };
    // What nodes ask each other for clocks and leaders stays small, however many there are.
    let small = ask(true, "").await.unwrap();
    assert!(small.participants.is_empty() && !small.more_participants);
    assert!(small.wall_clock_unix_ms > 0 && small.ready);
    let first = ask(false, "").await.unwrap();
    assert_eq!((first.participants.len(), first.more_participants), (1000, true));
    let last = ask(false, &first.participants[999].participant).await.unwrap();
    assert_eq!((last.participants.len(), last.more_participants), (1, false));
    assert_eq!(last.participants[0].participant, name(1000));
    let error = ask(false, "no such name").await.unwrap_err();
    assert_eq!(reason_of(&error), Some(ErrorReason::Malformed));
    let shown = Operator::of(&cluster.address(0)).unwrap().status().await.unwrap();
    let lines = shown.lines().filter(|line| line.starts_with("participant  "));
    assert_eq!(lines.count(), 1001);
}
