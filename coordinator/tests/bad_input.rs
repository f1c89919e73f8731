//! What is refused, with which words, and that nothing else suffers.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::path::Path;
use std::time::Duration;

use cluster::{Heard, PATIENCE, TestCluster, TestParticipant, new_transaction, submit_request};
use unanimo_coordinator::{Config, RunError, run};
use unanimo_core::Decision;
use unanimo_proto::v1;
use unanimo_proto::{ErrorReason, reason_of, retry_after};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_one_is_refused_and_disturbs_nobody() {
    let cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    let good = || submit_request(new_transaction(), &[(&a, "x")]);
    let branch = |name: &str| v1::Branch {
        participant: name.to_owned(),
        operation: vec![].into(),
    };
    type Change<'a> = Box<dyn Fn(&mut v1::SubmitRequest) + 'a>;
    let cases: Vec<(Change<'_>, ErrorReason, &str)> = vec![
        (
            Box::new(|r| r.cluster = "other".to_owned()),
            ErrorReason::WrongCluster,
            "\"other\"",
        ),
        (
            Box::new(|r| r.transaction = String::new()),
            ErrorReason::Malformed,
            "transaction is missing",
        ),
        (
            Box::new(|r| r.transaction = "t1".to_owned()),
            ErrorReason::Malformed,
            "\"t1\" is not a UUID",
        ),
        (
            Box::new(|r| r.branches.clear()),
            ErrorReason::Malformed,
            "no branches",
        ),
        (
            Box::new(|r| r.branches.push(branch("a"))),
            ErrorReason::Malformed,
            "a is named twice",
        ),
        (
            Box::new(|r| r.branches.push(branch("B A"))),
            ErrorReason::Malformed,
            "\"B A\" is not allowed",
        ),
        (
            Box::new(|r| r.branches.push(branch("ghost"))),
            ErrorReason::UnknownParticipant,
            "ghost",
        ),
        (
            Box::new(|r| r.branches = (0..65).map(|n| branch(&format!("p{n}"))).collect()),
            ErrorReason::Malformed,
            "more than 64 branches",
        ),
        (
            Box::new(|r| r.branches[0].operation = vec![0; 49_153].into()),
            ErrorReason::Malformed,
            "49153 bytes, the limit is 49152",
        ),
    ];
    for place in 0..3 {
        let mut client = cluster.coordinator(place).await;
        for (change, reason, says) in &cases {
            let mut request = good();
            change(&mut request);
            let error = client.submit(request).await.unwrap_err();
            assert_eq!(reason_of(&error), Some(*reason), "{error}");
            assert!(error.message().contains(says), "{says}: {error}");
        }
        // Larger than any message may be: gRPC itself refuses it.
        let mut request = good();
        request.branches[0].operation = vec![0; 5 * 1024 * 1024].into();
        let error = client.submit(request).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::OutOfRange, "{error}");
        assert!(a.heard().is_empty());
    }
    assert_eq!(
        cluster
            .submit_at(0, new_transaction(), &[(&a, "x")])
            .await
            .unwrap(),
        Decision::Commit
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_transactions_are_refused_with_a_hint_and_start_nothing() {
    let cluster = TestCluster::start_with(3, "[limits]\nin_flight = 1\n").await;
    let a = TestParticipant::start(&cluster, "a").await;
    let b = TestParticipant::start(&cluster, "b").await;
    a.change(|a| a.vote = None);
    let (held, refused) = (new_transaction(), new_transaction());
    let request = submit_request(held, &[(&a, "")]);
    let prepare = Heard::Prepare {
        transaction: held.to_string(),
        operation: Some(String::new()),
    };
    let (leader, first) = cluster.submit_until_heard(request, &a, &prepare).await;
    let error = cluster.submit_at(leader, refused, &[(&b, "")]).await.unwrap_err();
    assert_eq!(
        (reason_of(&error), error.code()),
        (Some(ErrorReason::Overloaded), tonic::Code::ResourceExhausted)
    );
    assert!(retry_after(&error).is_some_and(|delay| delay > Duration::ZERO));
    assert!(b.heard().is_empty());
    a.change(|a| a.vote = Some(unanimo_core::Vote::Yes));
    assert!(
        first.await.unwrap().is_ok(),
        "the one that was in flight is not disturbed"
    );
    assert_eq!(
        cluster.submit_at(leader, refused, &[(&b, "")]).await.unwrap(),
        Decision::Commit
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_in_flight_are_bounded_in_bytes_too() {
    let cluster = TestCluster::start_with(1, "[limits]\nin_flight_mib = 4\n").await;
    let a = TestParticipant::start(&cluster, "a").await;
    a.change(|a| a.vote = None);
    // Of the largest operations 85 fit into 4 MiB.
    let large = "x".repeat(48 * 1024);
    let client = cluster.coordinator(0).await;
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..85 {
        let request = submit_request(new_transaction(), &[(&a, &large)]);
        let mut client = client.clone();
        held.spawn(async move { client.submit(request).await });
    }
    cluster::eventually("all are in flight", async || {
        cluster.status(0).await.filter(|status| status.in_flight == 85)
    })
    .await;
    let error = cluster.submit_at(0, new_transaction(), &[(&a, &large)]).await;
    assert_eq!(reason_of(&error.unwrap_err()), Some(ErrorReason::Overloaded));
    // A small one still fits.
    let small = submit_request(new_transaction(), &[(&a, "x")]);
    let mut other = client.clone();
    held.spawn(async move { other.submit(small).await });
    cluster::eventually("the small one is in flight", async || {
        cluster.status(0).await.filter(|status| status.in_flight == 86)
    })
    .await;
    a.change(|a| a.vote = Some(unanimo_core::Vote::Yes));
    while let Some(answer) = held.join_next().await {
        answer.unwrap().unwrap();
    }
    let told = cluster.submit_at(0, new_transaction(), &[(&a, &large)]).await;
    assert_eq!(told.unwrap(), Decision::Commit, "there is room again");
}

/// R12: who repeats its request hears what came of it, whatever the limits are by then.
#[tokio::test(flavor = "multi_thread")]
async fn lower_limits_do_not_refuse_what_was_committed_under_higher_ones() {
    let mut cluster = TestCluster::start(1).await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    let (long, wide) = (new_transaction(), new_transaction());
    cluster.submit_at(0, long, &[(&a, "12345")]).await.unwrap();
    cluster.submit_at(0, wide, &[(&a, "1"), (&b, "2")]).await.unwrap();
    cluster.stop_node(0).await;
    cluster.configure("[limits]\noperation_bytes = 4\nmembers = 1\n");
    cluster.start_node(0);
    cluster.leader().await;
    let told = cluster.submit_at(0, long, &[(&a, "12345")]).await;
    assert_eq!(told.unwrap(), Decision::Commit);
    let told = cluster.submit_at(0, wide, &[(&a, "1"), (&b, "2")]).await;
    assert_eq!(told.unwrap(), Decision::Commit);
    let requests: [&[_]; 2] = [&[(&a, "12345")], &[(&a, "1"), (&b, "2")]];
    for branches in requests {
        let error = cluster.submit_at(0, new_transaction(), branches).await;
        assert_eq!(reason_of(&error.unwrap_err()), Some(ErrorReason::Malformed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_never_existed_are_refused_wherever_they_are_named() {
    let cluster = TestCluster::start(3).await;
    let a = TestParticipant::start(&cluster, "a").await;
    for place in 0..3 {
        let mut client = cluster.coordinator(place).await;
        let transaction = new_transaction().to_string();
        let abort = v1::AbortTransactionRequest {
            cluster: "test".to_owned(),
            transaction: transaction.clone(),
            participants: vec!["a".to_owned(), "ghost".to_owned()],
        };
        let error = client.abort(abort).await.unwrap_err();
        assert_eq!(
            reason_of(&error),
            Some(ErrorReason::UnknownParticipant),
            "{error}"
        );
        // Nothing came of it.
        let outcome = v1::GetOutcomeRequest {
            cluster: "test".to_owned(),
            transaction,
        };
        let known = client.get_outcome(outcome).await.unwrap().into_inner().known;
        assert!(
            matches!(known, Some(v1::get_outcome_reply::Known::Undecided(_))),
            "{known:?}"
        );
    }
    assert!(a.heard().is_empty());
}

async fn refused(config: Config) -> RunError {
    let running = run(config, std::future::pending());
    tokio::time::timeout(PATIENCE, running)
        .await
        .expect("it refuses to start")
        .unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let cluster = TestCluster::start(1).await;
    let other_folder = tempfile::TempDir::new().unwrap();
    let config = cluster.config_with(0, 1, other_folder.path(), "test");
    let error = refused(config).await.to_string();
    assert!(
        error.contains(&cluster.address(0)) && error.contains("listen"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_folder_of_another_node_or_cluster_is_refused() {
    let mut cluster = TestCluster::start(3).await;
    for place in 0..3 {
        cluster.stop_node(place).await;
    }
    let data = cluster.data(0);
    let error = refused(cluster.config_with(1, 2, &data, "test"))
        .await
        .to_string();
    assert!(error.contains("n1") && error.contains("n2"), "{error}");
    let error = refused(cluster.config_with(0, 1, &data, "elsewhere"))
        .await
        .to_string();
    assert!(error.contains("elsewhere") && error.contains("test"), "{error}");
    // Nothing was lost by the attempts.
    for place in 0..3 {
        cluster.start_node(place);
    }
    cluster.leader().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_in_use_is_refused() {
    let cluster = TestCluster::start(1).await;
    let mut config = cluster.config(0);
    config.listen = format!("127.0.0.1:{}", cluster::free_port());
    let error = refused(config).await.to_string();
    assert!(error.contains("in use"), "{error}");
    assert!(cluster.status(0).await.is_some_and(|status| status.ready));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_was_lost_does_not_come_back_under_its_id() {
    let mut cluster = TestCluster::start(3).await;
    cluster.stop_node(2).await;
    std::fs::remove_dir_all(cluster.data(2)).unwrap();
    let error = refused(cluster.config(2)).await.to_string();
    assert!(
        error.contains("disk was lost") && error.contains("add-node"),
        "{error}"
    );
    // And a folder of which only a part is left.
    cluster.stop_node(1).await;
    std::fs::remove_dir_all(cluster.data(1).join("log")).unwrap();
    let error = refused(cluster.config(1)).await.to_string();
    assert!(error.contains("log"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_where_the_data_folder_should_be_is_named() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "not a folder").unwrap();
    let cluster = TestCluster::stopped(1, "");
    let error = refused(cluster.config_with(0, 1, &file, "test"))
        .await
        .to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
    assert!(
        Config::load(Path::new("no/such.toml"))
            .unwrap_err()
            .to_string()
            .contains("no/such.toml")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_beginners_is_turned_away_with_a_hint_and_harms_nobody() {
    let cluster = TestCluster::start_with(1, "[limits]\nbegins_per_second = 10\n").await;
    let a = TestParticipant::start(&cluster, "a").await;
    let mut client = cluster.coordinator(0).await;
    let begin = || v1::BeginRequest {
        cluster: "test".to_owned(),
    };
    let started = tokio::time::Instant::now();
    let (mut begun, mut refused) = (0, 0);
    // As many as come until some hundred are turned away: what is let in depends on how long that takes.
    while refused < 200 {
        assert!(begun < 1000, "nobody is turned away");
        match client.begin(begin()).await {
            Ok(_) => begun += 1,
            Err(error) => {
                assert_eq!(reason_of(&error), Some(ErrorReason::Overloaded), "{error}");
                let hint = retry_after(&error).unwrap();
                assert!(hint <= Duration::from_millis(100), "{hint:?}");
                refused += 1;
            }
        }
    }
    let most = 10.0 + started.elapsed().as_secs_f64() * 10.0;
    assert!(f64::from(begun) <= most, "{begun} in {:?}", started.elapsed());
    // Other transactions go on, and whoever repeats gets in.
    let submitted = cluster.submit_at(0, new_transaction(), &[(&a, "x")]).await;
    assert_eq!(submitted.unwrap(), Decision::Commit);
    cluster::eventually("a place", async || client.begin(begin()).await.ok()).await;
}
