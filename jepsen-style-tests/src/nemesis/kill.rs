use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::{Fault, NemesisError};
use crate::cluster::{Cluster, Member};

/// How long an election may take before a leader is looked for in vain.
const ELECTION: Duration = Duration::from_secs(10);

/// `kill -9` of one process, which is started again later.
pub(super) struct Kill {
    target: Target,
    killed: Option<(Member, u32)>,
}

enum Target {
    Leader,
    Participant,
}

impl Kill {
    pub(super) fn leader() -> Self {
        Self {
            target: Target::Leader,
            killed: None,
        }
    }

    pub(super) fn participant() -> Self {
        Self {
            target: Target::Participant,
            killed: None,
        }
    }
}

impl Fault for Kill {
    fn name(&self) -> &'static str {
        match self.target {
            Target::Leader => "kill-leader",
            Target::Participant => "kill-participant",
        }
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(200..3000))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let member = match self.target {
                Target::Leader => Member::Coordinator(cluster.wait_for_leader(ELECTION).await?),
                Target::Participant => {
                    Member::Participant(random.random_range(1..=cluster.layout().participants))
                }
            };
            let Some(process) = cluster.process(member) else {
                return Err(NemesisError::Other(format!("{member} does not run")));
            };
            cluster.kill(member)?;
            self.killed = Some((member, process));
            Ok(format!("kill -9 of {member} (process {process})"))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some((member, process)) = self.killed.take() else {
                return Ok(None);
            };
            cluster.start_again(member)?;
            let again = cluster.process(member);
            Ok(again.map(|again| format!("{member} was process {process} and is process {again}")))
        }
        .boxed()
    }
}
