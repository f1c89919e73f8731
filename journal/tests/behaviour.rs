//! What a journal does for its owner, one behaviour at a time.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod driver;

use std::sync::{Arc, Mutex};

use driver::{Driver, open, small, texts};
use futures::FutureExt;
use unanimo_journal::{
    AppendError, Journal, Lose, OpenError, Options, ReadError, Sequence, SimulatedDisk, Step,
};

fn at(number: u64) -> Sequence {
    Sequence::new(number)
}

#[test]
fn records_come_back_in_order_after_reopening() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    for text in ["one", "two", "three"] {
        driver.append(text);
    }
    driver.settle();
    assert_eq!(driver.acknowledged(), [at(1), at(2), at(3)]);
    driver.close();

    let reopened = Driver::open(&disk);
    assert_eq!(texts(&reopened.replayed), ["1 one", "2 two", "3 three"]);
    assert_eq!(
        (reopened.journal.first(), reopened.journal.next()),
        (at(1), at(4))
    );
    assert_eq!(reopened.journal.durable(), at(3));
}

#[test]
fn appends_that_wait_together_share_one_sync() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    let before = disk.syncs();
    for number in 0..50 {
        driver.append(&format!("record {number}"));
    }
    assert_eq!(
        driver.writer.step(),
        Step::Wrote {
            records: 50,
            durable: true
        }
    );
    assert_eq!(disk.syncs() - before, 1);
    assert_eq!(driver.acknowledged().len(), 50);
}

#[test]
fn a_group_ends_at_its_limit() {
    let options = Options {
        max_group_bytes: 300,
        ..small()
    };
    let mut driver = Driver::open_with(&SimulatedDisk::new(), options);
    for _ in 0..3 {
        driver.append(&"x".repeat(100));
    }
    driver.append(&"y".repeat(1000));
    let mut groups = Vec::new();
    while let Step::Wrote { records, .. } = driver.writer.step() {
        groups.push(records);
    }
    assert_eq!(
        groups,
        [2, 1, 1],
        "140 bytes each with what surrounds them; a large record goes alone"
    );
}

#[test]
fn lazy_records_force_no_sync_and_become_durable_with_the_next_that_does() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    let before = disk.syncs();
    driver.journal.append_lazily("lazy").unwrap();
    assert_eq!(
        driver.writer.step(),
        Step::Wrote {
            records: 1,
            durable: false
        }
    );
    assert_eq!((disk.syncs() - before, driver.journal.durable()), (0, at(0)));
    driver.append("eager");
    assert_eq!(
        driver.writer.step(),
        Step::Wrote {
            records: 1,
            durable: true
        }
    );
    assert_eq!((disk.syncs() - before, driver.journal.durable()), (1, at(2)));

    disk.crash_losing_everything();
    assert_eq!(texts(&Driver::open(&disk).replayed), ["1 lazy", "2 eager"]);
}

#[test]
fn closing_makes_lazy_records_durable() {
    let disk = SimulatedDisk::new();
    let driver = Driver::open(&disk);
    driver.journal.append_lazily("lazy").unwrap();
    driver.close();
    disk.crash_losing_everything();
    assert_eq!(texts(&Driver::open(&disk).replayed), ["1 lazy"]);
}

#[test]
fn records_can_be_read_before_and_after_they_are_written() {
    let mut driver = Driver::open(&SimulatedDisk::new());
    driver.append("early");
    assert_eq!(driver.journal.read(at(1)).unwrap(), "early");
    driver.settle();
    assert_eq!(driver.journal.read(at(1)).unwrap(), "early");
    assert!(matches!(
        driver.journal.read(at(2)),
        Err(ReadError::NotYet { .. })
    ));
    assert!(matches!(
        driver.journal.read(at(0)),
        Err(ReadError::Released { .. })
    ));
}

