//! Panics, errors, failed writes, and the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use unanimo_core::{TransactionId, Vote};
use unanimo_journal::{Lose, SimulatedDisk};
use unanimo_participant::{Participant, Parts, StopReason};
use unanimo_proto::transport::Clock as _;
use unanimo_proto::{Context, ErrorReason};
use unanimo_table::{Batch, Entry, MemoryTable, Table, TableError};

use crate::support::{Call, Peer, World, eventually, reason, transaction};

#[tokio::test]
async fn a_panic_or_an_error_in_prepare_is_a_no_and_hurts_nobody_else() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let bystander = transaction(9);
    peer.yes(bystander).await;
    for (n, operation, text) in [
        (1, "panic", "told to panic"),
        (2, "panic early", "told to panic before the first await"),
        (3, "unavailable", "no connection"),
    ] {
        let why = peer.no(transaction(n), operation).await;
        assert!(why.contains(text), "{why}");
        assert_eq!(world.recorder.count(Call::Abort, transaction(n)), 1);
        assert_eq!(peer.no(transaction(n), "yes").await, why);
    }
    assert_eq!(world.recorder.holds(), [bystander]);
    assert_eq!(participant.statistics().resource_manager_errors, 3);
    peer.commit(bystander).await.unwrap();
}

#[tokio::test]
async fn a_decision_is_carried_out_however_often_it_takes() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let (committed, aborted) = (transaction(1), transaction(2));
    peer.yes(committed).await;
    peer.yes(aborted).await;
    world.recorder.fail_unavailable(Call::Commit, 3);
    world.recorder.fail_panicking(Call::Abort, 2);
    peer.commit(committed).await.unwrap();
    peer.abort(aborted).await.unwrap();
    assert_eq!(world.recorder.count(Call::Commit, committed), 4);
    assert_eq!(world.recorder.count(Call::Abort, aborted), 3);
    assert_eq!(world.recorder.applied(committed), 1);
    assert_eq!(participant.statistics().resource_manager_errors, 5);
}

#[tokio::test]
async fn a_resource_manager_whose_storage_failed_stops_the_participant() {
    for call in [Call::Prepare, Call::Commit, Call::Abort] {
        let world = World::new();
        let (participant, peer) = world.start().await;
        let tx = transaction(1);
        if call != Call::Prepare {
            peer.yes(tx).await;
        }
        world.recorder.fail_broken(call);
        let status = match call {
            Call::Prepare => peer.prepare(tx, "yes").await.unwrap_err(),
            Call::Commit => peer.commit(tx).await.unwrap_err(),
            Call::Abort | Call::Restore | Call::Extend => peer.abort(tx).await.unwrap_err(),
        };
        assert_eq!(reason(&status), Some(ErrorReason::StorageFailed), "{status}");
        assert!(matches!(
            participant.stopped().await,
            StopReason::ResourceManagerFailed { .. }
        ));
        participant.shutdown().await;
        assert!(matches!(
            participant.stopped().await,
            StopReason::ResourceManagerFailed { .. }
        ));
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_answered() {
    for lose in [Lose::Data, Lose::Nothing] {
        let world = World::new();
        let (participant, peer) = world.start().await;
        let promised = transaction(1);
        peer.yes(promised).await;
        world.disk.fail_nth_sync(1, lose);
        let status = peer.prepare(transaction(2), "yes").await.unwrap_err();
        assert_eq!(reason(&status), Some(ErrorReason::StorageFailed), "{status}");
        assert!(matches!(
            participant.stopped().await,
            StopReason::StorageFailed { .. }
        ));
        for status in [
            peer.prepare(promised, "yes").await.unwrap_err(),
            peer.commit(promised).await.unwrap_err(),
            peer.abort(transaction(3)).await.unwrap_err(),
        ] {
            assert_eq!(reason(&status), Some(ErrorReason::StorageFailed), "{status}");
        }
        assert_eq!(world.recorder.applied(promised), 0);
        participant.shutdown().await;
        drop((participant, peer));
        world.crash(0);
        let (_participant, peer) = world.start().await;
        assert_eq!(peer.prepare_again(promised).await.unwrap().vote, Vote::Yes);
        assert!(matches!(
            peer.prepare_again(transaction(2)).await.unwrap().vote,
            Vote::No { .. }
        ));
    }
}

#[tokio::test]
async fn a_full_disk_stops_the_participant_and_keeps_what_was_promised() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    peer.yes(transaction(1)).await;
    world.disk.fail_nth_write(1, SimulatedDisk::ENOSPC);
    let status = peer.commit(transaction(1)).await.unwrap_err();
    assert_eq!(reason(&status), Some(ErrorReason::StorageFailed));
    assert!(matches!(
        participant.stopped().await,
        StopReason::StorageFailed { .. }
    ));
    drop((participant, peer));
    world.crash(0);
    // The resource manager had committed: it says so, and it happened once.
    let (_participant, peer) = world.start().await;
    peer.commit(transaction(1)).await.unwrap();
    assert_eq!(world.recorder.applied(transaction(1)), 1);
    assert_eq!(world.recorder.count(Call::Commit, transaction(1)), 2);
}

#[tokio::test]
async fn a_failed_branch_table_stops_the_participant() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    world.table.fail_next_apply();
    peer.yes(transaction(1)).await;
    // The commit may be acknowledged: the journal has it.
    let _ = peer.commit(transaction(1)).await;
    assert!(matches!(
        participant.stopped().await,
        StopReason::StorageFailed { .. }
    ));
    drop((participant, peer));
    world.crash(0);
    let (_participant, peer) = world.start().await;
    peer.commit(transaction(1)).await.unwrap();
    assert_eq!(world.recorder.applied(transaction(1)), 1);
}

