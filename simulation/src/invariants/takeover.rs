//! R6: a leader's death aborts nothing that was fully prepared. Every abort has a cause of its own: a member's No, a
//! deadline that passed, or the initiator's wish.

use std::collections::BTreeSet;

use unanimo_core::table::{Applied, Command};
use unanimo_core::{AbortReason, Decision, RequestHash, TransactionId, Vote};

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::node::participant_place;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Takeover {
    said_no: BTreeSet<(u8, TransactionId, RequestHash)>,
    deadlines: BTreeSet<TransactionId>,
    asked: BTreeSet<TransactionId>,
}

impl Invariant for Takeover {
    const NAME: &'static str = "R6 takeover adopts";

    fn observe(&mut self, _: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::Votes {
                at,
                transaction,
                request_hash,
                vote: Vote::No { .. },
                ..
            } => {
                self.said_no.insert((*at, *transaction, *request_hash));
            }
            Event::DeadlineFired { transaction, .. } => {
                self.deadlines.insert(*transaction);
            }
            Event::AbortAsked { transaction, .. } => {
                self.asked.insert(*transaction);
            }
            Event::Applied {
                entry,
                first: true,
                applied: Some(Applied::Decided(record)),
                before: None,
                ..
            } => {
                let Some(Command::Decide(proposal)) = &entry.command else {
                    return Ok(());
                };
                let id = proposal.transaction;
                let caused = match &record.decision {
                    Decision::Commit => true,
                    Decision::Abort(AbortReason::VotedNo { participant, .. }) => {
                        let at = participant_place(participant) as u8;
                        self.said_no.contains(&(at, id, record.request_hash))
                    }
                    Decision::Abort(AbortReason::DeadlinePassed { .. }) => self.deadlines.contains(&id),
                    Decision::Abort(AbortReason::Requested) => self.asked.contains(&id),
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
