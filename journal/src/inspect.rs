//! A journal as a human sees it, damaged or not.

use std::fmt;
use std::io;
use std::ops::Range;

use crate::disk::Disk;
use crate::frame::{Frame, FrameKind, Place};
use crate::scan::{Scan, Standing, Stop};
use crate::segment::{self, Named, Names};
use crate::sequence::Sequence;

/// How many bytes of a payload are shown.
const PREVIEW_BYTES: usize = 16;

/// What lies in the directory of a journal, and what opening it would make of that.
///
/// `Display` prints one line for each frame.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The segments in order.
    pub segments: Vec<InspectedSegment>,
    /// How the journal ends.
    pub ending: Ending,
    /// Everything else that would keep the journal from opening.
    pub problems: Vec<String>,
}

/// One segment file.
#[derive(Clone, Debug)]
pub struct InspectedSegment {
    /// The name of the file.
    pub file: String,
    /// The number of the segment, from its name.
    pub number: u64,
    /// The length of the file in bytes.
    pub length: u64,
    /// What is wrong with its header, if anything is.
    pub header_fault: Option<String>,
    /// Every valid frame, and the one at which the records end if it is not valid, by offset.
    pub frames: Vec<InspectedFrame>,
    /// Where its records end; nothing if the journal ended in an earlier segment.
    pub tail: Option<u64>,
    /// The bytes behind that which should be zero, from the first to the last that is not.
    pub leftover: Option<Range<u64>>,
}

/// One frame.
#[derive(Clone, Debug)]
pub struct InspectedFrame {
    /// Where in its segment it begins.
    pub offset: u64,
    /// What it says; nothing if that is not readable.
    pub kind: Option<FrameKind>,
    /// Its position, or that of the last record before it.
    pub sequence: Sequence,
    /// Everything up to here was durable when it was written.
    pub durable_before: Sequence,
    /// The position that a truncation or a release names.
    pub position: Option<Sequence>,
    /// The length of its payload in bytes.
    pub length: u64,
    /// The first bytes of its payload.
    pub preview: Vec<u8>,
    /// What it is to the journal.
    pub standing: FrameStanding,
}

/// What a frame is to its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameStanding {
    /// It is valid and belongs to the journal.
    Valid,
    /// It is valid but lies behind the end of the records.
    Stray,
    /// It is not valid: its checksum does not match, or it does not follow the frame before it.
    Invalid,
}

/// How a journal ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has no segment yet.
    Empty,
    /// A seal vouches that nothing durable is missing.
    Sealed {
        /// The last record.
        last: Sequence,
        /// The file it ends in.
        file: String,
        /// Where in it.
        offset: u64,
    },
    /// Only zeros follow the last record: the last group was written, and no seal after it.
    Open {
        /// The last record.
        last: Sequence,
        /// The file it ends in.
        file: String,
        /// Where in it.
        offset: u64,
    },
    /// What follows the last record was never acknowledged as far as can be seen; opening cuts it.
    Torn {
        /// The last record that is whole.
        last: Sequence,
        /// The file it ends in.
        file: String,
        /// Where in it.
        offset: u64,
    },
    /// A record that was durable is missing; opening refuses.
    Damaged {
        /// The last record that is whole.
        last: Sequence,
        /// The file with the damage.
        file: String,
        /// Where in it.
        offset: u64,
        /// A record that was durable.
        proven: Sequence,
        /// The file that proves it.
        proof_file: String,
        /// Where in that file.
        proof_offset: u64,
    },
    /// Not even the first frame of the oldest segment is valid; opening refuses.
    Headless,
}

/// Reads everything in the directory of a journal, whatever its state, and changes nothing.
pub fn inspect(disk: &dyn Disk) -> io::Result<Inspection> {
    let mut files = disk.list()?;
    files.sort_unstable();
    let Some(names) = files.iter().find_map(|file| Names::guess(file)) else {
        return Ok(Inspection {
            segments: Vec::new(),
            ending: Ending::Empty,
            problems: Vec::new(),
        });
    };
    let mut scan = Scan::default();
    let mut segments: Vec<InspectedSegment> = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        let number = match names.read(&file) {
            Named::Segment(number) => number,
            Named::Temporary => continue,
            Named::Foreign => {
                problems.push(format!("{file} is not a segment of the same journal"));
                continue;
            }
            Named::Other => continue,
        };
        let expected = segments.last().map_or(number, |last| last.number + 1);
        if number != expected {
            problems.push(format!("{} is missing", names.segment(expected)));
        }
        let handle = disk.open(&file)?;
        let mut bytes = vec![0; usize::try_from(handle.length()?).unwrap_or(usize::MAX)];
        handle.read_at(&mut bytes, 0)?;
        segments.push(inspect_segment(&mut scan, file, number, &bytes));
    }
    let first = segments.first().map_or(1, |oldest| oldest.number);
    if scan.lacks_segments_before(first) {
        problems.push(format!(
            "{} is missing: it was not released",
            names.segment(first - 1)
        ));
    }
    for segment in &segments {
        let fault = segment.header_fault.as_ref();
        problems.extend(fault.map(|fault| format!("{}: {fault}", segment.file)));
    }
    Ok(Inspection {
        ending: ending(&scan, &names),
        segments,
        problems,
    })
}

