//! A segment file: its name, its header, and how it comes to be.
//!
//! ```text
//!  0  magic    8 bytes   "UNANIMOJ"
//!  8  version  u32       of the format
//! 12  crc      u32       CRC-32C over the other bytes of the header
//! 16  number   u64       of the segment, counted from 1
//! 24  length   u64       of the file in bytes
//! 32           32 bytes  zero
//! 64  frames, then zeros to the end
//! ```
//!
//! A segment gets its whole length of zeros and its header under a temporary name, is synced, and only then takes
//! its name. So a file that has the name is never short and its header never torn: if it looks so, it is damaged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{Disk, DiskFile};
use crate::failed::Failed;
use crate::frame::{self, Content, Place};
use crate::mutants::{self, Mutant};
use crate::sequence::Sequence;

pub(crate) const HEADER_BYTES: u64 = 64;
pub(crate) const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"UNANIMOJ";
const EXTENSION: &str = ".segment";
const TEMPORARY_EXTENSION: &str = ".segment.new";

/// How much is zeroed between two syncs, so that the syncs of the hot path never wait for a long one.
const ZERO_CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// Every segment keeps room for a seal behind its last lasting frame.
pub(crate) const SEAL_BYTES: u64 = frame::HEADER_BYTES as u64;
const BEGIN_BYTES: u64 = frame::HEADER_BYTES as u64;

/// The largest payload that a segment of this size can take.
pub(crate) fn largest_payload(segment_bytes: u64) -> u64 {
    segment_bytes
        - HEADER_BYTES
        - BEGIN_BYTES
        - SEAL_BYTES
        - frame::OVERHEAD_BYTES as u64
        - (frame::ALIGNMENT - 1)
}

/// How the files of one journal are named.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
}

/// What a file name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Segment(u64),
    /// A segment that was never finished.
    Temporary,
    /// It ends as ours do but is not ours.
    Foreign,
    /// It is none of our business.
    Other,
}

impl Names {
    /// The names for a journal with this name.
    pub(crate) fn new(journal: &str) -> Names {
        Names {
            prefix: journal.replace(' ', "-"),
        }
    }

    /// The names that a file of an unknown journal follows, if it is a segment.
    pub(crate) fn guess(file: &str) -> Option<Names> {
        let stem = file.strip_suffix(EXTENSION)?;
        let (prefix, number) = stem.rsplit_once('-')?;
        parse_number(number).map(|_| Names {
            prefix: prefix.to_string(),
        })
    }

    pub(crate) fn segment(&self, number: u64) -> String {
        format!("{}-{number:016x}{EXTENSION}", self.prefix)
    }

    fn temporary(&self, number: u64) -> String {
        format!("{}-{number:016x}{TEMPORARY_EXTENSION}", self.prefix)
    }

    pub(crate) fn read(&self, file: &str) -> Named {
        let number = |stem: &str| {
            stem.strip_prefix(&self.prefix)?
                .strip_prefix('-')
                .and_then(parse_number)
        };
        if let Some(stem) = file.strip_suffix(TEMPORARY_EXTENSION) {
            return number(stem).map_or(Named::Foreign, |_| Named::Temporary);
        }
        if let Some(stem) = file.strip_suffix(EXTENSION) {
            return number(stem).map_or(Named::Foreign, Named::Segment);
        }
        Named::Other
    }
}

fn parse_number(digits: &str) -> Option<u64> {
    let strict = digits.len() == 16
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(digits, 16)
        .ok()
        .filter(|number| strict && *number > 0)
}

/// Why a header is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Short,
    Magic,
    Version(u32),
    Checksum,
    Number(u64),
    Length { stated: u64 },
}

impl std::fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HeaderFault::Short => write!(f, "the file is shorter than the header of a segment"),
            HeaderFault::Magic => write!(f, "it does not begin as a segment does"),
            HeaderFault::Version(found) => {
                write!(
                    f,
                    "its format is version {found}, this program reads version {VERSION}"
                )
            }
            HeaderFault::Checksum => write!(f, "the checksum of its header does not match"),
            HeaderFault::Number(stated) => write!(f, "its header says that it is segment {stated}"),
            HeaderFault::Length { stated } => {
                write!(f, "its header says that it is {stated} bytes long, but it is not")
            }
        }
    }
}

pub(crate) fn encode_header(number: u64, length: u64) -> Vec<u8> {
    let mut header = vec![0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[24..32].copy_from_slice(&length.to_le_bytes());
    let crc = header_checksum(&header);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Checks the header of the file that is named as segment `number` and holds exactly `bytes`.
pub(crate) fn check_header(bytes: &[u8], number: u64) -> Result<(), HeaderFault> {
    let header = bytes.get(..HEADER_BYTES as usize).ok_or(HeaderFault::Short)?;
    if header[..8] != MAGIC[..] {
        return Err(HeaderFault::Magic);
    }
    let version = frame::u32_at(header, 8);
    if version != VERSION {
        return Err(HeaderFault::Version(version));
    }
    if frame::u32_at(header, 12) != header_checksum(header) {
        return Err(HeaderFault::Checksum);
    }
    let stated = frame::u64_at(header, 16);
    if stated != number {
        return Err(HeaderFault::Number(stated));
    }
    let stated = frame::u64_at(header, 24);
    if stated != bytes.len() as u64 {
        return Err(HeaderFault::Length { stated });
    }
    Ok(())
}

fn header_checksum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..])
}

