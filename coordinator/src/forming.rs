//! How nodes that start for the first time become one cluster, and why a node that lost its disk does not (R11).
//!
//! A node that has never been part of a cluster asks every peer in its configuration. Once it has heard from all
//! of them that they are not part of a cluster either, it writes a marker and *waits to form*. The node with the
//! lowest id forms the cluster when all others wait; the others are then contacted by its Raft.
//!
//! A node that is to *join* a cluster waits for the leader's word that its id was never used. Others may not have heard
//! of it yet, or of its removal.
//!
//! A node whose disk was wiped looks new, too. But its peers are part of a cluster that knows it: it must not vote or
//! acknowledge as if it had never promised anything, so it refuses to start. The marker tells it apart from a node that
//! was stopped while the cluster formed: that one has answered nobody, because a second marker is written before the
//! first answer leaves. Peers are asked again until this node is part of the cluster, and if they know better than its
//! markers, they are believed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use unanimo_core::ClusterId;
use unanimo_journal::Disk;
use unanimo_proto::transport::{BadAddress, Connector};
use unanimo_proto::v1::{self, admin_client::AdminClient};

use crate::raft::{NodeId, Replica};

const ASK_EVERY: Duration = Duration::from_millis(100);
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Written once this node has seen that it is new among new nodes.
const WAITING_MARKER: &str = "waiting-to-form";
/// Written once this node is part of a cluster.
const FORMED_MARKER: &str = "formed";

/// Why a node cannot be part of its cluster.
#[derive(Debug, Error)]
pub enum FormingError {
    /// The cluster knows this node, but the node knows nothing.
    #[error(
        "this node's data folder is empty, but the cluster, as {peer} says, already knows a node {node}: its disk was \
         lost or another folder is mounted. A node that forgot its promises must not come back under its id. Mount \
         its own folder, or remove node {node} from the cluster (`unanimo remove-node`) and add this one under a new \
         id (`unanimo add-node`)"
    )]
    Forgot {
        /// This node.
        node: NodeId,
        /// Who knows better.
        peer: String,
    },
    /// The data folder says that this node is part of a cluster, but its log is gone.
    #[error(
        "the data folder says that node {node} is part of a cluster, but its log is empty: files were deleted or \
         replaced. Restore the folder, or remove node {node} from the cluster and add it under a new id"
    )]
    LogIsGone {
        /// This node.
        node: NodeId,
    },
    /// The peers are another cluster, or other nodes.
    #[error("{0}")]
    WrongPeer(String),
    /// An address in the configuration is not one.
    #[error(transparent)]
    BadAddress(#[from] BadAddress),
    /// A marker cannot be written or read.
    #[error("cannot use the data folder: {0}")]
    Disk(#[from] io::Error),
    /// The cluster could not be formed.
    #[error("the cluster could not be formed: {0}")]
    Raft(String),
}

/// Brings one node into its cluster.
pub(crate) struct Forming {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) peers: BTreeMap<NodeId, String>,
    pub(crate) join: bool,
    pub(crate) replica: Replica,
    pub(crate) folder: Arc<dyn Disk>,
    pub(crate) connector: Arc<dyn Connector>,
    /// Set once this node may take part: it was part of the cluster before, or it really is new.
    pub(crate) admitted: Arc<AtomicBool>,
}

/// What a peer says of itself.
enum Peer {
    Silent,
    New { waiting: bool },
    Formed(Word),
}

/// What a peer that is part of a cluster says of this node.
struct Word {
    /// It is among the members.
    lists_us: bool,
    /// Its id was used at some time.
    knows_us: bool,
    /// It has confirmed entries to this peer, so it has, or had, a log.
    heard_us: bool,
    /// The peer leads and has applied everything that was decided before.
    leads: bool,
    /// Whom it takes for the leader.
    leader: Option<(NodeId, String)>,
}

type AdminOf = (NodeId, String, AdminClient<Channel>);

impl Forming {
    /// Returns once this node is part of a cluster. Waits for peers as long as it takes.
    pub(crate) async fn until_formed(self) -> Result<(), FormingError> {
        let marked = self.folder.list()?;
        if !self.replica.is_formed() {
            if marked.iter().any(|name| name == FORMED_MARKER) {
                return Err(FormingError::LogIsGone { node: self.node });
            }
            let knows_it_is_new = marked.iter().any(|name| name == WAITING_MARKER);
            self.find_peers(knows_it_is_new).await?;
        }
        if !marked.iter().any(|name| name == FORMED_MARKER) {
            self.marker(FORMED_MARKER)()?;
        }
        Ok(())
    }