#[test]
fn reading_a_damaged_record_says_so() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    driver.append("precious");
    driver.settle();
    disk.flip_bit(driver::FIRST_SEGMENT, 64 + 32 + 32 + 3, 0);
    let error = driver.journal.read(at(1)).unwrap_err();
    assert!(matches!(error, ReadError::Damaged { offset: 96, .. }), "{error}");
}

#[test]
fn a_truncation_ends_records_at_once_and_after_reopening() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    for text in ["a", "b", "c"] {
        driver.append(text);
    }
    assert_eq!(driver.truncate_after(at(1), "d"), at(4));
    assert!(matches!(
        driver.journal.read(at(2)),
        Err(ReadError::Truncated { .. })
    ));
    assert_eq!(driver.journal.read(at(4)).unwrap(), "d");
    driver.append("e");
    driver.settle();
    assert_eq!(driver.journal.read(at(4)).unwrap(), "d");
    driver.close();

    let reopened = Driver::open(&disk);
    assert_eq!(texts(&reopened.replayed), ["1 a", "4 d", "5 e"]);
    assert!(matches!(
        reopened.journal.read(at(3)),
        Err(ReadError::Truncated { .. })
    ));
}

#[test]
fn released_segments_are_removed_and_stay_away() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    for number in 1..=40 {
        driver.append(&format!("{number:0400}"));
    }
    driver.settle();
    let before = disk.contents(driver::FIRST_SEGMENT);
    assert!(before.is_some());
    driver.journal.release_before(at(25));
    assert!(matches!(
        driver.journal.read(at(24)),
        Err(ReadError::Released { .. })
    ));
    driver.settle();
    assert_eq!(disk.contents(driver::FIRST_SEGMENT), None);
    assert_eq!(driver.journal.first(), at(25));
    assert_eq!(driver.journal.read(at(25)).unwrap(), format!("{:0400}", 25));
    driver.close();

    let reopened = Driver::open(&disk);
    assert_eq!(
        reopened.replayed.first().map(|(sequence, _)| *sequence),
        Some(at(25))
    );
    assert_eq!(reopened.replayed.len(), 16);
}

#[test]
fn a_release_inside_a_segment_removes_nothing_and_writes_nothing() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    driver.append("one");
    driver.append("two");
    driver.settle();
    let before = disk.operations();
    driver.journal.release_before(at(2));
    driver.settle();
    assert_eq!(disk.operations(), before);
    assert_eq!(driver.journal.first(), at(2));
}

#[test]
fn the_segment_that_records_a_release_is_not_removed_by_it() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    for size in [2000, 1000, 2000, 1700] {
        driver.append(&"x".repeat(size));
    }
    driver.settle();
    // Everything so far is released, which lets go of the first segment and is written down in the second.
    driver.journal.release_before(at(5));
    driver.settle();
    assert_eq!(disk.contents(driver::FIRST_SEGMENT), None);
    // The next record begins the third segment. Now the second holds nothing but the release.
    driver.append(&"x".repeat(1000));
    driver.settle();
    drop(driver);
    disk.crash_losing_everything();
    let mut driver = Driver::open(&disk);
    assert_eq!(driver.replayed.len(), 1);
    driver.settle();
    assert_eq!(
        disk.contents(driver::SECOND_SEGMENT),
        None,
        "it goes with a release of its own"
    );
    drop(driver);
    disk.crash_losing_everything();
    assert_eq!(Driver::open(&disk).replayed.len(), 1);
}

#[test]
fn everything_may_be_released_and_positions_still_rise() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    for _ in 0..30 {
        driver.append(&"x".repeat(300));
    }
    driver.journal.release_before(at(1000));
    driver.settle();
    driver.close();
    let reopened = Driver::open(&disk);
    assert_eq!(reopened.replayed, []);
    assert_eq!(reopened.append("next"), at(31));
}

