use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;
use unanimo_core::mutants::{self, Mutant};
use unanimo_core::{Branch, ClusterId, Finish, Generation, ParticipantId, Record};
use unanimo_journal::{AppendError, Disk, Failed, Journal, OpenError, Options, Sequence, Step, Writer};
use unanimo_proto::storage::encode_participant_record;

use crate::branch_table::{BranchTable, Finished};
use crate::kept::Kept;
use crate::replay::{Closed, Replay, Replayed};
use crate::{ParticipantOptions, StartError, StopReason, TransactionId, Writing};

/// A tombstone needs no sync, but its branch stays in memory until its record is durable. So after this many of them one
/// is forced to disk.
const NOTES_PER_SYNC: usize = 256;
/// A note is a transaction, a reason of at most 1 KiB, and its frame.
const NOTE_BYTES: usize = 1024 + 256;

/// Branches that go into the branch table in one batch: enough to share its cost, and far below its limit.
const BRANCHES_PER_BATCH: usize = 1024;

/// What an operator does about a damaged journal: unlike a coordinator's it has no second copy.
const REPAIR: &str = "Restore the whole data folder, and the service's own data with it, from one backup of this \
                      participant; the cluster refuses it if it is too old. Never delete or edit the file.";

/// Everything durable of a participant: the journal, which has all, and the branch table, which finds a finished
/// branch quickly.
pub(crate) struct Store {
    journal: Journal,
    table: BranchTable,
    name: ParticipantId,
    checkpoint_after: usize,
    unremembered: Mutex<Unremembered>,
    unremembered_at_most: usize,
    /// Held while branches go into the table, so that they go in the order of their records: it says that it is
    /// complete up to the last of them.
    remembering: Mutex<()>,
    /// What is closed, durably.
    closed: Mutex<Option<Closed>>,
    /// Something became durable.
    progress: Arc<Notify>,
}

/// Finished branches that are not in the table yet, in the order of their records.
#[derive(Default)]
struct Unremembered {
    queue: VecDeque<Finished>,
    noted: usize,
    since_checkpoint: usize,
    /// What is needed of the journal.
    kept: Kept,
}

