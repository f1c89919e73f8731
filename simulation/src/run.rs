//! One run, from its schedule to what is left of it.

use std::rc::Rc;

use crate::counters::Counters;
use crate::schedule::{Fate, MessageKey, Schedule};
use crate::watch::{Broken, Hash, Transcript};
use crate::world::World;

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) broken: Option<Broken>,
    pub(crate) counters: Counters,
    pub(crate) faults: std::collections::BTreeMap<&'static str, u64>,
    pub(crate) simulated_us: u64,
    /// Transactions that were decided.
    pub(crate) transactions: u64,
    pub(crate) events: u64,
    pub(crate) fates: Vec<(MessageKey, Fate)>,
    pub(crate) transcript: String,
    pub(crate) hash: u64,
}

/// What is kept of the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Hash,
    Text,
}

/// Lets a schedule happen.
pub(crate) fn run(schedule: &Rc<Schedule>, keep: Keep) -> Outcome {
    let transcript = match keep {
        Keep::Nothing => Transcript::Nothing,
        Keep::Hash => Transcript::Hash(Hash::default()),
        Keep::Text => Transcript::Text(String::new()),
    };
    let mut world = World::new(Rc::clone(schedule), transcript);
    world.run();
    let (transcript, hash) = match std::mem::replace(&mut world.watch.transcript, Transcript::Nothing) {
        Transcript::Nothing => (String::new(), 0),
        Transcript::Hash(hash) => (String::new(), hash.0),
        Transcript::Text(text) => (text, 0),
    };
    Outcome {
        broken: world.watch.broken,
        counters: world.watch.counters,
        faults: world.watch.faults,
        simulated_us: world.now,
        transactions: world.watch.history.decided.len() as u64,
        events: world.events,
        fates: world.fates,
        transcript,
        hash,
    }
}
