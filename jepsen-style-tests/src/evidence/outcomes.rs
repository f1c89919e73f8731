use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;
use tonic::{Request, Status};
use unanimo_core::Decision;
use unanimo_proto::transport::{Connector as _, TcpConnector};
use unanimo_proto::v1::coordinator_client::CoordinatorClient;
use unanimo_proto::v1::{GetOutcomeReply, GetOutcomeRequest, get_outcome_reply::Known};
use unanimo_proto::{ErrorReason, Outcome, reason_of};

use crate::cluster::{CLUSTER, Member};
use crate::history::{Answer, Tx};

/// Outcomes asked for at once, of each node.
const CONCURRENT: usize = 32;
/// How long a follower may take to apply what the leader has told before, and all nodes to answer everything once.
const PATIENCE: Duration = Duration::from_secs(60);
/// What marks a call that is not passed on to the leader: a node answers it for itself.
const OWN_WORD: &str = "unanimo-forwarded";

/// What each node knows of transactions by itself, without asking the leader; and which could not be asked.
///
/// Followers learn of decisions a moment after they were told. So what a node does not know, and another does, is asked
/// for again until the patience is over.
pub(super) async fn of_nodes(
    addresses: &BTreeMap<u64, String>,
    asked: &BTreeSet<Tx>,
) -> (BTreeMap<u64, BTreeMap<Tx, Answer>>, Vec<String>) {
    let deadline = Instant::now() + PATIENCE;
    let (mut known, mut missing) = (BTreeMap::new(), Vec::new());
    for (node, address) in addresses {
        match of_node(address, asked, deadline).await {
            Ok(answers) => drop(known.insert(*node, answers)),
            Err(error) => missing.push(format!("{}: {error}", Member::Coordinator(*node))),
        }
    }
    let open = |known: &BTreeMap<u64, BTreeMap<Tx, Answer>>| {
        let decided = |tx: &&Tx| known.values().any(|answers| answers[tx] != Answer::Undecided);
        let decided: BTreeSet<Tx> = asked.iter().filter(decided).copied().collect();
        let lacks = |answers: &BTreeMap<Tx, Answer>| {
            let lacking = decided.iter().filter(|tx| answers[tx] == Answer::Undecided);
            lacking.copied().collect::<BTreeSet<Tx>>()
        };
        let nodes = known.iter().map(|(node, answers)| (*node, lacks(answers)));
        nodes.filter(|(_, lacks)| !lacks.is_empty()).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = open(&known);
        if open.is_empty() || Instant::now() >= deadline {
            return (known, missing);
        }
        for (node, lacks) in open {
            // A node that does not answer any more has not shown that it knows.
            if let Ok(answers) = of_node(&addresses[&node], &lacks, deadline).await {
                known.entry(node).or_default().extend(answers);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a node knows by itself. Who does not answer one question until the deadline is not asked the others.
async fn of_node(
    address: &str,
    asked: &BTreeSet<Tx>,
    deadline: Instant,
) -> Result<BTreeMap<Tx, Answer>, String> {
    let channel = TcpConnector::default()
        .channel(address)
        .map_err(|error| error.to_string())?;
    let node = CoordinatorClient::new(channel);
    let ask = |tx: Tx| {
        let node = node.clone();
        async move {
            loop {
                match own_word(node.clone(), tx, deadline).await {
                    Ok(answer) => return Ok((tx, answer.unwrap_or(Answer::Undecided))),
                    Err(error) if Instant::now() >= deadline => {
                        return Err(format!("the outcome of {tx}: {error}"));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        }
    };
    stream::iter(asked.iter().copied().map(ask))
        .buffer_unordered(CONCURRENT)
        .try_collect()
        .await
}

/// What the node says of one transaction; none if it knows of no decision.
async fn own_word(
    mut node: CoordinatorClient<Channel>,
    tx: Tx,
    deadline: Instant,
) -> Result<Option<Answer>, Status> {
    let mut request = Request::new(GetOutcomeRequest {
        cluster: CLUSTER.to_owned(),
        transaction: tx.0.to_string(),
    });
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    let marked = tonic::metadata::MetadataValue::from_static("0");
    request.metadata_mut().insert(OWN_WORD, marked);
    match node.get_outcome(request).await {
        Ok(reply) => read(reply.into_inner()),
        Err(refusal) => match reason_of(&refusal) {
            Some(ErrorReason::NoLeader) => Ok(None),
            Some(ErrorReason::Expired) => Ok(Some(Answer::Expired)),
            _ => Err(refusal),
        },
    }
}

fn read(reply: GetOutcomeReply) -> Result<Option<Answer>, Status> {
    match reply.known {
        Some(Known::Outcome(outcome)) => {
            let told =
                Outcome::try_from(Some(outcome)).map_err(|error| Status::internal(error.to_string()))?;
            Ok(Some(match told.0 {
                Decision::Commit => Answer::Committed,
                Decision::Abort(reason) => Answer::Aborted(reason.to_string()),
            }))
        }
        Some(Known::Undecided(_)) => Ok(None),
        None => Err(Status::internal("the reply says nothing")),
    }
}
