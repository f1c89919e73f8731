//! Opening a journal: scan, refuse or repair, replay.
//!
//! The order matters. Nothing is changed on disk before the whole journal has been read and found sound; nothing
//! is handed to the owner before it is durable; and nothing can be appended before a torn tail is gone.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::appender::Appender;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::failed::Failed;
use crate::found::{Found, unusable};
use crate::frame::{Frame, Place};
use crate::keeper::Keeper;
use crate::options::Options;
use crate::segment::{self, Names, Segment, Workshop};
use crate::sequence::Sequence;
use crate::state::{SegmentIndex, Shared, State};
use crate::truncated::Truncated;
use crate::writer::Writer;

/// Takes one record at replay: its position and its payload.
pub type Replay<'a> = dyn FnMut(Sequence, &[u8]) -> Result<(), Box<dyn Error + Send + Sync>> + 'a;

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
        let active = active.segment.clone();
        let keeper = Keeper::new(workshop, active.number, self.ready);
        let appender = Appender::new(options.name, active, self.tail, self.last, self.chain);
        let state = State::new(self.index, self.truncated, self.last, self.released);
        let shared = Arc::new(Shared::new(options, state));
        let writer = Writer::new(Arc::clone(&shared), keeper, appender);
        (shared, writer)
    }
}
