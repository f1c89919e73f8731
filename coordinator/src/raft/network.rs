//! Raft's messages to the other nodes.
//!
//! A lost segment can leave an HTTP/2 connection dead while the channel keeps sending calls into it. So there is a
//! deadline for everything that is waited for, keep-alive in the channel itself, and a new channel after a few
//! deadlines in a row.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream, StreamExt as _, once, unfold};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use unanimo_core::ClusterId;
use unanimo_core::mutants::{self, Mutant};
use unanimo_proto::internal as wire;
use unanimo_proto::transport::{Connector, MAX_MESSAGE_BYTES};
use wire::raft_client::RaftClient;

use super::convert::{append, election, required_vote};
use super::snapshot_sender::pieces;
use super::snapshot_store::SnapshotFile;
use super::type_config::{TypeConfig, Vote};
use super::{Background, NodeId};

type RpcError = RPCError<TypeConfig>;
type Answer = StreamAppendResult<TypeConfig>;
type Answers<'a> = BoxStream<'a, Result<Answer, RpcError>>;
type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// Deadlines in a row after which a channel is given up and a new one made.
const TIMEOUTS_PER_CHANNEL: u32 = 3;

/// Makes the clients that openraft talks to other nodes through.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) connector: Arc<dyn Connector>,
    pub(super) background: Background,
    /// How long an answer in a stream may be overdue before the stream is given up. Longer than a stall of the
    /// other node's disk, which costs no more when it is waited for.
    pub(super) answer_timeout: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer {
            network: self.clone(),
            target,
            address: node.addr.clone(),
            client: None,
            timeouts: 0,
        }
    }
}

/// One way to another node, with a channel of its own: openraft asks for one for entries, one for heartbeats, one
/// for votes and one for snapshots, so that none waits for another.
pub(super) struct Peer {
    network: Network,
    target: u64,
    address: String,
    client: Option<RaftClient<Channel>>,
    timeouts: u32,
}

impl Peer {
    fn client(&mut self) -> Result<RaftClient<Channel>, RpcError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let channel = self.network.connector.channel(&self.address);
        let channel = channel.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        let client = RaftClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(self.client.insert(client).clone())
    }

    /// Waits for one call, with a deadline.
    async fn call<T>(
        &mut self,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, RpcError> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(reply)) => {
                self.timeouts = 0;
                Ok(reply)
            }
            Ok(Err(status)) => Err(refused(&status)),
            Err(_) => {
                self.note_timeout();
                Err(self.timed_out(action, limit))
            }
        }
    }

    fn note_timeout(&mut self) {
        self.timeouts += 1;
        if self.timeouts >= TIMEOUTS_PER_CHANNEL {
            self.client = None;
            self.timeouts = 0;
        }
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> RpcError {
        RPCError::Timeout(Timeout {
            action,
            id: self.network.node.0,
            target: self.target,
            timeout,
        })
    }

    /// Asks for a vote, really or only to know.
    async fn ask_for_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
        pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let mut client = self.client()?;
        let message = election::vote_request_to_wire(&request, self.network.cluster.as_str(), self.target);
        let limit = option.soft_ttl();
        let mut message = tonic::Request::new(message);
        message.set_timeout(limit);
        let call = async {
            if pre_vote {
                client.pre_vote(message).await
            } else {
                client.vote(message).await
            }
        };
        let reply = self.call(RPCTypes::Vote, limit, call).await?;
        election::vote_reply_from_wire(reply.into_inner()).map_err(|error| unintelligible(&error))
    }

    /// Opens a stream of entries. The first request is there already: see [`stream_append`](Self::stream_append).
    async fn open_stream<S>(
        &mut self,
        requests: S,
        limit: Duration,
    ) -> Result<(Streaming<wire::AppendReply>, Arc<AtomicU64>), RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static,
    {
        let mut client = self.client()?;
        let sent = Arc::new(AtomicU64::new(0));
        let (cluster, target, counter) = (self.network.cluster.clone(), self.target, Arc::clone(&sent));
        let requests = requests.map(move |request| {
            counter.fetch_add(1, Ordering::Relaxed);
            append::to_wire(request, cluster.as_str(), target)
        });
        let replies = self
            .call(RPCTypes::AppendEntries, limit, client.append(requests))
            .await?;
        Ok((replies.into_inner(), sent))
    }

    async fn stream<S>(&mut self, mut input: S, option: RPCOption) -> Result<Answers<'_>, RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        // The input is asked before anything is connected: openraft waits there after an error, so that a node
        // that is down is not called tens of thousands of times a second.
        let first = if mutants::is_on(Mutant::F3) {
            None
        } else {
            let Some(first) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            Some(first)
        };
        let requests = futures::stream::iter(first).chain(input);
        let (replies, sent) = self.open_stream(requests, option.soft_ttl()).await?;
        let awaited = Awaited {
            peer: self,
            replies,
            sent,
            received: 0,
            ended: false,
        };
        Ok(unfold(awaited, Awaited::next).boxed())
    }
}

