//! R9: the same message twice has the effect and the answer of once.

use std::collections::BTreeMap;

use unanimo_core::{RequestHash, TransactionId, Vote};

use super::{History, Invariant, Verdict};
use crate::event::{Effort, Event};
use crate::node::Node;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct ExactlyOnce {
    /// The last vote of each branch.
    votes: BTreeMap<(u8, TransactionId, RequestHash), Vote>,
}

impl Invariant for ExactlyOnce {
    const NAME: &'static str = "R9 once";

    fn observe(&mut self, history: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::WorkDone {
                what: Effort::Commit,
                repeated: true,
                changed: true,
                ..
            } => Err("the effect happened twice".to_owned()),
            Event::AcknowledgesCommit { sound: false, .. } => Err("the commit is not on disk".to_owned()),
            Event::Votes {
                at,
                transaction,
                request_hash,
                vote,
                ..
            } => self.voted(history, (*at, *transaction, *request_hash), vote),
            // What it promised may be missing there.
            Event::DiskReplaced {
                node: Node::Participant(replaced),
                ..
            } => {
                self.votes.retain(|(at, ..), _| at != replaced);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl ExactlyOnce {
    fn voted(&mut self, history: &History, asked: (u8, TransactionId, RequestHash), vote: &Vote) -> Verdict {
        let decided_abort = history.commits(asked.1, asked.2) == Some(false) || history.is_closed(asked.1);
        match (self.votes.insert(asked, vote.clone()), vote) {
            (Some(Vote::Yes), Vote::No { .. } | Vote::ReadOnly) if !decided_abort => {
                Err("it has said Yes before, and no Abort is decided".to_owned())
            }
            _ => Ok(()),
        }
    }
}
