//! Random lives of a bank: every promise is kept exactly once.

#![allow(clippy::unwrap_used)]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use bank_transfer::{Cents, Operation};
use futures::FutureExt as _;
use proptest::prelude::*;
use unanimo_core::TransactionId;

use world::{ACCOUNTS, Committing, World, credit, debit, id, transfer, tx};

/// What happens to the bank, and to the participant that it is embedded with.
#[derive(Clone, Debug)]
enum Event {
    Prepare(Operation),
    /// The decision on one of those that are prepared.
    Decide {
        which: usize,
        commit: bool,
    },
    /// A commit that is decided and not acknowledged is sent once more.
    Repeat {
        which: usize,
    },
    Checkpoint,
    Crash {
        seed: u64,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let amount = 1..60_u64;
    prop_oneof![
        (0..3_usize, amount.clone()).prop_map(|(account, amount)| debit(account, amount)),
        (0..3_usize, amount.clone()).prop_map(|(account, amount)| credit(account, amount)),
        (0..3_usize, 1..3_usize, amount).prop_map(|(from, by, amount)| transfer(
            from,
            (from + by) % 3,
            amount
        )),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => operation().prop_map(Event::Prepare),
        6 => (any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(which, commit)| Event::Decide { which, commit }),
        1 => any::<usize>().prop_map(|which| Event::Repeat { which }),
        2 => Just(Event::Checkpoint),
        1 => any::<u64>().prop_map(|seed| Event::Crash { seed }),
    ]
}

/// What the participant has in its journal: the promises, and which of them must be committed and are not yet
/// acknowledged.
#[derive(Default)]
struct Journal {
    prepared: BTreeMap<usize, Operation>,
    committing: BTreeMap<usize, (Operation, Option<Committing>)>,
    acknowledged: BTreeMap<usize, Operation>,
}

impl Journal {
    fn pick<T>(from: &BTreeMap<usize, T>, which: usize) -> Option<usize> {
        (!from.is_empty()).then(|| *from.keys().nth(which % from.len()).unwrap())
    }

    /// Notes who was acknowledged.
    fn hear(&mut self) {
        for (number, (operation, mut waiting)) in std::mem::take(&mut self.committing) {
            match waiting
                .as_mut()
                .and_then(|committing| committing.as_mut().now_or_never())
            {
                Some(answer) => {
                    answer.unwrap();
                    self.acknowledged.insert(number, operation);
                }
                None => drop(self.committing.insert(number, (operation, waiting))),
            }
        }
    }
}

fn happen(world: World, journal: &mut Journal, number: usize, event: Event) -> World {
    let mut world = world;
    match event {
        Event::Prepare(operation) => {
            if world.prepare(number, operation).is_none() {
                journal.prepared.insert(number, operation);
            }
        }
        Event::Decide { which, commit } => {
            if let Some(number) = Journal::pick(&journal.prepared, which) {
                let operation = journal.prepared.remove(&number).unwrap();
                if commit {
                    let committing = world.start_commit(number, operation);
                    journal.committing.insert(number, (operation, Some(committing)));
                } else {
                    world.abort(number);
                }
            }
        }
        Event::Repeat { which } => {
            if let Some(number) = Journal::pick(&journal.committing, which) {
                let operation = journal.committing[&number].0;
                let committing = world.start_commit(number, operation);
                journal.committing.insert(number, (operation, Some(committing)));
            }
        }
        Event::Checkpoint => {
            world.checkpoint();
            journal.hear();
        }
        Event::Crash { seed } => {
            world = world.crash(seed);
            for (&number, (operation, waiting)) in &mut journal.committing {
                *waiting = None;
                world.restore(number, *operation);
            }
            for (&number, &operation) in &journal.prepared {
                world.restore(number, operation);
            }
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is prepared, decided, repeated and crashed in whatever order: every promise can be kept, and in the end
    /// the balances are what the committed transactions make them, each counted once.
    #[test]
    fn every_promise_is_kept_exactly_once(events in prop::collection::vec(event(), 1..80), last in any::<usize>()) {
        let opening = [50, 0, Cents::MAX.get() - 50];
        let mut world = World::new(opening);
        let mut journal = Journal::default();
        for (number, event) in events.into_iter().enumerate() {
            world = happen(world, &mut journal, number, event);
        }
        // Every promise is called in, and every commit that nobody heard of is repeated, in any order.
        let mut rest: BTreeMap<usize, Operation> = std::mem::take(&mut journal.prepared);
        rest.extend(std::mem::take(&mut journal.committing).into_iter().map(|(number, (operation, _))| (number, operation)));
        while let Some(number) = Journal::pick(&rest, last) {
            let operation = rest.remove(&number).unwrap();
            let committing = world.start_commit(number, operation);
            journal.committing.insert(number, (operation, Some(committing)));
        }
        world.checkpoint();
        journal.hear();
        prop_assert!(journal.committing.is_empty());

        let mut expected = opening.map(i128::from);
        for operation in journal.acknowledged.values() {
            let amount = i128::from(operation.amount().get());
            for (place, account) in ACCOUNTS.into_iter().map(id).enumerate() {
                expected[place] -= if operation.debited() == Some(account) { amount } else { 0 };
                expected[place] += if operation.credited() == Some(account) { amount } else { 0 };
            }
        }
        let balances: Vec<i128> = world.balances().into_iter().map(i128::from).collect();
        prop_assert_eq!(balances, expected);
        let ledger: BTreeSet<TransactionId> = world.ledger().into_iter().collect();
        prop_assert_eq!(ledger, journal.acknowledged.keys().map(|&number| tx(number)).collect());
        // Nothing is left held.
        for (place, balance) in world.balances().into_iter().enumerate() {
            if balance > 0 {
                prop_assert_eq!(world.prepare(10_000 + place, debit(place, balance)), None);
            }
        }
    }
}
