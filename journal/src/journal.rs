//! The handle that owners of a journal hold.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::channel::oneshot;

use crate::disk::Disk;
use crate::error::{AppendError, OpenError, ReadError};
use crate::failed::Failed;
use crate::frame::{Frame, Place};
use crate::options::Options;
use crate::recovery::{self, Replay};
use crate::segment::Segment;
use crate::sequence::Sequence;
use crate::state::{Callback, Location, Shared, State};
use crate::writer::Writer;

/// A durable append-only journal; cheap to clone, usable from any thread.
///
/// No call here waits for the disk except [`open`](Journal::open) and [`read`](Journal::read). When the last
/// handle is dropped the journal is closed, as by [`close`](Journal::close).
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    _last_handle: Arc<LastHandle>,
}

/// Closes the journal when nobody can append any more, so that its writer ends.
struct LastHandle(Arc<Shared>);

impl Drop for LastHandle {
    fn drop(&mut self) {
        close(&self.0);
    }
}

/// Why a record that is wanted is not in memory, and where it is instead.
enum Found {
    Queued(Bytes),
    OnDisk(Segment, Location),
}

impl Journal {
    /// Opens the journal in this directory, or creates it, and hands every live record to `replay`, oldest first.
    ///
    /// What is handed out is durable. A torn tail is cut before, which loses nothing that was ever acknowledged;
    /// damage to anything else refuses with an error that says what to do. The first record handed out is at or
    /// after the last release that became durable; records released later than that may be handed out again. An
    /// error from `replay` ends the opening.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        replay: &mut Replay<'_>,
    ) -> Result<(Journal, Writer), OpenError> {
        let (shared, writer) = recovery::open(disk, options, replay)?;
        let _last_handle = Arc::new(LastHandle(Arc::clone(&shared)));
        Ok((Journal { shared, _last_handle }, writer))
    }

    /// Appends a record and returns its position; `durable` is called once it is on disk, or once it is known
    /// that the journal failed.
    ///
    /// The order of calls is the order of positions and of callbacks. Callbacks run on the writer's thread: they
    /// must be short and must not panic. After an error no callback is called and the record is not in the
    /// journal.
    pub fn append(
        &self,
        payload: impl Into<Bytes>,
        durable: impl FnOnce(Result<(), Failed>) + Send + 'static,
    ) -> Result<Sequence, AppendError> {
        self.enqueue(payload.into(), None, Some(Box::new(durable)))
    }

    /// Appends a record that nobody waits for: it is written soon and in order, but forces no sync. It becomes
    /// durable with the next record that does, at the latest when the journal is closed.
    pub fn append_lazily(&self, payload: impl Into<Bytes>) -> Result<Sequence, AppendError> {
        self.enqueue(payload.into(), None, None)
    }

    /// Appends a record and returns a future that resolves once it is durable.
    ///
    /// The record is in the queue when this returns, polled or not; dropping the future takes nothing back.
    /// [`AppendError::Failed`] leaves open whether the record is found when the journal is opened again.
    pub fn append_durable(
        &self,
        payload: impl Into<Bytes>,
    ) -> impl Future<Output = Result<Sequence, AppendError>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        // A dropped future wants no answer.
        let queued = self.append(payload, move |result| drop(answer.send(result)));
        let shared = Arc::clone(&self.shared);
        async move {
            let sequence = queued?;
            match answered.await {
                Ok(result) => result.map(|()| sequence).map_err(AppendError::Failed),
                // Only a writer that panicked leaves callbacks uncalled.
                Err(oneshot::Canceled) => Err(AppendError::Failed(shared.writer_lost())),
            }
        }
    }

    /// Ends all records after `after`, and appends `payload` as the record that follows, in one: either both
    /// happen or neither does. Positions are not given out again, so the new record's is higher than theirs.
    ///
    /// Records that ended cannot be read from here on. Otherwise as [`append`](Journal::append).
    ///
    /// # Panics
    ///
    /// If `after` was never given out.
    pub fn truncate_after(
        &self,
        after: Sequence,
        payload: impl Into<Bytes>,
        durable: impl FnOnce(Result<(), Failed>) + Send + 'static,
    ) -> Result<Sequence, AppendError> {
        self.enqueue(payload.into(), Some(after), Some(Box::new(durable)))
    }

    /// Says that nothing before `before` is needed any more. It cannot be read from here on, and the writer
    /// removes whole segments of it; until it has, another opening may hand the records out again.
    pub fn release_before(&self, before: Sequence) {
        let mut state = self.shared.lock();
        let before = before.min(state.next);
        if before > state.released {
            state.released = before;
            state.nudged = true;
            self.shared.wake_writer(state);
        }
    }

    /// Reads a record and checks it again. One that is still queued is served from memory.
    pub fn read(&self, sequence: Sequence) -> Result<Bytes, ReadError> {
        let journal = self.shared.options.name;
        let (segment, location) = match find(journal, &self.shared.lock(), sequence)? {
            Found::Queued(payload) => return Ok(payload),
            Found::OnDisk(segment, location) => (segment, location),
        };
        let file = segment.name.to_string();
        let offset = u64::from(location.offset);
        let mut bytes = vec![0; location.bytes as usize];
        if let Err(source) = segment.file.read_at(&mut bytes, offset) {
            return Err(ReadError::Disk {
                journal,
                sequence,
                file,
                source,
            });
        }
        let bytes = Bytes::from(bytes);
        match Frame::decode(
            &bytes,
            Place {
                segment: segment.number,
                offset,
            },
        ) {
            Some(frame) if frame.kind.is_record() && frame.sequence == sequence => {
                Ok(bytes.slice_ref(frame.payload()))
            }
            Some(_) | None => Err(ReadError::Damaged {
                journal,
                sequence,
                file,
                offset,
            }),
        }
    }

    /// The first position that is kept; what precedes it was released.
    pub fn first(&self) -> Sequence {
        self.shared.lock().first()
    }

    /// The position that the next append will get.
    pub fn next(&self) -> Sequence {
        self.shared.lock().next
    }

    /// Every record up to this position is on disk.
    pub fn durable(&self) -> Sequence {
        self.shared.lock().durable
    }

    /// Registers what to do when the journal fails: the process must stop serving (R10). Called once, on the
    /// writer's thread and before any waiting append hears of the failure; at once if the journal has failed.
    pub fn on_failure(&self, hook: impl FnOnce(Failed) + Send + 'static) {
        let mut state = self.shared.lock();
        match state.failed.clone() {
            None => state.failure_hooks.push(Box::new(hook)),
            Some(failed) => {
                drop(state);
                hook(failed);
            }
        }
    }

    /// Takes no more appends. The writer writes, syncs and seals what is queued, and ends; joining its thread, or
    /// stepping it to `Closed`, waits for that.
    pub fn close(&self) {
        close(&self.shared);
    }

    fn enqueue(
        &self,
        payload: Bytes,
        after: Option<Sequence>,
        durable: Option<Callback>,
    ) -> Result<Sequence, AppendError> {
        let mut state = self.shared.lock();
        let sequence = state.enqueue(&self.shared.options, payload, after, durable)?;
        self.shared.wake_writer(state);
        Ok(sequence)
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("name", &self.shared.options.name)
            .finish_non_exhaustive()
    }
}