    async fn find_peers(&self, mut knows_it_is_new: bool) -> Result<(), FormingError> {
        let mut others = self.admin_clients()?;
        let mut say_at = Instant::now();
        loop {
            let told = join_all(
                others
                    .iter()
                    .map(|(node, address, client)| self.ask(*node, address, client.clone())),
            );
            let told: Vec<Peer> = told.await.into_iter().collect::<Result<_, _>>()?;
            // Asked before this is looked at: what they have heard of a node that has a log is no wonder.
            if self.replica.is_formed() {
                return Ok(());
            }
            self.check_not_forgotten(&told, &others, knows_it_is_new)?;
            if !knows_it_is_new {
                let all_new = told.iter().all(|peer| matches!(peer, Peer::New { .. }));
                let led = |peer: &Peer| matches!(peer, Peer::Formed(word) if word.leads);
                if (all_new && !self.join) || (self.join && told.iter().any(led)) {
                    self.marker(WAITING_MARKER)()?;
                    knows_it_is_new = true;
                }
            }
            if knows_it_is_new {
                self.admitted.store(true, Ordering::Relaxed);
                self.replica.admit(self.marker(FORMED_MARKER));
            }
            let all_wait = told
                .iter()
                .all(|peer| matches!(peer, Peer::New { waiting: true }));
            let ours_to_form = !self.join && self.peers.keys().next() == Some(&self.node);
            if knows_it_is_new && all_wait && ours_to_form {
                let members = self.peers.clone();
                tracing::info!(nodes = members.len(), "forming the cluster");
                self.replica
                    .form(members)
                    .await
                    .map_err(|error| FormingError::Raft(error.to_string()))?;
                return Ok(());
            }
            if Instant::now() >= say_at {
                self.say_what_is_missing(&told, &others);
                say_at = Instant::now() + SAY_EVERY;
            }
            self.find_leader(&told, &mut others)?;
            sleep(ASK_EVERY).await;
        }
    }

    /// The leader may be a node that was added after this node's configuration was written.
    fn find_leader(&self, told: &[Peer], others: &mut Vec<AdminOf>) -> Result<(), FormingError> {
        for peer in told {
            let Peer::Formed(Word {
                leader: Some((leader, address)),
                ..
            }) = peer
            else {
                continue;
            };
            let known = others.iter().any(|(node, _, _)| node == leader);
            if self.join && !known && *leader != self.node {
                let client = AdminClient::new(self.connector.channel(address)?);
                others.push((*leader, address.clone(), client));
            }
        }
        Ok(())
    }

    fn admin_clients(&self) -> Result<Vec<AdminOf>, FormingError> {
        let others = self.peers.iter().filter(|(node, _)| **node != self.node);
        let client = |(node, address): (&NodeId, &String)| {
            Ok((
                *node,
                address.clone(),
                AdminClient::new(self.connector.channel(address)?),
            ))
        };
        others.map(client).collect()
    }

    async fn ask(
        &self,
        node: NodeId,
        address: &str,
        mut peer: AdminClient<Channel>,
    ) -> Result<Peer, FormingError> {
        let request = v1::GetStatusRequest {
            cluster: self.cluster.to_string(),
            omit_participants: true,
            participants_after: String::new(),
        };
        let status = match timeout(ASK_TIMEOUT, peer.get_status(request)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(error)) if unanimo_proto::definite(&error) => {
                return Err(FormingError::WrongPeer(format!(
                    "{address} is no peer of this node: {}",
                    error.message()
                )));
            }
            Ok(Err(_)) | Err(_) => return Ok(Peer::Silent),
        };
        if status.node != node.0 {
            let found = status.node;
            return Err(FormingError::WrongPeer(format!(
                "the configuration says that {address} is node {node}, but it is node {found}"
            )));
        }
        if !status.formed {
            return Ok(Peer::New {
                waiting: status.waiting_to_form,
            });
        }
        let ours = status.nodes.iter().find(|known| known.node == self.node.0);
        Ok(Peer::Formed(Word {
            lists_us: ours.is_some(),
            knows_us: ours.is_some() || status.known_nodes.contains(&self.node.0),
            heard_us: ours.is_some_and(|ours| ours.confirmed),
            leads: status.ready,
            leader: (status.leader != 0).then_some((NodeId(status.leader), status.leader_address)),
        }))
    }

    /// This node's log is empty. Refuses if a peer knows that it was not always so: before this node has found out that
    /// it is new, any peer that knows it does; afterwards, one that has heard from it, or has seen it removed.
    fn check_not_forgotten(
        &self,
        told: &[Peer],
        others: &[AdminOf],
        knows_it_is_new: bool,
    ) -> Result<(), FormingError> {
        for (peer, (_, address, _)) in told.iter().zip(others) {
            let Peer::Formed(word) = peer else { continue };
            let removed = word.knows_us && !word.lists_us;
            if word.heard_us || removed || (word.knows_us && !knows_it_is_new) {
                return Err(FormingError::Forgot {
                    node: self.node,
                    peer: address.clone(),
                });
            }
        }
        Ok(())
    }

    fn say_what_is_missing(&self, told: &[Peer], others: &[AdminOf]) {
        for (peer, (node, address, _)) in told.iter().zip(others) {
            match peer {
                Peer::Silent => tracing::info!(%node, address, "waiting for a peer that does not answer yet"),
                Peer::Formed(word) if !word.lists_us => {
                    tracing::info!(%node, address, leads = word.leads, "the peer's cluster does not list this node; waiting for its leader, and for `unanimo add-node`");
                }
                Peer::New { .. } | Peer::Formed(_) => {}
            }
        }
    }

    /// Writes a marker, when it is called.
    fn marker(&self, name: &'static str) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let folder = Arc::clone(&self.folder);
        let words = format!("cluster {} node {}\n", self.cluster, self.node);
        move || {
            let file = match folder.create(name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                created => created?,
            };
            file.write_at(words.as_bytes(), 0)?;
            file.sync_all()?;
            folder.sync_directory()
        }
    }
}
