//! What travels between the coordinators and the participants.

use unanimo_core::table::Witness;

/// How a member answers to `Prepare`. Why it refuses is left out: nothing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Voted {
    Yes,
    ReadOnly,
    No,
}

/// The answer to an inquiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Told {
    Committed,
    Aborted,
}

/// One message, or the reply to one. A reply names the request that its call was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Message {
    Prepare {
        request: u8,
        members: u8,
        with_operation: bool,
    },
    Commit {
        request: u8,
    },
    /// Of a request, unless the abort was recorded for none.
    Abort {
        request: Option<u8>,
    },
    Inquire {
        request: u8,
        members: u8,
    },
    Voted {
        request: u8,
        vote: Voted,
        witness: Option<Witness>,
    },
    /// Instead of a vote: the transaction is closed here.
    Expired,
    Acknowledged {
        witness: Option<Witness>,
    },
    Answered {
        request: u8,
        told: Told,
    },
}

/// A message between a coordinator node and a member. Once sent it stays on its way for ever: it may be delivered at any
/// time, any number of times, or never, which is all that a network can do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Envelope {
    pub(crate) node: u8,
    pub(crate) member: u8,
    pub(crate) transaction: u8,
    pub(crate) message: Message,
}

impl Envelope {
    /// Whether it goes to the coordinator.
    pub(crate) fn goes_to_node(&self) -> bool {
        match self.message {
            Message::Inquire { .. }
            | Message::Voted { .. }
            | Message::Expired
            | Message::Acknowledged { .. } => true,
            Message::Prepare { .. }
            | Message::Commit { .. }
            | Message::Abort { .. }
            | Message::Answered { .. } => false,
        }
    }
}
