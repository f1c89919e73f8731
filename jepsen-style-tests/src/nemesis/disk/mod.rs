//! What disks do: lose what was not synced, refuse to sync, fill up, forget and mix up bytes, and come back from
//! yesterday.
//!
//! A process that cannot use what it finds has to end, and say why. The faults that let this happen put the right files
//! back and start it again, so that nothing of them is left. Their evidence says `refused`, `served` or `accepted`, and
//! quotes each panic that was to be expected: checkers rely on these words.

mod command;
mod damage;
mod damaged;
mod full;
mod old_copy;
mod power_loss;
mod saved;
mod shutdown;
mod start;
mod strace;
mod syncs;
mod wiped;

use std::time::Duration;

use rand::rngs::StdRng;
use tokio::time::Instant;

use super::target::{Target, process_of};
use super::{Fault, NemesisError, WHOLE};
use crate::cluster::{Cluster, ClusterError, Disk, Member, disks_unavailable};
use crate::network;

/// How long the cluster is waited for before somebody looks whether all its processes run.
const LOOK: Duration = Duration::from_millis(500);

/// Every fault of disks.
pub(super) fn all() -> Vec<Box<dyn Fault>> {
    let mut faults: Vec<Box<dyn Fault>> = Vec::new();
    faults.extend(power_loss::all());
    faults.extend(syncs::all());
    faults.push(Box::new(full::DiskFull::new()));
    faults.extend(damaged::all());
    faults.extend(old_copy::all());
    faults.extend(wiped::all());
    faults
}

/// Why processes have no disks of their own, if so. They have them where the network is our own.
fn no_disks() -> Option<String> {
    network::unavailable().or_else(disks_unavailable)
}

fn disk_of(cluster: &Cluster, member: Member) -> Result<&Disk, NemesisError> {
    cluster
        .disk(member)
        .ok_or_else(|| NemesisError::Other(format!("{member} has no disk of its own")))
}

/// One process, and its number in the system: the leader, another node or a participant, each as often.
async fn one_process(cluster: &Cluster, random: &mut StdRng) -> Result<(Member, u32), NemesisError> {
    let target = Target::any_one(cluster.layout(), random);
    one_of(cluster, target, random).await
}

/// The one process that this target is, and its number in the system.
async fn one_of(
    cluster: &Cluster,
    target: Target,
    random: &mut StdRng,
) -> Result<(Member, u32), NemesisError> {
    let member = target.member(cluster, random).await?;
    Ok((member, process_of(cluster, member)?))
}

/// Starts whatever was killed, and waits until the cluster has its full strength again. This one may have ended by itself,
/// or may still do so once, because of what was done to it. If any other does, it is a find.
async fn make_whole(cluster: &mut Cluster, allowed: Option<Member>) -> Result<(), NemesisError> {
    let deadline = Instant::now() + WHOLE;
    if let Some(allowed) = allowed {
        cluster.let_end(allowed);
    }
    cluster.note_healed();
    loop {
        for member in cluster.layout().members() {
            let ended = cluster.end_of(member)?;
            match ended {
                Some(status) if !cluster.take_may_end(member) => {
                    return Err(ClusterError::Ended { member, status }.into());
                }
                None if cluster.process(member).is_some() => continue,
                Some(_) | None => {}
            }
            cluster.start_again(member)?;
            cluster.note_healed();
        }
        match cluster.wait_until_whole(LOOK).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error.into()),
            Err(_) => {}
        }
    }
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> NemesisError {
    move |error| NemesisError::Other(format!("{what}: {error}"))
}
