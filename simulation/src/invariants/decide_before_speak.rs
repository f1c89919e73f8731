//! R2: nobody hears an outcome, in any message or reply, before the table holds it on a quorum's disks, and everybody
//! hears the same.

use unanimo_core::{RequestHash, TransactionId};

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::message::{InquiryAnswer, Message, Told};
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct DecideBeforeSpeak;

impl Invariant for DecideBeforeSpeak {
    const NAME: &'static str = "R2 decide before you speak";

    fn observe(&mut self, history: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::Sent { message, .. } => sent(history, message),
            // An answer goes to the life that has asked. If that runs from an old copy, it may have asked about what it
            // has acknowledged and does not remember, and is refused all the same.
            Event::Delivered {
                to,
                message: Message::Inquired { answers, .. },
                ..
            } if !history.runs_from_a_copy(*to) => answered(history, answers),
            _ => Ok(()),
        }
    }
}

fn sent(history: &History, message: &Message) -> Verdict {
    match message {
        Message::Deliver {
            transaction,
            request_hash,
            commit,
            ..
        } => told(history, *transaction, *request_hash, *commit),
        Message::Told {
            told: Told::Decided {
                transaction,
                decision,
            },
            ..
        } => match history.decided.get(transaction) {
            None => Err("the table holds nothing yet".to_owned()),
            Some(decided) if decided.record.decision.is_commit() != decision.is_commit() => {
                Err("the table holds the opposite".to_owned())
            }
            Some(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

fn answered(history: &History, answers: &[(TransactionId, RequestHash, InquiryAnswer)]) -> Verdict {
    for (transaction, request_hash, answer) in answers {
        let InquiryAnswer::Decided(decision) = answer else {
            continue;
        };
        // What is closed and has no record was aborted, or nothing ever came of it, as far as whoever asks while
        // it has not acknowledged anything; a question that comes late is answered for nobody (R7). That a promise is
        // not released by that is for R3 to say.
        let forgotten = !history.decided.contains_key(transaction) || history.forgotten.contains(transaction);
        if forgotten && !decision.is_commit() && history.is_closed(*transaction) {
            continue;
        }
        told(history, *transaction, *request_hash, decision.is_commit())?;
    }
    Ok(())
}

fn told(history: &History, transaction: TransactionId, hash: RequestHash, commit: bool) -> Verdict {
    match history.commits(transaction, hash) {
        Some(decided) if decided == commit => Ok(()),
        Some(_) => Err("the table holds the opposite".to_owned()),
        None => Err("the table holds nothing yet".to_owned()),
    }
}