fn inspect_segment(scan: &mut Scan, file: String, number: u64, bytes: &[u8]) -> InspectedSegment {
    let mut frames = Vec::new();
    let scanned = scan.read(number, bytes, &mut |place, frame, standing| {
        frames.push(InspectedFrame::of(place, frame, standing));
    });
    if let Some((offset, Stop::Invalid)) = scanned.walked {
        frames.retain(|frame| frame.offset != offset);
        frames.extend(InspectedFrame::invalid(bytes, offset));
        frames.sort_by_key(|frame| frame.offset);
    }
    InspectedSegment {
        file,
        number,
        length: bytes.len() as u64,
        header_fault: segment::check_header(bytes, number)
            .err()
            .map(|fault| fault.to_string()),
        frames,
        tail: scanned.walked.map(|(offset, _)| offset),
        leftover: scanned.leftover,
    }
}

fn ending(scan: &Scan, names: &Names) -> Ending {
    let Some(tail) = scan.tail else {
        return Ending::Headless;
    };
    let (last, file, offset) = (scan.last, names.segment(tail.place.segment), tail.place.offset);
    if let Some(proof) = scan.lost() {
        return Ending::Damaged {
            last,
            file,
            offset,
            proven: proof.sequence,
            proof_file: names.segment(proof.place.segment),
            proof_offset: proof.place.offset,
        };
    }
    match tail.stop {
        Stop::Seal { .. } => Ending::Sealed { last, file, offset },
        Stop::Zeros => Ending::Open { last, file, offset },
        Stop::Invalid => Ending::Torn { last, file, offset },
    }
}

impl InspectedFrame {
    fn of(place: Place, frame: &Frame<'_>, standing: Standing) -> InspectedFrame {
        let payload = frame.payload();
        InspectedFrame {
            offset: place.offset,
            kind: Some(frame.kind),
            sequence: frame.sequence,
            durable_before: frame.durable_before,
            position: frame.position(),
            length: payload.len() as u64,
            preview: payload[..payload.len().min(PREVIEW_BYTES)].to_vec(),
            standing: match standing {
                Standing::Lasting | Standing::Sealing => FrameStanding::Valid,
                Standing::Stray => FrameStanding::Stray,
            },
        }
    }

    /// What stands where a frame was expected, as far as it makes sense.
    fn invalid(bytes: &[u8], offset: u64) -> Option<InspectedFrame> {
        let bytes = bytes.get(usize::try_from(offset).ok()?..)?;
        let claims = Frame::claims(bytes)?;
        let body = &bytes[crate::frame::HEADER_BYTES..];
        Some(InspectedFrame {
            offset,
            kind: claims.kind,
            sequence: claims.sequence,
            durable_before: claims.durable_before,
            position: None,
            length: claims.body_bytes,
            preview: body[..body.len().min(PREVIEW_BYTES)].to_vec(),
            standing: FrameStanding::Invalid,
        })
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            writeln!(f, "{segment}")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        write!(f, "{}", self.ending)
    }
}

impl fmt::Display for InspectedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header_fault.as_deref().unwrap_or("header valid");
        writeln!(
            f,
            "{}: segment {}, {} bytes, {header}",
            self.file, self.number, self.length
        )?;
        for frame in &self.frames {
            writeln!(f, "  {frame}")?;
        }
        match self.tail {
            Some(tail) => write!(f, "  records end at {tail}")?,
            None => write!(f, "  holds no records")?,
        }
        match &self.leftover {
            Some(range) => write!(f, ", other bytes from {} to {}", range.start, range.end),
            None => write!(f, ", zeros behind"),
        }
    }
}

impl fmt::Display for InspectedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self
            .kind
            .map_or("?".to_string(), |kind| format!("{kind:?}").to_lowercase());
        let crc = match self.standing {
            FrameStanding::Valid => "crc ok",
            FrameStanding::Stray => "crc ok, behind the end",
            FrameStanding::Invalid => "NOT VALID",
        };
        let (sequence, durable) = (self.sequence.get(), self.durable_before.get());
        write!(
            f,
            "{:>8}  {kind:<10} {sequence:>6}  durable {durable:>6}",
            self.offset
        )?;
        write!(f, "  {:>6} bytes  {crc}", self.length)?;
        match (self.kind, self.position) {
            (Some(FrameKind::Truncation), Some(after)) => write!(f, "  after {after}")?,
            (Some(FrameKind::Release), Some(before)) => write!(f, "  before {before}")?,
            (_, _) => {}
        }
        if !self.preview.is_empty() {
            let hex: Vec<String> = self.preview.iter().map(|byte| format!("{byte:02x}")).collect();
            write!(f, "  {}  |{}|", hex.join(" "), printable(&self.preview))?;
        }
        Ok(())
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Empty => write!(f, "There is no journal here."),
            Ending::Sealed { last, file, offset } => {
                write!(
                    f,
                    "The journal ends after record {last} in {file} at {offset}: a seal vouches for it."
                )
            }
            Ending::Open { last, file, offset } => {
                write!(
                    f,
                    "The journal ends after record {last} in {file} at {offset}: only zeros follow."
                )
            }
            Ending::Torn { last, file, offset } => write!(
                f,
                "The journal ends after record {last} in {file} at {offset}: what follows is torn and was never \
                 acknowledged; opening the journal cuts it."
            ),
            Ending::Damaged {
                last,
                file,
                offset,
                proven,
                proof_file,
                proof_offset,
            } => write!(
                f,
                "DAMAGED: {file} holds no valid record at {offset}, after record {last}, but {proof_file} shows \
                 at {proof_offset} that record {proven} was durable; the journal does not open."
            ),
            Ending::Headless => {
                write!(
                    f,
                    "DAMAGED: the first frame of the oldest segment is not valid; the journal does not open."
                )
            }
        }
    }
}

fn printable(bytes: &[u8]) -> String {
    let visible = |byte: &u8| {
        if byte.is_ascii_graphic() || *byte == b' ' {
            char::from(*byte)
        } else {
            '.'
        }
    };
    bytes.iter().map(visible).collect()
}
