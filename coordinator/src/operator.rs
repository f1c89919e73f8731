//! What an operator asks and tells a running node.

use std::fmt::Write as _;
use std::time::Duration;

use thiserror::Error;
use tonic::Status;
use tonic::transport::Channel;
use unanimo_proto::transport::{BadAddress, Connector, TcpConnector};
use unanimo_proto::v1::{self, admin_client::AdminClient, get_status_reply::Role};

/// How long a command waits. Membership changes wait for the new node to catch up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks and tells one node.
pub struct Operator {
    address: String,
    client: AdminClient<Channel>,
}

/// A command that was not carried out, or of which that is not known.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// The address is not one.
    #[error(transparent)]
    BadAddress(#[from] BadAddress),
    /// The node refused or did not answer.
    #[error("{address}: {message}")]
    Refused {
        /// The node.
        address: String,
        /// Why.
        message: String,
    },
}

impl Operator {
    /// The operator of the node at this address.
    pub fn of(address: &str) -> Result<Self, OperatorError> {
        let channel = TcpConnector::default().channel(address)?;
        Ok(Self {
            address: address.to_owned(),
            client: AdminClient::new(channel),
        })
    }

    async fn bounded<A>(
        &self,
        call: impl Future<Output = Result<tonic::Response<A>, Status>>,
    ) -> Result<A, OperatorError> {
        let refused = |message: String| OperatorError::Refused {
            address: self.address.clone(),
            message,
        };
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(error)) => Err(refused(error.message().to_owned())),
            Err(_) => Err(refused(format!(
                "no answer within {PATIENCE:?}; whether it is done is not known"
            ))),
        }
    }

    /// What the node knows, for people.
    pub async fn status(&self) -> Result<String, OperatorError> {
        let mut client = self.client.clone();
        let mut request = v1::GetStatusRequest::default();
        let mut status = self.bounded(client.get_status(request.clone())).await?;
        // The rest as of the first page; participants page by page.
        while status.more_participants {
            let Some(last) = status.participants.last() else {
                break;
            };
            request.participants_after.clone_from(&last.participant);
            let page = self.bounded(client.get_status(request.clone())).await?;
            // A page without participants is the last one, whatever it says.
            status.more_participants = page.more_participants && !page.participants.is_empty();
            status.participants.extend(page.participants);
        }
        Ok(describe(&status))
    }

    /// Hands leadership to another voter.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), OperatorError> {
        let mut client = self.client.clone();
        let request = v1::TransferLeaderRequest {
            cluster: String::new(),
            to,
        };
        self.bounded(client.transfer_leader(request)).await.map(drop)
    }

    /// Adds a voter.
    pub async fn add_node(&self, node: u64, address: String) -> Result<(), OperatorError> {
        let mut client = self.client.clone();
        let request = v1::AddNodeRequest {
            cluster: String::new(),
            node,
            address,
        };
        self.bounded(client.add_node(request)).await.map(drop)
    }

    /// Removes a voter.
    pub async fn remove_node(&self, node: u64) -> Result<(), OperatorError> {
        let mut client = self.client.clone();
        let request = v1::RemoveNodeRequest {
            cluster: String::new(),
            node,
        };
        self.bounded(client.remove_node(request)).await.map(drop)
    }

    /// Takes a snapshot.
    pub async fn snapshot(&self) -> Result<(), OperatorError> {
        let mut client = self.client.clone();
        self.bounded(client.take_snapshot(v1::TakeSnapshotRequest::default()))
            .await
            .map(drop)
    }
}

fn describe(status: &v1::GetStatusReply) -> String {
    let role = match status.role() {
        Role::Leader if status.ready => "leader",
        Role::Leader => "leader, not ready yet",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
        Role::Unspecified => "unknown",
    };
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "cluster      {}", status.cluster);
    let _ = writeln!(
        text,
        "node         {} ({role}, term {})",
        status.node, status.epoch
    );
    if !status.formed {
        let waits = if status.waiting_to_form {
            "waiting to form a cluster"
        } else {
            "looking for its peers"
        };
        let _ = writeln!(text, "formed       no, {waits}");
    }
    match status.leader {
        0 => drop(writeln!(text, "leader       none known")),
        leader => drop(writeln!(
            text,
            "leader       {leader} at {}",
            status.leader_address
        )),
    }
    let _ = writeln!(
        text,
        "log          last {}, applied {}, snapshot {}, purged {}, {} forced writes",
        status.last_log_index,
        status.applied_index,
        status.snapshot_index,
        status.purged_index,
        status.log_syncs
    );
    let _ = writeln!(
        text,
        "running      {} in flight, {} completing",
        status.in_flight, status.completing
    );
    if status.cluster_time_unix_ms > 0 {
        let _ = writeln!(
            text,
            "time         {} ms, transactions below {} are closed",
            status.cluster_time_unix_ms, status.watermark
        );
    }
    for node in &status.nodes {
        let kind = if node.voter { "voter" } else { "learner" };
        let _ = writeln!(text, "member       {} at {} ({kind})", node.node, node.address);
    }
    for known in &status.participants {
        let _ = writeln!(
            text,
            "participant  {} at {} (start {}, journal {})",
            known.participant, known.address, known.generation, known.position
        );
    }
    text
}
