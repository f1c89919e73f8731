//! Every message may come twice, late, or in another order (R9), and from people who mean somebody else.

use std::time::Duration;

use crate::support::{Call, Peer, World, eventually, reason, transaction};
use tonic::Code;
use unanimo_core::{RequestHash, Vote};
use unanimo_proto::v1::PrepareRequest;
use unanimo_proto::{ErrorReason, retry_after};

#[tokio::test]
async fn a_branch_prepares_commits_and_answers_repeats_with_the_same() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let tx = transaction(1);

    let witness = peer.yes(tx).await;
    assert_eq!(witness.generation, participant.generation());
    assert_eq!(peer.yes(tx).await, witness, "a repeated Prepare");
    assert_eq!(peer.prepare_again(tx).await.unwrap().witness, Some(witness));
    assert_eq!(world.recorder.holds(), [tx]);
    assert_eq!(participant.statistics().in_doubt, 1);

    world.clock.advance(Duration::from_millis(250));
    for _ in 0..3 {
        peer.commit(tx).await.unwrap();
    }
    assert_eq!(
        peer.prepare(tx, "yes").await.unwrap().vote,
        Vote::Yes,
        "a Prepare after the Commit"
    );
    assert_eq!(world.recorder.calls(), [(Call::Prepare, tx), (Call::Commit, tx)]);
    assert_eq!(world.recorder.applied(tx), 1);

    let statistics = participant.statistics();
    assert_eq!(
        (statistics.voted_yes, statistics.committed, statistics.violations),
        (1, 1, 0)
    );
    assert_eq!((statistics.in_doubt, statistics.in_flight), (0, 0));
    assert_eq!(statistics.in_doubt_times.count(), 1);
    // The histogram has two digits.
    let longest = statistics.in_doubt_times.max().as_millis();
    assert!((250..=252).contains(&longest), "{longest}");
}

#[tokio::test]
async fn an_abort_lets_go_and_what_comes_late_is_refused() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let (prepared, unseen) = (transaction(1), transaction(2));

    peer.yes(prepared).await;
    for _ in 0..2 {
        peer.abort(prepared).await.unwrap();
    }
    assert!(world.recorder.holds().is_empty());
    assert_eq!(peer.no(prepared, "yes").await, "the transaction is aborted");

    // The Abort overtakes its Prepare: the tombstone keeps it from taking holds (R4).
    peer.abort(unseen).await.unwrap();
    assert_eq!(peer.no(unseen, "yes").await, "the transaction is aborted");
    assert_eq!(world.recorder.count(Call::Prepare, unseen), 0);
    assert_eq!(world.recorder.count(Call::Abort, prepared), 1);
    assert_eq!(participant.statistics().aborted, 2);
    assert!(world.recorder.wrong().is_empty());
}

#[tokio::test]
async fn votes_no_and_read_only_leave_no_hold_and_are_repeated() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    for _ in 0..2 {
        assert_eq!(peer.no(transaction(1), "no funds").await, "funds");
        assert_eq!(
            peer.prepare(transaction(2), "read").await.unwrap().vote,
            Vote::ReadOnly
        );
    }
    // Asked about something it never saw, by a new leader (R6).
    let vote = peer.prepare_again(transaction(3)).await.unwrap().vote;
    assert!(matches!(vote, Vote::No { .. }));
    assert!(matches!(
        peer.prepare(transaction(3), "yes").await.unwrap().vote,
        Vote::No { .. }
    ));
    assert_eq!(world.recorder.calls().len(), 2);
    let statistics = participant.statistics();
    assert_eq!((statistics.voted_no, statistics.voted_read_only), (2, 1));
}

