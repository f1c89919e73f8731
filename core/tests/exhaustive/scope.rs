//! What may happen in one exploration.

use super::message::Voted;

/// How the leader changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaderChange {
    /// It stays.
    Never,
    /// It dies with everything in its memory, and another one takes over.
    Dies,
    /// It is cut off and goes on beside the new one.
    Deposed,
}

/// One exploration: everything that is not excluded here is tried in every order.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) name: &'static str,
    /// Transaction and members (as bits) of each request. Two may share a transaction's id.
    pub(crate) asked: &'static [(u8, u8)],
    /// How many of them have been submitted when the exploration begins.
    pub(crate) begun: u8,
    /// What resource managers may answer.
    pub(crate) answers: &'static [Voted],
    /// Whether a resource manager may also take longer than the deadline.
    pub(crate) tardy: bool,
    /// Whether transactions want the same things, so that whoever holds them keeps the others out.
    pub(crate) contended: bool,
    /// Whether participants sync what they wrote, and carry decisions out, in the step that asks for it. Then a crash
    /// comes before or after, and loses nothing that was written.
    pub(crate) prompt: bool,
    /// Crashes of participants, over both. Each may lose any end of what was not synced.
    pub(crate) crashes: u8,
    pub(crate) leader: LeaderChange,
    /// Whether initiators submit again.
    pub(crate) retries: bool,
    /// Whether voting deadlines pass at leaders.
    pub(crate) deadlines: bool,
    /// Whether initiators ask for aborts.
    pub(crate) abort_requests: bool,
    /// Whether time passes, transactions are closed, and what is over is forgotten.
    pub(crate) forgetting: bool,
    /// Whether lives are told apart: participants register at each start (R11).
    pub(crate) lives: bool,
    /// How many of the crashes may end with an old copy of the participant's disk.
    pub(crate) old_copies: u8,
}

impl Scope {
    /// One transaction of two members that can only commit.
    pub(crate) const fn named(name: &'static str) -> Self {
        Self {
            name,
            asked: &[(0, 0b11)],
            begun: 1,
            answers: &[Voted::Yes],
            tardy: false,
            contended: false,
            prompt: false,
            crashes: 0,
            leader: LeaderChange::Never,
            retries: false,
            deadlines: false,
            abort_requests: false,
            forgetting: false,
            lives: false,
            old_copies: 0,
        }
    }

    /// The same under another name.
    pub(crate) fn renamed(&self, name: &'static str) -> Self {
        Self { name, ..self.clone() }
    }
}
