//! The promise of the whole: what happens at one member happens at every member, or at none.

use unanimo_core::{BranchPhase, Finish};

use super::{History, Invariant};
use crate::world::{Event, Finished, Work};

pub(super) struct Atomicity;

impl Invariant for Atomicity {
    fn name(&self) -> &'static str {
        "atomicity"
    }

    fn observe(&mut self, history: &History, event: &Event) -> Result<(), String> {
        match event {
            Event::ResourceFinished {
                at,
                work: Work::Commit(id),
                finished: Finished::Committed,
            } => match history.decided.get(id) {
                Some(record) if record.decision.is_commit() && record.members.contains(at) => Ok(()),
                Some(record) => Err(format!(
                    "the effect happens and the table holds {}",
                    record.decision
                )),
                None => Err("the effect happens and nothing is decided".to_owned()),
            },
            Event::BranchMoved {
                at,
                transaction,
                to:
                    BranchPhase::Cancelling
                    | BranchPhase::Aborting { .. }
                    | BranchPhase::Finished(Finish::Aborted { .. }),
                ..
            } => {
                let Some(record) = history.decided.get(transaction) else {
                    return Ok(());
                };
                let promised = history
                    .said_yes
                    .contains(&(at.clone(), *transaction, record.request_hash));
                if record.decision.is_commit() && promised {
                    Err("a member that said Yes aborts what is committed".to_owned())
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }
}