#[test]
fn the_next_segment_is_prepared_before_it_is_needed() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    driver.append(&"x".repeat(1000));
    driver.settle();
    assert_eq!(
        disk.contents(driver::SECOND_SEGMENT),
        None,
        "not before the first is half full"
    );
    driver.append(&"x".repeat(1000));
    driver.settle();
    assert!(disk.contents(driver::SECOND_SEGMENT).is_some());
    let before = disk.operations();
    for _ in 0..2 {
        driver.append(&"x".repeat(1000));
    }
    driver.writer.step();
    assert_eq!(
        disk.operations() - before,
        5,
        "two writes, two syncs and the closing seal: nothing is made inline"
    );
}

#[test]
fn limits_refuse_without_effect() {
    let options = Options {
        max_record_bytes: 100,
        max_queued_bytes: 300,
        ..small()
    };
    let mut driver = Driver::open_with(&SimulatedDisk::new(), options);
    let error = driver.journal.append_lazily(vec![0; 101]).unwrap_err();
    assert!(matches!(
        error,
        AppendError::TooLarge {
            length: 101,
            max: 100,
            ..
        }
    ));
    assert!(error.is_definite());
    driver.append(&"x".repeat(100));
    driver.append(&"x".repeat(100));
    let error = driver.journal.append_lazily(vec![0; 100]).unwrap_err();
    assert!(
        matches!(
            error,
            AppendError::Full {
                queued: 280,
                max: 300,
                ..
            }
        ),
        "{error}"
    );
    driver.settle();
    assert_eq!(driver.append("room again"), at(3));
}

#[test]
fn a_closed_journal_takes_nothing_and_finishes_what_it_took() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    driver.append("last");
    driver.journal.close();
    assert!(matches!(
        driver.journal.append_lazily("late"),
        Err(AppendError::Closed { .. })
    ));
    driver.settle();
    assert_eq!(driver.acknowledged(), [at(1)]);
    assert_eq!(driver.writer.step(), Step::Closed);
}

#[test]
fn dropping_the_last_handle_closes() {
    let disk = SimulatedDisk::new();
    let Driver {
        journal, mut writer, ..
    } = Driver::open(&disk);
    let clone = journal.clone();
    drop(journal);
    assert_eq!(writer.step(), Step::Idle);
    drop(clone);
    assert_eq!(writer.step(), Step::Closed);
}

#[test]
fn a_failed_sync_is_final() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    driver.append("one");
    driver.settle();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&heard);
    driver
        .journal
        .on_failure(move |failed| hook.lock().unwrap().push(failed));
    disk.fail_nth_sync(1, Lose::Data);
    driver.append("two");
    driver.append("three");
    assert_eq!(driver.writer.step(), Step::Failed);
    let before = disk.operations();

    assert_eq!(
        (driver.acknowledged(), driver.failed()),
        (vec![at(1)], vec![at(2), at(3)])
    );
    let Err(AppendError::Failed(failed)) = driver.journal.append_lazily("four") else {
        panic!()
    };
    assert_eq!(
        (failed.operation(), failed.file()),
        ("sync", driver::FIRST_SEGMENT)
    );
    assert_eq!(failed.raw_os_error(), Some(SimulatedDisk::EIO));
    assert!(failed.to_string().contains("test journal"), "{failed}");
    assert_eq!(heard.lock().unwrap().len(), 1);
    assert_eq!(driver.writer.step(), Step::Failed);
    assert_eq!(disk.operations(), before, "nothing is tried again");

    let late = Arc::clone(&heard);
    driver
        .journal
        .on_failure(move |failed| late.lock().unwrap().push(failed));
    assert_eq!(heard.lock().unwrap().len(), 2, "who asks late hears at once");
}

#[test]
fn a_full_disk_is_told_as_such() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    disk.fail_nth_write(1, SimulatedDisk::ENOSPC);
    driver.append("one");
    assert_eq!(driver.writer.step(), Step::Failed);
    let Err(AppendError::Failed(failed)) = driver.journal.append_lazily("two") else {
        panic!()
    };
    assert_eq!(
        (failed.operation(), failed.kind()),
        ("write", std::io::ErrorKind::StorageFull)
    );
}

