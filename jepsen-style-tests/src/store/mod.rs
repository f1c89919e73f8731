//! The participant of these tests: cells that hold a number and a list, under strict two-phase locking.
//!
//! A transaction holds what it writes alone, and what it reads together with other readers, until it is decided. Who
//! meets a lock waits for a short while and then votes No, so nobody waits for ever and there are no deadlocks. What was
//! applied is kept with the id of its transaction, in the same batch as the change: the evidence that it happened once.

mod cells;
mod locks;
mod process;
pub(crate) mod said;
mod service;
mod tap;

pub use cells::{Cells, CellsError};
pub(crate) use cells::{HEARD, LOCKED, TOO_LITTLE};
pub(crate) use process::CELLS;
pub use process::{StoreConfig, StoreError, run};
pub(crate) use tap::LATE;
