//! R1: the first decision applied is the only one, for its request and its members, and who has acknowledged it
//! stays acknowledged.

use std::collections::BTreeMap;

use unanimo_core::TransactionId;
use unanimo_core::table::{Applied, Command, DecisionRecord};

use super::{History, Invariant};
use crate::world::{Event, World, transaction_name};

#[derive(Default)]
pub(super) struct OneDecision {
    last: BTreeMap<TransactionId, DecisionRecord>,
}

impl Invariant for OneDecision {
    fn name(&self) -> &'static str {
        "R1 one decision"
    }

    fn observe(&mut self, history: &History, event: &Event) -> Result<(), String> {
        let Event::Applied {
            command: Command::Decide(proposal),
            applied: Applied::Decided(record),
            ..
        } = event
        else {
            return Ok(());
        };
        let first = &history.decided[&proposal.transaction];
        if (&record.decision, record.request_hash) == (&first.decision, first.request_hash) {
            Ok(())
        } else {
            Err(format!("the first decision was {}", first.decision))
        }
    }

    fn inspect(&mut self, _: &History, world: &World) -> Result<(), String> {
        let now = world.raft().table().records();
        for (id, before) in &self.last {
            let name = transaction_name(*id);
            let Some(record) = now.get(id) else {
                return Err(format!("the table has lost {name}"));
            };
            if (&record.decision, record.request_hash, &record.members)
                != (&before.decision, before.request_hash, &before.members)
            {
                return Err(format!("{name} was {before:?} and is {record:?}"));
            }
            if !record.unacknowledged.is_subset(&before.unacknowledged) {
                return Err(format!("an acknowledgement of {name} was taken back"));
            }
        }
        if self.last != *now {
            self.last = now.clone();
        }
        Ok(())
    }
}
