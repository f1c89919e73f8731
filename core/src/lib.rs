//! The two-phase commit protocol of Unanimo, both sides, as pure state machines.
//!
//! Nothing here does IO. Inputs and the time come in as arguments, effects come out as values, and the driver
//! (the coordinator or the participant crate) carries the effects out **in the order given**: what must be
//! durable is made durable before the next effect is started. The same input to the same state gives the same
//! answer, so every run can be replayed and every interleaving can be tried by a test.
//!
//! * [`Transaction`] is one transaction at the coordinator: it collects votes, asks for a decision, and delivers
//!   it until every member has acknowledged. `Preparing → Deciding → Completing → Ended`.
//! * [`table`] is the replicated decision table, a write-once register for each transaction: the first decision
//!   applied wins, every later one gets the stored one back (R1). Whoever decides, decides there.
//! * [`Branch`] is a transaction's part at one participant: `Unknown → Preparing → Promising → Prepared →
//!   Committing → Recording → Finished`, or through `Aborting`. An interactive transaction comes in through
//!   `Joining → Joined` and goes on with `Promising`.
//! * [`Record`] is what a participant makes durable; [`recover`] folds records back into branches.
//!
//! The rules R1-R14 that comments cite are explained in `docs/protocol.md`. The protocol is two-phase commit
//! with presumed abort (Mohan, Lindsay and Obermarck, *Transaction Management in the R\* Distributed Database
//! Management System*, 1986), with the decision in a replicated register as in Gray and Lamport, *Consensus on
//! Transaction Commit*, 2006.
//!
//! Left out on purpose: time (the driver says when a timer fired), addresses, retries and back-off, batching,
//! and whatever a resource manager does. Isolation between transactions is the resource managers' work.

mod branch;
mod decision;
mod hash;
mod id;
mod key;
#[doc(hidden)]
pub mod mutants;
mod record;
mod request;
pub mod table;
mod time;
mod transaction;
mod vote;

pub use branch::{
    Branch, BranchEffect, BranchInput, Finish, JoinAnswer, JoinRequest, Phase as BranchPhase, PrepareRequest,
    Resolution, Work,
};
pub use decision::{AbortReason, Decision, Ignored, Violation};
pub use hash::RequestHash;
pub use id::{ClusterId, Generation, IdError, ParticipantId, Position, TransactionId};
pub use key::{IdempotencyKey, KeyError};
pub use record::{Contradiction, Prepared, Reach, Record, recover};
pub use request::{Limits, Members, Operation, Request, RequestError};
pub use time::Timestamp;
pub use transaction::{Phase as TransactionPhase, Transaction, TransactionEffect, TransactionInput};
pub use vote::{Tally, Verdict, Vote};
