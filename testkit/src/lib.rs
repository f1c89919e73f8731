//! A test kit for services that take part in Unanimo transactions: is this [`ResourceManager`] right?
//!
//! The author of a service implements [`Service`]: how the data is opened again after a crash, what its effects are, and a
//! few operations. [`test()`] runs the real participant library around it, sends messages twice, late and out of order, and
//! cuts the power before and after every call of the resource manager and at every write. What comes out is a
//! [`Matrix`] of rules and schedules. `docs/testkit.md` walks through an example and shows what wrong ones look like.
//!
//! ```
//! use std::collections::BTreeSet;
//! use std::sync::{Arc, Mutex};
//! use unanimo_participant::{Bytes, Preparation, ResourceError, ResourceManager, TransactionId};
//! use unanimo_testkit::{OpenError, Operations, Service, Storage};
//!
//! /// Who has sat down on the only seat, and for which transaction. Survives a crash.
//! #[derive(Clone, Default)]
//! struct Seat { taken: Arc<Mutex<BTreeSet<TransactionId>>> }
//!
//! /// The same with what is held in memory.
//! struct Seats { seat: Seat, held: Mutex<BTreeSet<TransactionId>> }
//!
//! impl ResourceManager for Seats {
//!     async fn prepare(&self, transaction: TransactionId, _: Bytes) -> Result<Preparation, ResourceError> {
//!         let mut held = self.held.lock().unwrap();
//!         if !held.is_empty() || !self.seat.taken.lock().unwrap().is_empty() {
//!             return Ok(Preparation::No { reason: "the seat is taken".to_owned() });
//!         }
//!         held.insert(transaction);
//!         Ok(Preparation::Yes { redo: Bytes::new() })
//!     }
//!     async fn commit(&self, transaction: TransactionId, _: Bytes) -> Result<(), ResourceError> {
//!         self.seat.taken.lock().unwrap().insert(transaction);
//!         self.held.lock().unwrap().remove(&transaction);
//!         Ok(())
//!     }
//!     async fn abort(&self, transaction: TransactionId, _: Option<Bytes>) -> Result<(), ResourceError> {
//!         self.held.lock().unwrap().remove(&transaction);
//!         Ok(())
//!     }
//!     async fn restore(&self, transaction: TransactionId, _: Bytes) -> Result<(), ResourceError> {
//!         self.held.lock().unwrap().insert(transaction);
//!         Ok(())
//!     }
//! }
//!
//! impl Service for Seat {
//!     type Manager = Seats;
//!     async fn open(&self, _: &Storage) -> Result<Seats, OpenError> {
//!         Ok(Seats { seat: self.clone(), held: Mutex::default() })
//!     }
//!     async fn effects(&self, _: &Seats) -> String {
//!         format!("{} on the seat", self.taken.lock().unwrap().len())
//!     }
//!     fn operations(&self) -> Operations {
//!         let sit = Bytes::from_static(b"sit");
//!         Operations { operation: sit.clone(), rival: sit, refused: None, read: None }
//!     }
//! }
//!
//! unanimo_testkit::test(Seat::default).assert_all_passed();
//! ```
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
