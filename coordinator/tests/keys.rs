//! One idempotency key stands for one transaction (R12), through whichever node, whoever leads, and for as long as
//! outcomes are remembered.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::collections::BTreeSet;

use cluster::{
    Heard, TestCluster, TestParticipant, eventually, new_transaction, request_hash, submit_request,
};
use tonic::{Code, Status};
use unanimo_core::{Decision, TransactionId, Vote};
use unanimo_proto::{ErrorReason, reason_of, v1};

/// A request with an id of its own, under this key.
fn keyed(key: &str, branches: &[(&TestParticipant, &str)]) -> v1::SubmitRequest {
    v1::SubmitRequest {
        idempotency_key: key.to_owned(),
        ..submit_request(new_transaction(), branches)
    }
}

async fn ask(
    cluster: &TestCluster,
    place: usize,
    request: v1::SubmitRequest,
) -> Result<(TransactionId, Decision), Status> {
    let reply = cluster
        .coordinator(place)
        .await
        .submit(request)
        .await?
        .into_inner();
    let decision = unanimo_proto::Outcome::try_from(reply.outcome).unwrap().0;
    Ok((reply.transaction.parse().unwrap(), decision))
}

/// Submits at one node until it knows, each time under a new id: all that is the same is the key.
async fn submit(
    cluster: &TestCluster,
    place: usize,
    key: &str,
    branches: &[(&TestParticipant, &str)],
) -> Result<(TransactionId, Decision), Status> {
    eventually("an answer", async || {
        match ask(cluster, place, keyed(key, branches)).await {
            Err(error)
                if matches!(
                    reason_of(&error),
                    Some(ErrorReason::NoLeader | ErrorReason::OutcomeUnknown)
                ) =>
            {
                None
            }
            answer => Some(answer),
        }
    })
    .await
}

/// The transactions that this participant was asked to prepare.
fn asked_to_prepare(participant: &TestParticipant) -> BTreeSet<String> {
    let heard = participant.heard().into_iter();
    heard
        .filter_map(|heard| match heard {
            Heard::Prepare { transaction, .. } => Some(transaction),
            Heard::Commit { .. } | Heard::Abort { .. } => None,
        })
        .collect()
}

