//! A set of runs, and what they add up to.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::counters::Counters;
use crate::run::{Keep, Outcome, run};
use crate::schedule::draw;
use crate::watch::Broken;

/// So many runs have to show everything that has to happen sometimes.
const ENOUGH: u64 = 1000;

/// What a set of runs adds up to.
#[derive(Debug, Default)]
pub struct Report {
    /// How many runs there were.
    pub seeds: u64,
    /// How long all of them took in their own time, in microseconds.
    pub simulated_us: u64,
    /// How long they took in ours.
    pub wall_seconds: f64,
    /// Transactions that were decided.
    pub transactions: u64,
    /// Things that happened.
    pub events: u64,
    /// What went wrong, and how often.
    pub faults: BTreeMap<&'static str, u64>,
    counters: Counters,
    /// The seeds whose runs broke a rule.
    pub violations: Vec<(u64, Broken)>,
    /// A hash of the transcript of each seed, if it was asked for.
    pub hashes: BTreeMap<u64, u64>,
    jobs: usize,
}

impl Report {
    fn add(&mut self, seed: u64, outcome: Outcome, with_hash: bool) {
        self.seeds += 1;
        self.simulated_us += outcome.simulated_us;
        self.transactions += outcome.transactions;
        self.events += outcome.events;
        for (name, count) in outcome.faults {
            *self.faults.entry(name).or_default() += count;
        }
        self.counters.add(&outcome.counters);
        if with_hash {
            self.hashes.insert(seed, outcome.hash);
        }
        if let Some(broken) = outcome.broken {
            self.violations.push((seed, broken));
        }
    }

    fn join(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.simulated_us += other.simulated_us;
        self.transactions += other.transactions;
        self.events += other.events;
        for (name, count) in other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        self.counters.add(&other.counters);
        self.hashes.extend(other.hashes);
        self.violations.extend(other.violations);
    }

    /// How often each thing happened that has to happen sometimes.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        self.counters.list()
    }

    /// What has to happen sometimes and never did; nothing if there were too few runs to say.
    pub fn missing(&self) -> Vec<&'static str> {
        if self.seeds < ENOUGH {
            return Vec::new();
        }
        self.counters.missing()
    }

    /// Whether no rule was broken and nothing is missing.
    pub fn is_valid(&self) -> bool {
        self.seeds > 0 && self.violations.is_empty() && self.missing().is_empty()
    }

    /// The report as one line.
    pub fn to_json(&self) -> String {
        let violation = |(seed, broken): &(u64, Broken)| {
            json!({
                "seed": seed,
                "invariant": broken.invariant,
                "what": broken.what,
                "event": broken.event,
                "at_ms": broken.at_us / 1000,
            })
        };
        let simulated_seconds = self.simulated_us as f64 / 1e6;
        let wall = self.wall_seconds.max(1e-9);
        json!({
            "seeds": self.seeds,
            "simulated_seconds": simulated_seconds,
            "wall_seconds": self.wall_seconds,
            "simulated_over_wall": simulated_seconds / wall,
            "jobs": self.jobs,
            "transactions": self.transactions,
            "transactions_per_second": self.transactions as f64 / wall,
            "events": self.events,
            "faults": self.faults,
            "counters": self.counters(),
            "missing": self.missing(),
            "violations": self.violations.iter().map(violation).collect::<Vec<_>>(),
        })
        .to_string()
    }
}

/// Says in which run an assertion failed.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}: panicked", self.0);
        }
    }
}

/// Runs these seeds. With `patience` it stops after the first seed that breaks a rule.
pub fn simulate(seeds: std::ops::Range<u64>, jobs: usize, hashes: bool, stop_at_first: bool) -> Report {
    let started = Instant::now();
    let keep = if hashes { Keep::Hash } else { Keep::Nothing };
    let (next, found) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let total = Mutex::new(Report::default());
    let work = || {
        let mut report = Report::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || (stop_at_first && found.load(Ordering::Relaxed)) {
                break;
            }
            let named = Named(seed);
            let outcome = run(&Rc::new(draw(seed)), keep);
            drop(named);
            if outcome.broken.is_some() {
                found.store(true, Ordering::Relaxed);
            }
            report.add(seed, outcome, hashes);
        }
        match total.lock() {
            Ok(mut total) => total.join(report),
            Err(poisoned) => poisoned.into_inner().join(report),
        }
    };
    let jobs = jobs.max(1);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let mut total = match total.into_inner() {
        Ok(total) => total,
        Err(poisoned) => poisoned.into_inner(),
    };
    total.violations.sort_by_key(|(seed, _)| *seed);
    total.wall_seconds = started.elapsed().as_secs_f64();
    total.jobs = jobs;
    total
}
