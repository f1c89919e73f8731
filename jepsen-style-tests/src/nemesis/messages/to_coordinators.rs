use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tonic::transport::Channel;
use unanimo_core::{Members, RequestHash};
use unanimo_proto::v1;
use unanimo_proto::v1::coordinator_client::CoordinatorClient;
use unanimo_proto::v1::inquiry_answer::Answer as Told;

use super::answers::{About, Answer};
use super::kept::{Kept, Memory, Message};
use super::{CONCURRENT, PATIENCE, channel, nodes};
use crate::cluster::{CLUSTER, Cluster, Member};
use crate::history::Tx;
use crate::late::{Came, Ended, Reaction};
use crate::nemesis::NemesisError;

/// A message for a coordinator, and the situation it will find.
#[derive(Clone)]
pub(super) struct Letter {
    pub(super) about: About,
    pub(super) transaction: Option<Tx>,
    pub(super) message: ToCoordinator,
}

/// The messages that coordinators take.
#[derive(Clone)]
pub(super) enum ToCoordinator {
    Submit(v1::SubmitRequest),
    Commit(v1::CommitTransactionRequest),
    Abort(v1::AbortTransactionRequest),
    GetOutcome(v1::GetOutcomeRequest),
    Inquire(v1::InquireRequest),
    Register(v1::RegisterRequest),
}

impl ToCoordinator {
    fn method(&self) -> &'static str {
        match self {
            Self::Submit(_) => "Submit",
            Self::Commit(_) => "CommitTransaction",
            Self::Abort(_) => "AbortTransaction",
            Self::GetOutcome(_) => "GetOutcome",
            Self::Inquire(_) => "Inquire",
            Self::Register(_) => "Register",
        }
    }

    /// With another cluster's name on it.
    pub(super) fn of_cluster(mut self, name: &str) -> Self {
        let cluster = match &mut self {
            Self::Submit(message) => &mut message.cluster,
            Self::Commit(message) => &mut message.cluster,
            Self::Abort(message) => &mut message.cluster,
            Self::GetOutcome(message) => &mut message.cluster,
            Self::Inquire(message) => &mut message.cluster,
            Self::Register(message) => &mut message.cluster,
        };
        name.clone_into(cluster);
        self
    }

    async fn send(self, channel: Channel) -> Reaction {
        let mut client = CoordinatorClient::new(channel);
        match self {
            Self::Submit(message) => {
                let reply = client.submit(message).await;
                Reaction::outcome(reply.map(|reply| reply.into_inner().outcome))
            }
            Self::Commit(message) => {
                let reply = client.commit(message).await;
                Reaction::outcome(reply.map(|reply| reply.into_inner().outcome))
            }
            Self::Abort(message) => {
                let reply = client.abort(message).await;
                Reaction::outcome(reply.map(|reply| reply.into_inner().outcome))
            }
            Self::GetOutcome(message) => match client.get_outcome(message).await {
                Ok(reply) => match reply.into_inner().known {
                    Some(v1::get_outcome_reply::Known::Outcome(outcome)) => {
                        Reaction::outcome(Ok(Some(outcome)))
                    }
                    Some(v1::get_outcome_reply::Known::Undecided(_)) => Reaction::Undecided,
                    None => Reaction::Nothing("no outcome".to_owned()),
                },
                Err(status) => Reaction::refusal(&status),
            },
            Self::Inquire(message) => match client.inquire(message).await {
                Ok(reply) => told(reply.into_inner()),
                Err(status) => Reaction::refusal(&status),
            },
            Self::Register(message) => match client.register(message).await {
                Ok(_) => Reaction::Done,
                Err(status) => Reaction::refusal(&status),
            },
        }
    }
}

fn told(reply: v1::InquireReply) -> Reaction {
    let first = reply.answers.into_iter().next();
    match first.and_then(|answer| answer.answer) {
        Some(Told::Committed(_)) => Reaction::Committed,
        Some(Told::Aborted(_)) => Reaction::Aborted,
        Some(Told::Undecided(_)) => Reaction::Undecided,
        Some(Told::Refused(refused)) => Reaction::Refused(refused.reason),
        None => Reaction::Nothing("no answer".to_owned()),
    }
}

/// Sends each to every node, in an order that is drawn, some at once.
pub(super) async fn send(
    cluster: &Cluster,
    letters: &[Letter],
    random: &mut StdRng,
) -> Result<Vec<Answer>, NemesisError> {
    let mut under_way: Vec<BoxFuture<'_, Answer>> = Vec::new();
    for node in nodes(cluster) {
        let channel = channel(cluster, node)?;
        for letter in letters {
            under_way.push(deliver(node, channel.clone(), letter.clone()).boxed());
        }
    }
    under_way.shuffle(random);
    let answers = stream::iter(under_way).buffer_unordered(CONCURRENT);
    Ok(answers.collect().await)
}

