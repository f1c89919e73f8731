//! What clients do, and how it is done and written down.

mod append;
mod bank;
mod booking;
mod chance;
mod executor;
mod interactive;
mod keys;
mod money;
mod register;
mod request;
#[cfg(test)]
mod tests;

use rand::rngs::StdRng;

use crate::cluster::Layout;
use crate::history::{Answer, Call, Step};

pub use executor::{Executor, ExecutorError};
pub use request::{Ask, Leaves, Request};

/// What the clients of a run do.
pub trait Workload: Send + Sync {
    /// Its name, as the command line has it: `bank`.
    fn name(&self) -> &'static str;

    /// What there is before the history begins. Done as one transaction at each participant.
    fn opening(&self, layout: Layout) -> Vec<Step>;

    /// The work of one client. The same stream and the same answers, heard in the same order, give the same work.
    fn client(&self, layout: Layout, number: usize, random: StdRng) -> Box<dyn Work>;
}

/// The work of one client.
pub trait Work: Send {
    /// What it does next.
    fn next(&mut self) -> Request;

    /// What came of it. `call` has what was read filled in; no answer means refused or unknown.
    fn told(&mut self, call: &Call, answer: Option<&Answer>) {
        let _ = (call, answer);
    }
}

/// Every workload, by name.
pub fn all() -> Vec<Box<dyn Workload>> {
    vec![
        Box::new(append::Append::default()),
        Box::new(bank::Bank),
        Box::new(booking::Booking),
        Box::new(keys::Keys),
        Box::new(register::Register::default()),
    ]
}
