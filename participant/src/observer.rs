use std::sync::{Arc, Weak};
use std::time::Duration;

use unanimo_proto::transport::Clock;

use crate::branches::Branches;
use crate::doubts::Doubts;
use crate::gate::Gate;
use crate::metrics::Gauges;

/// How old what the gauges say may be. Whoever collects asks every few seconds at most.
const EVERY: Duration = Duration::from_secs(1);

/// Shows in metrics how a participant stands, until it stops.
pub(crate) async fn observe(
    gauges: Gauges,
    branches: Weak<Branches>,
    doubts: Arc<Doubts>,
    gate: Arc<Gate>,
    clock: Arc<dyn Clock>,
) {
    let mut was_registered = gate.is_registered();
    loop {
        let in_flight = branches.upgrade().map_or(0, |branches| branches.in_flight());
        let (in_doubt, oldest) = doubts.survey();
        let oldest = oldest.map(|since| clock.now().since(since));
        gauges.show(in_doubt, oldest, in_flight, was_registered);
        // All only wait.
        tokio::select! {
            _ = gate.stopped() => return gauges.show(in_doubt, oldest, in_flight, false),
            () = gate.registered(), if !was_registered => was_registered = true,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
