//! Branches of interactive transactions: operations come first, the Prepare later and without one.

use std::time::Duration;

use unanimo_core::{RequestHash, TransactionId, Vote};
use unanimo_journal::Disk as _;
use unanimo_participant::{BadContext, Bytes, Context, JoinError, Participant};
use unanimo_proto::transport::Clock as _;
use unanimo_proto::{ErrorReason, PrepareMessage, v1};

use crate::support::{Call, Peer, World, eventually, reason, transaction};

fn context(world: &World, transaction: TransactionId, remaining: Duration) -> Context {
    Context {
        cluster: "test".parse().unwrap(),
        transaction,
        deadline: world.clock.now().after(remaining),
        remaining,
    }
}

async fn join(
    world: &World,
    participant: &Participant,
    transaction: TransactionId,
    operation: &'static str,
) -> Result<(), JoinError> {
    let context = context(world, transaction, Duration::from_secs(60));
    participant.join(&context, Bytes::from(operation)).await
}

/// As the coordinator asks at the commit of an interactive transaction.
fn prepare(transaction: TransactionId) -> PrepareMessage {
    let message = Peer::message(transaction, None);
    PrepareMessage {
        request_hash: RequestHash::of_members(&message.members),
        ..message
    }
}

fn commit(transaction: TransactionId) -> v1::CommitRequest {
    let hash = prepare(transaction).request_hash;
    v1::CommitRequest {
        request_hash: hash.as_bytes().to_vec().into(),
        ..Peer::commit_request(transaction)
    }
}

async fn vote(peer: &Peer, transaction: TransactionId) -> Vote {
    peer.prepare_message(&prepare(transaction)).await.unwrap().vote
}

#[tokio::test]
async fn joined_work_is_promised_and_committed() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let tx = transaction(1);
    join(&world, &participant, tx, "yes one").await.unwrap();
    assert_eq!(world.recorder.holds(), [tx]);
    assert_eq!(world.recorder.applied(tx), 0);
    join(&world, &participant, tx, "yes two").await.unwrap();
    join(&world, &participant, tx, "read").await.unwrap();
    assert_eq!(vote(&peer, tx).await, Vote::Yes);
    assert_eq!(vote(&peer, tx).await, Vote::Yes);
    peer.commit_wire(commit(tx)).await.unwrap();
    assert_eq!(world.recorder.applied(tx), 1);
    let after = join(&world, &participant, tx, "yes three").await.unwrap_err();
    assert!(matches!(after, JoinError::Refused { .. }), "{after}");
    let statistics = participant.statistics();
    assert_eq!((statistics.joined, statistics.joins_refused), (3, 1));
    assert_eq!((statistics.in_flight, statistics.joins_expired), (0, 0));
    assert_eq!(world.recorder.wrong(), [] as [&str; 0]);
}

#[tokio::test]
async fn an_abort_and_a_refusal_let_go_of_everything() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let (aborted, refused) = (transaction(1), transaction(2));
    for tx in [aborted, refused] {
        join(&world, &participant, tx, "yes").await.unwrap();
    }
    peer.abort(aborted).await.unwrap();
    assert_eq!(world.recorder.holds(), [refused]);
    let error = join(&world, &participant, refused, "no seat").await.unwrap_err();
    assert!(
        matches!(&error, JoinError::Refused { reason } if reason == "seat"),
        "{error}"
    );
    eventually("let go", || world.recorder.holds().is_empty()).await;
    for tx in [aborted, refused] {
        assert!(join(&world, &participant, tx, "yes").await.is_err());
        assert!(matches!(vote(&peer, tx).await, Vote::No { .. }));
    }
    assert_eq!(participant.statistics().in_flight, 0);
    assert_eq!(world.recorder.wrong(), [] as [&str; 0]);
}