/// A table that panics when it is told to, with the next batch.
struct PanickingTable {
    table: MemoryTable,
    panics: Arc<AtomicBool>,
}

impl Table for PanickingTable {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.table.get(key)
    }

    fn apply(&self, batch: Batch) -> Result<(), TableError> {
        let panics = self.panics.swap(false, Ordering::SeqCst);
        assert!(!panics, "the table was told to panic");
        self.table.apply(batch)
    }

    fn scan(&self, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, TableError> {
        self.table.scan(from, until, limit)
    }

    fn checkpoint(&self) -> Result<(), TableError> {
        self.table.checkpoint()
    }
}

/// Nobody speaks to the participant any more, and it notices all the same. It ends, and the next life goes on.
async fn breaks_down(world: &World, participant: Participant, peer: Peer, promised: TransactionId) {
    let stopped = timeout(Duration::from_secs(10), participant.stopped()).await;
    assert!(matches!(stopped, Ok(StopReason::Broken)), "{stopped:?}");
    let status = peer.commit(promised).await.unwrap_err();
    assert_eq!(reason(&status), Some(ErrorReason::StorageFailed), "{status}");
    participant.shutdown().await;
    drop((participant, peer));
    world.crash(0);
    let (_participant, peer) = world.start().await;
    peer.commit(promised).await.unwrap();
    assert_eq!(world.recorder.applied(promised), 1);
}

#[tokio::test]
async fn inquiries_that_panic_stop_the_participant() {
    let world = World::new();
    let mut options = world.options();
    options.inquiry_after = Duration::from_millis(50);
    let (participant, peer) = world.start_with(options).await;
    peer.yes(transaction(1)).await;
    world.clock.panic_once();
    breaks_down(&world, participant, peer, transaction(1)).await;
}

#[tokio::test]
async fn gauges_that_panic_stop_the_participant() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    peer.yes(transaction(1)).await;
    world.clock.panic_once();
    breaks_down(&world, participant, peer, transaction(1)).await;
}

