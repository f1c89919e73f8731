//! The gRPC services: translations between messages and the driver, nothing else.

mod admin;
mod admission;
mod coordinator;
mod counted;
mod forward;
mod status;

pub(crate) use admin::AdminService;
pub(crate) use admission::Admission;
pub(crate) use coordinator::CoordinatorService;
pub(crate) use counted::Counted;
pub(crate) use forward::Forwarder;
