//! What is noted while a run goes on: the trace, the counters, and what is wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Violations that are written down of one run; more say nothing new.
const MOST_VIOLATIONS: usize = 20;

/// A rule broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Violation {
    /// In which way: `half_committed`.
    pub(crate) kind: String,
    /// What exactly, for people.
    pub(crate) what: String,
}

/// The notes of one run. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Notes {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    /// Whether lines are printed as they come.
    print: bool,
    hash: Sha256,
    lines: u64,
    counters: BTreeMap<&'static str, u64>,
    violations: Vec<Violation>,
    /// The time, for what is noted from outside of the simulated network.
    now: Duration,
}

impl Notes {
    pub(crate) fn new(print: bool) -> Self {
        let shared = Shared {
            print,
            hash: Sha256::new(),
            lines: 0,
            counters: BTreeMap::new(),
            violations: Vec::new(),
            now: Duration::ZERO,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// Tells the time.
    pub(crate) fn set_now(&self, now: Duration) {
        self.lock().now = now;
    }

    /// The time since the run began.
    pub(crate) fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(|| self.lock().now)
    }

    /// Adds a line to the trace.
    pub(crate) fn trace(&self, who: &str, what: impl AsRef<str>) {
        let now = self.now();
        let line = format!("{:>9.3} {who:<3} {}\n", now.as_secs_f64(), what.as_ref());
        let mut shared = self.lock();
        shared.hash.update(line.as_bytes());
        shared.lines += 1;
        if shared.print {
            print!("{line}");
        }
    }

    /// Takes something into the trace's hash that is too long for a line.
    pub(crate) fn absorb(&self, bytes: &[u8]) {
        self.lock().hash.update(bytes);
    }

    pub(crate) fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&self, what: &'static str, by: u64) {
        *self.lock().counters.entry(what).or_default() += by;
    }

    pub(crate) fn violate(&self, kind: &str, what: impl Into<String>) {
        let what = what.into();
        // At once: the process may not come to its end.
        eprintln!("{kind}: {what}");
        self.trace("!!", format!("{kind}: {what}"));
        let mut shared = self.lock();
        if shared.violations.len() < MOST_VIOLATIONS {
            let kind = kind.to_owned();
            shared.violations.push(Violation { kind, what });
        }
    }

    pub(crate) fn has_violations(&self) -> bool {
        !self.lock().violations.is_empty()
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.lock().violations.clone()
    }

    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let shared = self.lock();
        let counters = shared.counters.iter();
        counters
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    /// How many lines the trace has, and its hash.
    pub(crate) fn hash(&self) -> (u64, String) {
        let shared = self.lock();
        let hash = shared.hash.clone().finalize();
        let text = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        (shared.lines, text)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_noted_changes_the_hash() {
        let hash = |lines: &[&str]| {
            let notes = Notes::new(false);
            for line in lines {
                notes.trace("c1", line);
            }
            notes.hash()
        };
        assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
        assert_ne!(hash(&["a", "b"]), hash(&["b", "a"]));
        assert_eq!(hash(&["a", "b"]).0, 2);
    }
}
