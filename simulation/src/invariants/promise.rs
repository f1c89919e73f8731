//! R3: a Yes has a Prepared record on disk beneath it that names all members, its hold is there before any traffic, and
//! only the decision releases it.

use unanimo_core::{BranchPhase, Vote};

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::node::Node;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct Promise;

impl Invariant for Promise {
    const NAME: &'static str = "R3 a Yes is a promise";

    fn observe(&mut self, history: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::Votes {
                vote: Vote::Yes,
                sound: false,
                ..
            } => Err("no promise that names all members is on disk".to_owned()),
            Event::Serving {
                without_hold: Some(_),
                ..
            } => Err("a promise has lost its hold".to_owned()),
            Event::BranchMoved { at, .. } if history.runs_from_a_copy(Node::Participant(*at)) => Ok(()),
            Event::BranchMoved {
                transaction,
                from: BranchPhase::Prepared(prepared),
                to,
                ..
            } => {
                let commits = history.commits(*transaction, prepared.request_hash);
                match to {
                    BranchPhase::Prepared(_) => Ok(()),
                    BranchPhase::Committing(_) if commits == Some(true) => Ok(()),
                    BranchPhase::Aborting { .. } if commits == Some(false) => Ok(()),
                    BranchPhase::Aborting { .. } if commits.is_none() && history.is_closed(*transaction) => {
                        Ok(())
                    }
                    _ => Err("no such decision releases it".to_owned()),
                }
            }
            _ => Ok(()),
        }
    }
}
