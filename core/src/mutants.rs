//! Planted bugs, so that it can be shown that the tests find such bugs. No program that is meant for use has them.
//!
//! Each is a line or two where the rule stands that it breaks, behind [`is_on`]. Without the feature `mutants`, which
//! nothing enables by default, that is the constant `false`, and nothing of them is compiled. With it, a program has all of
//! them, and `plant` turns at most one on, once, when the process starts.

#[cfg(feature = "mutants")]
use std::sync::OnceLock;

/// A planted bug. The numbers are those of the list that they come from; see `jepsen-style-tests/README.md`. Those with an
/// F are for the full-stack simulation: see `docs/full-stack-simulation.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "`breaks` says what each is")]
pub enum Mutant {
    M1,
    M2,
    M3,
    M4,
    M5,
    M6,
    M7,
    M8,
    M9,
    M10,
    M11,
    M12,
    M13,
    M14,
    M15,
    M16,
    M17,
    M18,
    M19,
    M20,
    M21,
    M22,
    M23,
    M24,
    M25,
    M26,
    M27,
    M28,
    M29,
    M30,
    F1,
    F2,
    F3,
}

/// Whether this process has the bug.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is_on(_: Mutant) -> bool {
    false
}

/// Whether this process has the bug.
#[cfg(feature = "mutants")]
pub fn is_on(mutant: Mutant) -> bool {
    PLANTED.get() == Some(&mutant)
}

#[cfg(feature = "mutants")]
static PLANTED: OnceLock<Mutant> = OnceLock::new();

/// What every program contains that can have planted bugs, and no other: its warning about them begins so.
#[cfg(feature = "mutants")]
pub const MARKER: &str = "unanimo was built with planted bugs";

/// Gives this process the bug. It cannot be taken back, nor changed: later calls do nothing.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Mutant) {
    PLANTED.get_or_init(|| mutant);
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All with an M, in the order of their numbers.
    pub const ALL: [Self; 30] = [
        Self::M1,
        Self::M2,
        Self::M3,
        Self::M4,
        Self::M5,
        Self::M6,
        Self::M7,
        Self::M8,
        Self::M9,
        Self::M10,
        Self::M11,
        Self::M12,
        Self::M13,
        Self::M14,
        Self::M15,
        Self::M16,
        Self::M17,
        Self::M18,
        Self::M19,
        Self::M20,
        Self::M21,
        Self::M22,
        Self::M23,
        Self::M24,
        Self::M25,
        Self::M26,
        Self::M27,
        Self::M28,
        Self::M29,
        Self::M30,
    ];

    /// Those that only a whole stack in a simulated network can have.
    pub const FULL_STACK: [Self; 3] = [Self::F1, Self::F2, Self::F3];

    /// The one with this name, such as `M4`.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter().chain(Self::FULL_STACK);
        all.find(|mutant| mutant.name() == name)
    }

    /// Its name, such as `M4`.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// What is wrong in a process that has it.
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::M1 => "a Yes leaves before its promise is on disk",
            Self::M2 => "the error of a forced write is ignored",
            Self::M3 => "a promise does not say who the other members are",
            Self::M4 => "of what nobody runs an Abort is answered without being recorded",
            Self::M5 => "of what is still voting an Abort is answered",
            Self::M6 => "who decides does not look whether it is decided already",
            Self::M7 => "aborts and commits are kept under different keys",
            Self::M8 => "a decision is told when it is proposed, not when a quorum has it",
            Self::M9 => "a vote of Raft is not written down",
            Self::M10 => "every candidate is granted the vote",
            Self::M11 => "a follower confirms entries before they are on its disk",
            Self::M12 => "a follower answers `undecided` from what it has applied",
            Self::M13 => "a decision is forgotten when a majority of the members has acknowledged it",
            Self::M14 => "decisions are forgotten by the leader's wall clock, acknowledged or not",
            Self::M15 => "a Commit of something else is taken for a Commit of whatever is in doubt",
            Self::M16 => "a Commit may rest on votes of earlier lives",
            Self::M17 => "a Commit is applied however often it comes",
            Self::M18 => "a prepared branch that waits for too long aborts by itself",
            Self::M19 => "the locks of promises are not taken again after a restart",
            Self::M20 => "a damaged record is taken for the end of the journal",
            Self::M21 => "a client without an answer says that the transaction is aborted",
            Self::M22 => "what an idempotency key stands for is not recorded",
            Self::M23 => "a No that comes after a Yes of the same member is ignored",
            Self::M24 => "whether a Commit is in time is judged by the clock of whoever applies it",
            Self::M25 => "a participant that runs from an old copy is registered",
            Self::M26 => "the name of a new journal segment is not forced to disk",
            Self::M27 => "pauses between attempts grow without end",
            Self::M28 => "nodes start elections without asking first",
            Self::M29 => "whatever has several members is aborted",
            Self::M30 => "faults are reported and do not happen",
            Self::F1 => "a leader resumes its term after a restart",
            Self::F2 => "nobody finds out that a connection is dead",
            Self::F3 => "a stream to another node is connected before there is anything to send",
        }
    }
}
