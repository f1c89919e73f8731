//! R14: nobody takes on more than it is allowed to.

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Bounded;

impl Invariant for Bounded {
    const NAME: &'static str = "R14 bounded everything";

    fn observe(&mut self, _: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::Load { count, limit, .. } if count > limit => {
                Err(format!("{count} are under way, {limit} may be"))
            }
            _ => Ok(()),
        }
    }
}
