//! Opening a journal: scan, refuse or repair, replay.
//!
//! The order matters. Nothing is changed on disk before the whole journal has been read and found sound; nothing
//! is handed to the owner before it is durable; and nothing can be appended before a torn tail is gone.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::failed::Failed;
use crate::frame::{self, Content, Frame, FrameKind, Place};
use crate::keeper::Keeper;
use crate::options::{Options, SEGMENT_BYTES_MAX};
use crate::scan::{Scan, Scanned, Standing};
use crate::segment::{self, Named, Names, Segment, Workshop};
use crate::sequence::Sequence;
use crate::state::{Location, SegmentIndex, Shared, State};
use crate::truncated::Truncated;
use crate::writer::{Active, Writer};

/// Takes one record at replay: its position and its payload.
pub type Replay<'a> = dyn FnMut(Sequence, &[u8]) -> Result<(), Box<dyn Error + Send + Sync>> + 'a;

/// How much is zeroed or written again at once.
const CHUNK_BYTES: u64 = 1024 * 1024;

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    options: Options,
    replay: &mut Replay<'_>,
) -> Result<(Arc<Shared>, Writer), OpenError> {
    options.check()?;
    let workshop = Workshop {
        disk,
        journal: options.name,
        names: Names::new(options.name),
        segment_bytes: options.segment_bytes,
        closing: Arc::new(AtomicBool::new(false)),
    };
    let found = Found::read(&workshop, &options)?;
    found.refuse_if_lost(&options)?;
    let repaired = found.repair(&workshop)?;
    let journal = Recovered::new(repaired, &workshop)?;
    journal.replay(&options, replay)?;
    Ok(journal.into_parts(options, workshop))
}

/// The journal as it lies on the disk.
struct Found {
    segments: Vec<FoundSegment>,
    temporaries: Vec<String>,
    scan: Scan,
    truncated: Truncated,
}

struct FoundSegment {
    index: SegmentIndex,
    scanned: Scanned,
}

impl Found {
    fn read(workshop: &Workshop, options: &Options) -> Result<Found, OpenError> {
        let (numbers, temporaries) = list(workshop)?;
        let mut found = Found {
            segments: Vec::new(),
            temporaries,
            scan: Scan::default(),
            truncated: Truncated::default(),
        };
        for number in numbers {
            let expected = found
                .segments
                .last()
                .map_or(number, |last| last.index.segment.number + 1);
            if number != expected {
                return Err(missing(workshop, options, expected, "later segments are there"));
            }
            found.read_segment(workshop, options, number)?;
        }
        Ok(found)
    }

    fn read_segment(&mut self, workshop: &Workshop, options: &Options, number: u64) -> Result<(), OpenError> {
        let (segment, bytes) = load(workshop, options, number)?;
        segment::check_header(&bytes, number)
            .map_err(|fault| unusable(options, &segment.name, fault.to_string()))?;
        let mut records = Vec::new();
        let truncated = &mut self.truncated;
        let scanned = self.scan.read(number, &bytes, &mut |place, frame, standing| {
            if standing != Standing::Lasting || !frame.kind.is_record() {
                return;
            }
            if let (FrameKind::Truncation, Some(after)) = (frame.kind, frame.position()) {
                truncated.cut(after.next(), frame.sequence);
            }
            records.push(Location::new(place.offset, frame.bytes()));
        });
        if self.segments.is_empty() && scanned.walked.is_none() {
            // Its first frame was durable before anything could be appended to it or removed before it.
            return Err(unusable(
                options,
                &segment.name,
                "its first frame is damaged".to_string(),
            ));
        }
        let first = Sequence::new(self.scan.last.get() + 1 - records.len() as u64);
        self.segments.push(FoundSegment {
            index: SegmentIndex {
                segment,
                first,
                records,
            },
            scanned,
        });
        Ok(())
    }

