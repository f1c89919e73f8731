//! Whole replicas: elections, restarts, snapshots, damage, changes of the membership.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use unanimo_core::table::Applied;
use unanimo_journal::{Lose, Options, RealDisk, SimulatedDisk};
use unanimo_proto::transport::{Connector as _, TcpConnector};
use unanimo_proto::{ErrorReason, internal as wire, reason_of};
use unanimo_table::{Batch, MemoryTable, Table as _};

use super::fixture::{acknowledge, cluster_id, decide, participant, register, transaction};
use super::node::{Cluster, DEADLINE, Site};
use crate::raft::{
    Background, MembershipError, NodeId, ProposeError, Replica, ReplicaOptions, ReplicaParts, Role,
    StartError,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_proposed_is_on_every_node_and_survives_restarts() {
    let mut cluster = Cluster::form(3, |_| ()).await;
    let leader = cluster.leader().await;
    let node = &cluster.nodes[&leader];
    let commands = vec![
        register(1, 1, 1),
        decide(1, 2, 9),
        acknowledge(1, [0]),
        decide(1, 3, 1),
    ];
    let outcome = node.propose(commands).await.unwrap();
    assert_eq!(outcome[0], Applied::Registered);
    let Applied::Decided(second) = &outcome[3] else {
        panic!("{outcome:?}")
    };
    assert_eq!(second.members.len(), 2, "the first decision holds");
    assert_eq!(
        second.unacknowledged.len(),
        1,
        "and has the acknowledgement of the command before"
    );
    assert_eq!(
        node.replica
            .registration(&participant(1))
            .unwrap()
            .unwrap()
            .witness
            .position
            .0,
        9
    );

    let follower = 1 + leader % 3;
    let refused = cluster.nodes[&follower].propose(vec![decide(2, 1, 1)]).await;
    let Err(ProposeError::NotLeader { leader: Some(told) }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (told.node, told.address),
        (NodeId(leader), cluster.sites[&leader].address.clone())
    );
    assert!(matches!(
        cluster.nodes[&follower].replica.read_barrier().await,
        Err(ProposeError::NotLeader { .. })
    ));
    cluster.assert_same().await;

    cluster.stop(follower).await;
    for number in 10..40 {
        cluster.nodes[&leader]
            .propose(vec![decide(number, 2, 1)])
            .await
            .unwrap();
    }
    let back = cluster.start(follower).await;
    assert!(back.replica.is_formed());
    cluster.assert_same().await;
    assert_eq!(
        cluster.nodes[&follower].replica.unended(None, 100).unwrap().len(),
        31
    );
    let page = cluster.nodes[&follower]
        .replica
        .unended(Some(transaction(12)), 3)
        .unwrap();
    assert_eq!(
        page.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        [13, 14, 15].map(transaction)
    );

    cluster.stop_all().await;
    for number in 1..=3 {
        cluster.start(number).await;
    }
    cluster.assert_same().await;
    let node = &cluster.nodes[&cluster.leader().await];
    assert!(node.replica.record(transaction(39)).unwrap().is_some());
    assert!(
        node.replica.record(transaction(2)).unwrap().is_none(),
        "a refused proposal was applied"
    );
    assert_eq!(node.replica.registrations(None, 9).unwrap().len(), 1);
    let status = node.replica.status();
    assert_eq!(
        (status.role, status.nodes.len(), status.changing),
        (Role::Leader, 3, false)
    );
    assert!(
        status.log_syncs > 0 && status.since_quorum_ms.is_some(),
        "{status:?}"
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leadership_is_handed_over() {
    let mut cluster = Cluster::form(3, |_| ()).await;
    let leader = cluster.leader().await;
    let next = 1 + leader % 3;
    cluster.nodes[&leader]
        .propose(vec![decide(1, 1, 1)])
        .await
        .unwrap();
    let term = cluster.nodes[&leader].replica.leadership().borrow().term;
    cluster.nodes[&leader]
        .replica
        .transfer_leader(NodeId(next))
        .await
        .unwrap();
    assert_eq!(cluster.leader().await, next);
    let leadership = cluster.nodes[&next].replica.leadership().borrow().clone();
    assert!(
        leadership.this_node_leads && leadership.term > term,
        "{leadership:?}"
    );
    cluster.nodes[&next].propose(vec![decide(2, 1, 1)]).await.unwrap();
    let stranger = cluster.nodes[&next].replica.transfer_leader(NodeId(9)).await;
    assert!(
        matches!(stranger, Err(MembershipError::NoMember { node: NodeId(9) })),
        "{stranger:?}"
    );
    cluster.assert_same().await;
    cluster.stop_all().await;
}

/// Every proposal that got an answer is there; every definite refusal is not; the others are one or the other, the
/// same on all nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_in_flight_when_the_leader_stops_are_there_or_unknown() {
    let mut cluster = Cluster::form(3, |_| ()).await;
    let leader = cluster.leader().await;
    let replica = cluster.nodes[&leader].replica.clone();
    let proposing = tokio::spawn(join_all((0..400).map(|number| {
        let replica = replica.clone();
        tokio::spawn(async move { (number, replica.propose(vec![decide(number, 2, 1)]).await) })
    })));
    cluster.nodes[&leader]
        .until("some were applied", |status| status.applied > Some(3))
        .await;
    cluster.stop(leader).await;
    let results: Vec<_> = proposing.await.unwrap().into_iter().map(Result::unwrap).collect();
    drop(replica);
    let next = &cluster.nodes[&cluster.leader().await];
    let mut answered = 0;
    for (number, result) in &results {
        let found = next.replica.record(transaction(*number)).unwrap();
        match result {
            Ok(_) => assert!(found.is_some(), "{number} was answered and is lost"),
            Err(ProposeError::NotLeader { .. } | ProposeError::Busy | ProposeError::TooLarge { .. }) => {
                assert!(found.is_none(), "{number} was refused and is there");
            }
            Err(ProposeError::Unknown | ProposeError::Failed(_)) => {}
        }
        answered += usize::from(result.is_ok());
    }
    assert!(answered > 0);
    cluster.start(leader).await;
    cluster.assert_same().await;
    cluster.stop_all().await;
}

fn small_snapshots(options: &mut ReplicaOptions) {
    options.snapshot_every_entries = 50;
    options.keep_entries = 10;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_too_long_gets_a_snapshot() {
    let mut cluster = Cluster::form(3, small_snapshots).await;
    let leader = cluster.leader().await;
    let away = 1 + leader % 3;
    cluster.nodes[&leader]
        .propose(vec![register(1, 1, 1), decide(1000, 2, 1)])
        .await
        .unwrap();
    cluster.settle().await;
    let had = cluster.nodes[&away].replica.status().last_log.unwrap();
    cluster.stop(away).await;
    for number in 0..150 {
        cluster.nodes[&leader]
            .propose(vec![decide(number, 4, 1), acknowledge(number, 0..number % 5)])
            .await
            .unwrap();
    }
    let purged = |status: &crate::raft::ReplicaStatus| status.purged > Some(had);
    cluster.nodes[&leader]
        .until("purged beyond what the other has", purged)
        .await;
    let back = cluster.start(away).await;
    back.until("installed a snapshot", |status| status.snapshot > Some(had))
        .await;
    cluster.assert_same().await;
    assert_eq!(
        std::fs::read_dir(cluster.sites[&away].path("snapshots"))
            .unwrap()
            .count(),
        1
    );

    // What it got is enough to start from, and to go on.
    cluster.stop(away).await;
    cluster.nodes[&leader]
        .propose(vec![decide(2000, 1, 1)])
        .await
        .unwrap();
    cluster.start(away).await;
    cluster.assert_same().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_damaged_table_is_rebuilt_from_the_snapshot_and_the_log() {
    let mut cluster = Cluster::form(3, small_snapshots).await;
    let leader = cluster.leader().await;
    for number in 0..120 {
        cluster.nodes[&leader]
            .propose(vec![register(number % 7, 1, number), decide(number, 3, number)])
            .await
            .unwrap();
    }
    let victim = 1 + leader % 3;
    cluster.settle().await;
    cluster.nodes[&victim]
        .until("purged", |status| status.purged.is_some())
        .await;
    let expected = cluster.nodes[&victim].contents();
    for damage in ["deleted", "overwritten"] {
        cluster.stop(victim).await;
        let table = cluster.sites[&victim].path("table");
        if damage == "deleted" {
            std::fs::remove_dir_all(&table).unwrap();
        } else {
            let database = table.join("db");
            let length = std::fs::metadata(&database).unwrap().len() as usize;
            std::fs::write(&database, vec![0x5a; length]).unwrap();
        }
        cluster.start(victim).await;
        cluster.assert_same().await;
        let found = cluster.nodes[&victim].contents();
        let records = |contents: &[(Vec<u8>, Vec<u8>)]| {
            contents
                .iter()
                .filter(|(key, _)| !key.starts_with(b"m"))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert!(records(&found) == records(&expected), "{damage}");
    }
    // Without the snapshot as well, nothing has what the log has dropped.
    cluster.stop(victim).await;
    let site = cluster.sites.get_mut(&victim).unwrap();
    std::fs::remove_dir_all(site.path("table")).unwrap();
    std::fs::remove_dir_all(site.path("snapshots")).unwrap();
    let refused = site.try_start().await.map(drop);
    let Err(error @ StartError::Gap { .. }) = refused else {
        panic!("{refused:?}")
    };
    assert!(error.to_string().contains("under a new id"), "{error}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_added_and_removed_and_its_id_is_not_used_again() {
    let mut cluster = Cluster::form(3, small_snapshots).await;
    let leader = cluster.leader().await;
    for number in 0..100 {
        cluster.nodes[&leader]
            .propose(vec![decide(number, 2, 1)])
            .await
            .unwrap();
    }
    let mut site = Site::new(4).await;
    small_snapshots(&mut site.options);
    let (node, address) = (site.start().await, site.address.clone());
    cluster.nodes.insert(4, node);
    cluster.sites.insert(4, site);
    let replica = cluster.nodes[&leader].replica.clone();
    replica.add_node(NodeId(4), address.clone()).await.unwrap();
    let again = replica.add_node(NodeId(4), address.clone()).await;
    assert!(
        matches!(again, Err(MembershipError::Member { node: NodeId(4), .. })),
        "{again:?}"
    );
    cluster.assert_same().await;
    let status = cluster.nodes[&4]
        .until("votes", |status| status.role == Role::Follower)
        .await;
    assert_eq!(status.nodes.iter().filter(|node| node.voter).count(), 4);

    // The removed one may be the leader.
    let removed = leader;
    replica.remove_node(NodeId(removed)).await.unwrap();
    cluster.stop(removed).await;
    let leader = cluster.leader().await;
    let replica = cluster.nodes[&leader].replica.clone();
    replica.propose(vec![decide(5000, 1, 1)]).await.unwrap();
    cluster.assert_same().await;
    let reused = replica.add_node(NodeId(removed), address).await;
    assert!(
        matches!(reused, Err(MembershipError::UsedBefore { .. })),
        "{reused:?}"
    );
    let unknown = replica.remove_node(NodeId(77)).await;
    assert!(
        matches!(unknown, Err(MembershipError::NoMember { .. })),
        "{unknown:?}"
    );
    drop(replica);
    cluster.stop_all().await;
}

/// What ids were given out is known also to a node that learnt it from a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_ids_are_remembered_in_snapshots() {
    let mut cluster = Cluster::form(1, small_snapshots).await;
    cluster.leader().await;
    let mut site = Site::new(2).await;
    small_snapshots(&mut site.options);
    let node = site.start().await;
    let replica = cluster.nodes[&1].replica.clone();
    replica.add_node(NodeId(2), site.address.clone()).await.unwrap();
    replica.remove_node(NodeId(2)).await.unwrap();
    node.stop().await;
    for number in 0..120 {
        replica.propose(vec![decide(number, 1, 1)]).await.unwrap();
    }
    drop(replica);
    cluster.nodes[&1]
        .until("purged", |status| status.purged > Some(60))
        .await;
    cluster.stop(1).await;
    std::fs::remove_dir_all(cluster.sites[&1].path("table")).unwrap();
    let node = cluster.start(1).await;
    let address = "127.0.0.1:9".to_owned();
    node.until("leads", |status| status.role == Role::Leader).await;
    let reused = node.replica.add_node(NodeId(2), address).await;
    assert!(
        matches!(reused, Err(MembershipError::UsedBefore { node: NodeId(2) })),
        "{reused:?}"
    );
    let last = node.replica.remove_node(NodeId(1)).await;
    assert!(matches!(last, Err(MembershipError::LastVoter { .. })), "{last:?}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_a_proposal_ends_without_an_answer() {
    let mut cluster = Cluster::form(3, |options| options.propose_timeout_ms = 1500).await;
    let leader = cluster.leader().await;
    for follower in (1..=3).filter(|number| *number != leader) {
        cluster.stop(follower).await;
    }
    let node = &cluster.nodes[&leader];
    let (proposed, barrier) = tokio::join!(node.propose(vec![decide(1, 1, 1)]), node.replica.read_barrier());
    assert!(
        matches!(proposed, Err(ProposeError::Unknown | ProposeError::Busy)),
        "{proposed:?}"
    );
    assert!(
        matches!(barrier, Err(ProposeError::Busy | ProposeError::NotLeader { .. })),
        "{barrier:?}"
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_away_is_not_called_all_the_time() {
    let mut cluster = Cluster::form(3, |_| ()).await;
    let leader = cluster.leader().await;
    let away = 1 + leader % 3;
    cluster.stop(away).await;
    // Stands in for the node: counts who calls, and hangs up.
    let listener = tokio::net::TcpListener::bind(&cluster.sites[&away].address)
        .await
        .unwrap();
    let calls = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let standing_in = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            drop(connection);
        }
    });
    let begun = std::time::Instant::now();
    for number in 0..300 {
        cluster.nodes[&leader]
            .propose(vec![decide(number, 1, 1)])
            .await
            .unwrap();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let calls = calls.load(std::sync::atomic::Ordering::Relaxed) as f64;
    // Ten heartbeats a second, and the pauses of the replication; a hot loop makes tens of thousands.
    assert!(calls < 60.0 + 60.0 * seconds, "{calls} calls in {seconds} s");
    standing_in.abort();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_for_another_node_or_cluster_are_refused() {
    let mut cluster = Cluster::form(1, |_| ()).await;
    cluster.leader().await;
    let channel = TcpConnector::default()
        .channel(&cluster.sites[&1].address)
        .unwrap();
    let mut client = wire::raft_client::RaftClient::new(channel);
    let vote = Some(wire::Vote {
        term: 1000,
        node: 7,
        committed: false,
    });
    let request = |cluster: &str, target| wire::VoteRequest {
        cluster: cluster.to_owned(),
        target,
        vote,
        last_log: Some(wire::LogId {
            term: 999,
            index: 1_000_000,
        }),
        leadership_transfer: true,
    };
    let refused = |status: tonic::Status| reason_of(&status).unwrap();
    assert_eq!(
        refused(client.vote(request("other", 1)).await.unwrap_err()),
        ErrorReason::WrongCluster
    );
    assert_eq!(
        refused(client.vote(request("test", 2)).await.unwrap_err()),
        ErrorReason::WrongTarget
    );
    assert_eq!(
        refused(client.pre_vote(request("test", 2)).await.unwrap_err()),
        ErrorReason::WrongTarget
    );
    let malformed = wire::VoteRequest {
        vote: None,
        ..request("test", 1)
    };
    assert_eq!(
        refused(client.vote(malformed).await.unwrap_err()),
        ErrorReason::Malformed
    );
    let append = wire::AppendRequest {
        cluster: "test".to_owned(),
        target: 2,
        vote,
        ..Default::default()
    };
    let mut replies = client
        .append(tokio_stream::iter([append]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        refused(replies.message().await.unwrap_err()),
        ErrorReason::WrongTarget
    );
    let header = wire::snapshot_piece::Header {
        cluster: "test".to_owned(),
        target: 2,
        vote,
        meta: None,
    };
    let piece = wire::SnapshotPiece {
        piece: Some(wire::snapshot_piece::Piece::Header(header)),
    };
    let sent = client.install_snapshot(tokio_stream::iter([piece])).await;
    assert_eq!(refused(sent.unwrap_err()), ErrorReason::WrongTarget);
    assert!(cluster.nodes[&1].replica.status().term < 1000);
    cluster.stop_all().await;
}

/// A node that may have lost its data takes no part until somebody knows better.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_answers_nobody_before_it_is_admitted() {
    let mut cluster = Cluster::form(1, |_| ()).await;
    let leader = cluster.leader().await;
    let mut site = Site::new(2).await;
    site.options.answer_when_new = false;
    let (node, address) = (site.start().await, site.address.clone());
    cluster.nodes.insert(2, node);
    cluster.sites.insert(2, site);
    let replica = cluster.nodes[&leader].replica.clone();
    let adding = tokio::spawn(async move { replica.add_node(NodeId(2), address).await });
    let listed = |status: &crate::raft::ReplicaStatus| status.nodes.len() == 2;
    cluster.nodes[&1].until("lists it", listed).await;
    let channel = TcpConnector::default()
        .channel(&cluster.sites[&2].address)
        .unwrap();
    let mut client = wire::raft_client::RaftClient::new(channel);
    let vote = Some(wire::Vote {
        term: 1000,
        node: 1,
        committed: false,
    });
    let request = wire::VoteRequest {
        cluster: "test".to_owned(),
        target: 2,
        vote,
        ..Default::default()
    };
    let refused = client.vote(request).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(ErrorReason::Recovering));
    assert!(!cluster.nodes[&2].replica.is_formed());
    let noted = Arc::new(AtomicBool::new(false));
    let note = Arc::clone(&noted);
    cluster.nodes[&2].replica.admit(move || {
        note.store(true, Ordering::Release);
        Ok(())
    });
    timeout(DEADLINE, adding).await.unwrap().unwrap().unwrap();
    assert!(noted.load(Ordering::Acquire));
    cluster.assert_same().await;
    cluster.stop(2).await;
    // Once it is part of a cluster it is admitted from the start.
    cluster.start(2).await;
    cluster.assert_same().await;
    cluster.stop_all().await;
}

/// What it would take to notice the loss of the log later is on disk before anybody hears a promise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_that_cannot_note_that_it_answers_answers_nobody() {
    let mut site = Site::new(2).await;
    site.options.answer_when_new = false;
    let node = site.start().await;
    let mut failed = node.replica.failed();
    node.replica.admit(|| Err(std::io::Error::other("no space")));
    let channel = TcpConnector::default().channel(&site.address).unwrap();
    let mut client = wire::raft_client::RaftClient::new(channel);
    let request = wire::VoteRequest {
        cluster: "test".to_owned(),
        target: 2,
        vote: Some(wire::Vote {
            term: 1,
            node: 1,
            committed: false,
        }),
        ..Default::default()
    };
    for _ in 0..2 {
        let refused = client.vote(request.clone()).await.unwrap_err();
        assert_eq!(reason_of(&refused), Some(ErrorReason::StorageFailed), "{refused}");
    }
    let reason = failed.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(reason.contains("no space"), "{reason}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_of_another_node_is_refused() {
    let mut cluster = Cluster::form(1, |_| ()).await;
    cluster.leader().await;
    cluster.stop(1).await;
    let site = cluster.sites.get_mut(&1).unwrap();
    site.options.node = NodeId(2);
    let refused = site.try_start().await.map(drop);
    assert!(
        matches!(refused, Err(StartError::OtherOwner { found: NodeId(1), .. })),
        "{refused:?}"
    );
    site.options.node = NodeId(1);
    site.options.cluster = unanimo_core::ClusterId::new("other").unwrap();
    let refused = site.try_start().await.map(drop);
    // The snapshot folder is empty, so it is the log that tells.
    assert!(
        matches!(refused, Err(StartError::OtherOwner { .. })),
        "{refused:?}"
    );
    site.options.cluster = cluster_id();
    cluster.start(1).await;
    cluster.leader().await;
    cluster.stop_all().await;
}

fn lonely(
    log: &SimulatedDisk,
    table: &MemoryTable,
    snapshots: &SimulatedDisk,
) -> (ReplicaOptions, ReplicaParts) {
    let options = ReplicaOptions::new(cluster_id(), NodeId(1), "127.0.0.1:1");
    let parts = ReplicaParts {
        log_disk: Arc::new(log.clone()),
        snapshot_disk: Arc::new(snapshots.clone()),
        table: Arc::new(table.clone()),
        connector: TcpConnector::shared(),
        journal_options: Options {
            segment_bytes: 8 * 1024 * 1024,
            max_record_bytes: 4 * 1024 * 1024,
            ..Options::new("raft log")
        },
        background: Background::Tasks,
    };
    (options, parts)
}

async fn alone(log: &SimulatedDisk, table: &MemoryTable, snapshots: &SimulatedDisk) -> Replica {
    let (options, parts) = lonely(log, table, snapshots);
    let (replica, _service) = Replica::start(options, parts).await.unwrap();
    if !replica.is_formed() {
        replica
            .form([(NodeId(1), "127.0.0.1:1".to_owned())].into())
            .await
            .unwrap();
    }
    let mut leadership = replica.leadership();
    timeout(DEADLINE, leadership.wait_for(|now| now.this_node_leads))
        .await
        .unwrap()
        .unwrap();
    replica
}

/// R10: a failed write ends the service, and whoever runs the process hears of it.
#[tokio::test]
async fn a_failed_write_of_log_or_table_stops_the_replica() {
    for part in ["log", "table"] {
        let (log, table) = (SimulatedDisk::new(), MemoryTable::new());
        let replica = alone(&log, &table, &SimulatedDisk::new()).await;
        replica.propose(vec![decide(1, 1, 1)]).await.unwrap();
        assert!(replica.failed().borrow().is_none());
        match part {
            "log" => log.fail_nth_sync(1, Lose::Nothing),
            _ => table.fail_next_apply(),
        }
        let proposed = replica.propose(vec![decide(2, 1, 1)]).await;
        assert!(
            matches!(proposed, Err(ProposeError::Failed(_) | ProposeError::Unknown)),
            "{part}: {proposed:?}"
        );
        let mut failed = replica.failed();
        let reason = timeout(DEADLINE, failed.wait_for(Option::is_some))
            .await
            .unwrap()
            .unwrap()
            .clone()
            .unwrap();
        assert!(reason.contains(part), "{part}: {reason}");
        let mut leadership = replica.leadership();
        timeout(DEADLINE, leadership.wait_for(|now| !now.this_node_leads))
            .await
            .unwrap()
            .unwrap();
        let later = replica.propose(vec![decide(3, 1, 1)]).await;
        assert!(matches!(later, Err(ProposeError::Failed(_))), "{part}: {later:?}");
        assert_eq!(replica.status().role, Role::Stopped);
        replica.shutdown().await;
    }
}

/// R10: whoever finds that the table has failed says so. A leader that reads and has nothing to apply would else stay, and
/// answer nobody.
#[tokio::test]
async fn a_failed_read_of_the_table_stops_the_replica() {
    type Read = fn(&Replica) -> bool;
    let reads: [Read; 5] = [
        |replica| replica.record(transaction(1)).is_err(),
        |replica| replica.horizon().is_err(),
        |replica| replica.unended(None, 1).is_err(),
        |replica| replica.registrations(None, 1).is_err(),
        |replica| replica.forgettable(None, 1).is_err(),
    ];
    for read in reads {
        let table = MemoryTable::new();
        let replica = alone(&SimulatedDisk::new(), &table, &SimulatedDisk::new()).await;
        // Outside of what the replica applies, so that it has not heard of it.
        table.fail_next_apply();
        let mut batch = Batch::new();
        batch.put("key", "value");
        assert!(table.apply(batch).is_err());
        assert_eq!(*replica.failed().borrow(), None);
        assert!(read(&replica));
        let reason = replica.failed().borrow().clone().unwrap();
        assert!(reason.contains("table"), "{reason}");
        replica.shutdown().await;
    }
}

/// The table may reach the disk before the log, which openraft has acted on already: nothing of it may be lost,
/// and the log goes on behind it.
#[tokio::test]
async fn a_table_that_is_ahead_of_the_log_is_taken_up() {
    let (log, table, snapshots) = (SimulatedDisk::new(), MemoryTable::new(), SimulatedDisk::new());
    let replica = alone(&log, &table, &snapshots).await;
    replica.propose(vec![decide(1, 1, 1)]).await.unwrap();
    let earlier = log.fork();
    for number in 2..30 {
        replica.propose(vec![decide(number, 1, 1)]).await.unwrap();
    }
    let applied = replica.status().applied;
    replica.shutdown().await;
    drop(replica);
    let (log, before) = (earlier, super::fixture::contents(&table));
    log.crash_losing_everything();
    let replica = alone(&log, &table, &snapshots).await;
    assert_eq!(replica.status().purged, applied);
    assert!(replica.status().snapshot >= applied);
    for (key, value) in before.iter().filter(|(key, _)| key.starts_with(b"d")) {
        assert!(super::fixture::contents(&table).contains(&(key.clone(), value.clone())));
    }
    replica.propose(vec![decide(50, 1, 1)]).await.unwrap();
    assert!(replica.record(transaction(50)).unwrap().is_some());
    replica.shutdown().await;
}

/// An earlier copy of the log does not know what this node has voted since, so it must not vote again.
#[tokio::test]
async fn a_log_older_than_the_table_is_refused() {
    let (log, table, snapshots) = (SimulatedDisk::new(), MemoryTable::new(), SimulatedDisk::new());
    let replica = alone(&log, &table, &snapshots).await;
    replica.propose(vec![decide(1, 1, 1)]).await.unwrap();
    replica.shutdown().await;
    let earlier = log.fork();
    let term = replica.status().term;
    drop(replica);
    // Each start is a term of its own.
    let replica = alone(&log, &table, &snapshots).await;
    assert!(replica.status().term > term);
    replica.propose(vec![decide(2, 1, 1)]).await.unwrap();
    replica.shutdown().await;
    drop(replica);
    let (options, parts) = lonely(&earlier, &table, &snapshots);
    let started = Replica::start(options, parts).await.map(drop);
    assert!(
        matches!(started, Err(StartError::OldLog { vote_term, entry_term, .. }) if vote_term == term && entry_term > term),
        "{started:?}"
    );
    // The newest log is taken up as ever.
    alone(&log, &table, &snapshots).await.shutdown().await;
}

#[tokio::test]
async fn a_table_that_fell_back_is_brought_up_to_date() {
    for seed in 0..12 {
        let (log, table, snapshots) = (SimulatedDisk::new(), MemoryTable::new(), SimulatedDisk::new());
        let replica = alone(&log, &table, &snapshots).await;
        for number in 0..20 {
            replica
                .propose(vec![decide(number, 2, 1), register(number, 1, number)])
                .await
                .unwrap();
            if number == 10 {
                replica.take_snapshot().await.unwrap();
            }
        }
        let expected: Vec<_> = super::fixture::contents(&table);
        let (log, snapshots) = (log.fork(), snapshots.fork());
        replica.shutdown().await;
        // Not that of the shutdown, which has written a checkpoint.
        let fallen = MemoryTable::new();
        if seed % 2 == 0 {
            // A part of what the table had at the snapshot.
            let mut batch = unanimo_table::Batch::new();
            for (key, value) in expected
                .iter()
                .filter(|(key, _)| key.starts_with(b"d"))
                .take(seed as usize)
            {
                batch.put(key.clone(), value.clone());
            }
            unanimo_table::Table::apply(&fallen, batch).unwrap();
        }
        log.crash(seed);
        snapshots.crash(seed);
        let replica = alone(&log, &fallen, &snapshots).await;
        timeout(DEADLINE, replica.read_barrier()).await.unwrap().unwrap();
        let found = super::fixture::contents(&fallen);
        let records = |contents: &[(Vec<u8>, Vec<u8>)]| {
            contents
                .iter()
                .filter(|(key, _)| !key.starts_with(b"m"))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert!(records(&found) == records(&expected), "seed {seed}");
        replica.shutdown().await;
    }
}

#[tokio::test]
async fn commands_that_do_not_fit_are_refused_before_anything_happens() {
    let replica = alone(&SimulatedDisk::new(), &MemoryTable::new(), &SimulatedDisk::new()).await;
    let last = replica.status().last_log;
    let mut long = register(1, 1, 1);
    if let unanimo_core::table::Command::Register { registration, .. } = &mut long {
        registration.address = "x".repeat(50_000);
    }
    let refused = replica.propose(vec![long]).await;
    assert!(
        matches!(refused, Err(ProposeError::TooLarge { .. })),
        "{refused:?}"
    );
    let many = (0..50_000).map(|number| decide(number, 4, 1)).collect::<Vec<_>>();
    let refused = replica.propose(many).await;
    assert!(
        matches!(refused, Err(ProposeError::TooLarge { .. })),
        "{refused:?}"
    );
    assert_eq!(replica.status().last_log, last);
    let large = (0..5000).map(|number| decide(number, 4, 1)).collect::<Vec<_>>();
    assert_eq!(replica.propose(large).await.unwrap().len(), 5000);
    replica.shutdown().await;
}

#[tokio::test]
async fn a_journal_too_small_for_an_entry_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let parts = ReplicaParts {
        log_disk: Arc::new(RealDisk::open(folder.path().join("log")).unwrap()),
        snapshot_disk: Arc::new(SimulatedDisk::new()),
        table: Arc::new(MemoryTable::new()),
        connector: TcpConnector::shared(),
        journal_options: Options {
            max_record_bytes: 1024 * 1024,
            ..Options::new("raft log")
        },
        background: Background::Threads,
    };
    let options = ReplicaOptions::new(cluster_id(), NodeId(1), "127.0.0.1:1");
    let refused = timeout(Duration::from_secs(10), Replica::start(options, parts))
        .await
        .unwrap()
        .map(drop);
    assert!(matches!(refused, Err(StartError::Options { .. })), "{refused:?}");
}
