//! What is counted: bad input by its reason, without any other effect, and what transactions do.
//!
//! Each test and its nodes run on one thread, so that what they count is theirs alone.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::time::Duration;

use cluster::{
    Counted, Heard, TestCluster, TestParticipant, eventually, new_transaction, once, request_hash,
    submit_request,
};
use tonic::Status;
use unanimo_core::{Decision, Timestamp, TransactionId, Vote};
use unanimo_proto::v1;
use unanimo_proto::{ErrorReason, reason_of};

fn inquiry(transaction: TransactionId, members: &[&str]) -> v1::InquireRequest {
    v1::InquireRequest {
        cluster: "test".to_owned(),
        participant: "a".to_owned(),
        inquiries: vec![v1::Inquiry {
            transaction: transaction.to_string(),
            request_hash: vec![7; 32].into(),
            members: members.iter().map(|name| (*name).to_owned()).collect(),
        }],
    }
}

/// Whether no decision is known of a transaction.
async fn is_undecided(cluster: &TestCluster, place: usize, transaction: TransactionId) -> bool {
    let request = v1::GetOutcomeRequest {
        cluster: "test".to_owned(),
        transaction: transaction.to_string(),
    };
    let mut client = cluster.coordinator(place).await;
    let known = client.get_outcome(request).await.unwrap().into_inner().known;
    matches!(known, Some(v1::get_outcome_reply::Known::Undecided(_)))
}

#[tokio::test]
async fn an_inquiry_for_another_cluster_is_refused_and_counted_without_effect() {
    let counted = Counted::start();
    let cluster = TestCluster::start(1).await;
    let a = TestParticipant::start(&cluster, "a").await;
    let transaction = new_transaction();
    let mut client = cluster.coordinator(0).await;
    counted.risen();
    let foreign = v1::InquireRequest {
        cluster: "other".to_owned(),
        ..inquiry(transaction, &["a"])
    };
    let error = client.inquire(foreign).await.unwrap_err();
    assert_eq!(reason_of(&error), Some(ErrorReason::WrongCluster), "{error}");
    assert_eq!(
        counted.risen(),
        once(&["refusals_total{call=inquire,reason=WRONG_CLUSTER}"])
    );
    assert!(is_undecided(&cluster, 0, transaction).await);
    assert!(a.heard().is_empty());
}

/// What a call is refused with, once a leader is there to refuse it.
async fn refused<A>(mut call: impl AsyncFnMut() -> Result<A, Status>) -> ErrorReason {
    eventually("a refusal", async || {
        let reason = reason_of(&call().await.err()?)?;
        (reason != ErrorReason::NoLeader).then_some(reason)
    })
    .await
}

#[tokio::test]
async fn forged_members_are_refused_and_counted_once_wherever_they_are_named() {
    let counted = Counted::start();
    let cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    for place in 0..3 {
        let transaction = new_transaction();
        let client = cluster.coordinator(place).await;
        counted.risen();
        let mut submit = submit_request(transaction, &[(&a, "x")]);
        submit.branches.push(v1::Branch {
            participant: "ghost".to_owned(),
            operation: vec![].into(),
        });
        let reason = refused(async || client.clone().submit(submit.clone()).await).await;
        assert_eq!(reason, ErrorReason::UnknownParticipant);
        let commit = v1::CommitTransactionRequest {
            cluster: "test".to_owned(),
            transaction: transaction.to_string(),
            participants: vec!["a".to_owned(), "ghost".to_owned()],
            voting_timeout_ms: 0,
        };
        let reason = refused(async || client.clone().commit(commit.clone()).await).await;
        assert_eq!(reason, ErrorReason::UnknownParticipant);
        // Whoever asks is a member of what it asks about, and has promised with registered ones only.
        for (members, reason) in [(["b", "c"], "MALFORMED"), (["a", "ghost"], "UNKNOWN_PARTICIPANT")] {
            let question = inquiry(transaction, &members);
            let told = eventually("an answer", async || {
                let reply = client.clone().inquire(question.clone()).await.ok()?.into_inner();
                match reply.answers[0].answer.clone()? {
                    v1::inquiry_answer::Answer::Refused(refused) => Some(refused.reason),
                    _ => None,
                }
            });
            assert_eq!(told.await, reason);
        }
        let expected = [
            "refusals_total{call=submit,reason=UNKNOWN_PARTICIPANT}",
            "refusals_total{call=commit,reason=UNKNOWN_PARTICIPANT}",
            "refusals_total{call=inquire,reason=MALFORMED}",
            "refusals_total{call=inquire,reason=UNKNOWN_PARTICIPANT}",
        ];
        let mut risen = counted.risen();
        // On a busy machine leaders may change at any time.
        risen.retain(|name, _| !name.contains("NO_LEADER") && !name.starts_with("leader_changes"));
        assert_eq!(
            risen.remove("inquiries_total{answer=refused}"),
            Some(2),
            "{risen:?}"
        );
        risen.retain(|name, _| !name.starts_with("inquir"));
        assert_eq!(risen, once(&expected), "at node {}", place + 1);
    }
    let leader = cluster.leader().await;
    assert_eq!(cluster.status(leader).await.unwrap().in_flight, 0);
    assert!(a.heard().is_empty());
}

