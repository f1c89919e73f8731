//! Transactions on a real cluster of three nodes: what initiators and participants are told, also when leaders
//! change.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;

use cluster::{
    Heard, TestCluster, TestParticipant, eventually, new_transaction, request_hash, submit_request,
};
use unanimo_core::{AbortReason, Decision, TransactionId, Vote};
use unanimo_proto::v1;
use unanimo_proto::{ErrorReason, reason_of};

fn prepare(transaction: TransactionId, operation: Option<&str>) -> Heard {
    Heard::Prepare {
        transaction: transaction.to_string(),
        operation: operation.map(str::to_owned),
    }
}

fn commit(transaction: TransactionId) -> Heard {
    Heard::Commit {
        transaction: transaction.to_string(),
    }
}

fn abort(transaction: TransactionId) -> Heard {
    Heard::Abort {
        transaction: transaction.to_string(),
    }
}

fn no(reason: &str) -> Vote {
    Vote::No {
        reason: reason.to_owned(),
    }
}

async fn outcome_at(
    cluster: &TestCluster,
    place: usize,
    transaction: TransactionId,
) -> v1::get_outcome_reply::Known {
    let request = v1::GetOutcomeRequest {
        cluster: "test".to_owned(),
        transaction: transaction.to_string(),
    };
    let reply = cluster
        .coordinator(place)
        .await
        .get_outcome(request)
        .await
        .unwrap()
        .into_inner();
    reply.known.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_yes_commits_and_every_node_knows_it() {
    let cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    let t = new_transaction();
    // Any node serves any call.
    let follower = (cluster.leader().await + 1) % 3;
    let told = cluster
        .submit_at(follower, t, &[(&a, "debit"), (&b, "credit")])
        .await
        .unwrap();
    assert_eq!(told, Decision::Commit);
    a.until_heard(&commit(t)).await;
    b.until_heard(&commit(t)).await;
    assert_eq!(a.heard(), [prepare(t, Some("debit")), commit(t)]);
    for place in 0..3 {
        use v1::get_outcome_reply::Known;
        assert!(
            matches!(outcome_at(&cluster, place, t).await, Known::Outcome(_)),
            "node {place}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_no_aborts_with_its_reason_and_lets_the_others_go() {
    let cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    b.change(|b| b.vote = Some(no("insufficient funds")));
    let t = new_transaction();
    let told = cluster.submit_at(0, t, &[(&a, ""), (&b, "")]).await.unwrap();
    let reason = AbortReason::VotedNo {
        participant: b.name().clone(),
        reason: "insufficient funds".to_owned(),
    };
    assert_eq!(told, Decision::Abort(reason));
    a.until_heard(&abort(t)).await;
    assert_eq!(b.heard(), [prepare(t, Some(""))], "who refused need not be told");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_gets_the_same_answer_and_another_is_refused() {
    let cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    let t = new_transaction();
    a.change(|a| a.vote = None);
    // Concurrent duplicates through different nodes run once.
    let first = submit_request(t, &[(&a, "x"), (&b, "y")]);
    let (mut one, mut two) = (cluster.coordinator(0).await, cluster.coordinator(1).await);
    let both = tokio::spawn({
        let first = first.clone();
        async move { tokio::join!(one.submit(first.clone()), two.submit(first)) }
    });
    a.until_heard(&prepare(t, Some("x"))).await;
    // While it runs, another request under its id has to wait: it is not known yet which of them is to be refused.
    let mut rival = cluster.coordinator(2).await;
    let other = submit_request(t, &[(&a, "other")]);
    let rival = tokio::spawn(async move { rival.submit(other).await });
    a.change(|a| a.vote = Some(Vote::Yes));
    let error = rival.await.unwrap().unwrap_err();
    assert_eq!(reason_of(&error), Some(ErrorReason::RequestMismatch));
    assert!(error.message().contains("belongs to another request"), "{error}");
    let (one, two) = both.await.unwrap();
    assert_eq!(
        one.unwrap().into_inner().outcome,
        two.unwrap().into_inner().outcome
    );
    // And so it stays, once it is decided.
    assert_eq!(
        cluster.submit_at(1, t, &[(&a, "x"), (&b, "y")]).await.unwrap(),
        Decision::Commit
    );
    let error = cluster.submit_at(1, t, &[(&a, "other")]).await.unwrap_err();
    assert_eq!(reason_of(&error), Some(ErrorReason::RequestMismatch));
    let prepares = a
        .heard()
        .iter()
        .filter(|heard| matches!(heard, Heard::Prepare { .. }))
        .count();
    assert_eq!(prepares, 1, "{:?}", a.heard());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_delivers_what_the_old_one_decided() {
    let mut cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    b.change(|b| b.acknowledges = false);
    let t = new_transaction();
    let old = cluster.leader().await;
    assert_eq!(
        cluster.submit_at(old, t, &[(&a, ""), (&b, "")]).await.unwrap(),
        Decision::Commit
    );
    b.until_heard(&commit(t)).await;
    cluster.stop_node(old).await;
    let heard_before = b.heard().len();
    let new = cluster.leader().await;
    assert_ne!(new, old);
    b.change(|b| b.acknowledges = true);
    eventually("the new leader delivers", async || {
        (b.heard().len() > heard_before).then_some(())
    })
    .await;
    eventually("everybody has acknowledged", async || {
        cluster.status(new).await.filter(|status| status.completing == 0)
    })
    .await;
    assert!(!b.heard().contains(&abort(t)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_answers_who_waits_and_takes_nobody_else() {
    let mut cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    b.change(|b| b.vote = None);
    let (t, late) = (new_transaction(), new_transaction());
    let request = submit_request(t, &[(&a, "x"), (&b, "y")]);
    let (old, waiting) = cluster
        .submit_until_heard(request, &b, &prepare(t, Some("y")))
        .await;
    let mut second = cluster.coordinator(old).await;
    let stopped = tokio::spawn(cluster.begin_to_stop_node(old));
    // Whoever comes now is sent elsewhere, and nothing is begun for it.
    eventually("that no more is taken", async || {
        let mut request = submit_request(new_transaction(), &[(&a, "x")]);
        request.voting_timeout_ms = 1;
        let error = second.submit(request).await.err()?;
        assert_eq!(reason_of(&error), Some(ErrorReason::NoLeader), "{error}");
        Some(())
    })
    .await;
    b.change(|b| b.vote = Some(Vote::Yes));
    let reply = waiting.await.unwrap().unwrap().into_inner();
    let told = unanimo_proto::Outcome::try_from(reply.outcome).unwrap().0;
    assert_eq!(told, Decision::Commit);
    stopped.await.unwrap().unwrap();
    let new = cluster.leader().await;
    let told = cluster.submit_at(new, late, &[(&a, "x"), (&b, "y")]).await;
    assert_eq!(told.unwrap(), Decision::Commit);
}

/// Initiators that submit one transaction after the other through the followers, until the last leader has stopped.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_hears_of_an_unknown_outcome_when_a_leader_stops_under_load() {
    let mut cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    let old = cluster.leader().await;
    let enough = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut initiators = tokio::task::JoinSet::new();
    for number in 0..8 {
        let mut client = cluster.coordinator((old + 1 + number % 2) % 3).await;
        let (a, enough) = (a.clone(), enough.clone());
        initiators.spawn(async move {
            let (mut committed, mut unexpected) = (0_u64, Vec::new());
            while !enough.load(std::sync::atomic::Ordering::Relaxed) {
                match client
                    .submit(submit_request(new_transaction(), &[(&a, "x")]))
                    .await
                {
                    Ok(_) => committed += 1,
                    Err(error) if reason_of(&error) == Some(ErrorReason::NoLeader) => {}
                    Err(error) => unexpected.push(error),
                }
            }
            (committed, unexpected)
        });
    }
    let commits = |wanted: usize| {
        let a = a.clone();
        async move {
            eventually("transactions", async || {
                let heard = a.heard();
                let commits = heard.iter().filter(|heard| matches!(heard, Heard::Commit { .. }));
                (commits.count() >= wanted).then_some(())
            })
            .await;
        }
    };
    commits(20).await;
    cluster.stop_node(old).await;
    let new = cluster.leader().await;
    assert_ne!(new, old);
    commits(a.heard().len() + 20).await;
    enough.store(true, std::sync::atomic::Ordering::Relaxed);
    while let Some(told) = initiators.join_next().await {
        let (committed, unexpected) = told.unwrap();
        assert!(committed > 0);
        assert!(unexpected.is_empty(), "{unexpected:?}");
    }
}

/// R14: past the limit a decision waits in the table, and only for the member that is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_away_costs_the_others_no_second_delivery() {
    let cluster = TestCluster::start_with(1, "[limits]\ncompleting = 1\n").await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    b.change(|b| b.acknowledges = false);
    let all: Vec<TransactionId> = (0..4).map(|_| new_transaction()).collect();
    for transaction in &all {
        let told = cluster.submit_at(0, *transaction, &[(&a, ""), (&b, "")]).await;
        assert_eq!(told.unwrap(), Decision::Commit);
        a.until_heard(&commit(*transaction)).await;
    }
    b.until_heard(&commit(all[0])).await;
    eventually("what is past the limit is parked", async || {
        cluster.status(0).await.filter(|status| status.completing <= 1)
    })
    .await;
    b.change(|b| b.acknowledges = true);
    let heard = |participant: &TestParticipant, transaction| {
        let told = participant.heard();
        told.iter().filter(|heard| **heard == commit(transaction)).count()
    };
    for transaction in all {
        b.until_heard(&commit(transaction)).await;
        assert_eq!(heard(&a, transaction), 1, "{transaction}");
    }
    eventually("everybody has acknowledged", async || {
        cluster.status(0).await.filter(|status| status.completing == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initiator_that_submits_again_gets_the_outcome_from_the_new_leader() {
    let mut cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    b.change(|b| b.vote = None);
    let t = new_transaction();
    let request = submit_request(t, &[(&a, "x"), (&b, "y")]);
    let (old, first) = cluster
        .submit_until_heard(request, &a, &prepare(t, Some("x")))
        .await;
    cluster.stop_node(old).await;
    assert!(
        first.await.unwrap().is_err(),
        "the old leader decided nothing, and says so"
    );
    b.change(|b| b.vote = Some(Vote::Yes));
    let new = cluster.leader().await;
    assert_eq!(
        cluster.submit_at(new, t, &[(&a, "x"), (&b, "y")]).await.unwrap(),
        Decision::Commit
    );
    assert!(!a.heard().contains(&abort(t)), "nobody was ever told otherwise");
}

async fn inquire(
    cluster: &TestCluster,
    place: usize,
    asker: &TestParticipant,
    inquiry: v1::Inquiry,
) -> v1::inquiry_answer::Answer {
    let request = v1::InquireRequest {
        cluster: "test".to_owned(),
        participant: asker.name().to_string(),
        inquiries: vec![inquiry],
    };
    let reply = cluster
        .coordinator(place)
        .await
        .inquire(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reply.answers.len(), 1);
    reply.answers[0].answer.clone().unwrap()
}

async fn until_decided(
    cluster: &TestCluster,
    asker: &TestParticipant,
    inquiry: v1::Inquiry,
) -> v1::inquiry_answer::Answer {
    use v1::inquiry_answer::Answer;
    eventually("a decision", async || {
        // Different nodes are asked: any may answer.
        for place in 0..3 {
            match inquire(cluster, place, asker, inquiry.clone()).await {
                Answer::Undecided(_) => {}
                decided @ (Answer::Committed(_) | Answer::Aborted(_)) => return Some(decided),
                Answer::Refused(refused) => panic!("{refused:?}"),
            }
        }
        None
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inquiry_about_a_fully_prepared_transaction_commits_it() {
    use v1::inquiry_answer::Answer;
    let cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    let t = new_transaction();
    let branches = [(&a, "x"), (&b, "y")];
    let inquiry = v1::Inquiry {
        transaction: t.to_string(),
        request_hash: request_hash(&branches).as_bytes().to_vec().into(),
        members: vec!["a".to_owned(), "b".to_owned()],
    };
    assert!(matches!(
        until_decided(&cluster, &a, inquiry).await,
        Answer::Committed(_)
    ));
    b.until_heard(&prepare(t, None)).await;
    b.until_heard(&commit(t)).await;
    // The initiator that comes back hears the same.
    assert_eq!(
        cluster.submit_at(0, t, &branches).await.unwrap(),
        Decision::Commit
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_to_prepare_is_no_vote() {
    let cluster = TestCluster::start(1).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    // Each may come from a member that promised earlier: it has lower limits now, or its address serves another.
    for reason in [
        ErrorReason::Malformed,
        ErrorReason::WrongCluster,
        ErrorReason::WrongTarget,
        ErrorReason::RequestMismatch,
    ] {
        let branches = [(&a, "x"), (&b, "y")];
        let (adopted, submitted) = (new_transaction(), new_transaction());
        b.change(|b| b.refuses = Some(reason));
        let inquiry = v1::Inquiry {
            transaction: adopted.to_string(),
            request_hash: request_hash(&branches).as_bytes().to_vec().into(),
            members: vec!["a".to_owned(), "b".to_owned()],
        };
        inquire(&cluster, 0, &a, inquiry).await;
        let submitting = cluster.submit_at(0, submitted, &branches);
        let refusing = async {
            b.until_heard(&prepare(adopted, None)).await;
            b.until_heard(&prepare(submitted, Some("y"))).await;
            b.change(|b| b.refuses = None);
        };
        let (told, ()) = tokio::join!(submitting, refusing);
        assert_eq!(told.unwrap(), Decision::Commit, "{reason:?}");
        let told = cluster.submit_at(0, adopted, &branches).await.unwrap();
        assert_eq!(told, Decision::Commit, "{reason:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inquiry_that_cannot_be_completed_is_answered_by_a_recorded_abort() {
    use v1::inquiry_answer::Answer;
    let cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    b.change(|b| b.vote_again = Some(no("never saw it")));
    let t = new_transaction();
    let branches = [(&a, "x"), (&b, "y")];
    let inquiry = v1::Inquiry {
        transaction: t.to_string(),
        request_hash: request_hash(&branches).as_bytes().to_vec().into(),
        members: vec!["a".to_owned(), "b".to_owned()],
    };
    assert!(matches!(
        until_decided(&cluster, &a, inquiry.clone()).await,
        Answer::Aborted(_)
    ));
    for place in 0..3 {
        // Recorded, so that no later Submit can commit it.
        let told = cluster.submit_at(place, t, &branches).await.unwrap();
        assert!(matches!(told, Decision::Abort(_)), "{told}");
    }
    // Another request under this id can never commit either, and its branches are let go.
    let other = v1::Inquiry {
        request_hash: vec![9; 32].into(),
        ..inquiry
    };
    assert!(matches!(
        inquire(&cluster, 0, &a, other).await,
        Answer::Aborted(_)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nobody_hears_a_decision() {
    let mut cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    a.change(|a| a.vote = None);
    let t = new_transaction();
    let request = submit_request(t, &[(&a, "x"), (&b, "y")]);
    let (leader, submitted) = cluster
        .submit_until_heard(request, &a, &prepare(t, Some("x")))
        .await;
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    for place in &others {
        cluster.stop_node(*place).await;
    }
    // The last vote comes in when there is no majority left to decide.
    a.change(|a| a.vote = Some(Vote::Yes));
    let answer = submitted.await.unwrap();
    assert!(
        answer.is_err(),
        "an outcome was told without a majority: {answer:?}"
    );
    for participant in [&a, &b] {
        assert!(
            participant
                .heard()
                .iter()
                .all(|heard| matches!(heard, Heard::Prepare { .. }))
        );
    }
    for place in &others {
        cluster.start_node(*place);
    }
    // The initiator asks again until somebody knows, as the client does.
    let told = eventually("a decision", async || {
        let leader = cluster.leader().await;
        cluster.submit_at(leader, t, &[(&a, "x"), (&b, "y")]).await.ok()
    });
    assert_eq!(told.await, Decision::Commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_voting_phase_ends_at_its_deadline() {
    let cluster = TestCluster::start(3).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    b.change(|b| b.vote = None);
    let t = new_transaction();
    let mut request = submit_request(t, &[(&a, ""), (&b, "")]);
    request.voting_timeout_ms = 200;
    let reply = cluster
        .coordinator(0)
        .await
        .submit(request)
        .await
        .unwrap()
        .into_inner();
    let told = unanimo_proto::Outcome::try_from(reply.outcome).unwrap().0;
    let missing = [b.name().clone()].into();
    assert_eq!(told, Decision::Abort(AbortReason::DeadlinePassed { missing }));
    b.until_heard(&abort(t)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interactive_transactions_commit_and_abort() {
    let cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    let mut client = cluster.coordinator(1).await;
    let begun = client
        .begin(v1::BeginRequest {
            cluster: "test".to_owned(),
        })
        .await
        .unwrap()
        .into_inner();
    let request = v1::CommitTransactionRequest {
        cluster: "test".to_owned(),
        transaction: begun.transaction.clone(),
        participants: vec!["a".to_owned()],
        voting_timeout_ms: 0,
    };
    let reply = client.commit(request).await.unwrap().into_inner();
    assert_eq!(
        unanimo_proto::Outcome::try_from(reply.outcome).unwrap().0,
        Decision::Commit
    );
    // What is committed stays committed.
    let too_late = v1::AbortTransactionRequest {
        cluster: "test".to_owned(),
        transaction: begun.transaction,
        participants: vec!["a".to_owned()],
    };
    let reply = client.abort(too_late).await.unwrap().into_inner();
    assert_eq!(
        unanimo_proto::Outcome::try_from(reply.outcome).unwrap().0,
        Decision::Commit
    );

    let t = new_transaction();
    let request = v1::AbortTransactionRequest {
        cluster: "test".to_owned(),
        transaction: t.to_string(),
        participants: vec!["a".to_owned()],
    };
    let reply = client.abort(request).await.unwrap().into_inner();
    let told = unanimo_proto::Outcome::try_from(reply.outcome).unwrap().0;
    assert_eq!(told, Decision::Abort(AbortReason::Requested));
    a.until_heard(&abort(t)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_of_what_nobody_runs_is_the_answer_to_every_request_under_its_id() {
    use v1::inquiry_answer::Answer;
    let cluster = TestCluster::start(1).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    let requested = Decision::Abort(AbortReason::Requested);
    for named in [vec![], vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()]] {
        // The leader that ran the request is dead: this one has never heard of it.
        let t = new_transaction();
        let request = v1::AbortTransactionRequest {
            cluster: "test".to_owned(),
            transaction: t.to_string(),
            participants: named,
        };
        let mut client = cluster.coordinator(0).await;
        client.abort(request).await.unwrap();
        let branches = [(&a, "x"), (&b, "y")];
        let told = cluster.submit_at(0, t, &branches).await.unwrap();
        assert_eq!(told, requested);
        // Also of one that is bound to a key only now.
        let mut keyed = submit_request(t, &branches);
        keyed.idempotency_key = format!("key of {t}");
        let reply = client.submit(keyed).await.unwrap().into_inner();
        assert_eq!(
            unanimo_proto::Outcome::try_from(reply.outcome).unwrap().0,
            requested
        );
        let commit = v1::CommitTransactionRequest {
            cluster: "test".to_owned(),
            transaction: t.to_string(),
            participants: vec!["b".to_owned()],
            voting_timeout_ms: 0,
        };
        let reply = client.commit(commit).await.unwrap().into_inner();
        assert_eq!(
            unanimo_proto::Outcome::try_from(reply.outcome).unwrap().0,
            requested
        );
        let inquiry = v1::Inquiry {
            transaction: t.to_string(),
            request_hash: request_hash(&branches).as_bytes().to_vec().into(),
            members: vec!["a".to_owned(), "b".to_owned()],
        };
        let told = inquire(&cluster, 0, &b, inquiry).await;
        assert!(matches!(told, Answer::Aborted(_)), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_knows_less_than_before_is_refused() {
    let cluster = TestCluster::start(3).await;
    let a = TestParticipant::start_unregistered("a").await;
    a.register(&cluster, 5, 100).await.unwrap();
    a.register(&cluster, 5, 100).await.unwrap();
    a.register(&cluster, 6, 101).await.unwrap();
    for (generation, position) in [(5, 101), (7, 100)] {
        let error = a.register(&cluster, generation, position).await.unwrap_err();
        assert_eq!(reason_of(&error), Some(ErrorReason::Outdated), "{error}");
        assert!(error.message().contains("old copy"), "{error}");
    }
    // A vote's witness counts, too: it was voted at position 7, at least.
    let b = TestParticipant::start(&cluster, "b").await;
    assert_eq!(
        cluster
            .submit_at(0, new_transaction(), &[(&b, "")])
            .await
            .unwrap(),
        Decision::Commit
    );
    let error = b.register(&cluster, 2, 6).await.unwrap_err();
    assert_eq!(reason_of(&error), Some(ErrorReason::Outdated), "{error}");
}

/// North votes, comes up again, and registers; then south votes. Says what came of it, and whether north was asked for
/// what it knows. It is not if its vote was still on its way when it came up again: then it is asked to prepare anew.
async fn come_up_again_between_vote_and_decision(
    cluster: &TestCluster,
    (north, south): (&TestParticipant, &TestParticipant),
    generation: u64,
) -> (Decision, bool) {
    south.change(|south| south.vote = None);
    let transaction = new_transaction();
    let branches = [(north, "debit"), (south, "credit")];
    let submitting = cluster.submit_at(0, transaction, &branches);
    let coming_up_again = async {
        south.until_heard(&prepare(transaction, Some("credit"))).await;
        north.until_heard(&prepare(transaction, Some("debit"))).await;
        north.register(cluster, generation, 100).await.unwrap();
        north.change(|north| north.generation = generation);
        south.change(|south| south.vote = Some(Vote::Yes));
    };
    let (outcome, ()) = tokio::join!(submitting, coming_up_again);
    (
        outcome.unwrap(),
        north.heard().contains(&prepare(transaction, None)),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_comes_up_again_before_the_decision_is_asked_again() {
    let cluster = TestCluster::start(1).await;
    let north = TestParticipant::start(&cluster, "north").await;
    let south = TestParticipant::start(&cluster, "south").await;
    let generations = &mut (2..);
    for still_knows in [true, false] {
        let vote_again = if still_knows {
            Vote::Yes
        } else {
            no("never saw it")
        };
        north.change(|north| north.vote_again = Some(vote_again));
        let outcome = eventually("a vote that is counted before the next life", async || {
            let generation = generations.next()?;
            let (outcome, asked_again) =
                come_up_again_between_vote_and_decision(&cluster, (&north, &south), generation).await;
            asked_again.then_some(outcome)
        })
        .await;
        assert_eq!(outcome.is_commit(), still_knows, "{outcome}");
    }
}
