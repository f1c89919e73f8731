use std::fs;
use std::process::Command;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::target::{Target, names};
use super::{Fault, NemesisError, WHOLE};
use crate::cluster::{Cluster, Member, Surroundings};

/// `kill -9` of some processes, which come back with a monotonic clock far from that before, as after a restart of their
/// machine; and back at the end, killed again.
pub(super) struct MonotonicOffset {
    moved: Vec<Member>,
}

impl MonotonicOffset {
    pub(super) fn new() -> Self {
        Self { moved: Vec::new() }
    }
}

/// What becomes a process whose monotonic clock is off by so many seconds.
fn surroundings(seconds: i64) -> Surroundings {
    let words = [
        "unshare",
        "--time",
        "--monotonic",
        &seconds.to_string(),
        "--boottime",
        &seconds.to_string(),
        "--",
    ];
    Surroundings {
        under: words.map(str::to_owned).to_vec(),
        variables: Vec::new(),
    }
}

impl Fault for MonotonicOffset {
    fn name(&self) -> &'static str {
        "monotonic-offset"
    }

    fn unavailable(&self) -> Option<String> {
        let Surroundings { under, .. } = surroundings(1000);
        let (program, arguments) = under.split_first()?;
        let tried = Command::new(program)
            .args(arguments)
            .args(["readlink", "/proc/self/ns/time"])
            .output();
        match tried {
            Ok(output)
                if output.status.success() && Some(output.stdout.trim_ascii()) != our_time().as_deref() =>
            {
                None
            }
            Ok(output) => Some(format!(
                "time namespaces that begin with a program need root and Linux 5.19: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => Some(format!("the command unshare of util-linux: {error}")),
        }
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(1500..4500))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let targets = [
                Target::Leader,
                Target::Follower,
                Target::Participant,
                Target::Several,
            ];
            let target = targets.choose(random).copied().unwrap_or(Target::Several);
            let mut members = target.members(cluster, random).await?;
            members.sort_unstable();
            let seconds = offset(random);
            cluster.kill_together(&members)?;
            for member in &members {
                cluster.start_in(*member, &surroundings(seconds))?;
            }
            cluster.wait_until_whole(WHOLE).await?;
            let what = format!(
                "kill -9 of {}, back with a monotonic clock {seconds:+} s off",
                names(&members)
            );
            self.moved = members;
            Ok(what)
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let members = std::mem::take(&mut self.moved);
            let seen: Option<Vec<String>> = members
                .iter()
                .map(|member| {
                    let process = cluster.process(*member)?;
                    let offset = offset_of(process)?;
                    Some(format!(
                        "{member} (process {process}) had the monotonic offset {offset} s"
                    ))
                })
                .collect();
            cluster.kill_together(&members)?;
            for member in &members {
                cluster.start_again(*member)?;
            }
            cluster.note_healed();
            cluster.wait_until_whole(WHOLE).await?;
            Ok(seen.filter(|seen| !seen.is_empty()).map(|seen| seen.join(", ")))
        }
        .boxed()
    }
}

/// In seconds: up to months ahead, or back as far as clocks of this machine go.
fn offset(random: &mut StdRng) -> i64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime = uptime
        .split('.')
        .next()
        .and_then(|seconds| seconds.parse::<i64>().ok());
    match uptime {
        // No clock may be below zero.
        Some(uptime) if uptime > 300 && random.random_bool(0.5) => -random.random_range(100..uptime - 100),
        _ => random.random_range(1_000..10_000_000),
    }
}

/// The time namespace that we are in.
fn our_time() -> Option<Vec<u8>> {
    let link = fs::read_link("/proc/self/ns/time").ok()?;
    Some(link.to_str()?.as_bytes().to_vec())
}

/// The offset of the process's monotonic clock in seconds, if it is in a time namespace of its own.
fn offset_of(process: u32) -> Option<i64> {
    let theirs = fs::read_link(format!("/proc/{process}/ns/time")).ok()?;
    if our_time()? == theirs.to_str()?.as_bytes() {
        return None;
    }
    let offsets = fs::read_to_string(format!("/proc/{process}/timens_offsets")).ok()?;
    let line = offsets.lines().find_map(|line| line.strip_prefix("monotonic"))?;
    line.split_whitespace().next()?.parse().ok()
}
