//! At the end each account is what the committed transactions make it: no money is made, none is lost, and no effect
//! happened twice or not at all.

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Conservation;

impl Invariant for Conservation {
    const NAME: &'static str = "conservation";

    fn observe(&mut self, _: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::Settled {
                balance, expected, ..
            } if balance != expected => Err(format!("the account has {balance} instead of {expected}")),
            Event::WorkDone { balance, .. } if *balance < 0 => {
                Err("more was spent than there was, although it was held".to_owned())
            }
            _ => Ok(()),
        }
    }
}
