use std::fmt;
use std::net::Ipv4Addr;

use crate::cluster::Member;

/// Who has a network namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// One of the processes.
    Member(Member),
    /// All clients together, and whoever asks the processes how they are.
    Clients,
}

impl Host {
    /// Its address. The same in every run: each run has namespaces of its own.
    pub fn address(self) -> Ipv4Addr {
        let last = |number: u64| match u8::try_from(number) {
            Ok(number @ 1..=254) => number,
            Ok(_) | Err(_) => unreachable!("{number} is no number of a member"),
        };
        match self {
            Self::Member(Member::Coordinator(node)) => Ipv4Addr::new(10, 77, 1, last(node)),
            Self::Member(Member::Participant(number)) => Ipv4Addr::new(10, 77, 2, last(number)),
            Self::Clients => Ipv4Addr::new(10, 77, 3, 1),
        }
    }

    /// Who has this address, if it is one of ours. Whether there is such a host is another question.
    pub fn at(address: Ipv4Addr) -> Option<Self> {
        match address.octets() {
            [10, 77, 1, node @ 1..=254] => Some(Self::Member(Member::Coordinator(node.into()))),
            [10, 77, 2, number @ 1..=254] => Some(Self::Member(Member::Participant(number.into()))),
            [10, 77, 3, 1] => Some(Self::Clients),
            _ => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(member) => member.fmt(f),
            Self::Clients => f.write_str("clients"),
        }
    }
}

/// One direction between two hosts. What happens to it happens to nothing that goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Who sends.
    pub from: Host,
    /// Who is to receive.
    pub to: Host,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}→{}", self.from, self.to)
    }
}
