use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use unanimo_proto::v1;

use super::answers::About;
use super::{channel, participants};
use crate::cluster::{Cluster, Member};
use crate::history::Tx;
use crate::late::{Came, Ended};
use crate::nemesis::NemesisError;
use crate::tap::tap_client::TapClient;
use crate::tap::{Call, TakeRequest};

/// Calls remembered at most, the newest last.
const MOST: usize = 60_000;

/// A call that a coordinator once made.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The participant.
    pub(super) to: Member,
    /// The number of the process that got it.
    pub(super) process: u32,
    pub(super) transaction: Tx,
    pub(super) message: Message,
    /// Whether it never got through.
    pub(super) held: bool,
    /// What was answered.
    pub(super) answer: String,
}

/// The message of a call.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Prepare(v1::PrepareRequest),
    Commit(v1::CommitRequest),
    Abort(v1::AbortRequest),
}

impl Message {
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::Prepare(_) => "Prepare",
            Self::Commit(_) => "Commit",
            Self::Abort(_) => "Abort",
        }
    }

    fn watermark(&self) -> &str {
        match self {
            Self::Prepare(message) => &message.watermark,
            Self::Commit(message) => &message.watermark,
            Self::Abort(message) => &message.watermark,
        }
    }

    /// With another cluster's name on it.
    pub(super) fn of_cluster(mut self, cluster: &str) -> Self {
        match &mut self {
            Self::Prepare(message) => cluster.clone_into(&mut message.cluster),
            Self::Commit(message) => cluster.clone_into(&mut message.cluster),
            Self::Abort(message) => cluster.clone_into(&mut message.cluster),
        }
        self
    }
}

/// One memory of several faults, for a call can be taken from a participant once. Only one of them has it at a time.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Memory>>);

impl Shared {
    /// Gives what there is to somebody who has nothing, or takes it back.
    pub(super) fn swap(&self, memory: &mut Memory) {
        // Each swap is whole, so a panic elsewhere leaves nothing half done.
        std::mem::swap(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            memory,
        );
    }
}

/// What was kept so far, of all participants.
#[derive(Default)]
pub(super) struct Memory {
    kept: Vec<Kept>,
    /// What each participant has said itself to be the end of a transaction, and in which process.
    ends: BTreeMap<(Member, Tx), (Ended, u32)>,
    /// The request that each transaction was first asked for, and those that were asked for more than one.
    requests: BTreeMap<Tx, bytes::Bytes>,
    contested: BTreeSet<Tx>,
    /// Branches that only read: no decision changes anything for them.
    only_read: BTreeSet<(Member, Tx)>,
    /// What coordinators have told anybody.
    decisions: BTreeMap<Tx, Ended>,
    /// The highest watermark that each participant was told.
    watermarks: BTreeMap<Member, Tx>,
}

