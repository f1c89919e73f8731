use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::saved::Saved;
use super::start::{Came, Start};
use super::{Fault, NemesisError, Target, WHOLE, failed, make_whole, one_of};
use crate::cluster::{Cluster, Member};
use crate::network::{Host, Link, Rule};

/// How long a process may take to find out that its data is old.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a process may take to end in order.
const END: Duration = Duration::from_secs(10);

/// Data of a process is replaced by a copy from some seconds before. The process refuses to go on, or the cluster
/// refuses it. Then it gets its newest data back.
///
/// Of a participant it is the whole data folder: the cluster knows of a later start than the copy. Of a coordinator node
/// it is the log: the node's own table knows of a later term. (A whole folder of a node, log and table of one moment,
/// cannot be noticed by anybody; `docs/durability.md` says so.) The node is cut off from the others meanwhile, so that
/// one that notices nothing does no harm that other checkers would find: this fault says `accepted` itself.
struct OldCopy {
    target: Target,
    taken: Option<Taken>,
}

struct Taken {
    member: Member,
    old: Saved,
    /// What a node had when the copy was taken.
    then: Reached,
}

/// How far a node is.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    term: u64,
    log: u64,
    applied: u64,
}

/// For each kind of process.
pub(super) fn all() -> Vec<Box<dyn Fault>> {
    [Target::Leader, Target::Participant]
        .map(|target| Box::new(OldCopy { target, taken: None }) as Box<dyn Fault>)
        .into()
}

impl Fault for OldCopy {
    fn name(&self) -> &'static str {
        match self.target {
            Target::Participant => "old-copy-participant",
            _ => "old-copy-coordinator",
        }
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        Duration::from_millis(random.random_range(1000..3000))
    }

    fn begin<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
        random: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async move {
            let (member, process) = one_of(cluster, self.target, random).await?;
            let then = reached(cluster, member).await?;
            cluster.kill(member)?;
            let old = Saved::of(cluster, member, part(member)).await;
            let old = old.map_err(failed(format!("a copy of the data of {member}")))?;
            cluster.start_again(member)?;
            cluster.wait_until_whole(WHOLE).await?;
            self.taken = Some(Taken { member, old, then });
            Ok(format!(
                "kill -9 of {member} (process {process}); it goes on, and then {} from before comes back",
                match member {
                    Member::Coordinator(_) => "its log",
                    Member::Participant(_) => "its data folder",
                }
            ))
        }
        .boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        async move {
            let Some(taken) = self.taken.take() else {
                return Ok(None);
            };
            let said = taken.come_back(cluster).await;
            make_whole(cluster).await?;
            said
        }
        .boxed()
    }
}

impl Taken {
    async fn come_back(&self, cluster: &mut Cluster) -> Result<Option<String>, NemesisError> {
        let member = self.member;
        let now = reached(cluster, member).await?;
        // In order, so that the table of a node has everything.
        cluster.terminate(member)?;
        cluster.wait_for_end(member, END).await?;
        let newest = Saved::of(cluster, member, part(member)).await;
        let newest = newest.map_err(failed(format!("a copy of the data of {member}")))?;
        self.old.put_back().await.map_err(failed(member))?;
        let Member::Coordinator(_) = member else {
            let start = Start::of(cluster, member)?;
            return came(cluster, member, &start, &newest).await.map(Some);
        };
        if now.term <= self.then.term || now.applied <= self.then.log {
            // Nothing gives such a copy away, and nothing was lost with it either.
            newest.put_back().await.map_err(failed(member))?;
            return Ok(None);
        }
        cut_off(cluster, member, Rule::cut());
        let said = match Start::of(cluster, member) {
            Ok(start) => came(cluster, member, &start, &newest).await,
            Err(error) => Err(error),
        };
        cut_off(cluster, member, Rule::default());
        let (then, now) = (self.then, now);
        said.map(|said| {
            Some(format!(
                "the copy ends in term {} before entry {}, its table had entry {} of term {}; {said}",
                then.term, then.log, now.applied, now.term
            ))
        })
    }
}

/// Waits for what comes of a start on data that the process must not go on with, in words that checkers know. Puts the
/// newest data back.
pub(super) async fn came(
    cluster: &mut Cluster,
    member: Member,
    start: &Start,
    newest: &Saved,
) -> Result<String, NemesisError> {
    let came = start.came(cluster, PATIENCE).await?;
    cluster.kill(member)?;
    newest.put_back().await.map_err(failed(member))?;
    let said = match came {
        Came::Refused { why, .. } => format!("{member} was refused: {why}"),
        Came::Served => format!("accepted: {member} served as if it had forgotten nothing"),
        Came::Neither => format!("accepted: {member} did not end within {PATIENCE:?}"),
    };
    let panics = start.expected_panics().map_err(failed("its log"))?;
    Ok(said + &panics)
}

/// Which part of its data folder is replaced.
fn part(member: Member) -> &'static str {
    match member {
        Member::Coordinator(_) => "log",
        Member::Participant(_) => "",
    }
}

async fn reached(cluster: &Cluster, member: Member) -> Result<Reached, NemesisError> {
    let Member::Coordinator(node) = member else {
        return Ok(Reached::default());
    };
    let status = cluster.status(node).await;
    let status = status.ok_or_else(|| NemesisError::Other(format!("{member} does not answer")))?;
    Ok(Reached {
        term: status.epoch,
        log: status.last_log_index,
        applied: status.applied_index,
    })
}

/// Sets the rule of every link from and to a process.
fn cut_off(cluster: &Cluster, member: Member, rule: Rule) {
    let network = cluster.network();
    let one = Host::Member(member);
    let others = network.hosts().filter(|host| *host != one);
    let links: Vec<Link> = others
        .flat_map(|host| [Link { from: one, to: host }, Link { from: host, to: one }])
        .collect();
    network.set(&links, rule);
}
