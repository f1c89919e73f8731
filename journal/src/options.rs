//! How a journal is set up.

use crate::error::OpenError;
use crate::frame;
use crate::segment;

const MIB: u64 = 1024 * 1024;
const SEGMENT_BYTES_MIN: u64 = 4096;
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1024 * MIB;

/// The name and the limits of a journal.
///
/// The limits may change from one opening to the next; segments that exist keep the size they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What this journal is to its owner, such as `raft log`. Part of every message and, with dashes for spaces,
    /// of every file name.
    pub name: &'static str,
    /// What an operator must do when records are damaged; ends the message of such a refusal.
    pub repair: &'static str,
    /// Size of a new segment file. A segment is read into memory when the journal is opened, hence at most 1 GiB;
    /// at least 4 KiB. Default 64 MiB.
    pub segment_bytes: u64,
    /// Largest payload of a record. Must fit a segment. Default 8 MiB.
    pub max_record_bytes: u32,
    /// How much may wait for the writer before appends are refused as `Full`. Default 64 MiB.
    pub max_queued_bytes: usize,
    /// How much is written before one sync; a larger group makes its first record wait longer. One record is
    /// always written, whatever its size. Default 4 MiB.
    pub max_group_bytes: usize,
}

impl Options {
    /// The default limits under this name.
    pub fn new(name: &'static str) -> Options {
        Options {
            name,
            repair: "Restore this node from its peers or from a replica; never delete or edit the file.",
            segment_bytes: 64 * MIB,
            max_record_bytes: 8 * 1024 * 1024,
            max_queued_bytes: 64 * 1024 * 1024,
            max_group_bytes: 4 * 1024 * 1024,
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |reason: String| {
            Err(OpenError::Options {
                journal: self.name,
                reason,
            })
        };
        let name_fits = self
            .name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b" -_".contains(&byte));
        if self.name.is_empty() || !name_fits {
            return refuse("the name may hold letters, digits, spaces and dashes only".to_string());
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return refuse(format!(
                "segment_bytes is {}, but must be from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}",
                self.segment_bytes
            ));
        }
        if !self.segment_bytes.is_multiple_of(frame::ALIGNMENT) {
            return refuse(format!(
                "segment_bytes is {}, but must be a multiple of 8",
                self.segment_bytes
            ));
        }
        let largest = segment::largest_payload(self.segment_bytes);
        if u64::from(self.max_record_bytes) > largest {
            return refuse(format!(
                "max_record_bytes is {}, but a segment of {} bytes holds at most {largest}",
                self.max_record_bytes, self.segment_bytes
            ));
        }
        if self.max_queued_bytes < self.max_record_bytes as usize {
            return refuse(format!(
                "max_queued_bytes is {}, less than one record of max_record_bytes ({})",
                self.max_queued_bytes, self.max_record_bytes
            ));
        }
        Ok(())
    }
}
