//! Making the disk agree with what was read from it, before anything is appended.

use crate::failed::Failed;
use crate::found::{Found, FoundSegment};
use crate::frame::{self, Content, Place};
use crate::segment::{self, Segment, Workshop};

/// How much is zeroed or written again at once.
const CHUNK_BYTES: u64 = 1024 * 1024;

impl Found {
    /// Makes the disk agree with what was read: unfinished files go, everything behind the tail becomes zeros, what
    /// may not be durable is written again, and a seal vouches for it all.
    pub(crate) fn repair(self, workshop: &Workshop) -> Result<Found, Failed> {
        for temporary in &self.temporaries {
            workshop.attempt("remove", temporary, workshop.disk.remove(temporary))?;
        }
        // A segment may have been named just before the last writer died.
        let newest = self
            .segments
            .last()
            .map_or("the journal", |newest| &newest.index.segment.name);
        workshop.attempt("sync the directory of", newest, workshop.disk.sync_directory())?;
        let Some(tail) = self.scan.tail else {
            return Ok(self);
        };
        let mut touched = Vec::new();
        for found in &self.segments {
            let cut = self.cut(workshop, found, tail.place)?;
            let written = self.write_again(workshop, found)?;
            if cut || written {
                touched.push(&found.index.segment);
            }
        }
        for segment in touched {
            workshop.attempt("sync", &segment.name, segment.file.sync_data())?;
        }
        self.seal(workshop, tail.place)?;
        Ok(self)
    }

    /// Writes zeros over everything behind the tail, whatever is read there. The zeros of an earlier opening may
    /// count as clean and not be on the disk, if its sync failed; then a power loss would bring back what was cut,
    /// behind records that were acknowledged since.
    fn cut(&self, workshop: &Workshop, found: &FoundSegment, tail: Place) -> Result<bool, Failed> {
        let segment = &found.index.segment;
        if segment.number < tail.segment {
            return Ok(false);
        }
        if let Some(leftover) = &found.scanned.leftover {
            tracing::warn!(
                journal = workshop.journal,
                file = %segment.name,
                from = leftover.start,
                until = leftover.end,
                last = %self.scan.last,
                "cut what remains of writes that were never acknowledged"
            );
        }
        // A seal that vouches for everything stays: without it damage would look like a torn tail.
        let from = match segment.number == tail.segment {
            true if self.scan.is_sealed() => tail.offset + segment::SEAL_BYTES,
            true => tail.offset,
            false => segment::HEADER_BYTES,
        };
        zero(workshop, segment, from, segment.length)?;
        Ok(true)
    }

    /// Writes everything again that is not proven to be durable. A sync that failed in an earlier life may have
    /// left bytes that can be read, count as clean, and are not on the disk; a sync alone would not help them.
    fn write_again(&self, workshop: &Workshop, found: &FoundSegment) -> Result<bool, Failed> {
        let segment = &found.index.segment;
        if self.scan.is_sealed() {
            return Ok(false);
        }
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

    fn seal(&self, workshop: &Workshop, tail: Place) -> Result<(), Failed> {
        let mut segments = self.segments.iter().map(|found| &found.index.segment);
        let Some(segment) = segments.find(|segment| segment.number == tail.segment) else {
            unreachable!("the tail lies in a segment that was read");
        };
        let (last, mut bytes) = (self.scan.last, Vec::new());
        frame::encode(&mut bytes, tail, self.scan.chain, last, last, Content::Seal);
        workshop.attempt("write", &segment.name, segment.file.write_at(&bytes, tail.offset))?;
        workshop.attempt("sync", &segment.name, segment.file.sync_data())
    }
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
