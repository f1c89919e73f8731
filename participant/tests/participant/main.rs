//! The participant from outside: messages in, calls of a resource manager and records on simulated disks out.
#![allow(clippy::unwrap_used)]

mod crash;
mod forgetting;
mod inquiry;
mod interactive;
mod join;
mod messages;
mod metrics;
mod recovery;
mod serving;
mod support;
mod trouble;
