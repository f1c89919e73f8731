//! A durable append-only journal with group commit.

mod disk;
mod error;
mod failed;
mod frame;
mod inspect;
mod journal;
mod keeper;
mod options;
mod real_disk;
mod recovery;
mod scan;
mod segment;
mod sequence;
mod simulated_disk;
mod simulated_file;
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
