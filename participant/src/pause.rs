use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use unanimo_core::mutants::{self, Mutant};

/// A small deterministic generator (splitmix64), for jitter: the same seed gives the same pauses.
pub(crate) struct Jitter {
    state: Mutex<u64>,
}

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(seed),
        }
    }

    /// A duration between half and the whole of this one, so that many who fail together do not come back together.
    pub(crate) fn of(&self, whole: Duration) -> Duration {
        let half = whole / 2;
        // The 32 high bits as a fraction of one.
        let fraction = (self.next() >> 32) as f64 / f64::from(u32::MAX);
        half + half.mul_f64(fraction)
    }

    fn next(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Pauses that double from the first to the longest.
pub(crate) struct Pauses {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Pauses {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        let first = first.min(longest);
        let longest = if mutants::is_on(Mutant::M27) {
            Duration::MAX
        } else {
            longest
        };
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// The next pause.
    pub(crate) fn next(&mut self, jitter: &Jitter) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        jitter.of(pause)
    }

    /// Something succeeded: start again with the first.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_lose_at_most_half() {
        #[cfg(feature = "mutants")]
        if std::env::var("UNANIMO_MUTANT").is_ok_and(|name| name == "M27") {
            mutants::plant(Mutant::M27);
        }
        let jitter = Jitter::new(7);
        let mut pauses = Pauses::new(Duration::from_millis(10), Duration::from_millis(35));
        for whole in [10, 20, 35, 35] {
            let pause = pauses.next(&jitter);
            let (low, high) = (Duration::from_micros(whole * 500), Duration::from_millis(whole));
            assert!(low <= pause && pause <= high, "{pause:?} of {whole} ms");
        }
        pauses.reset();
        assert!(pauses.next(&jitter) <= Duration::from_millis(10));
    }

    #[test]
    fn the_same_seed_gives_the_same_jitter_and_another_one_does_not() {
        let of = |seed| {
            let jitter = Jitter::new(seed);
            let pauses: Vec<_> = (0..8).map(|_| jitter.of(Duration::from_secs(1))).collect();
            pauses
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
