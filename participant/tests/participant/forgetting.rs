//! What the coordinators have closed is forgotten, and refused from then on (R7).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{Call, FakeCoordinator, Peer, World, eventually, reason, transaction};
use tonic::Status;
use unanimo_core::{Timestamp, TransactionId, Vote};
use unanimo_journal::Disk;
use unanimo_participant::{Participant, ParticipantOptions, StartError};
use unanimo_proto::ErrorReason;
use unanimo_proto::transport::Clock as _;
use unanimo_table::{MemoryTable, Table};

fn options(world: &World) -> ParticipantOptions {
    let mut options = world.options();
    options.forget_pause = Duration::from_millis(1);
    options.segment_bytes = 16 * 1024;
    options
}

/// A coordinator tells the watermark with a message that means nothing else.
async fn tell_watermark(peer: &Peer, below: u128) -> Result<(), Status> {
    let mut wire = Peer::abort_request(transaction(0));
    wire.watermark = transaction(below).to_string();
    peer.abort_wire(wire).await
}

/// The branches that the table remembers.
fn remembered(world: &World) -> BTreeSet<TransactionId> {
    let entries = world.table.scan(&[], None, usize::MAX).unwrap();
    let id = |key: Vec<u8>| <[u8; 16]>::try_from(key).ok();
    entries
        .into_iter()
        .filter_map(|(key, _)| id(key))
        .map(|key| TransactionId::from_u128(u128::from_be_bytes(key)).unwrap())
        .collect()
}

fn segments(world: &World) -> usize {
    world.disk.list().unwrap().len()
}

/// A promise that fills a good part of a segment.
async fn promise(peer: &Peer, n: u128) -> Result<(), Status> {
    let voted = peer.prepare(transaction(n), "large 900").await?;
    assert_eq!(voted.vote, Vote::Yes);
    Ok(())
}

async fn committed(peer: &Peer, n: u128) -> Result<(), Status> {
    promise(peer, n).await?;
    peer.commit(transaction(n)).await
}

#[tokio::test]
async fn what_is_closed_is_forgotten_and_stays_refused_after_a_restart() {
    let world = World::new();
    let (participant, peer) = world.start_with(options(&world)).await;
    let (done, aborted, kept) = (transaction(1), transaction(2), transaction(200));
    let (to_commit, to_abort) = (transaction(3), transaction(4));
    for tx in [done, to_commit, to_abort, kept] {
        peer.yes(tx).await;
    }
    peer.commit(done).await.unwrap();
    peer.abort(aborted).await.unwrap();
    peer.commit(kept).await.unwrap();
    tell_watermark(&peer, 100).await.unwrap();
    eventually("forgotten", || remembered(&world) == [kept].into()).await;
    tell_watermark(&peer, 1).await.unwrap();
    participant.shutdown().await;
    world.crash(0);

    // Nobody tells the watermark to this life.
    let (participant, peer) = world.start_with(options(&world)).await;
    for tx in [done, aborted, transaction(99)] {
        let refused = peer.prepare(tx, "yes").await.unwrap_err();
        assert_eq!(reason(&refused), Some(ErrorReason::Expired));
        peer.abort(tx).await.unwrap();
    }
    // A coordinator may not have heard that it was committed here, and goes on until it has.
    peer.commit(done).await.unwrap();
    assert_eq!(world.recorder.applied(done), 1);
    assert_eq!(world.recorder.count(Call::Commit, done), 1);
    assert_eq!(remembered(&world), [kept].into());
    peer.commit(kept).await.unwrap();
    peer.yes(transaction(100)).await;

    // Promises outlive it all, and obey.
    assert_eq!(world.recorder.holds(), [to_commit, to_abort, transaction(100)]);
    assert_eq!(peer.prepare_again(to_commit).await.unwrap().vote, Vote::Yes);
    peer.commit(to_commit).await.unwrap();
    peer.abort(to_abort).await.unwrap();
    assert_eq!(world.recorder.holds(), [transaction(100)]);
    assert_eq!(world.recorder.applied(to_commit), 1);
    assert_eq!(world.recorder.applied(to_abort), 0);
    assert_eq!(participant.statistics().violations, 0);
}

