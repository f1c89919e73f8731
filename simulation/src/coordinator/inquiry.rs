//! Branches in doubt ask. What nobody is running and has no record is taken over: asked again, and decided in the table
//! before anybody is told (R5, R6).

use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::View as _;
use unanimo_core::{AbortReason, Decision, RequestHash, Transaction, TransactionId};

use super::Continuation;
use crate::counters::Sometimes;
use crate::event::Event;
use crate::message::{InquiryAnswer, Message, Question, Why};
use crate::node::Node;
use crate::world::World;

type Answered = (TransactionId, RequestHash, InquiryAnswer);

impl World {
    pub(crate) fn inquired(&mut self, place: usize, from: Node, asker: (u32, u64), questions: Vec<Question>) {
        let (mut answers, mut open): (Vec<Answered>, Vec<Question>) = (Vec::new(), Vec::new());
        let leads = self.coordinators[place].ready.is_some();
        for question in questions {
            match self.known_decision(place, &question) {
                Some(decision) => {
                    if !leads {
                        self.watch.sometimes(Sometimes::InquiryAnsweredByAFollower);
                    }
                    let answer = InquiryAnswer::Decided(decision);
                    answers.push((question.transaction, question.request_hash, answer));
                }
                None => open.push(question),
            }
        }
        let then = |answers, open| Continuation::Inquired {
            from,
            asker,
            answers,
            open,
        };
        if open.is_empty() {
            let me = Node::Coordinator(place as u8);
            let (life, call) = asker;
            return self.reply(me, from, life, Message::Inquired { call, answers });
        }
        if !leads {
            return self.give_up(place, then(answers, open));
        }
        let runs = &self.coordinators[place].runs;
        if open
            .iter()
            .all(|question| runs.contains_key(&question.transaction))
        {
            return self.inquired_after_barrier(place, from, asker, answers, open);
        }
        // An old leader must not take over what a newer one has decided or is running.
        self.barrier(place, then(answers, open));
    }

    /// The decision for a branch in doubt, if this node has applied one.
    fn known_decision(&mut self, place: usize, question: &Question) -> Option<Decision> {
        let table = &self.coordinators[place].replica.table;
        if let Some(record) = table.records().get(&question.transaction) {
            return Some(record.decision_for(question.request_hash));
        }
        // A commit is kept until every member has acknowledged it, and the one that asks has not (R7).
        let Ok(horizon) = table.horizon();
        let closed = horizon.has_closed(question.transaction);
        if closed {
            self.watch.sometimes(Sometimes::ClosedWithoutARecordMeantAbort);
        }
        closed.then_some(Decision::Abort(AbortReason::Presumed))
    }

    pub(crate) fn inquired_after_barrier(
        &mut self,
        place: usize,
        from: Node,
        asker: (u32, u64),
        mut answers: Vec<Answered>,
        open: Vec<Question>,
    ) {
        for question in open {
            let (id, hash) = (question.transaction, question.request_hash);
            let answer = self.answer_or_adopt(place, question);
            if !self.coordinators[place].is_up {
                return;
            }
            answers.push((id, hash, answer));
        }
        let me = Node::Coordinator(place as u8);
        let (life, call) = asker;
        self.reply(me, from, life, Message::Inquired { call, answers });
    }

    fn answer_or_adopt(&mut self, place: usize, question: Question) -> InquiryAnswer {
        if let Some(decision) = self.known_decision(place, &question) {
            return InquiryAnswer::Decided(decision);
        }
        let Some(term) = self.coordinators[place].ready else {
            return InquiryAnswer::Refused(Why::NoLeader);
        };
        let runs = self.coordinators[place].runs.contains_key(&question.transaction);
        let presumed = InquiryAnswer::Decided(Decision::Abort(AbortReason::Presumed));
        if runs {
            return if mutants::is_on(Mutant::M5) {
                presumed
            } else {
                InquiryAnswer::Undecided
            };
        }
        if mutants::is_on(Mutant::M4) {
            return presumed;
        }
        if let Err(why) = self.check_age(place, question.transaction) {
            return InquiryAnswer::Refused(why);
        }
        if !self.are_registered(place, &question.members) {
            return InquiryAnswer::Refused(Why::UnknownParticipant);
        }
        self.adopt(place, term, question);
        InquiryAnswer::Undecided
    }

    /// Takes over an undecided transaction. Overload is no harm: the participant asks again.
    fn adopt(&mut self, place: usize, term: u64, question: Question) {
        let Question {
            transaction,
            request_hash,
            members,
        } = question;
        if members.is_empty() {
            return;
        }
        let limit = self.knobs.in_flight;
        let node = &mut self.coordinators[place];
        if node.in_flight >= limit {
            return;
        }
        node.in_flight += 1;
        let same_leader = self.watch.history.ran_in.get(&transaction) == Some(&term);
        self.watch.sometimes(if same_leader {
            Sometimes::AdoptedByTheLeaderThatDroppedIt
        } else {
            Sometimes::AdoptedByANewLeader
        });
        let adopted = Event::Adopted {
            node: Node::Coordinator(place as u8),
            transaction,
            request_hash,
        };
        self.watch.happened(&adopted);
        let voting = std::time::Duration::from_millis(self.knobs.voting_ms);
        let deadline = self.coordinators[place].clock.wall(self.now).after(voting);
        let (state, effects) = Transaction::adopted(transaction, request_hash, members, deadline);
        self.start_voting(place, term, state, None, effects);
    }
}
