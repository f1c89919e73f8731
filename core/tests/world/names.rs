//! Short names for ids, so that a transcript reads like the protocol: `t1`, `p2`, `c1`.

use std::collections::BTreeMap;
use std::fmt;

use unanimo_core::{ClusterId, Operation, ParticipantId, Request, RequestHash, Timestamp, TransactionId};

/// The only cluster of the world.
pub(crate) fn cluster() -> ClusterId {
    ClusterId::new("world").unwrap()
}

/// The participant `p1`, `p2` and so on.
pub(crate) fn participant(number: usize) -> ParticipantId {
    ParticipantId::new(&format!("p{number}")).unwrap()
}

/// The transaction `t1`, `t2` and so on.
pub(crate) fn transaction(number: u64) -> TransactionId {
    TransactionId::new(Timestamp::from_unix_ms(1), number.into())
}

/// How a transcript calls a transaction.
pub(crate) fn transaction_name(id: TransactionId) -> String {
    format!("t{}", id.as_u128() & 0x3fff_ffff_ffff_ffff)
}

/// The request whose branches do what the scripts say, for example `p1=yes p2=no`.
pub(crate) fn request(branches: &[(usize, String)]) -> Request {
    let branch = |(number, operation): &(usize, String)| {
        (
            participant(*number),
            Operation::new(operation.clone().into_bytes()),
        )
    };
    Request::new(branches.iter().map(branch), Default::default()).unwrap()
}

/// A coordinator node in one of its lives: a node that restarts has forgotten what it ran, and answers to its
/// earlier life reach nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat {
    pub(crate) node: usize,
    pub(crate) life: u32,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.life {
            1 => write!(f, "c{}", self.node),
            life => write!(f, "c{}.{life}", self.node),
        }
    }
}

/// Tells the requests under one id apart: the first is written `t1`, the second `t1'`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    requests: BTreeMap<TransactionId, Vec<RequestHash>>,
}

impl Names {
    /// Remembers a request, in the order in which initiators came with them.
    pub(crate) fn learn(&mut self, id: TransactionId, hash: RequestHash) {
        let known = self.requests.entry(id).or_default();
        if !known.contains(&hash) {
            known.push(hash);
        }
    }

    /// The transaction with a mark for each request before this one, and `t1?` for a request nobody came with.
    pub(crate) fn request(&self, id: TransactionId, hash: RequestHash) -> String {
        let known = self.requests.get(&id);
        let before = known.and_then(|known| known.iter().position(|other| *other == hash));
        match before {
            Some(before) => format!("{}{}", transaction_name(id), "'".repeat(before)),
            None => format!("{}?", transaction_name(id)),
        }
    }
}
