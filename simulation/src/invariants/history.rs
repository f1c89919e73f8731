use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use unanimo_core::table::{Applied, Command, DecisionRecord};
use unanimo_core::{Members, Record, RequestHash, TransactionId, Vote};

use crate::event::Event;
use crate::message::Message;
use crate::node::Node;
use crate::schedule::Time;

/// The first decision that was recorded for a transaction.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(crate) record: DecisionRecord,
    pub(crate) at: Time,
    /// The term of the leader that proposed it.
    pub(crate) term: u64,
}

/// The facts that several invariants need.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) decided: BTreeMap<TransactionId, Decided>,
    /// Whoever has said Yes, in any of its lives.
    pub(crate) said_yes: BTreeSet<(u8, TransactionId, RequestHash)>,
    /// Which commits have reached whose disk, and where they stand in its journal.
    pub(crate) committed: BTreeMap<(u8, TransactionId), u64>,
    /// The same, also of disks that are not in use: somebody may put them back.
    pub(crate) ever_committed: BTreeSet<(u8, TransactionId)>,
    /// What the table has dropped.
    pub(crate) forgotten: BTreeSet<TransactionId>,
    /// The highest watermark that was recorded.
    pub(crate) watermark: Option<TransactionId>,
    /// Up to where the log was known to be committed in each term, and the term of the last entry up to there.
    pub(crate) committed_entries: BTreeMap<u64, (u64, u64)>,
    /// Participants that run from an old copy of their data, and the cluster has yet to find that out. What they do
    /// until then is nobody's fault, and goes no further: they are not registered, and refused (R11).
    copies: BTreeSet<Node>,
    /// Who takes part in each request, as the coordinators say when they ask to prepare it.
    pub(crate) members: BTreeMap<(TransactionId, RequestHash), Rc<Members>>,
    /// In which term each transaction was last run with a voting phase.
    pub(crate) ran_in: BTreeMap<TransactionId, u64>,
    /// What the requests want of whom.
    pub(crate) wanted: BTreeMap<(TransactionId, RequestHash), BTreeMap<u8, i64>>,
}

impl History {
    pub(super) fn new_entry(event: &Event<'_>) -> bool {
        matches!(event, Event::Applied { first: true, .. })
    }

    pub(crate) fn add(&mut self, event: &Event<'_>, now: Time) {
        match event {
            Event::Applied {
                entry,
                applied: Some(applied),
                ..
            } if Self::new_entry(event) => match (&entry.command, applied) {
                (Some(Command::Decide(proposal)), Applied::Decided(record)) => {
                    let decided = || Decided {
                        record: record.clone(),
                        at: now,
                        term: entry.term,
                    };
                    self.decided.entry(proposal.transaction).or_insert_with(decided);
                }
                (Some(Command::Advance(horizon)), Applied::Advanced) => {
                    self.watermark = self.watermark.max(Some(horizon.watermark));
                }
                _ => {}
            },
            Event::Sent {
                message:
                    Message::Prepare {
                        transaction,
                        members,
                        request_hash,
                        ..
                    },
                ..
            } => {
                let asked = (*transaction, *request_hash);
                self.members.entry(asked).or_insert_with(|| Rc::clone(members));
            }
            Event::Forgotten { transaction, .. } => {
                self.forgotten.insert(*transaction);
            }
            Event::Votes {
                at,
                transaction,
                request_hash,
                vote: Vote::Yes,
                ..
            } => {
                self.said_yes.insert((*at, *transaction, *request_hash));
            }
            Event::OnDisk {
                at,
                position,
                record: Record::Committed { transaction, .. },
            } => {
                self.committed.insert((*at, *transaction), *position);
                self.ever_committed.insert((*at, *transaction));
            }
            Event::Registered { at, .. } => {
                self.copies.remove(&Node::Participant(*at));
            }
            Event::DiskReplaced {
                node: node @ Node::Participant(replaced),
                end,
                old,
            } => {
                if *old {
                    self.copies.insert(*node);
                } else {
                    self.copies.remove(node);
                }
                self.committed
                    .retain(|(at, _), position| at != replaced || *position <= *end);
            }
            _ => {}
        }
    }

    /// Whether the table holds a decision for this request, and whether it is Commit.
    pub(crate) fn commits(&self, transaction: TransactionId, request_hash: RequestHash) -> Option<bool> {
        let decided = self.decided.get(&transaction)?;
        Some(decided.record.decision_for(request_hash).is_commit())
    }

    /// Whether it runs from an old copy of its data that nobody has found out.
    pub(crate) fn runs_from_a_copy(&self, node: Node) -> bool {
        self.copies.contains(&node)
    }

    /// Whether nothing is decided under this id any more.
    pub(crate) fn is_closed(&self, transaction: TransactionId) -> bool {
        self.watermark.is_some_and(|watermark| transaction < watermark)
    }
}
