//! What stands for Raft: one decision table, and proposals that are applied some time later or are lost with the
//! leader that made them.

use unanimo_core::table::{Applied, Command, DecisionTable};

use super::names::Seat;

/// A proposal on its way to the table.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) by: Seat,
    pub(crate) command: Command,
}

/// The table and what is on its way to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raft {
    table: DecisionTable,
    pending: Vec<Proposal>,
}

impl Raft {
    /// The table as a quorum holds it.
    pub(crate) fn table(&self) -> &DecisionTable {
        &self.table
    }

    /// Proposals, oldest first.
    pub(crate) fn pending(&self) -> &[Proposal] {
        &self.pending
    }

    pub(crate) fn propose(&mut self, by: Seat, command: Command) {
        self.pending.push(Proposal { by, command });
    }

    /// Commits and applies one proposal.
    pub(crate) fn apply(&mut self, place: usize) -> (Proposal, Applied) {
        let proposal = self.pending.remove(place);
        let applied = self.table.apply(&proposal.command);
        (proposal, applied)
    }

    /// Loses one proposal.
    pub(crate) fn lose(&mut self, place: usize) -> Proposal {
        self.pending.remove(place)
    }
}
