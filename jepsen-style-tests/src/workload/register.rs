use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use unanimo_core::{Timestamp, TransactionId};
use unanimo_proto::transport::{Clock as _, SystemClock};

use super::chance::Lot;
use super::money::{self, ACCOUNTS};
use super::{Ask, Request, Work, Workload};
use crate::cluster::Layout;
use crate::history::{Answer, Call, Step, Style, Tx};

/// Transactions that a client remembers, to ask about them again.
const REMEMBERED: usize = 16;
/// What each kind of work is of a hundred operations. The rest is new transactions with everybody asking.
const OLD: u32 = 15;
const REPEATED: u32 = 7;
const ANOTHER_REQUEST: u32 = 2;
const ABORTED_FIRST: u32 = 8;
/// Of so many new transactions, one is asked to be aborted while it runs, and one is refused by a member.
const ONE_ABORTED_IN: u32 = 3;
const ONE_REFUSED_IN: u32 = 8;
/// How much later than the transaction questions come: about as long as it takes.
const WHILE_IT_RUNS_MS: u64 = 40;

/// The decision on each transaction as a register that is written once: somebody submits it, others at the same time
/// ask every node how it ended, and some want it aborted.
pub(super) struct Register {
    /// The time that goes into ids: the cluster refuses those that are too old or too far ahead.
    pub(super) now: fn() -> Timestamp,
}

struct Asker {
    layout: Layout,
    random: StdRng,
    now: fn() -> Timestamp,
    known: VecDeque<Call>,
    /// What comes next in any case.
    next: VecDeque<Request>,
}

impl Default for Register {
    fn default() -> Self {
        Self {
            now: || SystemClock.now(),
        }
    }
}

impl Workload for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn opening(&self, layout: Layout) -> Vec<Step> {
        money::opening(layout)
    }

    fn client(&self, layout: Layout, _: usize, random: StdRng) -> Box<dyn Work> {
        Box::new(Asker {
            layout,
            random,
            now: self.now,
            known: VecDeque::new(),
            next: VecDeque::new(),
        })
    }
}

impl Work for Asker {
    fn next(&mut self) -> Request {
        if let Some(request) = self.next.pop_front() {
            return request;
        }
        let mut lot = Lot::draw(&mut self.random);
        if lot.is(OLD) && !self.known.is_empty() {
            let (old, _) = self.known();
            return Request::Together(self.everywhere(old, 0));
        }
        if lot.is(REPEATED) && !self.known.is_empty() {
            let (_, call) = self.known();
            return self.somewhere(call);
        }
        if lot.is(ANOTHER_REQUEST) && !self.known.is_empty() {
            let (old, _) = self.known();
            let other = submission(old, self.transfer());
            return self.somewhere(other);
        }
        let tx = Tx(TransactionId::new((self.now)(), self.random.random()));
        let call = submission(tx, self.transfer());
        if self.known.len() == REMEMBERED {
            self.known.pop_front();
        }
        self.known.push_back(call.clone());
        if lot.is(ABORTED_FIRST) {
            // Whoever comes with it afterwards is too late.
            let abort = abort_of(tx, &call);
            let submit = self.somewhere(call);
            let questions = Request::Together(self.everywhere(tx, 0));
            self.next.extend([submit, questions]);
            return abort.into();
        }
        self.race(tx, call)
    }

    fn told(&mut self, call: &Call, answer: Option<&Answer>) {
        // Nobody knows how it ended: somebody may.
        if let (
            Call::Transact {
                transaction: Some(tx),
                ..
            },
            None,
        ) = (call, answer)
        {
            let questions = self.everywhere(*tx, 0);
            self.next.push_back(Request::Together(questions));
        }
    }
}

impl Asker {
    /// The transaction, and everybody who asks about it while it runs.
    fn race(&mut self, tx: Tx, call: Call) -> Request {
        let mut asks = self.everywhere(tx, WHILE_IT_RUNS_MS);
        if self.random.random_ratio(1, ONE_ABORTED_IN) {
            let after = self.moment(WHILE_IT_RUNS_MS);
            asks.push(Ask::from(abort_of(tx, &call)).after(after));
        }
        let node = self.random.random_range(1..=self.layout.coordinators);
        asks.insert(0, Ask::from(call).through(node));
        Request::Together(asks)
    }

    /// The outcome, asked of every node, each within so many milliseconds.
    fn everywhere(&mut self, transaction: Tx, within_ms: u64) -> Vec<Ask> {
        let nodes = self.layout.nodes();
        nodes
            .map(|node| Ask::from(Call::Query { transaction, node }).after(self.moment(within_ms)))
            .collect()
    }

    fn moment(&mut self, within_ms: u64) -> Duration {
        Duration::from_millis(self.random.random_range(0..=within_ms))
    }

    fn somewhere(&mut self, call: Call) -> Request {
        let node = self.random.random_range(1..=self.layout.coordinators);
        Request::One(Ask::from(call).through(node))
    }

    /// One of those that are remembered.
    fn known(&mut self) -> (Tx, Call) {
        let place = self.random.random_range(0..self.known.len());
        let call = self.known[place].clone();
        match call.transaction() {
            Some(tx) => (tx, call),
            None => unreachable!("every transaction here was made with an id"),
        }
    }

    fn transfer(&mut self) -> Vec<Step> {
        let mut names = self.layout.names();
        names.shuffle(&mut self.random);
        let most = names.len();
        names.truncate(self.random.random_range(most.min(2)..=most));
        let accounts: Vec<_> = names
            .into_iter()
            .map(|name| (name, money::account(self.random.random_range(0..ACCOUNTS))))
            .collect();
        let amount = match self.random.random_ratio(1, ONE_REFUSED_IN) {
            true => money::too_much(&mut self.random),
            false => money::amount(&mut self.random),
        };
        money::transfer(&accounts, amount)
    }
}

fn submission(tx: Tx, steps: Vec<Step>) -> Call {
    Call::Transact {
        transaction: Some(tx),
        style: Style::OneShot,
        key: None,
        steps,
    }
}

fn abort_of(transaction: Tx, call: &Call) -> Call {
    let steps = call.steps().iter();
    Call::Abort {
        transaction,
        members: steps.map(|step| step.participant.clone()).collect(),
    }
}
