//! R6: a leader's death aborts nothing that was fully prepared. Every abort has a cause of its own: a member's No, a
//! deadline that passed, or the initiator's wish.

use std::collections::BTreeSet;

use unanimo_core::table::{Applied, Command};
use unanimo_core::{AbortReason, Decision, TransactionId, Vote};

use super::history::Asked;
use super::{History, Invariant};
use crate::world::{Address, Event, Message};

#[derive(Default)]
pub(super) struct Takeover {
    said_no: BTreeSet<Asked>,
    deadlines: BTreeSet<TransactionId>,
    requests: BTreeSet<TransactionId>,
}

impl Invariant for Takeover {
    fn name(&self) -> &'static str {
        "R6 takeover adopts"
    }

    fn observe(&mut self, _: &History, event: &Event) -> Result<(), String> {
        match event {
            Event::Sent(envelope) => {
                if let (
                    Address::Participant(at),
                    Message::Voted {
                        request_hash,
                        vote: Vote::No { .. },
                        ..
                    },
                ) = (&envelope.from, &envelope.message)
                {
                    self.said_no
                        .insert((at.clone(), envelope.transaction, *request_hash));
                }
            }
            Event::DeadlineFired { transaction, .. } => {
                self.deadlines.insert(*transaction);
            }
            Event::AbortRequested { transaction, .. } => {
                self.requests.insert(*transaction);
            }
            Event::Applied {
                command: Command::Decide(proposal),
                applied: Applied::Decided(record),
                ..
            } => {
                let id = proposal.transaction;
                let caused = match &record.decision {
                    Decision::Commit => true,
                    Decision::Abort(AbortReason::VotedNo { participant, .. }) => {
                        self.said_no
                            .contains(&(participant.clone(), id, record.request_hash))
                    }
                    Decision::Abort(AbortReason::DeadlinePassed { .. }) => self.deadlines.contains(&id),
                    Decision::Abort(AbortReason::Requested) => self.requests.contains(&id),
                    Decision::Abort(AbortReason::Presumed) => false,
                };
                if !caused {
                    return Err(format!("nothing that happened explains {}", record.decision));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
