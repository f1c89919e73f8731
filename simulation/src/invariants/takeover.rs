//! R6: a leader's death aborts nothing that was fully prepared. Every abort has a cause of its own: a member's No, the
//! initiator's wish, or a deadline that passed in the run that decided so: it has lasted its time, it has asked whom it
//! misses until the end, and has not heard them for a reason. A member that has the call and does not answer although
//! nothing keeps it from that is no cause, and neither is an answer that arrived and was not listened to.

use std::collections::{BTreeMap, BTreeSet};

use unanimo_core::table::{Applied, Command};
use unanimo_core::{AbortReason, Decision, Members, RequestHash, TransactionId, TransactionPhase, Vote};

use super::silence::Silence;
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
    /// Whether it waits for votes now.
    collects: bool,
    /// When each was asked last. Who has to vote again is asked again.
    asked: BTreeMap<u8, Time>,
    heard: BTreeSet<u8>,
    /// Whose vote arrived and should have been heard.
    unheard: BTreeSet<u8>,
}

/// A run whose deadline passed, as it was then.
#[derive(Clone, Debug)]
struct Late {
    request_hash: RequestHash,
    has_lasted: bool,
    /// Who was silent with a reason: it was asked until the end.
    excused: BTreeSet<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Takeover {
    said_no: BTreeSet<(u8, TransactionId, RequestHash)>,
    runs: BTreeMap<(Node, TransactionId), Run>,
    late: BTreeMap<(Node, TransactionId), Vec<Late>>,
    asked: BTreeSet<TransactionId>,
    silence: Silence,
}

impl Invariant for Takeover {
    const NAME: &'static str = "R6 takeover adopts";

    fn observe(&mut self, history: &History, event: &Event<'_>, now: Time) -> Verdict {
        self.silence.observe(history, event)?;
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
                to,
            } => match to {
                TransactionPhase::Preparing { .. } => {
                    self.collects((*node, *transaction), *request_hash, from.is_none(), now);
                }
                _ => {
                    if let Some(run) = self.runs.get_mut(&(*node, *transaction)) {
                        run.collects = false;
                    }
                }
            },
            Event::Sent {
                from,
                to: Node::Participant(at),
                message: Message::Prepare { transaction, .. },
            } => {
                if let Some(run) = self.runs.get_mut(&(*from, *transaction)) {
                    run.asked.insert(*at, now);
                }
            }
            Event::Delivered {
                from: Node::Participant(at),
                to,
                message:
                    Message::Voted {
                        transaction,
                        request_hash,
                        witness,
                        ..
                    },
            } => {
                let counts = witness.is_none_or(|witness| self.silence.counts(*at, *to, witness.generation));
                if let Some(run) = self.runs.get_mut(&(*to, *transaction))
                    && run.collects
                    && run.request_hash == *request_hash
                    && counts
                {
                    run.unheard.insert(*at);
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
                attempt,
            } => {
                let place = (*node, *transaction);
                if let Some(run) = self.runs.get(&place) {
                    let late = Late {
                        request_hash: run.request_hash,
                        has_lasted: now >= run.since + voting,
                        excused: run.excused(place, now, *attempt, &self.silence),
                    };
                    self.late.entry(place).or_default().push(late);
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
                        let ours = |late: &&Late| late.request_hash == record.request_hash;
                        late.filter(ours).any(|late| late.misses(missing))
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
        let since = match self.runs.get(&place) {
            Some(run) if !is_new => run.since,
            _ => now,
        };
        let run = Run {
            request_hash,
            since,
            collects: true,
            asked: BTreeMap::new(),
            heard: BTreeSet::new(),
            unheard: BTreeSet::new(),
        };
        self.runs.insert(place, run);
    }
}

impl Run {
    /// Whom it has asked, the last time not longer ago than it waits before it asks again, and who had a reason not to be
    /// heard.
    fn excused(
        &self,
        (node, id): (Node, TransactionId),
        now: Time,
        attempt: Time,
        silence: &Silence,
    ) -> BTreeSet<u8> {
        let excused = |(at, last): (&u8, &Time)| {
            let asked_again = now <= last + attempt;
            let answered = self.heard.contains(at) || self.unheard.contains(at);
            let silent = !answered && !silence.owes(*at, node, id, self.request_hash);
            (asked_again && silent).then_some(*at)
        };
        self.asked.iter().filter_map(excused).collect()
    }
}

impl Late {
    /// Whether it had its time and all of these had a reason not to be heard.
    fn misses(&self, missing: &Members) -> bool {
        let excused = |member| self.excused.contains(&(participant_place(member) as u8));
        self.has_lasted && !missing.is_empty() && missing.iter().all(excused)
    }
}
