//! R13: what an initiator concludes is true, and "undecided" was true after it began to ask. What is refused for certain
//! was started by nobody, and what is expired is closed.

use std::collections::{BTreeMap, BTreeSet};

use unanimo_core::table::Command;
use unanimo_core::{IdempotencyKey, RequestHash, TransactionId};

use super::{History, Invariant, Verdict};
use crate::event::{Conclusion, Event};
use crate::message::{Ask, Message, Told, Why};
use crate::node::Node;
use crate::schedule::Time;

/// What an initiator knows of what it has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It may yet be started, or may have been.
    Open,
    /// Once it did not know, or one of its calls came twice, and only one of the two was answered.
    Uncertain,
    /// It was told for certain that it has started nothing.
    Refused,
}

/// An initiator that has asked for a request to be run.
#[derive(Clone, Debug)]
struct Asker {
    transaction: TransactionId,
    request_hash: RequestHash,
    key: Option<IdempotencyKey>,
    standing: Standing,
    /// Whether its transaction was closed for the node that refused it.
    was_closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Definite {
    askers: BTreeMap<Node, Asker>,
    /// What each coordinator has closed, as far as it has applied in this life.
    closed: BTreeMap<Node, TransactionId>,
    /// The calls that have arrived.
    arrived: BTreeSet<u64>,
}

impl Invariant for Definite {
    const NAME: &'static str = "R13 definite answers";

    fn observe(&mut self, history: &History, event: &Event<'_>, _: Time) -> Verdict {
        match event {
            Event::Sent {
                from,
                message: Message::Call { ask, .. },
                ..
            } => {
                self.asked(*from, ask);
                Ok(())
            }
            Event::Sent {
                from,
                to,
                message:
                    Message::Told {
                        told: Told::Refused(Why::Mismatch),
                        ..
                    },
            } => {
                if let Some(asker) = self.askers.get_mut(to) {
                    asker.was_closed = Some(&asker.transaction) < self.closed.get(from);
                }
                Ok(())
            }
            Event::Crashed { node, .. } => {
                self.closed.remove(node);
                Ok(())
            }
            Event::Delivered {
                from,
                message: Message::Call { call, .. },
                ..
            } => {
                if !self.arrived.insert(*call) {
                    self.is_uncertain(*from);
                }
                Ok(())
            }
            Event::Applied {
                node,
                entry,
                first,
                before,
                ..
            } => match &entry.command {
                Some(Command::Decide(proposal)) if *first && before.is_none() => {
                    self.somebody_started(history, proposal.transaction)
                }
                Some(Command::Advance(horizon)) => {
                    self.closed.insert(*node, horizon.watermark);
                    Ok(())
                }
                _ => Ok(()),
            },
            Event::Concluded {
                initiator,
                since,
                transaction,
                request_hash,
                conclusion,
                ..
            } => {
                self.is_true(
                    history,
                    *initiator,
                    *since,
                    (*transaction, *request_hash),
                    conclusion,
                )?;
                self.concluded(history, *initiator, conclusion)
            }
            _ => Ok(()),
        }
    }
}

impl Definite {
    fn asked(&mut self, initiator: Node, ask: &Ask) {
        let (transaction, request_hash, key) = match ask {
            Ask::Submit {
                transaction,
                request,
                key,
            } => (*transaction, request.hash(), key.clone()),
            Ask::Commit { transaction, members } => (*transaction, RequestHash::of_members(members), None),
            Ask::Begin | Ask::Abort { .. } | Ask::Outcome { .. } => return,
        };
        self.askers.entry(initiator).or_insert(Asker {
            transaction,
            request_hash,
            key,
            standing: Standing::Open,
            was_closed: false,
        });
    }

    fn is_uncertain(&mut self, initiator: Node) {
        if let Some(asker) = self.askers.get_mut(&initiator) {
            asker.standing = Standing::Uncertain;
        }
    }

    /// Those with this request under this id, or under a key that may stand for it.
    fn askers_of(
        &self,
        transaction: TransactionId,
        request_hash: RequestHash,
    ) -> impl Iterator<Item = &Asker> {
        let under_the_id = move |one: &&Asker| one.transaction == transaction;
        let keys: Vec<&IdempotencyKey> = self
            .askers
            .values()
            .filter(under_the_id)
            .filter_map(|one| one.key.as_ref())
            .collect();
        self.askers.values().filter(move |one| {
            let same_key = || one.key.as_ref().is_some_and(|key| keys.contains(&key));
            one.request_hash == request_hash && (one.transaction == transaction || same_key())
        })
    }

