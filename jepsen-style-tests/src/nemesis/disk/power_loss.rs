use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::shutdown::{self, shut_down};
use super::{Fault, NemesisError, disk_of, failed, make_whole, no_disks, one_process};
use crate::cluster::{Cluster, Disk, Member};

/// Written between the kill and the loss, and never synced: it has to be gone afterwards.
const CANARY: &str = "not-synced";
/// How much of it.
const CANARY_BYTES: usize = 10_000;

/// The power fails: processes are killed, and everything that they have not synced is lost.
struct PowerLoss {
    all: bool,
    off: Vec<Off>,
}

/// A machine without power.
struct Off {
    member: Member,
    process: u32,
    /// What a write said once the file system was shut down, and by which program that was.
    write_said: String,
    by: &'static str,
}

pub(super) fn all() -> Vec<Box<dyn Fault>> {
    [false, true]
        .map(|all| Box::new(PowerLoss { all, off: Vec::new() }) as Box<dyn Fault>)
        .into()
}

impl Fault for PowerLoss {
    fn name(&self) -> &'static str {
        match self.all {
            false => "power-loss",
            true => "power-loss-all",
        }
    }

    fn unavailable(&self) -> Option<String> {
        no_disks().or_else(shutdown::unavailable)
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
            self.off.clear();
            let members = match self.all {
                false => vec![one_process(cluster, random).await?.0],
                true => cluster.layout().members().collect(),
            };
            let lost = self.lose(cluster, &members).await;
            if lost.is_err() {
                restore_power(cluster, &members).await?;
            }
            lost?;
            let names: Vec<String> = members.iter().map(Member::to_string).collect();
            Ok(format!("power loss of {}", names.join(" ")))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let off = std::mem::take(&mut self.off);
            let members: Vec<Member> = off.iter().map(|off| off.member).collect();
            let lost = restore_power(cluster, &members).await?;
            let told = off.iter().zip(lost).map(|(off, lost)| {
                let again = cluster.process(off.member)?;
                let said = (lost && again != off.process).then_some(&off.write_said)?;
                let by = off.by;
                Some(format!(
                    "{} was process {} and is process {again}; its file system was shut down by {by}, and a write said: \
                     {said}",
                    off.member, off.process
                ))
            });
            let told: Option<Vec<String>> = told.collect();
            Ok(told.filter(|told| !told.is_empty()).map(|told| {
                let told = told.join("; ");
                format!("{told}; {CANARY_BYTES} bytes that were not synced are gone from each disk")
            }))
        }
        .boxed()
    }
}

impl PowerLoss {
    async fn lose(&mut self, cluster: &mut Cluster, members: &[Member]) -> Result<(), NemesisError> {
        let mut processes = Vec::new();
        for member in members {
            let process = cluster.process(*member);
            processes.push(process.ok_or_else(|| NemesisError::Other(format!("{member} does not run")))?);
        }
        cluster.kill_together(members)?;
        // Nobody is left who could sync it.
        for member in members {
            let canary = disk_of(cluster, *member)?.folder().join(CANARY);
            fs::write(&canary, [0xA5; CANARY_BYTES]).map_err(failed(canary.display()))?;
        }
        for (member, process) in members.iter().zip(processes) {
            let disk = disk_of(cluster, *member)?;
            let by = shut_down(disk.folder()).await.map_err(failed(member))?;
            let Err(said) = write_once_more(disk.folder()) else {
                let what = format!("{member}: its file system takes writes after it was shut down");
                return Err(NemesisError::Other(what));
            };
            disk.unmount().map_err(failed(member))?;
            self.off.push(Off {
                member: *member,
                process,
                write_said: said.to_string(),
                by,
            });
        }
        Ok(())
    }
}

/// What nobody may be able to do to a file system that was shut down.
fn write_once_more(folder: &Path) -> io::Result<()> {
    let mut file = File::options().append(true).open(folder.join(CANARY))?;
    file.write_all(b"more")?;
    file.sync_all()
}

/// Mounts what is not mounted, starts everybody and waits for them. For each disk: whether its canary was lost.
async fn restore_power(cluster: &mut Cluster, members: &[Member]) -> Result<Vec<bool>, NemesisError> {
    let mut lost = Vec::new();
    for member in members {
        let disk = disk_of(cluster, *member)?;
        lost.push(mount_again(disk).map_err(failed(member))?);
    }
    make_whole(cluster, None).await?;
    Ok(lost)
}

fn mount_again(disk: &Disk) -> io::Result<bool> {
    if disk.device()?.is_none() {
        disk.mount()?;
    }
    let canary = disk.folder().join(CANARY);
    match fs::read(&canary) {
        // The name may have become durable with something else. The bytes must not have.
        Ok(bytes) => {
            fs::remove_file(&canary)?;
            Ok(bytes != [0xA5; CANARY_BYTES])
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}
