//! While every node keeps the rules, no message is ever a violation, whatever the network does with it.

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Alarm;

impl Invariant for Alarm {
    const NAME: &'static str = "R9 no alarm";

    fn observe(&mut self, history: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::Alarm { node, what, .. } if !history.runs_from_a_copy(*node) => Err(what.clone()),
            _ => Ok(()),
        }
    }
}
