//! What a restart finds again, and what it refuses to start with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use unanimo_core::table::Witness;
use unanimo_core::{ParticipantId, Record, Vote};
use unanimo_journal::{Journal, Options, SimulatedDisk};
use unanimo_participant::{Participant, StartError};
use unanimo_proto::storage::encode_participant_record;
use unanimo_proto::{ErrorReason, v1};
use unanimo_table::{MemoryTable, Table as _};

use crate::support::{Call, Peer, World, eventually, reason, transaction};

#[tokio::test]
async fn a_restart_keeps_promises_and_remembers_ends() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let (in_doubt, committed, aborted, refused) =
        (transaction(1), transaction(2), transaction(3), transaction(4));
    let promise = peer.yes(in_doubt).await;
    peer.yes(committed).await;
    peer.commit(committed).await.unwrap();
    peer.yes(aborted).await;
    peer.abort(aborted).await.unwrap();
    peer.no(refused, "no funds").await;
    participant.shutdown().await;
    world.crash(0);

    let (participant, peer) = world.start().await;
    assert_eq!(world.recorder.holds(), [in_doubt]);
    assert_eq!(participant.statistics().recovered_in_doubt, 1);
    assert_eq!(participant.generation().starts(), promise.generation.starts() + 1);
    let again = peer.prepare_again(in_doubt).await.unwrap().witness.unwrap();
    assert_eq!(
        (again.position, again.generation),
        (promise.position, participant.generation())
    );
    peer.commit(in_doubt).await.unwrap();
    peer.commit(committed).await.unwrap();
    peer.abort(aborted).await.unwrap();
    assert_eq!(peer.no(aborted, "yes").await, "the transaction is aborted");
    assert_eq!(peer.no(refused, "yes").await, "funds");
    let late = peer.prepare_again(committed).await.unwrap();
    assert_eq!(late.vote, Vote::Yes);
    // Where it stands is forgotten; it says no less than it did, and no more than was registered.
    let registered = world.coordinator.registrations().pop().unwrap().position;
    let position = late.witness.unwrap().position;
    assert!(position >= promise.position && position.0 <= registered);
    assert_eq!(world.recorder.count(Call::Commit, committed), 1);
    assert_eq!(world.recorder.applied(in_doubt), 1);
    assert!(world.recorder.wrong().is_empty(), "{:?}", world.recorder.wrong());
}

#[tokio::test]
async fn holds_are_restored_in_the_order_of_the_promises() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let order = [transaction(3), transaction(1), transaction(2)];
    for tx in order {
        peer.yes(tx).await;
    }
    participant.shutdown().await;
    world.crash(0);
    world.start().await;
    let restored: Vec<_> = world.recorder.calls().into_iter().skip(3).collect();
    assert_eq!(restored, order.map(|tx| (Call::Restore, tx)));
}

#[tokio::test]
async fn nothing_is_answered_before_the_holds_are_there() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    peer.yes(transaction(1)).await;
    participant.shutdown().await;
    world.crash(0);

    world.recorder.hold(Call::Restore);
    let participant = Participant::open_with(world.options(), world.parts(), world.recorder.clone())
        .await
        .unwrap();
    let peer = Peer::new(&participant);
    let recovering = tokio::spawn({
        let participant = participant.clone();
        async move { participant.recover().await }
    });
    eventually("restoring", || {
        world.recorder.count(Call::Restore, transaction(1)) == 1
    })
    .await;
    for status in [
        peer.prepare(transaction(2), "yes").await.unwrap_err(),
        peer.commit(transaction(1)).await.unwrap_err(),
        peer.abort(transaction(2)).await.unwrap_err(),
    ] {
        assert_eq!(reason(&status), Some(ErrorReason::Recovering));
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }
    world.recorder.release(Call::Restore);
    recovering.await.unwrap().unwrap();
    // A second time it does nothing.
    eventually("registered", || participant.statistics().registered).await;
    peer.yes(transaction(2)).await;
    let listings = world.recorder.listings();
    participant.recover().await.unwrap();
    assert_eq!(world.recorder.listings(), listings);
    assert_eq!(world.recorder.holds(), [transaction(1), transaction(2)]);
    peer.commit(transaction(1)).await.unwrap();
}

#[tokio::test]
async fn restoring_is_repeated_until_it_succeeds() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    peer.yes(transaction(1)).await;
    participant.shutdown().await;
    world.crash(0);
    world.recorder.fail_unavailable(Call::Restore, 2);
    let (participant, _) = world.start().await;
    assert_eq!(world.recorder.count(Call::Restore, transaction(1)), 3);
    assert_eq!(participant.statistics().resource_manager_errors, 2);
    assert_eq!(world.recorder.holds(), [transaction(1)]);
}

