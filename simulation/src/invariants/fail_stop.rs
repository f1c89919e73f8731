//! R10: after a forced write has failed, the process says nothing any more.

use std::collections::BTreeSet;

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::node::Node;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct FailStop {
    failed: BTreeSet<Node>,
}

impl Invariant for FailStop {
    const NAME: &'static str = "R10 fail stop";

    fn observe(&mut self, _: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::SyncFailed { node } => {
                self.failed.insert(*node);
                Ok(())
            }
            Event::Started { node, .. } => {
                self.failed.remove(node);
                Ok(())
            }
            Event::Sent { from, .. } if self.failed.contains(from) => {
                Err("it goes on although its disk has failed".to_owned())
            }
            _ => Ok(()),
        }
    }
}
