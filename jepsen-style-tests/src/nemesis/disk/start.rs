use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::{NemesisError, failed};
use crate::cluster::{Cluster, Member};

/// What our processes write before the reason for which they end.
const REASON: &str = "jepsen-style-tests: ";
/// What they write once they take part.
const SERVING: &str = ": serving ";
/// How a log line of a panic inside sled begins: the tables let it happen, and take the table for damaged.
const PANIC: &str = "panicked at";
const SLED: &str = "/sled-0.34";
/// As much of a line as evidence of logs keeps of it, so that both can be compared.
const WIDTH: usize = 500;

/// A start of a process on files that are not the right ones.
pub(super) struct Start {
    member: Member,
    log: PathBuf,
    /// Where in its log this start begins.
    from: u64,
}

/// What came of it.
pub(super) enum Came {
    /// It ended by itself and gave a reason.
    Refused {
        /// The reason.
        why: String,
        /// Whether it said before that it serves.
        after_serving: bool,
    },
    /// It takes part, and has all that the others have.
    Served,
    /// Neither, in time.
    Neither,
}

impl Start {
    /// Starts a process that does not run.
    pub(super) fn of(cluster: &mut Cluster, member: Member) -> Result<Self, NemesisError> {
        let log = cluster.log(member);
        let length = std::fs::metadata(&log).map(|metadata| metadata.len());
        let from = length.map_err(failed(log.display()))?;
        cluster.start_again(member)?;
        Ok(Self { member, log, from })
    }

    /// Waits for what comes of it.
    pub(super) async fn came(&self, cluster: &mut Cluster, within: Duration) -> Result<Came, NemesisError> {
        let deadline = Instant::now() + within;
        loop {
            // Looked at first: who has served and ended since has ended.
            let whole = cluster.wait_until_whole(Duration::ZERO).await.is_ok();
            if let Some(status) = cluster.end_of(self.member)? {
                let said = self.said().map_err(failed(self.log.display()))?;
                let why = said.lines().rev().find_map(|line| line.strip_prefix(REASON));
                return Ok(Came::Refused {
                    why: why.map_or_else(|| format!("no reason, {status}"), str::to_owned),
                    after_serving: said.contains(SERVING),
                });
            }
            if whole {
                return Ok(Came::Served);
            }
            if Instant::now() >= deadline {
                return Ok(Came::Neither);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it has said since.
    pub(super) fn said(&self) -> io::Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut said = Vec::new();
        file.read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// The panics inside sled, which were to be expected, in words that checkers know: nothing if there were none.
    pub(super) fn expected_panics(&self) -> io::Result<String> {
        Ok(expected_panics(&self.said()?))
    }
}

/// So too of any text of a log.
pub(super) fn expected_panics(said: &str) -> String {
    said.lines()
        .filter(|line| line.contains(PANIC) && line.contains(SLED))
        .map(|line| {
            let kept: String = line.trim_end().chars().take(WIDTH).collect();
            format!("; expected panic: {kept}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_panics_inside_sled_are_expected() {
        let ours = "thread 'main' (7) panicked at participant/src/store.rs:1:2:";
        let sled = "thread 'main' (7) panicked at /cargo/sled-0.34.7/src/pagecache/mod.rs:1:2:";
        let said = format!("recovered\n{ours}\n{sled}\nno\n");
        assert_eq!(expected_panics(&said), format!("; expected panic: {sled}"));
        assert_eq!(expected_panics(ours), "");
    }
}
