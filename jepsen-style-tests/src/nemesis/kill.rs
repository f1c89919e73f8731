use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::target::{Target, names};
use super::{Fault, NemesisError, WHOLE};
use crate::cluster::{Cluster, Member};

/// `kill -9` of some processes at the same moment. They are started again later, in an order of their own.
pub(super) struct Kill {
    target: Target,
    /// Who was killed and which process it was, in the order in which they are started again.
    killed: Vec<(Member, u32)>,
}

/// Every kill.
pub(super) fn all() -> Vec<Box<dyn Fault>> {
    let targets = [
        Target::Leader,
        Target::Participant,
        Target::Follower,
        Target::Several,
        Target::All,
    ];
    targets
        .into_iter()
        .map(|target| {
            let killed = Vec::new();
            Box::new(Kill { target, killed }) as Box<dyn Fault>
        })
        .collect()
}

impl Fault for Kill {
    fn name(&self) -> &'static str {
        match self.target {
            Target::Leader => "kill-leader",
            Target::Participant => "kill-participant",
            Target::Follower => "kill-follower",
            Target::Several => "kill-several",
            Target::All => "kill-all",
        }
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(match self.target {
            Target::Leader | Target::Participant | Target::Several => random.random_range(200..3000),
            // Long enough to see whether the others go on.
            Target::Follower => random.random_range(200..5500),
            Target::All => random.random_range(0..1500),
        })
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            self.killed.clear();
            let mut members = self.target.members(cluster, random).await?;
            for member in &members {
                let Some(process) = cluster.process(*member) else {
                    return Err(NemesisError::Other(format!("{member} does not run")));
                };
                self.killed.push((*member, process));
            }
            cluster.kill_together(&members)?;
            self.killed.shuffle(random);
            members.sort_unstable();
            Ok(format!("kill -9 of {}", names(&members)))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let killed = std::mem::take(&mut self.killed);
            let mut again = BTreeMap::new();
            for (member, process) in &killed {
                cluster.start_again(*member)?;
                again.insert(*member, (*process, cluster.process(*member)));
            }
            cluster.note_healed();
            cluster.wait_until_whole(WHOLE).await?;
            let told = again.into_iter().map(|(member, (process, again))| {
                let again = again?;
                (again != process).then(|| format!("{member} was process {process} and is process {again}"))
            });
            let told: Option<Vec<String>> = told.collect();
            Ok(told.filter(|told| !told.is_empty()).map(|told| told.join(", ")))
        }
        .boxed()
    }
}
