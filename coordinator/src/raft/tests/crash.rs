//! The power goes off at every operation of the disk; what was said to be durable is there afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::channel::oneshot;
use openraft::RaftLogReader as _;
use openraft::storage::RaftLogStorage as _;
use unanimo_journal::{Options, SimulatedDisk};

use super::fixture::{decide, entry, flushed, log_id, membership, owner, small_journal};
use crate::raft::Background;
use crate::raft::background::WriterHandle;
use crate::raft::log_store::LogStore;
use crate::raft::type_config::{Entry, LogId, Vote};

/// What a log may be asked to do.
#[derive(Clone, Debug)]
enum Step {
    Vote(u64),
    /// Entries of this term, at these indexes.
    Append(u64, std::ops::Range<u64>),
    Commit(u64, u64),
    TruncateAfter(Option<(u64, u64)>),
    Purge(u64, u64),
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Contents {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

impl Contents {
    fn push(&mut self, entry: Entry) {
        self.entries.insert(entry.log_id.index, entry);
    }
}

fn script() -> Vec<Step> {
    use Step::*;
    vec![
        Vote(1),
        Append(1, 0..1),
        Append(1, 1..6),
        Commit(1, 3),
        TruncateAfter(Some((1, 3))),
        Vote(2),
        Append(2, 4..14),
        Purge(2, 5),
        Commit(2, 9),
        Append(2, 14..30),
        Purge(2, 12),
        Vote(3),
        TruncateAfter(Some((2, 20))),
        Append(3, 21..40),
        Purge(3, 30),
        // A truncation right behind a purge cuts the record of the purge and has to carry what it said.
        TruncateAfter(Some((3, 35))),
        Vote(4),
        Append(4, 36..50),
        // A snapshot has put the log beyond its end.
        Purge(5, 60),
        Append(5, 61..64),
        TruncateAfter(Some((5, 60))),
        Append(6, 61..66),
    ]
}

fn step_entry(term: u64, index: u64) -> Entry {
    if index.is_multiple_of(7) {
        membership(term, index, 1..4)
    } else {
        entry(term, index, &[decide(index, index % 5 + 1, term)])
    }
}

/// The states of the log after each record that the script writes, and how many there are after each step.
fn model(script: &[Step]) -> (Vec<Contents>, Vec<usize>) {
    let mut states = vec![Contents::default()];
    let mut after_step = Vec::new();
    for step in script {
        let mut now = states.last().unwrap().clone();
        match step {
            Step::Vote(term) => now.vote = Some(Vote::new(*term, *term)),
            Step::Append(term, indexes) => {
                for index in indexes.clone() {
                    now.push(step_entry(*term, index));
                    states.push(now.clone());
                }
            }
            Step::Commit(..) => {}
            Step::TruncateAfter(last) => now
                .entries
                .retain(|index, _| last.is_some_and(|last| *index <= last.1)),
            Step::Purge(term, index) => {
                now.purged = Some(log_id(*term, *index));
                now.entries.retain(|kept, _| kept > index);
            }
        }
        if states.last() != Some(&now) {
            states.push(now);
        }
        after_step.push(states.len() - 1);
    }
    (states, after_step)
}

/// Runs the script until the power goes off. Returns the number of the state that was last said to be durable.
async fn run(disk: &SimulatedDisk, script: &[Step], after_step: &[usize], wait: bool) -> usize {
    let opened = LogStore::open(Arc::new(disk.clone()), small_journal(), owner(), 512, None);
    let Ok((mut log, writer)) = opened else { return 0 };
    let writer = WriterHandle::start(Background::Tasks, writer).unwrap();
    let durable = Arc::new(AtomicUsize::new(0));
    let mut waiting = Vec::new();
    for (step, after) in script.iter().zip(after_step) {
        let (told, noted) = oneshot::channel();
        let done = match step {
            Step::Vote(term) => log.save_vote(&Vote::new(*term, *term)).await,
            Step::Append(term, indexes) => {
                let entries: Vec<Entry> = indexes.clone().map(|index| step_entry(*term, index)).collect();
                let (callback, answer) = flushed();
                let appended = log.append(entries, callback).await;
                waiting.push(note(answer, Arc::clone(&durable), *after, told));
                if wait && appended.is_ok() {
                    waiting.pop().unwrap().await;
                    noted.await.unwrap()
                } else {
                    appended
                }
            }
            Step::Commit(term, index) => log.save_committed(Some(log_id(*term, *index))).await,
            Step::TruncateAfter(last) => {
                log.truncate_after(last.map(|(term, index)| log_id(term, index)))
                    .await
            }
            Step::Purge(term, index) => log.purge(log_id(*term, *index)).await,
        };
        match (done, step) {
            (Ok(()), Step::Vote(_) | Step::TruncateAfter(_)) => {
                durable.fetch_max(*after, Ordering::Relaxed);
            }
            (Ok(()), Step::Append(..) | Step::Commit(..) | Step::Purge(..)) => {}
            (Err(_), _) => break,
        }
    }
    futures::future::join_all(waiting).await;
    log.journal().close();
    writer.ended().await;
    durable.load(Ordering::Relaxed)
}

/// Notes that a state is durable once the append that led to it is said to be.
async fn note(
    answer: impl Future<Output = std::io::Result<()>>,
    durable: Arc<AtomicUsize>,
    state: usize,
    told: oneshot::Sender<std::io::Result<()>>,
) {
    let result = answer.await;
    if result.is_ok() {
        durable.fetch_max(state, Ordering::Relaxed);
    }
    let _ = told.send(result);
}

async fn contents(log: &mut LogStore) -> Contents {
    let (purged, last) = log.bounds();
    let entries = log.try_get_log_entries(..).await.unwrap();
    let found = Contents {
        vote: log.read_vote().await.unwrap(),
        purged,
        entries: entries
            .into_iter()
            .map(|entry| (entry.log_id.index, entry))
            .collect(),
    };
    assert_eq!(
        last,
        found.entries.values().last().map(|entry| entry.log_id).or(purged)
    );
    assert!(
        log.read_committed().await.unwrap() <= last,
        "what is not in the log is not committed"
    );
    found
}

/// Opens the log after a crash, and checks that it is in a state at or after the durable one and still works.
async fn check(disk: &SimulatedDisk, states: &[Contents], durable: usize, what: &str) {
    let opened = LogStore::open(Arc::new(disk.clone()), small_journal(), owner(), 512, None);
    let (mut log, writer) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    let writer = WriterHandle::start(Background::Tasks, writer).unwrap();
    let found = contents(&mut log).await;
    let state = states.iter().rposition(|state| *state == found);
    let state = state.unwrap_or_else(|| panic!("{what}: the log was never in this state: {found:#?}"));
    assert!(
        state >= durable,
        "{what}: state {state} was found, {durable} was said to be durable"
    );

    let next = log.bounds().1.map_or(0, |last| last.index + 1);
    let (callback, answer) = flushed();
    log.append([step_entry(9, next)], callback).await.unwrap();
    answer.await.unwrap();
    let mut expected = found;
    expected.push(step_entry(9, next));
    log.journal().close();
    writer.ended().await;
    let (mut log, _writer) =
        LogStore::open(Arc::new(disk.clone()), small_journal(), owner(), 0, None).unwrap();
    assert_eq!(contents(&mut log).await, expected, "{what}, and again");
}

async fn crash_everywhere(wait: bool) {
    let script = script();
    let (states, after_step) = model(&script);
    let whole = SimulatedDisk::new();
    let durable = run(&whole, &script, &after_step, wait).await;
    assert_eq!(
        durable,
        states.len() - 1,
        "without a crash everything becomes durable"
    );
    check(&whole, &states, durable, "no crash").await;
    let operations = whole.operations();
    assert!(operations > 60, "the script has {operations} operations");
    let mut progress = Vec::new();
    for operation in 0..operations {
        let disk = SimulatedDisk::new();
        disk.power_off_at_operation(operation);
        let durable = run(&disk, &script, &after_step, wait).await;
        progress.push(durable);
        let losing = disk.fork();
        losing.crash_losing_everything();
        check(
            &losing,
            &states,
            durable,
            &format!("operation {operation}, all lost"),
        )
        .await;
        for seed in 0..4 {
            let crashed = disk.fork();
            crashed.crash(seed * 1000 + operation);
            check(
                &crashed,
                &states,
                durable,
                &format!("operation {operation}, seed {seed}"),
            )
            .await;
        }
    }
    assert!(
        progress
            .iter()
            .any(|durable| (1..states.len() - 1).contains(durable)),
        "crashes hit the middle"
    );
}

#[tokio::test]
async fn whatever_was_durable_survives_a_crash_at_every_operation() {
    crash_everywhere(true).await;
}

/// As above, but appends share forced writes, as they do under load.
#[tokio::test]
async fn whatever_was_durable_survives_when_appends_are_not_waited_for() {
    crash_everywhere(false).await;
}

/// After the first error every later call fails, and nothing is said to be durable that is not (R10).
#[tokio::test]
async fn a_failed_write_stops_the_log() {
    let disk = SimulatedDisk::new();
    let (mut log, writer) =
        LogStore::open(Arc::new(disk.clone()), small_journal(), owner(), 512, None).unwrap();
    let (told, failed) = oneshot::channel();
    log.journal()
        .on_failure(move |failed| drop(told.send(failed.to_string())));
    let writer = WriterHandle::start(Background::Tasks, writer).unwrap();
    log.save_vote(&Vote::new(1, 1)).await.unwrap();
    disk.fail_nth_sync(1, unanimo_journal::Lose::Data);
    let (callback, answer) = flushed();
    log.append([step_entry(1, 0)], callback).await.unwrap();
    assert!(answer.await.is_err());
    assert!(failed.await.unwrap().contains("raft log"));
    assert!(log.save_vote(&Vote::new(2, 1)).await.is_err());
    let (callback, answer) = flushed();
    assert!(log.append([step_entry(1, 1)], callback).await.is_err());
    assert!(
        answer.await.is_err(),
        "an entry that was refused was said to be durable"
    );
    assert!(log.truncate_after(None).await.is_err());
    writer.ended().await;
}

/// More than the journal may queue waits outside of it, and is not lost.
#[tokio::test]
async fn an_append_waits_while_the_journal_is_full() {
    let disk = SimulatedDisk::new();
    let options = Options {
        max_queued_bytes: 1024,
        ..small_journal()
    };
    let (mut log, writer) = LogStore::open(Arc::new(disk), options, owner(), 512, None).unwrap();
    let (callback, answer) = flushed();
    let mut appending = Box::pin(log.append((0..100).map(|index| step_entry(1, index)), callback));
    // Nobody writes yet.
    assert!(futures::poll!(&mut appending).is_pending());
    let writer = WriterHandle::start(Background::Tasks, writer).unwrap();
    appending.await.unwrap();
    answer.await.unwrap();
    assert_eq!(contents(&mut log).await.entries.len(), 100);
    log.journal().close();
    writer.ended().await;
}

/// So do a vote, a truncation and a purge: an error would stop the replica for nothing.
#[tokio::test]
async fn a_vote_a_truncation_and_a_purge_wait_while_the_journal_is_full() {
    for what in ["vote", "truncation", "purge"] {
        let disk = SimulatedDisk::new();
        let options = Options {
            max_queued_bytes: 1024,
            ..small_journal()
        };
        let (mut log, writer) = LogStore::open(Arc::new(disk), options, owner(), 512, None).unwrap();
        // As many as fit, and one that does not.
        let mut filling = log.clone();
        let (callback, _answer) = flushed();
        let mut appending = Box::pin(filling.append((0..100).map(|index| step_entry(1, index)), callback));
        assert!(futures::poll!(&mut appending).is_pending());
        drop(appending);
        let there = contents(&mut log).await.entries.len() as u64;
        for _ in 0..100 {
            // Left out once there is no room for any more.
            log.save_committed(Some(log_id(1, 0))).await.unwrap();
        }
        let mut waiting: std::pin::Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>> = match what {
            "vote" => Box::pin(async { log.save_vote(&Vote::new(300, 1)).await }),
            "truncation" => Box::pin(log.truncate_after(Some(log_id(1, 0)))),
            _ => Box::pin(log.purge(log_id(1, there - 1))),
        };
        assert!(futures::poll!(&mut waiting).is_pending(), "{what}");
        let writer = WriterHandle::start(Background::Tasks, writer).unwrap();
        waiting.await.unwrap();
        log.journal().close();
        writer.ended().await;
    }
}
