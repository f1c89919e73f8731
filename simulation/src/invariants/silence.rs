//! Who owes a leader its vote, for R6. A member is silent for a reason as long as the call or the answer is on its way or
//! has gone astray, the life that had the call is over, the resource manager is at work, or a record is on its way to the
//! disk. Without any of these it has the call and could have answered.

use std::collections::{BTreeMap, BTreeSet};

use unanimo_core::table::{Applied, Command};
use unanimo_core::{Generation, Record, RequestHash, TransactionId, Vote};

use super::{History, Verdict};
use crate::event::Event;
use crate::message::{Message, Why};
use crate::node::{Node, participant_place};

/// What is known of one participant. What it owes and does ends with its life; what it has promised does not.
#[derive(Debug, Default)]
struct Member {
    /// Calls to prepare that it has and has not answered, by who made them.
    owed: BTreeMap<(Node, TransactionId, RequestHash), u32>,
    at_work: BTreeSet<TransactionId>,
    /// Where the record stands that a branch waits for.
    recording: BTreeMap<TransactionId, u64>,
    /// Promises on the disk that it runs with.
    promised: BTreeSet<(TransactionId, RequestHash)>,
    /// As what it is registered from which entry of the log on.
    registered: BTreeMap<u64, Generation>,
}

#[derive(Debug, Default)]
pub(super) struct Silence {
    members: BTreeMap<u8, Member>,
    /// How far each coordinator has applied the log.
    applied: BTreeMap<Node, u64>,
}

impl Silence {
    /// Follows calls and answers. A member that refuses to say again what it has promised breaks the rule at once.
    pub(super) fn observe(&mut self, history: &History, event: &Event<'_>) -> Verdict {
        match event {
            Event::Delivered {
                from,
                to: Node::Participant(at),
                message:
                    Message::Prepare {
                        transaction,
                        request_hash,
                        ..
                    },
            } => {
                let owed = &mut self.member(*at).owed;
                *owed.entry((*from, *transaction, *request_hash)).or_default() += 1;
            }
            Event::Sent {
                from: Node::Participant(at),
                to,
                message,
            } => {
                return self.answers(history, *at, *to, message);
            }
            Event::WorkBegan { at, transaction, .. } => {
                self.member(*at).at_work.insert(*transaction);
            }
            Event::WorkDone { at, transaction, .. } => {
                self.member(*at).at_work.remove(transaction);
            }
            Event::Written {
                at,
                position,
                record:
                    Record::Prepared(transaction, _)
                    | Record::Committed { transaction, .. }
                    | Record::Aborted { transaction, .. },
                forced: true,
            } => {
                self.member(*at).recording.insert(*transaction, *position);
            }
            Event::Synced { at, upto } => {
                self.member(*at).recording.retain(|_, position| *position > *upto);
            }
            Event::Votes {
                at,
                transaction,
                request_hash,
                vote: Vote::Yes,
                sound: true,
            } => {
                self.member(*at).promised.insert((*transaction, *request_hash));
            }
            Event::Crashed {
                node: Node::Participant(at),
                ..
            } => self.member(*at).lives_again(),
            Event::DiskReplaced {
                node: Node::Participant(at),
                ..
            } => self.member(*at).promised.clear(),
            Event::Installed { node, index } => {
                self.applied.insert(*node, *index);
            }
            Event::Applied {
                node,
                index,
                entry,
                first,
                applied,
                ..
            } => {
                self.applied.insert(*node, *index);
                if let (
                    true,
                    Some(Command::Register {
                        participant,
                        registration,
                    }),
                    Some(Applied::Registered),
                ) = (first, &entry.command, applied)
                {
                    let at = participant_place(participant) as u8;
                    let generation = registration.witness.generation;
                    self.member(at).registered.insert(*index, generation);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn member(&mut self, at: u8) -> &mut Member {
        self.members.entry(at).or_default()
    }

    fn answers(&mut self, history: &History, at: u8, to: Node, message: &Message) -> Verdict {
        let (transaction, request_hash, refused) = match message {
            Message::Voted {
                transaction,
                request_hash,
                ..
            } => (*transaction, *request_hash, None),
            Message::Refused {
                transaction,
                request_hash,
                prepare: true,
                why,
            } => (*transaction, *request_hash, Some(*why)),
            _ => return Ok(()),
        };
        let member = self.member(at);
        let asked = (to, transaction, request_hash);
        if let Some(owed) = member.owed.get_mut(&asked) {
            *owed -= 1;
            if *owed == 0 {
                member.owed.remove(&asked);
            }
        }
        let promised = member.promised.contains(&(transaction, request_hash));
        let undecided = !history.decided.contains_key(&transaction) && !history.is_closed(transaction);
        match refused {
            // It does not serve yet.
            None | Some(Why::NoLeader) => Ok(()),
            Some(why) if promised && undecided => {
                Err(format!("p{} refuses what it has promised: {why}", at + 1))
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether it has a call of this leader, and nothing keeps it from answering.
    pub(super) fn owes(
        &self,
        at: u8,
        leader: Node,
        transaction: TransactionId,
        request_hash: RequestHash,
    ) -> bool {
        self.members.get(&at).is_some_and(|member| {
            member.owed.contains_key(&(leader, transaction, request_hash))
                && !member.at_work.contains(&transaction)
                && !member.recording.contains_key(&transaction)
        })
    }

    /// Whether a vote of this start counts at the leader, as far as it has applied the log (R11).
    pub(super) fn counts(&self, at: u8, leader: Node, generation: Generation) -> bool {
        let applied = self.applied.get(&leader).copied().unwrap_or_default();
        let registered = self.members.get(&at).and_then(|member| {
            let known = member.registered.range(..=applied).next_back();
            known.map(|(_, generation)| *generation)
        });
        registered.is_none_or(|registered| registered == generation)
    }
}

impl Member {
    fn lives_again(&mut self) {
        self.owed.clear();
        self.at_work.clear();
        self.recording.clear();
    }
}