#[tokio::test]
async fn what_is_never_committed_is_let_go_at_its_deadline() {
    let world = World::new();
    let mut options = world.options();
    options.joined_for_at_most = Duration::from_secs(30);
    let (participant, peer) = world.start_with(options).await;
    tokio::time::pause();
    let (short, long, slow) = (transaction(1), transaction(2), transaction(3));
    let brief = context(&world, short, Duration::from_secs(5));
    participant.join(&brief, Bytes::from("yes")).await.unwrap();
    // A context cannot ask for more than the participant allows.
    let greedy = context(&world, long, Duration::MAX);
    participant.join(&greedy, Bytes::from("yes")).await.unwrap();
    world.recorder.hold(Call::Prepare);
    let late = context(&world, slow, Duration::from_secs(5));
    let late = participant.join(&late, Bytes::from("yes")).await.unwrap_err();
    assert!(
        matches!(&late, JoinError::Refused { reason } if reason.contains("deadline")),
        "{late}"
    );
    world.recorder.release(Call::Prepare);
    eventually("the short ones let go", || world.recorder.holds() == [long]).await;
    eventually("expired", || participant.statistics().joins_expired == 2).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    eventually("the long one let go", || world.recorder.holds().is_empty()).await;
    for tx in [short, long, slow] {
        assert!(matches!(vote(&peer, tx).await, Vote::No { .. }));
        assert_eq!(world.recorder.count(Call::Abort, tx), 1);
    }
    assert_eq!(participant.statistics().in_flight, 0);
}

#[tokio::test]
async fn a_promise_outlives_the_deadline_of_its_work() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let tx = transaction(1);
    join(&world, &participant, tx, "yes").await.unwrap();
    assert_eq!(vote(&peer, tx).await, Vote::Yes);
    tokio::time::pause();
    world.clock.advance(Duration::from_secs(3600));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.recorder.holds(), [tx]);
    peer.commit_wire(commit(tx)).await.unwrap();
    assert_eq!(world.recorder.applied(tx), 1);
    assert_eq!(participant.statistics().joins_expired, 0);
}

#[tokio::test]
async fn a_crash_loses_joined_work_and_keeps_what_was_promised() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let (joined, promised) = (transaction(1), transaction(2));
    for tx in [joined, promised] {
        join(&world, &participant, tx, "yes").await.unwrap();
    }
    assert_eq!(vote(&peer, promised).await, Vote::Yes);
    drop((participant, peer));
    world.crash(0);
    let (participant, peer) = world.start().await;
    assert_eq!(world.recorder.holds(), [promised]);
    assert!(matches!(vote(&peer, joined).await, Vote::No { .. }));
    peer.commit_wire(commit(promised)).await.unwrap();
    assert_eq!(
        (world.recorder.applied(joined), world.recorder.applied(promised)),
        (0, 1)
    );
    drop(participant);
}

#[tokio::test]
async fn a_commit_while_an_operation_is_under_way_is_voted_down() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let tx = transaction(1);
    join(&world, &participant, tx, "yes").await.unwrap();
    world.recorder.hold(Call::Extend);
    let (world_too, participant_too) = (world.clone(), participant.clone());
    let joining = tokio::spawn(async move { join(&world_too, &participant_too, tx, "yes").await });
    eventually("extending", || world.recorder.count(Call::Extend, tx) == 1).await;
    let busy = join(&world, &participant, tx, "yes").await.unwrap_err();
    assert!(
        matches!(busy, JoinError::Busy) && busy.changed_nothing(),
        "{busy}"
    );
    assert!(matches!(vote(&peer, tx).await, Vote::No { .. }));
    assert!(matches!(joining.await.unwrap(), Err(JoinError::Refused { .. })));
    world.recorder.release(Call::Extend);
    eventually("let go", || world.recorder.holds().is_empty()).await;
    assert_eq!(world.recorder.wrong(), [] as [&str; 0]);
}

#[tokio::test]
async fn what_is_not_fit_is_refused_before_the_resource_manager_hears_of_it() {
    let world = World::new();
    let mut options = world.options();
    options.in_flight = 1;
    options.request.operation_bytes = 8;
    let (participant, peer) = world.start_with(options).await;
    let (first, second) = (transaction(1), transaction(2));
    let error = join(&world, &participant, first, "yes, but it is long")
        .await
        .unwrap_err();
    assert!(
        matches!(error, JoinError::TooLarge { bytes: 19, limit: 8 }),
        "{error}"
    );
    let foreign = Context {
        cluster: "elsewhere".parse().unwrap(),
        ..context(&world, first, Duration::from_secs(1))
    };
    let error = participant.join(&foreign, Bytes::from("yes")).await.unwrap_err();
    assert_eq!(reason(&error.into()), Some(ErrorReason::WrongCluster));
    join(&world, &participant, first, "yes").await.unwrap();
    // One place in flight, and it is taken; the transaction that has it goes on.
    let error = join(&world, &participant, second, "yes").await.unwrap_err();
    assert!(error.changed_nothing(), "{error}");
    assert_eq!(reason(&error.into()), Some(ErrorReason::Overloaded));
    join(&world, &participant, first, "yes").await.unwrap();
    assert_eq!(vote(&peer, first).await, Vote::Yes);
    assert_eq!(world.recorder.count(Call::Prepare, second), 0);
    participant.shutdown().await;
    let error = join(&world, &participant, second, "yes").await.unwrap_err();
    assert_eq!(reason(&error.into()), Some(ErrorReason::ShuttingDown));
}

