//! The coordinator nodes and which of them to try next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tonic::transport::Channel;
use unanimo_proto::transport::{Connector, MAX_MESSAGE_BYTES};
use unanimo_proto::v1::coordinator_client::CoordinatorClient;

use crate::ClientError;

/// One channel for each node, and the one that answered last.
///
/// Any node serves any call, since followers pass it on to the leader, so there is nothing to know but who is
/// alive: stay with the one that answered, move on from one that did not.
#[derive(Clone)]
pub(crate) struct Nodes {
    clients: Arc<[CoordinatorClient<Channel>]>,
    preferred: Arc<AtomicUsize>,
}

impl Nodes {
    pub(crate) fn new(addresses: &[String], connector: &dyn Connector) -> Result<Self, ClientError> {
        if addresses.is_empty() {
            return Err(ClientError::NoCoordinators);
        }
        let client = |address: &String| {
            let channel = connector.channel(address)?;
            Ok(CoordinatorClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES))
        };
        let clients: Result<Arc<[_]>, ClientError> = addresses.iter().map(client).collect();
        Ok(Self {
            clients: clients?,
            preferred: Arc::new(AtomicUsize::new(0)),
        })
    }

    /// The node to try, with its place for [`Nodes::avoid`].
    pub(crate) fn preferred(&self) -> (usize, CoordinatorClient<Channel>) {
        let place = self.preferred.load(Ordering::Relaxed) % self.clients.len();
        (place, self.clients[place].clone())
    }

    /// Moves on to the next node, unless another call has moved on from this one already.
    pub(crate) fn avoid(&self, place: usize) {
        let next = (place + 1) % self.clients.len();
        // Losing this race means that somebody else has moved on: that is as good.
        let _ = self
            .preferred
            .compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}
