//! R1: the first decision applied is the only one, at every replica.

use unanimo_core::table::{Applied, Command};

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct OneDecision;

impl Invariant for OneDecision {
    const NAME: &'static str = "R1 one decision";

    fn observe(&mut self, history: &History, event: &Event<'_>, _: Time) -> Verdict {
        let Event::Applied {
            entry,
            applied: Some(Applied::Decided(record)),
            ..
        } = event
        else {
            return Ok(());
        };
        let Some(Command::Decide(proposal)) = &entry.command else {
            return Ok(());
        };
        let Some(first) = history.decided.get(&proposal.transaction) else {
            return Err("this replica has a decision that was never recorded".to_owned());
        };
        let first = &first.record;
        if (&record.decision, record.request_hash) == (&first.decision, first.request_hash) {
            Ok(())
        } else {
            Err(format!("the first decision was {}", first.decision))
        }
    }
}
