//! Reading the segments in order: which records there are, where they end, and what is known to have been durable.
//!
//! Opening and inspecting a journal both go through [`Scan`]; there is no second reader. Nothing here writes.
//!
//! Frames are walked in order. A frame belongs to the journal if its checksum is right at its place, it names the
//! checksum of the lasting frame before it, and its position follows. The first place where that does not hold is
//! the tail. Every frame states up to which record everything was durable when it was written, so any valid frame
//! at all, before or behind the tail, bears witness: the highest such statement is the proof. If it lies beyond
//! the last good record, records are missing that were durable, which a power loss cannot cause.

use std::ops::Range;

use crate::frame::{self, Frame, FrameKind, Place};
use crate::segment;
use crate::sequence::Sequence;

/// How the walk sees a valid frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It belongs to the journal.
    Lasting,
    /// It is the seal at the end of its segment.
    Sealing,
    /// It lies behind the end of the records: what remains of a group that was cut.
    Stray,
}

/// Why the walk through a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Only zeros follow.
    Zeros,
    /// A seal stands here.
    Seal { durable_before: Sequence },
    /// Other bytes follow that are no frame of this journal.
    Invalid,
}

/// The highest record that some frame states to have been durable, and where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) sequence: Sequence,
    pub(crate) place: Place,
}

/// Where the records end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) place: Place,
    pub(crate) stop: Stop,
}

/// What one segment turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// The bytes behind the records (and their seal) that should be zero, as far as some are not.
    pub(crate) leftover: Option<Range<u64>>,
    /// Where its records end; nothing if it holds none because the journal ended before.
    pub(crate) walked: Option<(u64, Stop)>,
}

/// The walk through all segments, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    state: State,
    /// The last record that belongs to the journal.
    pub(crate) last: Sequence,
    /// The checksum of the last lasting frame.
    pub(crate) chain: u32,
    /// Records before this one may be missing.
    pub(crate) released: Sequence,
    pub(crate) proof: Option<Proof>,
    pub(crate) tail: Option<Tail>,
    /// The last record before the oldest segment.
    pub(crate) start: Option<Sequence>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    NotBegun,
    Walking,
    Ended,
}

