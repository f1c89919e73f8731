//! The model of the log keeps what Raft promises: one leader in a term, a new leader has everything that is committed,
//! every replica applies the same, and what is committed is on a quorum's disks. The protocol rests on that; here it is
//! shown, and not assumed.

use std::collections::BTreeMap;

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::log::Entry;
use crate::node::Node;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Log {
    leaders: BTreeMap<u64, Node>,
    /// The entries that were committed, by where they are: the replicas share them.
    committed: Vec<usize>,
}

impl Invariant for Log {
    const NAME: &'static str = "R1, R2: the log";

    fn observe(&mut self, _: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::Elected {
                node, term, complete, ..
            } => {
                if self.leaders.insert(*term, *node).is_some() {
                    return Err("two leaders in one term".to_owned());
                }
                if !complete {
                    return Err("a leader that does not have everything that is committed".to_owned());
                }
                Ok(())
            }
            Event::Applied {
                index,
                entry,
                first,
                safe,
                ..
            } => self.applied(*index, entry, *first, *safe),
            Event::Truncated { committed: true, .. } => Err("a committed entry is dropped".to_owned()),
            Event::Differs { .. } => Err("replicas that have applied the same differ".to_owned()),
            _ => Ok(()),
        }
    }
}

impl Log {
    fn applied(&mut self, index: u64, entry: &Entry, first: bool, safe: bool) -> Verdict {
        let place = std::ptr::from_ref(entry).addr();
        if !first {
            let known = self.committed.get(index as usize - 1);
            return match known {
                Some(known) if *known == place => Ok(()),
                _ => Err("another entry was applied there before".to_owned()),
            };
        }
        assert_eq!(
            index as usize,
            self.committed.len() + 1,
            "entries are applied in order"
        );
        self.committed.push(place);
        if safe {
            Ok(())
        } else {
            Err("it counts as committed and is not on a quorum's disks".to_owned())
        }
    }
}
