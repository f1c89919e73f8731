//! What clients do, and how it is done and written down.

mod bank;
mod executor;

use rand::rngs::StdRng;

use crate::cluster::Layout;
use crate::history::{Answer, Call, Step};

pub use executor::{Executor, ExecutorError};

/// What the clients of a run do.
pub trait Workload: Send + Sync {
    /// Its name, as the command line has it: `bank`.
    fn name(&self) -> &'static str;

    /// What there is before the history begins. Done as one transaction at each participant.
    fn opening(&self, layout: Layout) -> Vec<Step>;

    /// The work of one client. The same stream gives the same work.
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

/// What a client does next.
#[derive(Clone, Debug)]
pub enum Request {
    /// This.
    One(Call),
    /// All of these at the same moment, each as a client of its own.
    Together(Vec<Call>),
}

/// Every workload, by name.
pub fn all() -> Vec<Box<dyn Workload>> {
    vec![Box::new(bank::Bank)]
}