#[tokio::test]
async fn a_timer_that_panics_stops_the_participant() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    peer.yes(transaction(1)).await;
    let context = Context {
        cluster: "test".parse().unwrap(),
        transaction: transaction(2),
        deadline: world.clock.now(),
        remaining: Duration::from_millis(50),
    };
    participant.join(&context, "yes".into()).await.unwrap();
    world.clock.panic_once();
    breaks_down(&world, participant, peer, transaction(1)).await;
}

#[tokio::test]
async fn a_branch_table_that_panics_stops_the_participant() {
    let world = World::new();
    let panics = Arc::<AtomicBool>::default();
    let table = PanickingTable {
        table: world.table.clone(),
        panics: Arc::clone(&panics),
    };
    let parts = Parts {
        table: Arc::new(table),
        ..world.parts()
    };
    let participant = Participant::start_with(world.options(), parts, world.recorder.clone())
        .await
        .unwrap();
    eventually("registered", || participant.statistics().registered).await;
    let peer = Peer::new(&participant);
    peer.yes(transaction(1)).await;
    peer.yes(transaction(2)).await;
    panics.store(true, Ordering::SeqCst);
    // It may be acknowledged: the journal has it.
    let _ = peer.commit(transaction(2)).await;
    breaks_down(&world, participant, peer, transaction(1)).await;
}

#[tokio::test]
async fn a_shutdown_lets_running_calls_finish_and_answers_whoever_waits() {
    let world = World::new();
    let mut options = world.options();
    options.shutdown_patience = Duration::from_secs(10);
    let (participant, peer) = world.start_with(options).await;
    let (voting, committing) = (transaction(1), transaction(2));
    peer.yes(committing).await;
    world.recorder.hold(Call::Prepare);
    world.recorder.hold(Call::Commit);
    let vote = tokio::spawn({
        let peer = peer.clone();
        async move { peer.yes(voting).await }
    });
    let commit = tokio::spawn({
        let peer = peer.clone();
        async move { peer.commit(committing).await }
    });
    eventually("both run", || {
        world.recorder.count(Call::Prepare, voting) == 1
            && world.recorder.count(Call::Commit, committing) == 1
    })
    .await;
    let stopping = tokio::spawn({
        let participant = participant.clone();
        async move { participant.shutdown().await }
    });
    // Everything that does not wait for the calls gets its turn, timers included.
    let turns_end = tokio::time::Instant::now() + Duration::from_millis(30);
    while tokio::time::Instant::now() < turns_end {
        tokio::task::yield_now().await;
    }
    assert!(!stopping.is_finished());
    let status = peer.prepare(transaction(3), "yes").await.unwrap_err();
    assert_eq!(reason(&status), Some(ErrorReason::ShuttingDown));
    world.recorder.release(Call::Prepare);
    world.recorder.release(Call::Commit);
    vote.await.unwrap();
    commit.await.unwrap().unwrap();
    stopping.await.unwrap();
    assert!(matches!(participant.stopped().await, StopReason::Shutdown));
    // Everything is in the table, durably.
    world.crash(0);
    assert!(world.table.checkpoints() > 0);
    let (_participant, peer) = world.start().await;
    assert_eq!(world.recorder.holds(), [voting]);
    peer.commit(committing).await.unwrap();
    assert_eq!(world.recorder.count(Call::Commit, committing), 1);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever_for_a_resource_manager() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    peer.yes(transaction(1)).await;
    world.recorder.hold(Call::Commit);
    let commit = tokio::spawn({
        let peer = peer.clone();
        async move { peer.commit(transaction(1)).await }
    });
    eventually("called", || {
        world.recorder.count(Call::Commit, transaction(1)) == 1
    })
    .await;
    // Whoever asked for the shutdown and went away did not leave it half done.
    let asked = participant.clone();
    let asking = tokio::spawn(async move { asked.shutdown().await });
    tokio::task::yield_now().await;
    asking.abort();
    participant.shutdown().await;
    let status = commit.await.unwrap().unwrap_err();
    assert_eq!(reason(&status), Some(ErrorReason::ShuttingDown));
    world.crash(0);
    let (_participant, peer) = world.start().await;
    assert_eq!(world.recorder.holds(), [transaction(1)]);
    peer.commit(transaction(1)).await.unwrap();
    assert_eq!(world.recorder.applied(transaction(1)), 1);
}

