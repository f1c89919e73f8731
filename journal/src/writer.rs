//! The one writer of a journal: takes what is queued, writes it, syncs it, and tells whoever waits.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use crate::failed::Failed;
use crate::frame::{self, Content, Place};
use crate::keeper::Keeper;
use crate::segment::{self, Segment};
use crate::sequence::Sequence;
use crate::state::{Callback, Location, Queued, SegmentIndex, Shared};

/// The writing end of a journal. It has to run, or nothing that was appended becomes durable.
///
/// [`spawn`](Writer::spawn) gives it a thread. A simulation calls [`step`](Writer::step) instead, with
/// [`poll_work`](Writer::poll_work) to know when. Dropping it before it is done makes the journal fail.
pub struct Writer {
    shared: Arc<Shared>,
    keeper: Keeper,
    active: Active,
    /// The last record written, durable or not.
    last: Sequence,
    /// The checksum of the last lasting frame.
    chain: u32,
    /// Segments with bytes that were written after their last sync.
    unsynced: Vec<Segment>,
    /// Segments that were left since the last sync and still want their closing seal.
    left: Vec<Left>,
    seal: Seal,
    finished: bool,
    buffer: Vec<u8>,
}

/// The segment that is being written.
pub(crate) struct Active {
    pub(crate) segment: Segment,
    /// Where the next frame goes.
    pub(crate) tail: u64,
}

/// Where the writing of a full segment ended.
struct Left {
    segment: Segment,
    tail: u64,
    last: Sequence,
    chain: u32,
}

/// The seal at the tail of the active segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    Missing,
    Written,
    Synced,
}

/// What one step of the writer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Wrote a group.
    Wrote {
        /// How many records it held.
        records: usize,
        /// Whether they, and all before them, are durable now. A group of lazy records only is not.
        durable: bool,
    },
    /// Made or removed a segment, or took over one that was made.
    Kept,
    /// Sealed the tail, because nothing was queued.
    Sealed,
    /// Had nothing to do.
    Idle,
    /// The journal is closed and all of it is durable. Nothing happens any more.
    Closed,
    /// The journal has failed. Nothing happens any more.
    Failed,
}

