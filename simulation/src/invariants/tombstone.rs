//! R4: once a branch is aborted, no Prepare makes the resource manager work again, as long as the tombstone survives.

use std::collections::BTreeSet;

use unanimo_core::{BranchPhase, Finish, Record, TransactionId};

use super::{History, Invariant, Verdict};
use crate::event::{Effort, Event};
use crate::node::Node;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Tombstone {
    /// In memory.
    buried: BTreeSet<(u8, TransactionId)>,
    /// On disk.
    durable: BTreeSet<(u8, TransactionId)>,
}

impl Invariant for Tombstone {
    const NAME: &'static str = "R4 No is remembered";

    fn observe(&mut self, _: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::BranchMoved {
                at,
                transaction,
                to:
                    BranchPhase::Cancelling
                    | BranchPhase::Interrupted { .. }
                    | BranchPhase::Aborting { .. }
                    | BranchPhase::Finished(Finish::Aborted { .. }),
                ..
            } => {
                self.buried.insert((*at, *transaction));
            }
            Event::OnDisk {
                at,
                record: Record::Aborted { transaction, .. },
                ..
            } => {
                self.durable.insert((*at, *transaction));
            }
            Event::Started {
                node: Node::Participant(started),
                ..
            } => self.buried.retain(|(at, _)| at != started),
            Event::DiskReplaced {
                node: Node::Participant(replaced),
                ..
            } => self.durable.retain(|(at, _)| at != replaced),
            Event::WorkBegan {
                at,
                transaction,
                what: Effort::Prepare | Effort::Extend,
            } => {
                let branch = (*at, *transaction);
                if self.buried.contains(&branch) || self.durable.contains(&branch) {
                    return Err("it works for a branch that it has aborted".to_owned());
                }
            }
            _ => {}
        }
        Ok(())
    }
}
