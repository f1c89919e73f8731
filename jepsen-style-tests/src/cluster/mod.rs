//! The processes: coordinators and participants, each with an address, a data folder and a log of its own.

mod child;
mod config;
mod disk;
mod layout;
mod place;
mod processes;

pub use child::end_with_parent;
pub use disk::{Disk, sweep as sweep_disks, unavailable as disks_unavailable};
pub use layout::{Addresses, CLUSTER, Layout, Member};
pub use place::Place;
pub use processes::{Cluster, ClusterError};