#[tokio::test]
async fn only_so_many_read_only_branches_are_remembered() {
    let world = World::new();
    let mut options = world.options();
    options.read_only_remembered = 2;
    let (_participant, peer) = world.start_with(options).await;
    for n in 1..=3 {
        peer.prepare(transaction(n), "read").await.unwrap();
    }
    for n in 1..=3 {
        peer.prepare(transaction(n), "read").await.unwrap();
    }
    let counts: Vec<_> = (1..=3)
        .map(|n| world.recorder.count(Call::Prepare, transaction(n)))
        .collect();
    // The first was forgotten for the third, and its return made the second forgotten, and so on.
    assert_eq!(counts, [2, 2, 2]);
}

#[tokio::test]
async fn a_read_only_vote_is_remembered_until_its_deadline_and_then_let_go() {
    let world = World::new();
    let mut options = world.options();
    options.read_only_remembered = 2;
    let (_participant, peer) = world.start_with(options).await;
    let mut long = Peer::message(transaction(1), Some("read"));
    long.remaining = Duration::from_secs(3600);
    peer.prepare_message(&long).await.unwrap();
    for n in 2..=9 {
        peer.prepare(transaction(n), "read").await.unwrap();
    }
    // The one with the latest deadline outlives many that came after it, and a takeover that asks again is told.
    let again = peer.prepare_again(transaction(1)).await.unwrap().vote;
    assert_eq!(again, Vote::ReadOnly);
    // Some time after its deadline the next one takes it along.
    world.clock.advance(Duration::from_secs(3600 + 11));
    peer.prepare(transaction(10), "read").await.unwrap();
    let again = peer.prepare_again(transaction(1)).await.unwrap().vote;
    assert!(matches!(again, Vote::No { .. }), "{again}");
}

/// What is remembered until a time that has passed already may be forgotten at once, but not before it is told (R8).
#[tokio::test]
async fn a_read_only_vote_is_told_to_all_who_wait_though_the_clock_has_jumped_beyond_its_deadline() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let tx = transaction(1);
    world.recorder.hold(Call::Prepare);
    let askers: Vec<_> = (0..2)
        .map(|_| {
            let peer = peer.clone();
            tokio::spawn(async move { peer.prepare(tx, "read").await.unwrap().vote })
        })
        .collect();
    eventually("a repeat", || participant.statistics().duplicates == 1).await;
    world.clock.advance(Duration::from_secs(24 * 60 * 60));
    world.recorder.release(Call::Prepare);
    eventually("both were told", || {
        askers.iter().all(|asker| asker.is_finished())
    })
    .await;
    for asker in askers {
        assert_eq!(asker.await.unwrap(), Vote::ReadOnly);
    }
    assert_eq!(world.recorder.count(Call::Prepare, tx), 1);
}

#[tokio::test]
async fn what_begins_below_the_watermark_is_refused_and_a_lower_watermark_changes_nothing() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let (in_doubt, committed, closed) = (transaction(1), transaction(2), transaction(3));
    peer.yes(in_doubt).await;
    peer.yes(committed).await;
    peer.commit(committed).await.unwrap();
    let mut raising = Peer::abort_request(transaction(200));
    raising.watermark = transaction(100).to_string();
    peer.abort_wire(raising).await.unwrap();
    let mut lower = Peer::message(transaction(101), Some("yes"));
    lower.watermark = Some(transaction(1));
    assert_eq!(peer.prepare_message(&lower).await.unwrap().vote, Vote::Yes);

    let refused = peer.prepare(closed, "yes").await.unwrap_err();
    assert_eq!(reason(&refused), Some(ErrorReason::Expired));
    // An Abort has nothing to keep away, and what was never promised cannot be committed.
    peer.abort(closed).await.unwrap();
    let refused = peer.commit(closed).await.unwrap_err();
    assert_eq!(reason(&refused), Some(ErrorReason::Violation));
    assert!(world.recorder.calls().iter().all(|(_, tx)| *tx != closed));
    assert_eq!(participant.statistics().expired, 1);

    // A promise stays until the decision is told (R3), and what has finished answers as before.
    assert_eq!(peer.prepare_again(in_doubt).await.unwrap().vote, Vote::Yes);
    peer.commit(in_doubt).await.unwrap();
    peer.commit(committed).await.unwrap();
    assert_eq!(world.recorder.applied(in_doubt), 1);
    assert_eq!(world.recorder.applied(committed), 1);
}