    fn refuse_if_lost(&self, options: &Options) -> Result<(), OpenError> {
        let Some(oldest) = self.segments.first() else {
            return Ok(());
        };
        let names = Names::new(options.name);
        if let (Some(proof), Some(tail)) = (self.scan.lost(), self.scan.tail) {
            return Err(OpenError::Damaged {
                journal: options.name,
                file: names.segment(tail.place.segment),
                offset: tail.place.offset,
                last_good: self.scan.last,
                proven: proof.sequence,
                proof_file: names.segment(proof.place.segment),
                proof_offset: proof.place.offset,
                repair: options.repair,
            });
        }
        let (number, first) = (oldest.index.segment.number, oldest.index.first);
        if self.scan.lacks_segments_before(number) {
            return Err(OpenError::MissingSegment {
                journal: options.name,
                file: names.segment(number - 1),
                reason: format!(
                    "the oldest segment begins with record {first}, but only those before {} were released",
                    self.scan.released
                ),
                repair: options.repair,
            });
        }
        Ok(())
    }

    /// Makes the disk agree with what was read: unfinished files go, everything behind the tail becomes zeros, what
    /// may not be durable is written again, and a seal vouches for it all.
    ///
    /// The zeros are written whatever is read there. Those of an earlier opening may count as clean and not be on
    /// the disk, if its sync failed; then a power loss would bring back what was cut, behind records that were
    /// acknowledged since.
    fn repair(self, workshop: &Workshop) -> Result<Found, Failed> {
        for temporary in &self.temporaries {
            workshop.attempt("remove", temporary, workshop.disk.remove(temporary))?;
        }
        // A segment may have been named just before the last writer died.
        let newest = self.segments.last().map(|newest| &*newest.index.segment.name);
        workshop.attempt(
            "sync the directory of",
            newest.unwrap_or("the journal"),
            workshop.disk.sync_directory(),
        )?;
        let Some(tail) = self.scan.tail else {
            return Ok(self);
        };
        let unsealed = !self.scan.is_sealed();
        let mut touched = Vec::new();
        for found in &self.segments {
            let segment = &found.index.segment;
            let behind = segment.number >= tail.place.segment;
            if let Some(leftover) = found.scanned.leftover.as_ref().filter(|_| behind) {
                tracing::warn!(
                    journal = workshop.journal,
                    file = %segment.name,
                    from = leftover.start,
                    until = leftover.end,
                    last = %self.scan.last,
                    "cut what remains of writes that were never acknowledged"
                );
            }
            if behind {
                let in_tail = segment.number == tail.place.segment;
                let seal = if unsealed {
                    0
                } else {
                    self.seal_frame(tail.place).len() as u64
                };
                let from = if in_tail {
                    tail.place.offset + seal
                } else {
                    segment::HEADER_BYTES
                };
                zero(workshop, segment, from, segment.length)?;
            }
            let written = unsealed && self.write_again(workshop, found)?;
            if behind || written {
                touched.push(segment);
            }
        }
        for segment in touched {
            workshop.attempt("sync", &segment.name, segment.file.sync_data())?;
        }
        self.seal(workshop, tail.place)?;
        Ok(self)
    }

    /// Writes everything again that is not proven to be durable. A sync that failed in an earlier life may have
    /// left bytes that can be read, count as clean, and are not on the disk; a sync alone would not help them.
    fn write_again(&self, workshop: &Workshop, found: &FoundSegment) -> Result<bool, Failed> {
        let segment = &found.index.segment;
        let Some((until, _)) = found.scanned.walked else {
            return Ok(false);
        };
        let from = match self.proven_until() {
            Some(place) if place.segment > segment.number => return Ok(false),
            Some(place) if place.segment == segment.number => place.offset,
            Some(_) | None => segment::HEADER_BYTES,
        };
        let mut offset = from;
        while offset < until {
            let mut bytes = vec![0; (until - offset).min(CHUNK_BYTES) as usize];
            workshop.attempt("read", &segment.name, segment.file.read_at(&mut bytes, offset))?;
            workshop.attempt("write", &segment.name, segment.file.write_at(&bytes, offset))?;
            offset += bytes.len() as u64;
        }
        Ok(from < until)
    }

