//! Notices at once that the leader's process has died, and has this node or another take its place.
//!
//! Raft by itself waits for the leader's lease and an election timeout, about a second, because silence can mean
//! anything. A process that died is not silent: its connections break, and new ones to its address are refused. So
//! every follower keeps a health stream open at its leader. When it breaks, or a stream of the leader's requests does,
//! this node tries to reach the leader, and if the connection is *refused* it starts an election without waiting.
//! Anything else, such as no answer, is left to Raft.
//!
//! This is about time only. An election is safe at any moment: who wins has every committed entry, and a leader that
//! was alive after all steps down. The lease that is passed over keeps nothing right here, because nobody reads by it:
//! see [`Replica::read_barrier`](super::Replica::read_barrier).

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use unanimo_core::ClusterId;
use unanimo_proto::transport::Connector;
use unanimo_proto::v1::{GetStatusRequest, admin_client::AdminClient};

use super::replica::{Metrics, Raft};
use super::type_config::Vote;

/// How long one attempt to reach the leader may take. A refusal comes at once.
const PATIENCE: Duration = Duration::from_millis(200);
/// A process closes its connections one after the other, and its listener may be the last: so many attempts, ...
const ATTEMPTS: u32 = 5;
/// ... and so long between them.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);
/// How long each node waits for those with lower ids to take over. An election takes a few messages and forced writes.
const STAGGER: Duration = Duration::from_millis(100);

/// Watches the leader for one node.
pub(super) struct LeaderWatch {
    pub(super) cluster: ClusterId,
    pub(super) raft: Raft,
    pub(super) connector: Arc<dyn Connector>,
    /// Told when a stream of a leader's requests breaks.
    pub(super) broken: Arc<Notify>,
    pub(super) stopping: CancellationToken,
}

/// The leader that this node follows, and what it would take to succeed it.
#[derive(Clone, Debug, PartialEq)]
struct Followed {
    vote: Vote,
    address: String,
    /// Voters with lower ids than this node, but for the leader.
    ahead: u32,
}

impl LeaderWatch {
    /// Watches until the replica stops.
    pub(super) async fn run(self) {
        let stopping = self.stopping.clone();
        // Whatever is given up in the middle is left to Raft's own timeouts.
        stopping
            .run_until_cancelled(async {
                loop {
                    self.until_broken().await;
                    self.look_after_leader().await;
                }
            })
            .await;
    }

    /// Resolves when a stream from or to the leader has broken.
    async fn until_broken(&self) {
        loop {
            let followed = self.followed();
            let watched = async {
                match &followed {
                    Some(followed) => self.watch_health(&followed.address).await,
                    None => std::future::pending().await,
                }
            };
            // All three only wait; a health stream that is dropped is opened again.
            tokio::select! {
                () = watched => return,
                () = self.broken.notified() => return,
                () = self.until_other_than(followed.as_ref()) => {}
            }
        }
    }

    /// Keeps a health stream open until it breaks.
    async fn watch_health(&self, address: &str) {
        let Ok(channel) = self.connector.channel(address) else {
            return std::future::pending().await;
        };
        let request = HealthCheckRequest::default();
        match HealthClient::new(channel).watch(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                while let Ok(Some(_)) = stream.message().await {}
            }
            // Whoever does not offer it is not watched this way.
            Err(error) if error.code() == Code::Unimplemented => std::future::pending().await,
            Err(_) => sleep(BETWEEN_ATTEMPTS).await,
        }
    }

    /// Resolves when this node follows somebody else, or nobody.
    async fn until_other_than(&self, followed: Option<&Followed>) {
        let mut metrics = self.raft.metrics();
        while self.followed().as_ref() == followed {
            if metrics.changed().await.is_err() {
                // The replica has stopped, and so will we be.
                return std::future::pending().await;
            }
        }
    }

    async fn look_after_leader(&self) {
        let Some(followed) = self.followed() else { return };
        if !self.is_gone(&followed.address).await {
            return;
        }
        sleep(STAGGER * followed.ahead).await;
        if self.followed().as_ref() != Some(&followed) {
            return;
        }
        let (node, leader) = (self.metrics().id, &followed.address);
        tracing::warn!(leader, "the leader's process is gone; electing at once");
        // As if the leader had asked for it: then the others do not wait for its lease to end either.
        let request = TransferLeaderRequest::new(followed.vote, node, None);
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%error, "not elected at once"),
            Err(error) => tracing::debug!(%error, "the replica has stopped"),
        }
    }

    fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    /// None if this node leads, follows nobody, or has no vote.
    fn followed(&self) -> Option<Followed> {
        let metrics = self.metrics();
        let leader = metrics.current_leader.filter(|leader| *leader != metrics.id)?;
        let membership = &metrics.membership_config;
        let address = membership.get_node(&leader)?.addr.clone();
        let voters: Vec<u64> = membership.voter_ids().collect();
        if !voters.contains(&metrics.id) {
            return None;
        }
        let ahead = voters
            .iter()
            .filter(|voter| **voter < metrics.id && **voter != leader);
        Some(Followed {
            vote: metrics.vote,
            address,
            ahead: u32::try_from(ahead.count()).unwrap_or(u32::MAX),
        })
    }

    /// Whether nobody listens at the address any more.
    async fn is_gone(&self, address: &str) -> bool {
        for _ in 0..ATTEMPTS {
            // A new channel each time: one that exists may take a while to find out.
            let Ok(channel) = self.connector.channel(address) else {
                return false;
            };
            let request = GetStatusRequest {
                cluster: self.cluster.to_string(),
                omit_participants: true,
                participants_after: String::new(),
            };
            match timeout(PATIENCE, AdminClient::new(channel).get_status(request)).await {
                Ok(Err(error)) if is_refused(&error) => return true,
                // A process that is about to be gone resets the connection first.
                Ok(Err(_)) => sleep(BETWEEN_ATTEMPTS).await,
                Ok(Ok(_)) | Err(_) => return false,
            }
        }
        false
    }
}

/// Whether the connection was refused, which says that the host is up and nobody listens.
fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        cause = error.source();
    }
    false
}
