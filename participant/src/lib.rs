//! The participant library: what a service embeds to take part in Unanimo transactions.
//!
//! A service implements one trait, [`ResourceManager`]: prepare, commit, abort, restore. This crate does the rest:
//! the gRPC endpoints, the journal, the memory of how branches ended, recovery, and asking for decisions.
//!
//! ```
//! use std::sync::{Arc, atomic::{AtomicI64, Ordering}};
//! use unanimo_participant::{
//!     Bytes, Participant, ParticipantOptions, Preparation, ResourceError, ResourceManager, TransactionId,
//! };
//!
//! /// A counter that never falls below zero. A real service keeps it, and what it has applied, on disk.
//! #[derive(Clone, Default)]
//! struct Stock { free: Arc<AtomicI64>, left: Arc<AtomicI64> }
//!
//! impl ResourceManager for Stock {
//!     async fn prepare(&self, _: TransactionId, operation: Bytes) -> Result<Preparation, ResourceError> {
//!         let [wanted] = operation[..] else {
//!             return Ok(Preparation::No { reason: "one byte is expected".to_owned() });
//!         };
//!         let wanted = i64::from(wanted);
//!         if self.free.fetch_sub(wanted, Ordering::SeqCst) >= wanted {
//!             return Ok(Preparation::Yes { redo: operation });
//!         }
//!         self.free.fetch_add(wanted, Ordering::SeqCst);
//!         Ok(Preparation::No { reason: "out of stock".to_owned() })
//!     }
//!     async fn commit(&self, _: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
//!         self.left.fetch_sub(i64::from(redo[0]), Ordering::SeqCst);
//!         Ok(())
//!     }
//!     async fn abort(&self, _: TransactionId, redo: Option<Bytes>) -> Result<(), ResourceError> {
//!         self.free.fetch_add(redo.map_or(0, |redo| i64::from(redo[0])), Ordering::SeqCst);
//!         Ok(())
//!     }
//!     async fn restore(&self, _: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
//!         self.free.fetch_sub(i64::from(redo[0]), Ordering::SeqCst);
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let data = tempfile::tempdir()?;
//! # let data = data.path();
//! # let stop = async {};
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?.to_string();
//! let coordinators = ["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"];
//! let options = ParticipantOptions::new("shop".parse()?, "stock".parse()?, address, coordinators, data);
//! let participant = Participant::start(options, Stock::default()).await?;
//! participant.serve(listener, stop).await?; // `stop` is any future, such as one that waits for Ctrl-C.
//! # Ok(()) }
//! ```
//!
//! # Interactive transactions
//!
//! A service whose own gRPC methods do the work of a transaction puts a [`JoinLayer`] before them. A method that is called
//! within a transaction finds its [`Enlistment`] in the request and brings the operation through it; the same
//! [`ResourceManager`] does the work.
//!
//! ```
//! # use unanimo_participant::{Bytes, Enlistment};
//! # use tonic::{Request, Response, Status};
//! async fn take_seat(request: Request<String>) -> Result<Response<()>, Status> {
//!     let enlistment = Enlistment::of(&request)?.clone();
//!     // Held from here on, until the transaction's commit or abort, or until its time is over.
//!     enlistment.join(Bytes::from(request.into_inner())).await?;
//!     Ok(Response::new(()))
//! }
//! ```
//!
//! Until somebody asks for the vote, nothing is promised: a restart loses it, and the deadline lets go of it.
//!
//! # What is promised
//!
//! - **A Yes is kept** (R3). It is heard only after its record is on disk. After a restart the holds are there again
//!   before [`Participant::start`] returns; only the decision releases them.
//! - **Effects happen once.** `commit` is called until it succeeds, and again after a crash at the wrong moment; it
//!   has to notice that itself. Its acknowledgement is heard only after the record that follows it is on disk.
//! - **Every message may come twice, late, or out of order** (R9), and gets the answer of the first. A message that
//!   contradicts what is known is refused, changes nothing, and is counted as a violation.
//! - **Nobody guesses.** A branch in doubt asks the coordinators, from 300 ms on, until it is told (R5).
//! - **A failed write is the end** (R10), and so is a failed assertion, wherever it stands: the participant answers nothing
//!   more, and [`Participant::stopped`] says why.
//! - **An old copy is found out** (R11). Starts are counted, and no promise is made in a new life before the
//!   cluster has confirmed that nothing of the earlier ones is missing.
//! - **Everything is bounded** (R14): see [`ParticipantOptions`].
//!
//! # What is counted
//!
//! A service that installs a recorder of the [`metrics`](https://docs.rs/metrics) crate before it starts the participant gets
//! times in doubt, votes, refusals and more; `docs/operations.md` lists them. [`Participant::statistics`] has the
//! most important ones without it.
//!
//! # How it works
//!
//! The state machine of a branch is [`unanimo_core::Branch`]; this crate gives it inputs and carries out its effects
//! in order. A branch in flight lives in memory and in the journal. A finished one goes into the branch table, in
//! groups, once its record is durable; whatever the table loses in a crash is put back from the journal.
//!
//! Coordinators say with their messages which transactions are closed (R7). In the background the participant makes that
//! durable, drops what ended among them from the branch table, and releases the beginning of the journal as far as no
//! promise in doubt and no branch that is not closed stands in it. An operation of a closed transaction is refused as
//! expired; an Abort, and a Commit of what was forgotten, are acknowledged without effect.
//!
//! # Left out
//!
//! The batched `Exchange` stream is not built yet. A promise in doubt is not moved: the journal keeps everything behind
//! the oldest one. A resource manager whose data is older than the journal is found out only by what it lists as prepared.

mod background;
mod branch_table;
mod branches;
mod doubts;
mod effects;
mod endpoint;
mod entry;
mod error;
mod gate;
mod inquiry;
mod join;
mod kept;
mod metrics;
mod observer;
mod options;
mod participant;
mod pause;
mod registration;
mod replay;
mod resource;
mod resource_calls;
mod serve;
mod service;
mod statistics;
mod store;

pub use bytes::Bytes;
pub use endpoint::Endpoint;
pub use error::{ServeError, StartError, StopReason};
pub use join::{Enlistment, JoinError, JoinLayer, JoinService};
pub use options::{ParticipantOptions, Parts, Writing};
pub use participant::Participant;
pub use resource::{Preparation, ResourceError, ResourceManager};
pub use statistics::{InDoubtTimes, Statistics};
pub use unanimo_core::{ClusterId, ParticipantId, TransactionId};
pub use unanimo_proto::{BadContext, Context};
