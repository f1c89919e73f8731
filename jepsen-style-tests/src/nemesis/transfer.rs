use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::target::{ELECTION, Target};
use super::{Fault, NemesisError, WHOLE};
use crate::cluster::{Cluster, Member};

/// Leadership handed from one node to another by an operator.
pub(super) struct LeaderTransfer {
    told: Option<String>,
}

impl LeaderTransfer {
    pub(super) fn new() -> Self {
        Self { told: None }
    }
}

impl Fault for LeaderTransfer {
    fn name(&self) -> &'static str {
        "leader-transfer"
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
            let from = cluster.wait_for_leader(ELECTION).await?;
            let before = cluster.status(from).await.map(|status| status.epoch);
            let to = match Target::Follower.members(cluster, random).await?[..] {
                [Member::Coordinator(to)] => to,
                _ => unreachable!("a follower is one node"),
            };
            let after = cluster.transfer_leader(to).await?.epoch;
            cluster.note_healed();
            self.told = before
                .filter(|before| *before < after)
                .map(|before| format!("c{from} led in epoch {before}, c{to} leads in epoch {after}"));
            Ok(format!("leadership handed from c{from} to c{to}"))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            cluster.wait_until_whole(WHOLE).await?;
            Ok(self.told.take())
        }
        .boxed()
    }
}