#[tokio::test]
async fn a_vote_of_a_non_member_is_not_counted_as_a_vote() {
    let counted = Counted::start();
    let cluster = TestCluster::start(1).await;
    let a = TestParticipant::start(&cluster, "a").await;
    let b = TestParticipant::start(&cluster, "b").await;
    // Where `b` was, somebody else answers now.
    b.change(|b| b.poses_as = Some("c".to_owned()));
    let transaction = new_transaction();
    let mut client = cluster.coordinator(0).await;
    counted.risen();
    let request = submit_request(transaction, &[(&a, "x"), (&b, "y")]);
    let submitted = tokio::spawn(async move { client.submit(request).await });
    eventually("it is not believed", async || {
        let risen = counted.risen();
        let expected = "replies_refused_total{reason=wrong_sender,reply=vote}";
        assert!(risen.keys().all(|name| name == expected), "{risen:?}");
        (!risen.is_empty()).then_some(())
    })
    .await;
    assert!(is_undecided(&cluster, 0, transaction).await);
    b.change(|b| b.poses_as = None);
    submitted.await.unwrap().unwrap();
    b.until_heard(&Heard::Commit {
        transaction: transaction.to_string(),
    })
    .await;
}

#[tokio::test]
async fn an_acknowledgement_of_a_non_member_ends_nothing() {
    let counted = Counted::start();
    let cluster = TestCluster::start(1).await;
    let a = TestParticipant::start(&cluster, "a").await;
    a.change(|a| a.acknowledges = false);
    cluster
        .submit_at(0, new_transaction(), &[(&a, "x")])
        .await
        .unwrap();
    a.change(|a| {
        a.acknowledges = true;
        a.poses_as = Some("c".to_owned());
    });
    eventually("it is not believed", async || {
        let name = "replies_refused_total{reason=wrong_sender,reply=acknowledgement}";
        counted.risen().contains_key(name).then_some(())
    })
    .await;
    assert_eq!(cluster.status(0).await.unwrap().completing, 1);
    a.change(|a| a.poses_as = None);
    eventually("it is acknowledged", async || {
        cluster.status(0).await.filter(|status| status.completing == 0)
    })
    .await;
}

