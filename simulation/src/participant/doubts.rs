//! Branches in doubt ask, less and less often, until they are told (R3, R5).

use std::collections::BTreeMap;

use unanimo_core::{BranchInput, RequestHash, Timestamp, TransactionId};

use super::Presence;
use crate::message::{InquiryAnswer, Message, Question};
use crate::node::Node;
use crate::schedule::{MS, Time};
use crate::world::{Timer, World};

/// The pause after the first round that brought no decision.
const FIRST_PAUSE: Time = 50 * MS;
/// How long the answer to one call is waited for.
const PATIENCE: Time = 1_000 * MS;
/// The longest pause of a branch whose inquiry was refused.
const REFUSED_PAUSE_MAX: Time = 5_000 * MS;

/// The branches in doubt, and when each is to be asked about.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    due: BTreeMap<TransactionId, (Time, u32)>,
    questions: Vec<Question>,
    /// Rounds in a row that brought nothing.
    rounds: u32,
    is_timed: bool,
    /// The call that is under way, and until when its answer is waited for.
    call: Option<(u64, Time)>,
}

impl Doubts {
    /// Whether the answer to this call is waited for. It comes once.
    pub(super) fn hears(&mut self, call: u64, now: Time) -> bool {
        self.call
            .take_if(|(asked, until)| *asked == call && now <= *until)
            .is_some()
    }

    pub(super) fn resolved(&mut self, transaction: TransactionId) {
        self.due.remove(&transaction);
        self.rounds = 0;
    }
}

impl World {
    pub(super) fn doubt_arrives(&mut self, place: usize, transaction: TransactionId, _since: Timestamp) {
        let due = self.now + self.knobs.inquiry_after_ms * MS;
        self.doubt(place, transaction, due);
    }

    pub(super) fn doubt(&mut self, place: usize, transaction: TransactionId, due: Time) {
        self.participants[place].doubts.due.insert(transaction, (due, 0));
        self.ask_in_time(place, 0);
    }

    /// Wakes up when the next branch is due, and not before `pause` has passed.
    fn ask_in_time(&mut self, place: usize, pause: Time) {
        let doubts = &mut self.participants[place].doubts;
        let Some(due) = doubts.due.values().map(|(due, _)| *due).min() else {
            return;
        };
        if std::mem::replace(&mut doubts.is_timed, true) {
            return;
        }
        let wait = due.saturating_sub(self.now).max(pause).max(1);
        self.wait(Node::Participant(place as u8), wait, Timer::Inquire);
    }

    /// Asks about every branch that is due.
    pub(super) fn inquire(&mut self, place: usize) {
        let now = self.now;
        let longest = self.knobs.inquiry_pause_ms * MS;
        let doubts = &mut self.participants[place].doubts;
        doubts.is_timed = false;
        if self.participants[place].presence != Presence::Serving {
            return self.ask_in_time(place, FIRST_PAUSE);
        }
        let doubts = &mut self.participants[place].doubts;
        let pause = (FIRST_PAUSE << doubts.rounds.min(10)).min(longest);
        let due: Vec<TransactionId> = doubts
            .due
            .iter_mut()
            .filter(|(_, (due, _))| *due <= now)
            .map(|(id, (due, _))| {
                *due = now + pause;
                *id
            })
            .collect();
        if !due.is_empty() {
            doubts.rounds += 1;
        }
        let life = self.participants[place].life;
        let me = Node::Participant(place as u8);
        for id in due {
            self.step_branch(place, id, BranchInput::TimerFired, None);
            if !self.lives(me, life) {
                return;
            }
        }
        let node = &mut self.participants[place];
        let questions = std::mem::take(&mut node.doubts.questions);
        if !questions.is_empty() {
            // Whoever does not answer is not asked again at once.
            let to = node.preferred % self.coordinators.len() as u8;
            node.preferred = (to + 1) % self.coordinators.len() as u8;
            self.calls += 1;
            let call = self.calls;
            self.participants[place].doubts.call = Some((call, now + PATIENCE));
            self.send(me, Node::Coordinator(to), Message::Inquire { call, questions });
        }
        self.ask_in_time(place, FIRST_PAUSE);
    }

    /// A branch asks.
    pub(super) fn question(&mut self, place: usize, id: TransactionId) {
        let node = &mut self.participants[place];
        let Some(promise) = node.branches.get(&id).and_then(|entry| entry.branch.in_doubt()) else {
            return;
        };
        let question = Question {
            transaction: id,
            request_hash: promise.request_hash,
            members: promise.members.clone(),
        };
        node.doubts.questions.push(question);
    }

    pub(super) fn heard_answer(
        &mut self,
        place: usize,
        id: TransactionId,
        request_hash: RequestHash,
        answer: InquiryAnswer,
    ) {
        let now = self.now;
        let first = self.knobs.inquiry_after_ms * MS;
        match answer {
            InquiryAnswer::Undecided => {}
            InquiryAnswer::Refused(_) => {
                if let Some((due, refusals)) = self.participants[place].doubts.due.get_mut(&id) {
                    let pause = first << (*refusals).min(10);
                    *refusals += 1;
                    *due = now + pause.clamp(FIRST_PAUSE, REFUSED_PAUSE_MAX);
                }
            }
            InquiryAnswer::Decided(decision) => {
                let input = BranchInput::Answered {
                    request_hash,
                    decision,
                };
                self.step_branch(place, id, input, None);
            }
        }
    }
}
