//! Looks at the coordinators from outside, as an operator does, and notes what becomes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use unanimo_proto::transport::Connector;
use unanimo_proto::v1::{GetStatusRequest, admin_client::AdminClient};

use crate::hosts::CLUSTER;
use crate::network::{SimulatedConnector, address};
use crate::notes::Notes;
use crate::plan::Plan;

const EVERY: Duration = Duration::from_millis(100);

/// Asks every coordinator how it is, until the end of the run.
pub(crate) async fn observe(
    plan: Arc<Plan>,
    notes: Notes,
    leader: Arc<AtomicU64>,
) -> Result<(), Box<dyn Error>> {
    let mut nodes = Vec::new();
    for host in plan.coordinator_hosts() {
        nodes.push(AdminClient::new(SimulatedConnector.channel(&address(&host))?));
    }
    // Terms have one leader each; two would be the end of everything else as well.
    let mut leaders: BTreeMap<u64, u64> = BTreeMap::new();
    let mut snapshots: BTreeSet<(u64, u64)> = BTreeSet::new();
    loop {
        for node in &mut nodes {
            let request = GetStatusRequest {
                cluster: CLUSTER.to_owned(),
                omit_participants: true,
                participants_after: String::new(),
            };
            let Ok(Ok(reply)) = tokio::time::timeout(EVERY, node.get_status(request)).await else {
                continue;
            };
            let status = reply.into_inner();
            if status.snapshot_index > 0 && snapshots.insert((status.node, status.snapshot_index)) {
                notes.count("snapshot_taken");
            }
            if !status.ready {
                continue;
            }
            leader.store(status.node, Ordering::Relaxed);
            match leaders.insert(status.epoch, status.node) {
                None => {
                    notes.trace("o", format!("n{} leads in term {}", status.node, status.epoch));
                    if leaders.len() > 1 {
                        notes.count("leader_changed");
                    }
                }
                Some(known) if known != status.node => {
                    let what = format!("n{known} and n{} lead in term {}", status.node, status.epoch);
                    notes.violate("two_leaders", what);
                }
                Some(_) => {}
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