#[tokio::test]
async fn a_promise_of_another_start_is_not_counted_as_a_vote() {
    let counted = Counted::start();
    let cluster = TestCluster::start(1).await;
    let a = TestParticipant::start(&cluster, "a").await;
    a.change(|a| a.generation = 2);
    let transaction = new_transaction();
    let mut client = cluster.coordinator(0).await;
    counted.risen();
    let request = submit_request(transaction, &[(&a, "x")]);
    let submitted = tokio::spawn(async move { client.submit(request).await });
    eventually("it is not believed", async || {
        let name = "replies_refused_total{reason=other_generation,reply=vote}";
        counted.risen().contains_key(name).then_some(())
    })
    .await;
    assert!(is_undecided(&cluster, 0, transaction).await);
    a.change(|a| a.generation = 1);
    submitted.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_storm_of_beginners_is_counted_and_starts_nothing() {
    let counted = Counted::start();
    let cluster = TestCluster::start_with(1, "[limits]\nbegins_per_second = 1\n").await;
    let mut client = cluster.coordinator(0).await;
    counted.risen();
    let mut refused = 0;
    for _ in 0..50 {
        let begin = v1::BeginRequest {
            cluster: "test".to_owned(),
        };
        if let Err(error) = client.begin(begin).await {
            assert_eq!(reason_of(&error), Some(ErrorReason::Overloaded), "{error}");
            refused += 1;
        }
    }
    assert!(refused > 0, "nobody is turned away");
    let risen = counted.risen();
    assert_eq!(risen["refusals_total{call=begin,reason=OVERLOADED}"], refused);
    assert_eq!(risen.len(), 1, "{risen:?}");
    assert_eq!(cluster.status(0).await.unwrap().in_flight, 0);
}

#[tokio::test]
async fn ids_out_of_time_and_transactions_over_the_limit_are_counted_by_reason() {
    let counted = Counted::start();
    let cluster = TestCluster::start_with(1, "[limits]\nin_flight = 1\n").await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    eventually("the cluster knows the time", async || {
        cluster
            .status(0)
            .await
            .filter(|status| status.cluster_time_unix_ms > 0)
    })
    .await;
    let ahead = new_transaction().timestamp().after(Duration::from_secs(86_400));
    let cases = [
        (TransactionId::new(Timestamp::from_unix_ms(1), 1), "EXPIRED"),
        (TransactionId::new(ahead, 1), "PREMATURE"),
    ];
    counted.risen();
    for (transaction, reason) in cases {
        let error = cluster.submit_at(0, transaction, &[(&b, "")]).await.unwrap_err();
        assert_eq!(reason_of(&error).unwrap().as_str(), reason, "{error}");
        let name = format!("refusals_total{{call=submit,reason={reason}}}");
        assert_eq!(counted.risen(), once(&[&name]));
    }
    // One keeps the only place.
    a.change(|a| a.vote = None);
    let held = new_transaction();
    let mut client = cluster.coordinator(0).await;
    let request = submit_request(held, &[(&a, "")]);
    let first = tokio::spawn(async move { client.submit(request).await });
    a.until_heard(&Heard::Prepare {
        transaction: held.to_string(),
        operation: Some(String::new()),
    })
    .await;
    let error = cluster
        .submit_at(0, new_transaction(), &[(&b, "")])
        .await
        .unwrap_err();
    assert_eq!(reason_of(&error), Some(ErrorReason::Overloaded));
    assert_eq!(
        counted.risen(),
        once(&["refusals_total{call=submit,reason=OVERLOADED}"])
    );
    eventually("the gauges show it", async || {
        let now = counted.gauges();
        (now["in_flight{}"] == 1.0 && now["is_leader{}"] == 1.0).then_some(())
    })
    .await;
    assert!(b.heard().is_empty());
    a.change(|a| a.vote = Some(Vote::Yes));
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn transactions_are_counted_by_outcome_and_by_why_they_aborted() {
    let counted = Counted::start();
    let cluster = TestCluster::start(1).await;
    let a = TestParticipant::start(&cluster, "a").await;
    counted.risen();
    let committed = new_transaction();
    cluster.submit_at(0, committed, &[(&a, "x")]).await.unwrap();
    let aborted = "transactions_total{outcome=aborted,reason=voted_no}";
    let expected = ["transactions_total{outcome=committed,reason=none}"];
    let times = counted.histograms();
    assert_eq!(times["decision_seconds{outcome=committed}"].len(), 1);
    assert_eq!(times["decision_seconds{outcome=aborted}"].len(), 0);
    // A repeat decides nothing.
    cluster.submit_at(0, committed, &[(&a, "x")]).await.unwrap();
    assert!(counted.risen().is_empty());
    cluster
        .submit_at(0, new_transaction(), &[(&a, "y")])
        .await
        .unwrap();
    assert_eq!(counted.risen(), once(&expected));
    let no = Vote::No {
        reason: "out of stock".to_owned(),
    };
    a.change(|a| a.vote = Some(no));
    cluster
        .submit_at(0, new_transaction(), &[(&a, "x")])
        .await
        .unwrap();
    assert_eq!(counted.risen(), once(&[aborted]));
    let abort = v1::AbortTransactionRequest {
        cluster: "test".to_owned(),
        transaction: new_transaction().to_string(),
        participants: vec!["a".to_owned()],
    };
    cluster.coordinator(0).await.abort(abort).await.unwrap();
    assert_eq!(
        counted.risen(),
        once(&["transactions_total{outcome=aborted,reason=requested}"])
    );
}

#[tokio::test]
async fn what_is_adopted_and_what_those_who_ask_are_told_is_counted() {
    let counted = Counted::start();
    let cluster = TestCluster::start(1).await;
    let a = TestParticipant::start(&cluster, "a").await;
    a.change(|a| a.vote_again = None);
    let transaction = new_transaction();
    let mut question = inquiry(transaction, &["a"]);
    question.inquiries[0].request_hash = request_hash(&[(&a, "x")]).as_bytes().to_vec().into();
    let mut client = cluster.coordinator(0).await;
    counted.risen();
    client.inquire(question.clone()).await.unwrap();
    let expected = [
        "adopted_total{}",
        "inquiries_total{answer=undecided}",
        "inquiry_calls_total{}",
    ];
    assert_eq!(counted.risen(), once(&expected));
    // Asked again while it runs: not adopted again.
    client.inquire(question.clone()).await.unwrap();
    assert_eq!(counted.risen(), once(&expected[1..]));
    a.change(|a| a.vote_again = Some(Vote::Yes));
    a.until_heard(&Heard::Commit {
        transaction: transaction.to_string(),
    })
    .await;
    counted.risen();
    client.inquire(question).await.unwrap();
    let expected = ["inquiries_total{answer=committed}", "inquiry_calls_total{}"];
    assert_eq!(counted.risen(), once(&expected));
    assert_eq!(
        cluster.submit_at(0, transaction, &[(&a, "x")]).await.unwrap(),
        Decision::Commit
    );
}
