//! Raft's messages from the other nodes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{BoxStream, Stream, StreamExt as _};
use openraft::raft::AppendEntriesRequest;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use unanimo_core::ClusterId;
use unanimo_core::mutants::{self, Mutant};
use unanimo_proto::internal as wire;
use unanimo_proto::{ErrorReason, MalformedMessage, check_cluster, refusal};
use wire::raft_server::Raft;
use wire::snapshot_piece::{Header, Piece};

use super::admission::Admission;
use super::convert::{append, election, required_vote, snapshot_meta_from_wire, vote_to_wire};
use super::snapshot_store::{SnapshotFile, SnapshotStore};
use super::state_machine::StateMachine;
use super::type_config::{TypeConfig, Vote};
use super::{Background, NodeId, background};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// Answers the other nodes. A clone is another handle. Its server needs the message limits of the transport.
#[derive(Clone)]
pub(crate) struct RaftService {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) raft: openraft::Raft<TypeConfig, StateMachine>,
    pub(super) snapshots: Arc<SnapshotStore>,
    pub(super) background: Background,
    /// Whether this node answers at all: see [`Replica::admit`](super::Replica::admit).
    pub(super) admission: Arc<Admission>,
    /// Snapshots being received. One is enough, and a second would need as much disk again (R14).
    pub(super) receiving: Arc<Semaphore>,
    /// Set when the replica stops or has failed: a stream whose leader says nothing more would keep its connection
    /// open.
    pub(super) stopping: CancellationToken,
    /// Told when a stream of requests breaks off, as it does when the leader's process dies.
    pub(super) broken: Arc<Notify>,
}

/// Why a stream of requests ended before its time.
type Refusal = Arc<Mutex<Option<Status>>>;

impl RaftService {
    /// Refuses what is meant for somebody else (two nodes may have swapped addresses), and everything as long as this
    /// node is not admitted.
    fn check(&self, cluster: &str, target: u64) -> Result<(), Status> {
        check_cluster(&self.cluster, cluster)?;
        if !self.admission.is_admitted() {
            let message = format!("{} has yet to find out whether it is a new node", self.node);
            return Err(refusal(ErrorReason::Recovering, message));
        }
        if target == self.node.0 {
            return Ok(());
        }
        let message = format!("the message is for {}, this is {}", NodeId(target), self.node);
        Err(refusal(ErrorReason::WrongTarget, message))
    }

    fn append_request(
        &self,
        request: wire::AppendRequest,
    ) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
        self.check(&request.cluster, request.target)?;
        Ok(append::from_wire(request)?)
    }

    /// The requests of a stream up to the first that is refused, which goes to `refusal`.
    fn requests(
        &self,
        stream: Streaming<wire::AppendRequest>,
        refusal: Refusal,
    ) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
        let (service, broken) = (self.clone(), Arc::clone(&self.broken));
        stream
            .inspect(move |request| {
                if request.is_err() {
                    broken.notify_one();
                }
            })
            .take_until(self.stopping.clone().cancelled_owned())
            .map(move |request| request.and_then(|request| service.append_request(request)))
            .scan(refusal, |refusal, request| {
                let request = request.map_err(|status| {
                    *refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
                });
                std::future::ready(request.ok())
            })
    }

    /// Receives a whole snapshot into a file.
    async fn receive(&self, mut pieces: Streaming<wire::SnapshotPiece>) -> Result<(Vote, Snapshot), Status> {
        let header = match pieces.message().await?.and_then(|piece| piece.piece) {
            Some(Piece::Header(header)) => header,
            Some(Piece::Data(_)) | None => return Err(MalformedMessage::Missing { field: "header" }.into()),
        };
        let Header {
            cluster,
            target,
            vote,
            meta,
        } = header;
        self.check(&cluster, target)?;
        let vote = required_vote(vote)?;
        let meta = snapshot_meta_from_wire(meta.ok_or(MalformedMessage::Missing { field: "meta" })?)?;
        if meta
            .last_log_id
            .is_none_or(|last| **last.committed_leader_id() > vote.leader_id.term)
        {
            let message = format!(
                "a leader with the vote {vote} has no snapshot that ends at {:?}",
                meta.last_log_id
            );
            return Err(refusal(ErrorReason::Malformed, message));
        }
        let snapshots = Arc::clone(&self.snapshots);
        let mut incoming = self.blocking(move || snapshots.receive()).await?;
        while let Some(piece) = pieces.message().await? {
            let Some(Piece::Data(data)) = piece.piece else {
                return Err(MalformedMessage::Missing { field: "data" }.into());
            };
            incoming = self
                .blocking(move || incoming.write(&data).map(|()| incoming))
                .await?;
        }
        let snapshot = self.blocking(move || incoming.finish()).await?;
        if snapshot.state().meta() != meta {
            return Err(refusal(
                ErrorReason::Malformed,
                "the snapshot is of another state than announced",
            ));
        }
        Ok((vote, Snapshot { meta, snapshot }))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let done = background::run(self.background, work)
            .await
            .and_then(|result| result);
        done.map_err(|error| {
            tracing::warn!(%error, "a snapshot could not be received");
            Status::unavailable(format!("the snapshot could not be received: {error}"))
        })
    }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    refusal(
        ErrorReason::ShuttingDown,
        format!("this node has stopped: {error}"),
    )
}

