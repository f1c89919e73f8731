//! The fingerprint that tells two requests with the same id apart (R12).

use std::fmt;

use sha2::{Digest, Sha256};

use crate::request::Members;
use crate::{Operation, ParticipantId};

/// SHA-256 over a request's members and their operations.
///
/// It travels in every `Prepare` and stands in every Prepared and decision record, so that a leader that knows
/// nothing of the first request cannot mix it with a second one under the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestHash([u8; 32]);

impl RequestHash {
    /// Stands for no request at all: in the record of an abort that an initiator asked for when nobody ran the
    /// transaction, so that nobody knew its request. No request has this hash. See
    /// [`DecisionRecord::is_for`](crate::table::DecisionRecord::is_for).
    pub const NONE: Self = Self([0; 32]);

    /// The hash of a one-shot request: every member and its operation, in the order of their names.
    pub fn of_branches<'a>(branches: impl IntoIterator<Item = (&'a ParticipantId, &'a Operation)>) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"unanimo one-shot v1");
        for (participant, operation) in branches {
            update_with_length(&mut hasher, participant.as_str().as_bytes());
            update_with_length(&mut hasher, operation.as_bytes());
        }
        Self(hasher.finalize().into())
    }

    /// The hash of an interactive transaction: its members. Their operations were told to the members directly.
    pub fn of_members(members: &Members) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"unanimo interactive v1");
        for participant in members {
            update_with_length(&mut hasher, participant.as_str().as_bytes());
        }
        Self(hasher.finalize().into())
    }

    /// A hash as it stood on the wire or the disk.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The length first, so that no two different lists of fields give the same bytes.
fn update_with_length(hasher: &mut Sha256, field: &[u8]) {
    hasher.update((field.len() as u64).to_be_bytes());
    hasher.update(field);
}

impl fmt::Display for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