    /// Where the last record ends that is proven to be durable; nothing if that is before the oldest segment.
    fn proven_until(&self) -> Option<Place> {
        let proven = self.scan.proof?.sequence;
        let index = self.segments.iter().map(|found| &found.index);
        let index = index
            .rev()
            .find(|index| index.first <= proven && proven < index.end())?;
        let location = index.records[proven.distance_from(index.first)];
        let offset = u64::from(location.offset) + u64::from(location.bytes);
        Some(Place {
            segment: index.segment.number,
            offset,
        })
    }

    fn seal_frame(&self, tail: Place) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::encode(
            &mut bytes,
            tail,
            self.scan.chain,
            self.scan.last,
            self.scan.last,
            Content::Seal,
        );
        bytes
    }

    fn seal(&self, workshop: &Workshop, tail: Place) -> Result<(), Failed> {
        let Some(active) = self
            .segments
            .iter()
            .find(|found| found.index.segment.number == tail.segment)
        else {
            unreachable!("the tail lies in a segment that was read");
        };
        let segment = &active.index.segment;
        let bytes = self.seal_frame(tail);
        workshop.attempt("write", &segment.name, segment.file.write_at(&bytes, tail.offset))?;
        workshop.attempt("sync", &segment.name, segment.file.sync_data())
    }
}

/// The journal as it goes on.
struct Recovered {
    index: VecDeque<SegmentIndex>,
    ready: VecDeque<Segment>,
    truncated: Truncated,
    last: Sequence,
    chain: u32,
    released: Sequence,
    tail: u64,
}

impl Recovered {
    fn new(found: Found, workshop: &Workshop) -> Result<Recovered, OpenError> {
        let mut recovered = Recovered {
            index: VecDeque::new(),
            ready: VecDeque::new(),
            truncated: found.truncated,
            last: found.scan.last,
            chain: found.scan.chain,
            released: found.scan.released,
            tail: found
                .scan
                .tail
                .map_or(segment::HEADER_BYTES, |tail| tail.place.offset),
        };
        for found in found.segments {
            match found.scanned.walked {
                Some(_) => recovered.index.push_back(found.index),
                None => recovered.ready.push_back(found.index.segment),
            }
        }
        if recovered.index.is_empty() {
            recovered.found_journal(workshop)?;
        }
        recovered.clear_away(workshop)?;
        Ok(recovered)
    }

    /// Makes the very first segment, which begins itself.
    fn found_journal(&mut self, workshop: &Workshop) -> Result<(), Failed> {
        let Some(segment) = workshop.make(1)? else {
            unreachable!("a journal that is being opened is not closing");
        };
        let mut bytes = segment::encode_header(1, segment.length);
        self.chain = segment::begin_first(&mut bytes);
        self.tail = bytes.len() as u64;
        self.index.push_back(SegmentIndex {
            segment,
            first: Sequence::FIRST,
            records: Vec::new(),
        });
        Ok(())
    }

    /// Removes empty segments if they have another size than is wanted now. The newest goes first, so that no gap
    /// can be seen.
    fn clear_away(&mut self, workshop: &Workshop) -> Result<(), Failed> {
        if self
            .ready
            .iter()
            .any(|segment| segment.length != workshop.segment_bytes)
        {
            while let Some(newest) = self.ready.pop_back() {
                workshop.remove(newest.number)?;
            }
        }
        Ok(())
    }

