//! Tests of the replica: openraft's own suite on our storage, crashes of the log and of an installation of a
//! snapshot, and clusters over real sockets and disks.

mod cluster;
mod crash;
mod fixture;
mod forgetting;
mod node;
mod owner;
mod snapshot;
mod suite;
mod wire;
