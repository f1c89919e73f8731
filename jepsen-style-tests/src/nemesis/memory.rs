use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::memory_limit::{MemoryLimit, unavailable};
use super::target::{Target, process_of};
use super::{Fault, NemesisError, WHOLE};
use crate::cluster::{Cluster, Member};

/// A process that gets hardly any more memory. It ends in the middle of whatever needed some, which it cannot prevent,
/// and is started again.
pub(super) struct Memory {
    limited: Option<(Member, u32, MemoryLimit)>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { limited: None }
    }
}

/// What came of the limit.
fn came(
    member: Member,
    process: u32,
    ended: Option<ExitStatus>,
    hits: u64,
) -> Result<Option<String>, NemesisError> {
    match (ended, hits) {
        // SIGKILL is how the system ends whoever gets none.
        (Some(ended), 0) if ended.signal() != Some(9) => Err(NemesisError::Other(format!(
            "{member} ended by itself ({ended}), and was never refused memory"
        ))),
        (Some(ended), hits) => Ok(Some(format!(
            "{member} was expected to end by itself and did: {ended}; process {process} was refused memory {hits} times"
        ))),
        // It got by with what it had.
        (None, 0) => Ok(None),
        (None, hits) => Ok(Some(format!(
            "{member} (process {process}) was refused memory {hits} times and went on"
        ))),
    }
}

impl Fault for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn unavailable(&self) -> Option<String> {
        unavailable()
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(1500..5000))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let target = Target::any_one(cluster.layout(), random);
            let member = target.member(cluster, random).await?;
            let process = process_of(cluster, member)?;
            let more = random.random_range(0..64) << 10;
            let limit = MemoryLimit::impose(process, more)
                .map_err(|error| NemesisError::Other(format!("the memory of {member}: {error}")))?;
            self.limited = Some((member, process, limit));
            Ok(format!(
                "{member} (process {process}) gets no more than {} KiB of new memory",
                more >> 10
            ))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some((member, process, mut limit)) = self.limited.take() else {
                return Ok(None);
            };
            let hits = limit.hits();
            limit
                .lift()
                .map_err(|error| NemesisError::Other(format!("the memory of {member}: {error}")))?;
            cluster.note_healed();
            let ended = cluster.whole_but_for(member, WHOLE).await?;
            came(member, process, ended, hits)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_without_a_refusal_is_not_the_limits() {
        let came = |status: Option<i32>, hits| {
            let ended = status.map(ExitStatus::from_raw);
            came(Member::Participant(1), 7, ended, hits)
        };
        // As waitpid has it: 9 is a signal, 0x100 the exit code 1.
        assert!(came(Some(9), 0).unwrap().unwrap().contains("expected to end"));
        assert!(
            came(Some(0x100), 3)
                .unwrap()
                .unwrap()
                .contains("refused memory 3 times")
        );
        assert!(came(Some(0x100), 0).is_err());
        assert_eq!(came(None, 0).unwrap(), None);
        assert!(came(None, 5).unwrap().unwrap().contains("went on"));
    }
}
