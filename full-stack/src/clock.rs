//! Wall clocks of simulated hosts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use unanimo_core::Timestamp;
use unanimo_proto::transport::Clock;

/// When every run begins: the first of January 2026.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// The wall clock of one host. A clone is the same clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostClock {
    ahead_ms: Arc<AtomicI64>,
    /// What it has shown last, for whoever looks at it from outside of the simulated network.
    last_ms: Arc<AtomicU64>,
}

impl HostClock {
    /// Lets it jump.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Sets it right.
    pub(crate) fn set_right(&self) {
        self.ahead_ms.store(0, Ordering::Relaxed);
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        let Some(elapsed) = turmoil::sim_elapsed() else {
            return Timestamp::from_unix_ms(self.last_ms.load(Ordering::Relaxed));
        };
        let right = (EPOCH + elapsed).as_millis() as u64;
        let shown = right.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed));
        self.last_ms.store(shown, Ordering::Relaxed);
        Timestamp::from_unix_ms(shown)
    }
}
