use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::damage::{Damage, Kind};
use super::saved::{Saved, sync};
use super::start::{Came, Start};
use super::{Fault, NemesisError, failed, make_whole, one_process};
use crate::cluster::{Cluster, Member};

/// How long a process may take to refuse damaged files, or to have rebuilt what it can.
const PATIENCE: Duration = Duration::from_secs(8);
/// What a process writes when it takes a damaged table away and builds a new one.
const REBUILT: &str = "rebuilt from";

/// A file of a process is damaged while the process does not run. It refuses to start and says why, and gets its own
/// undamaged files back; or it serves what is right, because it can rebuild the file or nothing of it is read.
struct Damaged {
    kind: Kind,
    started: Option<Started>,
}

struct Started {
    member: Member,
    damage: Damage,
    saved: Saved,
    start: Start,
}

/// Every damage.
pub(super) fn all() -> Vec<Box<dyn Fault>> {
    [Kind::Flip, Kind::Truncate]
        .map(|kind| Box::new(Damaged { kind, started: None }) as Box<dyn Fault>)
        .into()
}

impl Fault for Damaged {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Flip => "bit-flip",
            Kind::Truncate => "truncate",
        }
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
            let (member, process) = one_process(cluster, random).await?;
            cluster.kill_together(&[member])?;
            let saved = Saved::of(cluster, member, "").await;
            let saved = saved.map_err(failed(format!("the data of {member}")))?;
            let damage = Damage::inflict(&cluster.data(member), self.kind, random);
            let damage = damage.map_err(failed(format!("the data of {member}")))?;
            // As if it had happened on the medium.
            sync(&cluster.data(member)).await.map_err(failed(member))?;
            let start = Start::of(cluster, member)?;
            let (file, what) = (damage.file.display(), &damage.what);
            let what = format!("kill -9 of {member} (process {process}); {file}: {what}");
            self.started = Some(Started {
                member,
                damage,
                saved,
                start,
            });
            Ok(what)
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some(started) = self.started.take() else {
                return Ok(None);
            };
            let said = started.came(cluster).await?;
            make_whole(cluster, Some(started.member)).await?;
            let panics = started.start.expected_panics();
            Ok(Some(said + &panics.map_err(failed("its log"))?))
        }
        .boxed()
    }
}

impl Started {
    /// What came of it, in words that checkers know. Puts the undamaged files back where that is right.
    async fn came(&self, cluster: &mut Cluster) -> Result<String, NemesisError> {
        let member = self.member;
        let came = self.start.came(cluster, PATIENCE).await?;
        let said = self.start.said().map_err(failed("its log"))?;
        match came {
            // What it has promised since is not in the undamaged files.
            Came::Refused {
                why,
                after_serving: true,
            } => Err(NemesisError::Other(format!(
                "{member} served with {} damaged, and then ended: {why}",
                self.damage.file.display()
            ))),
            Came::Refused { why, .. } => {
                self.saved.put_back().await.map_err(failed(member))?;
                let named = match self.damage.is_named_in(&why) {
                    true => "",
                    false => ", but does not name the file",
                };
                Ok(format!("{member} refused to start{named}: {why}"))
            }
            // What is damaged and was not read so far may be read later.
            Came::Served => {
                cluster.let_end_some_time(member);
                Ok(match said.contains(REBUILT) {
                    true => format!("{member} served: it had taken the table away and built it again"),
                    false => format!("{member} served, and has what the others have"),
                })
            }
            Came::Neither => {
                let last = said.lines().last().unwrap_or("nothing");
                Err(NemesisError::Other(format!(
                    "{member} neither serves nor refuses to, its last word is: {last}"
                )))
            }
        }
    }
}
