//! Branches in doubt ask until they are told (R5).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::{Call, World, eventually, transaction};

#[tokio::test]
async fn a_branch_in_doubt_asks_after_a_while_and_acts_on_the_answer() {
    let world = World::new();
    let mut options = world.options();
    options.inquiry_after = Duration::from_millis(50);
    let (participant, peer) = world.start_with(options).await;
    let (committed, aborted, undecided) = (transaction(1), transaction(2), transaction(3));
    for tx in [committed, aborted, undecided] {
        peer.yes(tx).await;
    }
    eventually("asked twice about each", || {
        let mut asked: BTreeMap<String, usize> = BTreeMap::new();
        for inquiry in world
            .coordinator
            .inquiries()
            .iter()
            .flat_map(|call| &call.inquiries)
        {
            *asked.entry(inquiry.transaction.clone()).or_default() += 1;
        }
        asked.len() == 3 && asked.values().all(|times| *times >= 2)
    })
    .await;
    assert_eq!(world.recorder.holds(), [committed, aborted, undecided]);
    let call = &world.coordinator.inquiries()[0];
    assert_eq!(
        (call.cluster.as_str(), call.participant.as_str()),
        ("test", "stock")
    );
    assert_eq!(call.inquiries[0].members, ["other", "stock"]);

    world.coordinator.commit(committed);
    world.coordinator.abort(aborted);
    eventually("told", || participant.statistics().in_doubt == 1).await;
    eventually("done", || world.recorder.holds() == [undecided]).await;
    assert_eq!(world.recorder.applied(committed), 1);
    assert_eq!(world.recorder.applied(aborted), 0);
    // The same as the decision that comes late from a coordinator.
    peer.commit(committed).await.unwrap();
    peer.abort(aborted).await.unwrap();
    assert_eq!(participant.statistics().violations, 0);
}

#[tokio::test]
async fn a_thousand_branches_in_doubt_ask_in_a_handful_of_calls() {
    let world = World::new();
    let (participant, peer) = world.start().await;
    for n in 1..=1000 {
        peer.yes(transaction(n)).await;
        world.coordinator.commit(transaction(n));
    }
    participant.shutdown().await;
    world.crash(0);
    // After a restart they ask at once: the hour that this world waits does not matter.
    let (participant, _peer) = world.start().await;
    eventually("all are committed", || participant.statistics().committed == 1000).await;
    let calls = world.coordinator.inquiries();
    // Four, if no call has to be repeated because this machine is slow.
    assert!(calls.len() <= 8, "{} calls", calls.len());
    assert!(calls.iter().all(|call| call.inquiries.len() <= 256));
    let statistics = participant.statistics();
    assert!(statistics.inquiries >= 1000 && statistics.inquiry_calls <= 8);
    for n in 1..=1000 {
        assert_eq!(world.recorder.applied(transaction(n)), 1);
    }
}

#[tokio::test]
async fn an_outage_costs_one_call_at_a_time_however_many_branches_are_in_doubt() {
    const FAILURES: u32 = 20;
    let world = World::new();
    let (participant, peer) = world.start().await;
    for n in 1..=1000 {
        peer.yes(transaction(n)).await;
        world.coordinator.commit(transaction(n));
    }
    participant.shutdown().await;
    world.crash(0);
    world.coordinator.fail_inquiries(FAILURES);
    let started = Instant::now();
    let (participant, _peer) = world.start().await;
    eventually("all are committed", || participant.statistics().committed == 1000).await;
    // While nobody can answer, the first batch stands for all. The four that bring the answers come after.
    let calls = world.coordinator.inquiries().len();
    assert!(calls <= FAILURES as usize + 8, "{calls} calls");
    // Each pause is twice the one before, up to a quarter of a second: the client's, and then ours between its calls.
    assert!(
        started.elapsed() >= Duration::from_millis(1500),
        "{FAILURES} calls failed within {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn coordinators_without_a_leader_are_asked_again() {
    let world = World::new();
    let mut options = world.options();
    options.inquiry_after = Duration::from_millis(20);
    options.inquiry_pause_max = Duration::from_millis(50);
    let (participant, peer) = world.start_with(options).await;
    world.coordinator.fail_inquiries(5);
    peer.yes(transaction(1)).await;
    world.coordinator.commit(transaction(1));
    eventually("committed", || participant.statistics().committed == 1).await;
    assert!(world.coordinator.inquiries().len() >= 6);
    assert_eq!(world.recorder.count(Call::Commit, transaction(1)), 1);
}

#[tokio::test]
async fn a_batch_that_is_always_refused_keeps_no_other_waiting() {
    let world = World::new();
    let mut options = world.options();
    options.inquiry_after = Duration::from_millis(20);
    options.inquiry_pause_max = Duration::from_millis(20);
    options.inquiry_batch = 1;
    world.coordinator.refuse_inquiries_about(transaction(1));
    for n in 2..=4 {
        world.coordinator.commit(transaction(n));
    }
    let (participant, peer) = world.start_with(options).await;
    for n in 1..=4 {
        peer.yes(transaction(n)).await;
    }
    eventually("the others are committed", || {
        participant.statistics().committed == 3
    })
    .await;
    assert_eq!(world.recorder.holds(), [transaction(1)]);
}

#[tokio::test]
async fn a_branch_whose_inquiry_is_refused_asks_less_and_less_often_and_alone() {
    let world = World::new();
    let mut options = world.options();
    options.inquiry_after = Duration::from_millis(20);
    options.inquiry_pause_max = Duration::from_millis(20);
    let (participant, peer) = world.start_with(options).await;
    let refused = transaction(1);
    world.coordinator.refuse_to_answer_about(Some(refused));
    let started = Instant::now();
    for n in 1..=4 {
        world.coordinator.commit(transaction(n));
        peer.yes(transaction(n)).await;
    }
    eventually("the others are committed", || {
        participant.statistics().committed == 3
    })
    .await;
    eventually("it asks again", || {
        participant.statistics().inquiries_refused >= 4
    })
    .await;
    // After a tenth of a second, two, and four.
    assert!(
        started.elapsed() >= Duration::from_millis(700),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(world.recorder.holds(), [refused]);
    world.coordinator.refuse_to_answer_about(None);
    eventually("it is told in the end", || {
        participant.statistics().committed == 4
    })
    .await;
    assert_eq!(participant.statistics().violations, 0);
}

#[tokio::test]
async fn an_answer_that_contradicts_is_an_alarm_and_changes_nothing() {
    let world = World::new();
    let mut options = world.options();
    options.inquiry_after = Duration::from_millis(30);
    let (participant, peer) = world.start_with(options).await;
    let tx = transaction(1);
    peer.yes(tx).await;
    world.recorder.hold(Call::Commit);
    let committing = tokio::spawn({
        let peer = peer.clone();
        async move { peer.commit(tx).await }
    });
    eventually("committing", || world.recorder.count(Call::Commit, tx) == 1).await;
    assert!(peer.abort(tx).await.is_err());
    world.recorder.release(Call::Commit);
    committing.await.unwrap().unwrap();
    assert_eq!(participant.statistics().violations, 1);
    assert_eq!(world.recorder.applied(tx), 1);
    assert_eq!(world.recorder.count(Call::Abort, tx), 0);
}
