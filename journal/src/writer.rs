//! The one writer of a journal: takes what is queued, writes it, syncs it, and tells whoever waits.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use crate::appender::Appender;
use crate::failed::Failed;
use crate::keeper::Keeper;
use crate::sequence::Sequence;
use crate::state::{Callback, Queued, SegmentIndex, Shared};

/// The writing end of a journal. It has to run, or nothing that was appended becomes durable.
///
/// [`spawn`](Writer::spawn) gives it a thread. A simulation calls [`step`](Writer::step) instead, with
/// [`poll_work`](Writer::poll_work) to know when. Dropping it before it is done makes the journal fail.
pub struct Writer {
    shared: Arc<Shared>,
    keeper: Keeper,
    appender: Appender,
    finished: bool,
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
    pub(crate) fn new(shared: Arc<Shared>, keeper: Keeper, appender: Appender) -> Writer {
        let mut writer = Writer {
            shared,
            keeper,
            appender,
            finished: false,
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
        if self.appender.wants_seal() {
            self.appender.seal()?;
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
        let last = records
            .last()
            .map_or(self.appender.last(), |record| record.sequence);
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
        let written = self
            .appender
            .put(&records, release, &mut self.keeper)
            .and_then(|index| {
                if must_sync {
                    self.appender.sync()?;
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
            state.durable = self.appender.last();
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
        if self.appender.is_half_full() {
            self.keeper.prepare_after(self.appender.segment());
        }
    }

    /// Makes everything durable, the seal included, and ends.
    fn finish(&mut self) -> Result<(), Failed> {
        self.appender.finish()?;
        self.shared.lock().durable = self.appender.last();
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
