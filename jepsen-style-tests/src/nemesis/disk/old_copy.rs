use std::io;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::saved::Saved;
use super::start::{Came, Start};
use super::{Fault, NemesisError, Target, WHOLE, failed, make_whole, one_of};
use crate::cluster::{Cluster, Member};
use crate::evidence::{ParticipantEvidence, read_journal};
use crate::network::{Host, Link, Rule};

/// How long a process may take to find out that its data is old.
const PATIENCE: Duration = Duration::from_secs(8);
/// What a process says that ends because somebody knows better than it: the cluster that it is no newcomer, or that it
/// has started since; its own table what its log lacks.
const REFUSALS: [&str; 4] = [
    "runs from an old copy of its data",
    "data folder is empty, but the cluster",
    "the raft log is older than the decision table",
    "the raft log makes no sense",
];
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
            cluster.kill_together(&[member])?;
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
            make_whole(cluster, None).await?;
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
            return came(cluster, member, &start, Some(&self.old), &newest)
                .await
                .map(Some);
        };
        if now.term <= self.then.term || now.applied <= self.then.log {
            // Nothing gives such a copy away, and nothing was lost with it either.
            newest.put_back().await.map_err(failed(member))?;
            return Ok(None);
        }
        cut_off(cluster, member, Rule::cut());
        let said = match Start::of(cluster, member) {
            Ok(start) => came(cluster, member, &start, Some(&self.old), &newest).await,
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
/// newest data back. `old` is what it started on, none if that was nothing.
pub(super) async fn came(
    cluster: &mut Cluster,
    member: Member,
    start: &Start,
    old: Option<&Saved>,
    newest: &Saved,
) -> Result<String, NemesisError> {
    let came = start.came(cluster, PATIENCE).await?;
    cluster.kill(member)?;
    // What is here now is gone in a moment.
    let written = match member {
        Member::Participant(_) => written_since(old.map(Saved::copied), &cluster.data(member)),
        Member::Coordinator(_) => Ok(None),
    };
    newest.put_back().await.map_err(failed(member))?;
    let said = match (came, written.map_err(failed(format!("the journal of {member}")))?) {
        (_, Some(written)) => format!("accepted: {member}, which has forgotten, {written}"),
        (Came::Refused { why, .. }, None) if is_refusal(&why) => format!("{member} was refused: {why}"),
        (Came::Refused { why, .. }, None) => {
            let what =
                format!("{member} ended, and not because the cluster or its own table knew better: {why}");
            return Err(NemesisError::Other(what));
        }
        (Came::Served, None) => format!("accepted: {member} served as if it had forgotten nothing"),
        (Came::Neither, None) => format!("accepted: {member} did not end within {PATIENCE:?}"),
    };
    let panics = start.expected_panics().map_err(failed("its log"))?;
    Ok(said + &panics)
}

/// Whether this is the reason of one who was found to have forgotten something.
fn is_refusal(why: &str) -> bool {
    REFUSALS.iter().any(|known| why.contains(known))
}

/// What a participant has taken upon itself since it started on an old data folder, or on an empty one: a promise, or a
/// commit of what it never promised. The cluster did not know it, so it may do neither. (An end of what the old folder
/// promises is right: whoever starts asks for it.)
fn written_since(old: Option<&Path>, data: &Path) -> io::Result<Option<String>> {
    let (before, now) = (
        old.map_or(Ok(ParticipantEvidence::default()), journal),
        journal(data)?,
    );
    let before = before?;
    for (transaction, at) in &now.promised {
        if before.promised.get(transaction) != Some(at) {
            return Ok(Some(format!("promised {transaction}")));
        }
    }
    let more = now
        .committed_unpromised
        .difference(&before.committed_unpromised)
        .next();
    Ok(more.map(|transaction| format!("committed {transaction}, which it had never promised")))
}

/// What the journal in the data folder of a participant says: nothing if there is none.
fn journal(data: &Path) -> io::Result<ParticipantEvidence> {
    let folder = data.join("participant").join("journal");
    let mut found = ParticipantEvidence::default();
    if folder.exists() {
        read_journal(&folder, &mut found).map_err(io::Error::other)?;
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use unanimo_core::{Generation, Members, Prepared, Record, RequestHash, Timestamp, TransactionId};
    use unanimo_journal::{Journal, Options, RealDisk};
    use unanimo_proto::storage::encode_participant_record;

    use super::*;

    fn started(generation: u32) -> Record {
        Record::Started {
            cluster: "jepsen".parse().unwrap(),
            generation: Generation::of_start(generation, 7),
        }
    }

    fn tx(number: u64) -> TransactionId {
        TransactionId::new(Timestamp::from_unix_ms(number), 0)
    }

    fn prepared(number: u64) -> Record {
        let prepared = Prepared {
            cluster: "jepsen".parse().unwrap(),
            members: Members::from(["p1".parse().unwrap(), "p2".parse().unwrap()]),
            request_hash: RequestHash::from_bytes([7; 32]),
            redo: bytes::Bytes::new(),
            deadline: Timestamp::from_unix_ms(9000),
            prepared_at: Timestamp::from_unix_ms(100 + number),
        };
        Record::Prepared(tx(number), prepared)
    }

    fn committed(number: u64) -> Record {
        Record::Committed {
            transaction: tx(number),
            request_hash: RequestHash::from_bytes([7; 32]),
        }
    }

    /// A data folder of a participant whose journal has these records.
    fn folder(records: &[Record]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("participant").join("journal");
        std::fs::create_dir_all(&path).unwrap();
        let disk = Arc::new(RealDisk::open(&path).unwrap());
        let (journal, writer) =
            Journal::open(disk, Options::new("participant journal"), &mut |_, _| Ok(())).unwrap();
        let writer = writer.spawn().unwrap();
        for record in records {
            let bytes = encode_participant_record(&"p1".parse().unwrap(), record);
            journal.append(bytes, |durable| assert!(durable.is_ok())).unwrap();
        }
        journal.close();
        writer.join().unwrap();
        folder
    }

    #[test]
    fn a_promise_of_one_who_has_forgotten_is_found() {
        let old = [started(1), prepared(1)];
        let written = |more: &[Record]| {
            let (old, now) = (folder(&old), folder(&[&old, more].concat()));
            written_since(Some(old.path()), now.path()).unwrap()
        };
        assert_eq!(written(&[]), None);
        // It starts, and asks for the decision of what it promised before the copy.
        assert_eq!(written(&[started(2), committed(1)]), None);
        let promised = written(&[started(2), prepared(2)]).unwrap();
        assert!(promised.starts_with("promised "), "{promised}");
        let committed = written(&[started(2), committed(3)]).unwrap();
        assert!(committed.contains("never promised"), "{committed}");
    }

    #[test]
    fn an_empty_folder_has_promised_nothing() {
        let nothing = tempfile::tempdir().unwrap();
        assert_eq!(written_since(None, nothing.path()).unwrap(), None);
        assert!(!nothing.path().join("participant").exists());
        assert_eq!(written_since(None, folder(&[started(1)]).path()).unwrap(), None);
        let promised = written_since(None, folder(&[started(1), prepared(1)]).path());
        assert!(promised.unwrap().is_some());
    }

    #[test]
    fn only_who_says_that_somebody_knew_better_was_refused() {
        for known in [
            "the participant stopped: it runs from an old copy of its data, or a second time: participant p3 at \
             10.77.2.3:7000 starts as g2.2c97 with its journal at @1236, but the cluster has seen g2.21db and @1290",
            "this node's data folder is empty, but the cluster, as 10.77.1.1:7000 says, already knows a node n3",
            "the raft log is older than the decision table: it knows of term 9, and entry 5473 of term 10 was taken",
        ] {
            assert!(is_refusal(known), "{known}");
        }
        for other in [
            "no reason, signal: 6 (SIGABRT)",
            "cannot listen on 10.77.2.3:7000: Address already in use",
            "the participant stopped: its storage failed: the participant journal could not write: No space left",
        ] {
            assert!(!is_refusal(other), "{other}");
        }
    }
}
