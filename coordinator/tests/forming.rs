//! Which nodes may be part of a cluster: new ones, and those that remember what they have said (R11).

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::path::Path;

use cluster::{PATIENCE, TestCluster, eventually};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use unanimo_coordinator::{Config, RunError, run};
use unanimo_proto::v1::admin_server::{Admin, AdminServer};
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

/// Stands before a member and counts how often it is asked what it knows.
#[derive(Clone)]
struct Relay {
    address: String,
    member: AdminClient<tonic::transport::Channel>,
    asked: watch::Sender<usize>,
}

impl Relay {
    async fn start(member: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            address: listener.local_addr().unwrap().to_string(),
            member: admin(member).await,
            asked: watch::Sender::new(0),
        };
        let server = Server::builder().add_service(AdminServer::new(this.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        this
    }
}

#[tonic::async_trait]
impl Admin for Relay {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusReply>, Status> {
        let reply = self.member.clone().get_status(request.into_inner()).await?;
        assert!(reply.get_ref().formed);
        // Counted only now: all before it were answered.
        self.asked.send_modify(|asked| *asked += 1);
        Ok(reply)
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        Err(Status::unimplemented("not asked of a peer"))
    }

    async fn add_node(&self, _: Request<v1::AddNodeRequest>) -> Result<Response<v1::AddNodeReply>, Status> {
        Err(Status::unimplemented("not asked of a peer"))
    }

    async fn remove_node(
        &self,
        _: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeReply>, Status> {
        Err(Status::unimplemented("not asked of a peer"))
    }

    async fn take_snapshot(
        &self,
        _: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotReply>, Status> {
        Err(Status::unimplemented("not asked of a peer"))
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
    // The leadership may have been handed over to it; then it leads until it misses the others.
    eventually("a member that does not lead", async || {
        cluster.status(left).await.filter(|status| !status.ready)
    })
    .await;
    let data = TempDir::new().unwrap();
    let mut config = joining(&cluster, 4, data.path());
    let relay = Relay::start(&cluster.address(left)).await;
    let member = unanimo_coordinator::NodeId(left as u64 + 1);
    config.peers.insert(member, relay.address.clone());
    let joiner = Joiner::start(config);
    // A member is there, but it may have missed that the id was used. Who asks again did not believe what it was told.
    let mut asked = relay.asked.subscribe();
    let asked_often = asked.wait_for(|asked| *asked >= 5);
    let keeps_asking = tokio::time::timeout(PATIENCE, asked_often).await.is_ok();
    assert!(keeps_asking, "it keeps asking");
    assert!(!joiner.status().await.waiting_to_form, "it believes a follower");
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