#[test]
fn a_writer_that_is_dropped_fails_the_journal() {
    let Driver { journal, writer, .. } = Driver::open(&SimulatedDisk::new());
    let durable = journal.append_durable("lost");
    drop(writer);
    assert!(matches!(
        durable.now_or_never().unwrap(),
        Err(AppendError::Failed(_))
    ));
    assert!(matches!(
        journal.append_lazily("late"),
        Err(AppendError::Failed(_))
    ));
}

#[test]
fn a_future_resolves_when_the_record_is_durable() {
    let mut driver = Driver::open(&SimulatedDisk::new());
    let durable = driver.journal.append_durable("one");
    driver.settle();
    assert_eq!(durable.now_or_never().unwrap().unwrap(), at(1));
}

#[test]
fn the_owner_may_refuse_a_record_at_replay() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    driver.append("strange");
    driver.settle();
    driver.close();
    let mut refuse = |_: Sequence, _: &[u8]| Err("no such record".into());
    let error = Journal::open(Arc::new(disk), small(), &mut refuse).err().unwrap();
    assert!(matches!(error, OpenError::Refused { .. }));
    assert!(
        error
            .to_string()
            .contains("record 1 of the test journal was refused at replay: no such record")
    );
}

#[test]
fn options_that_contradict_themselves_are_refused() {
    for wrong in [
        Options {
            segment_bytes: 4088,
            ..small()
        },
        Options {
            segment_bytes: 5001,
            ..small()
        },
        Options {
            max_record_bytes: 4000,
            ..small()
        },
        Options {
            max_queued_bytes: 100,
            ..small()
        },
        Options {
            name: "a/b",
            ..small()
        },
    ] {
        let error = open(&SimulatedDisk::new(), wrong).err().unwrap();
        assert!(matches!(error, OpenError::Options { .. }), "{error}");
    }
}

#[test]
fn the_largest_record_fits_a_segment() {
    let most = Options {
        max_record_bytes: 4096 - 64 - 32 - 32 - 40 - 7,
        ..small()
    };
    let mut driver = Driver::open_with(&SimulatedDisk::new(), most.clone());
    for _ in 0..3 {
        driver.append(&"x".repeat(most.max_record_bytes as usize));
    }
    driver.truncate_after(at(1), &"y".repeat(most.max_record_bytes as usize));
    driver.settle();
    assert_eq!(driver.acknowledged().len(), 4);
}

#[test]
fn the_size_of_segments_may_change() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    for _ in 0..3 {
        driver.append(&"x".repeat(1000));
    }
    driver.settle();
    driver.close();
    let larger = Options {
        segment_bytes: 8192,
        max_record_bytes: 6000,
        ..small()
    };
    let mut driver = Driver::open_with(&disk, larger.clone());
    driver.append(&"y".repeat(6000));
    driver.settle();
    driver.close();
    assert_eq!(disk.contents(driver::SECOND_SEGMENT).unwrap().len(), 8192);
    assert_eq!(Driver::open_with(&disk, larger).replayed.len(), 4);
    assert_eq!(Driver::open(&disk).replayed.len(), 4);
}

#[test]
fn a_task_is_woken_when_there_is_work() {
    use std::task::{Context, Poll};
    let Driver {
        journal, mut writer, ..
    } = Driver::open(&SimulatedDisk::new());
    let woken = Arc::new(Woken::default());
    let waker = woken.clone().into();
    let mut context = Context::from_waker(&waker);
    assert_eq!(writer.step(), Step::Idle);
    assert_eq!(writer.poll_work(&mut context), Poll::Pending);
    journal.append_lazily("work").unwrap();
    assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(writer.poll_work(&mut context), Poll::Ready(()));
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}
