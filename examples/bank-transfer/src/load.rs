//! The initiator: submits every transfer and keeps what it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;
use unanimo_client::{Client, Decision, SubmitError, TransactionId};

use crate::Transfer;
use crate::distribution::new_histogram;
use crate::operation::branches;
use crate::progress::Progress;

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
pub async fn submit_all(
    client: Client,
    transfers: Arc<[Transfer]>,
    options: LoadOptions,
    progress: &Progress,
) -> Load {
    let started = Instant::now();
    let initiator = Arc::new(Initiator {
        client,
        transfers,
        next: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        patience: options.patience,
        progress: progress.clone(),
    });
    let mut workers = JoinSet::new();
    for _ in 0..options.in_flight {
        workers.spawn(Arc::clone(&initiator).work());
    }
    let mut answers: Vec<(usize, Submitted, Duration)> = Vec::new();
    while let Some(worker) = workers.join_next().await {
        match worker {
            Ok(some) => answers.extend(some),
            // A panic of ours is a panic of the whole; nobody aborts the workers but who drops this future.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    let elapsed = started.elapsed();
    progress.over();
    answers.sort_by_key(|(place, ..)| *place);
    let mut latencies = new_histogram();
    for (_, submitted, latency) in &answers {
        if matches!(submitted.told, Told::Decided(_)) {
            latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }
    let submitted = answers.into_iter().map(|(_, submitted, _)| submitted).collect();
    Load {
        submitted,
        latencies,
        elapsed,
    }
}

/// What the workers share.
struct Initiator {
    client: Client,
    transfers: Arc<[Transfer]>,
    next: AtomicUsize,
    stopped: AtomicBool,
    patience: Duration,
    progress: Progress,
}

impl Initiator {
    /// Submits one transfer after the other until none is left.
    async fn work(self: Arc<Self>) -> Vec<(usize, Submitted, Duration)> {
        let mut answers = Vec::new();
        while !self.stopped.load(Ordering::Relaxed) {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(transfer) = self.transfers.get(place) else {
                break;
            };
            let started = Instant::now();
            let submitted = self.submit(transfer.clone()).await;
            if let Told::Unknown(_) = submitted.told {
                self.stopped.store(true, Ordering::Relaxed);
            }
            answers.push((place, submitted, started.elapsed()));
            self.progress.finished_one();
        }
        answers
    }

    async fn submit(&self, transfer: Transfer) -> Submitted {
        // Made once: the client repeats it with the same id, so it happens at most once.
        let transaction = self.client.new_transaction();
        let branches = branches(transfer.from, transfer.to, transfer.amount);
        let told = match self.client.submit(transaction, branches, self.patience).await {
            Ok(decision) => Told::Decided(decision),
            Err(error @ SubmitError::Refused { .. }) => Told::Refused(error.to_string()),
            Err(error @ SubmitError::Unknown { .. }) => Told::Unknown(error.to_string()),
        };
        Submitted {
            transfer,
            transaction,
            told,
        }
    }
}
