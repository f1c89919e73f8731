//! Members that are away while decisions wait for them: what that costs, and whom (R14).

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster::{Heard, TestCluster, TestParticipant, eventually, new_transaction, submit_request};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Every Commit that arrived.
fn commits(participant: &TestParticipant) -> Vec<String> {
    let commit = |heard| match heard {
        Heard::Commit { transaction } => Some(transaction),
        Heard::Prepare { .. } | Heard::Abort { .. } => None,
    };
    participant.heard().into_iter().filter_map(commit).collect()
}

/// Commits so many transactions of these members, some at a time.
async fn commit(cluster: &TestCluster, count: usize, members: &[&TestParticipant]) -> BTreeSet<String> {
    let begun = Arc::new(AtomicUsize::new(0));
    let branches: Vec<_> = members.iter().map(|member| (*member, "x")).collect();
    let template = submit_request(new_transaction(), &branches);
    let mut initiators = JoinSet::new();
    for _ in 0..64 {
        let (mut client, begun) = (cluster.coordinator(0).await, Arc::clone(&begun));
        let template = template.clone();
        initiators.spawn(async move {
            let mut committed = Vec::new();
            while begun.fetch_add(1, Ordering::SeqCst) < count {
                let mut request = template.clone();
                request.transaction = new_transaction().to_string();
                let reply = client.submit(request.clone()).await.unwrap().into_inner();
                let outcome = unanimo_proto::Outcome::try_from(reply.outcome).unwrap().0;
                assert!(outcome.is_commit(), "{outcome}");
                committed.push(request.transaction);
            }
            committed
        });
    }
    initiators.join_all().await.into_iter().flatten().collect()
}

/// Waits until it was told all of these, not counting what it heard while it was away.
async fn until_told(participant: &TestParticipant, away_for: usize, transactions: &BTreeSet<String>) {
    eventually("all are told", async || {
        let told: BTreeSet<String> = commits(participant).into_iter().skip(away_for).collect();
        transactions.is_subset(&told).then_some(())
    })
    .await;
}

/// Acknowledges from now on. Returns how many Commits it has heard in vain.
fn come_back(participant: &TestParticipant) -> usize {
    let heard = commits(participant).len();
    participant.change(|participant| participant.acknowledges = true);
    heard
}

async fn until_nothing_is_left(cluster: &TestCluster) {
    eventually("everybody has acknowledged", async || {
        cluster.status(0).await.filter(|status| status.completing == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_commits_cost_a_member_that_is_away_a_few_calls_and_reach_it_soon_after() {
    // More than wait in memory for one member.
    const COMMITS: usize = 3000;
    let cluster = TestCluster::start_with(1, "").await;
    let (a, b) = (
        TestParticipant::start(&cluster, "a").await,
        TestParticipant::start(&cluster, "b").await,
    );
    b.change(|b| b.acknowledges = false);
    let gone = Instant::now();
    let mut transactions = commit(&cluster, 1, &[&a, &b]).await;
    transactions.extend(commit(&cluster, COMMITS, &[&a, &b]).await);
    until_told(&a, 0, &transactions).await;
    let (calls, seconds) = (commits(&b).len(), gone.elapsed().as_secs_f64());
    // The first call and those that come closer together at the beginning, then two a second. What was on its way
    // before the first came back may be as much as one initiator each.
    let most = 6.0 + 64.0 + 3.0 * seconds;
    assert!((calls as f64) < most, "{calls} calls in {seconds} s");
    let back = Instant::now();
    until_told(&b, come_back(&b), &transactions).await;
    let took = back.elapsed();
    // It would be a sweep in every two seconds, each for a part of them, if nobody saw that the member is back.
    assert!(took < Duration::from_secs(20), "{took:?}");
    until_nothing_is_left(&cluster).await;
    assert_eq!(commits(&a).len(), transactions.len(), "nobody else is told twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_never_comes_back_keeps_no_other_waiting() {
    // As much as may wait in memory is less than what waits for the one that never comes back.
    let cluster = TestCluster::start_with(1, "[limits]\ncompleting = 1200\n").await;
    let (gone, away) = (
        TestParticipant::start(&cluster, "gone").await,
        TestParticipant::start(&cluster, "away").await,
    );
    gone.change(|gone| gone.acknowledges = false);
    away.change(|away| away.acknowledges = false);
    let first = commit(&cluster, 1400, &[&gone]).await;
    let second = commit(&cluster, 400, &[&away]).await;
    until_told(&away, come_back(&away), &second).await;
    until_told(&gone, come_back(&gone), &first).await;
    until_nothing_is_left(&cluster).await;
}