    fn replay(&self, options: &Options, replay: &mut Replay<'_>) -> Result<(), OpenError> {
        let journal = options.name;
        for index in &self.index {
            let segment = &index.segment;
            let mut bytes = vec![
                0;
                index
                    .records
                    .last()
                    .map_or(0, |last| (last.offset + last.bytes) as usize)
            ];
            let read = segment.file.read_at(&mut bytes, 0);
            read.map_err(|error| Failed::new(journal, "read", &segment.name, error))?;
            let mut sequence = index.first;
            for location in &index.records {
                let place = Place {
                    segment: segment.number,
                    offset: u64::from(location.offset),
                };
                let frame = Frame::decode(&bytes[location.offset as usize..], place);
                let Some(frame) = frame.filter(|frame| frame.sequence == sequence) else {
                    let reason = format!(
                        "record {sequence} at offset {} changed while it was read",
                        place.offset
                    );
                    return Err(unusable(options, &segment.name, reason));
                };
                if sequence >= self.released && !self.truncated.contains(sequence) {
                    replay(sequence, frame.payload()).map_err(|source| OpenError::Refused {
                        journal,
                        sequence,
                        source,
                    })?;
                }
                sequence = sequence.next();
            }
        }
        Ok(())
    }

    fn into_parts(self, options: Options, workshop: Workshop) -> (Arc<Shared>, Writer) {
        let Some(active) = self.index.back() else {
            unreachable!("a journal has a segment")
        };
        let active = Active {
            segment: active.segment.clone(),
            tail: self.tail,
        };
        let keeper = Keeper::new(workshop, active.segment.number, self.ready);
        let state = State::new(self.index, self.truncated, self.last, self.released);
        let shared = Arc::new(Shared::new(options, state));
        let writer = Writer::new(Arc::clone(&shared), keeper, active, self.last, self.chain);
        (shared, writer)
    }
}

/// The numbers of the segments in order, and the names of unfinished ones.
fn list(workshop: &Workshop) -> Result<(Vec<u64>, Vec<String>), OpenError> {
    let mut numbers = Vec::new();
    let mut temporaries = Vec::new();
    for file in workshop.attempt("list the directory of", "the journal", workshop.disk.list())? {
        match workshop.names.read(&file) {
            Named::Segment(number) => numbers.push(number),
            Named::Temporary => temporaries.push(file),
            Named::Foreign => {
                return Err(OpenError::ForeignFile {
                    journal: workshop.journal,
                    file,
                });
            }
            Named::Other => {}
        }
    }
    numbers.sort_unstable();
    temporaries.sort_unstable();
    Ok((numbers, temporaries))
}

fn load(workshop: &Workshop, options: &Options, number: u64) -> Result<(Segment, Vec<u8>), OpenError> {
    let name = workshop.names.segment(number);
    let file = workshop.attempt("open", &name, workshop.disk.open(&name))?;
    let length = workshop.attempt("read", &name, file.length())?;
    if length > SEGMENT_BYTES_MAX {
        return Err(unusable(
            options,
            &name,
            format!("it is {length} bytes long, more than any segment"),
        ));
    }
    let mut bytes = vec![0; length as usize];
    workshop.attempt("read", &name, file.read_at(&mut bytes, 0))?;
    Ok((
        Segment {
            number,
            name: name.into(),
            file,
            length,
        },
        bytes,
    ))
}

fn zero(workshop: &Workshop, segment: &Segment, from: u64, until: u64) -> Result<(), Failed> {
    let zeros = vec![0; (until - from).min(CHUNK_BYTES) as usize];
    let mut offset = from;
    while offset < until {
        let length = (until - offset).min(CHUNK_BYTES);
        let result = segment.file.write_at(&zeros[..length as usize], offset);
        workshop.attempt("write", &segment.name, result)?;
        offset += length;
    }
    Ok(())
}

fn missing(workshop: &Workshop, options: &Options, number: u64, reason: &str) -> OpenError {
    OpenError::MissingSegment {
        journal: options.name,
        file: workshop.names.segment(number),
        reason: reason.to_string(),
        repair: options.repair,
    }
}

fn unusable(options: &Options, file: &str, reason: String) -> OpenError {
    OpenError::UnusableSegment {
        journal: options.name,
        file: file.to_string(),
        reason,
        repair: options.repair,
    }
}
