//! Random lives of a journal against a vector.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod driver;

use driver::Driver;
use driver::book::Book;
use proptest::prelude::*;
use unanimo_journal::{Lose, Options, SimulatedDisk, Step};

#[derive(Clone, Debug)]
enum Action {
    Append {
        size: usize,
        fill: u8,
    },
    AppendLazily {
        size: usize,
        fill: u8,
    },
    /// Keeps the positions up to this part of all, in 1/256.
    TruncateAfter {
        part: u8,
        size: usize,
    },
    ReleaseBefore {
        part: u8,
    },
    Step,
    Settle,
    Close,
    Kill,
    Crash {
        seed: u64,
    },
    FailSync {
        nth: u64,
        lose: bool,
    },
    FailWrite {
        nth: u64,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let size = prop_oneof![4 => 0..80_usize, 1 => 0..1500_usize, 1 => 900..2000_usize];
    prop_oneof![
        12 => (size.clone(), any::<u8>()).prop_map(|(size, fill)| Action::Append { size, fill }),
        4 => (size.clone(), any::<u8>()).prop_map(|(size, fill)| Action::AppendLazily { size, fill }),
        2 => (any::<u8>(), size).prop_map(|(part, size)| Action::TruncateAfter { part, size }),
        2 => (128..=255_u8).prop_map(|part| Action::ReleaseBefore { part }),
        10 => Just(Action::Step),
        2 => Just(Action::Settle),
        1 => Just(Action::Close),
        1 => Just(Action::Kill),
        2 => any::<u64>().prop_map(|seed| Action::Crash { seed }),
        1 => (1..4_u64, any::<bool>()).prop_map(|(nth, lose)| Action::FailSync { nth, lose }),
        1 => (1..6_u64).prop_map(|nth| Action::FailWrite { nth }),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    (
        prop_oneof![Just(0_usize), Just(400), Just(100_000)],
        prop_oneof![Just(4096_u64), Just(6000)],
    )
        .prop_map(|(max_group_bytes, segment_bytes)| Options {
            max_group_bytes,
            segment_bytes,
            ..driver::small()
        })
}

struct Run {
    disk: SimulatedDisk,
    options: Options,
    driver: Driver,
    book: Book,
}

impl Run {
    fn new(options: Options) -> Run {
        let disk = SimulatedDisk::new();
        let driver = Driver::open_with(&disk, options.clone());
        Run {
            disk,
            options,
            driver,
            book: Book::default(),
        }
    }

    fn act(&mut self, action: &Action) {
        let Run { driver, book, .. } = self;
        let mut end = Step::Idle;
        match *action {
            Action::Append { size, fill } => book.append(driver, vec![fill; size]),
            Action::AppendLazily { size, fill } => book.append_lazily(driver, vec![fill; size]),
            Action::TruncateAfter { part, size } => {
                book.truncate_after(driver, book.part_of_all(part), vec![part; size]);
            }
            Action::ReleaseBefore { part } => book.release_before(driver, book.part_of_all(part)),
            Action::Step => end = driver.writer.step(),
            Action::Settle => end = driver.settle(),
            Action::Close => {
                driver.journal.close();
                // With a fault on its way, closing may fail; then the next life begins after a failure.
                driver.settle();
                book.hear(driver);
                self.disk.power_on();
                self.reopen("closed");
            }
            Action::Kill => {
                self.disk.power_on();
                self.reopen("killed");
            }
            Action::Crash { seed } => {
                self.disk.crash(seed);
                self.reopen("crashed");
            }
            Action::FailSync { nth, lose } => {
                self.disk
                    .fail_nth_sync(nth, if lose { Lose::Data } else { Lose::Nothing });
            }
            Action::FailWrite { nth } => self.disk.fail_nth_write(nth, SimulatedDisk::EIO),
        }
        self.book.hear(&self.driver);
        if end == Step::Failed {
            self.disk.power_on();
            self.reopen("failed");
        }
    }

    fn reopen(&mut self, context: &str) {
        self.driver = Driver::open_with(&self.disk, self.options.clone());
        self.book.check(&self.driver, context);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_is_a_vector(options in options(), actions in prop::collection::vec(action(), 1..120)) {
        let mut run = Run::new(options);
        for action in &actions {
            run.act(action);
        }
        run.book.check_reads(&run.driver, "in the end");
        run.disk.crash(7);
        run.reopen("after the end");
        run.driver.settle();
        run.disk.crash_losing_everything();
        run.reopen("after that");
    }
}
