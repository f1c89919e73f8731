use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::time::Instant;
use tonic::transport::Channel;
use unanimo_proto::internal::raft_client::RaftClient;
use unanimo_proto::internal::{AppendRequest, LogId, TransferLeadershipRequest, Vote, VoteRequest};
use unanimo_proto::v1::admin_client::AdminClient;
use unanimo_proto::v1::{
    GetOutcomeRequest, RegisterRequest, RemoveNodeRequest, TakeSnapshotRequest, TransferLeaderRequest,
};

use super::answers::{About, Answer, Answers};
use super::kept::{Kept, Memory, Message, Shared};
use super::to_coordinators::{Letter, ToCoordinator};
use super::{PATIENCE, channel, nodes, participants, to_coordinators, to_participants};
use crate::cluster::{Cluster, Member};
use crate::late::{Came, LateAnswers, Reaction};
use crate::nemesis::{Fault, NemesisError};

/// The name of a cluster that is not there.
const ELSEWHERE: &str = "elsewhere";
/// Calls that are sent as if by another cluster.
const CALLS: usize = 30;
/// A term that would end every other one.
const TERM: u64 = 1_000_000;

/// Every participant and every node gets messages of another cluster: of its coordinators, initiators, participants,
/// operators and nodes. All of them are right in everything else.
pub(super) struct OtherCluster {
    shared: Shared,
    /// What is shared, during its turn.
    memory: Memory,
    answers: Answers,
    latest: Option<String>,
}

impl OtherCluster {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            shared,
            memory: Memory::default(),
            answers: Answers::default(),
            latest: None,
        }
    }

    async fn learn(&mut self, cluster: &Cluster) -> Result<(), NemesisError> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            self.memory.refresh(cluster).await?;
            let committed = |kept: &Kept| matches!(kept.message, Message::Commit(_));
            if self.memory.kept().iter().any(committed) || Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What participants and coordinators may be told, with the other name on it.
    async fn letters(
        &self,
        cluster: &Cluster,
        random: &mut StdRng,
    ) -> (Vec<to_participants::Letter>, Vec<Letter>) {
        let kept: Vec<&Kept> = self.memory.kept().choose_multiple(random, CALLS).collect();
        let to_participants = kept
            .iter()
            .map(|kept| to_participants::from_another_cluster(ELSEWHERE, kept))
            .collect();
        let about = About::nothing(Came::FromAnotherCluster);
        let mut letters: Vec<Letter> = kept
            .iter()
            .flat_map(|kept| to_coordinators::about(&self.memory, kept, None))
            .take(CALLS)
            .collect();
        if let Some(kept) = kept.first() {
            letters.push(Letter {
                about,
                transaction: Some(kept.transaction),
                message: ToCoordinator::GetOutcome(GetOutcomeRequest {
                    cluster: String::new(),
                    transaction: kept.transaction.to_string(),
                }),
            });
        }
        letters.extend(newcomers(cluster).into_iter().map(|message| Letter {
            about,
            transaction: None,
            message: ToCoordinator::Register(message),
        }));
        for letter in &mut letters {
            letter.about = about;
            letter.message = letter.message.clone().of_cluster(ELSEWHERE);
        }
        (to_participants, letters)
    }

    /// What happens in one turn, and the same in words.
    async fn send(&mut self, cluster: &Cluster, random: &mut StdRng) -> Result<String, NemesisError> {
        self.latest = None;
        self.learn(cluster).await?;
        let (to_participants, to_coordinators) = self.letters(cluster, random).await;
        let mut answers = Answers::default();
        answers.add(to_participants::send(cluster, to_participants, random).await?);
        answers.add(to_coordinators::send(cluster, &to_coordinators, random).await?);
        for node in nodes(cluster) {
            answers.add(to_node(node, channel(cluster, node)?).await);
        }
        self.latest = answers.to_kept(false).then(|| answers.summary()).flatten();
        self.answers.absorb(answers);
        Ok(format!("messages of the cluster {ELSEWHERE:?} to everybody"))
    }
}

/// Participants of the other cluster that have the names of ours, and lives that are far ahead.
fn newcomers(cluster: &Cluster) -> Vec<RegisterRequest> {
    let participants = participants(cluster).into_iter();
    participants
        .map(|participant| RegisterRequest {
            cluster: String::new(),
            participant: participant.to_string(),
            address: cluster.addresses().of(participant).to_owned(),
            generation: u64::from(u32::MAX) << 32,
            position: u64::MAX,
        })
        .collect()
}

/// What the other cluster's operators and nodes say to a node.
async fn to_node(to: Member, channel: Channel) -> Vec<Answer> {
    let Member::Coordinator(target) = to else {
        return Vec::new();
    };
    let cluster = ELSEWHERE.to_owned();
    let vote = Some(Vote {
        term: TERM,
        node: target % 3 + 1,
        committed: false,
    });
    let request = VoteRequest {
        cluster: cluster.clone(),
        target,
        vote,
        last_log: Some(LogId {
            term: TERM,
            index: TERM,
        }),
        leadership_transfer: true,
    };
    let mut raft = RaftClient::new(channel.clone());
    let mut admin = AdminClient::new(channel);
    let append = AppendRequest {
        cluster: cluster.clone(),
        target,
        vote: vote.map(|vote| Vote {
            committed: true,
            ..vote
        }),
        ..AppendRequest::default()
    };
    let appended = async {
        let replies = raft.clone().append(stream::iter([append])).await?;
        let first = replies.into_inner().next().await;
        first.unwrap_or_else(|| Err(tonic::Status::cancelled("no reply")))
    };
    let transfer = TransferLeadershipRequest {
        cluster: cluster.clone(),
        target,
        ..TransferLeadershipRequest::default()
    };
    let remove = RemoveNodeRequest {
        cluster: cluster.clone(),
        node: target % 3 + 1,
    };
    let lead = TransferLeaderRequest {
        cluster: cluster.clone(),
        to: target % 3 + 1,
    };
    let answers = [
        ("Raft.Append", within(appended).await),
        (
            "Raft.PreVote",
            within(raft.clone().pre_vote(request.clone())).await,
        ),
        ("Raft.Vote", within(raft.clone().vote(request)).await),
        (
            "Raft.TransferLeader",
            within(raft.transfer_leader(transfer)).await,
        ),
        ("RemoveNode", within(admin.clone().remove_node(remove)).await),
        (
            "TransferLeader",
            within(admin.clone().transfer_leader(lead)).await,
        ),
        (
            "TakeSnapshot",
            within(admin.take_snapshot(TakeSnapshotRequest { cluster })).await,
        ),
    ];
    let answer = |(method, answer)| Answer {
        to,
        method,
        about: About::nothing(Came::FromAnotherCluster),
        transaction: None,
        answer,
    };
    answers.into_iter().map(answer).collect()
}

/// That it was done, or not.
async fn within<A>(call: impl Future<Output = Result<A, tonic::Status>>) -> Reaction {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(_)) => Reaction::Done,
        Ok(Err(status)) => Reaction::refusal(&status),
        Err(_) => Reaction::Nothing("silence".to_owned()),
    }
}

impl Fault for OtherCluster {
    fn name(&self) -> &'static str {
        "other-cluster"
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(100..500))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            self.shared.swap(&mut self.memory);
            let begun = self.send(cluster, random).await;
            self.shared.swap(&mut self.memory);
            begun
        }
        .boxed()
    }

    fn end<'a>(&'a mut self, _: &'a mut Cluster) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move { Ok(self.latest.take()) }.boxed()
    }

    fn answers(&self) -> Vec<LateAnswers> {
        self.answers.of(self.name())
    }
}
