//! R5: "no record" is never an answer. Who asks hears Abort only of what the table holds.

use super::{History, Invariant};
use crate::world::{Event, Message, Told};

pub(super) struct PresumedAbort;

impl Invariant for PresumedAbort {
    fn name(&self) -> &'static str {
        "R5 presumed abort is recorded first"
    }

    fn observe(&mut self, history: &History, event: &Event) -> Result<(), String> {
        let Event::Sent(envelope) = event else {
            return Ok(());
        };
        let Message::Answered {
            told: Told::Aborted, ..
        } = &envelope.message
        else {
            return Ok(());
        };
        if history.decided.contains_key(&envelope.transaction) {
            Ok(())
        } else {
            Err("the inquiry is answered Abort without a record".to_owned())
        }
    }
}
