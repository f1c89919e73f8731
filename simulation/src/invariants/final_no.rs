//! R4: a No is final for whoever has heard it, whatever the same member said before.

use std::collections::BTreeSet;

use unanimo_core::{Decision, RequestHash, TransactionId, TransactionPhase, Vote};

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::node::Node;
use crate::schedule::Time;

#[derive(Debug, Default)]
pub(super) struct FinalNo {
    /// The runs that have heard a No.
    heard: BTreeSet<(Node, TransactionId, RequestHash)>,
}

impl Invariant for FinalNo {
    const NAME: &'static str = "R4 a No is final";

    fn observe(&mut self, _: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::VoteReached {
                node,
                transaction,
                request_hash,
                vote: Vote::No { .. },
                ..
            } => {
                self.heard.insert((*node, *transaction, *request_hash));
                Ok(())
            }
            Event::TransactionMoved {
                node,
                transaction,
                request_hash,
                from,
                to,
            } => {
                let run = (*node, *transaction, *request_hash);
                let commits = matches!(
                    to,
                    TransactionPhase::Deciding {
                        proposed: Decision::Commit,
                        ..
                    }
                );
                if from.is_none() {
                    self.heard.remove(&run);
                }
                if commits && self.heard.contains(&run) {
                    return Err("a member has voted No, and a Commit is proposed".to_owned());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