#[tonic::async_trait]
impl Raft for RaftService {
    type AppendStream = BoxStream<'static, Result<wire::AppendReply, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let refusal = Refusal::default();
        let requests = self.requests(request.into_inner(), Arc::clone(&refusal));
        let answers: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(self.raft.stream_append(requests));
        let admission = Arc::clone(&self.admission);
        let replies = answers.then(move |answer| {
            let admission = Arc::clone(&admission);
            async move {
                admission.before_answering().await?;
                answer.map(append::answer_to_wire).map_err(stopped)
            }
        });
        // What was refused is told after the answers to what came before it.
        let stopping = self.stopping.clone();
        let last = futures::stream::once(async move {
            let refused = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
            refused
                .or_else(|| stopping.is_cancelled().then(|| stopped("it was shut down")))
                .map(Err)
        });
        Ok(Response::new(
            replies.chain(last.filter_map(std::future::ready)).boxed(),
        ))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteReply>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster, request.target)?;
        let request = election::vote_request_from_wire(request)?;
        let asked = request.vote;
        let mut response = self.raft.vote(request).await.map_err(stopped)?;
        if mutants::is_on(Mutant::M10) {
            (response.vote, response.vote_granted) = (asked, true);
        }
        self.admission.before_answering().await?;
        Ok(Response::new(election::vote_reply_to_wire(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteReply>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster, request.target)?;
        let request = election::vote_request_from_wire(request)?;
        let mut response = self.raft.pre_vote(request).await.map_err(stopped)?;
        if mutants::is_on(Mutant::M10) {
            response.vote_granted = true;
        }
        Ok(Response::new(election::vote_reply_to_wire(&response)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotPiece>>,
    ) -> Result<Response<wire::SnapshotReply>, Status> {
        let Ok(_receiving) = self.receiving.try_acquire() else {
            return Err(refusal(
                ErrorReason::Overloaded,
                "another snapshot is being received",
            ));
        };
        let (vote, snapshot) = self.receive(request.into_inner()).await?;
        tracing::info!(meta = %snapshot.meta, "received a snapshot");
        let response = self
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(stopped)?;
        self.admission.before_answering().await?;
        let vote = Some(vote_to_wire(&response.vote));
        Ok(Response::new(wire::SnapshotReply { vote }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeadershipRequest>,
    ) -> Result<Response<wire::TransferLeadershipReply>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster, request.target)?;
        let request = election::transfer_from_wire(request)?;
        let response = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(Response::new(election::transfer_reply_to_wire(response)))
    }
}