/// What is written and synced together.
struct Group {
    records: Vec<Queued>,
    release: Option<Sequence>,
    must_sync: bool,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        keeper: Keeper,
        active: Active,
        last: Sequence,
        chain: u32,
    ) -> Writer {
        let mut writer = Writer {
            shared,
            keeper,
            active,
            last,
            chain,
            unsynced: Vec::new(),
            left: Vec::new(),
            // Opening ends with a seal on disk, or with nothing yet to vouch for.
            seal: Seal::Synced,
            finished: false,
            buffer: Vec::new(),
        };
        writer.prepare_ahead();
        writer
    }

    /// Runs the writer on a thread of its own until the journal is closed or fails.
    pub fn spawn(self) -> io::Result<JoinHandle<()>> {
        let name = format!("{}-writer", self.shared.options.name);
        thread::Builder::new().name(name).spawn(move || self.run())
    }

    /// Runs the writer on this thread until the journal is closed or fails.
    pub fn run(mut self) {
        if let Err(error) = self.keeper.move_to_thread(&self.shared) {
            // Segments are then made between groups: slower, but as safe.
            tracing::warn!(journal = self.shared.options.name, %error, "no thread to prepare segments");
        }
        loop {
            match self.step() {
                Step::Closed | Step::Failed => return,
                Step::Idle => self.shared.wait_for_work(),
                Step::Wrote { .. } | Step::Kept | Step::Sealed => {}
            }
        }
    }

    /// Ready when a step has something to do; otherwise the task is woken when there is.
    pub fn poll_work(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        if state.wants_writer() {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Does one thing: writes a group, or prepares or removes a segment, or seals the tail.
    ///
    /// The callbacks of what became durable run before it returns. It does not wait for anything but the disk.
    pub fn step(&mut self) -> Step {
        if self.finished {
            return if self.shared.lock().failed.is_some() {
                Step::Failed
            } else {
                Step::Closed
            };
        }
        let group = self.take_group();
        let records = group.records.len();
        let outcome = if records > 0 || group.release.is_some() {
            self.write(group).map(|durable| Step::Wrote { records, durable })
        } else {
            self.rest().map_err(|failed| (failed, Vec::new()))
        };
        match outcome {
            Ok(step) => {
                self.finished = step == Step::Closed;
                step
            }
            Err((failed, callbacks)) => {
                self.finished = true;
                self.shared.fail(failed, callbacks);
                Step::Failed
            }
        }
    }

    /// Nothing is queued: see to the segments, seal the tail, or end.
    fn rest(&mut self) -> Result<Step, Failed> {
        let closing = self.shared.lock().closing;
        if !closing && self.keeper.work()? {
            return Ok(Step::Kept);
        }
        if self.seal == Seal::Missing && self.unsynced.is_empty() {
            self.write_seal()?;
            return Ok(Step::Sealed);
        }
        if !closing {
            return Ok(Step::Idle);
        }
        self.finish()?;
        Ok(Step::Closed)
    }

    fn take_group(&mut self) -> Group {
        let mut state = self.shared.lock();
        state.nudged = false;
        let mut records = Vec::new();
        let mut bytes = 0;
        while let Some(next) = state.queue.front() {
            bytes += next.weight();
            if !records.is_empty() && bytes > self.shared.options.max_group_bytes {
                break;
            }
            records.extend(state.queue.pop_front());
        }
        // A release is written down only when it lets go of a whole segment, and only about records before it.
        // What an earlier release would allow is not enough: the segment that says so may be among those to go.
        let last = records.last().map_or(self.last, |record| record.sequence);
        let release =
            Some(state.released.min(last.next())).filter(|before| state.segments_before(*before) > 0);
        let must_sync = release.is_some() || records.iter().any(|record| record.durable.is_some());
        Group {
            records,
            release,
            must_sync,
        }
    }

    /// Writes the group, syncs it if anyone waits for that, and answers. True if it is durable.
    fn write(&mut self, group: Group) -> Result<bool, (Failed, Vec<Callback>)> {
        let Group {
            mut records,
            release,
            must_sync,
        } = group;
        let callbacks: Vec<Callback> = records
            .iter_mut()
            .filter_map(|record| record.durable.take())
            .collect();
        let written = self.put(&records, release).and_then(|index| {
            if must_sync {
                self.sync()?;
            }
            Ok(index)
        });
        let index = match written {
            Ok(index) => index,
            Err(failed) => return Err((failed, callbacks)),
        };
        self.publish(&records, index, must_sync);
        for callback in callbacks {
            callback(Ok(()));
        }
        if let Some(before) = release {
            self.clear_away(before);
        }
        self.prepare_ahead();
        Ok(must_sync)
    }

    /// Writes all frames, one write for each segment that they touch, and says where the records stand.
    fn put(&mut self, records: &[Queued], release: Option<Sequence>) -> Result<Vec<SegmentIndex>, Failed> {
        let durable = self.shared.lock().durable;
        self.seal = Seal::Missing;
        let mut index = vec![self.index_from_here()];
        let mut start = self.active.tail;
        self.buffer.clear();
        let contents = records.iter().map(|record| match record.after {
            Some(after) => Content::Truncation {
                after,
                payload: &record.payload,
            },
            None => Content::Record {
                payload: &record.payload,
            },
        });
        let release = release.map(|before| Content::Release { before });
        for content in contents.chain(release) {
            if self.active.tail + content.frame_bytes() + segment::SEAL_BYTES > self.active.segment.length {
                self.flush(start)?;
                self.enter_next_segment()?;
                start = self.active.tail;
                self.encode(durable, Content::Begin);
                index.push(self.index_from_here());
            }
            let offset = self.active.tail;
            if !matches!(content, Content::Release { .. }) {
                self.last = self.last.next();
                if let Some(segment) = index.last_mut() {
                    segment.records.push(Location::new(offset, content.frame_bytes()));
                }
            }
            self.encode(durable, content);
        }
        self.flush(start)?;
        assert!(
            records.last().is_none_or(|record| record.sequence == self.last),
            "positions have no gap"
        );
        Ok(index)
    }

    fn index_from_here(&self) -> SegmentIndex {
        SegmentIndex {
            segment: self.active.segment.clone(),
            first: self.last.next(),
            records: Vec::new(),
        }
    }

    fn encode(&mut self, durable: Sequence, content: Content<'_>) {
        let place = Place {
            segment: self.active.segment.number,
            offset: self.active.tail,
        };
        self.chain = frame::encode(&mut self.buffer, place, self.chain, self.last, durable, content);
        self.active.tail += content.frame_bytes();
    }

    /// Writes the frames that have been gathered for the active segment, from `start` on.
    fn flush(&mut self, start: u64) -> Result<(), Failed> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let segment = &self.active.segment;
        write_at(&self.shared, segment, &self.buffer, start)?;
        self.buffer.clear();
        if self
            .unsynced
            .last()
            .is_none_or(|last| last.number != segment.number)
        {
            self.unsynced.push(segment.clone());
        }
        Ok(())
    }

    fn enter_next_segment(&mut self) -> Result<(), Failed> {
        let next = self.keeper.take_after(self.active.segment.number)?;
        let entered = Active {
            segment: next,
            tail: segment::HEADER_BYTES,
        };
        let Active { segment, tail } = std::mem::replace(&mut self.active, entered);
        self.left.push(Left {
            segment,
            tail,
            last: self.last,
            chain: self.chain,
        });
        Ok(())
    }

    /// Syncs everything written so far.
    fn sync(&mut self) -> Result<(), Failed> {
        for segment in self.unsynced.drain(..) {
            let result = segment.file.sync_data();
            result.map_err(|error| Failed::new(self.shared.options.name, "sync", &segment.name, error))?;
        }
        // The seals of full segments vouch for the segment after them, so they come after its sync.
        for left in std::mem::take(&mut self.left) {
            self.write_seal_at(&left.segment, left.tail, left.last, left.chain)?;
        }
        Ok(())
    }

    fn publish(&mut self, records: &[Queued], index: Vec<SegmentIndex>, durable: bool) {
        let mut state = self.shared.lock();
        for part in index {
            match state.index.back_mut() {
                Some(last) if last.segment.number == part.segment.number => {
                    assert!(
                        part.records.is_empty() || last.end() == part.first,
                        "the index has no gap"
                    );
                    last.records.extend(part.records);
                }
                _ => state.index.push_back(part),
            }
        }
        state.pending.drain(..records.len());
        state.queued_bytes -= records.iter().map(Queued::weight).sum::<usize>();
        if durable {
            state.durable = self.last;
        }
    }

    /// The release at the tail is durable: segments before it are not needed any more. The one that says so is the
    /// last, so it stays.
    fn clear_away(&mut self, before: Sequence) {
        let mut state = self.shared.lock();
        let count = state.segments_before(before);
        for segment in state.index.drain(..count) {
            self.keeper.remove(segment.segment.number);
        }
        let first = state.first();
        state.truncated.forget_before(first);
    }

    /// Has the next segment made before it is needed: zeroing one takes longer than any group should wait.
    fn prepare_ahead(&mut self) {
        if self.active.tail > self.active.segment.length / 2 {
            self.keeper.prepare_after(self.active.segment.number);
        }
    }

    /// Writes a seal at the tail. The next group is written over it.
    fn write_seal(&mut self) -> Result<(), Failed> {
        assert!(
            self.unsynced.is_empty(),
            "a seal vouches for everything before it"
        );
        self.write_seal_at(&self.active.segment, self.active.tail, self.last, self.chain)?;
        self.seal = Seal::Written;
        Ok(())
    }

    fn write_seal_at(&self, segment: &Segment, tail: u64, last: Sequence, chain: u32) -> Result<(), Failed> {
        let mut bytes = Vec::with_capacity(segment::SEAL_BYTES as usize);
        let place = Place {
            segment: segment.number,
            offset: tail,
        };
        frame::encode(&mut bytes, place, chain, last, self.last, Content::Seal);
        write_at(&self.shared, segment, &bytes, tail)
    }

    /// Makes everything durable, the seal included, and ends.
    fn finish(&mut self) -> Result<(), Failed> {
        self.sync()?;
        if self.seal == Seal::Missing {
            self.write_seal()?;
        }
        if self.seal == Seal::Written {
            self.unsynced.push(self.active.segment.clone());
            self.sync()?;
            self.seal = Seal::Synced;
        }
        self.shared.lock().durable = self.last;
        self.keeper.stop();
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.keeper.stop();
        if !self.finished {
            self.shared.fail(self.shared.writer_lost(), Vec::new());
        }
    }
}

fn write_at(shared: &Shared, segment: &Segment, bytes: &[u8], offset: u64) -> Result<(), Failed> {
    assert!(
        offset + bytes.len() as u64 <= segment.length,
        "a write stays inside its segment"
    );
    let result = segment.file.write_at(bytes, offset);
    result.map_err(|error| Failed::new(shared.options.name, "write", &segment.name, error))
}
