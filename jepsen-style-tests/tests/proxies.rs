//! What machines without root have instead of a network of their own: proxies that know who dials.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use jepsen_style_tests::cluster::{Cluster, Layout, Member};
use jepsen_style_tests::network::{Host, Link, Rule};

/// How long an election may take.
const ELECTION: Duration = Duration::from_secs(30);

fn node(node: u64) -> Host {
    Host::Member(Member::Coordinator(node))
}

/// Both directions between a node and the other two.
fn around(alone: u64) -> Vec<Link> {
    let others = (1..=3).filter(|other| *other != alone);
    let links = others.flat_map(|other| {
        let (from, to) = (node(alone), node(other));
        [Link { from, to }, Link { from: to, to: from }]
    });
    links.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_other_nodes_do_not_reach_is_replaced_though_clients_reach_it() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout {
        coordinators: 3,
        participants: 1,
        replaced: 0,
    };
    let executable = Path::new(env!("CARGO_BIN_EXE_jepsen-style-tests"));
    let mut cluster = Cluster::start(executable, folder.path(), layout).unwrap();
    let old = cluster.wait_for_leader(ELECTION).await.unwrap();
    let links = around(old);
    let before = cluster.network().counts(&links);
    cluster.network().set(&links, Rule::cut());
    let deadline = Instant::now() + ELECTION;
    let new = loop {
        match cluster.leader().await {
            Some(leader) if leader != old => break leader,
            _ => assert!(Instant::now() < deadline, "nobody else was elected"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let happened = cluster.network().counts(&links) - before;
    assert!(happened.cut > 0 && happened.cut <= happened.sent, "{happened}");
    assert!(
        cluster.status(old).await.is_some(),
        "clients reach c{old} while c{new} leads"
    );
    cluster.network().set(&links, Rule::default());
    cluster.wait_until_whole(ELECTION).await.unwrap();
}
