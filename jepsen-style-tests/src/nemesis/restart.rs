use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::{Fault, NemesisError, WHOLE};
use crate::cluster::Cluster;

/// SIGTERM of every process, one after the other. Each has to end with 0, and the cluster to have its full strength
/// again before the next one.
pub(super) struct RollingRestart {
    told: Vec<String>,
}

impl RollingRestart {
    pub(super) fn new() -> Self {
        Self { told: Vec::new() }
    }
}

impl Fault for RollingRestart {
    fn name(&self) -> &'static str {
        "rolling-restart"
    }

    fn lasts(&self, _: &mut StdRng) -> Duration {
        Duration::ZERO
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            self.told.clear();
            let mut members: Vec<_> = cluster.layout().members().collect();
            members.shuffle(random);
            for member in members {
                let before = cluster.process(member);
                let ended = cluster.restart(member).await?;
                if !ended.success() {
                    return Err(NemesisError::Other(format!(
                        "{member} ended with {ended} after SIGTERM"
                    )));
                }
                cluster.note_healed();
                cluster.wait_until_whole(WHOLE).await?;
                if let (Some(before), Some(again)) = (before, cluster.process(member)) {
                    self.told
                        .push(format!("{member} was process {before} and is process {again}"));
                }
            }
            Ok("SIGTERM of every process, one after the other; each ended with 0".to_owned())
        }
        .boxed()
    }

    fn end<'a>(&'a mut self, _: &'a mut Cluster) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        let told = std::mem::take(&mut self.told);
        async move { Ok((!told.is_empty()).then(|| told.join(", "))) }.boxed()
    }
}
