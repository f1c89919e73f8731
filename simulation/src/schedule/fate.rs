//! What becomes of messages. A message is named by who sends what to whom for which transaction for the how manieth time,
//! so that its fate stays the same when other messages are left out.

use std::collections::BTreeMap;

use super::{Knobs, MS, Time};
use crate::chance::Chance;
use crate::node::Node;

/// Names a message of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MessageKey {
    pub(crate) from: Node,
    pub(crate) to: Node,
    /// Its kind, as [`Message::kind`](crate::message::Message::kind) numbers it.
    pub(crate) kind: u8,
    /// The number of its transaction; 0 if it is about none.
    pub(crate) transaction: u32,
    /// How many like it were sent before.
    pub(crate) nth: u32,
}

/// What becomes of a message that is not delivered once and in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    /// It comes twice, the second time so much later.
    Repeated {
        again: Time,
    },
    /// It comes, and comes again so much later, when everybody has forgotten it.
    Replayed {
        again: Time,
    },
    /// It comes so much later only.
    Held {
        by: Time,
    },
}

/// The fates of all messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fates {
    /// Drawn, as often as the knobs say.
    Drawn,
    /// These, and all others are delivered once and in time.
    Listed(BTreeMap<MessageKey, Fate>),
}

impl MessageKey {
    const fn chance(&self, seed: u64, purpose: &'static str) -> Chance {
        const fn number(node: Node) -> u64 {
            match node {
                Node::Coordinator(place) => place as u64,
                Node::Participant(place) => 0x100 | place as u64,
                Node::Initiator(place) => 0x1_0000 | place as u64,
            }
        }
        let ends = number(self.from) << 20 | number(self.to);
        let count = ends << 24 ^ (self.kind as u64) << 19 ^ (self.transaction as u64) << 42 ^ self.nth as u64;
        Chance::of(seed, purpose, count)
    }

    /// How long it takes.
    pub(crate) fn delay(&self, seed: u64, knobs: &Knobs) -> Time {
        if knobs.delay_min_us >= knobs.delay_max_us {
            return knobs.delay_min_us;
        }
        let mut chance = self.chance(seed, "d");
        // Most are quick, and a few take as long as it may.
        let span = knobs.delay_max_us - knobs.delay_min_us;
        let part = if chance.permille(900) { span / 8 } else { span };
        knobs.delay_min_us + chance.below(part + 1)
    }

    /// How much later it comes again if everything does.
    pub(crate) fn replayed_after(&self, seed: u64) -> Time {
        self.chance(seed, "r").between(1, 400) * MS
    }

    /// What becomes of it as the knobs say.
    pub(crate) fn drawn(&self, seed: u64, knobs: &Knobs) -> Option<Fate> {
        let mut chance = self.chance(seed, "f");
        let lot = chance.below(1000);
        if lot < knobs.loss {
            return Some(Fate::Lost);
        }
        if lot < knobs.loss + knobs.repeat {
            let again = chance.between(0, 4 * knobs.delay_max_us);
            return Some(Fate::Repeated { again });
        }
        if lot < knobs.loss + knobs.repeat + knobs.hold {
            let late = chance.between(0, knobs.hold_max_ms * MS);
            return Some(if chance.permille(700) {
                Fate::Replayed { again: late }
            } else {
                Fate::Held { by: late }
            });
        }
        None
    }
}
