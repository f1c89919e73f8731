//! The journal as it lies on the disk: read whole, and judged before anything is changed.

use crate::error::OpenError;
use crate::frame::FrameKind;
use crate::mutants::{self, Mutant};
use crate::options::{Options, SEGMENT_BYTES_MAX};
use crate::scan::{Scan, Scanned, Standing};
use crate::segment::{self, Named, Names, Segment, Workshop};
use crate::sequence::Sequence;
use crate::state::{Location, SegmentIndex};
use crate::truncated::Truncated;

/// The journal as it lies on the disk.
pub(crate) struct Found {
    pub(crate) segments: Vec<FoundSegment>,
    /// Segments that were never finished.
    pub(crate) temporaries: Vec<String>,
    pub(crate) scan: Scan,
    pub(crate) truncated: Truncated,
}

pub(crate) struct FoundSegment {
    pub(crate) index: SegmentIndex,
    pub(crate) scanned: Scanned,
}

impl Found {
    /// Reads every segment. An error if there is something that cannot be this journal; damage is not judged yet.
    pub(crate) fn read(workshop: &Workshop, options: &Options) -> Result<Found, OpenError> {
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

    /// Refuses if anything that was durable is missing.
    pub(crate) fn refuse_if_lost(&self, options: &Options) -> Result<(), OpenError> {
        let Some(oldest) = self.segments.first() else {
            return Ok(());
        };
        if mutants::is_on(Mutant::M20) {
            return Ok(());
        }
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

fn missing(workshop: &Workshop, options: &Options, number: u64, reason: &str) -> OpenError {
    OpenError::MissingSegment {
        journal: options.name,
        file: workshop.names.segment(number),
        reason: reason.to_string(),
        repair: options.repair,
    }
}

pub(crate) fn unusable(options: &Options, file: &str, reason: String) -> OpenError {
    OpenError::UnusableSegment {
        journal: options.name,
        file: file.to_string(),
        reason,
        repair: options.repair,
    }
}
