//! The bank as a resource manager: what it promises, keeps, and takes up again.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use bank_transfer::{AccountId, Bank, BankError, BankName, Cents, Operation};
use bytes::Bytes;
use futures::FutureExt as _;
use proptest::prelude::*;
use unanimo_core::{Timestamp, TransactionId};
use unanimo_participant::{Preparation, ResourceError, ResourceManager};
use unanimo_table::{CheckpointStep, CheckpointWriter, Checkpointer, MemoryTable};

const ACCOUNTS: [&str; 3] = ["north-000001", "north-000002", "north-000003"];

fn id(text: &str) -> AccountId {
    text.parse().unwrap()
}

fn cents(cents: u64) -> Cents {
    Cents::new(cents).unwrap()
}

fn tx(number: usize) -> TransactionId {
    TransactionId::new(Timestamp::from_unix_ms(1_000 + number as u64), 0)
}

fn debit(account: usize, amount: u64) -> Operation {
    Operation::Debit {
        account: id(ACCOUNTS[account]),
        amount: cents(amount),
    }
}

fn credit(account: usize, amount: u64) -> Operation {
    Operation::Credit {
        account: id(ACCOUNTS[account]),
        amount: cents(amount),
    }
}

fn transfer(from: usize, to: usize, amount: u64) -> Operation {
    Operation::Transfer {
        from: id(ACCOUNTS[from]),
        to: id(ACCOUNTS[to]),
        amount: cents(amount),
    }
}

type Committing = Pin<Box<dyn Future<Output = Result<(), ResourceError>>>>;

/// A bank on a table that can crash, with checkpoints written when the test says so.
struct World {
    table: MemoryTable,
    bank: Bank,
    writer: CheckpointWriter,
}

impl World {
    /// The bank of the north, with these balances on its accounts.
    fn new(balances: [u64; 3]) -> Self {
        let mut world = Self::over(MemoryTable::new());
        let accounts: Vec<_> = ACCOUNTS.into_iter().map(id).zip(balances.map(cents)).collect();
        let bank = world.bank.clone();
        let mut loading = Box::pin(bank.load(&accounts));
        assert!(
            loading.as_mut().now_or_never().is_none(),
            "it answers only when the accounts are on disk"
        );
        world.checkpoint();
        loading.now_or_never().unwrap().unwrap();
        world
    }

    fn over(table: MemoryTable) -> Self {
        let (checkpointer, writer) = Checkpointer::new(Arc::new(table.clone()));
        let bank = Bank::new(BankName::North, Arc::new(table.clone()), checkpointer);
        Self { table, bank, writer }
    }

    fn checkpoint(&mut self) {
        let step = self.writer.step();
        assert!(
            matches!(step, CheckpointStep::Written { .. } | CheckpointStep::Idle),
            "{step:?}"
        );
    }

    /// Loses what a crash may lose, and everything in memory.
    fn crash(self, seed: u64) -> Self {
        self.table.crash(seed);
        Self::over(self.table)
    }

    /// None is a Yes; else why not.
    fn prepare(&self, number: usize, operation: Operation) -> Option<String> {
        self.prepare_bytes(number, operation.encode())
    }

    fn prepare_bytes(&self, number: usize, operation: Bytes) -> Option<String> {
        match self
            .bank
            .prepare(tx(number), operation.clone())
            .now_or_never()
            .unwrap()
            .unwrap()
        {
            Preparation::Yes { redo } => {
                assert_eq!(redo, operation);
                None
            }
            Preparation::No { reason } => Some(reason),
            Preparation::ReadOnly => panic!("no operation only reads"),
        }
    }

    /// Applies a commit, which waits for the next checkpoint.
    fn start_commit(&self, number: usize, operation: Operation) -> Committing {
        let bank = self.bank.clone();
        let mut committing: Committing =
            Box::pin(async move { bank.commit(tx(number), operation.encode()).await });
        let at_once = committing.as_mut().now_or_never();
        assert!(
            at_once.is_none(),
            "a commit is not acknowledged before it is on disk: {at_once:?}"
        );
        committing
    }

    fn commit(&mut self, number: usize, operation: Operation) {
        let committing = self.start_commit(number, operation);
        self.checkpoint();
        committing.now_or_never().unwrap().unwrap();
    }

    fn abort(&self, number: usize) {
        self.bank.abort(tx(number), None).now_or_never().unwrap().unwrap();
    }

    fn restore(&self, number: usize, operation: Operation) {
        self.bank
            .restore(tx(number), operation.encode())
            .now_or_never()
            .unwrap()
            .unwrap();
    }

