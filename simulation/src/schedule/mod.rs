//! What is decided before a run begins, as data: sizes and times, what initiators want, and what goes wrong. A run is a
//! function of its schedule and nothing else.

mod draw;
mod fate;
mod fault;
mod knobs;
mod text;
mod work;

pub(crate) use draw::draw;
pub(crate) use fate::{Fate, Fates, MessageKey};
pub(crate) use fault::{Fault, Harm};
pub(crate) use knobs::Knobs;
pub(crate) use work::{Move, Want, Work};

/// Microseconds since the run began.
pub(crate) type Time = u64;

/// So many microseconds.
pub(crate) const MS: Time = 1000;

/// Everything that a run depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Draws what is drawn while the run goes on: delays, above all.
    pub(crate) seed: u64,
    pub(crate) knobs: Knobs,
    pub(crate) works: Vec<Work>,
    pub(crate) faults: Vec<Fault>,
    /// What becomes of messages.
    pub(crate) fates: Fates,
}
