//! Real processes, real faults, histories, and checkers that can fail.
//!
//! A run starts a cluster of real processes ([`cluster`]), lets clients work on it ([`workload`]) while faults happen
//! ([`nemesis`]), and writes down what the clients asked and were told ([`history`]). When the faults are over it
//! collects what the processes have on disk and answer ([`evidence`]), lets checkers judge ([`checker`]), and writes a
//! report ([`report`]).
//!
//! # What a verdict means
//!
//! *Valid*: every checker found what it needs, and no violation. *Invalid*: a checker found a violation, and says where.
//! *Unknown*: something is missing, so nothing may be concluded; it is never a pass. A run in which a planned fault did
//! not happen is not a pass either.
//!
//! # Seeds
//!
//! Everything that is drawn, is drawn from one seed ([`random`]): the work of each client and the schedule of the
//! faults. Real processes do not run the same way twice, so a seed repeats the plan and not the outcome.

pub mod checker;
pub mod cluster;
pub mod evidence;
pub mod full_stack;
pub mod history;
pub mod late;
pub mod machine;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod nemesis;
pub mod network;
pub mod random;
pub mod report;
pub mod run;
pub mod soak;
pub mod store;
pub mod workload;

/// The generated messages of the store, as protobuf has them.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod wire {
    tonic::include_proto!("store.v1");
}

/// The generated messages of the store's tap: what it keeps of the calls it gets.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod tap {
    tonic::include_proto!("tap.v1");
}
