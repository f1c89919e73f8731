//! R6: a leader's death aborts nothing that was fully prepared. Every abort has a cause of its own: a member's No, the
//! initiator's wish, or a deadline that passed in the run that decided so: it has lasted its time, it has asked whom it
//! misses, and has not heard them.

use std::collections::{BTreeMap, BTreeSet};

use unanimo_core::table::{Applied, Command};
use unanimo_core::{AbortReason, Decision, Members, RequestHash, TransactionId, TransactionPhase, Vote};

use super::{History, Invariant, Verdict};
use crate::event::Event;
use crate::message::Message;
use crate::node::{Node, participant_place};
use crate::schedule::Time;

/// A run that collects votes, as far as this matters here.
#[derive(Clone, Debug)]
struct Run {
    request_hash: RequestHash,
    since: Time,
    asked: BTreeSet<u8>,
    heard: BTreeSet<u8>,
    /// Members had to vote again, so what was heard before may not count.
    votes_again: bool,
    has_lasted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Takeover {
    said_no: BTreeSet<(u8, TransactionId, RequestHash)>,
    runs: BTreeMap<(Node, TransactionId), Run>,
    /// The runs whose deadline passed, as they were then.
    late: BTreeMap<(Node, TransactionId), Vec<Run>>,
    asked: BTreeSet<TransactionId>,
}

impl Invariant for Takeover {
    const NAME: &'static str = "R6 takeover adopts";

    fn observe(&mut self, _: &History, event: &Event<'_>, now: Time) -> Verdict {
        match event {
            Event::Votes {
                at,
                transaction,
                request_hash,
                vote: Vote::No { .. },
                ..
            } => {
                self.said_no.insert((*at, *transaction, *request_hash));
            }
            Event::TransactionMoved {
                node,
                transaction,
                request_hash,
                from,
                to: TransactionPhase::Preparing { .. },
            } => self.collects((*node, *transaction), *request_hash, from.is_none(), now),
            Event::Sent {
                from,
                to: Node::Participant(at),
                message: Message::Prepare { transaction, .. },
            } => {
                if let Some(run) = self.runs.get_mut(&(*from, *transaction)) {
                    run.asked.insert(*at);
                }
            }
            Event::VoteReached {
                node,
                at,
                transaction,
                ..
            } => {
                if let Some(run) = self.runs.get_mut(&(*node, *transaction)) {
                    run.heard.insert(*at);
                }
            }
            Event::DeadlineFired {
                node,
                transaction,
                voting,
            } => {
                let place = (*node, *transaction);
                if let Some(mut run) = self.runs.get(&place).cloned() {
                    run.has_lasted = now >= run.since + voting;
                    self.late.entry(place).or_default().push(run);
                }
            }
            Event::AbortAsked { transaction, .. } => {
                self.asked.insert(*transaction);
            }
            Event::Applied {
                entry,
                first: true,
                applied: Some(Applied::Decided(record)),
                before: None,
                ..
            } => {
                let Some(Command::Decide(proposal)) = &entry.command else {
                    return Ok(());
                };
                let id = proposal.transaction;
                let caused = match &record.decision {
                    Decision::Commit => true,
                    Decision::Abort(AbortReason::VotedNo { participant, .. }) => {
                        let at = participant_place(participant) as u8;
                        self.said_no.contains(&(at, id, record.request_hash))
                    }
                    Decision::Abort(AbortReason::DeadlinePassed { missing }) => {
                        let place = (Node::Coordinator(entry.by), id);
                        let late = self.late.get(&place).into_iter().flatten();
                        let ours = |run: &&Run| run.request_hash == record.request_hash;
                        late.filter(ours).any(|run| run.misses(missing))
                    }
                    Decision::Abort(AbortReason::Requested) => self.asked.contains(&id),
                    Decision::Abort(AbortReason::Presumed) => false,
                };
                if !caused {
                    return Err(format!("nothing that happened explains {}", record.decision));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Takeover {
    fn collects(&mut self, place: (Node, TransactionId), request_hash: RequestHash, is_new: bool, now: Time) {
        if is_new {
            let run = Run {
                request_hash,
                since: now,
                asked: BTreeSet::new(),
                heard: BTreeSet::new(),
                votes_again: false,
                has_lasted: false,
            };
            self.runs.insert(place, run);
        } else if let Some(run) = self.runs.get_mut(&place) {
            run.votes_again = true;
        }
    }
}

impl Run {
    /// Whether it had its time and these have not voted in it although it has asked them.
    fn misses(&self, missing: &Members) -> bool {
        let misses = |member| {
            let at = participant_place(member) as u8;
            self.asked.contains(&at) && (self.votes_again || !self.heard.contains(&at))
        };
        self.has_lasted && !missing.is_empty() && missing.iter().all(misses)
    }
}