#[tokio::test]
async fn the_journal_lets_go_of_what_is_closed_but_never_of_a_promise() {
    let mut world = World::new();
    let (participant, peer) = world.start_with(options(&world)).await;
    for n in 1..100 {
        committed(&peer, n).await.unwrap();
    }
    promise(&peer, 100).await.unwrap();
    for n in 101..2200 {
        // Ends are summed up by the thousand.
        peer.abort(transaction(n)).await.unwrap();
    }
    let all = segments(&world);
    tell_watermark(&peer, 2150).await.unwrap();
    let left = all - 5;
    eventually("the beginning is released", || segments(&world) < left).await;
    let before_promise = segments(&world);
    let first = participant.generation();
    participant.shutdown().await;
    world.crash(0);

    // A table that is lost is built again as far as the journal goes; what is missing is refused.
    world.table = MemoryTable::new();
    let (participant, peer) = world.start_with(options(&world)).await;
    assert_eq!(world.recorder.holds(), [transaction(100)]);
    let refused = peer.prepare(transaction(1), "yes").await.unwrap_err();
    assert_eq!(reason(&refused), Some(ErrorReason::Expired));
    assert_eq!(
        peer.no(transaction(2199), "yes").await,
        "the transaction is aborted"
    );
    eventually("what is closed is dropped again", || {
        remembered(&world) == (2150..2200).map(transaction).collect()
    })
    .await;
    // The journal tells the cluster as much as ever (R11), also when nothing is left of the first life.
    let generation = participant.generation();
    assert!(generation > first, "{generation} after {first}");
    peer.commit(transaction(100)).await.unwrap();
    tell_watermark(&peer, 2151).await.unwrap();
    eventually("the promise is released", || segments(&world) < before_promise).await;
    let positions = |world: &World| {
        let registrations = world.coordinator.registrations();
        registrations.iter().map(|told| told.position).collect::<Vec<_>>()
    };
    participant.shutdown().await;
    world.crash(0);
    let (participant, _) = world.start_with(options(&world)).await;
    assert!(participant.generation() > generation);
    let positions = positions(&world);
    assert!(positions.is_sorted() && positions[2] > 2200, "{positions:?}");
}

#[tokio::test]
async fn what_the_resource_manager_keeps_of_a_forgotten_transaction_is_not_rolled_back_unasked() {
    let world = World::new();
    let (participant, peer) = world.start_with(options(&world)).await;
    let (done, tombstone) = (transaction(1), transaction(300));
    committed(&peer, 1).await.unwrap();
    tell_watermark(&peer, 100).await.unwrap();
    eventually("forgotten", || remembered(&world).is_empty()).await;
    peer.abort(tombstone).await.unwrap();
    participant.shutdown().await;
    world.crash(0);

    // The database comes back as it was while the transaction was prepared.
    world.recorder.list_as_prepared(done);
    let error = world.try_start(options(&world)).await.err().unwrap();
    let holds_closed = StartError::ResourceManagerHoldsClosed { transaction: done };
    assert_eq!(error.to_string(), holds_closed.to_string());
    assert!(error.to_string().contains(&done.to_string()), "{error}");
    assert_eq!(world.recorder.count(Call::Abort, done), 0);
    assert_eq!(
        world.coordinator.registrations().len(),
        1,
        "nobody was told that it is back"
    );
}

#[tokio::test]
async fn a_watermark_far_ahead_of_the_clock_closes_nothing() {
    let world = World::new();
    let (participant, peer) = world.start_with(options(&world)).await;
    peer.yes(transaction(1)).await;
    peer.commit(transaction(1)).await.unwrap();
    let now = world.clock.now();
    let day = Duration::from_secs(24 * 60 * 60);
    let at = |time| TransactionId::first_at(time).to_string();

    let mut forged = Peer::abort_request(transaction(0));
    let last = TransactionId::new(Timestamp::from_unix_ms(u64::MAX), u128::MAX);
    forged.watermark = last.to_string();
    peer.abort_wire(forged.clone()).await.unwrap();
    forged.watermark = at(now.after(2 * day + Duration::from_secs(1)));
    peer.abort_wire(forged.clone()).await.unwrap();
    assert_eq!(participant.statistics().watermarks_ignored, 2);
    peer.yes(transaction(2)).await;
    peer.commit(transaction(2)).await.unwrap();

    // Clocks may be a day apart.
    forged.watermark = at(now.after(day));
    peer.abort_wire(forged).await.unwrap();
    assert_eq!(participant.statistics().watermarks_ignored, 2);
    let refused = peer.prepare(transaction(3), "yes").await.unwrap_err();
    assert_eq!(reason(&refused), Some(ErrorReason::Expired));
}

