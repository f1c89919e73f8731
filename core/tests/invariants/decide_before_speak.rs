//! R2: nobody hears an outcome, in any message or reply, before the table holds it, and everybody hears the same.

use unanimo_core::{RequestHash, TransactionId};

use super::{History, Invariant};
use crate::world::{Event, Message, Told};

pub(super) struct DecideBeforeSpeak;

impl Invariant for DecideBeforeSpeak {
    fn name(&self) -> &'static str {
        "R2 decide before you speak"
    }

    fn observe(&mut self, history: &History, event: &Event) -> Result<(), String> {
        let Some((transaction, request_hash, commit)) = told(event) else {
            return Ok(());
        };
        match history.commits(transaction, request_hash) {
            Some(decided) if decided == commit => Ok(()),
            Some(_) => Err("the table holds the opposite".to_owned()),
            None => Err("the table holds nothing yet".to_owned()),
        }
    }
}

/// The outcome that somebody is told by this event: of which request, and whether it is Commit.
fn told(event: &Event) -> Option<(TransactionId, RequestHash, bool)> {
    match event {
        Event::Sent(envelope) => {
            let (request_hash, commit) = match &envelope.message {
                Message::Commit { request_hash } => (request_hash, true),
                Message::Abort { request_hash } => (request_hash, false),
                Message::Answered { request_hash, told } => match told {
                    Told::Committed => (request_hash, true),
                    Told::Aborted => (request_hash, false),
                    Told::Undecided => return None,
                },
                Message::Prepare { .. }
                | Message::Inquire { .. }
                | Message::Voted { .. }
                | Message::Acknowledged { .. } => {
                    return None;
                }
            };
            Some((envelope.transaction, *request_hash, commit))
        }
        Event::OutcomeTold {
            transaction,
            request_hash,
            decision,
            ..
        } => Some((*transaction, *request_hash, decision.is_commit())),
        // "The id is another request's" says that this one will never commit.
        Event::MismatchTold {
            transaction,
            request_hash,
            ..
        } => Some((*transaction, *request_hash, false)),
        _ => None,
    }
}
