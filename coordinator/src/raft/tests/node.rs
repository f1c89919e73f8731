//! Nodes over real sockets and disks, in one process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use unanimo_core::table::{Applied, Command};
use unanimo_journal::{Options, RealDisk};
use unanimo_proto::internal::raft_server::RaftServer;
use unanimo_proto::transport::{Keepalive, TcpConnector};
use unanimo_table::{SledOptions, SledTable, Table};

use super::fixture::{cluster_id, contents};
use crate::raft::{
    Background, Leadership, NodeId, ProposeError, Replica, ReplicaOptions, ReplicaParts, ReplicaStatus,
    StartError,
};
use openraft::async_runtime::watch::WatchReceiver as _;

/// Nothing that is waited for takes this long, unless it never comes.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Where a node lives, whether it runs or not.
pub(super) struct Site {
    pub(super) node: NodeId,
    pub(super) address: String,
    pub(super) folder: TempDir,
    pub(super) options: ReplicaOptions,
    listener: Option<TcpListener>,
}

/// A node that runs.
pub(super) struct Node {
    pub(super) replica: Replica,
    pub(super) table: Arc<dyn Table>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Site {
    pub(super) async fn new(number: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let options = ReplicaOptions::new(cluster_id(), NodeId(number), address.clone());
        let folder = tempfile::tempdir().unwrap();
        Self {
            node: NodeId(number),
            address,
            folder,
            options,
            listener: Some(listener),
        }
    }

    pub(super) fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    pub(super) async fn start(&mut self) -> Node {
        self.try_start().await.unwrap()
    }

    pub(super) async fn try_start(&mut self) -> Result<Node, StartError> {
        let opened = SledTable::open(self.path("table"), SledOptions::new("decision")).unwrap();
        let set_aside = opened.set_aside;
        let sled = Arc::new(opened.table);
        let table: Arc<dyn Table> = sled.clone();
        let parts = ReplicaParts {
            log_disk: Arc::new(RealDisk::open(self.path("log")).unwrap()),
            snapshot_disk: Arc::new(RealDisk::open(self.path("snapshots")).unwrap()),
            table: table.clone(),
            connector: TcpConnector::shared(),
            journal_options: Options {
                segment_bytes: 8 * 1024 * 1024,
                max_record_bytes: 4 * 1024 * 1024,
                ..Options::new("raft log")
            },
            background: Background::Threads,
        };
        let (replica, service) = Replica::start(self.options.clone(), parts).await?;
        if set_aside.is_some() {
            sled.rebuilt().unwrap();
        }
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => bind_again(&self.address).await,
        };
        let stop = CancellationToken::new();
        let limit = unanimo_proto::transport::MAX_MESSAGE_BYTES;
        let service = RaftServer::new(service)
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        let serving = Keepalive::default()
            .server()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Ok(Node {
            replica,
            table,
            stop,
            server,
        })
    }
}

/// The node's last connections may hold the address for a moment.
async fn bind_again(address: &str) -> TcpListener {
    let bound = timeout(DEADLINE, async {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    bound.await.unwrap()
}

impl Node {
    /// Stops the node and waits until nothing of it is left.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.replica.shutdown().await;
        timeout(DEADLINE, self.server).await.unwrap().unwrap();
    }

    pub(super) async fn propose(&self, commands: Vec<Command>) -> Result<Vec<Applied>, ProposeError> {
        self.replica.propose(commands).await
    }

    /// Waits until the status is as wanted.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&ReplicaStatus) -> bool) -> ReplicaStatus {
        let mut metrics = self.replica.shared.raft.metrics();
        let reached = timeout(DEADLINE, async {
            loop {
                metrics.borrow_and_update();
                let status = self.replica.status();
                if wanted(&status) {
                    return status;
                }
                metrics.changed().await.unwrap();
            }
        });
        let reached = reached.await;
        reached.unwrap_or_else(|_| panic!("never {what}: {:#?}", self.replica.status()))
    }

    /// Waits until this node has applied what another has.
    pub(super) async fn until_caught_up(&self, with: &Node) {
        let applied = with.replica.status().applied;
        self.until("caught up", |status| status.applied >= applied).await;
    }

    pub(super) fn contents(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        contents(&*self.table)
    }
}

/// The nodes of a cluster; the ones that are stopped have none.
pub(super) struct Cluster {
    pub(super) sites: BTreeMap<u64, Site>,
    pub(super) nodes: BTreeMap<u64, Node>,
}

impl Cluster {
    /// Forms a cluster of `size` nodes, with the options changed.
    pub(super) async fn form(size: u64, change: impl Fn(&mut ReplicaOptions)) -> Self {
        let (mut sites, mut nodes) = (BTreeMap::new(), BTreeMap::new());
        for number in 1..=size {
            let mut site = Site::new(number).await;
            change(&mut site.options);
            let node = site.start().await;
            assert!(!node.replica.is_formed());
            nodes.insert(number, node);
            sites.insert(number, site);
        }
        let members = sites
            .values()
            .map(|site| (site.node, site.address.clone()))
            .collect();
        nodes[&1].replica.form(members).await.unwrap();
        Self { sites, nodes }
    }

    pub(super) async fn start(&mut self, number: u64) -> &Node {
        let site = self.sites.get_mut(&number).unwrap();
        let node = site.start().await;
        self.nodes.insert(number, node);
        &self.nodes[&number]
    }

    pub(super) async fn stop(&mut self, number: u64) {
        self.nodes.remove(&number).unwrap().stop().await;
    }

    pub(super) async fn stop_all(&mut self) {
        for number in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(number).await;
        }
    }

    /// Waits until a node leads and has proved it; returns its number.
    pub(super) async fn leader(&self) -> u64 {
        let led = timeout(DEADLINE, async {
            loop {
                let waits = self.nodes.iter().map(|(number, node)| {
                    let mut leadership = node.replica.leadership();
                    Box::pin(async move {
                        let wait = leadership.wait_for(|now: &Leadership| now.this_node_leads);
                        wait.await.map(|_| *number).unwrap_or(0)
                    })
                });
                let (number, _, _) = futures::future::select_all(waits).await;
                let node = self
                    .nodes
                    .get(&number)
                    .expect("a watch of a replica ends with it");
                if node.replica.read_barrier().await.is_ok() {
                    return number;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        led.await.unwrap()
    }

    /// Waits until all nodes that run have applied the same.
    pub(super) async fn settle(&self) {
        let leader = &self.nodes[&self.leader().await];
        for node in self.nodes.values() {
            node.until_caught_up(leader).await;
        }
    }

    /// Checks that all nodes that run hold the same table.
    pub(super) async fn assert_same(&self) {
        self.settle().await;
        let first = self.nodes.values().next().unwrap().contents();
        for (number, node) in &self.nodes {
            assert!(node.contents() == first, "node {number} holds another table");
        }
    }
}