fn transaction_member(name: &str) -> unanimo_participant::ParticipantId {
    name.parse().unwrap()
}

#[tokio::test]
async fn a_forged_list_of_members_gets_no_promise() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let tx = transaction(1);
    join(&world, &participant, tx, "yes").await.unwrap();
    let forged = PrepareMessage {
        members: [transaction_member("stock"), transaction_member("forged")].into(),
        ..prepare(tx)
    };
    let answer = peer.prepare_message(&forged).await.unwrap().vote;
    assert!(matches!(answer, Vote::No { .. }), "{answer}");
    // The branch is as it was.
    assert_eq!(world.recorder.holds(), [tx]);
    assert_eq!(vote(&peer, tx).await, Vote::Yes);
}

#[tokio::test]
async fn an_id_from_far_ahead_is_not_joined_and_leaves_nothing_behind() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let day = Duration::from_secs(24 * 60 * 60);
    let at = |time| TransactionId::new(time, 7);
    let far = [
        at(world.clock.now().after(2 * day + Duration::from_secs(1))),
        TransactionId::new(unanimo_core::Timestamp::from_unix_ms(u64::MAX), u128::MAX),
    ];
    for tx in far {
        let refused = join(&world, &participant, tx, "yes far").await.unwrap_err();
        assert!(
            matches!(refused, JoinError::BadContext(BadContext::Ahead { transaction, .. }) if transaction == tx),
            "{refused}"
        );
        assert_eq!(reason(&refused.into()), Some(ErrorReason::Premature));
    }
    assert_eq!(participant.statistics().in_flight, 0);
    assert_eq!(participant.statistics().bad_contexts, far.len() as u64);
    // Clocks may be a day apart.
    let tx = at(world.clock.now().after(day));
    join(&world, &participant, tx, "yes near").await.unwrap();
    assert_eq!(vote(&peer, tx).await, Vote::Yes);
}

/// Whether a record speaks of this transaction.
fn is_in_journal(world: &World, transaction: TransactionId) -> bool {
    let id = transaction.as_u128().to_be_bytes();
    let files = world.disk.list().unwrap();
    let mut contents = files.iter().filter_map(|file| world.disk.contents(file));
    contents.any(|bytes| bytes.windows(id.len()).any(|window| window == id))
}

#[tokio::test]
async fn a_message_about_an_id_from_far_ahead_leaves_nothing_behind() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let day = Duration::from_secs(24 * 60 * 60);
    let tx = TransactionId::new(world.clock.now().after(3 * day), 7);
    // A promise could never be decided: the coordinators refuse to look into such an id.
    let refused = peer.prepare(tx, "yes").await.unwrap_err();
    assert_eq!(reason(&refused), Some(ErrorReason::Premature), "{refused}");
    peer.abort(tx).await.unwrap();
    assert_eq!(participant.statistics().in_flight, 0);
    assert!(world.recorder.calls().is_empty());
    // One of this time leaves its tombstone.
    peer.abort(transaction(1)).await.unwrap();
    participant.shutdown().await;
    assert!(is_in_journal(&world, transaction(1)) && !is_in_journal(&world, tx));
    // The watermark shows that the clock is behind, not the id ahead.
    let (_participant, peer) = world.start().await;
    let mut wire = Peer::abort_request(transaction(0));
    wire.watermark = TransactionId::new(world.clock.now().after(day + day / 2), 0).to_string();
    peer.abort_wire(wire).await.unwrap();
    assert_eq!(peer.prepare(tx, "yes").await.unwrap().vote, Vote::Yes);
}
