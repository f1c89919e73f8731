use std::fs;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::start::expected_panics;
use super::strace::{self, Injection, file_of};
use super::{Fault, NemesisError, failed, make_whole, one_process};
use crate::cluster::{Cluster, Member};

/// How long a process may take to write something, and to end once that failed.
const END: Duration = Duration::from_secs(6);
/// Whatever forces something to disk.
const SYNCS: &str = "fsync,fdatasync,sync_file_range";

/// System calls to the disk fail, or take long.
struct Syncs {
    trouble: Trouble,
    begun: Option<Begun>,
    /// How much longer each call takes.
    delay: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// One call does nothing and says so, those after it work: nobody may believe them (R10).
    Error,
    /// Each takes long.
    Stall,
}

struct Begun {
    member: Member,
    process: u32,
    injection: Injection,
    /// Where in the process's log it begins.
    log_from: usize,
}

pub(super) fn all() -> Vec<Box<dyn Fault>> {
    [Trouble::Error, Trouble::Stall]
        .map(|trouble| Box::new(Syncs::new(trouble)) as Box<dyn Fault>)
        .into()
}

impl Trouble {
    /// Which calls it happens to, what, as strace has it, and how much longer they take.
    fn draw(self, random: &mut StdRng) -> (&'static str, String, Duration) {
        match self {
            Self::Error => {
                let calls = [SYNCS, "fdatasync", "pwrite64"].choose(random).copied();
                let number = random.random_range(1..=8);
                let what = format!("error=EIO:when={number}");
                (calls.unwrap_or(SYNCS), what, Duration::ZERO)
            }
            Self::Stall => {
                let delay = Duration::from_millis(random.random_range(300..3000));
                (SYNCS, format!("delay_enter={}", delay.as_micros()), delay)
            }
        }
    }
}

impl Syncs {
    fn new(trouble: Trouble) -> Self {
        Self {
            trouble,
            begun: None,
            delay: Duration::ZERO,
        }
    }
}

impl Fault for Syncs {
    fn may_pass_unnoticed(&self) -> bool {
        self.trouble == Trouble::Stall
    }

    fn name(&self) -> &'static str {
        match self.trouble {
            Trouble::Error => "fsync-error",
            Trouble::Stall => "fsync-stall",
        }
    }

    fn unavailable(&self) -> Option<String> {
        strace::unavailable()
    }

    /// A call is seen when it has returned, so a stall lasts for longer than one.
    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(match self.trouble {
            Trouble::Error => random.random_range(200..2000),
            Trouble::Stall => random.random_range(1500..3000),
        }) + self.delay
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let (member, process) = one_process(cluster, random).await?;
            let (calls, what, delay) = self.trouble.draw(random);
            self.delay = delay;
            let log = cluster.log(member);
            let log_from = fs::read(&log).map_err(failed(log.display()))?.len();
            let injected = log.with_extension(format!("{}.strace", self.name()));
            let injection = Injection::attach(process, calls, &what, injected).await;
            self.begun = Some(Begun {
                member,
                process,
                injection: injection.map_err(failed(member))?,
                log_from,
            });
            Ok(format!("{what} of {calls} of {member} (process {process})"))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some(begun) = self.begun.take() else {
                return Ok(None);
            };
            let Begun { member, process, .. } = begun;
            // A stall is waited for by nobody. Whether a failure ends the process, is the question.
            let ended = match self.trouble {
                Trouble::Error => cluster.wait_for_end(member, END).await.ok(),
                Trouble::Stall => cluster.end_of(member)?,
            };
            let calls = begun.injection.detach().await.map_err(failed(member))?;
            let log = fs::read(cluster.log(member)).map_err(failed("its log"))?;
            let said = log.get(begun.log_from..).map(String::from_utf8_lossy);
            make_whole(cluster, Some(member)).await?;
            let Some(first) = calls.first() else {
                return Ok(None);
            };
            let files = format!(
                "{} calls, the first at {}",
                calls.len(),
                file_of(first).unwrap_or(first)
            );
            let said = said.unwrap_or_default();
            let panics = expected_panics(&said);
            Ok(Some(match (self.trouble, ended) {
                (Trouble::Error, Some(status)) => {
                    format!("{files}; process {process} ended by itself, as it must: {status}{panics}")
                }
                (Trouble::Error, None) => format!("{files}; accepted: process {process} of {member} went on"),
                (Trouble::Stall, Some(status)) => {
                    format!("{files}; process {process} ended by itself: {status}{panics}")
                }
                (Trouble::Stall, None) => format!("{files}; process {process} went on"),
            }))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;

    #[test]
    fn a_stall_lasts_for_longer_than_one_call() {
        for seed in 0..100 {
            let mut random = Seed(seed).stream("stall");
            let mut stall = Syncs::new(Trouble::Stall);
            (_, _, stall.delay) = stall.trouble.draw(&mut random);
            assert!(
                stall.lasts(&mut random) > stall.delay + Duration::from_secs(1),
                "{seed}"
            );
        }
    }
}
