//! Which nodes may be part of a cluster: new ones, and those that remember what they have said (R11).

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::path::Path;

use cluster::{PATIENCE, TestCluster, eventually};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use unanimo_coordinator::{Config, RunError, run};
use unanimo_proto::v1::{self, admin_client::AdminClient};

async fn refused(config: Config) -> String {
    let running = run(config, std::future::pending());
    tokio::time::timeout(PATIENCE, running)
        .await
        .expect("it refuses")
        .unwrap_err()
        .to_string()
}

async fn admin(address: &str) -> AdminClient<tonic::transport::Channel> {
    let address = format!("http://{address}");
    eventually("a connection", async || {
        AdminClient::connect(address.clone()).await.ok()
    })
    .await
}

async fn leader(cluster: &TestCluster) -> AdminClient<tonic::transport::Channel> {
    admin(&cluster.address(cluster.leader().await)).await
}

/// A node that is to join the cluster, and was told of its first three.
struct Joiner {
    address: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
}

fn joining(cluster: &TestCluster, node: u64, data: &Path) -> Config {
    let mut config = cluster.config(0);
    let address = format!("127.0.0.1:{}", cluster::free_port());
    config.node = unanimo_coordinator::NodeId(node);
    config.listen.clone_from(&address);
    config.data = data.to_owned();
    config.peers.insert(config.node, address);
    config.join = true;
    config
}

impl Joiner {
    fn start(config: Config) -> Self {
        let (stop, stopped) = oneshot::channel();
        let address = config.listen.clone();
        let task = tokio::spawn(run(config, async move { drop(stopped.await) }));
        Self { address, stop, task }
    }

    async fn status(&self) -> v1::GetStatusReply {
        let mut admin = admin(&self.address).await;
        let status = admin.get_status(v1::GetStatusRequest::default()).await;
        status.unwrap().into_inner()
    }

    async fn stop(self) {
        drop(self.stop);
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

async fn add(cluster: &TestCluster, node: u64, address: &str) {
    let request = v1::AddNodeRequest {
        cluster: "test".to_owned(),
        node,
        address: address.to_owned(),
    };
    eventually("the node is added", async || {
        leader(cluster).await.add_node(request.clone()).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_on_the_word_of_the_leader_only() {
    let mut cluster = TestCluster::start(3).await;
    let left = (cluster.leader().await + 1) % 3;
    for place in (0..3).filter(|place| *place != left) {
        cluster.stop_node(place).await;
    }
    let data = TempDir::new().unwrap();
    let joiner = Joiner::start(joining(&cluster, 4, data.path()));
    // A member is there, but it may have missed that the id was used.
    let mut member = admin(&cluster.address(left)).await;
    for _ in 0..20 {
        let word = member.get_status(v1::GetStatusRequest::default()).await;
        assert!(word.unwrap().into_inner().formed);
        assert!(!joiner.status().await.waiting_to_form, "it believes a follower");
        // Nothing is waited for: it asks every 100 ms, and must not believe any of the answers.
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    for place in (0..3).filter(|place| *place != left) {
        cluster.start_node(place);
    }
    eventually("the leader's word", async || {
        joiner.status().await.waiting_to_form.then_some(())
    })
    .await;
    add(&cluster, 4, &joiner.address).await;
    assert!(joiner.status().await.formed);
    joiner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_was_removed_does_not_join_again_with_an_empty_folder() {
    let cluster = TestCluster::start(3).await;
    let data = TempDir::new().unwrap();
    let config = joining(&cluster, 4, data.path());
    let joiner = Joiner::start(config.clone());
    eventually("the leader's word", async || {
        joiner.status().await.waiting_to_form.then_some(())
    })
    .await;
    add(&cluster, 4, &joiner.address).await;
    let remove = v1::RemoveNodeRequest {
        cluster: "test".to_owned(),
        node: 4,
    };
    eventually("the node is removed", async || {
        leader(&cluster).await.remove_node(remove.clone()).await.ok()
    })
    .await;
    joiner.stop().await;
    let empty = TempDir::new().unwrap();
    let error = refused(Config {
        data: empty.path().to_owned(),
        ..config
    })
    .await;
    assert!(error.contains("disk was lost") && error.contains("n4"), "{error}");
}

/// A marker that says "new" is not believed against a leader that has heard from this node.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_log_but_not_its_markers_does_not_come_back() {
    let mut cluster = TestCluster::start(3).await;
    let lost = (cluster.leader().await + 1) % 3;
    cluster.stop_node(lost).await;
    for part in ["log", "table", "snapshots"] {
        std::fs::remove_dir_all(cluster.data(lost).join(part)).unwrap();
    }
    let error = refused(cluster.config(lost)).await;
    assert!(error.contains("its log is empty"), "{error}");
    // An old copy of the folder, from before it was part of the cluster.
    std::fs::remove_dir_all(cluster.data(lost).join("log")).unwrap();
    std::fs::remove_file(cluster.data(lost).join("formed")).unwrap();
    assert!(cluster.data(lost).join("waiting-to-form").exists());
    let error = refused(cluster.config(lost)).await;
    assert!(error.contains("disk was lost"), "{error}");
}
