//! What is forgotten, when, and what is said of it (R7), whatever the clocks show (R8).

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::time::Duration;

use cluster::{TestCluster, TestParticipant, eventually, new_transaction, request_hash, submit_request};
use unanimo_core::{Decision, Timestamp, TransactionId};
use unanimo_proto::v1::get_outcome_reply::Known;
use unanimo_proto::{ErrorReason, Inquiry, reason_of, v1};

const DAY_MS: i64 = 86_400_000;

async fn outcome_at(
    cluster: &TestCluster,
    place: usize,
    transaction: TransactionId,
) -> Result<Option<Known>, tonic::Status> {
    let request = v1::GetOutcomeRequest {
        cluster: "test".to_owned(),
        transaction: transaction.to_string(),
    };
    let reply = cluster.coordinator(place).await.get_outcome(request).await;
    reply.map(|reply| reply.into_inner().known)
}

async fn is_expired_at(cluster: &TestCluster, place: usize, transaction: TransactionId) -> Option<()> {
    let error = outcome_at(cluster, place, transaction).await.err()?;
    (reason_of(&error) == Some(ErrorReason::Expired)).then_some(())
}

async fn until_expired_everywhere(cluster: &TestCluster, transaction: TransactionId) {
    for place in 0..3 {
        eventually("the transaction is closed", || {
            is_expired_at(cluster, place, transaction)
        })
        .await;
    }
}

