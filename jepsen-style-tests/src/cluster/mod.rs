//! The processes: coordinators and participants, each with an address, a data folder and a log of its own.

mod child;
mod config;
mod disk;
mod layout;
mod nodes;
mod place;
mod processes;
mod strength;

pub use child::{Surroundings, end_with_parent};
pub use config::Settings;
pub use disk::{Disk, sweep as sweep_disks, unavailable as disks_unavailable};
pub use layout::{Addresses, CLUSTER, Layout, Member};
pub use place::Place;
pub use processes::{Cluster, ClusterError};
