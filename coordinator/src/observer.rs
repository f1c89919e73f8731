//! Shows in metrics how a node stands.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use unanimo_proto::transport::Clock;

use crate::driver::Driver;
use crate::metrics::{Standing, leader_changed};
use crate::raft::{Leader, Replica};

/// How old what the gauges say may be. Whoever collects asks every few seconds at most.
const EVERY: Duration = Duration::from_secs(1);

/// Looks at a node until it is dropped.
pub(crate) async fn observe(replica: Replica, driver: Driver, clock: Arc<dyn Clock>) {
    let (mut leadership, mut readiness) = (replica.leadership(), driver.readiness());
    let mut leader: Option<Leader> = None;
    loop {
        let known = leadership.borrow_and_update().leader.clone();
        if known.is_some() && known != leader {
            leader_changed();
            leader.clone_from(&known);
        }
        readiness.borrow_and_update();
        standing(&replica, &driver, clock.as_ref()).show();
        let next = Instant::now() + EVERY;
        // All only wait: what changes meanwhile is seen in the next round.
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            changed = readiness.changed() => if changed.is_err() { return },
            () = sleep_until(next) => {}
        }
    }
}

fn standing(replica: &Replica, driver: &Driver, clock: &dyn Clock) -> Standing {
    let (status, load) = (replica.status(), driver.load());
    let last_log = status.last_log.unwrap_or_default();
    // A table that cannot be read stops the node; it says so itself.
    let horizon = driver.horizon().unwrap_or_default();
    let watermark_age = (horizon != Default::default()).then(|| {
        let watermark = horizon.watermark.timestamp();
        clock.now().since(watermark)
    });
    Standing {
        leads: driver.is_ready(),
        leader_known: status.leader.is_some(),
        term: status.term,
        in_flight: load.in_flight,
        completing: load.completing,
        unapplied: last_log.saturating_sub(status.applied.unwrap_or_default()),
        watermark_age,
    }
}
