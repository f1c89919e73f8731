//! R5: "no record" is never an answer. Who asks hears Abort only of what the table holds, or has closed.

use unanimo_core::TransactionId;

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::message::{InquiryAnswer, Message, Told};
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct PresumedAbort;

impl Invariant for PresumedAbort {
    const NAME: &'static str = "R5 presumed abort is recorded first";

    fn observe(&mut self, history: &History, event: &Event<'_>, _: Time) -> Verdict {
        let Event::Sent { message, .. } = event else {
            return Ok(());
        };
        let recorded = |transaction: &TransactionId| {
            if history.decided.contains_key(transaction) || history.is_closed(*transaction) {
                Ok(())
            } else {
                Err("an Abort is told and not recorded".to_owned())
            }
        };
        match message {
            Message::Inquired { answers, .. } => {
                answers
                    .iter()
                    .try_for_each(|(transaction, _, answer)| match answer {
                        InquiryAnswer::Decided(_) => recorded(transaction),
                        InquiryAnswer::Undecided | InquiryAnswer::Refused(_) => Ok(()),
                    })
            }
            Message::Told {
                told: Told::Decided { transaction, .. },
                ..
            } => recorded(transaction),
            _ => Ok(()),
        }
    }
}
