//! Passes calls on from a follower to the leader, so that any node serves any call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use unanimo_proto::transport::{Connector, MAX_MESSAGE_BYTES};
use unanimo_proto::v1::coordinator_client::CoordinatorClient;

use super::status::no_leader;
use crate::raft::{NodeId, Replica};

/// Marks a call that was passed on once. It is not passed on again, so that two nodes that each take the other
/// for the leader do not play ball with it.
pub(super) const FORWARDED: &str = "unanimo-forwarded";
/// The deadline that the caller set, in gRPC's own words; it holds for the whole way.
const DEADLINE: &str = "grpc-timeout";

/// Knows the way to the leader. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Forwarder {
    node: NodeId,
    replica: Replica,
    connector: Arc<dyn Connector>,
    channels: Arc<Mutex<BTreeMap<String, CoordinatorClient<Channel>>>>,
}

impl Forwarder {
    pub(crate) fn new(node: NodeId, replica: Replica, connector: Arc<dyn Connector>) -> Self {
        Self {
            node,
            replica,
            connector,
            channels: Arc::default(),
        }
    }

    /// Has the leader answer a call that came in with `metadata`.
    pub(super) async fn forward<Q, A, F: Future<Output = Result<Response<A>, Status>>>(
        &self,
        metadata: &MetadataMap,
        message: Q,
        call: impl FnOnce(CoordinatorClient<Channel>, Request<Q>) -> F,
    ) -> Result<Response<A>, Status> {
        if metadata.contains_key(FORWARDED) {
            return Err(no_leader());
        }
        let client = self.leader()?;
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert(FORWARDED, tonic::metadata::MetadataValue::from(self.node.0));
        if let Some(deadline) = metadata.get(DEADLINE) {
            request.metadata_mut().insert(DEADLINE, deadline.clone());
        }
        // The leader's own words go back to the caller, its details included.
        call(client, request).await
    }

    fn leader(&self) -> Result<CoordinatorClient<Channel>, Status> {
        let leader = self
            .replica
            .leadership()
            .borrow()
            .leader
            .clone()
            .ok_or_else(no_leader)?;
        if leader.node == self.node {
            // Elected, but not ready yet.
            return Err(no_leader());
        }
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = channels.get(&leader.address) {
            return Ok(client.clone());
        }
        let channel = self
            .connector
            .channel(&leader.address)
            .map_err(|bad| Status::unavailable(bad.to_string()))?;
        let client = CoordinatorClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        channels.insert(leader.address, client.clone());
        Ok(client)
    }
}
