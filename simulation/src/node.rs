//! Who there is.

use std::fmt;
use std::str::FromStr;

use unanimo_core::ParticipantId;

/// Somebody who sends and receives messages; counted from 0, printed from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Node {
    /// `c1`: a coordinator node.
    Coordinator(u8),
    /// `p1`: a participant.
    Participant(u8),
    /// `i1`: an initiator. Each carries out one [`Work`](crate::schedule::Work).
    Initiator(u16),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator(place) => write!(f, "c{}", place + 1),
            Self::Participant(place) => write!(f, "p{}", place + 1),
            Self::Initiator(place) => write!(f, "i{}", place + 1),
        }
    }
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no node: use c1, p1 or i1");
        let (kind, number) = text.split_at_checked(1).ok_or_else(bad)?;
        let number: u16 = number.parse().map_err(|_| bad())?;
        let place = number.checked_sub(1).ok_or_else(bad)?;
        let small = || u8::try_from(place).map_err(|_| bad());
        match kind {
            "c" => small().map(Self::Coordinator),
            "p" => small().map(Self::Participant),
            "i" => Ok(Self::Initiator(place)),
            _ => Err(bad()),
        }
    }
}

/// The participant's name in the protocol.
pub(crate) fn participant_id(place: usize) -> ParticipantId {
    match ParticipantId::new(&format!("p{}", place + 1)) {
        Ok(id) => id,
        Err(error) => unreachable!("a letter and a number are a name: {error}"),
    }
}

/// The participant with this name.
pub(crate) fn participant_place(id: &ParticipantId) -> usize {
    usize::from(id.as_str().as_bytes()[1] - b'1')
}
