//! The initiator: submits every transfer and keeps what it is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;
use unanimo_client::{Client, Decision, SubmitError, TransactionId};
use unanimo_core::{Operation, ParticipantId};

use crate::Transfer;
use crate::distribution::new_histogram;
use crate::generate::Generator;
use crate::operation::branches;
use crate::progress::Progress;

/// What is transferred.
#[derive(Clone, Debug)]
pub enum Work {
    /// These.
    Listed(Vec<Transfer>),
    /// As many as there is time for, of this seed.
    Generated {
        /// What they are made from.
        seed: u64,
        /// For how long new ones are started.
        lasting: Duration,
    },
}

/// How the load is made.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Transfers that are under way at once.
    pub in_flight: usize,
    /// How long one transfer is tried until its outcome counts as unknown.
    pub patience: Duration,
}

/// What the initiator knows of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The outcome.
    Decided(Decision),
    /// It was refused before it was started.
    Refused(String),
    /// Nobody said. It may have happened or not.
    Unknown(String),
}

impl Told {
    /// The outcome, if it was told.
    pub(crate) fn decision(&self) -> Option<&Decision> {
        match self {
            Self::Decided(decision) => Some(decision),
            Self::Refused(_) | Self::Unknown(_) => None,
        }
    }
}

/// A transfer that was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// What was to happen.
    pub transfer: Transfer,
    /// The id it was submitted with, however often.
    pub transaction: TransactionId,
    /// What came back.
    pub told: Told,
}

/// What became of a load.
#[derive(Debug)]
pub struct Load {
    /// Every transfer that was submitted, in the order of the rows.
    pub submitted: Vec<Submitted>,
    /// How long each definite answer took, in microseconds.
    pub latencies: Histogram<u64>,
    /// How long everything took.
    pub elapsed: Duration,
}

/// Submits transfers until all are answered. After the first one whose outcome is unknown no more are started: with
/// that much patience the cluster is not coming back, and every other one would take as long.
pub async fn submit_all(client: Client, work: Work, options: LoadOptions, progress: &Progress) -> Load {
    let started = Instant::now();
    let initiator = Arc::new(Initiator {
        client,
        rest: Mutex::new(Rest::new(work, started)),
        stopped: AtomicBool::new(false),
        patience: options.patience,
        progress: progress.clone(),
    });
    let mut workers = JoinSet::new();
    for _ in 0..options.in_flight {
        workers.spawn(Arc::clone(&initiator).work());
    }
    let mut answers: Vec<(Submitted, Duration)> = Vec::new();
    while let Some(worker) = workers.join_next().await {
        match worker {
            Ok(some) => answers.extend(some),
            // A panic of ours is a panic of the whole; nobody aborts the workers but who drops this future.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    let elapsed = started.elapsed();
    progress.over();
    answers.sort_by_key(|(submitted, _)| submitted.transfer.row);
    let mut latencies = new_histogram();
    for (submitted, latency) in &answers {
        if matches!(submitted.told, Told::Decided(_)) {
            latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }
    let submitted = answers.into_iter().map(|(submitted, _)| submitted).collect();
    Load {
        submitted,
        latencies,
        elapsed,
    }
}

/// What is not started yet.
enum Rest {
    Listed(std::vec::IntoIter<Transfer>),
    Generated { generator: Generator, until: Instant },
}

impl Rest {
    fn new(work: Work, started: Instant) -> Self {
        match work {
            Work::Listed(transfers) => Self::Listed(transfers.into_iter()),
            Work::Generated { seed, lasting } => Self::Generated {
                generator: Generator::new(seed),
                until: started + lasting,
            },
        }
    }

    fn next(&mut self) -> Option<Transfer> {
        match self {
            Self::Listed(transfers) => transfers.next(),
            Self::Generated { generator, until } if Instant::now() < *until => generator.next(),
            Self::Generated { .. } => None,
        }
    }
}

/// What the workers share.
struct Initiator {
    client: Client,
    rest: Mutex<Rest>,
    stopped: AtomicBool,
    patience: Duration,
    progress: Progress,
}

impl Initiator {
    /// Submits one transfer after the other until none is left.
    async fn work(self: Arc<Self>) -> Vec<(Submitted, Duration)> {
        let mut answers = Vec::new();
        while !self.stopped.load(Ordering::Relaxed) {
            let next = self.rest.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(transfer) = next else { break };
            let started = Instant::now();
            let submitted = self.submit(transfer).await;
            if let Told::Unknown(_) = submitted.told {
                self.stopped.store(true, Ordering::Relaxed);
            }
            answers.push((submitted, started.elapsed()));
            self.progress.finished_one();
        }
        answers
    }

    async fn submit(&self, transfer: Transfer) -> Submitted {
        // Made once: the client repeats it with the same id, so it happens at most once.
        let transaction = self.client.new_transaction();
        let branches = branches(transfer.from, transfer.to, transfer.amount);
        let told = submit(&self.client, transaction, branches, self.patience).await;
        Submitted {
            transfer,
            transaction,
            told,
        }
    }
}

/// Submits a transaction until its outcome is known or patience is over.
pub(crate) async fn submit(
    client: &Client,
    transaction: TransactionId,
    branches: Vec<(ParticipantId, Operation)>,
    patience: Duration,
) -> Told {
    match client.submit(transaction, branches, patience).await {
        Ok(decision) => Told::Decided(decision),
        Err(error @ SubmitError::Refused { .. }) => Told::Refused(error.to_string()),
        Err(error) => Told::Unknown(error.to_string()),
    }
}
