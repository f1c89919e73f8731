//! R13: what an initiator concludes is true, and "undecided" was true after it began to ask.

use super::{History, Invariant, Verdict};
use crate::event::{Conclusion, Event};
use crate::message::Why;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Definite;

impl Invariant for Definite {
    const NAME: &'static str = "R13 definite answers";

    fn observe(&mut self, history: &History, event: &Event<'_>, _: Time) -> Verdict {
        let Event::Concluded {
            since,
            transaction,
            request_hash,
            conclusion,
            ..
        } = event
        else {
            return Ok(());
        };
        let decided = history.decided.get(transaction);
        let commits = decided.map(|decided| match request_hash {
            Some(hash) => decided.record.decision_for(*hash).is_commit(),
            None => decided.record.decision.is_commit(),
        });
        match (conclusion, commits) {
            (Conclusion::Committed, Some(true)) | (Conclusion::Aborted, Some(false)) => Ok(()),
            (Conclusion::Committed | Conclusion::Aborted, None) => Err("nothing is decided".to_owned()),
            (Conclusion::Committed | Conclusion::Aborted, Some(_)) => {
                Err("the opposite is decided".to_owned())
            }
            (Conclusion::Refused(Why::Mismatch), Some(true)) => {
                Err("its own request is committed".to_owned())
            }
            (Conclusion::Undecided, Some(_)) if decided.is_some_and(|decided| decided.at < *since) => {
                Err("it was decided before anybody asked".to_owned())
            }
            (
                Conclusion::Refused(_) | Conclusion::Undecided | Conclusion::Expired | Conclusion::Unknown,
                _,
            ) => Ok(()),
        }
    }
}
