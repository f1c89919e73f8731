//! Groups commands into Raft entries, so that decisions that come together share one forced write.
//!
//! A command waits for nothing: whatever has queued up while earlier entries are on their way goes out together.
//! Four entries of up to 64 commands in flight keep the disk and the network busy without letting a decision wait
//! for two rounds. Acknowledgements are in no hurry; they ride along, or go alone after a moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use unanimo_core::table::{Applied, Command};

use crate::raft::{ProposeError, Replica};

/// Commands in one entry at most. More makes entries that take long to apply.
const COMMANDS_PER_ENTRY: usize = 64;
/// Entries on their way at most.
const ENTRIES_IN_FLIGHT: usize = 4;
/// Commands that may wait. Those that propose wait for room, so nothing is lost; admission control bounds them.
const QUEUE: usize = 16 * 1024;
/// How long an acknowledgement may wait for company. Losing it costs a repeated delivery, nothing else.
const LINGER: Duration = Duration::from_millis(25);

/// A cheap handle on the queue.
#[derive(Clone)]
pub(super) struct Proposer {
    queue: mpsc::Sender<Pending>,
}

struct Pending {
    command: Command,
    /// Who waits.
    applied: oneshot::Sender<Result<Applied, ProposeError>>,
    /// Whether it goes out at once.
    urgent: bool,
}

impl Proposer {
    pub(super) fn start(replica: Replica, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let (queue, pending) = mpsc::channel(QUEUE);
        // Ending it drops the queue, and with it everybody who waits.
        tasks.spawn(async move { stop.run_until_cancelled(group(replica, pending)).await });
        Self { queue }
    }

    /// Has a command applied, and returns what came of it.
    pub(super) async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.enqueue(command, true).await
    }

    /// Has a command applied some time, or not at all, and returns when it is clear which.
    pub(super) async fn propose_lazily(&self, command: Command) {
        // A queue that is gone means that the process is stopping; the next leader delivers again.
        drop(self.enqueue(command, false).await);
    }

    async fn enqueue(&self, command: Command, urgent: bool) -> Result<Applied, ProposeError> {
        let (applied, result) = oneshot::channel();
        let pending = Pending {
            command,
            applied,
            urgent,
        };
        self.queue
            .send(pending)
            .await
            .map_err(|_| ProposeError::Unknown)?;
        result.await.unwrap_or(Err(ProposeError::Unknown))
    }
}

async fn group(replica: Replica, mut pending: mpsc::Receiver<Pending>) {
    let slots = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT));
    let mut entry: Vec<Pending> = Vec::with_capacity(COMMANDS_PER_ENTRY);
    while collect(&mut pending, &mut entry).await {
        // Cancel safe: nothing is taken from the queue while a slot is waited for.
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        // What queued up while we waited for the slot comes along.
        while entry.len() < COMMANDS_PER_ENTRY {
            let Ok(more) = pending.try_recv() else { break };
            entry.push(more);
        }
        let full = std::mem::replace(&mut entry, Vec::with_capacity(COMMANDS_PER_ENTRY));
        let replica = replica.clone();
        tokio::spawn(async move {
            propose(full, |commands| {
                let replica = &replica;
                async move { replica.propose(commands.as_slice()).await }
            })
            .await;
            drop(slot);
        });
    }
}

/// Waits for an urgent command, or for lazy ones to have waited long enough. False at the end.
async fn collect(pending: &mut mpsc::Receiver<Pending>, entry: &mut Vec<Pending>) -> bool {
    let mut lingering: Option<Instant> = None;
    loop {
        // Both arms are cancel safe: `recv` takes nothing when it loses, and the sleep is made anew.
        let next = tokio::select! {
            next = pending.recv() => next,
            () = sleep_until(lingering.unwrap_or_else(Instant::now)), if lingering.is_some() => return true,
        };
        let Some(next) = next else {
            return !entry.is_empty();
        };
        let urgent = next.urgent;
        entry.push(next);
        if urgent || entry.len() == COMMANDS_PER_ENTRY {
            return true;
        }
        lingering.get_or_insert_with(|| Instant::now() + LINGER);
    }
}

/// Has a group of commands applied. One that is too large for an entry is split, until only the command that is too
/// large by itself is refused.
async fn propose<F: Future<Output = Result<Vec<Applied>, ProposeError>>>(
    entry: Vec<Pending>,
    applied_by: impl Fn(Arc<Vec<Command>>) -> F,
) {
    let whole: (Vec<_>, Vec<_>) = entry
        .into_iter()
        .map(|pending| (pending.command, pending.applied))
        .unzip();
    let mut groups = vec![whole];
    while let Some((commands, mut waiting)) = groups.pop() {
        let commands = Arc::new(commands);
        match applied_by(commands.clone()).await {
            Ok(applied) => {
                assert_eq!(applied.len(), waiting.len(), "every command is answered");
                for (waiting, applied) in waiting.into_iter().zip(applied) {
                    // Who no longer waits does not need the answer.
                    drop(waiting.send(Ok(applied)));
                }
            }
            // Definite: nothing of it was proposed.
            Err(ProposeError::TooLarge { .. }) if commands.len() > 1 => {
                let mut commands = Arc::unwrap_or_clone(commands);
                let half = commands.len() / 2;
                groups.push((commands.split_off(half), waiting.split_off(half)));
                groups.push((commands, waiting));
            }
            Err(error) => {
                for waiting in waiting {
                    let _ = waiting.send(Err(error.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use unanimo_core::{Members, ParticipantId, Timestamp, TransactionId};

    use super::*;

    fn acknowledge(number: u64, participant: &str) -> Command {
        Command::Acknowledge {
            transaction: TransactionId::new(Timestamp::from_unix_ms(1), u128::from(number)),
            participants: Members::from([ParticipantId::new(participant).unwrap()]),
            witnesses: std::collections::BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn a_command_that_is_too_large_is_refused_alone() {
        let large = acknowledge(5, "large");
        let applied_by = |commands: Arc<Vec<Command>>| {
            std::future::ready(if commands.len() > 3 || commands.contains(&large) {
                Err(ProposeError::TooLarge { bytes: 9, limit: 8 })
            } else {
                Ok(vec![Applied::Registered; commands.len()])
            })
        };
        let (entry, mut answers): (Vec<_>, Vec<_>) = (0..11)
            .map(|number| {
                let (applied, answer) = oneshot::channel();
                let command = acknowledge(number, if number == 5 { "large" } else { "small" });
                let urgent = true;
                (
                    Pending {
                        command,
                        applied,
                        urgent,
                    },
                    answer,
                )
            })
            .unzip();
        propose(entry, applied_by).await;
        for (number, answer) in answers.iter_mut().enumerate() {
            let answer = answer.try_recv().unwrap();
            assert_eq!(answer.is_ok(), number != 5, "{number}: {answer:?}");
        }
    }
}
