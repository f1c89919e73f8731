use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::chance::Lot;
use super::money::{self, ACCOUNTS};
use super::{Ask, Leaves, Request, Work, Workload};
use crate::cluster::Layout;
use crate::history::{Call, Step, Style};

/// Keys that a client remembers, to use them again.
const REMEMBERED: usize = 16;
/// What each kind of work is of a hundred operations. The rest is new keys, each asked for twice at once.
const ALONE: u32 = 15;
const AGAIN: u32 = 25;
const OTHER: u32 = 8;
const TWO_AT_ONCE: u32 = 5;
const UNANSWERED: u32 = 4;

/// Transfers under idempotency keys: by two clients at the same moment through two nodes, again later, again after an
/// answer that nobody heard, and with another request under the same key.
pub(super) struct Keys;

struct Payer {
    layout: Layout,
    number: usize,
    random: StdRng,
    keys: u64,
    /// Keys in use, with the requests that they were first used for.
    known: VecDeque<(String, Vec<Step>)>,
    /// What to ask again next: nobody heard the answer.
    again: Option<Call>,
}

impl Workload for Keys {
    fn name(&self) -> &'static str {
        "keys"
    }

    fn opening(&self, layout: Layout) -> Vec<Step> {
        money::opening(layout)
    }

    fn client(&self, layout: Layout, number: usize, random: StdRng) -> Box<dyn Work> {
        Box::new(Payer {
            layout,
            number,
            random,
            keys: 0,
            known: VecDeque::new(),
            again: None,
        })
    }
}

impl Work for Payer {
    fn next(&mut self) -> Request {
        if let Some(call) = self.again.take() {
            return self.somewhere(call);
        }
        let mut lot = Lot::draw(&mut self.random);
        if lot.is(ALONE) {
            let call = self.new_key();
            return self.somewhere(call);
        }
        if lot.is(AGAIN) && !self.known.is_empty() {
            let (key, steps) = self.known_key();
            return self.somewhere(keyed(key, steps));
        }
        if lot.is(OTHER) && !self.known.is_empty() {
            let (key, steps) = self.known_key();
            let other = self.other_than(&steps);
            return self.somewhere(keyed(key, other));
        }
        if lot.is(TWO_AT_ONCE) {
            let (key, steps) = self.take_key();
            // Which of them wins is not known, so it is not remembered.
            self.known.pop_back();
            let other = self.other_than(&steps);
            return self.through_different_nodes([keyed(key.clone(), steps), keyed(key, other)]);
        }
        if lot.is(UNANSWERED) {
            let call = self.new_key();
            self.again = Some(call.clone());
            let after = Duration::from_millis(self.random.random_range(0..30));
            return Request::One(Ask::from(call).leaves(Leaves::Unanswered(after)));
        }
        let call = self.new_key();
        self.through_different_nodes([call.clone(), call])
    }
}

impl Payer {
    fn new_key(&mut self) -> Call {
        let (key, steps) = self.take_key();
        keyed(key, steps)
    }

    /// A key that nobody has used, and what for.
    fn take_key(&mut self) -> (String, Vec<Step>) {
        self.keys += 1;
        let key = format!("client-{}-{}", self.number, self.keys);
        let amount = money::amount(&mut self.random);
        let mut names = self.layout.names();
        names.shuffle(&mut self.random);
        names.truncate(2);
        let accounts: Vec<_> = names
            .into_iter()
            .map(|name| (name, money::account(self.random.random_range(0..ACCOUNTS))))
            .collect();
        let steps = money::transfer(&accounts, amount);
        if self.known.len() == REMEMBERED {
            self.known.pop_front();
        }
        self.known.push_back((key.clone(), steps.clone()));
        (key, steps)
    }

    fn known_key(&mut self) -> (String, Vec<Step>) {
        let place = self.random.random_range(0..self.known.len());
        self.known[place].clone()
    }

    /// The same way, with another amount.
    fn other_than(&mut self, steps: &[Step]) -> Vec<Step> {
        let accounts: Vec<_> = steps
            .iter()
            .map(|step| (step.participant.clone(), step.cell.clone()))
            .collect();
        loop {
            let other = money::transfer(&accounts, money::amount(&mut self.random));
            if other != steps {
                return other;
            }
        }
    }

    fn somewhere(&mut self, call: Call) -> Request {
        let node = self.random.random_range(1..=self.layout.coordinators);
        Request::One(Ask::from(call).through(node))
    }

    fn through_different_nodes(&mut self, calls: [Call; 2]) -> Request {
        let mut nodes: Vec<u64> = self.layout.nodes().collect();
        nodes.shuffle(&mut self.random);
        let nodes = nodes.into_iter().cycle();
        let asks = calls
            .into_iter()
            .zip(nodes)
            .map(|(call, node)| Ask::from(call).through(node));
        Request::Together(asks.collect())
    }
}

fn keyed(key: String, steps: Vec<Step>) -> Call {
    Call::Transact {
        transaction: None,
        style: Style::OneShot,
        key: Some(key),
        steps,
    }
}
