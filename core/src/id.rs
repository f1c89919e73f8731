//! The names of things: transactions, participants, clusters, and the counters that tell their lives apart.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::Timestamp;

/// The longest name of a participant or a cluster, in bytes. Names travel in every message and stand in every
/// decision record, so they stay short.
const MAX_NAME_BYTES: usize = 64;

/// Names one transaction, everywhere and for ever: a UUID of version 7, chosen by whoever starts the transaction
/// and kept over every retry (R12).
///
/// Ids order by the time in them, so that ids below a watermark can be closed together (R7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(u128);

impl TransactionId {
    /// Takes the id from its 128 bits, which must be those of a version 7 UUID.
    pub fn from_u128(bits: u128) -> Result<Self, IdError> {
        let (version, variant) = ((bits >> 76) & 0xf, (bits >> 62) & 0x3);
        if version == 7 && variant == 0b10 {
            Ok(Self(bits))
        } else {
            Err(IdError::NotVersion7 { bits })
        }
    }

    /// The id that a clock at `at` and 74 random bits make. The caller brings both: nothing here is random.
    pub fn new(at: Timestamp, random: u128) -> Self {
        let time = u128::from(at.unix_ms() & 0xffff_ffff_ffff) << 80;
        let high = (random >> 62 & 0xfff) << 64;
        let low = random & 0x3fff_ffff_ffff_ffff;
        Self(time | 0x7 << 76 | high | 0b10 << 62 | low)
    }

    /// The smallest id that a clock at `at` makes: every id of an earlier time is below it.
    pub fn first_at(at: Timestamp) -> Self {
        Self::new(at, 0)
    }

    /// The 128 bits.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The time in the id: when its initiator's clock says it was made.
    pub fn timestamp(self) -> Timestamp {
        // The top 48 bits of a version 7 UUID are Unix milliseconds.
        Timestamp::from_unix_ms((self.0 >> 80) as u64)
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(
            f,
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TransactionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let malformed = || IdError::NotAUuid {
            text: shortened(text),
        };
        let groups: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        if lengths != [8, 4, 4, 4, 12] || !text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let bits = u128::from_str_radix(&groups.concat(), 16).map_err(|_| malformed())?;
        Self::from_u128(bits)
    }
}

/// Defines a short validated name as a cheaply cloned newtype.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the name if it is 1 to 64 bytes of `a-z`, `0-9`, `-`, `_` and `.`, starting with a letter or digit.
            pub fn new(name: &str) -> Result<Self, IdError> {
                check_name($what, name)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(name: &str) -> Result<Self, IdError> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// Names one participant within its cluster, for ever: a service keeps its name over restarts and moves.
    ParticipantId,
    "participant"
);
name!(
    /// Names one coordinator cluster. Every message carries it, so that two clusters cannot be mixed up (R11).
    ClusterId,
    "cluster"
);

fn check_name(what: &'static str, name: &str) -> Result<(), IdError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if name.len() <= MAX_NAME_BYTES && starts_well && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(IdError::BadName {
            what,
            name: shortened(name),
        })
    }
}

/// What strangers send may be megabytes long; an error message quotes the beginning.
fn shortened(text: &str) -> String {
    let kept: String = text.chars().take(MAX_NAME_BYTES + 16).collect();
    if kept.len() < text.len() {
        format!("{kept}…")
    } else {
        kept
    }
}

/// One life of a participant, from a start to the next: made durable at each start before anything else is said
/// (R11).
///
/// The high half counts the starts, so a later life has the greater generation. The low half is random, so two lives
/// that began from copies of the same data are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The life that the n-th start begins. The caller brings the randomness: nothing here is random.
    pub const fn of_start(start: u32, random: u32) -> Self {
        Self((start as u64) << 32 | random as u64)
    }

    /// How often the participant has started, this life included.
    pub const fn starts(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The life that begins with the next start.
    pub fn next(self, random: u32) -> Self {
        // A start a second lasts for a century.
        Self::of_start(self.starts().saturating_add(1), random)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.starts())?;
        match self.0 as u32 {
            0 => Ok(()),
            random => write!(f, ".{random:08x}"),
        }
    }
}

/// Where a record stands in a participant's journal. It only rises, so a participant whose journal ended below a
/// position that a vote once carried, when it came up, has lost records (R11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// A name or id that cannot be one. Definite: whatever carried it had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// Not the 8-4-4-4-12 hexadecimal form of a UUID.
    #[error("transaction id {text:?} is not a UUID such as 0190f3d5-7b1c-7000-8000-0123456789ab")]
    NotAUuid {
        /// What was given, shortened.
        text: String,
    },
    /// A UUID, but not one of version 7.
    #[error("transaction id {bits:032x} is not a UUID of version 7; make it with a version 7 generator")]
    NotVersion7 {
        /// The bits given.
        bits: u128,
    },
    /// Not a valid name.
    #[error(
        "{what} name {name:?} is not allowed: use 1 to 64 of a-z, 0-9, '-', '_' and '.', starting with a letter or digit"
    )]
    BadName {
        /// What the name was for.
        what: &'static str,
        /// What was given, shortened.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_and_parses_as_a_version_7_uuid() {
        let id = TransactionId::new(Timestamp::from_unix_ms(1_700_000_000_123), u128::MAX);
        assert_eq!(id.to_string(), "018bcfe5-687b-7fff-bfff-ffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.timestamp().unix_ms(), 1_700_000_000_123);
    }

    #[test]
    fn ids_of_another_version_and_other_text_are_refused() {
        let version_4 = "018bcfe5-687b-4fff-bfff-ffffffffffff".parse::<TransactionId>();
        assert!(matches!(version_4, Err(IdError::NotVersion7 { .. })));
        for text in [
            "",
            "x",
            "018bcfe5687b7fffbfffffffffffffff",
            "018bcfe5-687b-7fff-bfff-fffffffffff+",
        ] {
            assert!(
                matches!(text.parse::<TransactionId>(), Err(IdError::NotAUuid { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn a_later_life_has_the_greater_generation_and_a_copy_another_one() {
        let first = Generation::default().next(u32::MAX);
        assert_eq!((first.starts(), first.to_string()), (1, "g1.ffffffff".to_owned()));
        assert!(first < first.next(0));
        assert_ne!(first.next(7), first.next(8));
        assert_eq!(Generation::of_start(3, 0).to_string(), "g3");
    }

    #[test]
    fn names_are_short_and_plain() {
        for name in ["bank-a", "0", "a.b_c-d", &"x".repeat(64)] {
            assert_eq!(
                ParticipantId::new(name).map(|n| n.to_string()),
                Ok(name.to_owned())
            );
        }
        for name in ["", "-a", "Bank", "a b", "ä", &"x".repeat(65)] {
            assert!(ClusterId::new(name).is_err(), "{name}");
        }
    }
}