/// The first request to prepare the operation `x`.
fn prepare(transaction: TransactionId) -> Heard {
    Heard::Prepare {
        transaction: transaction.to_string(),
        operation: Some("x".to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_at_the_same_moment_through_every_node_run_once() {
    let cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    for round in 0..5 {
        let key = format!("order {round}");
        let before = asked_to_prepare(&a);
        let branches = [(&a, "x")];
        let asked = (0..12).map(|call| submit(&cluster, call % 3, &key, &branches));
        let answers: Vec<_> = futures::future::join_all(asked).await;
        let answers: BTreeSet<_> = answers
            .into_iter()
            .map(|answer| {
                let (transaction, decision) = answer.unwrap();
                assert_eq!(decision, Decision::Commit);
                transaction.to_string()
            })
            .collect();
        let prepared: BTreeSet<_> = asked_to_prepare(&a).difference(&before).cloned().collect();
        assert_eq!(prepared, answers, "one transaction, and everybody is told which");
        assert_eq!(answers.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_its_transaction_whoever_leads_and_after_all_were_restarted() {
    let mut cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    let first = submit(&cluster, 0, "order", &[(&a, "x")]).await.unwrap();
    let leader = cluster.leader().await;
    cluster.stop_node(leader).await;
    let other = (leader + 1) % 3;
    assert_eq!(
        submit(&cluster, other, "order", &[(&a, "x")]).await.unwrap(),
        first
    );
    cluster.start_node(leader);
    for place in 0..3 {
        cluster.stop_node(place).await;
    }
    for place in 0..3 {
        cluster.start_node(place);
    }
    for place in 0..3 {
        assert_eq!(
            submit(&cluster, place, "order", &[(&a, "x")]).await.unwrap(),
            first
        );
    }
    assert_eq!(asked_to_prepare(&a), BTreeSet::from([first.0.to_string()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_finds_the_transaction_that_a_lost_leader_had_begun() {
    let mut cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    // It is asked, and keeps everybody waiting: no decision when the leader goes.
    a.change(|a| a.vote = None);
    let request = keyed("order", &[(&a, "x")]);
    let begun: TransactionId = request.transaction.parse().unwrap();
    let (leader, waiting) = cluster.submit_until_heard(request, &a, &prepare(begun)).await;
    cluster.stop_node(leader).await;
    assert!(waiting.await.unwrap().is_err());
    // Also for a leader that never saw it, the key is not free for another request.
    let other = submit(&cluster, (leader + 1) % 3, "order", &[(&a, "y")]).await;
    assert_eq!(reason_of(&other.unwrap_err()), Some(ErrorReason::RequestMismatch));
    a.change(|a| {
        a.vote = Some(Vote::Yes);
        a.vote_again = Some(Vote::Yes);
    });
    let answer = submit(&cluster, (leader + 1) % 3, "order", &[(&a, "x")]).await;
    assert_eq!(answer.unwrap(), (begun, Decision::Commit));
    assert_eq!(asked_to_prepare(&a), BTreeSet::from([begun.to_string()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_another_request_is_refused_with_both_hashes_and_without_effect() {
    let cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    let first = submit(&cluster, 0, "order", &[(&a, "x")]).await.unwrap();
    for place in 0..3 {
        let refused = submit(&cluster, place, "order", &[(&a, "y")]).await.unwrap_err();
        assert_eq!(
            reason_of(&refused),
            Some(ErrorReason::RequestMismatch),
            "{refused}"
        );
        for branches in [[(&a, "x")], [(&a, "y")]] {
            let hash = request_hash(&branches).to_string();
            assert!(refused.message().contains(&hash), "{hash}: {refused}");
        }
    }
    assert_eq!(asked_to_prepare(&a), BTreeSet::from([first.0.to_string()]));
    // Another key is another transaction, also for the same request.
    let other = submit(&cluster, 0, "another order", &[(&a, "x")]).await.unwrap();
    assert_ne!(other.0, first.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_free_again_when_its_transaction_is_forgotten_and_not_before() {
    let cluster = TestCluster::start_with(3, "[retention]\nwindow_seconds = 3\n").await;
    let a = TestParticipant::start(&cluster, "a").await;
    let away = TestParticipant::start(&cluster, "away").await;
    away.change(|away| away.acknowledges = false);
    let kept = submit(&cluster, 0, "kept", &[(&a, "x"), (&away, "y")])
        .await
        .unwrap();
    let first = submit(&cluster, 0, "order", &[(&a, "x")]).await.unwrap();
    let second = eventually("the key is free", async || {
        let answer = submit(&cluster, 1, "order", &[(&a, "x")]).await.unwrap();
        let watermark: TransactionId = cluster.status(0).await?.watermark.parse().ok()?;
        // As long as the first one is remembered, it is the one.
        assert!(answer == first || watermark > first.0, "{answer:?}");
        (answer != first).then_some(answer)
    })
    .await;
    assert_eq!(second.1, Decision::Commit);
    // Whoever repeats the forgotten one with another request's key is not told that it had no effect.
    let taken = submit(&cluster, 1, "taken", &[(&a, "y")]).await.unwrap();
    let outlived = v1::SubmitRequest {
        transaction: first.0.to_string(),
        ..keyed("taken", &[(&a, "x")])
    };
    let refused = eventually("an answer", async || {
        let refused = ask(&cluster, 1, outlived.clone()).await.unwrap_err();
        (reason_of(&refused) != Some(ErrorReason::NoLeader)).then_some(refused)
    })
    .await;
    assert_eq!(reason_of(&refused), Some(ErrorReason::Expired), "{refused}");
    assert_ne!(taken.0, first.0);
    // A commit that a member has not acknowledged keeps its key, however old it is.
    assert_eq!(
        submit(&cluster, 2, "kept", &[(&a, "x"), (&away, "y")])
            .await
            .unwrap(),
        kept
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_key_is_refused_by_every_node_without_effect() {
    let cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    for key in ["x".repeat(129), "line\nbreak".to_owned(), "käse".to_owned()] {
        for place in 0..3 {
            let refused = ask(&cluster, place, keyed(&key, &[(&a, "x")])).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            assert_eq!(reason_of(&refused), Some(ErrorReason::Malformed));
            let says = format!("{} bytes", key.len());
            assert!(
                refused.message().contains("idempotency key") && refused.message().contains(&says),
                "{refused}"
            );
        }
    }
    assert_eq!(asked_to_prepare(&a), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_binds_no_key() {
    let cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    let stranger = TestParticipant::start_unregistered("stranger").await;
    let refused = submit(&cluster, 0, "order", &[(&stranger, "x")])
        .await
        .unwrap_err();
    assert_eq!(
        reason_of(&refused),
        Some(ErrorReason::UnknownParticipant),
        "{refused}"
    );
    let (_, decision) = submit(&cluster, 0, "order", &[(&a, "x")]).await.unwrap();
    assert_eq!(decision, Decision::Commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_want_of_a_place_binds_no_key() {
    let cluster = TestCluster::start_with(3, "[limits]\nin_flight = 1\n").await;
    let a = TestParticipant::start(&cluster, "a").await;
    a.change(|a| a.vote = None);
    let request = keyed("first", &[(&a, "x")]);
    let begun = request.transaction.parse().unwrap();
    let (leader, first) = cluster.submit_until_heard(request, &a, &prepare(begun)).await;
    let refused = submit(&cluster, leader, "order", &[(&a, "x")]).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(ErrorReason::Overloaded), "{refused}");
    a.change(|a| a.vote = Some(Vote::Yes));
    assert!(
        first.await.unwrap().is_ok(),
        "the one that was in flight is not disturbed"
    );
    // The key is free, also for another request.
    let (_, decision) = submit(&cluster, leader, "order", &[(&a, "y")]).await.unwrap();
    assert_eq!(decision, Decision::Commit);
}