async fn deliver(to: Member, channel: Channel, letter: Letter) -> Answer {
    let method = letter.message.method();
    let answered = tokio::time::timeout(PATIENCE, letter.message.send(channel));
    Answer {
        to,
        method,
        about: letter.about,
        transaction: letter.transaction,
        answer: answered
            .await
            .unwrap_or_else(|_| Reaction::Nothing("silence".to_owned())),
    }
}

/// Everything that an initiator or a participant may have said about a decided transaction, as it was and changed.
/// Nothing if it is not known to be decided: then it could still be changed.
pub(super) fn about(memory: &Memory, kept: &Kept, watermark: Option<Tx>) -> Vec<Letter> {
    let Message::Prepare(prepare) = &kept.message else {
        return Vec::new();
    };
    let ended = memory.decision(kept.transaction);
    if ended == Ended::Open {
        return Vec::new();
    }
    let forgotten = watermark > Some(kept.transaction);
    let mut letters = Vec::new();
    let mut add = |came, message| {
        letters.push(Letter {
            about: About {
                came,
                ended,
                forgotten,
            },
            transaction: Some(kept.transaction),
            message,
        });
    };
    if let Some(branches) = memory.request(kept.transaction) {
        let submit = v1::SubmitRequest {
            cluster: CLUSTER.to_owned(),
            transaction: kept.transaction.to_string(),
            branches,
            ..v1::SubmitRequest::default()
        };
        let mut other = submit.clone();
        other.branches[0].operation = bytes::Bytes::from_static(b"\x0a\x02\x0a\x00");
        add(Came::Again, ToCoordinator::Submit(submit));
        add(Came::WithAnotherRequest, ToCoordinator::Submit(other));
    }
    let came = match is_interactive(prepare) {
        true => Came::Again,
        false => Came::WithAnotherRequest,
    };
    let commit = v1::CommitTransactionRequest {
        cluster: CLUSTER.to_owned(),
        transaction: kept.transaction.to_string(),
        participants: prepare.members.clone(),
        voting_timeout_ms: 0,
    };
    add(came, ToCoordinator::Commit(commit));
    let came = match ended {
        Ended::Committed => Came::Contradicting,
        Ended::Aborted | Ended::Open => Came::Again,
    };
    let abort = v1::AbortTransactionRequest {
        cluster: CLUSTER.to_owned(),
        transaction: kept.transaction.to_string(),
        participants: prepare.members.clone(),
    };
    add(came, ToCoordinator::Abort(abort));
    let inquire = |request_hash| {
        ToCoordinator::Inquire(v1::InquireRequest {
            cluster: CLUSTER.to_owned(),
            participant: prepare.participant.clone(),
            inquiries: vec![v1::Inquiry {
                transaction: kept.transaction.to_string(),
                request_hash,
                members: prepare.members.clone(),
            }],
        })
    };
    add(Came::Again, inquire(prepare.request_hash.clone()));
    add(
        Came::WithAnotherRequest,
        inquire(bytes::Bytes::from_static(&[7; 32])),
    );
    letters
}

fn is_interactive(prepare: &v1::PrepareRequest) -> bool {
    let members: Result<Members, _> = prepare.members.iter().map(|name| name.parse()).collect();
    members.is_ok_and(|members| prepare.request_hash == RequestHash::of_members(&members).as_bytes()[..])
}

/// What each participant would say at its start if an earlier life of it began again.
pub(super) async fn old_lives(cluster: &Cluster) -> Vec<Letter> {
    let mut letters = Vec::new();
    let Some(status) = status_of_anyone(cluster).await else {
        return letters;
    };
    for known in status.participants {
        let Some(generation) = known.generation.checked_sub(1) else {
            continue;
        };
        let register = v1::RegisterRequest {
            cluster: CLUSTER.to_owned(),
            participant: known.participant,
            address: known.address,
            generation,
            position: known.position,
        };
        letters.push(Letter {
            about: About::nothing(Came::FromAnOldLife),
            transaction: None,
            message: ToCoordinator::Register(register),
        });
    }
    letters
}

/// Transactions below this one are closed, as far as any node knows.
pub(super) async fn watermark(cluster: &Cluster) -> Option<Tx> {
    let statuses = cluster.addresses().nodes().map(|(node, _)| cluster.status(node));
    let statuses = futures::future::join_all(statuses).await;
    let known = statuses
        .into_iter()
        .flatten()
        .filter_map(|status| status.watermark.parse().ok());
    known.map(Tx).max()
}

/// What the leader says of itself and its participants, or else any node.
async fn status_of_anyone(cluster: &Cluster) -> Option<v1::GetStatusReply> {
    let statuses = cluster.addresses().nodes().map(|(node, _)| cluster.status(node));
    let statuses = futures::future::join_all(statuses).await;
    statuses
        .into_iter()
        .flatten()
        .max_by_key(|status| (status.ready, status.applied_index))
}
