//! R3: a Yes has a durable Prepared record beneath it, its holds are there as long as nothing is decided, and only
//! the decision releases it.

use unanimo_core::{BranchPhase, Record, Vote};

use super::{History, Invariant};
use crate::world::{Address, Event, Message, Presence, World, transaction_name};

pub(super) struct Promise;

impl Invariant for Promise {
    fn name(&self) -> &'static str {
        "R3 a Yes is a promise"
    }

    fn observe(&mut self, history: &History, event: &Event) -> Result<(), String> {
        match event {
            Event::Sent(envelope) => {
                let (Address::Participant(at), Message::Voted { vote: Vote::Yes, .. }) =
                    (&envelope.from, &envelope.message)
                else {
                    return Ok(());
                };
                let promised = |record: &Record| matches!(record, Record::Prepared(..));
                if history.has_record(at, envelope.transaction, promised) {
                    Ok(())
                } else {
                    Err("no Prepared record is durable".to_owned())
                }
            }
            Event::BranchMoved {
                transaction,
                from: BranchPhase::Prepared(prepared),
                to,
                ..
            } => {
                let commits = history.commits(*transaction, prepared.request_hash);
                match (to, commits) {
                    (BranchPhase::Committing(_), Some(true))
                    | (BranchPhase::Aborting { .. }, Some(false)) => Ok(()),
                    _ => Err(format!(
                        "the decision on its request is {commits:?} (Some(true) is Commit)"
                    )),
                }
            }
            _ => Ok(()),
        }
    }

    fn inspect(&mut self, history: &History, world: &World) -> Result<(), String> {
        for (at, participant) in world.participants() {
            if participant.presence == Presence::Down {
                continue;
            }
            for (id, entry) in &participant.branches {
                let held = participant.resource.holds().contains(id)
                    || participant.resource.committed().contains(id);
                if entry.branch.in_doubt().is_some() && !held {
                    return Err(format!(
                        "{at} is in doubt about {} and holds nothing",
                        transaction_name(*id)
                    ));
                }
            }
        }
        for (at, id, request_hash) in &history.said_yes {
            let participant = world.participant(at);
            let lost = participant.presence != Presence::Down
                && history.commits(*id, *request_hash) != Some(false)
                && !participant.resource.holds().contains(id)
                && !participant.resource.committed().contains(id);
            if lost {
                return Err(format!(
                    "{at} said Yes to {} and holds nothing",
                    transaction_name(*id)
                ));
            }
        }
        Ok(())
    }
}