    /// A request is not committed if everybody who has asked for it was told that nothing was started.
    fn somebody_started(&self, history: &History, transaction: TransactionId) -> Verdict {
        let Some(decided) = history.decided.get(&transaction) else {
            return Ok(());
        };
        if !decided.record.decision.is_commit() {
            return Ok(());
        }
        let mut refused = 0;
        for asker in self.askers_of(transaction, decided.record.request_hash) {
            if asker.standing != Standing::Refused {
                return Ok(());
            }
            refused += 1;
        }
        if refused == 0 {
            return Ok(());
        }
        Err("it is committed, and whoever has asked for it was refused for certain".to_owned())
    }

    /// Takes down what the initiator knows now.
    fn concluded(&mut self, history: &History, initiator: Node, conclusion: &Conclusion) -> Verdict {
        let Some(asker) = self.askers.get_mut(&initiator) else {
            return Ok(());
        };
        match conclusion {
            Conclusion::Refused(_) if asker.standing == Standing::Open => {
                asker.standing = Standing::Refused;
                let (id, hash, key) = (asker.transaction, asker.request_hash, asker.key.clone());
                let same_key = |one: &&Asker| key.is_some() && one.key == key;
                let others = self.askers.values().filter(same_key);
                let ids: BTreeSet<TransactionId> = others.map(|one| one.transaction).chain([id]).collect();
                let ours = ids.into_iter().filter(|id| {
                    history
                        .decided
                        .get(id)
                        .is_some_and(|one| one.record.request_hash == hash)
                });
                for id in ours {
                    self.somebody_started(history, id)?;
                }
            }
            Conclusion::Unknown => asker.standing = Standing::Uncertain,
            _ => {}
        }
        Ok(())
    }

    fn is_true(
        &self,
        history: &History,
        initiator: Node,
        since: Time,
        (transaction, request_hash): (TransactionId, Option<RequestHash>),
        conclusion: &Conclusion,
    ) -> Verdict {
        let decided = history.decided.get(&transaction);
        let commits = decided.map(|decided| match request_hash {
            Some(hash) => decided.record.decision_for(hash).is_commit(),
            None => decided.record.decision.is_commit(),
        });
        match (conclusion, commits) {
            (Conclusion::Committed, Some(true)) | (Conclusion::Aborted, Some(false)) => Ok(()),
            (Conclusion::Committed | Conclusion::Aborted, None) => Err("nothing is decided".to_owned()),
            (Conclusion::Committed | Conclusion::Aborted, Some(_)) => {
                Err("the opposite is decided".to_owned())
            }
            (Conclusion::Refused(Why::Mismatch), Some(true)) => {
                // Until its own id is closed, a key that stands for another request is enough to refuse it.
                let asker = self.askers.get(&initiator);
                if asker.is_some_and(|asker| asker.key.is_some() && !asker.was_closed) {
                    return Ok(());
                }
                Err("its own request is committed".to_owned())
            }
            (Conclusion::Undecided, Some(_)) if decided.is_some_and(|decided| decided.at < since) => {
                Err("it was decided before anybody asked".to_owned())
            }
            (Conclusion::Expired, _) if !self.is_closed(history, initiator, transaction) => {
                Err("it is not closed".to_owned())
            }
            (
                Conclusion::Refused(_) | Conclusion::Undecided | Conclusion::Expired | Conclusion::Unknown,
                _,
            ) => Ok(()),
        }
    }

    /// Whether its id is closed, or one that its key may stand for.
    fn is_closed(&self, history: &History, initiator: Node, transaction: TransactionId) -> bool {
        if history.is_closed(transaction) {
            return true;
        }
        let key = self.askers.get(&initiator).and_then(|asker| asker.key.as_ref());
        let stands_for = |one: &Asker| one.key.as_ref() == key && history.is_closed(one.transaction);
        key.is_some() && self.askers.values().any(stands_for)
    }
}
