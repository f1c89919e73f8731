//! Everything there is at one moment, and how parts of it are reached.

use std::collections::BTreeSet;
use std::sync::Arc;

use unanimo_core::table::{Command, DecisionTable, View as _};

use super::Protocol;
use super::coordinator::Node;
use super::message::{Envelope, Message, Voted};
use super::names::MEMBERS;
use super::participant::Member;
use super::rule::{Facts, Rule};

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    pub(crate) crashes: u8,
    pub(crate) leader_changes: u8,
    pub(crate) old_copies: u8,
}

/// A proposal on its way to the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Proposed {
    pub(crate) by: u8,
    pub(crate) command: Command,
}

/// What stands for Raft: one table, and proposals that are applied some time later, or lost with their leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Raft {
    pub(crate) table: DecisionTable,
    pub(crate) pending: Vec<Proposed>,
}

impl Raft {
    /// In an order of their own, so that it does not matter who came first.
    fn propose(&mut self, by: u8, command: Command) {
        let proposed = Proposed { by, command };
        if !self.pending.contains(&proposed) {
            self.pending.push(proposed);
            self.pending
                .sort_by_cached_key(|proposed| format!("{proposed:?}"));
        }
    }
}

/// A state of the model. Its parts are shared with the states it came from as long as they are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) raft: Arc<Raft>,
    pub(crate) nodes: [Arc<Node>; 2],
    pub(crate) members: [Arc<Member>; MEMBERS],
    pub(crate) network: Arc<BTreeSet<Envelope>>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) faults: Faults,
}

impl State {
    pub(crate) fn node(&self, number: u8) -> &Node {
        &self.nodes[usize::from(number)]
    }

    pub(crate) fn node_mut(&mut self, number: u8) -> &mut Node {
        Arc::make_mut(&mut self.nodes[usize::from(number)])
    }

    pub(crate) fn member(&self, number: u8) -> &Member {
        &self.members[usize::from(number)]
    }

    pub(crate) fn member_mut(&mut self, number: u8) -> &mut Member {
        Arc::make_mut(&mut self.members[usize::from(number)])
    }

    pub(crate) fn raft_mut(&mut self) -> &mut Raft {
        Arc::make_mut(&mut self.raft)
    }

    pub(crate) fn send(&mut self, envelope: Envelope) {
        if !self.network.contains(&envelope) {
            Arc::make_mut(&mut self.network).insert(envelope);
        }
    }

    pub(crate) fn propose(&mut self, by: u8, command: Command) {
        self.raft_mut().propose(by, command);
    }

    pub(crate) fn breaks(&mut self, rule: Rule, how: &'static str) {
        Arc::make_mut(&mut self.facts).broken.entry(rule).or_insert(how);
    }

    /// Whether anything that is asked for now is closed.
    pub(crate) fn has_closed(&self, model: &Protocol, transaction: u8) -> bool {
        let Ok(horizon) = self.raft.table.horizon();
        horizon.has_closed(model.names.id(transaction))
    }

    /// Whether this request commits; none while nobody can know. What is closed without a decision never commits.
    pub(crate) fn commits(&self, model: &Protocol, transaction: u8, request: u8) -> Option<bool> {
        match self.facts.decided.get(&transaction) {
            Some(outcome) => Some(outcome.commits(request)),
            None => self.has_closed(model, transaction).then_some(false),
        }
    }

    /// Whether this member has ever told anybody such a vote.
    pub(crate) fn has_said(&self, member: u8, request: u8, wanted: Voted) -> bool {
        self.network.iter().any(|envelope| {
            let said = matches!(envelope.message, Message::Voted { request: asked, vote, .. }
                if asked == request && vote == wanted);
            said && envelope.member == member
        })
    }
}