#[tokio::test]
async fn a_decision_that_contradicts_is_refused_and_changes_nothing() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let (committed, aborted, prepared) = (transaction(1), transaction(2), transaction(3));
    peer.yes(committed).await;
    peer.commit(committed).await.unwrap();
    peer.abort(aborted).await.unwrap();
    peer.yes(prepared).await;

    let mut other_request = Peer::commit_request(prepared);
    other_request.request_hash = vec![9; 32].into();
    let refused = [
        peer.abort(committed).await,
        peer.commit(aborted).await,
        peer.commit(transaction(4)).await,
        peer.commit_wire(other_request).await,
    ];
    for result in refused {
        let status = result.unwrap_err();
        assert_eq!(reason(&status), Some(ErrorReason::Violation), "{status}");
        assert_eq!(status.code(), Code::FailedPrecondition);
    }
    assert_eq!(participant.statistics().violations, 4);
    assert_eq!(world.recorder.applied(committed), 1);
    assert_eq!(world.recorder.holds(), [prepared]);
    assert_eq!(participant.statistics().in_doubt, 1);
    peer.commit(prepared).await.unwrap();
    assert_eq!(world.recorder.applied(prepared), 1);
}

#[tokio::test]
async fn another_request_under_the_same_id_is_refused_without_touching_the_first() {
    let world = World::new();
    let (_participant, peer) = world.start().await;
    let tx = transaction(1);
    peer.yes(tx).await;
    let mut other = Peer::message(tx, Some("yes"));
    other.request_hash = RequestHash::from_bytes([9; 32]);
    assert!(matches!(
        peer.prepare_message(&other).await.unwrap().vote,
        Vote::No { .. }
    ));
    peer.commit(tx).await.unwrap();
    assert_eq!(world.recorder.applied(tx), 1);
}

#[tokio::test]
async fn everybody_who_asks_while_the_resource_manager_works_gets_the_one_vote() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let tx = transaction(1);
    world.recorder.hold(Call::Prepare);
    let askers: Vec<_> = (0..3)
        .map(|_| {
            let peer = peer.clone();
            tokio::spawn(async move { peer.yes(tx).await })
        })
        .collect();
    eventually("two repeats", || participant.statistics().duplicates == 2).await;
    world.recorder.release(Call::Prepare);
    for asker in askers {
        asker.await.unwrap();
    }
    assert_eq!(world.recorder.count(Call::Prepare, tx), 1);
    assert_eq!(participant.statistics().voted_yes, 1);
}

#[tokio::test]
async fn an_abort_during_the_prepare_answers_it_at_once_and_is_acknowledged_when_let_go() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let tx = transaction(1);
    world.recorder.hold(Call::Prepare);
    let asking = tokio::spawn({
        let peer = peer.clone();
        async move { peer.no(tx, "yes").await }
    });
    eventually("preparing", || participant.statistics().in_flight == 1).await;
    let aborting = tokio::spawn({
        let peer = peer.clone();
        async move { peer.abort(tx).await }
    });
    assert_eq!(asking.await.unwrap(), "the transaction is aborted");
    assert!(!aborting.is_finished(), "the resource manager still works");
    world.recorder.release(Call::Prepare);
    aborting.await.unwrap().unwrap();
    assert!(world.recorder.holds().is_empty());
    assert!(world.recorder.wrong().is_empty(), "{:?}", world.recorder.wrong());
}

