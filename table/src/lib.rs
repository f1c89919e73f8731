//! Placeholder while the parts are put together.

mod batch;
mod checkpointer;
mod digest;
mod error;
mod memory;
mod sled_table;
mod sticky;
mod table;
mod directory;

pub use batch::Batch;
pub use checkpointer::{CheckpointStep, CheckpointWriter, Checkpointer};
pub use error::{Part, TableError};
pub use memory::MemoryTable;
pub use sled_table::{Opened, SledOptions, SledTable};
pub use table::{Entry, MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES, Table};
