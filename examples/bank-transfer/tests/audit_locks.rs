//! Whole-bank audits at one bank and at two: what waits for what, and what is seen.

#![allow(clippy::unwrap_used)]

mod world;

use std::pin::Pin;
use std::time::Duration;

use bank_transfer::{Asked, Bank, Promised};
use futures::FutureExt as _;
use tokio::time::Instant;
use unanimo_core::Timestamp;
use unanimo_participant::{Preparation, ResourceError, ResourceManager};

use world::{World, cents, credit, debit, id, tx};

type Preparing = Pin<Box<dyn Future<Output = Result<Preparation, ResourceError>>>>;

/// Asks for an audit with a cut long ago: everything that begins from now on waits.
fn start_audit(bank: &Bank, number: usize) -> Preparing {
    start(
        bank,
        number,
        Asked::Audit {
            cut: Timestamp::from_unix_ms(0),
        },
    )
}

fn start(bank: &Bank, number: usize, asked: Asked) -> Preparing {
    let bank = bank.clone();
    Box::pin(async move { bank.prepare(tx(number), asked.encode()).await })
}

fn now(preparing: &mut Preparing) -> Option<Preparation> {
    preparing.as_mut().now_or_never().map(Result::unwrap)
}

fn told(total: u64) -> Preparation {
    Preparation::Yes {
        redo: Promised::Audited { total }.encode(),
    }
}

