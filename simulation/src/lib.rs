//! The whole protocol in a box: coordinators, participants, initiators and everything that goes wrong between them, in
//! one process, in simulated time, drawn from one seed and repeated from it exactly.
//!
//! The state machines are those of `unanimo-core`, which are shipped. What stands around them is simulated: a small model
//! of Raft in place of openraft (`log`), what the shells of the coordinator and the participant do in a few hundred
//! lines (`coordinator`, `participant`), a journal on a disk that forgets (`journal`), a resource manager that must
//! not lose money (`bank`), and initiators that repeat themselves (`initiator`). There are no threads, no sockets and
//! no clock; time jumps from one thing that happens to the next, so a minute takes some milliseconds.
//!
//! A run is a function of its `schedule`, which is data: a seed draws one, a script is one, and what breaks a rule is
//! shrunk by leaving parts of it out (`shrink`). After every step the rules R1-R14 are checked (`invariants`), then
//! the faults stop and everything has to come to rest. `counters` say what has to happen sometimes: a set of runs in
//! which one of them stays zero is no proof of anything, and fails.
//!
//! It stands beside the world of `core/tests` and does not replace it. That one has no time and no drivers: a script says
//! for each step what happens next, so that every transition of the two state machines can be shown and repeated by hand.
//! This one runs the drivers by their timers over a log that lags, loses and changes its leaders, and no step of it is
//! chosen by anybody. They share the state machines, the names and the look of a transcript, and no code: `core` depends
//! on nothing of the workspace, not even in tests.
//!
//! `docs/simulation.md` says how to run it, how to read what it prints, and what it does not cover.

mod bank;
mod chance;
mod command;
mod coordinator;
mod counters;
mod event;
mod initiator;
mod invariants;
mod journal;
mod log;
mod message;
mod mutants;
mod names;
mod node;
mod participant;
mod run;
mod schedule;
mod script;
mod set;
mod shrink;
mod watch;
mod world;

pub use command::{MutantsArguments, SimulateArguments};
pub use script::{ScriptError, replay};
pub use set::{Report, simulate};
pub use watch::Broken;
