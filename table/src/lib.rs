//! Ordered key-value tables that survive a crash, behind one small trait.
//!
//! The coordinator's decisions, a participant's branches and the accounts of the bank example live in a
//! [`Table`]: a change is a [`Batch`], visible at once and whole, durable from the next
//! [`checkpoint`](Table::checkpoint) on. Whoever needs an acknowledgement waits for a checkpoint through a
//! [`Checkpointer`], which lets many callers share one.
//!
//! There are two tables. [`SledTable`] keeps a directory with sled 0.34.7; [`MemoryTable`] is its twin for
//! simulations, which crashes and fails on demand. Whoever uses a table takes an `Arc<dyn Table>` and does
//! not know which.
//!
//! ```
//! use std::sync::Arc;
//! use unanimo_table::{Batch, Checkpointer, MemoryTable, Table};
//!
//! let table: Arc<dyn Table> = Arc::new(MemoryTable::new());
//! let (checkpointer, writer) = Checkpointer::new(Arc::clone(&table));
//! let writer = writer.spawn()?;
//! let mut batch = Batch::new();
//! batch.put("account/1", "100").remove("account/2");
//! table.apply(batch)?;
//! checkpointer.durable(|result| assert!(result.is_ok(), "now, and not before, it may be acknowledged"));
//! drop(checkpointer);
//! writer.join().expect("no callback has panicked");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a crash leaves
//!
//! Everything of the last checkpoint, plus the first few of the batches applied since then, in order and
//! whole. What must not be lost lies in a journal or in the Raft log, and stays there until a checkpoint
//! covers it. So the owner keeps its own position (the last entry applied) in the same batch as what the
//! entry changed, and replays from there.
//!
//! # What is added to sled
//!
//! - *Durability.* sled's `flush` ends in `sync_file_range`, which does not outlive a power failure. A
//!   checkpoint is `flush`, then `sync_data` on a handle of our own on the database file. Directories and the
//!   other files are synced when a table is created or opened, and a marker file that says "this is a
//!   complete table" is written last.
//! - *No side files.* sled writes pages above a quarter of a segment to files that it never syncs. Segments
//!   of 8 MiB and the limits on keys and values keep every page below.
//! - *Nothing is believed.* With each batch goes a digest of the whole table. An opening reads everything,
//!   compares it with the digest, and compares the number of batches with that of the last checkpoint, which
//!   is noted in a second file. sled drops what it cannot read from the end of its log without a word, so a
//!   table that opens may still have lost what was durable.
//! - *Set aside, not repaired.* A table that does not open (by an error or a panic), or does not pass these
//!   comparisons, is renamed and an empty one takes its place. The owner rebuilds it: see
//!   [`Opened::set_aside`].
//! - *Fail stop.* After the first error a table answers nothing but that error (R10).
//!
//! # What it costs, and what is left out
//!
//! A batch costs sled about as much with ten changes as with one, so owners that apply many small changes
//! group them. Batches of all tables in one process wait for each other inside sled. An opening takes one to
//! two seconds for a million entries. There are no transactions that read before they write: each table has
//! one owner, which orders its own changes. The digest finds what a disk or sled has lost or mixed up, not
//! what an adversary has changed. A panic can only be caught in a program that unwinds, so programs that use
//! [`SledTable`] must not be built with `panic = "abort"`.

mod batch;
mod checkpointer;
mod digest;
mod directory;
mod error;
mod floor;
mod marker;
mod memory;
mod sled_table;
mod sticky;
mod store;
mod table;

pub use batch::Batch;
pub use checkpointer::{CheckpointStep, CheckpointWriter, Checkpointer};
pub use error::{Part, TableError};
pub use memory::MemoryTable;
pub use sled_table::{Opened, SledOptions, SledTable};
pub use table::{Entry, MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES, Table};