#[tokio::test]
async fn a_lost_branch_table_is_rebuilt_from_the_journal() {
    let mut world = World::new();
    let (participant, peer) = world.start().await;
    // More than one fold of the replay, and one that spans two.
    peer.yes(transaction(1)).await;
    peer.yes(transaction(2)).await;
    for n in 3..1300 {
        peer.no(transaction(n), "no funds").await;
    }
    peer.commit(transaction(1)).await.unwrap();
    participant.shutdown().await;
    world.crash(0);
    world.table = MemoryTable::new();

    let (_participant, peer) = world.start().await;
    assert_eq!(world.recorder.holds(), [transaction(2)]);
    peer.commit(transaction(1)).await.unwrap();
    assert_eq!(peer.no(transaction(3), "yes").await, "funds");
    assert_eq!(peer.no(transaction(1299), "yes").await, "funds");
    assert_eq!(world.recorder.applied(transaction(1)), 1);
    assert_eq!(world.recorder.count(Call::Commit, transaction(1)), 1);
}

#[tokio::test]
async fn finished_branches_move_from_memory_to_the_table() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    for n in 1..=40 {
        peer.yes(transaction(n)).await;
        peer.commit(transaction(n)).await.unwrap();
    }
    // One record for each and the position.
    let table = world.table.clone();
    eventually("all remembered", || {
        table.scan(&[], None, 100).unwrap().len() == 41
    })
    .await;
    for n in 1..=40 {
        peer.commit(transaction(n)).await.unwrap();
        assert_eq!(world.recorder.count(Call::Commit, transaction(n)), 1);
    }
    assert_eq!(participant.statistics().violations, 0);
}

#[tokio::test]
async fn tombstones_alone_become_durable_after_a_while() {
    let world = World::new();
    let (_participant, peer) = world.start().await;
    for n in 1..=256 {
        peer.abort(transaction(n)).await.unwrap();
    }
    let table = world.table.clone();
    eventually("remembered", || table.scan(&[], None, 1000).unwrap().len() == 257).await;
}

#[tokio::test]
async fn what_the_resource_manager_keeps_and_nobody_promised_is_aborted() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let (promised, aborted, stray) = (transaction(1), transaction(2), transaction(3));
    peer.yes(promised).await;
    peer.abort(aborted).await.unwrap();
    participant.shutdown().await;
    world.crash(0);
    for tx in [promised, aborted, stray] {
        world.recorder.list_as_prepared(tx);
    }
    world.start().await;
    assert_eq!(world.recorder.count(Call::Abort, promised), 0);
    assert_eq!(world.recorder.count(Call::Abort, aborted), 1);
    assert_eq!(world.recorder.count(Call::Abort, stray), 1);
}