/// The watermark that a node has applied.
async fn watermark_at(cluster: &TestCluster, place: usize) -> Option<TransactionId> {
    cluster.status(place).await?.watermark.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_the_window_is_refused_by_every_node_and_never_guessed() {
    let cluster = TestCluster::start_with(3, "[retention]\nwindow_seconds = 3\n").await;
    let a = TestParticipant::start(&cluster, "a").await;
    let (committed, never_seen) = (new_transaction(), new_transaction());
    let branches = [(&a, "x")];
    let decision = cluster.submit_at(0, committed, &branches).await.unwrap();
    assert_eq!(decision, Decision::Commit);
    until_expired_everywhere(&cluster, committed).await;
    until_expired_everywhere(&cluster, never_seen).await;
    let prepared_before = a.heard().len();
    for place in 0..3 {
        for transaction in [committed, never_seen] {
            let again = cluster
                .submit_at(place, transaction, &branches)
                .await
                .unwrap_err();
            assert_eq!(reason_of(&again), Some(ErrorReason::Expired), "{again}");
            assert!(again.message().contains(&transaction.to_string()), "{again}");
        }
        // A member in doubt can conclude an abort: a commit that it has not acknowledged would be kept.
        let inquiry = Inquiry {
            transaction: never_seen,
            request_hash: request_hash(&branches),
            members: [a.name().clone()].into(),
        };
        let request = v1::InquireRequest {
            cluster: "test".to_owned(),
            participant: a.name().to_string(),
            inquiries: vec![inquiry.into()],
        };
        let reply = cluster.coordinator(place).await.inquire(request).await.unwrap();
        let answer = reply.into_inner().answers.remove(0).answer.unwrap();
        assert!(
            matches!(answer, v1::inquiry_answer::Answer::Aborted(_)),
            "{answer:?}"
        );
    }
    assert_eq!(
        a.heard().len(),
        prepared_before,
        "nothing happens under a closed id"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_kept_beyond_the_window_for_a_member_that_is_away() {
    let cluster = TestCluster::start_with(3, "[retention]\nwindow_seconds = 3\n").await;
    let here = TestParticipant::start(&cluster, "here").await;
    let away = TestParticipant::start(&cluster, "away").await;
    away.change(|away| away.acknowledges = false);
    let (kept, ended) = (new_transaction(), new_transaction());
    cluster
        .submit_at(0, kept, &[(&here, "x"), (&away, "y")])
        .await
        .unwrap();
    cluster.submit_at(0, ended, &[(&here, "x")]).await.unwrap();
    until_expired_everywhere(&cluster, ended).await;
    for place in 0..3 {
        // It is closed as well, and is told all the same.
        eventually("the watermark passes", async || {
            (watermark_at(&cluster, place).await? > kept).then_some(())
        })
        .await;
        let outcome = outcome_at(&cluster, place, kept).await.unwrap();
        assert!(matches!(outcome, Some(Known::Outcome(_))), "{outcome:?}");
    }
    away.change(|away| away.acknowledges = true);
    until_expired_everywhere(&cluster, kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_from_between_a_promise_and_its_acknowledged_commit_is_refused() {
    let cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    a.change(|a| a.acknowledges_at = Some(9));
    cluster
        .submit_at(0, new_transaction(), &[(&a, "x")])
        .await
        .unwrap();
    eventually("the acknowledgement is recorded", async || {
        let status = cluster.status(0).await?;
        status.participants.iter().any(|a| a.position == 9).then_some(())
    })
    .await;
    // It has promised at 7.
    let refused = a.register(&cluster, 2, 8).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(ErrorReason::Outdated), "{refused}");
    a.register(&cluster, 2, 9).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clock_that_jumps_by_a_day_closes_anything_or_refuses_anything() {
    let cluster = TestCluster::start_with(3, "[retention]\nwindow_seconds = 10\n").await;
    let a = TestParticipant::start(&cluster, "a").await;
    let first = new_transaction();
    cluster.submit_at(0, first, &[(&a, "x")]).await.unwrap();
    let time_at = async |place| Some(cluster.status(place).await?.cluster_time_unix_ms);
    let ticked = async || {
        let before = time_at(0).await.unwrap_or_default();
        eventually("a tick", async || (time_at(0).await? > before).then_some(())).await;
    };
    ticked().await;
    for shift in [DAY_MS, -DAY_MS] {
        for jumping in [vec![0], vec![1], vec![2], vec![0, 1, 2]] {
            for place in &jumping {
                cluster.clock(*place).shift(shift);
            }
            if shift > 0 {
                // The next tick reads the clocks as they are now.
                ticked().await;
            }
            let transaction = new_transaction();
            for place in 0..3 {
                let decision = cluster.submit_at(place, transaction, &[(&a, "x")]).await;
                assert_eq!(decision.unwrap(), Decision::Commit, "{jumping:?} by {shift}");
            }
            let begun = cluster.coordinator(jumping[0]).await;
            let begun = begun
                .clone()
                .begin(v1::BeginRequest {
                    cluster: "test".to_owned(),
                })
                .await;
            let begun: TransactionId = begun.unwrap().into_inner().transaction.parse().unwrap();
            let decision = cluster.submit_at(0, begun, &[(&a, "x")]).await;
            assert_eq!(decision.unwrap(), Decision::Commit, "{jumping:?} by {shift}");
            for place in &jumping {
                cluster.clock(*place).shift(0);
            }
            // Nothing younger than the window is closed. Seconds may have passed since, but no day.
            let watermark = watermark_at(&cluster, 0).await.unwrap().timestamp();
            let now = new_transaction().timestamp();
            assert!(
                now.since(watermark) >= Duration::from_secs(10),
                "{jumping:?} by {shift}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_far_ahead_of_its_time_is_refused() {
    let cluster = TestCluster::start_with(3, "").await;
    let a = TestParticipant::start(&cluster, "a").await;
    let now = new_transaction().timestamp();
    let ahead = |milliseconds| TransactionId::new(Timestamp::from_unix_ms(now.unix_ms() + milliseconds), 1);
    for place in 0..3 {
        let request = submit_request(ahead(86_400_000), &[(&a, "x")]);
        let refused = eventually("a refusal", async || {
            let error = cluster
                .coordinator(place)
                .await
                .submit(request.clone())
                .await
                .unwrap_err();
            (reason_of(&error) != Some(ErrorReason::NoLeader)).then_some(error)
        })
        .await;
        assert_eq!(reason_of(&refused), Some(ErrorReason::Premature), "{refused}");
    }
    // A clock that is a minute ahead does no harm.
    let decision = cluster.submit_at(0, ahead(60_000), &[(&a, "x")]).await.unwrap();
    assert_eq!(decision, Decision::Commit);
}
