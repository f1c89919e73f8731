//! What the tests of the participant share: a resource manager that records, a coordinator that answers as told, and
//! a participant on simulated disks.

mod coordinator;
mod counted;
mod recorder;
mod world;

pub(crate) use coordinator::FakeCoordinator;
pub(crate) use counted::{Counted, once};
pub(crate) use recorder::{Call, Recorder};
pub(crate) use world::{Peer, World, eventually, reason, transaction};