#[tokio::test]
async fn a_resource_manager_that_is_older_than_the_journal_is_refused() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    peer.yes(transaction(1)).await;
    peer.commit(transaction(1)).await.unwrap();
    participant.shutdown().await;
    world.crash(0);
    world.recorder.list_as_prepared(transaction(1));
    let error = world.try_start(world.options()).await.err().unwrap();
    assert!(
        matches!(error, StartError::ResourceManagerBehind { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn the_data_of_another_participant_or_cluster_is_refused_with_both_names() {
    let world = World::new();
    let (participant, _) = world.start().await;
    participant.shutdown().await;
    world.crash(0);
    let mut options = world.options();
    options.name = "till".parse().unwrap();
    let error = world.try_start(options).await.err().unwrap().to_string();
    assert!(error.contains("stock") && error.contains("till"), "{error}");
    world.crash(0);
    let mut options = world.options();
    options.cluster = "elsewhere".parse().unwrap();
    let error = world.try_start(options).await.err().unwrap().to_string();
    assert!(error.contains("test") && error.contains("elsewhere"), "{error}");
    world.crash(0);
    // Nothing was written by the attempts.
    let (participant, _) = world.start().await;
    assert_eq!(participant.generation().starts(), 2);
}

#[tokio::test]
async fn a_journal_that_ends_before_its_table_is_refused() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let old = world.disk.fork();
    for n in 1..10 {
        peer.yes(transaction(n)).await;
        peer.commit(transaction(n)).await.unwrap();
    }
    participant.shutdown().await;
    world.crash(0);
    let mut restored = world.clone();
    restored.disk = old;
    restored.disk.power_on();
    let error = restored.try_start(restored.options()).await.err().unwrap();
    assert!(matches!(error, StartError::JournalBehind { .. }), "{error}");
}

/// Writes a journal as no participant would.
fn journal_of(records: &[Record]) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let mut options = Options::new("participant journal");
    options.segment_bytes = 64 * 1024;
    options.max_record_bytes = 8 * 1024;
    let (journal, mut writer) = Journal::open(Arc::new(disk.clone()), options, &mut |_, _| Ok(())).unwrap();
    let name: ParticipantId = "stock".parse().unwrap();
    let written = Arc::new(AtomicBool::new(false));
    for record in records {
        let written = Arc::clone(&written);
        journal
            .append(encode_participant_record(&name, record), move |result| {
                result.unwrap();
                written.store(true, Ordering::SeqCst);
            })
            .unwrap();
    }
    journal.close();
    while writer.step() != unanimo_journal::Step::Closed {}
    assert!(written.load(Ordering::SeqCst));
    disk.crash_losing_everything();
    disk
}

#[tokio::test]
async fn records_that_contradict_each_other_are_refused() {
    use unanimo_core::Generation;
    let tx = transaction(1);
    let started = |generation| Record::Started {
        cluster: "test".parse().unwrap(),
        generation: Generation(generation),
    };
    let aborted = Record::Aborted {
        transaction: tx,
        reason: "no".to_owned(),
    };
    let committed = Record::Committed {
        transaction: tx,
        request_hash: unanimo_core::RequestHash::from_bytes([7; 32]),
    };
    let mut far_apart = vec![started(1), committed.clone()];
    // Too far apart to meet in one fold.
    far_apart.extend((2..1500).map(|n| Record::Aborted {
        transaction: transaction(n),
        reason: String::new(),
    }));
    far_apart.push(aborted.clone());
    for records in [vec![started(1), aborted, committed], far_apart] {
        let mut world = World::new();
        world.disk = journal_of(&records);
        let error = world.try_start(world.options()).await.err().unwrap();
        assert!(matches!(error, StartError::Contradiction(_)), "{error}");
    }
    let mut world = World::new();
    world.disk = journal_of(&[started(2), started(2)]);
    let error = world.try_start(world.options()).await.err().unwrap();
    assert!(matches!(error, StartError::StartsOutOfOrder { .. }), "{error}");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_refused() {
    let mut world = World::new();
    let disk = SimulatedDisk::new();
    let mut options = Options::new("participant journal");
    options.segment_bytes = 64 * 1024;
    options.max_record_bytes = 8 * 1024;
    let (journal, mut writer) = Journal::open(Arc::new(disk.clone()), options, &mut |_, _| Ok(())).unwrap();
    journal.append("not a record", |result| result.unwrap()).unwrap();
    journal.close();
    while writer.step() != unanimo_journal::Step::Closed {}
    disk.power_on();
    world.disk = disk;
    let error = world.try_start(world.options()).await.err().unwrap();
    assert!(matches!(error, StartError::Unreadable { .. }), "{error}");
}

#[tokio::test]
async fn an_acknowledgement_shows_how_far_the_journal_reaches_and_every_later_life_reaches_as_far() {
    let world = World::new();
    let commit = Peer::commit_request(transaction(1));
    let mut reached = Witness::default();
    for life in 0..4 {
        let (participant, peer) = world.start().await;
        let registered = world.coordinator.registrations().pop().unwrap();
        assert!(
            registered.position >= reached.position.0,
            "life {life} looks like an old copy"
        );
        if life == 0 {
            let promised = peer.yes(transaction(1)).await;
            reached = peer.commit_reached(commit.clone()).await.unwrap();
            assert!(
                reached.position > promised.position,
                "the record of the commit counts"
            );
        } else {
            // The acknowledgement was lost. Nothing is written for this one, so the confirmation of this life must be.
            let again = until_acknowledged(&peer, &commit).await;
            assert!(again.position > reached.position && again.generation > reached.generation);
            reached = again;
        }
        assert_eq!(reached.generation, participant.generation());
        world.disk.power_off_at_operation(world.disk.operations());
        participant.shutdown().await;
        world.crash(0);
    }
}

#[tokio::test]
async fn a_commit_is_acknowledged_only_by_a_life_that_the_cluster_has_confirmed() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    peer.yes(transaction(1)).await;
    participant.shutdown().await;
    world.crash(0);
    world.coordinator.refuse_registration(Some(ErrorReason::NoLeader));
    let participant = world.try_start(world.options()).await.unwrap();
    let peer = Peer::new(&participant);
    let refused = peer.commit(transaction(1)).await.unwrap_err();
    assert_eq!(reason(&refused), Some(ErrorReason::Recovering), "{refused}");
    assert_eq!(world.recorder.applied(transaction(1)), 1, "it obeys all the same");
    world.coordinator.refuse_registration(None);
    until_acknowledged(&peer, &Peer::commit_request(transaction(1))).await;
}

/// As a coordinator does: until the participant acknowledges.
async fn until_acknowledged(peer: &Peer, commit: &v1::CommitRequest) -> Witness {
    for _ in 0..1000 {
        match peer.commit_reached(commit.clone()).await {
            Ok(reached) => return reached,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    panic!("never acknowledged");
}
