//! Why a journal refuses, and what may be concluded from it.

use std::error::Error;
use std::io;

use crate::failed::Failed;
use crate::sequence::Sequence;

/// Why a journal does not open. Nothing was lost by it: the files are as they were, but for a torn tail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The options contradict themselves or their limits.
    #[error("the options of the {journal} are wrong: {reason}")]
    Options {
        /// The name of the journal.
        journal: &'static str,
        /// What is wrong, with the numbers.
        reason: String,
    },
    /// The disk refused an operation.
    #[error(transparent)]
    Disk(#[from] Failed),
    /// A file has our extension but is not a segment of this journal.
    #[error(
        "{file} is not a segment of the {journal}: the directory must hold the segments of one journal only. \
         Move the file away if it does not belong here."
    )]
    ForeignFile {
        /// The name of the journal.
        journal: &'static str,
        /// The name of the file.
        file: String,
    },
    /// Segments are missing between others, or before the oldest one.
    #[error("the {journal} lacks {file}: {reason}. {repair}")]
    MissingSegment {
        /// The name of the journal.
        journal: &'static str,
        /// The file that is missing.
        file: String,
        /// How we know that it should be there.
        reason: String,
        /// What an operator should do.
        repair: &'static str,
    },
    /// A segment cannot be what the journal made: its size or its header is wrong.
    #[error("the {journal} cannot use {file}: {reason}. {repair}")]
    UnusableSegment {
        /// The name of the journal.
        journal: &'static str,
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
        /// What an operator should do.
        repair: &'static str,
    },
    /// A record that was durable once is not readable any more.
    #[error(
        "the {journal} is damaged: {file} holds no valid record at offset {offset}, after record {last_good}, \
         but {proof_file} shows at offset {proof_offset} that record {proven} was durable. {repair}"
    )]
    Damaged {
        /// The name of the journal.
        journal: &'static str,
        /// The file with the damage.
        file: String,
        /// Where in it the valid records end.
        offset: u64,
        /// The last record that is whole.
        last_good: Sequence,
        /// A record that was durable and comes after it.
        proven: Sequence,
        /// The file that proves it.
        proof_file: String,
        /// Where in that file.
        proof_offset: u64,
        /// What an operator should do.
        repair: &'static str,
    },
    /// The owner of the journal did not accept a record at replay.
    #[error("record {sequence} of the {journal} was refused at replay: {source}")]
    Refused {
        /// The name of the journal.
        journal: &'static str,
        /// The record.
        sequence: Sequence,
        /// What the owner said.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a record was not taken, or not made durable.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The payload is larger than the journal's limit. The record is not in the journal.
    #[error("a record of {length} bytes is too large for the {journal}, which takes {max}")]
    TooLarge {
        /// The name of the journal.
        journal: &'static str,
        /// The length of the payload in bytes.
        length: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Too much waits for the writer. The record is not in the journal; the same append may succeed later.
    #[error("the {journal} has {queued} bytes waiting to be written, its limit is {max}")]
    Full {
        /// The name of the journal.
        journal: &'static str,
        /// How many bytes wait.
        queued: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The journal was closed. The record is not in the journal.
    #[error("the {journal} is closed")]
    Closed {
        /// The name of the journal.
        journal: &'static str,
    },
    /// The journal failed. From a call that returned it at once the record is not in the journal; from a future
    /// that had accepted the record nothing may be concluded.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl AppendError {
    /// True only if the record certainly is not in the journal and never will be.
    pub fn is_definite(&self) -> bool {
        !matches!(self, AppendError::Failed(_))
    }
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No record has this position yet.
    #[error("the {journal} has no record {sequence} yet, the next one is {next}")]
    NotYet {
        /// The name of the journal.
        journal: &'static str,
        /// The position asked for.
        sequence: Sequence,
        /// The position that the next append will get.
        next: Sequence,
    },
    /// The record was released by its owner.
    #[error("record {sequence} of the {journal} was released, the first one kept is {first}")]
    Released {
        /// The name of the journal.
        journal: &'static str,
        /// The position asked for.
        sequence: Sequence,
        /// The first position that can be read.
        first: Sequence,
    },
    /// The record ceased to exist by a truncation.
    #[error("record {sequence} of the {journal} was truncated")]
    Truncated {
        /// The name of the journal.
        journal: &'static str,
        /// The position asked for.
        sequence: Sequence,
    },
    /// The bytes on disk are not the record that was written.
    #[error("record {sequence} of the {journal} is damaged in {file} at offset {offset}")]
    Damaged {
        /// The name of the journal.
        journal: &'static str,
        /// The position asked for.
        sequence: Sequence,
        /// The file.
        file: String,
        /// Where in it the record begins.
        offset: u64,
    },
    /// The disk could not be read.
    #[error("record {sequence} of the {journal} could not be read from {file}: {source}")]
    Disk {
        /// The name of the journal.
        journal: &'static str,
        /// The position asked for.
        sequence: Sequence,
        /// The file.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
}
