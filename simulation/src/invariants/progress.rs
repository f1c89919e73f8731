//! When the faults have stopped, everything that was begun ends, within a bound.

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Progress;

impl Invariant for Progress {
    const NAME: &'static str = "progress";

    fn observe(&mut self, _: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::Stuck { what } => Err(what.clone()),
            _ => Ok(()),
        }
    }
}
