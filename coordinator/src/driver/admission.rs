//! Who may vote and decide now, within the limits of this node (R14).

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use unanimo_core::TransactionId;

use super::{DriverError, Running, Shared};

/// A place among the transactions that are voting or deciding. Dropping it makes it free.
///
/// Whoever has one cannot be refused any more: it is taken before anything is recorded that a refusal would have to
/// take back, such as the binding of a key.
pub(super) struct Admitted {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Shared {
    /// Takes a place for a transaction with so many bytes of operations.
    pub(super) fn admit(self: &Arc<Self>, operation_bytes: usize) -> Result<Admitted, DriverError> {
        self.admit_among(&self.running(), operation_bytes)
    }

    /// The same for whoever holds the lock of `running`: so no two take the last place, and whoever stops this node
    /// sees everybody who was let in.
    pub(super) fn admit_among(
        self: &Arc<Self>,
        _running: &MutexGuard<'_, BTreeMap<TransactionId, Running>>,
        operation_bytes: usize,
    ) -> Result<Admitted, DriverError> {
        self.check_not_handing_over()?;
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let bytes = self.in_flight_bytes.load(Ordering::Relaxed);
        if in_flight >= self.limits.in_flight
            || bytes.saturating_add(operation_bytes) > self.limits.in_flight_bytes()
        {
            return Err(DriverError::Overloaded { in_flight, bytes });
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.in_flight_bytes.fetch_add(operation_bytes, Ordering::Relaxed);
        Ok(Admitted {
            shared: Arc::clone(self),
            bytes: operation_bytes,
        })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.shared
            .in_flight_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
