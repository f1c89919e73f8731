//! Messages that come late, again, or from somewhere else.
//!
//! The stores keep the calls that coordinators make, and hold some back. What was kept is sent again from here: to whom
//! it was meant for and to others, in any order, in the same life of the process or in a later one. Every answer is
//! counted, and whoever judges it is a checker.

mod answers;
mod foreign;
mod garbage;
mod hold;
mod kept;
mod replay;
mod to_coordinators;
mod to_participants;

use std::time::Duration;

use tonic::transport::Channel;
use unanimo_proto::transport::{Connector as _, TcpConnector};

use super::{Fault, NemesisError};
use crate::cluster::{Cluster, Member};

/// How long the answer to one message is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Messages under way at once.
const CONCURRENT: usize = 16;
/// How long the cluster may take to have its full strength again when a process was started.
const SERVES: Duration = Duration::from_secs(15);

/// Every fault of messages.
pub(super) fn all() -> Vec<Box<dyn Fault>> {
    let shared = kept::Shared::default();
    vec![
        Box::new(hold::Hold::default()),
        Box::new(replay::Replay::soon(shared.clone())),
        Box::new(replay::Replay::after_forgetting(shared.clone())),
        Box::new(foreign::OtherCluster::new(shared)),
        Box::new(garbage::Garbage::default()),
    ]
}

fn channel(cluster: &Cluster, member: Member) -> Result<Channel, NemesisError> {
    TcpConnector::default()
        .channel(cluster.addresses().of(member))
        .map_err(|error| NemesisError::Other(error.to_string()))
}

/// Every participant.
fn participants(cluster: &Cluster) -> Vec<Member> {
    (1..=cluster.layout().participants)
        .map(Member::Participant)
        .collect()
}

/// Every coordinator node.
fn nodes(cluster: &Cluster) -> Vec<Member> {
    let nodes = cluster.addresses().nodes();
    nodes.map(|(node, _)| Member::Coordinator(node)).collect()
}