    fn balances(&self) -> Vec<u64> {
        self.bank
            .accounts(None, 10)
            .unwrap()
            .into_iter()
            .map(|(_, balance)| balance.get())
            .collect()
    }

    fn ledger(&self) -> Vec<TransactionId> {
        self.bank
            .ledger(None, 100)
            .unwrap()
            .into_iter()
            .map(|(transaction, _)| transaction)
            .collect()
    }
}

#[test]
fn a_transfer_that_commits_changes_both_accounts_and_one_that_aborts_none() {
    let mut world = World::new([100, 0, 0]);
    assert_eq!(world.prepare(1, transfer(0, 1, 60)), None);
    assert_eq!(world.prepare(2, transfer(0, 2, 40)), None);
    assert_eq!(
        world.balances(),
        [100, 0, 0],
        "nothing is visible before the decision"
    );
    world.commit(1, transfer(0, 1, 60));
    world.abort(2);
    assert_eq!(world.balances(), [40, 60, 0]);
    assert_eq!(world.ledger(), [tx(1)]);
    assert_eq!(
        world.prepare(3, debit(0, 40)),
        None,
        "what was held for the second is free again"
    );
}

#[test]
fn what_cannot_be_promised_is_refused_with_the_reason() {
    let world = World::new([100, 0, Cents::MAX.get()]);
    let elsewhere = Operation::Debit {
        account: id("south-000001"),
        amount: cents(1),
    };
    let nobodys = Operation::Credit {
        account: id("north-999999"),
        amount: cents(1),
    };
    let cases = [
        (
            debit(0, 101),
            "insufficient funds: north-000001 has 1.00 available, 1.01 is needed",
        ),
        (debit(1, 1), "insufficient funds: north-000002 has 0.00 available"),
        (transfer(1, 0, 1), "insufficient funds: north-000002"),
        (
            credit(2, 1),
            "balance too large: north-000003 cannot take another 0.01",
        ),
        (nobodys, "unknown account: north-999999"),
        (elsewhere, "unknown account: south-000001"),
    ];
    for (operation, says) in cases {
        let reason = world.prepare(1, operation).unwrap();
        assert!(reason.starts_with(says), "{reason}");
    }
    let reason = world.prepare_bytes(1, Bytes::from_static(b"\xff\xff")).unwrap();
    assert!(reason.starts_with("malformed operation: "), "{reason}");
    assert_eq!(world.prepare(2, debit(0, 100)), None, "refusals hold nothing");
}

#[test]
fn a_commit_that_is_repeated_changes_nothing() {
    let mut world = World::new([100, 0, 0]);
    assert_eq!(world.prepare(1, debit(0, 30)), None);
    world.commit(1, debit(0, 30));
    world.commit(1, debit(0, 30));
    let mut world = world.crash(0);
    world.restore(1, debit(0, 30));
    assert_eq!(
        world.prepare(2, debit(0, 70)),
        None,
        "what has happened is not held"
    );
    world.commit(1, debit(0, 30));
    assert_eq!(world.balances(), [70, 0, 0]);
}

#[test]
fn a_promise_is_kept_over_a_restart() {
    let mut world = World::new([100, 0, 0]);
    assert_eq!(world.prepare(1, debit(0, 80)), None);
    world = world.crash(0);
    world.restore(1, debit(0, 80));
    assert!(world.prepare(2, debit(0, 21)).is_some());
    assert_eq!(world.prepare(3, debit(0, 20)), None);
    world.commit(1, debit(0, 80));
    assert_eq!(world.balances(), [20, 0, 0]);
}

#[test]
fn a_commit_that_a_crash_undid_is_done_again_whatever_was_promised_meanwhile() {
    // The credit of the first is visible, and lost again in the crash.
    for seed in 0..16 {
        let mut world = World::new([0, 0, 0]);
        assert_eq!(world.prepare(1, credit(0, 50)), None);
        drop(world.start_commit(1, credit(0, 50)));
        assert_eq!(world.balances(), [50, 0, 0]);
        let promised = world.prepare(2, debit(0, 50)).is_none();
        assert!(!promised, "money that a crash may take away is promised");
        world = world.crash(seed);
        world.restore(1, credit(0, 50));
        world.commit(1, credit(0, 50));
        assert_eq!(world.balances(), [50, 0, 0]);
        assert_eq!(world.prepare(2, debit(0, 50)), None);
    }
}

