//! The wire of Unanimo: the generated code of the `.proto` files, and the only conversions between wire or disk
//! messages and the types of [`unanimo_core`].
//!
//! The comments in `proto/unanimo/v1/unanimo.proto` are the reference of the public interface. Everything that
//! comes from the network or the disk is parsed here, once; behind this crate nothing is optional that is not
//! truly optional. [`transport`] holds the settings that every connection of Unanimo shares.

pub mod storage;
pub mod transport;

mod context;
mod convert;
mod error;

pub use context::{BRANCH_KEY, BadContext, BranchReport, BranchState, CONTEXT_KEY, Context};
pub use convert::{
    AbortMessage, CommitMessage, Inquiry, InquiryAnswer, MalformedMessage, Outcome, PrepareMessage,
    PrepareVote, Registering, check_cluster, members_from_wire, members_to_wire, operation_branches,
    transaction_from_wire, watermark_to_wire,
};
pub use error::{
    ERROR_DOMAIN, ErrorReason, definite, reason_of, refusal, refused, retry_after, with_retry_after,
};

/// The public messages and services, package `unanimo.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("unanimo.v1");
}

/// What coordinator nodes say to each other and what stands on disk, package `unanimo.internal.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod internal {
    tonic::include_proto!("unanimo.internal.v1");
}

/// The encoded descriptors of every `.proto` file, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/unanimo.descriptors.bin"));
