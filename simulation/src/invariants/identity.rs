//! R11: no Commit rests on a vote of an earlier life than the registered one, and no participant is registered that has
//! lost a promise which a Commit rests on.

use std::collections::BTreeMap;

use unanimo_core::table::{Applied, Command};
use unanimo_core::{Decision, Generation, ParticipantId};

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Identity {
    registered: BTreeMap<ParticipantId, Generation>,
}

impl Invariant for Identity {
    const NAME: &'static str = "R11 know each other";

    fn observe(&mut self, _: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::Registered { missing: Some(_), .. } => {
                Err("its disk has lost a promise that a Commit rests on".to_owned())
            }
            Event::Applied {
                entry,
                first: true,
                applied: Some(applied),
                before,
                ..
            } => match (&entry.command, applied) {
                (
                    Some(Command::Register {
                        participant,
                        registration,
                    }),
                    Applied::Registered,
                ) => {
                    let generation = registration.witness.generation;
                    let known = self.registered.entry(participant.clone()).or_default();
                    *known = generation.max(*known);
                    Ok(())
                }
                (Some(Command::Decide(proposal)), Applied::Decided(record))
                    if before.is_none() && record.decision == Decision::Commit =>
                {
                    let earlier = proposal.witnesses.iter().find(|(member, witness)| {
                        let registered = self.registered.get(*member);
                        registered.is_some_and(|registered| witness.generation < *registered)
                    });
                    match earlier {
                        Some((member, witness)) => Err(format!(
                            "{member} voted as {}, an earlier life",
                            witness.generation
                        )),
                        None => Ok(()),
                    }
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