#[track_caller]
fn refusal(answer: Preparation) -> String {
    match answer {
        Preparation::No { reason } => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn an_audit_of_a_quiet_bank_reads_at_once() {
    let mut world = World::new([100, 20, 3]);
    let mut audit = start_audit(&world.bank, 1);
    assert_eq!(now(&mut audit), Some(told(123)));
    let commit = world.bank.clone();
    let mut committing = Box::pin(async move {
        let redo = Promised::Audited { total: 123 }.encode();
        commit.commit(tx(1), redo).await
    });
    assert!(
        committing.as_mut().now_or_never().is_none(),
        "it is acknowledged when it is on disk"
    );
    world.checkpoint();
    committing.now_or_never().unwrap().unwrap();
    assert_eq!(world.bank.audits(None, 10).unwrap(), [(tx(1), 123)]);
    assert!(world.ledger().is_empty(), "it moved nothing");
}

#[tokio::test(start_paused = true)]
async fn an_audit_waits_for_what_is_promised_and_keeps_out_what_comes_later() {
    let mut world = World::new([100, 0, 0]);
    assert_eq!(world.prepare(1, debit(0, 30)), None);
    let mut audit = start_audit(&world.bank, 2);
    assert_eq!(now(&mut audit), None, "a transfer is under way");
    let mut later = start(&world.bank, 3, Asked::Move(debit(0, 1)));
    assert_eq!(now(&mut later), None, "an audit is announced");
    drop(world.start_commit(1, debit(0, 30)));
    assert_eq!(
        now(&mut audit),
        Some(told(70)),
        "applied is enough, on disk or not"
    );
    assert_eq!(now(&mut later), None, "the audit is not decided");
    world.bank.abort(tx(2), None).await.unwrap();
    assert_eq!(
        now(&mut later),
        Some(Preparation::Yes {
            redo: debit(0, 1).encode()
        })
    );
    world.checkpoint();
    assert!(world.bank.audits(None, 10).unwrap().is_empty(), "it was aborted");
}

#[tokio::test(start_paused = true)]
async fn audits_share_the_lock() {
    let world = World::new([100, 0, 0]);
    assert_eq!(now(&mut start_audit(&world.bank, 1)), Some(told(100)));
    assert_eq!(now(&mut start_audit(&world.bank, 2)), Some(told(100)));
    let mut transfer = start(&world.bank, 3, Asked::Move(debit(0, 1)));
    assert_eq!(now(&mut transfer), None);
    world.abort(1);
    assert_eq!(now(&mut transfer), None, "the second audit has the bank still");
    world.abort(2);
    assert!(now(&mut transfer).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_audit_makes_way_for_a_transfer_that_does_not_end() {
    let world = World::new([100, 0, 0]);
    assert_eq!(world.prepare(1, debit(0, 30)), None);
    let mut audit = start_audit(&world.bank, 2);
    let mut later = start(&world.bank, 3, Asked::Move(debit(0, 1)));
    assert_eq!((now(&mut audit), now(&mut later)), (None, None));
    let started = Instant::now();
    assert_eq!(refusal(audit.await.unwrap()), "busy: transfers are under way");
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(now(&mut later).is_some(), "it lets go of the bank");
}

#[tokio::test(start_paused = true)]
async fn an_audit_is_patient_while_transfers_end_but_not_for_ever() {
    for (pause, expected) in [
        (200, told(100)),
        (
            240,
            Preparation::No {
                reason: "busy: transfers are under way".to_owned(),
            },
        ),
    ] {
        let world = World::new([100, 0, 0]);
        for number in 0..22 {
            assert_eq!(world.prepare(number, debit(0, 1)), None);
        }
        let bank = world.bank.clone();
        let one_after_the_other = async {
            for number in 0..22 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                bank.abort(tx(number), None).await.unwrap();
            }
        };
        // The last one goes after 4.4 seconds, or after 5.3.
        let (answer, ()) = tokio::join!(start_audit(&world.bank, 30), one_after_the_other);
        assert_eq!(answer.unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_does_not_wait_for_an_audit_for_ever() {
    let world = World::new([100, 0, 0]);
    assert_eq!(now(&mut start_audit(&world.bank, 1)), Some(told(100)));
    let started = Instant::now();
    let transfer = start(&world.bank, 2, Asked::Move(debit(0, 1)));
    assert_eq!(refusal(transfer.await.unwrap()), "busy: an audit has the bank");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "the time for voting is not over"
    );
}

#[tokio::test(start_paused = true)]
async fn transfers_begun_before_the_cut_still_pass() {
    let world = World::new([100, 0, 0]);
    // Transactions have ids of a moment long ago, and of a second later.
    let cut = tx(5).timestamp();
    assert_eq!(world.prepare(1, debit(0, 30)), None);
    let mut audit = start(&world.bank, 6, Asked::Audit { cut });
    assert_eq!(now(&mut audit), None);
    assert_eq!(world.prepare(4, debit(0, 1)), None, "begun before the cut");
    let mut at_cut = start(&world.bank, 5, Asked::Move(debit(0, 1)));
    assert_eq!(now(&mut at_cut), None, "begun at the cut");
    world.abort(1);
    assert_eq!(now(&mut audit), None, "the other that passed is under way");
    world.abort(4);
    assert_eq!(now(&mut audit), Some(told(100)));
    let mut early = start(&world.bank, 3, Asked::Move(debit(0, 1)));
    assert_eq!(now(&mut early), None, "the lock keeps everybody out");
}

#[tokio::test(start_paused = true)]
async fn a_cut_far_ahead_and_too_many_audits_are_refused() {
    let world = World::new([100, 0, 0]);
    let far = Timestamp::from_unix_ms(u64::MAX / 2);
    let mut audit = start(&world.bank, 1, Asked::Audit { cut: far });
    let reason = refusal(now(&mut audit).unwrap());
    assert!(reason.starts_with("malformed operation: the cut is"), "{reason}");
    assert_eq!(world.prepare(2, debit(0, 1)), None, "it keeps nobody out");
    world.abort(2);
    for number in 10..18 {
        assert_eq!(now(&mut start_audit(&world.bank, number)), Some(told(100)));
    }
    assert_eq!(
        refusal(now(&mut start_audit(&world.bank, 18)).unwrap()),
        "busy: too many audits at once"
    );
}

#[tokio::test(start_paused = true)]
async fn the_lock_is_kept_over_a_restart_until_the_decision() {
    let world = World::new([100, 0, 0]);
    assert_eq!(now(&mut start_audit(&world.bank, 1)), Some(told(100)));
    let mut world = world.crash(0);
    let redo = Promised::Audited { total: 100 }.encode();
    world.bank.restore(tx(1), redo.clone()).await.unwrap();
    let mut transfer = start(&world.bank, 2, Asked::Move(debit(0, 1)));
    assert_eq!(now(&mut transfer), None);
    let bank = world.bank.clone();
    let mut committing = Box::pin(async move { bank.commit(tx(1), redo).await });
    assert!(committing.as_mut().now_or_never().is_none());
    assert!(now(&mut transfer).is_some(), "decided: all have voted");
    world.checkpoint();
    committing.await.unwrap();
    // Restored once more, after a crash before the record of the commit: it has happened.
    let world = world.crash(1);
    world
        .bank
        .restore(tx(1), Promised::Audited { total: 100 }.encode())
        .await
        .unwrap();
    assert_eq!(world.prepare(3, debit(0, 1)), None);
    assert_eq!(world.bank.audits(None, 10).unwrap(), [(tx(1), 100)]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_a_crash_undid_is_applied_under_the_lock() {
    let world = World::new([100, 0, 0]);
    assert_eq!(world.prepare(1, debit(0, 30)), None);
    drop(world.start_commit(1, debit(0, 30)));
    assert_eq!(now(&mut start_audit(&world.bank, 2)), Some(told(70)));
    let mut world = world.crash(0);
    world.restore(1, debit(0, 30));
    world
        .bank
        .restore(tx(2), Promised::Audited { total: 70 }.encode())
        .await
        .unwrap();
    world.commit(1, debit(0, 30));
    assert_eq!(world.balances()[0], 70, "what the audit has seen");
}

/// The proof in `src/audit_locks.rs`, played: one half of a transfer is applied here while the audit reads there.
#[tokio::test(start_paused = true)]
async fn an_audit_of_two_banks_never_sees_half_a_transfer() {
    let (here, there) = (World::new([100, 0, 0]), World::new([100, 0, 0]));
    assert_eq!(
        (here.prepare(1, debit(0, 30)), there.prepare(1, credit(0, 30))),
        (None, None)
    );
    let (mut audit_here, mut audit_there) = (start_audit(&here.bank, 2), start_audit(&there.bank, 2));
    drop(here.start_commit(1, debit(0, 30)));
    assert_eq!(now(&mut audit_here), Some(told(70)));
    assert_eq!(now(&mut audit_there), None, "the other half is not applied");
    drop(there.start_commit(1, credit(0, 30)));
    assert_eq!(now(&mut audit_there), Some(told(130)));
}

#[tokio::test(start_paused = true)]
async fn a_check_only_reads() {
    let world = World::new([100, 0, 0]);
    let check = |at_least| Asked::Check {
        account: id("north-000001"),
        at_least: cents(at_least),
    };
    assert_eq!(
        now(&mut start(&world.bank, 1, check(100))),
        Some(Preparation::ReadOnly)
    );
    assert_eq!(world.prepare(2, debit(0, 100)), None, "it holds nothing");
    let reason = refusal(now(&mut start(&world.bank, 3, check(1))).unwrap());
    assert!(
        reason.starts_with("insufficient funds: north-000001 has 0.00 available"),
        "{reason}"
    );
    world.abort(2);
    let elsewhere = Asked::Check {
        account: id("south-000001"),
        at_least: cents(1),
    };
    let reason = refusal(now(&mut start(&world.bank, 4, elsewhere)).unwrap());
    assert_eq!(reason, "unknown account: south-000001");
    // An audit neither waits for it nor stops it.
    assert_eq!(now(&mut start_audit(&world.bank, 5)), Some(told(100)));
    assert_eq!(
        now(&mut start(&world.bank, 6, check(100))),
        Some(Preparation::ReadOnly)
    );
}
