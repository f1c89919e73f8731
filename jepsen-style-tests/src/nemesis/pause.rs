use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::process::state_of;
use super::target::{Target, names};
use super::{Fault, NemesisError, WHOLE};
use crate::cluster::{Cluster, Member};

/// SIGSTOP of some processes at once for longer than elections take: when they go on, they believe that it is still then.
pub(super) struct Pause {
    target: Target,
    length: Length,
    paused: Vec<Member>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    /// Around what callers wait for.
    Usual,
    /// Longer than leases, elections, and the deadline of every call: 5 s is the longest of them.
    Long,
}

/// Every pause.
pub(super) fn all() -> Vec<Box<dyn Fault>> {
    let pauses = [
        (Target::Leader, Length::Usual),
        (Target::Leader, Length::Long),
        (Target::Participant, Length::Usual),
        (Target::Follower, Length::Usual),
        (Target::Several, Length::Usual),
        (Target::All, Length::Usual),
    ];
    pauses
        .into_iter()
        .map(|(target, length)| {
            let paused = Vec::new();
            Box::new(Pause {
                target,
                length,
                paused,
            }) as Box<dyn Fault>
        })
        .collect()
}

impl Fault for Pause {
    fn name(&self) -> &'static str {
        match (self.target, self.length) {
            (Target::Leader, Length::Usual) => "pause-leader",
            (Target::Leader, Length::Long) => "pause-leader-long",
            (Target::Participant, _) => "pause-participant",
            (Target::Follower, _) => "pause-follower",
            (Target::Several, _) => "pause-several",
            (Target::All, _) => "pause-all",
        }
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(match self.length {
            Length::Usual => random.random_range(1500..6000),
            Length::Long => random.random_range(6000..7500),
        })
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let mut members = self.target.members(cluster, random).await?;
            members.sort_unstable();
            for member in &members {
                cluster.pause(*member)?;
                self.paused.push(*member);
            }
            Ok(format!("SIGSTOP of {}", names(&members)))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let members = std::mem::take(&mut self.paused);
            let stopped = |member: &Member| cluster.process(*member).and_then(state_of) == Some('T');
            let all_stopped = !members.is_empty() && members.iter().all(stopped);
            for member in &members {
                cluster.resume(*member)?;
            }
            cluster.note_healed();
            cluster.wait_until_whole(WHOLE).await?;
            Ok(all_stopped.then(|| format!("in state T until then: {}", names(&members))))
        }
        .boxed()
    }
}
