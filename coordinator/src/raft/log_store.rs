//! Raft's log, in a journal.
//!
//! Every entry, vote and commit position is one record of the journal, in the order in which openraft wrote them,
//! so the order between votes and entries is kept for nothing. What the records mean together is worked out in
//! [`log_records`](super::log_records); this is the part that openraft talks to.
//!
//! * Entries are readable when `append` returns and durable when its callback is called: many appends share one
//!   forced write.
//! * A vote and a truncation are durable on return.
//! * A truncation cuts whatever was written behind the last entry that stays, votes included. So its record carries
//!   the state that stood there; likewise the record of a purge carries what stood in the part that is released.
//! * The commit position is written without forcing it: losing it costs time at a restart, nothing else.
//!
//! The newest entries are kept in memory, as many as the options say; older ones are read from the journal.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use unanimo_core::mutants::{self, Mutant};
use unanimo_journal::{AppendError, Disk, Failed, Journal, OpenError, Options, ReadError, Sequence, Writer};

use super::StartError;
use super::log_records::{Log, Owner, Read, Record};
use super::snapshot_store::SnapshotStore;
use super::type_config::{Entry, LogId, TypeConfig, Vote};

/// The most that the entries of one message between nodes may add up to, in bytes; also the largest entry that is
/// accepted from proposers. Half of what a message may hold leaves ample room for what surrounds them.
pub(super) const MAX_APPEND_BYTES: usize = unanimo_proto::transport::MAX_MESSAGE_BYTES / 2;

/// How long an append waits before it looks again whether the journal has room.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// Raft's log. A clone is another handle.
#[derive(Clone)]
pub(super) struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    journal: Journal,
    log: Mutex<Log>,
    /// What a purge may rely on; none in tests of the log alone.
    snapshots: Option<Arc<SnapshotStore>>,
}

