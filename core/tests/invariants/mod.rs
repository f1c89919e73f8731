//! The rules as named invariants, one file each. They read the events one by one, in order, and look at the world
//! after every step.

mod alarm;
mod atomicity;
mod decide_before_speak;
mod history;
mod one_decision;
mod presumed_abort;
mod promise;
mod repetition;
mod takeover;
mod tombstone;

use crate::world::{Event, World};

pub(crate) use history::History;

/// Something that must hold whatever happens.
trait Invariant {
    /// The rule, as `docs/protocol.md` calls it.
    fn name(&self) -> &'static str;

    /// Looks at one event; `history` has it already.
    fn observe(&mut self, history: &History, event: &Event) -> Result<(), String>;

    /// Looks at the world after a step.
    fn inspect(&mut self, _history: &History, _world: &World) -> Result<(), String> {
        Ok(())
    }
}

/// All invariants, and the history that they read.
pub(crate) struct Checker {
    history: History,
    seen: usize,
    invariants: Vec<Box<dyn Invariant>>,
}

impl Checker {
    pub(crate) fn new() -> Self {
        Self {
            history: History::default(),
            seen: 0,
            invariants: vec![
                Box::new(one_decision::OneDecision::default()),
                Box::new(decide_before_speak::DecideBeforeSpeak),
                Box::new(promise::Promise),
                Box::new(tombstone::Tombstone::default()),
                Box::new(presumed_abort::PresumedAbort),
                Box::new(takeover::Takeover::default()),
                Box::new(repetition::Repetition::default()),
                Box::new(atomicity::Atomicity),
                Box::new(alarm::Alarm),
            ],
        }
    }

    /// Checks everything that has happened since the last call, and names every rule that the first bad step breaks.
    pub(crate) fn check(&mut self, world: &World) -> Result<(), String> {
        for event in &world.events()[self.seen..] {
            self.history.add(event);
            let found = self.invariants.iter_mut().filter_map(|invariant| {
                let what = invariant.observe(&self.history, event).err()?;
                Some(format!(
                    "{} is broken by {:?}: {what}",
                    invariant.name(),
                    event.line(world.names())
                ))
            });
            all_of(found.collect())?;
        }
        self.seen = world.events().len();
        let found = self.invariants.iter_mut().filter_map(|invariant| {
            let what = invariant.inspect(&self.history, world).err()?;
            Some(format!("{} is broken: {what}", invariant.name()))
        });
        all_of(found.collect())
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }
}

fn all_of(broken: Vec<String>) -> Result<(), String> {
    if broken.is_empty() {
        Ok(())
    } else {
        Err(broken.join("; "))
    }
}
