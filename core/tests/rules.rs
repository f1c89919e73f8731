//! The rules hold in random worlds: leaders that die, two at once, participants that crash anywhere, messages lost,
//! repeated and reordered, ids used twice. Every invariant is checked after every step; then the faults stop and
//! everything has to end.
//!
//! A failure prints a script. Put it into `transcripts/` to keep it. `UNANIMO_SEED` chooses other runs.

#![allow(clippy::unwrap_used)]

mod invariants;
mod schedule;
mod world;

use std::cell::RefCell;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use schedule::{Coverage, Schedule, schedules};

/// As many runs as fit into a few seconds of the debug profile.
const RUNS: u32 = 1500;

const SEED: u64 = 1;

fn seed() -> u64 {
    std::env::var("UNANIMO_SEED")
        .ok()
        .map_or(SEED, |text| text.parse().unwrap())
}

fn runner(seed: u64) -> TestRunner {
    let config = Config {
        cases: RUNS,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[test]
fn the_rules_hold_in_random_schedules() {
    let seed = seed();
    let coverage = RefCell::new(Coverage::default());
    let carry_out = |schedule: Schedule| {
        let carried_out = schedule.carry_out(&mut coverage.borrow_mut());
        carried_out.map_err(|broken| TestCaseError::fail(broken.what))
    };
    match runner(seed).run(&schedules(), carry_out) {
        Ok(()) => {}
        Err(TestError::Fail(_, smallest)) => panic!("{}", explained(seed, &smallest)),
        Err(TestError::Abort(why)) => panic!("seed {seed}: {why}"),
    }
    println!("{coverage:#?}");
    let missing = coverage.borrow().missing();
    assert!(missing.is_empty(), "seed {seed}: no run ever met {missing:?}");
}

/// The smallest run that proptest found, as a script and as events.
fn explained(seed: u64, smallest: &Schedule) -> String {
    match smallest.carry_out(&mut Coverage::default()) {
        Err(broken) => format!(
            "seed {seed}: {}\n\n{}\n---\n{}",
            broken.what,
            broken.script.join("\n"),
            broken.events.join("\n")
        ),
        Ok(()) => format!("seed {seed}: a run fails only sometimes, so the world is not deterministic"),
    }
}
