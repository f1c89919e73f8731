use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of every cluster here.
pub const CLUSTER: &str = "jepsen";

/// How many of each there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Coordinator nodes, with consecutive ids: from 1 on, until nodes are replaced.
    pub coordinators: u64,
    /// Participants, named p1 and so on.
    pub participants: u64,
    /// How many nodes were replaced. Each time the oldest went, and a new one came after the last: ids are never used
    /// again.
    #[serde(default)]
    pub replaced: u64,
}

/// One of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A coordinator node, by its id.
    Coordinator(u64),
    /// A participant, by its number.
    Participant(u64),
}

impl Layout {
    /// Every process, coordinators first.
    pub fn members(self) -> impl Iterator<Item = Member> {
        self.nodes()
            .map(Member::Coordinator)
            .chain((1..=self.participants).map(Member::Participant))
    }

    /// The ids of the coordinator nodes.
    pub fn nodes(self) -> impl Iterator<Item = u64> {
        // What nobody could have started may stand in a file.
        let before = self.replaced;
        (1..=self.coordinators).map(move |place| before.saturating_add(place))
    }

    /// The names of the participants.
    pub fn names(self) -> Vec<String> {
        (1..=self.participants)
            .map(|number| Member::Participant(number).to_string())
            .collect()
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator(node) => write!(f, "c{node}"),
            Self::Participant(number) => write!(f, "p{number}"),
        }
    }
}

/// Where everybody serves, as `host:port`.
#[derive(Clone, Debug)]
pub struct Addresses {
    addresses: BTreeMap<Member, String>,
}

impl Addresses {
    pub(super) fn new(addresses: BTreeMap<Member, String>) -> Self {
        Self { addresses }
    }

    /// Where this process serves.
    pub fn of(&self, member: Member) -> &str {
        &self.addresses[&member]
    }

    pub(super) fn add(&mut self, member: Member, address: String) {
        self.addresses.insert(member, address);
    }

    pub(super) fn remove(&mut self, member: Member) {
        self.addresses.remove(&member);
    }

    /// The coordinator nodes.
    pub fn coordinators(&self) -> Vec<String> {
        self.nodes().map(|(_, address)| address.to_owned()).collect()
    }

    /// The coordinator nodes with their ids.
    pub fn nodes(&self) -> impl Iterator<Item = (u64, &str)> {
        self.addresses
            .iter()
            .filter_map(|(member, address)| match member {
                Member::Coordinator(node) => Some((*node, address.as_str())),
                Member::Participant(_) => None,
            })
    }

    /// The participants with their names.
    pub fn participants(&self) -> impl Iterator<Item = (String, &str)> {
        self.addresses
            .iter()
            .filter_map(|(member, address)| match member {
                Member::Participant(_) => Some((member.to_string(), address.as_str())),
                Member::Coordinator(_) => None,
            })
    }
}
