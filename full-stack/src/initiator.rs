//! Applications that move money, repeat themselves, give up, and ask again.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use unanimo_client::{Client, ClientOptions, SubmitError};
use unanimo_core::{Decision, Operation, ParticipantId, TransactionId};
use unanimo_proto::ErrorReason;
use unanimo_proto::transport::Clock;

use crate::bank::Changes;
use crate::clock::HostClock;
use crate::draw::Draw;
use crate::hosts::CLUSTER;
use crate::ledger::{Answer, Ledger};
use crate::network::{SimulatedConnector, address};
use crate::notes::Notes;
use crate::plan::Plan;

/// How long an initiator waits once the faults are over. Elections and inquiries take a few seconds.
const PATIENCE_AFTER_HEALING: Duration = Duration::from_secs(40);

/// What the run tells its initiators, and they it.
#[derive(Clone, Default)]
pub(crate) struct Signals {
    /// The faults are over.
    pub(crate) healed: Arc<AtomicBool>,
    /// Initiators that have all their answers.
    pub(crate) done: Arc<AtomicU64>,
}

/// One application.
pub(crate) struct Initiator {
    pub(crate) name: String,
    pub(crate) plan: Arc<Plan>,
    pub(crate) ledger: Ledger,
    pub(crate) notes: Notes,
    pub(crate) signals: Signals,
}

type Branches = BTreeMap<ParticipantId, Changes>;

