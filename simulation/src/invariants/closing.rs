//! R7: a commit is forgotten only when it is closed and on the disk of every member that promised; nothing is decided,
//! and nothing begins, under what is closed.

use std::collections::BTreeMap;

use unanimo_core::TransactionId;
use unanimo_core::table::{Applied, Command};

use super::{History, Invariant, Verdict};
use crate::event::{Effort, Event};
use crate::node::{Node, participant_place};
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Closing {
    watermark: Option<TransactionId>,
    /// What each participant has closed durably.
    closed: BTreeMap<u8, TransactionId>,
}

impl Invariant for Closing {
    const NAME: &'static str = "R7 forget late";

    fn observe(&mut self, history: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::Forgotten { transaction, record } => {
                if !history.is_closed(*transaction) {
                    return Err("it is not closed".to_owned());
                }
                if !record.decision.is_commit() {
                    return Ok(());
                }
                for member in &record.members {
                    let at = participant_place(member) as u8;
                    let promised = history
                        .said_yes
                        .contains(&(at, *transaction, record.request_hash));
                    if promised && !history.ever_committed.contains(&(at, *transaction)) {
                        return Err(format!("{member} promised, and the commit is not on its disk"));
                    }
                }
                Ok(())
            }
            Event::Applied {
                entry,
                first: true,
                applied: Some(applied),
                before,
                ..
            } => match (&entry.command, applied) {
                (Some(Command::Decide(proposal)), Applied::Decided(_))
                    if before.is_none() && Some(proposal.transaction) < self.watermark =>
                {
                    Err("it was closed before it was decided".to_owned())
                }
                (Some(Command::Advance(horizon)), Applied::Advanced) => {
                    self.watermark = self.watermark.max(Some(horizon.watermark));
                    Ok(())
                }
                _ => Ok(()),
            },
            Event::Closed { at, below } => {
                self.closed.insert(*at, *below);
                if Some(*below) > self.watermark {
                    return Err("the table has not closed it".to_owned());
                }
                Ok(())
            }
            // It may be a disk from before the last closing.
            Event::DiskReplaced {
                node: Node::Participant(at),
                ..
            } => {
                self.closed.remove(at);
                Ok(())
            }
            Event::WorkBegan {
                at,
                transaction,
                what: Effort::Prepare,
            } if Some(transaction) < self.closed.get(at) => {
                Err("work begins under an id that the participant has closed".to_owned())
            }
            _ => Ok(()),
        }
    }
}