impl Memory {
    /// Adds what the participants have kept since the last time. Of those that do not answer nothing is added.
    pub(super) async fn refresh(&mut self, cluster: &Cluster) -> Result<(), NemesisError> {
        for member in participants(cluster) {
            for kept in take(cluster, member).await? {
                self.add(kept);
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self, kept: Kept) {
        let (key, process) = ((kept.to, kept.transaction), kept.process);
        let end = match (&kept.message, kept.answer.as_str()) {
            (Message::Commit(_), "acknowledged") => Some(Ended::Committed),
            (Message::Abort(_), "acknowledged") | (Message::Prepare(_), "no") => Some(Ended::Aborted),
            (Message::Prepare(_), "read only") => {
                self.only_read.insert(key);
                None
            }
            _ => None,
        };
        if let Some(end) = end {
            self.ends.entry(key).or_insert((end, process));
        }
        match &kept.message {
            Message::Commit(_) => drop(self.decisions.insert(kept.transaction, Ended::Committed)),
            Message::Abort(_) => drop(self.decisions.insert(kept.transaction, Ended::Aborted)),
            Message::Prepare(prepare) => {
                let first = self.requests.entry(kept.transaction);
                let first = first.or_insert_with(|| prepare.request_hash.clone());
                if *first != prepare.request_hash {
                    self.contested.insert(kept.transaction);
                }
            }
        }
        if let Ok(told) = kept.message.watermark().parse().map(Tx) {
            let watermark = self.watermarks.entry(kept.to).or_insert(told);
            *watermark = (*watermark).max(told);
        }
        if self.kept.len() == MOST {
            self.kept.drain(..MOST / 4);
        }
        self.kept.push(kept);
    }

    pub(super) fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// What was decided, as far as a coordinator has told a participant.
    pub(super) fn decision(&self, transaction: Tx) -> Ended {
        self.decisions.get(&transaction).copied().unwrap_or(Ended::Open)
    }

    /// The situation of a participant that gets a message now, in this process of it.
    pub(super) fn about(&self, to: Member, transaction: Tx, came: Came, process: u32) -> About {
        // Of two requests under one id, one was refused without a word on the other.
        let key = (to, transaction);
        let clear = !self.contested.contains(&transaction) && !self.only_read.contains(&key);
        let (ended, said_by) = match self.ends.get(&key).filter(|_| clear) {
            Some((ended, process)) => (*ended, Some(*process)),
            None => (Ended::Open, None),
        };
        let came = match said_by {
            Some(said_by) if said_by != process => Came::AfterRestart,
            _ => came,
        };
        About {
            came,
            ended,
            forgotten: self.watermarks.get(&to) > Some(&transaction),
        }
    }

    /// The request that a transaction was asked for, and everything in it, if it is known of every member. None for
    /// an interactive one.
    pub(super) fn request(&self, transaction: Tx) -> Option<Vec<v1::Branch>> {
        let mut branches: BTreeMap<String, v1::Branch> = BTreeMap::new();
        let mut members = BTreeSet::new();
        for kept in self.kept.iter().filter(|kept| kept.transaction == transaction) {
            let Message::Prepare(prepare) = &kept.message else {
                continue;
            };
            members.extend(prepare.members.iter().cloned());
            if let Some(operation) = &prepare.operation {
                let branch = v1::Branch {
                    participant: prepare.participant.clone(),
                    operation: operation.clone(),
                };
                branches.insert(prepare.participant.clone(), branch);
            }
        }
        let whole = !members.is_empty() && branches.keys().eq(members.iter());
        let asked_once = !self.contested.contains(&transaction);
        (whole && asked_once).then(|| branches.into_values().collect())
    }

    /// Whether every participant knows that this transaction is closed.
    pub(super) fn is_closed(&self, cluster: &Cluster, transaction: Tx) -> bool {
        participants(cluster)
            .iter()
            .all(|member| self.watermarks.get(member) > Some(&transaction))
    }
}

/// What a participant has kept since the last time.
pub(super) async fn take(cluster: &Cluster, member: Member) -> Result<Vec<Kept>, NemesisError> {
    let mut tap = TapClient::new(channel(cluster, member)?);
    let mut kept = Vec::new();
    loop {
        let mut request = tonic::Request::new(TakeRequest {});
        request.set_timeout(super::PATIENCE);
        let page = tap
            .take(request)
            .await
            .map_err(|status| NemesisError::Other(format!("{member}: {status}")))?
            .into_inner();
        if page.calls.is_empty() {
            return Ok(kept);
        }
        for call in page.calls {
            kept.extend(read(member, page.process, call));
        }
    }
}

fn read(to: Member, process: u32, call: Call) -> Option<Kept> {
    let (message, transaction) = match call.method.as_str() {
        "Prepare" => {
            let message = v1::PrepareRequest::decode(call.message).ok()?;
            let transaction = message.transaction.parse().ok()?;
            (Message::Prepare(message), transaction)
        }
        "Commit" => {
            let message = v1::CommitRequest::decode(call.message).ok()?;
            let transaction = message.transaction.parse().ok()?;
            (Message::Commit(message), transaction)
        }
        _ => {
            let message = v1::AbortRequest::decode(call.message).ok()?;
            let transaction = message.transaction.parse().ok()?;
            (Message::Abort(message), transaction)
        }
    };
    Some(Kept {
        to,
        process,
        transaction: Tx(transaction),
        message,
        held: call.held,
        answer: call.answer,
    })
}

#[cfg(test)]
mod tests {
    use unanimo_core::{Timestamp, TransactionId};

    use super::*;

    fn tx(number: u64) -> Tx {
        Tx(TransactionId::new(Timestamp::from_unix_ms(number), 0))
    }

    fn kept(message: Message, number: u64, answer: &str) -> Kept {
        Kept {
            to: Member::Participant(1),
            process: 10,
            transaction: tx(number),
            message,
            held: false,
            answer: answer.to_owned(),
        }
    }

    #[test]
    fn it_knows_how_transactions_ended_and_who_said_so() {
        let p1 = Member::Participant(1);
        let mut memory = Memory::default();
        let commit = v1::CommitRequest {
            watermark: tx(2).to_string(),
            ..v1::CommitRequest::default()
        };
        memory.add(kept(Message::Commit(commit), 1, "acknowledged"));
        memory.add(kept(Message::Prepare(v1::PrepareRequest::default()), 3, "no"));
        memory.add(kept(
            Message::Abort(v1::AbortRequest::default()),
            4,
            "nothing (Cancelled)",
        ));
        let about = |number, process| memory.about(p1, tx(number), Came::Again, process);
        assert_eq!(
            about(1, 10),
            About {
                came: Came::Again,
                ended: Ended::Committed,
                forgotten: true
            }
        );
        assert_eq!(about(1, 11).came, Came::AfterRestart);
        assert_eq!(about(3, 10).ended, Ended::Aborted);
        assert!(!about(3, 10).forgotten);
        assert_eq!(about(4, 10), About::nothing(Came::Again));
        assert_eq!(memory.decision(tx(1)), Ended::Committed);
        assert_eq!(memory.decision(tx(3)), Ended::Open);
        assert_eq!(memory.decision(tx(4)), Ended::Aborted);
    }
}