#[tokio::test]
async fn a_caller_that_goes_away_stops_nothing() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let tx = transaction(1);
    for call in [Call::Prepare, Call::Commit] {
        world.recorder.hold(call);
        let peer = peer.clone();
        let asking = tokio::spawn(async move {
            match call {
                Call::Prepare => _ = peer.prepare(tx, "yes").await,
                _ => peer.commit(tx).await.unwrap(),
            }
        });
        eventually("called", || world.recorder.count(call, tx) == 1).await;
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        world.recorder.release(call);
        eventually("it went on", || {
            let statistics = participant.statistics();
            match call {
                Call::Prepare => statistics.in_doubt == 1,
                _ => statistics.committed == 1,
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_slow_vote_is_asked_for_again() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let tx = transaction(1);
    world.recorder.hold(Call::Prepare);
    let mut message = Peer::message(tx, Some("yes"));
    message.remaining = Duration::from_millis(20);
    let asked = tokio::time::timeout(Duration::from_secs(10), peer.prepare_message(&message)).await;
    let status = asked.unwrap().unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::Unavailable, None));
    world.recorder.release(Call::Prepare);
    // The clock of this world stands, so the deadline has not passed for the branch.
    assert_eq!(peer.prepare(tx, "yes").await.unwrap().vote, Vote::Yes);
    assert_eq!(participant.statistics().voted_yes, 1);
}

#[tokio::test]
async fn a_vote_that_comes_after_the_deadline_is_no_and_lets_go() {
    let world = World::new();
    let (_participant, peer) = world.start().await;
    let tx = transaction(1);
    world.recorder.hold(Call::Prepare);
    let asking = tokio::spawn({
        let peer = peer.clone();
        async move { peer.no(tx, "yes").await }
    });
    eventually("preparing", || world.recorder.count(Call::Prepare, tx) == 1).await;
    world.clock.advance(Duration::from_secs(6));
    world.recorder.release(Call::Prepare);
    assert!(asking.await.unwrap().contains("deadline"));
    eventually("let go", || world.recorder.holds().is_empty()).await;
}

#[tokio::test]
async fn messages_for_somebody_else_are_refused_before_anything_is_looked_at() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    let tx = transaction(1);
    let cluster = |message: &mut String| *message = "another".to_owned();
    let mut prepare = Peer::message(tx, Some("yes")).to_wire(&"test".parse().unwrap());
    let mut commit = Peer::commit_request(tx);
    let mut abort = Peer::abort_request(tx);
    // Malformed as well, but that is not the point.
    prepare.transaction = String::new();
    cluster(&mut prepare.cluster);
    cluster(&mut commit.cluster);
    cluster(&mut abort.cluster);
    for status in [
        peer.refused_prepare(prepare.clone()).await,
        peer.commit_wire(commit.clone()).await.unwrap_err(),
        peer.abort_wire(abort.clone()).await.unwrap_err(),
    ] {
        assert_eq!(reason(&status), Some(ErrorReason::WrongCluster), "{status}");
    }
    for (cluster, participant) in [
        (&mut prepare.cluster, &mut prepare.participant),
        (&mut commit.cluster, &mut commit.participant),
        (&mut abort.cluster, &mut abort.participant),
    ] {
        *cluster = "test".to_owned();
        *participant = "other".to_owned();
    }
    for status in [
        peer.refused_prepare(prepare).await,
        peer.commit_wire(commit).await.unwrap_err(),
        peer.abort_wire(abort).await.unwrap_err(),
    ] {
        assert_eq!(reason(&status), Some(ErrorReason::WrongTarget), "{status}");
    }
    assert!(world.recorder.calls().is_empty());
    assert_eq!(participant.statistics().violations, 0);
}

