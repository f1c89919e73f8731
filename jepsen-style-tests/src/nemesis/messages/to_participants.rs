use std::time::Duration;

use futures::{StreamExt as _, stream};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tonic::transport::Channel;
use unanimo_proto::v1::participant_client::ParticipantClient;
use unanimo_proto::v1::{AbortRequest, CommitRequest};

use super::answers::{About, Answer};
use super::kept::{Kept, Memory, Message};
use super::{CONCURRENT, PATIENCE, channel, participants};
use crate::cluster::{Cluster, Member};
use crate::late::{Came, Ended, Reaction};
use crate::nemesis::NemesisError;
use crate::store::LATE;

/// A message for a participant, and the situation it will find.
pub(super) struct Letter {
    pub(super) to: Member,
    pub(super) about: About,
    pub(super) kept: Kept,
}

/// Sends all of them, in an order that is drawn, some at once. The answers come in no order.
pub(super) async fn send(
    cluster: &Cluster,
    mut letters: Vec<Letter>,
    random: &mut StdRng,
) -> Result<Vec<Answer>, NemesisError> {
    letters.shuffle(random);
    let mut under_way = Vec::new();
    for letter in letters {
        under_way.push(deliver(channel(cluster, letter.to)?, letter));
    }
    let answers = stream::iter(under_way).buffer_unordered(CONCURRENT);
    Ok(answers.collect().await)
}

async fn deliver(channel: Channel, letter: Letter) -> Answer {
    let mut client = ParticipantClient::new(channel);
    let method = letter.kept.message.method();
    let answered = tokio::time::timeout(PATIENCE, async {
        match letter.kept.message {
            Message::Prepare(message) => Reaction::to_prepare(
                &client
                    .prepare(late(message))
                    .await
                    .map(tonic::Response::into_inner),
            ),
            Message::Commit(message) => Reaction::to_decision(&client.commit(late(message)).await),
            Message::Abort(message) => Reaction::to_decision(&client.abort(late(message)).await),
        }
    });
    Answer {
        to: letter.to,
        method,
        about: letter.about,
        transaction: Some(letter.kept.transaction),
        answer: answered
            .await
            .unwrap_or_else(|_| Reaction::Nothing("silence".to_owned())),
    }
}

/// Marked, so that the tap lets it through.
fn late<M>(message: M) -> tonic::Request<M> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(PATIENCE + Duration::from_secs(1));
    request
        .metadata_mut()
        .insert(LATE, tonic::metadata::MetadataValue::from_static("1"));
    request
}

/// The message again, to whom it was meant for, between once and three times.
pub(super) fn again(
    memory: &Memory,
    process: u32,
    kept: &Kept,
    came: Came,
    random: &mut StdRng,
) -> Vec<Letter> {
    let about = memory.about(kept.to, kept.transaction, came, process);
    (0..random.random_range(1..=3))
        .map(|_| Letter {
            to: kept.to,
            about,
            kept: kept.clone(),
        })
        .collect()
}

/// The message, to each participant that it was not meant for.
pub(super) fn to_the_wrong_one(cluster: &Cluster, kept: &Kept) -> Vec<Letter> {
    let others = participants(cluster).into_iter().filter(|to| *to != kept.to);
    others
        .map(|to| Letter {
            to,
            about: About::nothing(Came::ToTheWrongOne),
            kept: kept.clone(),
        })
        .collect()
}

/// The message as another cluster would send it.
pub(super) fn from_another_cluster(cluster: &str, kept: &Kept) -> Letter {
    Letter {
        to: kept.to,
        about: About::nothing(Came::FromAnotherCluster),
        kept: Kept {
            message: kept.message.clone().of_cluster(cluster),
            ..kept.clone()
        },
    }
}

/// The decision that was not taken, if the participant has acknowledged the other one in this process.
pub(super) fn contradiction(memory: &Memory, process: u32, kept: &Kept) -> Option<Letter> {
    let Message::Prepare(prepare) = &kept.message else {
        return None;
    };
    let about = memory.about(kept.to, kept.transaction, Came::Contradicting, process);
    let voted = matches!(kept.answer.as_str(), "yes" | "no");
    if about.came != Came::Contradicting || !voted {
        return None;
    }
    let message = match about.ended {
        Ended::Open => return None,
        Ended::Committed => Message::Abort(AbortRequest {
            cluster: prepare.cluster.clone(),
            transaction: prepare.transaction.clone(),
            participant: prepare.participant.clone(),
            epoch: prepare.epoch,
            watermark: String::new(),
        }),
        Ended::Aborted => Message::Commit(CommitRequest {
            cluster: prepare.cluster.clone(),
            transaction: prepare.transaction.clone(),
            participant: prepare.participant.clone(),
            request_hash: prepare.request_hash.clone(),
            epoch: prepare.epoch,
            watermark: String::new(),
        }),
    };
    Some(Letter {
        to: kept.to,
        about,
        kept: Kept {
            message,
            ..kept.clone()
        },
    })
}
