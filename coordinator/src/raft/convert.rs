//! Raft's types, to messages and back. The messages are what goes over the wire and what stands on disk, so that
//! no layout of openraft does.

use std::collections::{BTreeMap, BTreeSet};

use openraft::vote::RaftLeaderId as _;
use openraft::{BasicNode, EntryPayload};
use unanimo_proto::MalformedMessage;
use unanimo_proto::internal as wire;

use super::type_config::{
    Commands, Entry, LogId, Membership, Payload, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};

const fn missing(field: &'static str) -> MalformedMessage {
    MalformedMessage::Missing { field }
}

pub(super) fn log_id_to_wire(id: &LogId) -> wire::LogId {
    wire::LogId {
        term: **id.committed_leader_id(),
        index: id.index,
    }
}

pub(super) fn log_id_from_wire(id: wire::LogId) -> LogId {
    LogId::new_term_index(id.term, id.index)
}

pub(super) fn vote_to_wire(vote: &Vote) -> wire::Vote {
    wire::Vote {
        term: vote.leader_id.term,
        node: *vote.leader_id.node_id(),
        committed: vote.committed,
    }
}

pub(super) fn vote_from_wire(vote: wire::Vote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.node)
    } else {
        Vote::new(vote.term, vote.node)
    }
}

pub(super) fn required_vote(vote: Option<wire::Vote>) -> Result<Vote, MalformedMessage> {
    vote.map(vote_from_wire).ok_or(missing("vote"))
}

pub(super) fn membership_to_wire(membership: &Membership) -> wire::Membership {
    wire::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| wire::membership::NodeSet {
                nodes: voters.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| wire::Node {
                id: *id,
                address: node.addr.clone(),
            })
            .collect(),
    }
}

pub(super) fn membership_from_wire(membership: wire::Membership) -> Result<Membership, MalformedMessage> {
    // The empty membership is what a node has before it hears of any.
    if membership.configs.is_empty() && membership.nodes.is_empty() {
        return Ok(Membership::default());
    }
    let configs: Vec<BTreeSet<u64>> = membership
        .configs
        .into_iter()
        .map(|set| set.nodes.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, BasicNode> = membership
        .nodes
        .into_iter()
        .map(|node| (node.id, BasicNode::new(node.address)))
        .collect();
    Membership::new(configs, nodes).map_err(|_| missing("membership.nodes"))
}

pub(super) fn stored_membership_to_wire(stored: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

pub(super) fn stored_membership_from_wire(
    stored: Option<wire::StoredMembership>,
) -> Result<StoredMembership, MalformedMessage> {
    let stored = stored.ok_or(missing("membership"))?;
    let membership = stored.membership.ok_or(missing("membership.membership"))?;
    Ok(StoredMembership::new(
        stored.id.map(log_id_from_wire),
        membership_from_wire(membership)?,
    ))
}

pub(super) fn entry_to_wire(entry: &Entry) -> wire::Entry {
    use wire::entry::{Blank, Payload as Kind};
    let payload = match &entry.payload {
        EntryPayload::Blank => Kind::Blank(Blank {}),
        EntryPayload::Normal(commands) => Kind::Commands(commands.0.clone()),
        EntryPayload::Membership(membership) => Kind::Membership(membership_to_wire(membership)),
    };
    wire::Entry {
        id: Some(log_id_to_wire(&entry.log_id)),
        payload: Some(payload),
    }
}

pub(super) fn entry_from_wire(entry: wire::Entry) -> Result<Entry, MalformedMessage> {
    use wire::entry::Payload as Kind;
    let log_id = entry.id.map(log_id_from_wire).ok_or(missing("entry.id"))?;
    let payload: Payload = match entry.payload.ok_or(missing("entry.payload"))? {
        Kind::Blank(_) => EntryPayload::Blank,
        Kind::Commands(commands) => EntryPayload::Normal(Commands(commands)),
        Kind::Membership(membership) => EntryPayload::Membership(membership_from_wire(membership)?),
    };
    Ok(Entry { log_id, payload })
}

pub(super) fn snapshot_meta_to_wire(meta: &SnapshotMeta) -> wire::SnapshotMeta {
    wire::SnapshotMeta {
        last_log: meta.last_log_id.as_ref().map(log_id_to_wire),
        membership: Some(stored_membership_to_wire(&meta.last_membership)),
    }
}

pub(super) fn snapshot_meta_from_wire(meta: wire::SnapshotMeta) -> Result<SnapshotMeta, MalformedMessage> {
    Ok(SnapshotMeta {
        last_log_id: meta.last_log.map(log_id_from_wire),
        last_membership: stored_membership_from_wire(meta.membership)?,
    })
}

pub(super) mod append {
    //! One message of the append stream, and its answer.

    use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};

    use super::*;

    type Request = AppendEntriesRequest<TypeConfig>;
    type Answer = StreamAppendResult<TypeConfig>;

    pub(in crate::raft) fn to_wire(request: Request, cluster: &str, target: u64) -> wire::AppendRequest {
        wire::AppendRequest {
            cluster: cluster.to_owned(),
            target,
            vote: Some(vote_to_wire(&request.vote)),
            previous: request.prev_log_id.as_ref().map(log_id_to_wire),
            committed: request.leader_commit.as_ref().map(log_id_to_wire),
            entries: request.entries.iter().map(entry_to_wire).collect(),
        }
    }

    /// The entries have to follow each other, or the log would have a hole.
    pub(in crate::raft) fn from_wire(request: wire::AppendRequest) -> Result<Request, MalformedMessage> {
        let prev_log_id = request.previous.map(log_id_from_wire);
        let entries: Vec<Entry> = request
            .entries
            .into_iter()
            .map(entry_from_wire)
            .collect::<Result<_, _>>()?;
        let mut next = prev_log_id.map_or(0, |id| id.index.saturating_add(1));
        for entry in &entries {
            if entry.log_id.index != next {
                return Err(missing("entries"));
            }
            next = next.saturating_add(1);
        }
        Ok(Request {
            vote: required_vote(request.vote)?,
            prev_log_id,
            entries,
            leader_commit: request.committed.map(log_id_from_wire),
        })
    }

    pub(in crate::raft) fn answer_to_wire(answer: Answer) -> wire::AppendReply {
        use wire::append_reply::{Matched, Result as Kind};
        let result = match answer {
            Ok(matched) => Kind::Matched(Matched {
                id: matched.as_ref().map(log_id_to_wire),
            }),
            Err(StreamAppendError::Conflict(at)) => Kind::Conflict(log_id_to_wire(&at)),
            Err(StreamAppendError::HigherVote(vote)) => Kind::HigherVote(vote_to_wire(&vote)),
        };
        wire::AppendReply { result: Some(result) }
    }

    pub(in crate::raft) fn answer_from_wire(reply: wire::AppendReply) -> Result<Answer, MalformedMessage> {
        use wire::append_reply::Result as Kind;
        Ok(match reply.result.ok_or(missing("result"))? {
            Kind::Matched(matched) => Ok(matched.id.map(log_id_from_wire)),
            Kind::Conflict(at) => Err(StreamAppendError::Conflict(log_id_from_wire(at))),
            Kind::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from_wire(vote))),
        })
    }
}

