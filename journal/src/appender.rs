//! The end of the journal on disk: frames go behind the last one, are synced, and get a seal.

use crate::failed::Failed;
use crate::frame::{self, Content, Place};
use crate::keeper::Keeper;
use crate::mutants::{self, Mutant};
use crate::segment::{self, Segment};
use crate::sequence::Sequence;
use crate::state::{Location, Queued, SegmentIndex};

/// Writes frames in order. What it has written is durable after [`sync`](Appender::sync), and not before.
pub(crate) struct Appender {
    journal: &'static str,
    active: Segment,
    /// Where in the active segment the next frame goes.
    tail: u64,
    /// The last record written, durable or not.
    last: Sequence,
    /// Every record up to here is durable.
    durable: Sequence,
    /// The checksum of the last lasting frame.
    chain: u32,
    /// Segments with bytes that were written after their last sync.
    unsynced: Vec<Segment>,
    /// Segments that were left since the last sync and still want their closing seal.
    left: Vec<Left>,
    seal: Seal,
    /// Frames on their way to the active segment.
    buffer: Vec<u8>,
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
enum Seal {
    Missing,
    Written,
    Synced,
}

impl Appender {
    /// Goes on at `tail` of the segment `active`, where everything up to the record `last` is durable.
    pub(crate) fn new(
        journal: &'static str,
        active: Segment,
        tail: u64,
        last: Sequence,
        chain: u32,
    ) -> Appender {
        Appender {
            journal,
            active,
            tail,
            last,
            durable: last,
            chain,
            unsynced: Vec::new(),
            left: Vec::new(),
            // Opening ends with a seal on disk, or with nothing yet to vouch for.
            seal: Seal::Synced,
            buffer: Vec::new(),
        }
    }

    /// The last record written, durable or not.
    pub(crate) fn last(&self) -> Sequence {
        self.last
    }

    /// The number of the segment that is being written.
    pub(crate) fn segment(&self) -> u64 {
        self.active.number
    }

    pub(crate) fn is_half_full(&self) -> bool {
        self.tail > self.active.length / 2
    }

    /// Whether everything written is durable and only a seal is missing to say so.
    pub(crate) fn wants_seal(&self) -> bool {
        self.seal == Seal::Missing && self.unsynced.is_empty()
    }

    /// Writes all frames, one write for each segment that they touch, and says where the records stand.
    pub(crate) fn put(
        &mut self,
        records: &[Queued],
        release: Option<Sequence>,
        keeper: &mut Keeper,
    ) -> Result<Vec<SegmentIndex>, Failed> {
        self.seal = Seal::Missing;
        let mut index = vec![self.index_from_here()];
        let mut start = self.tail;
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
            if self.tail + content.frame_bytes() + segment::SEAL_BYTES > self.active.length {
                self.flush(start)?;
                self.enter(keeper.take_after(self.active.number)?);
                start = self.tail;
                self.encode(Content::Begin);
                index.push(self.index_from_here());
            }
            let offset = self.tail;
            if !matches!(content, Content::Release { .. }) {
                self.last = self.last.next();
                if let Some(segment) = index.last_mut() {
                    segment.records.push(Location::new(offset, content.frame_bytes()));
                }
            }
            self.encode(content);
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
            segment: self.active.clone(),
            first: self.last.next(),
            records: Vec::new(),
        }
    }

    fn encode(&mut self, content: Content<'_>) {
        let place = Place {
            segment: self.active.number,
            offset: self.tail,
        };
        self.chain = frame::encode(
            &mut self.buffer,
            place,
            self.chain,
            self.last,
            self.durable,
            content,
        );
        self.tail += content.frame_bytes();
    }

    /// Writes the frames that have been gathered for the active segment, from `start` on.
    fn flush(&mut self, start: u64) -> Result<(), Failed> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.write_at(&self.active, &self.buffer, start)?;
        self.buffer.clear();
        if self
            .unsynced
            .last()
            .is_none_or(|last| last.number != self.active.number)
        {
            self.unsynced.push(self.active.clone());
        }
        Ok(())
    }

    fn enter(&mut self, next: Segment) {
        let segment = std::mem::replace(&mut self.active, next);
        let tail = std::mem::replace(&mut self.tail, segment::HEADER_BYTES);
        self.left.push(Left {
            segment,
            tail,
            last: self.last,
            chain: self.chain,
        });
    }

    /// Syncs everything written so far.
    pub(crate) fn sync(&mut self) -> Result<(), Failed> {
        for segment in self.unsynced.drain(..) {
            let result = segment.file.sync_data();
            if mutants::is_on(Mutant::M2) {
                continue;
            }
            result.map_err(|error| Failed::new(self.journal, "sync", &segment.name, error))?;
        }
        self.durable = self.last;
        // The seals of full segments vouch for the segment after them, so they come after its sync.
        for left in std::mem::take(&mut self.left) {
            self.write_seal_at(&left.segment, left.tail, left.last, left.chain)?;
        }
        Ok(())
    }

    /// Writes a seal at the tail. The next group is written over it.
    pub(crate) fn seal(&mut self) -> Result<(), Failed> {
        assert!(
            self.unsynced.is_empty(),
            "a seal vouches for everything before it"
        );
        self.write_seal_at(&self.active, self.tail, self.last, self.chain)?;
        self.seal = Seal::Written;
        Ok(())
    }

    fn write_seal_at(&self, segment: &Segment, tail: u64, last: Sequence, chain: u32) -> Result<(), Failed> {
        let mut bytes = Vec::with_capacity(segment::SEAL_BYTES as usize);
        let place = Place {
            segment: segment.number,
            offset: tail,
        };
        frame::encode(&mut bytes, place, chain, last, self.durable, Content::Seal);
        self.write_at(segment, &bytes, tail)
    }

    /// Makes everything durable, the seal included.
    pub(crate) fn finish(&mut self) -> Result<(), Failed> {
        self.sync()?;
        if self.seal == Seal::Missing {
            self.seal()?;
        }
        if self.seal == Seal::Written {
            self.unsynced.push(self.active.clone());
            self.sync()?;
            self.seal = Seal::Synced;
        }
        Ok(())
    }

    fn write_at(&self, segment: &Segment, bytes: &[u8], offset: u64) -> Result<(), Failed> {
        assert!(
            offset + bytes.len() as u64 <= segment.length,
            "a write stays inside its segment"
        );
        let result = segment.file.write_at(bytes, offset);
        result.map_err(|error| Failed::new(self.journal, "write", &segment.name, error))
    }
}
