use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::{Fault, NemesisError, disk_of, failed, make_whole, no_disks, one_process};
use crate::cluster::{Cluster, Member};

/// Takes all the room of a process's disk for a while. The process waits for room or ends; whatever it had said must
/// be there.
pub(super) struct DiskFull {
    filled: Option<Filled>,
}

struct Filled {
    member: Member,
    process: u32,
    filler: PathBuf,
    bytes: u64,
    since: Instant,
}

impl DiskFull {
    pub(super) fn new() -> Self {
        Self { filled: None }
    }
}

impl Fault for DiskFull {
    fn name(&self) -> &'static str {
        "disk-full"
    }

    fn unavailable(&self) -> Option<String> {
        no_disks()
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(500..3000))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let (member, process) = one_process(cluster, random).await?;
            let filler = disk_of(cluster, member)?.folder().join("filler");
            let filling = filler.clone();
            let filled = tokio::task::spawn_blocking(move || fill(&filling)).await;
            let filled = filled.unwrap_or_else(|error| Err(io::Error::other(error)));
            if filled.is_err() {
                remove(&filler).map_err(failed(filler.display()))?;
            }
            let bytes = filled.map_err(failed(format!("the filler of {member}")))?;
            self.filled = Some(Filled {
                member,
                process,
                filler,
                bytes,
                since: Instant::now(),
            });
            Ok(format!("the disk of {member} is full"))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some(filled) = self.filled.take() else {
                return Ok(None);
            };
            let (member, process) = (filled.member, filled.process);
            let full_still = is_full(&filled.filler);
            remove(&filled.filler).map_err(failed(filled.filler.display()))?;
            let ended = cluster.end_of(member)?;
            make_whole(cluster, Some(member)).await?;
            let how = match (ended, full_still) {
                (Some(status), _) => format!("process {process} ended by itself, as it may: {status}"),
                (None, true) => format!("process {process} went on, and there was still no room at the end"),
                (None, false) => format!("process {process} went on with what room it had made itself"),
            };
            Ok(Some(format!(
                "{} more bytes and the disk of {member} said that no room is left; {:?} long; {how}",
                filled.bytes,
                filled.since.elapsed()
            )))
        }
        .boxed()
    }
}

/// Takes all the room that is left, to the last byte. Returns how much it was.
fn fill(filler: &Path) -> io::Result<u64> {
    let mut file = File::create(filler)?;
    let mut block = vec![0; 1 << 20];
    let mut bytes = 0;
    while !block.is_empty() {
        match file.write(&block) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes += written as u64,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => block.truncate(block.len() / 2),
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn is_full(filler: &Path) -> bool {
    let more = File::options()
        .append(true)
        .open(filler)
        // More than may be left in the last block of a file.
        .and_then(|mut file| file.write_all(&[0; 8192]));
    more.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
}

fn remove(filler: &Path) -> io::Result<()> {
    match fs::remove_file(filler) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
