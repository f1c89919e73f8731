//! Submits transactions to a Unanimo cluster until the answer is definite (R13).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use unanimo_client::{Client, Decision, Operation};
//!
//! let client = Client::connect("payments".parse()?, ["10.0.0.1:7101", "10.0.0.2:7101", "10.0.0.3:7101"])?;
//! let transaction = client.new_transaction();
//! let branches = vec![
//!     ("bank-north".parse()?, Operation::new("debit 5.00 from north-000123")),
//!     ("bank-south".parse()?, Operation::new("credit 5.00 to south-000456")),
//! ];
//! match client.submit(transaction, branches, Duration::from_secs(30)).await {
//!     Ok(Decision::Commit) => println!("it happened, at both banks"),
//!     Ok(Decision::Abort(reason)) => println!("it happened nowhere: {reason}"),
//!     Err(refused) if refused.is_definite() => println!("this call had no effect: {refused}"),
//!     // Nothing may be concluded. Keep the id and ask again: `client.outcome(transaction, ..)`, or submit again.
//!     Err(unknown) => println!("{unknown}"),
//! }
//! # Ok(()) }
//! ```
//!
//! An application that has to see what one service says before it asks the next begins a transaction, calls the
//! services itself, and commits what they did together:
//!
//! ```no_run
//! # async fn example(client: unanimo_client::Client, channel: tonic::transport::Channel) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use unanimo_client::Decision;
//!
//! let transaction = client.begin(Duration::from_secs(10)).await?;
//! let seats = transaction.channel(channel); // SeatsClient::new(transaction.channel(channel))
//! // … calls …
//! match transaction.commit(Duration::from_secs(30)).await? {
//!     Decision::Commit => println!("every service that was called has done its part"),
//!     Decision::Abort(reason) => println!("none has: {reason}"),
//! }
//! # let _ = seats;
//! # Ok(()) }
//! ```
//!
//! A transaction keeps its id over every retry, here and in the application: that is what makes repeating safe
//! (R12). Store the id before the first call if the process may die and has to know afterwards. A caller that cannot
//! store one, but has a name for what it wants done, such as the number of an order, submits under that name:
//! [`Client::submit_with_key`].

mod client;
mod error;
mod interactive;
mod nodes;
mod options;

pub use client::Client;
pub use error::{CallError, ClientError, CommitError, SubmitError};
pub use interactive::{Doom, InteractiveTransaction, TransactionChannel, TransactionLayer};
pub use options::ClientOptions;
pub use unanimo_core::{
    AbortReason, ClusterId, Decision, IdempotencyKey, KeyError, Members, Operation, ParticipantId,
    TransactionId,
};