/// Whatever writes the journal; ends when the journal is closed or has failed.
pub(crate) enum Writers {
    Thread(JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Store {
    /// Opens the journal and brings the table up to it. Blocks. The writer must run before anything becomes
    /// durable.
    pub(crate) fn open(
        options: &ParticipantOptions,
        disk: Arc<dyn Disk>,
        table: BranchTable,
    ) -> Result<(Self, Writer, Replayed), StartError> {
        let mut replay = Replay::new(&options.cluster, &options.name, &table)?;
        // The journal passes on what we say as text; what we mean is kept here.
        let mut refused = None;
        let opened = Journal::open(disk, journal_options(options), &mut |sequence, bytes| {
            replay.take(sequence, bytes).map_err(|error| {
                let text = error.to_string();
                refused = Some(error);
                text.into()
            })
        });
        let (journal, writer) = match (opened, refused) {
            (Ok(opened), _) => opened,
            (Err(OpenError::Refused { .. }), Some(error)) => return Err(error),
            (Err(error), _) => return Err(error.into()),
        };
        let mut replayed = replay.finish()?;
        let unremembered = Unremembered {
            kept: std::mem::take(&mut replayed.kept),
            ..Unremembered::default()
        };
        let store = Self {
            journal,
            table,
            name: options.name.clone(),
            checkpoint_after: options.checkpoint_after,
            unremembered: Mutex::new(unremembered),
            unremembered_at_most: options.unremembered,
            remembering: Mutex::default(),
            closed: Mutex::new(replayed.closed),
            progress: Arc::new(Notify::new()),
        };
        Ok((store, writer, replayed))
    }

    /// Records the start, the first thing of every life (R11). Nothing may be said before it is durable.
    pub(crate) async fn record_start(
        &self,
        options: &ParticipantOptions,
        generation: Generation,
    ) -> Result<(), StartError> {
        let record = Record::Started {
            cluster: options.cluster.clone(),
            generation,
        };
        let payload = encode_participant_record(&self.name, &record);
        self.journal.append_durable(payload).await?;
        Ok(())
    }

    /// Records that the cluster has confirmed this life, durably. Stands before every promise of it.
    pub(crate) async fn record_registration(&self, generation: Generation) -> Result<(), StopReason> {
        let payload = encode_participant_record(&self.name, &Record::Registered { generation });
        self.journal.append_durable(payload).await.map_err(not_taken)?;
        Ok(())
    }

    /// Writes the record; `durable` hears when it is on disk, on the writer's thread. If it never hears, the
    /// journal has failed.
    pub(crate) fn record(
        &self,
        record: &Record,
        durable: impl FnOnce() + Send + 'static,
    ) -> Result<Sequence, StopReason> {
        let payload = encode_participant_record(&self.name, record);
        let callback = self.with_progress(durable);
        // Held over the append, so that the queue has the order of the journal.
        let mut unremembered = self.lock();
        let sequence = if mutants::is_on(Mutant::M1) && matches!(record, Record::Prepared(..)) {
            callback(Ok(()));
            self.journal.append_lazily(payload)
        } else {
            self.journal.append(payload, callback)
        };
        let sequence = sequence.map_err(not_taken)?;
        unremembered.push(sequence, record);
        Ok(sequence)
    }

    /// Writes the record when it is convenient.
    pub(crate) fn note(&self, record: &Record) -> Result<(), StopReason> {
        let payload = encode_participant_record(&self.name, record);
        let mut unremembered = self.lock();
        unremembered.noted += 1;
        // With a small limit the queue would otherwise be full before anything forces a note to disk.
        let notes_per_sync = NOTES_PER_SYNC.min(self.unremembered_at_most / 2).max(1);
        let sequence = if unremembered.noted < notes_per_sync {
            self.journal.append_lazily(payload)
        } else {
            unremembered.noted = 0;
            self.journal.append(payload, self.with_progress(|| {}))
        };
        unremembered.push(sequence.map_err(not_taken)?, record);
        Ok(())
    }

    fn with_progress<F>(&self, durable: F) -> impl FnOnce(Result<(), Failed>) + Send + use<F>
    where
        F: FnOnce() + Send + 'static,
    {
        let progress = Arc::clone(&self.progress);
        move |result| {
            if result.is_ok() {
                durable();
                progress.notify_one();
            }
        }
    }

    /// How many finished branches the table does not have yet.
    pub(crate) fn unremembered(&self) -> usize {
        self.lock().queue.len()
    }

    /// Resolves when something has become durable since the last call.
    pub(crate) async fn progress(&self) {
        self.progress.notified().await;
    }

    /// Puts finished branches whose records are durable into the table, some at a time, and says which. Blocks.
    pub(crate) fn remember(&self) -> Result<Vec<TransactionId>, StopReason> {
        let _turn = self.remembering.lock().unwrap_or_else(PoisonError::into_inner);
        let durable = self.journal.durable();
        let (finished, checkpoint) = self.lock().take(durable, self.checkpoint_after);
        let Some(last) = finished.last() else {
            return Ok(Vec::new());
        };
        self.table
            .put(&finished, last.sequence)
            .map_err(StopReason::storage)?;
        if checkpoint {
            self.table.checkpoint().map_err(StopReason::storage)?;
        }
        let mut unremembered = self.lock();
        for branch in &finished {
            unremembered.kept.remembered(branch.transaction);
        }
        drop(unremembered);
        Ok(finished.iter().map(|branch| branch.transaction).collect())
    }

    /// Below which transaction everything is closed here, durably. What ended below it may have been forgotten.
    pub(crate) fn closed_below(&self) -> Option<TransactionId> {
        self.closed().map(|closed| closed.below)
    }

    fn closed(&self) -> Option<Closed> {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the watermark durable, before anything under it is forgotten (R7). Only in a life that the cluster has
    /// confirmed: what says that it did stands before this record, so a journal that begins with it, or behind it,
    /// still says how far the participant's memory reaches (R11).
    pub(crate) async fn close_below(
        &self,
        cluster: &ClusterId,
        generation: Generation,
        below: TransactionId,
    ) -> Result<(), StopReason> {
        if self.closed_below().is_some_and(|closed| below <= closed) {
            return Ok(());
        }
        let record = Record::Closed {
            cluster: cluster.clone(),
            generation,
            below,
        };
        let payload = encode_participant_record(&self.name, &record);
        let sequence = self.journal.append_durable(payload).await.map_err(not_taken)?;
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Closed { below, sequence });
        Ok(())
    }

    /// Drops some finished branches that are closed from the table, and says from where to go on. Blocks.
    pub(crate) fn drop_closed(&self, from: &[u8]) -> Result<Option<Vec<u8>>, StopReason> {
        let Some(below) = self.closed_below() else {
            return Ok(None);
        };
        self.table.drop_below(below, from).map_err(StopReason::storage)
    }

    /// Lets go of the beginning of the journal as far as nobody needs it. What is left says whose it is, keeps every
    /// promise, and builds a lost table again but for what is closed.
    pub(crate) fn release_closed(&self) {
        let Some(closed) = self.closed() else {
            return;
        };
        let needed = self.lock().kept.needed_from(closed.below);
        let before = needed.map_or(closed.sequence, |needed| needed.min(closed.sequence));
        self.journal.release_before(before);
    }

    /// Where the journal ends, as far as it is durable.
    pub(crate) fn durable(&self) -> Sequence {
        self.journal.durable()
    }

    /// The branch, if the table remembers it.
    pub(crate) fn branch(&self, transaction: TransactionId) -> Result<Option<Branch>, StopReason> {
        self.table.branch(transaction)
    }

    /// How this transaction's branch ended, as far as the table knows.
    pub(crate) fn finish(&self, transaction: TransactionId) -> Result<Option<Finish>, StartError> {
        Ok(self.table.finish(transaction)?)
    }

    /// Calls back once, when the journal fails.
    pub(crate) fn on_failure(&self, hook: impl FnOnce(StopReason) + Send + 'static) {
        self.journal
            .on_failure(move |failed| hook(StopReason::storage(failed)));
    }

    /// Takes no more records; the writer ends when all are durable.
    pub(crate) fn close(&self) {
        self.journal.close();
    }

    /// Puts everything into the table and makes it durable. For the end, when the writer has ended. Blocks.
    pub(crate) fn settle(&self) -> Result<(), StopReason> {
        while !self.remember()?.is_empty() {}
        self.table.checkpoint().map_err(StopReason::storage)
    }

    fn lock(&self) -> MutexGuard<'_, Unremembered> {
        self.unremembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unremembered {
    fn push(&mut self, sequence: Sequence, record: &Record) {
        self.kept.appended(sequence, record);
        let finish = match record {
            Record::Started { .. }
            | Record::Registered { .. }
            | Record::Closed { .. }
            | Record::Prepared(..) => return,
            Record::Committed {
                transaction,
                request_hash,
            } => Branch::finished(
                *transaction,
                Finish::Committed {
                    request_hash: *request_hash,
                },
            ),
            Record::Aborted { transaction, reason } => Branch::finished(
                *transaction,
                Finish::Aborted {
                    reason: reason.clone(),
                },
            ),
        };
        self.queue.extend(Finished::new(sequence, &finish));
    }

    /// The oldest that are durable, and whether it is time for a checkpoint after them.
    fn take(&mut self, durable: Sequence, checkpoint_after: usize) -> (Vec<Finished>, bool) {
        let ready = self.queue.partition_point(|branch| branch.sequence <= durable);
        let finished: Vec<Finished> = self.queue.drain(..ready.min(BRANCHES_PER_BATCH)).collect();
        self.since_checkpoint += finished.len();
        let checkpoint = self.since_checkpoint >= checkpoint_after;
        if checkpoint {
            self.since_checkpoint = 0;
        }
        (finished, checkpoint)
    }
}

impl Writers {
    /// Lets the writer run.
    pub(crate) fn start(writer: Writer, writing: Writing) -> io::Result<Self> {
        match writing {
            Writing::Threads => writer.spawn().map(Self::Thread),
            Writing::Tasks => Ok(Self::Task(tokio::spawn(write_in_steps(writer, Duration::ZERO)))),
            Writing::SlowTasks(pause) => Ok(Self::Task(tokio::spawn(write_in_steps(writer, pause)))),
        }
    }

    /// Resolves when the writer has ended.
    pub(crate) async fn ended(self) {
        // A writer that panicked has failed the journal, which is what everybody looks at.
        match self {
            Self::Thread(thread) => {
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
            Self::Task(task) => {
                let _ = task.await;
            }
        }
    }
}

async fn write_in_steps(mut writer: Writer, pause: Duration) {
    loop {
        match writer.step() {
            Step::Closed | Step::Failed => return,
            Step::Idle => {
                poll_fn(|context| writer.poll_work(context)).await;
                wait(pause).await;
            }
            Step::Wrote { .. } => wait(pause).await,
            _ => tokio::task::yield_now().await,
        }
    }
}

async fn wait(pause: Duration) {
    if pause.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(pause).await;
    }
}

/// A call of the resource manager may outlast the patience of a shutdown; what comes of it is not recorded any more.
fn not_taken(error: AppendError) -> StopReason {
    match error {
        AppendError::Closed { .. } => StopReason::Shutdown,
        error => StopReason::storage(error),
    }
}

fn journal_options(options: &ParticipantOptions) -> Options {
    let mut journal = Options::new("participant journal");
    journal.repair = REPAIR;
    journal.segment_bytes = options.segment_bytes;
    // A record has the redo, the members' names, and little else.
    let names = options.request.members * 80;
    let record = options.redo_bytes + names + 4096;
    journal.max_record_bytes = u32::try_from(record).unwrap_or(u32::MAX);
    // Every branch in flight has at most one record on its way, and notes wait as long as they are not remembered. So a
    // full queue is no case that branches know.
    let notes = options.unremembered.saturating_mul(NOTE_BYTES);
    let needed = options.in_flight.saturating_mul(record).saturating_add(notes);
    journal.max_queued_bytes = journal.max_queued_bytes.max(needed.saturating_mul(2));
    journal
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use unanimo_core::{Members, Prepared, RequestHash, Timestamp};
    use unanimo_journal::SimulatedDisk;
    use unanimo_table::MemoryTable;

    fn transaction(n: u64) -> TransactionId {
        TransactionId::new(Timestamp::from_unix_ms(n), 0)
    }

    #[test]
    fn only_what_is_durable_in_the_journal_goes_into_the_table() {
        let (cluster, name) = ("test".parse().unwrap(), "stock".parse().unwrap());
        let options = ParticipantOptions::new(cluster, name, "h:1", ["h:2"], "/nowhere");
        let table = BranchTable::new(Arc::new(MemoryTable::new()));
        let disk = Arc::new(SimulatedDisk::new());
        let (store, mut writer, _) = Store::open(&options, disk, table.clone()).unwrap();
        let committed = Record::Committed {
            transaction: transaction(1),
            request_hash: RequestHash::from_bytes([7; 32]),
        };
        let sequence = store.record(&committed, || {}).unwrap();
        assert_eq!(store.remember().unwrap(), []);
        while store.durable() < sequence {
            writer.step();
        }
        let aborted = Record::Aborted {
            transaction: transaction(2),
            reason: "no".to_owned(),
        };
        store.note(&aborted).unwrap();
        assert_eq!(store.remember().unwrap(), [transaction(1)]);
        assert_eq!(table.complete().unwrap(), sequence);
        assert_eq!(store.unremembered(), 1);
        store.close();
        while writer.step() != Step::Closed {}
        store.settle().unwrap();
        assert_eq!(table.complete().unwrap(), sequence.next());
    }

    #[test]
    fn two_hundred_thousand_branches_leave_no_more_behind_than_a_window_of_them() {
        const BRANCHES: u64 = 200_000;
        const WINDOW: u64 = 10_000;
        let cluster: ClusterId = "test".parse().unwrap();
        let name: ParticipantId = "stock".parse().unwrap();
        let mut options = ParticipantOptions::new(cluster.clone(), name.clone(), "h:1", ["h:2"], "/nowhere");
        options.segment_bytes = 256 * 1024;
        let (disk, memory) = (SimulatedDisk::new(), Arc::new(MemoryTable::new()));
        let table = BranchTable::new(Arc::clone(&memory) as _);
        let (store, mut writer, _) = Store::open(&options, Arc::new(disk.clone()), table).unwrap();
        let generation = Generation::of_start(1, 0);
        let mut all_done = |until: Sequence| {
            while store.durable() < until {
                writer.step();
            }
        };
        let members: Members = [name].into();
        let mut most = (0, 0, 0, 0);
        for n in 1..=BRANCHES {
            let prepared = Prepared {
                cluster: cluster.clone(),
                members: members.clone(),
                request_hash: RequestHash::from_bytes([7; 32]),
                redo: vec![0; 40].into(),
                deadline: Timestamp::from_unix_ms(n),
                prepared_at: Timestamp::from_unix_ms(n),
            };
            store
                .record(&Record::Prepared(transaction(n), prepared), || {})
                .unwrap();
            let committed = Record::Committed {
                transaction: transaction(n),
                request_hash: RequestHash::from_bytes([7; 32]),
            };
            let sequence = store.record(&committed, || {}).unwrap();
            if n % 1000 != 0 {
                continue;
            }
            all_done(sequence);
            while !store.remember().unwrap().is_empty() {}
            let mut closing =
                Box::pin(store.close_below(&cluster, generation, transaction(n.saturating_sub(WINDOW))));
            // The record is in the queue once this has been looked at.
            if closing.as_mut().now_or_never().is_none() {
                all_done(sequence.next());
                closing.now_or_never().unwrap().unwrap();
            }
            let mut from = Some(Vec::new());
            while let Some(key) = from {
                from = store.drop_closed(&key).unwrap();
            }
            store.release_closed();
            // The next group that is written says so, and then the files go.
            if n > 2 * WINDOW {
                let rows = unanimo_table::Table::scan(&*memory, &[], None, usize::MAX).unwrap();
                let (promises, stretches) = store.lock().kept.sizes();
                let files = Disk::list(&disk).unwrap();
                most.0 = most.0.max(rows.len());
                most.1 = most.1.max(files.len());
                most.2 = most.2.max(promises);
                most.3 = most.3.max(stretches);
            }
        }
        // A branch takes about 300 bytes here, so a window is a dozen of these files; four are there in any case.
        let window = WINDOW as usize;
        assert!(
            most.0 <= window + 2 && most.1 <= 24 && most.2 == 0 && most.3 <= 13,
            "rows, files, promises, stretches: {most:?}"
        );
        assert!(most.0 >= window && most.1 >= 8, "nothing was kept: {most:?}");
    }
}
