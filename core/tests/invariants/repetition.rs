//! R9: a message repeated has the effect and the answer of once.

use std::collections::{BTreeMap, BTreeSet};

use unanimo_core::{ParticipantId, Record, TransactionId, Vote};

use super::history::Asked;
use super::{History, Invariant};
use crate::world::{Address, Envelope, Event, Finished, Message, Work};

#[derive(Default)]
pub(super) struct Repetition {
    /// The vote told in this life of the participant.
    votes: BTreeMap<Asked, Vote>,
    /// Commits asked of the resource manager in this life of the participant.
    asked_to_commit: BTreeSet<(ParticipantId, TransactionId)>,
    /// Effects, over all lives.
    committed: BTreeSet<(ParticipantId, TransactionId)>,
}

impl Invariant for Repetition {
    fn name(&self) -> &'static str {
        "R9 once"
    }

    fn observe(&mut self, history: &History, event: &Event) -> Result<(), String> {
        match event {
            Event::ParticipantCrashed { at, .. } => {
                self.votes.retain(|(participant, ..), _| participant != at);
                self.asked_to_commit.retain(|(participant, _)| participant != at);
                Ok(())
            }
            Event::ResourceStarted {
                at,
                work: Work::Commit(id),
            } => {
                let done = |record: &Record| matches!(record, Record::Committed { .. });
                let first = self.asked_to_commit.insert((at.clone(), *id));
                if first && !history.has_record(at, *id, done) {
                    Ok(())
                } else {
                    Err("the resource manager is asked to commit twice".to_owned())
                }
            }
            Event::ResourceFinished {
                at,
                work: Work::Commit(id),
                finished: Finished::Committed,
            } => match self.committed.insert((at.clone(), *id)) {
                true => Ok(()),
                false => Err("the effect happened twice".to_owned()),
            },
            Event::Sent(envelope) => match (&envelope.from, &envelope.message) {
                (
                    Address::Participant(at),
                    Message::Voted {
                        request_hash, vote, ..
                    },
                ) => {
                    let asked = (at.clone(), envelope.transaction, *request_hash);
                    self.voted(history, asked, vote)
                }
                (Address::Participant(at), Message::Acknowledged { .. }) => {
                    acknowledged(history, at, envelope)
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl Repetition {
    fn voted(&mut self, history: &History, asked: Asked, vote: &Vote) -> Result<(), String> {
        let aborted = history.commits(asked.1, asked.2) == Some(false);
        let promised = history.said_yes.contains(&asked);
        if promised && !matches!(vote, Vote::Yes) && !aborted {
            return Err("it has said Yes before, and no Abort is decided".to_owned());
        }
        let before = self.votes.insert(asked, vote.clone());
        let same = match (&before, vote) {
            (None, _) => true,
            (Some(Vote::Yes), Vote::Yes) | (Some(Vote::ReadOnly), Vote::ReadOnly) => true,
            (Some(Vote::No { .. }), Vote::No { .. }) => true,
            // The promise was released by the decision, and the tombstone answers now.
            (Some(Vote::Yes), Vote::No { .. }) => aborted,
            (Some(_), _) => false,
        };
        if same {
            Ok(())
        } else {
            Err(format!("the same Prepare was answered {before:?} before"))
        }
    }
}

/// A Commit is acknowledged only when it is durable; a branch that only read has nothing to make durable.
fn acknowledged(history: &History, at: &ParticipantId, envelope: &Envelope) -> Result<(), String> {
    let id = envelope.transaction;
    let Some(record) = history.decided.get(&id) else {
        return Err("nothing is decided".to_owned());
    };
    let promised = history.said_yes.contains(&(at.clone(), id, record.request_hash));
    let durable = history.has_record(at, id, |record| matches!(record, Record::Committed { .. }));
    if record.decision.is_commit() && promised && !durable {
        return Err("the commit is not durable".to_owned());
    }
    Ok(())
}