/// The answers of one stream, in the order of the requests.
struct Awaited<'a> {
    peer: &'a mut Peer,
    replies: Streaming<wire::AppendReply>,
    sent: Arc<AtomicU64>,
    received: u64,
    ended: bool,
}

impl Awaited<'_> {
    async fn next(mut self) -> Option<(Result<Answer, RpcError>, Self)> {
        if self.ended {
            return None;
        }
        let result = self.receive().await.transpose()?;
        self.ended = !matches!(result, Ok(Ok(_)));
        Some((result, self))
    }

    /// The next answer; none when the other side has ended the stream.
    async fn receive(&mut self) -> Result<Option<Answer>, RpcError> {
        let limit = self.peer.network.answer_timeout;
        // An idle leader sends nothing and gets no answers, so only an answer to what had been sent when the wait
        // began is overdue when it ends.
        let mut owed = self.sent.load(Ordering::Relaxed);
        loop {
            // Cancel safe: what has been received of a message stays in the stream.
            match tokio::time::timeout(limit, self.replies.message()).await {
                Ok(Ok(Some(reply))) => {
                    self.received += 1;
                    self.peer.timeouts = 0;
                    return append::answer_from_wire(reply)
                        .map(Some)
                        .map_err(|error| unintelligible(&error));
                }
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(status)) => return Err(refused(&status)),
                Err(_) if self.received < owed => {
                    self.peer.note_timeout();
                    return Err(self.peer.timed_out(RPCTypes::AppendEntries, limit));
                }
                Err(_) => owed = self.sent.load(Ordering::Relaxed),
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        // One way for all: a single request is a stream of one.
        let single: BoxStream<'static, _> = once(async move { rpc }).boxed();
        let mut answers = RaftNetworkV2::stream_append(self, single, option).await?;
        match answers.next().await {
            Some(answer) => Ok(AppendEntriesResponse::from(answer?)),
            None => Err(RPCError::Network(NetworkError::from_string(
                "the stream ended without an answer",
            ))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<Answers<'s>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(self.stream(input, option))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(rpc, option, false).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(rpc, option, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client()?;
        let pieces = pieces(
            self.network.cluster.clone(),
            self.target,
            vote,
            snapshot,
            self.network.background,
        );
        let sending = self.call(
            RPCTypes::InstallSnapshot,
            option.soft_ttl(),
            client.install_snapshot(pieces),
        );
        // Dropping the call ends it; the receiver throws away what it has.
        let reply = tokio::select! {
            reply = sending => reply?,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let vote = required_vote(reply.into_inner().vote).map_err(|error| unintelligible(&error))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let mut client = self.client()?;
        let message = election::transfer_to_wire(&request, self.network.cluster.as_str(), self.target);
        let call = client.transfer_leader(message);
        let reply = self
            .call(RPCTypes::TransferLeader, option.soft_ttl(), call)
            .await?;
        election::transfer_reply_from_wire(reply.into_inner()).map_err(|error| unintelligible(&error))
    }
}

/// What a refusal means for openraft: nearly always that the node cannot be reached for now, so that it waits.
/// It retries at once only if a connection broke that had worked.
fn refused(status: &Status) -> RpcError {
    if status.code() == Code::Cancelled {
        return RPCError::Network(NetworkError::new(status));
    }
    RPCError::Unreachable(Unreachable::new(status))
}

fn unintelligible(error: &unanimo_proto::MalformedMessage) -> RpcError {
    RPCError::Unreachable(Unreachable::new(error))
}