/// An open segment file.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) name: Arc<str>,
    pub(crate) file: Arc<dyn DiskFile>,
    /// The length of the file in bytes.
    pub(crate) length: u64,
}

/// Makes and removes segment files.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) journal: &'static str,
    pub(crate) names: Names,
    pub(crate) segment_bytes: u64,
    /// Set when the journal closes: a segment that is being made is not needed any more.
    pub(crate) closing: Arc<AtomicBool>,
}

impl Workshop {
    /// Makes a segment that is durable with all its zeros; nothing if the journal closed meanwhile.
    pub(crate) fn make(&self, number: u64) -> Result<Option<Segment>, Failed> {
        let temporary = self.names.temporary(number);
        let name = self.names.segment(number);
        let file = self.attempt("create", &temporary, self.disk.create(&temporary))?;
        let zeros = vec![0; ZERO_CHUNK_BYTES.min(self.segment_bytes as usize)];
        let mut offset = 0;
        while offset < self.segment_bytes {
            if self.closing.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let length = (self.segment_bytes - offset).min(zeros.len() as u64);
            self.attempt(
                "write",
                &temporary,
                file.write_at(&zeros[..length as usize], offset),
            )?;
            offset += length;
            if offset < self.segment_bytes {
                self.attempt("sync", &temporary, file.sync_data())?;
            }
        }
        self.attempt(
            "write",
            &temporary,
            file.write_at(&first_bytes(number, self.segment_bytes), 0),
        )?;
        self.attempt("sync", &temporary, file.sync_all())?;
        self.attempt("rename", &temporary, self.disk.rename(&temporary, &name))?;
        if !mutants::is_on(Mutant::M26) {
            self.attempt("sync the directory of", &name, self.disk.sync_directory())?;
        }
        Ok(Some(Segment {
            number,
            name: name.into(),
            file,
            length: self.segment_bytes,
        }))
    }

    /// Removes a segment, durably before it returns: a later one must never vanish while an earlier one stays.
    pub(crate) fn remove(&self, number: u64) -> Result<(), Failed> {
        let name = self.names.segment(number);
        self.attempt("remove", &name, self.disk.remove(&name))?;
        self.attempt("sync the directory of", &name, self.disk.sync_directory())
    }

    /// What is reported if the thread that makes segments ended without telling why.
    pub(crate) fn gone(&self, number: u64) -> Failed {
        let error = io::Error::other("the thread that makes segments has ended");
        Failed::new(self.journal, "create", &self.names.segment(number), error)
    }

    pub(crate) fn attempt<T>(
        &self,
        what: &'static str,
        file: &str,
        result: io::Result<T>,
    ) -> Result<T, Failed> {
        result.map_err(|error| Failed::new(self.journal, what, file, error))
    }
}

/// What a segment holds when it gets its name. The very first one says so itself: nothing came before it.
fn first_bytes(number: u64, length: u64) -> Vec<u8> {
    let mut bytes = encode_header(number, length);
    if number == 1 {
        begin_first(&mut bytes);
    }
    bytes
}

/// Appends the first frame of a journal to the header of its first segment, and returns the frame's checksum.
pub(crate) fn begin_first(header: &mut Vec<u8>) -> u32 {
    let place = Place {
        segment: 1,
        offset: HEADER_BYTES,
    };
    frame::encode(
        header,
        place,
        0,
        Sequence::BEFORE_FIRST,
        Sequence::BEFORE_FIRST,
        Content::Begin,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_strictly() {
        let names = Names::new("raft log");
        assert_eq!(names.segment(10), "raft-log-000000000000000a.segment");
        assert_eq!(names.read(&names.segment(10)), Named::Segment(10));
        assert_eq!(names.read(&names.temporary(10)), Named::Temporary);
        for foreign in [
            "raft-log-000000000000000A.segment",
            "raft-log-a.segment",
            "raft-log-0000000000000000.segment",
            "participant-journal-000000000000000a.segment",
            "copy of raft-log-000000000000000a.segment",
        ] {
            assert_eq!(names.read(foreign), Named::Foreign, "{foreign}");
        }
        assert_eq!(names.read("lock"), Named::Other);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let header = encode_header(5, HEADER_BYTES);
        assert_eq!(check_header(&header, 5), Ok(()));
        for bit in 0..header.len() * 8 {
            let mut damaged = header.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(check_header(&damaged, 5).is_err(), "bit {bit}");
        }
        assert_eq!(check_header(&header, 6), Err(HeaderFault::Number(5)));
        assert_eq!(check_header(&header[..40], 5), Err(HeaderFault::Short));
    }
}
