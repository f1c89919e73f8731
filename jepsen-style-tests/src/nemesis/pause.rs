use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::{Fault, NemesisError};
use crate::cluster::{Cluster, Member};

const ELECTION: Duration = Duration::from_secs(10);

/// SIGSTOP of the leader for longer than every timeout: when it goes on it believes that it still leads.
pub(super) struct Pause {
    paused: Option<Member>,
}

impl Pause {
    pub(super) fn leader() -> Self {
        Self { paused: None }
    }
}

impl Fault for Pause {
    fn name(&self) -> &'static str {
        "pause-leader"
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(2000..6000))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        _: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let member = Member::Coordinator(cluster.wait_for_leader(ELECTION).await?);
            cluster.pause(member)?;
            self.paused = Some(member);
            Ok(format!("SIGSTOP of {member}"))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some(member) = self.paused.take() else {
                return Ok(None);
            };
            let state = cluster.process(member).and_then(state_of);
            cluster.resume(member)?;
            Ok((state == Some('T')).then(|| format!("{member} was in state T until then")))
        }
        .boxed()
    }
}

/// The state of a process as the system has it.
fn state_of(process: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which is in parentheses and may contain anything.
    stat.rsplit_once(") ")?.1.chars().next()
}
