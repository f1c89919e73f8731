//! A test kit for services that take part in Unanimo transactions: is this [`ResourceManager`] right?
//!
//! The author of a service implements [`Service`]: how the data is opened again after a crash, what its effects are, and a
//! few operations. [`test`] runs the real participant library around it, sends messages twice, late and out of order, and
//! cuts the power before and after every call of the resource manager and at every write. What comes out is a
//! [`Matrix`] of rules and schedules. `docs/testkit.md` walks through an example and shows what wrong ones look like.
//!
//! Every run has a simulated disk for the participant's journal, and each life a runtime of its own that a crash drops,
//! with every task on it. [`Storage`] is a table for services that want the power cut at their own writes too; one that
//! keeps its data elsewhere is crashed around its calls only.
//!
//! What is left out: interactive transactions (`extend`), isolation between committed transactions and readers, and how
//! long anything takes.
//!
//! [`ResourceManager`]: unanimo_participant::ResourceManager

mod coordinator;
mod kit;
mod life;
mod matrix;
mod rule;
mod run;
mod schedule;
mod service;
mod storage;
mod watched;

pub use kit::test;
pub use matrix::{Cell, Matrix, Row};
pub use service::{OpenError, Operations, Service};
pub use storage::Storage;
