//! What initiators want.

use std::fmt;

/// What one participant is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Change its account by so much. It refuses what the account does not hold.
    By(i64),
    /// Only look.
    Read,
    /// Something that it always refuses.
    Refused,
}

impl Move {
    /// The operation, as the resource manager reads it.
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text {
            "read" => Some(Self::Read),
            "no" => Some(Self::Refused),
            amount => amount.parse().ok().map(Self::By),
        }
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(amount) => write!(f, "{amount:+}"),
            Self::Read => f.write_str("read"),
            Self::Refused => f.write_str("no"),
        }
    }
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// All of it at once, perhaps under an idempotency key.
    Submit {
        moves: Vec<(u8, Move)>,
        key: Option<u64>,
    },
    /// One operation after the other, and then a commit or, as the last word, an abort.
    Interactive { moves: Vec<(u8, Move)>, aborts: bool },
    /// That it is aborted, whoever runs it; these are thought to be members.
    Abort { members: Vec<u8> },
    /// To know its outcome.
    Ask,
}

/// One call of an initiator, repeated until it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    /// When it begins, in milliseconds.
    pub(crate) at_ms: u64,
    /// The number of the transaction. Several works may be about one: repeated calls, or different requests.
    pub(crate) transaction: u32,
    /// The coordinator that is called first.
    pub(crate) node: u8,
    /// How long it is repeated, in milliseconds.
    pub(crate) patience_ms: u64,
    pub(crate) want: Want,
}

impl Work {
    /// How many participants take part.
    pub(crate) fn members(&self) -> usize {
        match &self.want {
            Want::Submit { moves, .. } | Want::Interactive { moves, .. } => {
                let places: std::collections::BTreeSet<u8> = moves.iter().map(|(who, _)| *who).collect();
                places.len()
            }
            Want::Abort { members } => members.len(),
            Want::Ask => 0,
        }
    }
}
