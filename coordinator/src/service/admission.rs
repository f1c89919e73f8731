//! Turns beginners of interactive transactions away when too many come at once (R14).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A bucket of permits that fills up at a steady rate, up to what a second brings.
pub(crate) struct Admission {
    per_second: u32,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    permits: f64,
    filled: Instant,
}

/// Too many came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crowded {
    /// The limit.
    pub(crate) per_second: u32,
    /// When there will be a permit, if nobody else takes it.
    pub(crate) retry_after: Duration,
}

impl Admission {
    /// Lets so many in each second, and as many at once.
    pub(crate) fn new(per_second: u32) -> Self {
        let bucket = Bucket {
            permits: f64::from(per_second),
            filled: Instant::now(),
        };
        Self {
            per_second,
            bucket: Mutex::new(bucket),
        }
    }

    /// Lets one in.
    pub(crate) fn admit(&self) -> Result<(), Crowded> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Result<(), Crowded> {
        let rate = f64::from(self.per_second);
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        // Callers may come in another order than they looked at the clock.
        let waited = now.saturating_duration_since(bucket.filled);
        bucket.permits = rate.min(bucket.permits + rate * waited.as_secs_f64());
        bucket.filled = bucket.filled.max(now);
        if bucket.permits >= 1.0 {
            bucket.permits -= 1.0;
            return Ok(());
        }
        Err(Crowded {
            per_second: self.per_second,
            retry_after: Duration::from_secs_f64((1.0 - bucket.permits) / rate),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_gets_what_a_second_brings_and_no_more() {
        let admission = Admission::new(100);
        let start = Instant::now();
        let admitted = |after: Duration| {
            let calls = (0..1000).filter(|_| admission.admit_at(start + after).is_ok());
            calls.count()
        };
        assert_eq!(admitted(Duration::ZERO), 100);
        let crowded = admission.admit_at(start).unwrap_err();
        assert_eq!(crowded.per_second, 100);
        assert!(crowded.retry_after <= Duration::from_millis(10), "{crowded:?}");
        // Half of a millisecond more, for the rounding.
        assert_eq!(admitted(Duration::from_micros(100_500)), 10);
        assert_eq!(admitted(Duration::ZERO), 0);
        assert_eq!(admitted(Duration::from_secs(3600)), 100);
    }
}