impl Scan {
    /// Reads the next segment, of which these are all bytes, and shows every valid frame to `visit`.
    pub(crate) fn read(
        &mut self,
        number: u64,
        bytes: &[u8],
        visit: &mut dyn FnMut(Place, &Frame<'_>, Standing),
    ) -> Scanned {
        let first = Place {
            segment: number,
            offset: segment::HEADER_BYTES,
        };
        let begins =
            Frame::decode(tail_of(bytes, first.offset), first).filter(|frame| self.is_begun_by(frame));
        let Some(begin) = begins else {
            self.state = State::Ended;
            let leftover = nonzero(bytes, first.offset);
            self.search(first, bytes, &leftover, visit);
            return Scanned {
                leftover,
                walked: None,
            };
        };
        if self.state == State::NotBegun {
            self.start = Some(begin.sequence);
            self.last = begin.sequence;
        }
        self.state = State::Walking;
        let (offset, stop) = self.walk(first, bytes, visit);
        let rest = match stop {
            Stop::Seal { .. } => offset + segment::SEAL_BYTES,
            Stop::Zeros | Stop::Invalid => offset,
        };
        let leftover = nonzero(bytes, rest);
        self.search(
            Place {
                segment: number,
                offset: rest,
            },
            bytes,
            &leftover,
            visit,
        );
        let stop = if stop == Stop::Invalid && leftover.is_none() {
            Stop::Zeros
        } else {
            stop
        };
        self.tail = Some(Tail {
            place: Place {
                segment: number,
                offset,
            },
            stop,
        });
        Scanned {
            leftover,
            walked: Some((offset, stop)),
        }
    }

    /// A record that was durable once and is not readable now.
    pub(crate) fn lost(&self) -> Option<Proof> {
        self.proof.filter(|proof| proof.sequence > self.last)
    }

    /// Whether segments are missing before the oldest one: it goes on after records that were never released.
    pub(crate) fn lacks_segments_before(&self, oldest: u64) -> bool {
        oldest > 1 && self.start.is_some_and(|start| start.next() > self.released)
    }

    /// Whether the records end with a seal that vouches for all of them. Only a journal with nothing un-synced
    /// writes such a seal, so then everything before it is durable, records or not.
    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.tail, Some(Tail { stop: Stop::Seal { durable_before }, .. }) if durable_before == self.last)
    }

    /// Whether a segment that starts with this frame goes on where the one before ended.
    fn is_begun_by(&self, frame: &Frame<'_>) -> bool {
        let follows = match self.state {
            // What came before the oldest segment is gone; it is taken at its word.
            State::NotBegun => true,
            State::Walking => frame.sequence == self.last && frame.previous == self.chain,
            State::Ended => false,
        };
        frame.kind == FrameKind::Begin && follows
    }

    fn walk(
        &mut self,
        mut place: Place,
        bytes: &[u8],
        visit: &mut dyn FnMut(Place, &Frame<'_>, Standing),
    ) -> (u64, Stop) {
        let begin_offset = place.offset;
        while let Some(frame) = Frame::decode(tail_of(bytes, place.offset), place) {
            let is_first = place.offset == begin_offset;
            let linked = is_first || frame.previous == self.chain;
            if !linked || !self.follows(&frame, is_first) {
                break;
            }
            if frame.kind == FrameKind::Seal {
                self.hear(place, &frame);
                visit(place, &frame, Standing::Sealing);
                return (
                    place.offset,
                    Stop::Seal {
                        durable_before: frame.durable_before,
                    },
                );
            }
            if place.offset + frame.bytes() + segment::SEAL_BYTES > bytes.len() as u64 {
                // We never write without room for a seal.
                break;
            }
            self.accept(place, &frame);
            visit(place, &frame, Standing::Lasting);
            place.offset += frame.bytes();
        }
        (place.offset, Stop::Invalid)
    }

    fn follows(&self, frame: &Frame<'_>, is_first: bool) -> bool {
        match frame.kind {
            FrameKind::Begin => is_first,
            FrameKind::Record => frame.sequence == self.last.next(),
            FrameKind::Truncation => {
                frame.sequence == self.last.next() && frame.position().is_some_and(|after| after <= self.last)
            }
            FrameKind::Release => {
                frame.sequence == self.last
                    && frame.position().is_some_and(|before| before <= self.last.next())
            }
            FrameKind::Seal => frame.sequence == self.last,
        }
    }

    fn accept(&mut self, place: Place, frame: &Frame<'_>) {
        self.hear(place, frame);
        self.chain = frame.crc;
        if frame.kind.is_record() {
            self.last = frame.sequence;
        }
        if let (FrameKind::Release, Some(before)) = (frame.kind, frame.position()) {
            self.released = self.released.max(before);
        }
    }

    /// Looks for valid frames at every aligned offset behind the tail: where the damage begins, lengths cannot
    /// be trusted any more.
    fn search(
        &mut self,
        from: Place,
        bytes: &[u8],
        leftover: &Option<Range<u64>>,
        visit: &mut dyn FnMut(Place, &Frame<'_>, Standing),
    ) {
        let Some(leftover) = leftover else { return };
        for offset in (from.offset..leftover.end).step_by(frame::ALIGNMENT as usize) {
            let place = Place { offset, ..from };
            if let Some(frame) = Frame::decode(tail_of(bytes, offset), place) {
                self.hear(place, &frame);
                visit(place, &frame, Standing::Stray);
            }
        }
    }

    fn hear(&mut self, place: Place, frame: &Frame<'_>) {
        if self
            .proof
            .is_none_or(|proof| frame.durable_before > proof.sequence)
        {
            self.proof = Some(Proof {
                sequence: frame.durable_before,
                place,
            });
        }
    }
}

fn tail_of(bytes: &[u8], offset: u64) -> &[u8] {
    usize::try_from(offset)
        .ok()
        .and_then(|offset| bytes.get(offset..))
        .unwrap_or(&[])
}

/// The range from the first to the last byte behind `from` that is not zero.
fn nonzero(bytes: &[u8], from: u64) -> Option<Range<u64>> {
    // Whole blocks are compared at once: most of a segment is zero most of the time.
    const BLOCK: usize = 4096;
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let rest = tail_of(bytes, from);
    let differs = |(_, block): &(usize, &[u8])| *block != &ZEROS[..block.len()];
    let (first, block) = rest.chunks(BLOCK).enumerate().find(differs)?;
    let first = first * BLOCK + block.iter().position(|byte| *byte != 0)?;
    let (last, block) = rest.chunks(BLOCK).enumerate().rfind(differs)?;
    let last = last * BLOCK + block.iter().rposition(|byte| *byte != 0)?;
    Some(from + first as u64..from + last as u64 + 1)
}