pub(super) mod election {
    //! Asking for votes, and handing the leadership over.

    use openraft::raft::{TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse};
    use openraft::raft::{VoteRequest, VoteResponse};

    use super::*;

    pub(in crate::raft) fn vote_request_to_wire(
        request: &VoteRequest<TypeConfig>,
        cluster: &str,
        target: u64,
    ) -> wire::VoteRequest {
        wire::VoteRequest {
            cluster: cluster.to_owned(),
            target,
            vote: Some(vote_to_wire(&request.vote)),
            last_log: request.last_log_id.as_ref().map(log_id_to_wire),
            leadership_transfer: request.leadership_transfer,
        }
    }

    pub(in crate::raft) fn vote_request_from_wire(
        request: wire::VoteRequest,
    ) -> Result<VoteRequest<TypeConfig>, MalformedMessage> {
        Ok(VoteRequest {
            vote: required_vote(request.vote)?,
            last_log_id: request.last_log.map(log_id_from_wire),
            leadership_transfer: request.leadership_transfer,
        })
    }

    pub(in crate::raft) fn vote_reply_to_wire(response: &VoteResponse<TypeConfig>) -> wire::VoteReply {
        wire::VoteReply {
            vote: Some(vote_to_wire(&response.vote)),
            granted: response.vote_granted,
            last_log: response.last_log_id.as_ref().map(log_id_to_wire),
        }
    }

    pub(in crate::raft) fn vote_reply_from_wire(
        reply: wire::VoteReply,
    ) -> Result<VoteResponse<TypeConfig>, MalformedMessage> {
        let vote = required_vote(reply.vote)?;
        Ok(VoteResponse::new(
            vote,
            reply.last_log.map(log_id_from_wire),
            reply.granted,
        ))
    }

    pub(in crate::raft) fn transfer_to_wire(
        request: &TransferLeaderRequest<TypeConfig>,
        cluster: &str,
        target: u64,
    ) -> wire::TransferLeadershipRequest {
        wire::TransferLeadershipRequest {
            cluster: cluster.to_owned(),
            target,
            from_leader: Some(vote_to_wire(request.from_leader())),
            to: *request.to_node_id(),
            last_log: request.last_log_id().map(log_id_to_wire),
        }
    }

    pub(in crate::raft) fn transfer_from_wire(
        request: wire::TransferLeadershipRequest,
    ) -> Result<TransferLeaderRequest<TypeConfig>, MalformedMessage> {
        Ok(TransferLeaderRequest::new(
            required_vote(request.from_leader)?,
            request.to,
            request.last_log.map(log_id_from_wire),
        ))
    }

    pub(in crate::raft) fn transfer_reply_to_wire(
        response: TransferLeaderResponse<TypeConfig>,
    ) -> wire::TransferLeadershipReply {
        use wire::transfer_leadership_reply::{Accepted, LogBehind, Result as Kind, VoteChanged};
        let result = match response {
            Ok(()) => Kind::Accepted(Accepted {}),
            Err(TransferLeaderError::VoteChanged { expected, actual }) => Kind::VoteChanged(VoteChanged {
                expected: Some(vote_to_wire(&expected)),
                actual: Some(vote_to_wire(&actual)),
            }),
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Kind::LogBehind(LogBehind {
                expected: expected.as_ref().map(log_id_to_wire),
                actual: actual.as_ref().map(log_id_to_wire),
            }),
        };
        wire::TransferLeadershipReply { result: Some(result) }
    }

    pub(in crate::raft) fn transfer_reply_from_wire(
        reply: wire::TransferLeadershipReply,
    ) -> Result<TransferLeaderResponse<TypeConfig>, MalformedMessage> {
        use wire::transfer_leadership_reply::Result as Kind;
        Ok(match reply.result.ok_or(missing("result"))? {
            Kind::Accepted(_) => Ok(()),
            Kind::VoteChanged(changed) => Err(TransferLeaderError::VoteChanged {
                expected: required_vote(changed.expected)?,
                actual: required_vote(changed.actual)?,
            }),
            Kind::LogBehind(behind) => Err(TransferLeaderError::LogNotFlushed {
                expected: behind.expected.map(log_id_from_wire),
                actual: behind.actual.map(log_id_from_wire),
            }),
        })
    }
}