#[tokio::test]
async fn an_old_copy_is_stopped_and_has_promised_nothing() {
    let world = World::new();
    world.coordinator.refuse_registration(Some(ErrorReason::Outdated));
    let participant = world.try_start(world.options()).await.unwrap();
    let peer = Peer::new(&participant);
    let status = peer.prepare(transaction(1), "yes").await.unwrap_err();
    assert_eq!(reason(&status), Some(ErrorReason::Recovering));
    assert!(matches!(participant.stopped().await, StopReason::Outdated { .. }));
    assert!(world.recorder.calls().is_empty());
    let status = peer.prepare(transaction(1), "yes").await.unwrap_err();
    assert_eq!(reason(&status), Some(ErrorReason::Outdated));
}

#[tokio::test]
async fn what_lives_without_registration_write_does_not_make_an_old_copy_look_complete() {
    let mut world = World::new();
    let (participant, peer) = world.start().await;
    let kept = peer.yes(transaction(1)).await;
    let copy = world.disk.fork();
    let lost = peer.yes(transaction(2)).await;
    participant.shutdown().await;
    // The copy comes up, finishes what it knows, is never registered, and comes up again.
    world.disk = copy;
    world.table = MemoryTable::new();
    for life in 0..3 {
        world.crash(0);
        world.recorder.restart();
        world.coordinator.refuse_registration(Some(ErrorReason::NoLeader));
        let attempts = world.coordinator.registrations().len();
        let participant = world.try_start(world.options()).await.unwrap();
        if life == 0 {
            // It is not believed that it has.
            let told = Peer::new(&participant).commit(transaction(1)).await;
            assert_eq!(reason(&told.unwrap_err()), Some(ErrorReason::Recovering));
            assert_eq!(world.recorder.applied(transaction(1)), 1);
        }
        eventually("an attempt to register", || {
            world.coordinator.registrations().len() > attempts
        })
        .await;
        let told = world.coordinator.registrations().pop().unwrap();
        assert_eq!(told.position, kept.position.0, "life {life}");
        assert!(told.position < lost.position.0);
        participant.shutdown().await;
    }
}

#[tokio::test]
async fn registering_is_repeated_and_says_where_the_journal_ends() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let promise = peer.yes(transaction(1)).await;
    participant.shutdown().await;
    world.crash(0);

    world.coordinator.refuse_registration(Some(ErrorReason::NoLeader));
    let participant: Participant = world.try_start(world.options()).await.unwrap();
    eventually("a second attempt", || {
        world.coordinator.registrations().len() >= 3
    })
    .await;
    // Meanwhile no new promise is made, but those of earlier lives are kept.
    let peer = Peer::new(&participant);
    let status = peer.prepare(transaction(2), "yes").await.unwrap_err();
    assert_eq!(reason(&status), Some(ErrorReason::Recovering));
    let unconfirmed = peer.commit(transaction(1)).await.unwrap_err();
    assert_eq!(reason(&unconfirmed), Some(ErrorReason::Recovering));
    assert_eq!(world.recorder.applied(transaction(1)), 1);
    world.coordinator.refuse_registration(None);
    eventually("registered", || participant.statistics().registered).await;
    peer.yes(transaction(2)).await;
    let last = world.coordinator.registrations().pop().unwrap();
    assert_eq!(last.generation, participant.generation().0);
    assert!(last.position >= promise.position.0);
    assert_eq!(last.address, "127.0.0.1:9");
}
