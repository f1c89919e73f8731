//! The promise of the whole: what happens at one member happens at every member, or at none.

use super::{History, Invariant, Verdict};
use crate::event::{Effort, Event};
use crate::node::participant_id;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Atomicity;

impl Invariant for Atomicity {
    const NAME: &'static str = "atomicity";

    fn observe(&mut self, history: &History, event: &Event<'_>, _: Time) -> Verdict {
        let Event::WorkDone {
            at,
            transaction,
            what: Effort::Commit,
            ..
        } = event
        else {
            return Ok(());
        };
        match history.decided.get(transaction) {
            None => Err("the effect happens and nothing is decided".to_owned()),
            Some(decided) if !decided.record.decision.is_commit() => {
                Err("the effect happens and the transaction is aborted".to_owned())
            }
            Some(decided) if !decided.record.members.contains(&participant_id(usize::from(*at))) => {
                Err("the effect happens at one who is not a member".to_owned())
            }
            Some(_) => Ok(()),
        }
    }
}