impl LogStore {
    /// Opens the log of this owner, or creates it. The writer has to be run for anything to become durable.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        owner: Owner,
        cached_bytes: usize,
        snapshots: Option<Arc<SnapshotStore>>,
    ) -> Result<(Self, Writer), StartError> {
        let mut log = Log::new(owner, cached_bytes);
        let (journal, writer) = Journal::open(disk, options, &mut |sequence, payload| {
            Ok(log.replay(sequence, payload)?)
        })
        .map_err(refused)?;
        let fresh = log.finish_replay()?;
        if fresh {
            // Whatever is forced to disk first takes this along, so it needs no forced write of its own.
            journal
                .append_lazily(log.identity())
                .map_err(|error| StartError::LogContents {
                    reason: error.to_string(),
                })?;
        }
        let log = Mutex::new(log);
        let shared = Arc::new(Shared {
            journal,
            log,
            snapshots,
        });
        Ok((Self { shared }, writer))
    }

    /// The journal, for its end and its failure.
    pub(super) fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// Whether this node was ever part of a cluster.
    pub(super) fn is_used(&self) -> bool {
        let log = self.lock();
        log.vote.is_some() || log.last().is_some()
    }

    /// The last entry that was dropped from the front, and the last of all.
    pub(super) fn bounds(&self) -> (Option<LogId>, Option<LogId>) {
        let log = self.lock();
        (log.purged, log.last())
    }

    /// The term of the last vote that was saved.
    pub(super) fn vote_term(&self) -> Option<u64> {
        self.lock().vote.map(|vote| vote.leader_id.term)
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends one entry; `flushed` is completed when it, and all before it, are durable.
    async fn append_entry(
        &self,
        entry: Entry,
        flushed: &mut Option<IOFlushed<TypeConfig>>,
    ) -> io::Result<()> {
        let record = Record::Entry(&entry).encode();
        loop {
            {
                let mut log = self.lock();
                if mutants::is_on(Mutant::M11)
                    && let Some(callback) = flushed.take()
                {
                    callback.io_completed(Ok(()));
                }
                let appended = match flushed.take() {
                    None => self.shared.journal.append_lazily(record.clone()),
                    // The callback is consumed by the attempt, so there must be room before it is made.
                    Some(callback) => self.append_with(record.clone(), callback, flushed),
                };
                match appended {
                    Ok(sequence) => {
                        log.push(sequence, entry, record.len());
                        return Ok(());
                    }
                    Err(AppendError::Full { .. }) => {}
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
            // The writer is behind by as much as the journal may queue. Waiting here slows the leader down, which
            // is what bounds the queue; the entry is not lost.
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }

    /// Appends with a callback, and gives the callback back if the journal did not take the record.
    fn append_with(
        &self,
        record: bytes::Bytes,
        callback: IOFlushed<TypeConfig>,
        back: &mut Option<IOFlushed<TypeConfig>>,
    ) -> Result<Sequence, AppendError> {
        let slot = Arc::new(Mutex::new(Some(callback)));
        let taken = Arc::clone(&slot);
        let take = |slot: &Mutex<Option<_>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let appended = self.shared.journal.append(record, move |result| {
            if let Some(callback) = take(&taken) {
                callback.io_completed(result.map_err(failed));
            }
        });
        if appended.is_err() {
            *back = take(&slot);
        }
        appended
    }

    /// Has a record taken by the journal, under the log's lock. While the writer is behind by as much as the journal
    /// may queue it waits, as an append does.
    async fn until_taken<T>(
        &self,
        mut attempt: impl FnMut(&mut Log) -> Result<T, AppendError>,
    ) -> io::Result<T> {
        loop {
            match attempt(&mut self.lock()) {
                Ok(taken) => return Ok(taken),
                Err(AppendError::Full { .. }) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }

    /// Waits until a record is durable.
    async fn wait(answer: oneshot::Receiver<Result<(), Failed>>) -> io::Result<()> {
        match answer.await {
            Ok(result) => result.map_err(failed),
            Err(oneshot::Canceled) => Err(io::Error::other("the writer of the raft log has ended")),
        }
    }
}

/// What this module refused at replay comes back inside the journal's error.
fn refused(error: OpenError) -> StartError {
    match error {
        OpenError::Refused {
            journal,
            sequence,
            source,
        } => match source.downcast::<StartError>() {
            Ok(ours) => *ours,
            Err(source) => OpenError::Refused {
                journal,
                sequence,
                source,
            }
            .into(),
        },
        error => error.into(),
    }
}

fn failed(failed: Failed) -> io::Error {
    io::Error::new(failed.kind(), failed)
}

/// The half-open range of indexes that bounds stand for.
fn indexes(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = indexes(&range);
        'again: loop {
            let wanted = self.lock().read(start, end);
            let mut entries = Vec::with_capacity(wanted.len());
            for read in wanted {
                let (log_id, sequence) = match read {
                    Read::Cached(entry) => {
                        entries.push(entry);
                        continue;
                    }
                    Read::InJournal(log_id, sequence) => (log_id, sequence),
                };
                match self.shared.journal.read(sequence) {
                    Ok(payload) => entries.push(Log::entry_of(payload, log_id)?),
                    // The log was cut or purged after its lock was let go: what was wanted is to be worked out
                    // again. The log is changed before the journal, so this ends.
                    Err(ReadError::Truncated { .. } | ReadError::Released { .. })
                        if self.lock().sequence_of(log_id) != Some(sequence) =>
                    {
                        continue 'again;
                    }
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
            return Ok(entries);
        }
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let end = self.lock().end_within(start, end, MAX_APPEND_BYTES);
        self.try_get_log_entries(start..end).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let (last_purged_log_id, last_log_id) = self.bounds();
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if mutants::is_on(Mutant::M9) {
            self.lock().vote = Some(*vote);
            return Ok(());
        }
        let record = Record::Vote(vote).encode();
        let answer = self
            .until_taken(|log| {
                let (told, answer) = oneshot::channel();
                // A caller that went away wants no answer.
                let done = move |result| drop(told.send(result));
                self.shared.journal.append(record.clone(), done)?;
                log.vote = Some(*vote);
                Ok(answer)
            })
            .await?;
        Self::wait(answer).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let mut log = self.lock();
        match self
            .shared
            .journal
            .append_lazily(Record::Committed(&committed).encode())
        {
            Ok(_) => log.committed = Some(committed),
            // Only saves time at a restart, so it may be left out when there is no room.
            Err(AppendError::Full { .. }) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        // The last entry carries the callback: when it is durable, so are those before it.
        let mut entries = entries.into_iter().peekable();
        let mut callback = Some(callback);
        while let Some(entry) = entries.next() {
            let mut flushed = if entries.peek().is_none() {
                callback.take()
            } else {
                None
            };
            self.append_entry(entry, &mut flushed).await?;
        }
        if let Some(callback) = callback {
            // Nothing to append; the callback still says that everything before is durable.
            let mut callback = Some(callback);
            self.until_taken(|log| match callback.take() {
                Some(taken) => self.append_with(log.identity(), taken, &mut callback),
                None => unreachable!("an append that is refused gives the callback back"),
            })
            .await?;
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let Some(after) = self.lock().truncate_after(last) else {
            return Ok(());
        };
        let answer = self
            .until_taken(|log| {
                let (told, answer) = oneshot::channel();
                let done = move |result| drop(told.send(result));
                self.shared
                    .journal
                    .truncate_after(after, log.truncation(), done)?;
                Ok(answer)
            })
            .await?;
        Self::wait(answer).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        if let Some(snapshots) = &self.shared.snapshots {
            let covered = snapshots.last_log_id();
            assert!(
                covered >= Some(upto),
                "the log is purged up to {upto}, but the snapshot ends at {covered:?}"
            );
        }
        {
            let mut log = self.lock();
            if log.purged >= Some(upto) {
                return Ok(());
            }
            log.purge(upto);
        }
        self.until_taken(|log| {
            // Under the log's lock nobody else appends, so the next position is that of the record.
            let keep = log.first_sequence().unwrap_or(self.shared.journal.next());
            let journal = self.shared.journal.clone();
            self.shared.journal.append(log.purge_record(), move |result| {
                // Only now the record carries what the released part held.
                if result.is_ok() {
                    journal.release_before(keep);
                }
            })
        })
        .await
        .map(drop)
    }
}
