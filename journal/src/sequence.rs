//! The position of a record.

use std::fmt;

/// The position of a record in its journal.
///
/// The first record has position 1, every later one the position before it plus 1. A truncation takes a position
/// as well, so no two records that a journal ever made durable share one. Positions are comparable within one
/// journal only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// Stands before every record: nothing is durable up to here but the empty journal.
    pub const BEFORE_FIRST: Sequence = Sequence(0);

    /// The position of the first record of a journal.
    pub const FIRST: Sequence = Sequence(1);

    /// The position with this number; 0 stands before the first record.
    pub const fn new(number: u64) -> Sequence {
        Sequence(number)
    }

    /// The number of this position.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position right after this one.
    pub const fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }

    /// The position right before this one; before the first there is none but `BEFORE_FIRST`.
    pub const fn previous(self) -> Sequence {
        Sequence(self.0.saturating_sub(1))
    }

    /// How many positions lie between `earlier` and this one.
    pub(crate) fn distance_from(self, earlier: Sequence) -> usize {
        assert!(
            earlier <= self,
            "positions are subtracted in order: {self} - {earlier}"
        );
        usize::try_from(self.0 - earlier.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
