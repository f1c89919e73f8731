//! The service of operators.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tonic::{Request, Response, Status};
use unanimo_core::table::Registration;
use unanimo_core::{ClusterId, ParticipantId};
use unanimo_proto::transport::Clock;
use unanimo_proto::v1::{self, admin_server::Admin};
use unanimo_proto::{ErrorReason, MalformedMessage, check_cluster, refusal};

use crate::driver::Driver;
use crate::raft::{NodeId, NodeStatus, Replica, Role};

/// Participants in one reply at most. With the longest names and addresses they take 350 KiB of the 4 MiB that a
/// message may have.
const PARTICIPANTS_PAGE: usize = 1000;

/// Serves `unanimo.v1.Admin`. Every call is answered by the node it reaches; one that only the leader can carry
/// out is refused with the leader's address.
pub(crate) struct AdminService {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) replica: Replica,
    pub(crate) driver: Driver,
    pub(crate) admitted: Arc<AtomicBool>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl AdminService {
    /// An operator who names no cluster means this one.
    fn check(&self, claimed: &str) -> Result<(), Status> {
        if claimed.is_empty() {
            Ok(())
        } else {
            check_cluster(&self.cluster, claimed)
        }
    }

    /// A page of participants, and whether there are more.
    fn participants(
        &self,
        asked: &v1::GetStatusRequest,
    ) -> Result<(Vec<v1::ParticipantStatus>, bool), Status> {
        if asked.omit_participants {
            return Ok((Vec::new(), false));
        }
        let after = match asked.participants_after.as_str() {
            "" => None,
            name => Some(ParticipantId::new(name).map_err(MalformedMessage::from)?),
        };
        let page = self
            .replica
            .registrations(after.as_ref(), PARTICIPANTS_PAGE + 1)
            .map_err(Self::bad_state)?;
        let more = page.len() > PARTICIPANTS_PAGE;
        let participant = |(name, known): (ParticipantId, Registration)| v1::ParticipantStatus {
            participant: name.to_string(),
            address: known.address,
            generation: known.witness.generation.0,
            position: known.witness.position.0,
        };
        let page = page.into_iter().take(PARTICIPANTS_PAGE).map(participant);
        Ok((page.collect(), more))
    }

    fn bad_state(error: impl std::fmt::Display) -> Status {
        refusal(ErrorReason::BadState, error.to_string())
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusReply>, Status> {
        use v1::get_status_reply::Role as WireRole;
        let request = request.into_inner();
        self.check(&request.cluster)?;
        let (participants, more_participants) = self.participants(&request)?;
        let status = self.replica.status();
        let load = self.driver.load();
        let horizon = self.driver.horizon()?;
        let role = match status.role {
            Role::Leader => WireRole::Leader,
            Role::Follower => WireRole::Follower,
            Role::Candidate => WireRole::Candidate,
            Role::Learner => WireRole::Learner,
            Role::Stopped => WireRole::Stopped,
        };
        let (leader, leader_address) = status
            .leader
            .map_or((0, String::new()), |leader| (leader.node.0, leader.address));
        let node = |known: NodeStatus| v1::NodeStatus {
            node: known.node.0,
            address: known.address,
            voter: known.voter,
            confirmed: known.matched.is_some(),
        };
        Ok(Response::new(v1::GetStatusReply {
            cluster: self.cluster.to_string(),
            node: self.node.0,
            formed: self.replica.is_formed(),
            role: role.into(),
            epoch: status.term,
            leader,
            leader_address,
            last_log_index: status.last_log.unwrap_or_default(),
            applied_index: status.applied.unwrap_or_default(),
            snapshot_index: status.snapshot.unwrap_or_default(),
            purged_index: status.purged.unwrap_or_default(),
            nodes: status.nodes.into_iter().map(node).collect(),
            known_nodes: status.known_nodes.into_iter().map(|node| node.0).collect(),
            in_flight: load.in_flight as u64,
            completing: load.completing as u64,
            participants,
            more_participants,
            log_syncs: status.log_syncs,
            since_quorum_ms: status.since_quorum_ms.unwrap_or_default(),
            waiting_to_form: !self.replica.is_formed() && self.admitted.load(Ordering::Relaxed),
            ready: self.driver.is_ready(),
            wall_clock_unix_ms: self.clock.now().unix_ms(),
            cluster_time_unix_ms: horizon.time.unix_ms(),
            watermark: horizon.watermark.to_string(),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster)?;
        self.replica
            .transfer_leader(NodeId(request.to))
            .await
            .map_err(Self::bad_state)?;
        Ok(Response::new(v1::TransferLeaderReply {
            cluster: self.cluster.to_string(),
        }))
    }

    async fn add_node(
        &self,
        request: Request<v1::AddNodeRequest>,
    ) -> Result<Response<v1::AddNodeReply>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster)?;
        self.replica
            .add_node(NodeId(request.node), request.address)
            .await
            .map_err(Self::bad_state)?;
        Ok(Response::new(v1::AddNodeReply {
            cluster: self.cluster.to_string(),
        }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeReply>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster)?;
        self.replica
            .remove_node(NodeId(request.node))
            .await
            .map_err(Self::bad_state)?;
        Ok(Response::new(v1::RemoveNodeReply {
            cluster: self.cluster.to_string(),
        }))
    }

    async fn take_snapshot(
        &self,
        request: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotReply>, Status> {
        self.check(&request.get_ref().cluster)?;
        self.replica.take_snapshot().await.map_err(Self::bad_state)?;
        Ok(Response::new(v1::TakeSnapshotReply {
            cluster: self.cluster.to_string(),
        }))
    }
}
