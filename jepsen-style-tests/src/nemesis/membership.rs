use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::target::ELECTION;
use super::{Fault, NemesisError, WHOLE};
use crate::cluster::{Cluster, Member};

/// A node replaced, as an operator does it: a new one under a new id joins and votes, the oldest is removed for good,
/// and the participants are restarted with the new addresses. Sometimes the oldest leads, and removes itself.
pub(super) struct Membership {
    told: Option<String>,
}

impl Membership {
    pub(super) fn new() -> Self {
        Self { told: None }
    }
}

impl Fault for Membership {
    fn name(&self) -> &'static str {
        "membership"
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(0..1000))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let oldest = cluster.layout().replaced + 1;
            let leads = cluster.wait_for_leader(ELECTION).await? == oldest;
            if !leads && random.random_bool(0.5) {
                cluster.transfer_leader(oldest).await?;
            }
            let added = cluster.add_node().await?;
            let leader = cluster.wait_for_leader(ELECTION).await?;
            let (removed, ended) = cluster.remove_oldest().await?;
            if !ended.success() {
                return Err(NemesisError::Other(format!(
                    "c{removed}, removed, ended with {ended}"
                )));
            }
            let leading = if removed == leader { ", which led," } else { "" };
            let leader = cluster.wait_for_leader(ELECTION).await?;
            self.told = cluster.status(leader).await.and_then(|status| {
                let is_voter = |id: u64| status.nodes.iter().any(|node| node.node == id && node.voter);
                let known = &status.known_nodes;
                let done = is_voter(added) && !is_voter(removed) && known.contains(&added);
                done.then(|| {
                    format!("c{leader} says: c{added} votes, c{removed} does not; ever known {known:?}")
                })
            });
            Ok(format!("c{added} added, c{removed}{leading} removed"))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let participants: Vec<Member> = (1..=cluster.layout().participants)
                .map(Member::Participant)
                .collect();
            for participant in participants {
                // Otherwise, after a few times, it would know none of the nodes that there are.
                let ended = cluster.restart(participant).await?;
                if !ended.success() {
                    return Err(NemesisError::Other(format!(
                        "{participant} ended with {ended} after SIGTERM"
                    )));
                }
                cluster.note_healed();
                cluster.wait_until_whole(WHOLE).await?;
            }
            Ok(self.told.take())
        }
        .boxed()
    }
}
