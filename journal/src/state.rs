//! What the handles and the writer of one journal share.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;

use crate::error::AppendError;
use crate::failed::Failed;
use crate::options::Options;
use crate::segment::Segment;
use crate::sequence::Sequence;
use crate::truncated::Truncated;

pub(crate) type Callback = Box<dyn FnOnce(Result<(), Failed>) + Send>;
pub(crate) type FailureHook = Box<dyn FnOnce(Failed) + Send>;

/// A record that waits for the writer.
pub(crate) struct Queued {
    pub(crate) sequence: Sequence,
    pub(crate) payload: Bytes,
    /// Set by a truncation: the last position that stays.
    pub(crate) after: Option<Sequence>,
    /// Called when the record is durable; without one it forces no sync.
    pub(crate) durable: Option<Callback>,
}

impl Queued {
    /// How much it counts against the limits: its payload and about what surrounds it.
    pub(crate) fn weight(&self) -> usize {
        self.payload.len() + crate::frame::OVERHEAD_BYTES
    }
}

/// Where a record stands in its segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location {
    pub(crate) offset: u32,
    /// Of the whole frame.
    pub(crate) bytes: u32,
}

impl Location {
    pub(crate) fn new(offset: u64, bytes: u64) -> Location {
        let (Ok(offset), Ok(bytes)) = (u32::try_from(offset), u32::try_from(bytes)) else {
            unreachable!("a segment is at most 1 GiB long");
        };
        Location { offset, bytes }
    }
}

/// Where the records of one segment stand.
pub(crate) struct SegmentIndex {
    pub(crate) segment: Segment,
    /// The position of its first record, present or to come.
    pub(crate) first: Sequence,
    /// Its records without a gap, from `first` on.
    pub(crate) records: Vec<Location>,
}

impl SegmentIndex {
    /// The position behind its last record.
    pub(crate) fn end(&self) -> Sequence {
        Sequence::new(self.first.get() + self.records.len() as u64)
    }
}

/// The part of a journal that is under its lock.
pub(crate) struct State {
    /// What the next append gets.
    pub(crate) next: Sequence,
    /// Up to here everything is on disk.
    pub(crate) durable: Sequence,
    pub(crate) queue: VecDeque<Queued>,
    /// The weight of everything that is queued or being written.
    pub(crate) queued_bytes: usize,
    /// The payloads that are not yet in the index, without a gap up to `next`, so that they can be read.
    pub(crate) pending: VecDeque<Bytes>,
    /// The segments with records, oldest first; the last one is being written.
    pub(crate) index: VecDeque<SegmentIndex>,
    pub(crate) truncated: Truncated,
    /// The owner needs nothing before this position.
    pub(crate) released: Sequence,
    pub(crate) closing: bool,
    /// Something besides the queue wants the writer's attention.
    pub(crate) nudged: bool,
    pub(crate) failed: Option<Failed>,
    pub(crate) failure_hooks: Vec<FailureHook>,
    pub(crate) waker: Option<Waker>,
}

impl State {
    /// The state right after opening: everything up to `last` is durable and nothing is queued.
    pub(crate) fn new(
        index: VecDeque<SegmentIndex>,
        truncated: Truncated,
        last: Sequence,
        released: Sequence,
    ) -> State {
        State {
            next: last.next(),
            durable: last,
            queue: VecDeque::new(),
            queued_bytes: 0,
            pending: VecDeque::new(),
            index,
            truncated,
            released,
            closing: false,
            nudged: false,
            failed: None,
            failure_hooks: Vec::new(),
            waker: None,
        }
    }

    pub(crate) fn first(&self) -> Sequence {
        self.index
            .front()
            .map_or(Sequence::FIRST, |oldest| oldest.first)
            .max(self.released)
    }

    /// The position of the oldest payload in `pending`.
    pub(crate) fn pending_first(&self) -> Sequence {
        Sequence::new(self.next.get() - self.pending.len() as u64)
    }

    /// How many of the oldest segments hold nothing from `before` on. Never the one that is being written.
    pub(crate) fn segments_before(&self, before: Sequence) -> usize {
        self.index
            .iter()
            .skip(1)
            .take_while(|segment| segment.first <= before)
            .count()
    }

    pub(crate) fn enqueue(
        &mut self,
        options: &Options,
        payload: Bytes,
        after: Option<Sequence>,
        durable: Option<Callback>,
    ) -> Result<Sequence, AppendError> {
        let journal = options.name;
        if let Some(failed) = &self.failed {
            return Err(AppendError::Failed(failed.clone()));
        }
        if self.closing {
            return Err(AppendError::Closed { journal });
        }
        let (length, max) = (payload.len(), options.max_record_bytes as usize);
        if length > max {
            return Err(AppendError::TooLarge { journal, length, max });
        }
        let sequence = self.next;
        let queued = Queued {
            sequence,
            payload,
            after,
            durable,
        };
        // An empty queue takes any record: the limit is about waiting, not about size.
        if self.queued_bytes > 0 && self.queued_bytes + queued.weight() > options.max_queued_bytes {
            return Err(AppendError::Full {
                journal,
                queued: self.queued_bytes,
                max: options.max_queued_bytes,
            });
        }
        if let Some(after) = after {
            assert!(
                after < sequence,
                "{journal}: records after {after} cannot be truncated, the next is {sequence}"
            );
            self.truncated.cut(after.next(), sequence);
        }
        self.next = sequence.next();
        self.queued_bytes += queued.weight();
        self.pending.push_back(queued.payload.clone());
        self.queue.push_back(queued);
        Ok(sequence)
    }

    pub(crate) fn wants_writer(&self) -> bool {
        !self.queue.is_empty() || self.nudged || self.failed.is_some()
    }
}

/// The state with its lock and the writer's alarm bell.
pub(crate) struct Shared {
    pub(crate) options: Options,
    state: Mutex<State>,
    work: Condvar,
}

impl Shared {
    pub(crate) fn new(options: Options, state: State) -> Shared {
        Shared {
            options,
            state: Mutex::new(state),
            work: Condvar::new(),
        }
    }

    /// Callbacks never run under the lock, so it can only be poisoned by a failed assertion of ours; then the
    /// writer's end marks the journal as failed, for which the state has to be reachable.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the writer that there is something to do.
    pub(crate) fn wake_writer(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.work.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Makes the writer look around even if nothing is queued.
    pub(crate) fn nudge(&self) {
        let mut state = self.lock();
        state.nudged = true;
        self.wake_writer(state);
    }

    /// Blocks until there is something to do.
    pub(crate) fn wait_for_work(&self) {
        let mut state = self.lock();
        while !state.wants_writer() {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What is reported if the writer ended without closing the journal.
    pub(crate) fn writer_lost(&self) -> Failed {
        let error = std::io::Error::other("the writer of the journal has ended");
        Failed::new(self.options.name, "write", "its segments", error)
    }

    /// The journal fails: hooks first, so that the owner stops serving before any append is answered.
    pub(crate) fn fail(&self, failed: Failed, written: Vec<Callback>) {
        let (hooks, queue) = {
            let mut state = self.lock();
            if state.failed.is_some() {
                assert!(written.is_empty(), "nothing is written after a failure");
                return;
            }
            state.failed = Some(failed.clone());
            (
                std::mem::take(&mut state.failure_hooks),
                std::mem::take(&mut state.queue),
            )
        };
        for hook in hooks {
            hook(failed.clone());
        }
        let waiting = queue.into_iter().filter_map(|queued| queued.durable);
        for callback in written.into_iter().chain(waiting) {
            callback(Err(failed.clone()));
        }
    }
}
