use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::saved::{Saved, clear, sync};
use super::start::Start;
use super::{Fault, NemesisError, Target, failed, make_whole, old_copy, one_of};
use crate::cluster::{Cluster, Member};

/// A process comes back under its old name, and its data folder is empty. The cluster refuses it: it has forgotten what
/// it promised. Then it gets its data back.
struct Wiped {
    target: Target,
    started: Option<(Member, Saved, Start)>,
}

/// For each kind of process.
pub(super) fn all() -> Vec<Box<dyn Fault>> {
    [Target::Follower, Target::Participant]
        .map(|target| {
            Box::new(Wiped {
                target,
                started: None,
            }) as Box<dyn Fault>
        })
        .into()
}

impl Fault for Wiped {
    fn name(&self) -> &'static str {
        match self.target {
            Target::Participant => "wiped-participant",
            _ => "wiped-coordinator",
        }
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(0..2000))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let (member, process) = one_of(cluster, self.target, random).await?;
            // So that it is known whom they refuse.
            cluster.wait_until_whole(super::WHOLE).await?;
            cluster.kill_together(&[member])?;
            let saved = Saved::of(cluster, member, "").await.map_err(failed(member))?;
            clear(&cluster.data(member)).map_err(failed(member))?;
            sync(&cluster.data(member)).await.map_err(failed(member))?;
            let start = Start::of(cluster, member)?;
            self.started = Some((member, saved, start));
            Ok(format!(
                "kill -9 of {member} (process {process}), which comes back with an empty data folder"
            ))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some((member, saved, start)) = self.started.take() else {
                return Ok(None);
            };
            let said = old_copy::came(cluster, member, &start, None, &saved).await?;
            make_whole(cluster, None).await?;
            Ok(Some(said))
        }
        .boxed()
    }
}
