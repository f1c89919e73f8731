//! A durable append-only journal with group commit.
//!
//! The coordinator's Raft log and a participant's promises live in a [`Journal`]: what its callback has reported is on
//! disk, in order, and comes back at the next opening, whatever failed in between. Many appends share one write and one
//! `fdatasync`.
//!
//! ```
//! use std::sync::Arc;
//! use unanimo_journal::{Disk, Journal, Options, SimulatedDisk};
//!
//! let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
//! let mut options = Options::new("example");
//! options.segment_bytes = 1024 * 1024;
//! options.max_record_bytes = 64 * 1024;
//! let (journal, writer) = Journal::open(disk, options, &mut |_sequence, _payload| Ok(()))?;
//! let writer = writer.spawn()?;
//! journal.append("a promise", |durable| assert!(durable.is_ok(), "now, and not before, it may be told"))?;
//! journal.close();
//! writer.join().expect("no callback has panicked");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Rules
//!
//! - Callbacks come in the order of the appends, after the forced write that covers them.
//! - Positions ([`Sequence`]) rise by one and are never given twice, also not after a truncation.
//! - The first error of a write or a forced write is final (R10): everybody who waits and everybody who comes later gets
//!   [`Failed`], nothing is retried, and [`Journal::on_failure`] tells the owner, who stops the process.
//! - A torn tail is cut, and nothing else ever is. If anything shows that a durable record is missing or damaged, the
//!   journal refuses to open and says where, and what to do. `docs/durability.md` has the argument by cases.
//!
//! # Parts
//!
//! A [`Disk`] is one directory; [`RealDisk`] is a real one, [`SimulatedDisk`] loses, tears and fails on demand. The
//! [`Writer`] runs on a thread of its own ([`Writer::spawn`]), or a simulation takes its steps ([`Writer::step`]).
//! [`inspect`] shows a journal to a human: `cargo run -p unanimo-journal --example journal -- DIRECTORY`.
//!
//! Left out: compaction. Space comes back only by releasing whole segments from the front.

mod appender;
mod disk;
mod error;
mod failed;
mod found;
mod frame;
mod inspect;
mod journal;
mod keeper;
mod mutants;
mod options;
mod real_disk;
mod recovery;
mod repair;
mod scan;
mod segment;
mod sequence;
mod simulated_disk;
mod simulated_file;
mod simulated_machine;
mod state;
mod truncated;
mod writer;

pub use disk::{Disk, DiskFile};
pub use error::{AppendError, OpenError, ReadError};
pub use failed::Failed;
pub use frame::FrameKind;
pub use inspect::{Ending, FrameStanding, InspectedFrame, InspectedSegment, Inspection, inspect};
pub use journal::Journal;
pub use options::Options;
pub use real_disk::RealDisk;
pub use recovery::Replay;
pub use sequence::Sequence;
pub use simulated_disk::{Lose, SimulatedDisk};
pub use writer::{Step, Writer};