/// What was heard before the power failed.
#[derive(Clone, Default)]
struct History {
    promised: Vec<u128>,
    acknowledged: Vec<u128>,
    told_commit: Vec<u128>,
    forgot: bool,
}

const LAST: u128 = 36;
const IN_DOUBT: u128 = 13;

/// None once the power has failed.
async fn live(world: &World, history: &mut History) -> Option<()> {
    let participant = Participant::start_with(options(world), world.parts(), world.recorder.clone())
        .await
        .ok()?;
    tokio::select! {
        () = eventually("registered", || participant.statistics().registered) => {}
        _ = participant.stopped() => return None,
    }
    let peer = Peer::new(&participant);
    for n in 1..=LAST {
        promise(&peer, n).await.ok()?;
        history.promised.push(n);
        if n == IN_DOUBT {
            continue;
        }
        history.told_commit.push(n);
        peer.commit(transaction(n)).await.ok()?;
        history.acknowledged.push(n);
        if n % 12 == 0 {
            tell_watermark(&peer, n - 1).await.ok()?;
            let kept = || remembered(world).iter().all(|tx| *tx >= transaction(n - 1));
            tokio::select! {
                () = eventually("forgotten", kept) => history.forgot = true,
                _ = participant.stopped() => return None,
            }
        }
    }
    Some(())
}

fn in_a_life<T>(life: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(life)
}

/// What must hold once the participant has come back. True if something is closed.
async fn check(world: &World, history: &History, context: &str) -> bool {
    let (participant, peer) = world.start_with(options(world)).await;
    let recorder = &world.recorder;
    let mut expired = false;
    for &n in &history.promised {
        let tx = transaction(n);
        let prepared = recorder.count(Call::Prepare, tx);
        match peer.prepare(tx, "yes").await {
            Ok(voted) => assert_eq!(voted.vote, Vote::Yes, "{context}: {n} takes its promise back"),
            Err(status) => {
                assert_eq!(reason(&status), Some(ErrorReason::Expired), "{context}: {n}");
                assert!(
                    history.acknowledged.contains(&n),
                    "{context}: {n} was forgotten too early"
                );
                expired = true;
            }
        }
        assert_eq!(recorder.count(Call::Prepare, tx), prepared, "{context}: {n}");
        peer.commit(tx).await.unwrap();
        assert_eq!(recorder.applied(tx), 1, "{context}: {n}");
    }
    assert_eq!(participant.statistics().violations, 0, "{context}");
    assert!(recorder.wrong().is_empty(), "{context}: {:?}", recorder.wrong());
    // A promise that nobody heard may be kept.
    let heard = |tx: &TransactionId| history.promised.iter().any(|n| *tx == transaction(*n));
    assert!(!recorder.holds().iter().any(heard), "{context}");
    participant.shutdown().await;
    expired
}

#[test]
fn a_power_loss_while_forgetting_loses_no_promise_and_prepares_nothing_twice() {
    let coordinator = FakeCoordinator::start();
    let undisturbed = World::with(coordinator.clone());
    let mut complete = History::default();
    assert!(in_a_life(live(&undisturbed, &mut complete)).is_some());
    let operations = undisturbed.disk.operations();
    undisturbed.crash(0);
    assert!(in_a_life(check(&undisturbed, &complete, "undisturbed")));

    let (mut expired, mut forgot) = (0, 0);
    for operation in 0..=operations {
        let context = format!("power off at operation {operation} of {operations}");
        let world = World::with(coordinator.clone());
        world.disk.power_off_at_operation(operation);
        let mut history = History::default();
        in_a_life(live(&world, &mut history));
        forgot += usize::from(history.forgot);
        world.crash(operation % 5);
        expired += usize::from(in_a_life(check(&world, &history, &context)));
    }
    assert!(expired > 10 && forgot > 10, "{expired} of {operations}, {forgot}");
}
