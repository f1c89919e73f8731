use unanimo_core::Timestamp;

use crate::schedule::Time;

/// When every run begins, in milliseconds since the Unix epoch.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;

/// A node's clocks: the one on the wall jumps, and both are a little fast or slow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    offset_ms: i64,
    drift_ppm: i64,
}

impl Clock {
    pub(crate) const fn drifting(drift_ppm: i64) -> Self {
        Self {
            offset_ms: 0,
            drift_ppm,
        }
    }

    pub(crate) const fn jump(&mut self, by_ms: i64) {
        self.offset_ms += by_ms;
    }

    /// It is put right.
    pub(crate) fn set(&mut self) {
        *self = Self::default();
    }

    const fn drifted_us(&self, now: Time) -> u64 {
        (now as i64 + now as i64 / 1_000_000 * self.drift_ppm) as u64
    }

    /// What the clock on the wall shows.
    pub(crate) fn wall(&self, now: Time) -> Timestamp {
        let shown = (EPOCH_MS + self.drifted_us(now) / 1000) as i64 + self.offset_ms;
        Timestamp::from_unix_ms(u64::try_from(shown).unwrap_or(0))
    }

    /// What has passed since the run began, in microseconds, by a clock that nobody sets.
    pub(crate) const fn monotonic(&self, now: Time) -> Time {
        self.drifted_us(now)
    }
}