#[tokio::test]
async fn malformed_and_oversized_messages_are_refused_and_disturb_nobody() {
    let world = World::new();
    let mut options = world.options();
    options.request.members = 3;
    options.request.operation_bytes = 10;
    let (_participant, peer) = world.start_with(options).await;
    let good = Peer::message(transaction(1), Some("yes")).to_wire(&"test".parse().unwrap());
    let spoilers: [fn(&mut PrepareRequest); 8] = [
        |wire| wire.transaction = "x".to_owned(),
        |wire| wire.participant = String::new(),
        |wire| wire.members.clear(),
        |wire| wire.members = vec!["other".to_owned()],
        |wire| wire.members = vec!["stock".to_owned(), "stock".to_owned()],
        |wire| wire.members = ["stock", "a", "b", "c"].map(str::to_owned).to_vec(),
        |wire| wire.request_hash = vec![1; 31].into(),
        |wire| wire.operation = Some(vec![b'x'; 11].into()),
    ];
    for spoil in spoilers {
        let mut wire = good.clone();
        spoil(&mut wire);
        let status = peer.refused_prepare(wire.clone()).await;
        assert_eq!(
            reason(&status),
            Some(ErrorReason::Malformed),
            "{wire:?}: {status}"
        );
    }
    let mut commit = Peer::commit_request(transaction(1));
    commit.request_hash = Vec::new().into();
    assert_eq!(
        reason(&peer.commit_wire(commit).await.unwrap_err()),
        Some(ErrorReason::Malformed)
    );
    let mut abort = Peer::abort_request(transaction(1));
    abort.transaction = "018bcfe5-687b-4fff-bfff-ffffffffffff".to_owned();
    assert_eq!(
        reason(&peer.abort_wire(abort).await.unwrap_err()),
        Some(ErrorReason::Malformed)
    );
    assert!(world.recorder.calls().is_empty());
    peer.yes(transaction(1)).await;
}

#[tokio::test]
async fn beyond_the_limit_new_transactions_are_refused_and_known_ones_go_on() {
    let world = World::new();
    let mut options = world.options();
    options.in_flight = 2;
    let (participant, peer) = world.start_with(options).await;
    peer.yes(transaction(1)).await;
    peer.yes(transaction(2)).await;
    let status = peer.prepare(transaction(3), "yes").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason(&status), Some(ErrorReason::Overloaded));
    assert!(retry_after(&status).is_some());
    assert_eq!(world.recorder.count(Call::Prepare, transaction(3)), 0);
    assert_eq!(participant.statistics().overloads, 1);

    peer.yes(transaction(1)).await;
    peer.commit(transaction(1)).await.unwrap();
    peer.yes(transaction(3)).await;
}

#[tokio::test]
async fn callers_that_wait_for_one_branch_are_bounded() {
    let world = World::new();
    let mut options = world.options();
    options.waiters_per_branch = 2;
    let (participant, peer) = world.start_with(options).await;
    let tx = transaction(1);
    world.recorder.hold(Call::Prepare);
    let askers: Vec<_> = (0..2)
        .map(|_| {
            let peer = peer.clone();
            tokio::spawn(async move { peer.yes(tx).await })
        })
        .collect();
    eventually("one repeat", || participant.statistics().duplicates == 1).await;
    let status = peer.prepare(tx, "yes").await.unwrap_err();
    assert_eq!(reason(&status), Some(ErrorReason::Overloaded));
    // Whoever has gone away makes room.
    askers[0].abort();
    eventually("gone", || askers[0].is_finished()).await;
    let asking = tokio::spawn(async move { peer.yes(tx).await });
    eventually("another repeat", || participant.statistics().duplicates == 2).await;
    world.recorder.release(Call::Prepare);
    asking.await.unwrap();
}

#[tokio::test]
async fn a_redo_that_is_too_long_is_a_no_and_is_let_go() {
    let world = World::new();
    let (_participant, peer) = world.start().await;
    let reason = peer.no(transaction(1), "large 1025").await;
    assert!(reason.contains("1025 bytes"), "{reason}");
    assert!(world.recorder.holds().is_empty());
    assert_eq!(
        peer.prepare(transaction(2), "large 1024").await.unwrap().vote,
        Vote::Yes
    );
}
