//! While every node keeps the rules, no message is ever a violation, whatever the network does with it.

use super::{History, Invariant};
use crate::world::Event;

pub(super) struct Alarm;

impl Invariant for Alarm {
    fn name(&self) -> &'static str {
        "R9 no alarm"
    }

    fn observe(&mut self, _: &History, event: &Event) -> Result<(), String> {
        match event {
            Event::BranchRefused { .. } | Event::TransactionAlarmed { .. } => {
                Err("nobody broke a rule".to_owned())
            }
            _ => Ok(()),
        }
    }
}
