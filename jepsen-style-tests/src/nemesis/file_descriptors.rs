use std::fs;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::process::{file_limit, open_files};
use super::target::{Target, process_of};
use super::{Fault, NemesisError, WHOLE};
use crate::cluster::{Cluster, Member};

/// What the system says to whoever opens too much.
const REASON: &str = "Too many open files";
/// As much of its reason as evidence quotes.
const WIDTH: usize = 300;

/// A process that may not open anything any more: its limit of open files is what it uses. It may go on with what it
/// has or end by itself; then it is started again.
pub(super) struct FileDescriptors {
    limited: Option<Limited>,
}

struct Limited {
    member: Member,
    process: u32,
    /// What it may have usually.
    usual: String,
    limit: u64,
    /// Where in its log it begins.
    log_from: usize,
}

impl FileDescriptors {
    pub(super) fn new() -> Self {
        Self { limited: None }
    }
}

impl Fault for FileDescriptors {
    fn name(&self) -> &'static str {
        "file-descriptors"
    }

    fn unavailable(&self) -> Option<String> {
        unavailable()
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(1500..6000))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let target = Target::any_one(cluster.layout(), random);
            let member = target.member(cluster, random).await?;
            let missing = || NemesisError::Other(format!("{member} does not run"));
            let process = process_of(cluster, member)?;
            let usual = file_limit(process).ok_or_else(missing)?;
            let open = open_files(process).map_err(|_| missing())?;
            // The lowest number that is free is the next one it would get. Half of those below stay out of its reach even
            // when it closes some.
            let free = (0..).find(|number| !open.contains(number)).unwrap_or_default();
            let limit = free / 2;
            let log = cluster.log(member);
            let unreadable = |error| NemesisError::Other(format!("{}: {error}", log.display()));
            let log_from =
                usize::try_from(fs::metadata(&log).map_err(unreadable)?.len()).unwrap_or(usize::MAX);
            limit_files(process, &limit.to_string())?;
            let what = format!(
                "{member} (process {process}) may open no file above the {limit}th, and has {}",
                open.len()
            );
            self.limited = Some(Limited {
                member,
                process,
                usual,
                limit,
                log_from,
            });
            Ok(what)
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some(limited) = self.limited.take() else {
                return Ok(None);
            };
            let lifted = limited.lift(cluster).await;
            cluster.note_healed();
            let served = lifted?;
            if let Some(ended) = cluster.whole_but_for(limited.member, WHOLE).await? {
                return limited.ended(cluster, ended).map(Some);
            }
            Ok(served)
        }
        .boxed()
    }
}

impl Limited {
    /// Gives it its usual limit back, and says what the limit did if it still runs.
    async fn lift(&self, cluster: &mut Cluster) -> Result<Option<String>, NemesisError> {
        let Self { member, limit, .. } = *self;
        let was = file_limit(self.process);
        // A new connection is a new file.
        let answers = match member {
            Member::Coordinator(node) => cluster.status(node).await.is_some(),
            Member::Participant(number) => cluster.store_status(number).await.is_some(),
        };
        if cluster.end_of(member)?.is_some() {
            return Ok(None);
        }
        limit_files(self.process, &self.usual)?;
        let limited = was.is_some_and(|now| now == limit.to_string());
        Ok((limited && !answers)
            .then(|| format!("{member} had the limit {limit} until then and took no new connections")))
    }

    /// What its end was: it has to say that it was for want of files.
    fn ended(&self, cluster: &Cluster, ended: ExitStatus) -> Result<String, NemesisError> {
        let member = self.member;
        let said = said_since(cluster, member, self.log_from)?;
        let Some(reason) = said.lines().rev().find(|line| line.contains(REASON)) else {
            let what = format!(
                "{member} ended by itself ({ended}), and does not say that it was for want of open files"
            );
            return Err(NemesisError::Other(what));
        };
        let reason: String = reason.trim().chars().take(WIDTH).collect();
        Ok(format!(
            "{member} was expected to fail and ended by itself: {ended}: {reason}"
        ))
    }
}

/// What it has said since its log was so long.
fn said_since(cluster: &Cluster, member: Member, from: usize) -> Result<String, NemesisError> {
    let log = cluster.log(member);
    let said = fs::read(&log).map_err(|error| NemesisError::Other(format!("{}: {error}", log.display())))?;
    Ok(String::from_utf8_lossy(said.get(from..).unwrap_or_default()).into_owned())
}

/// Why it cannot be done here, if so.
fn unavailable() -> Option<String> {
    let tried = Command::new("prlimit").arg("--version").output();
    tried
        .err()
        .map(|error| format!("the command prlimit of util-linux: {error}"))
}

/// What it may ask for itself stays as it is.
fn limit_files(process: u32, limit: &str) -> Result<(), NemesisError> {
    let output = Command::new("prlimit")
        .args(["--pid", &process.to_string(), &format!("--nofile={limit}:")])
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(NemesisError::Other(format!("the command prlimit: {said}")))
        }
        Err(error) => Err(NemesisError::Other(format!("the command prlimit: {error}"))),
    }
}
