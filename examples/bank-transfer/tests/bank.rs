//! The bank as a resource manager: what it promises, keeps, and takes up again.

#![allow(clippy::unwrap_used)]

mod world;

use bank_transfer::{AccountId, BankError, Cents, Operation};
use bytes::Bytes;
use futures::FutureExt as _;
use unanimo_participant::{ResourceError, ResourceManager};
use unanimo_table::CheckpointStep;

use world::{ACCOUNTS, World, cents, credit, debit, id, transfer, tx};

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
