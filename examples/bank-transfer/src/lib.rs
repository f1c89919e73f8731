//! Transfers between two banks that happen on both sides or on neither, while processes are killed.
//!
//! One command starts three coordinators and two banks, each a process with a data folder of its own, runs transfers
//! from a CSV file, kills the leader and a bank on the way, and audits what is left: see the README beside this crate.
//!
//! # What to copy
//!
//! [`Bank`] is what the team of a service writes: it implements [`ResourceManager`](unanimo_participant::ResourceManager)
//! over its own accounts, with holds for transfers and locks for audits. [`bank_process`] puts it into a server together with the participant library. The load in
//! [`load`] is what an application does: it submits a transaction and gets a definite answer.
//!
//! # How a run goes
//!
//! [`run`](run()) tells it from top to bottom. [`input`] and [`generate`](mod@generate) make transfers, [`cluster`] runs
//! the processes, [`faults`] kills them by a [`schedule`], [`observer`] asks them how they are, [`load`] submits
//! transfers and [`auditor`] audits, [`audit`](mod@audit) compares everybody's word in the end, and [`report`] prints it.

pub mod audit;
pub mod auditor;
pub mod bank_process;
pub mod cluster;
pub mod distribution;
pub mod faults;
pub mod generate;
pub mod input;
pub mod load;
pub mod observer;
pub mod operation;
pub mod progress;
pub mod report;
pub mod schedule;

mod account;
mod amount;
mod asked;
mod audit_locks;
mod bad_input;
mod bank;
mod bank_error;
mod bank_files;
mod books;
mod child;
mod evidence;
mod heard;
mod holds;
mod in_doubt;
mod ports;
mod resource_manager;
mod run;
mod service;
mod sums;
mod table;
mod violation;

pub use account::{ACCOUNTS_PER_BANK, AccountError, AccountId, BankName, HOT_ACCOUNT, opening_balances};
pub use amount::{AmountError, Cents};
pub use asked::{Asked, Promised};
pub use bank::Bank;
pub use bank_error::BankError;
pub use bank_files::{BankFiles, BankFilesError};
pub use books::{MAX_PAGE, Totals};
pub use child::end_with_parent;
pub use evidence::EvidenceError;
pub use heard::Heard;
pub use holds::Refusal;
pub use in_doubt::InDoubt;
pub use input::Transfer;
pub use operation::Operation;
pub use run::{Options, Problem, RunError, run};
pub use service::BankService;

/// The messages and the service of `proto/bank.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod wire {
    tonic::include_proto!("bank.v1");
}

/// The encoded descriptor of `bank.proto`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bank.descriptors.bin"));