impl Initiator {
    /// Works until the faults are over, then asks about everything that is open, and once more for something new.
    pub(crate) async fn work(self) -> Result<(), Box<dyn Error>> {
        let mut draw = Draw::new(self.plan.seed, &self.name);
        let mut hosts = self.plan.coordinator_hosts();
        let first = draw.between(0, hosts.len() as u64 - 1) as usize;
        hosts.rotate_left(first);
        let addresses = hosts.iter().map(|host| address(host));
        let mut options = ClientOptions::new(CLUSTER.parse()?, addresses);
        options.voting_timeout = Some(self.plan.voting);
        let client = Client::new(options, &SimulatedConnector)?;
        let mut open = BTreeMap::new();
        while self.notes.now() < self.plan.trouble {
            let think = draw.between(0, self.plan.think.as_millis() as u64);
            tokio::time::sleep(Duration::from_millis(think)).await;
            self.transact(&client, &mut draw, &mut open).await;
        }
        while !self.signals.healed.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.ask_again(&client, &mut draw, open).await;
        let (transaction, branches) = self.invent(&mut draw);
        let answer = self
            .submit(&client, transaction, &branches, PATIENCE_AFTER_HEALING)
            .await;
        if !answer.is_outcome() {
            let what = format!("{transaction} was submitted when all was well again: {answer:?}");
            self.notes.violate("unavailable_after_healing", what);
        }
        self.signals.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// One transaction, in one of the ways in which applications go about it.
    async fn transact(&self, client: &Client, draw: &mut Draw, open: &mut BTreeMap<TransactionId, Branches>) {
        let (transaction, branches) = self.invent(draw);
        let patience = match draw.between(0, 9) {
            0 => Duration::from_millis(draw.between(5, 200)),
            1..=4 => Duration::from_millis(draw.between(300, 2_000)),
            _ => Duration::from_secs(6),
        };
        let way = draw.between(0, 99);
        let answer = if way < 10 {
            self.submit_twice_at_once(client, transaction, &branches, patience)
                .await
        } else {
            self.submit(client, transaction, &branches, patience).await
        };
        match way {
            10..=19 => drop(self.submit(client, transaction, &branches, patience).await),
            20..=26 if answer == Answer::Committed => {
                self.submit_something_else(client, transaction, draw).await;
            }
            27..=36 => self.ask_for_outcome(client, transaction, patience).await,
            _ => {}
        }
        // Some applications forget what they do not know, and nobody asks for them.
        if matches!(answer, Answer::Unknown(_)) && draw.chance(60) {
            open.insert(transaction, branches);
        }
    }

    /// Two or three accounts at different participants, or one that only reads.
    fn invent(&self, draw: &mut Draw) -> (TransactionId, Branches) {
        let random = u128::from(draw.number()) << 64 | u128::from(draw.number());
        let transaction = TransactionId::new(HostClock::default().now(), random);
        let mut hosts = self.plan.participant_hosts();
        let members = draw.between(2, (hosts.len() as u64).min(3));
        let mut chosen = BTreeSet::new();
        for _ in 0..members {
            let place = draw.between(0, hosts.len() as u64 - 1) as usize;
            chosen.insert(hosts.remove(place));
        }
        let amount = draw.between(1, 12) as i64;
        let mut parts: Vec<i64> = match chosen.len() {
            2 => vec![-amount, amount],
            _ => vec![-2 * amount, amount, amount],
        };
        let turn = draw.between(0, parts.len() as u64 - 1) as usize;
        parts.rotate_left(turn);
        let mut branches = Branches::new();
        for (host, part) in chosen.into_iter().zip(parts) {
            let account = draw.between(0, self.plan.accounts - 1);
            branches.insert(named(&host), Changes(BTreeMap::from([(account, part)])));
        }
        if let Some(reader) = hosts.first().filter(|_| draw.chance(20)) {
            branches.insert(named(reader), Changes::default());
        }
        (transaction, branches)
    }

    async fn submit(
        &self,
        client: &Client,
        transaction: TransactionId,
        branches: &Branches,
        patience: Duration,
    ) -> Answer {
        let invoked = self.ledger.submit(&self.name, transaction, branches);
        let answer = call(client, transaction, branches, patience).await;
        self.ledger
            .complete(&self.name, transaction, &invoked, answer.clone());
        answer
    }

    async fn submit_twice_at_once(
        &self,
        client: &Client,
        transaction: TransactionId,
        branches: &Branches,
        patience: Duration,
    ) -> Answer {
        self.notes.count("submitted_twice_at_once");
        let one = self.submit(client, transaction, branches, patience);
        let other = self.submit(client, transaction, branches, patience);
        let (one, other) = futures::join!(one, other);
        if one.is_outcome() { one } else { other }
    }

    /// The id of what is committed already, with another request: nothing of it may happen (R12).
    async fn submit_something_else(&self, client: &Client, transaction: TransactionId, draw: &mut Draw) {
        let (_, other) = self.invent(draw);
        let answer = call(client, transaction, &other, Duration::from_secs(3)).await;
        self.notes
            .trace(&self.name, format!("{transaction} as something else: {answer:?}"));
        let same = self
            .ledger
            .all()
            .get(&transaction)
            .is_some_and(|asked| asked.branches == other);
        match answer {
            Answer::Committed if !same => {
                let what = format!("{transaction} was committed, and is told committed as something else");
                self.notes.violate("another_request_committed", what);
            }
            Answer::Refused(_) => self.notes.count("another_request_refused"),
            Answer::Committed | Answer::Aborted(_) | Answer::Unknown(_) => {}
        }
    }

    async fn ask_for_outcome(&self, client: &Client, transaction: TransactionId, patience: Duration) {
        let known = self.ledger.has_outcome(transaction);
        match client.outcome(transaction, patience).await {
            Ok(Some(decision)) => {
                self.notes.count("asked_for_an_outcome");
                self.ledger.answer(&self.name, transaction, told(decision));
            }
            // Any node may answer, and none may answer from what it has yet to hear.
            Ok(None) if known => {
                let what =
                    format!("{transaction} was told an outcome, and is undecided for whoever asks later");
                self.notes.violate("stale_outcome", what);
            }
            Ok(None) => self
                .notes
                .trace(&self.name, format!("{transaction} is undecided")),
            Err(error) => self
                .notes
                .trace(&self.name, format!("{transaction} cannot be asked for: {error}")),
        }
    }

    /// All is well again, so whoever asks is told (R13).
    async fn ask_again(&self, client: &Client, draw: &mut Draw, open: BTreeMap<TransactionId, Branches>) {
        for (transaction, branches) in open {
            let pause = draw.between(0, 50);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.notes.count("unknown_asked_again");
            let answer = self
                .submit(client, transaction, &branches, PATIENCE_AFTER_HEALING)
                .await;
            // What is forgotten by then has been told to nobody, and nobody can be told any more (R7).
            let forgotten = self.plan.window < Duration::from_secs(60)
                && matches!(&answer, Answer::Unknown(error) if error.contains("not known any more"));
            if !answer.is_outcome() && !forgotten {
                let what = format!("{transaction} was repeated when all was well again: {answer:?}");
                self.notes.violate("no_answer_after_healing", what);
            }
        }
    }
}

async fn call(
    client: &Client,
    transaction: TransactionId,
    branches: &Branches,
    patience: Duration,
) -> Answer {
    let branches = branches
        .iter()
        .map(|(participant, changes)| (participant.clone(), Operation::new(changes.encode())))
        .collect();
    match client.submit(transaction, branches, patience).await {
        Ok(decision) => told(decision),
        Err(SubmitError::Refused { reason, .. }) => Answer::Refused(word(reason)),
        Err(error) => Answer::Unknown(error.to_string()),
    }
}

fn told(decision: Decision) -> Answer {
    match decision {
        Decision::Commit => Answer::Committed,
        Decision::Abort(reason) => Answer::Aborted(reason.to_string()),
    }
}

fn word(reason: ErrorReason) -> String {
    reason.as_str().to_owned()
}

/// The participant on this host.
pub(crate) fn named(host: &str) -> ParticipantId {
    match ParticipantId::new(host) {
        Ok(name) => name,
        Err(error) => unreachable!("hosts have names that fit: {error}"),
    }
}
