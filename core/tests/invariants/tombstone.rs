//! R4: once a branch is aborted, no Prepare makes the resource manager work again, as long as the tombstone survives.

use std::collections::BTreeSet;

use unanimo_core::{ParticipantId, Record, Resolution, TransactionId};

use super::history::record_of;
use super::{History, Invariant};
use crate::world::{Address, Event, Finished, Message, Told, Work};

#[derive(Default)]
pub(super) struct Tombstone {
    buried: BTreeSet<(ParticipantId, TransactionId)>,
}

impl Invariant for Tombstone {
    fn name(&self) -> &'static str {
        "R4 No is remembered"
    }

    fn observe(&mut self, history: &History, event: &Event) -> Result<(), String> {
        if let Some((at, transaction)) = buried(event) {
            self.buried.insert((at.clone(), transaction));
        }
        match event {
            Event::ParticipantCrashed { at, .. } => {
                self.buried.retain(|(participant, _)| participant != at);
                let aborted = history
                    .records(at)
                    .filter(|record| matches!(record, Record::Aborted { .. }));
                let buried = aborted.filter_map(record_of).map(|id| (at.clone(), id));
                self.buried.extend(buried);
                Ok(())
            }
            Event::ResourceStarted {
                at,
                work: Work::Prepare(transaction, _) | Work::Extend(transaction, _),
            } if self.buried.contains(&(at.clone(), *transaction)) => {
                Err("the branch was aborted and takes holds again".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Who has learnt of an abort, or has refused: by what it was told, not by what it remembers.
fn buried(event: &Event) -> Option<(&ParticipantId, TransactionId)> {
    match event {
        Event::Delivered(envelope) => match (&envelope.to, &envelope.message) {
            (
                Address::Participant(at),
                Message::Abort { .. }
                | Message::Answered {
                    told: Told::Aborted, ..
                },
            ) => Some((at, envelope.transaction)),
            _ => None,
        },
        Event::ResourceFinished {
            at,
            work,
            finished: Finished::Resolved(Resolution::No { .. }),
        } => Some((at, work.transaction())),
        _ => None,
    }
}