fn close(shared: &Shared) {
    let mut state = shared.lock();
    state.closing = true;
    state.nudged = true;
    shared.wake_writer(state);
}

fn find(journal: &'static str, state: &State, sequence: Sequence) -> Result<Found, ReadError> {
    let (first, next) = (state.first(), state.next);
    if sequence < first {
        return Err(ReadError::Released {
            journal,
            sequence,
            first,
        });
    }
    if sequence >= next {
        return Err(ReadError::NotYet {
            journal,
            sequence,
            next,
        });
    }
    if state.truncated.contains(sequence) {
        return Err(ReadError::Truncated { journal, sequence });
    }
    let pending_first = state.pending_first();
    if sequence >= pending_first {
        return Ok(Found::Queued(
            state.pending[sequence.distance_from(pending_first)].clone(),
        ));
    }
    let behind = state.index.partition_point(|segment| segment.first <= sequence);
    // A segment may hold no records; then the one before it reaches up to it.
    let segment = state
        .index
        .range(..behind)
        .rev()
        .find(|segment| sequence < segment.end());
    let Some(segment) = segment else {
        unreachable!("{journal}: position {sequence} is neither in the index nor queued");
    };
    Ok(Found::OnDisk(
        segment.segment.clone(),
        segment.records[sequence.distance_from(segment.first)],
    ))
}
