//! Power losses and failures at every operation: nothing acknowledged is missing, nothing else appears.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod driver;

use driver::book::Book;
use driver::{Driver, small};
use unanimo_journal::{Lose, OpenError, SimulatedDisk, Step};

/// What is done between two power losses. Deterministic, so that the same operations come at the same counts.
fn live(disk: &SimulatedDisk, book: &mut Book) -> Result<(), OpenError> {
    let mut driver = Driver::try_open(disk, small())?;
    book.check(&driver, "begin of a life");
    for round in 0..20_u64 {
        let payload = |size: u64| format!("{:x>size$}", book.next(), size = size as usize).into_bytes();
        let (short, long) = (payload(20 + round * 3), payload(250 + round % 10 * 97));
        match round % 10 {
            // A group that spans segments, with a truncation in it.
            3 | 8 => {
                book.append(&driver, long.clone());
                book.append(&driver, long.clone());
                book.truncate_after(&driver, book.next() - 2, short);
                book.append(&driver, long.clone());
                book.append(&driver, long);
            }
            // Lazy records: written, not synced, then carried along.
            2 | 6 => {
                book.append_lazily(&driver, short);
                step(&mut driver, book);
                book.append(&driver, long);
            }
            5 | 9 => book.release_before(&driver, book.next() - 2),
            _ => {
                book.append(&driver, short);
                book.append(&driver, long);
            }
        }
        // Groups follow each other with and without the seal and the segments' housekeeping between them.
        let steps = if round % 2 == 0 { 1 } else { 4 };
        for _ in 0..steps {
            step(&mut driver, book);
        }
    }
    driver.journal.close();
    for _ in 0..10 {
        step(&mut driver, book);
    }
    Ok(())
}

fn step(driver: &mut Driver, book: &mut Book) {
    driver.writer.step();
    book.hear(driver);
}

/// Opens, checks, appends, and checks again that all of it survives.
fn go_on(disk: &SimulatedDisk, book: &mut Book, context: &str) {
    let mut driver = Driver::try_open(disk, small()).unwrap_or_else(|error| panic!("{context}: {error}"));
    book.check(&driver, context);
    book.append(&driver, b"first of a new life".to_vec());
    assert_eq!(driver.settle(), Step::Idle, "{context}");
    book.hear(&driver);
    book.append(&driver, vec![b'y'; 700]);
    assert_eq!(driver.settle(), Step::Idle, "{context}");
    book.hear(&driver);
    assert_eq!(book.promised(), book.next() - 1, "{context}: appends go on");
    drop(driver);
    disk.crash_losing_everything();
    let driver = Driver::try_open(disk, small()).unwrap_or_else(|error| panic!("{context}, then: {error}"));
    book.check(&driver, context);
}

/// A journal that has seen some use, so that the life under test starts in the middle of things.
fn used() -> (SimulatedDisk, Book) {
    let (disk, mut book) = (SimulatedDisk::new(), Book::default());
    live(&disk, &mut book).unwrap();
    (disk, book)
}

/// The life under test with the power going off at each of its operations in turn.
fn cut_short(mut each: impl FnMut(u64, &SimulatedDisk, &Book)) {
    for (disk, book) in [(SimulatedDisk::new(), Book::default()), used()] {
        let whole = disk.fork();
        live(&whole, &mut book.clone()).unwrap();
        let operations = disk.operations()..whole.operations();
        assert!(
            operations.end - operations.start > 80,
            "a life has many operations: {operations:?}"
        );
        for operation in operations {
            let (disk, mut book) = (disk.fork(), book.clone());
            disk.power_off_at_operation(operation);
            // Opening may be what fails; then there was no life.
            let _ = live(&disk, &mut book);
            each(operation, &disk, &book);
        }
    }
}

#[test]
fn a_power_loss_at_any_operation_loses_nothing_acknowledged() {
    cut_short(|operation, disk, book| {
        for seed in 0..40 {
            let (disk, mut book) = (disk.fork(), book.clone());
            disk.crash(seed);
            go_on(&disk, &mut book, &format!("off at {operation}, crash {seed}"));
        }
    });
}

#[test]
fn a_killed_process_loses_nothing_it_has_written() {
    cut_short(|operation, disk, book| {
        let (disk, mut book) = (disk.fork(), book.clone());
        disk.power_on();
        go_on(&disk, &mut book, &format!("killed at {operation}"));
    });
}

#[test]
fn a_power_loss_while_recovering_from_one_changes_nothing() {
    cut_short(|operation, disk, book| {
        for seed in 0..4 {
            let disk = disk.fork();
            disk.crash(seed);
            let recovered = disk.fork();
            drop(Driver::open(&recovered));
            for second in disk.operations()..recovered.operations() {
                for third in 0..4 {
                    let (disk, mut book) = (disk.fork(), book.clone());
                    disk.power_off_at_operation(second);
                    assert!(
                        Driver::try_open(&disk, small()).is_err(),
                        "opening needs operation {second}"
                    );
                    disk.crash(third);
                    let context = format!("off at {operation}, crash {seed}, off at {second}, crash {third}");
                    go_on(&disk, &mut book, &context);
                }
            }
        }
    });
}