#[test]
fn aborting_what_was_never_seen_is_fine() {
    let world = World::new([100, 0, 0]);
    world.abort(9);
    assert_eq!(world.balances(), [100, 0, 0]);
}

#[test]
fn accounts_that_do_not_fit_the_journal_stop_the_bank() {
    let mut world = World::new([100, 0, 0]);
    assert_eq!(world.prepare(1, debit(0, 30)), None);
    world.commit(1, debit(0, 30));
    let again = world
        .bank
        .prepare(tx(1), debit(0, 30).encode())
        .now_or_never()
        .unwrap()
        .unwrap_err();
    assert!(matches!(&again, ResourceError::Failed { .. }), "{again}");
    assert!(
        again
            .to_string()
            .contains("asked for a vote after it has committed"),
        "{again}"
    );
    // Nobody promised this one.
    let unpromised = world
        .bank
        .commit(tx(2), debit(0, 71).encode())
        .now_or_never()
        .unwrap()
        .unwrap_err();
    assert!(
        unpromised.to_string().contains("which cannot be done"),
        "{unpromised}"
    );
    let unreadable = world
        .bank
        .commit(tx(3), Bytes::from_static(b"?"))
        .now_or_never()
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(&unreadable, ResourceError::Failed { .. }),
        "{unreadable}"
    );
    assert_eq!((world.balances(), world.ledger()), (vec![70, 0, 0], vec![tx(1)]));
}

#[test]
fn a_checkpoint_that_fails_is_no_acknowledgement() {
    let mut world = World::new([100, 0, 0]);
    assert_eq!(world.prepare(1, debit(0, 30)), None);
    let committing = world.start_commit(1, debit(0, 30));
    world.table.fail_next_checkpoint();
    assert_eq!(world.writer.step(), CheckpointStep::Failed);
    let error = committing.now_or_never().unwrap().unwrap_err();
    assert!(matches!(error, ResourceError::Failed { .. }), "{error}");
    let later = world
        .bank
        .prepare(tx(2), debit(0, 1).encode())
        .now_or_never()
        .unwrap()
        .unwrap_err();
    assert!(matches!(later, ResourceError::Failed { .. }), "{later}");
}

#[test]
fn accounts_are_loaded_once_and_never_changed_by_it() {
    let mut world = World::new([100, 0, 0]);
    let load = |world: &mut World, accounts: &[(AccountId, Cents)]| {
        let bank = world.bank.clone();
        let mut loading = Box::pin(bank.load(accounts));
        let at_once = loading.as_mut().now_or_never();
        world.checkpoint();
        at_once.or_else(|| loading.now_or_never()).unwrap()
    };
    load(&mut world, &[(id(ACCOUNTS[0]), cents(100))]).unwrap();
    let refused = [
        (
            vec![(id("north-000009"), cents(1)), (id(ACCOUNTS[1]), cents(5))],
            "open already, with 0.00 in it",
        ),
        (
            vec![(id("north-000009"), cents(1)), (id("south-000001"), cents(5))],
            "is kept by bank-south",
        ),
        (
            vec![(id(ACCOUNTS[0]), cents(100)); 10_001],
            "too many for one call",
        ),
    ];
    for (accounts, says) in refused {
        let error = load(&mut world, &accounts).unwrap_err();
        assert!(
            matches!(&error, BankError::Refused { what } if what.contains(says)),
            "{error}"
        );
    }
    assert_eq!(world.balances(), [100, 0, 0], "all or none");
    let totals = world.bank.totals().unwrap();
    assert_eq!(
        (totals.accounts, totals.balance, totals.ledger_entries),
        (3, 100, 0)
    );
}

#[test]
fn lists_come_page_by_page() {
    let mut world = World::new([100, 0, 0]);
    for number in 1..=5 {
        assert_eq!(world.prepare(number, debit(0, 1)), None);
        world.commit(number, debit(0, 1));
    }
    let first = world.bank.ledger(None, 2).unwrap();
    let second = world.bank.ledger(Some(tx(2)), 2).unwrap();
    assert_eq!(first, [(tx(1), debit(0, 1)), (tx(2), debit(0, 1))]);
    assert_eq!(second, [(tx(3), debit(0, 1)), (tx(4), debit(0, 1))]);
    assert_eq!(world.bank.ledger(Some(tx(5)), 2).unwrap(), []);
    let accounts = world.bank.accounts(Some(id(ACCOUNTS[0])), 1).unwrap();
    assert_eq!(accounts, [(id(ACCOUNTS[1]), cents(0))]);
}

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