/// The life under test with each of its syncs or writes, by what `count` counts, failing in turn.
fn failing(
    count: impl Fn(&SimulatedDisk) -> u64,
    fail: impl Fn(&SimulatedDisk, u64),
    mut each: impl FnMut(u64, &SimulatedDisk, &Book),
) {
    for (disk, book) in [(SimulatedDisk::new(), Book::default()), used()] {
        let whole = disk.fork();
        live(&whole, &mut book.clone()).unwrap();
        let faults = count(&whole) - count(&disk);
        assert!(faults > 20, "a life has many of them: {faults}");
        for nth in 1..=faults {
            let (disk, mut book) = (disk.fork(), book.clone());
            fail(&disk, nth);
            // Opening may be what fails; then there was no life.
            let _ = live(&disk, &mut book);
            each(nth, &disk, &book);
        }
    }
}

#[test]
fn a_failed_sync_promises_nothing_false_even_if_it_drops_the_data() {
    for lose in [Lose::Nothing, Lose::Data] {
        failing(
            SimulatedDisk::syncs,
            |disk, nth| disk.fail_nth_sync(nth, lose),
            |nth, disk, book| {
                let (restarted, mut told) = (disk.fork(), book.clone());
                restarted.power_on();
                go_on(
                    &restarted,
                    &mut told,
                    &format!("sync {nth} failed ({lose:?}), restart"),
                );
                for seed in 0..10 {
                    let (crashed, mut told) = (disk.fork(), book.clone());
                    crashed.crash(seed);
                    go_on(
                        &crashed,
                        &mut told,
                        &format!("sync {nth} failed ({lose:?}), crash {seed}"),
                    );
                }
            },
        );
    }
}

#[test]
fn a_sync_that_fails_during_recovery_is_made_up_for_at_the_next() {
    cut_short(|operation, disk, book| {
        for nth in 1..=3 {
            let (disk, mut book) = (disk.fork(), book.clone());
            disk.power_on();
            disk.fail_nth_sync(nth, Lose::Data);
            let first = Driver::try_open(&disk, small()).map(drop);
            disk.power_on();
            let context = format!("killed at {operation}, recovery {first:?} at sync {nth}");
            go_on(&disk, &mut book, &context);
        }
    });
}

#[test]
fn a_failed_write_promises_nothing_false() {
    for errno in [SimulatedDisk::EIO, SimulatedDisk::ENOSPC] {
        failing(
            SimulatedDisk::writes,
            |disk, nth| disk.fail_nth_write(nth, errno),
            |nth, disk, book| {
                let (restarted, mut told) = (disk.fork(), book.clone());
                restarted.power_on();
                go_on(
                    &restarted,
                    &mut told,
                    &format!("write {nth} failed ({errno}), restart"),
                );
                for seed in 0..10 {
                    let (crashed, mut told) = (disk.fork(), book.clone());
                    crashed.crash(seed);
                    go_on(
                        &crashed,
                        &mut told,
                        &format!("write {nth} failed ({errno}), crash {seed}"),
                    );
                }
            },
        );
    }
}

/// The zeros of a first recovery are lost with their failed sync, but can be read as if they were there. What they were
/// to cover must not come back behind records that are acknowledged later.
#[test]
fn what_a_recovery_has_cut_stays_away_even_if_its_sync_failed() {
    let mut tried = 0;
    for seed in 0..600 {
        let disk = SimulatedDisk::new();
        let mut driver = Driver::open(&disk);
        driver.append("first");
        driver.settle();
        // A group of two is torn: of the first nothing is on disk, of the second everything.
        driver.journal.append(vec![b'a'; 1368], |_| ()).unwrap();
        driver.journal.append(vec![b'b'; 600], |_| ()).unwrap();
        disk.power_off_at_operation(disk.operations() + 1);
        driver.writer.step();
        disk.crash(seed);
        let bytes = disk.contents(driver::FIRST_SEGMENT).unwrap();
        let second_is_there = bytes[1536..1540] != [0; 4];
        if !second_is_there || Driver::open(&disk.fork()).replayed.len() != 1 {
            continue;
        }
        disk.fail_nth_sync(1, Lose::Data);
        assert!(Driver::try_open(&disk, small()).is_err());
        disk.power_on();
        // The same first record again makes the old second one fit behind it.
        let mut driver = Driver::open(&disk);
        driver
            .journal
            .append(vec![b'a'; 1368], |durable| durable.unwrap())
            .unwrap();
        assert!(matches!(driver.writer.step(), Step::Wrote { durable: true, .. }));
        disk.crash_losing_everything();
        let replayed = Driver::open(&disk).replayed;
        assert_eq!(replayed.len(), 2, "seed {seed}");
        tried += 1;
    }
    assert!(tried > 10, "only {tried} crashes left the second record alone");
}
