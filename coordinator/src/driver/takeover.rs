//! What a node does when it becomes the leader, and while it is.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use unanimo_core::TransactionId;

use super::Shared;
use super::forgetting::forget_as_time_passes;
use crate::raft::Leadership;

/// How often the leader checks that a quorum still follows it.
const CHECK: Duration = Duration::from_millis(100);
/// The pause between two searches of the table for decisions that somebody has yet to acknowledge and nobody is
/// delivering. During a search a page is read at each check, so that a table full of them costs little; all at once
/// after a takeover, and when a member is back that was away.
const SWEEP: Duration = Duration::from_secs(2);
/// Records read from the table at a time.
const PAGE: usize = 256;

/// Leads in every term this node is elected in, until the driver is gone.
pub(super) async fn lead_whenever_elected(weak: Weak<Shared>, stop: CancellationToken) {
    stop.run_until_cancelled(lead_in_every_term(&weak)).await;
}

async fn lead_in_every_term(weak: &Weak<Shared>) {
    let Some(mut leadership) = weak.upgrade().map(|shared| shared.replica.leadership()) else {
        return;
    };
    loop {
        let Ok(term) = leadership
            .wait_for(|now| now.this_node_leads)
            .await
            .map(|now| now.term)
        else {
            return;
        };
        let Some(shared) = weak.upgrade() else { return };
        // Everything decided before this term has to be applied here before anything is said: else an old
        // decision would be missing, and its transaction would be run again.
        if let Err(error) = shared.replica.read_barrier().await {
            tracing::debug!(term, ?error, "not ready to lead");
            drop(shared);
            sleep(Duration::from_millis(5)).await;
            continue;
        }
        tracing::info!(term, "leading");
        shared.ready.send_replace(Some(term));
        drop(shared);
        // Forgetting may stop at any point; both only wait for their ends.
        tokio::select! {
            () = lead(weak, term, &mut leadership) => {}
            () = forget_as_time_passes(weak, term) => {}
        }
        let Some(shared) = weak.upgrade() else { return };
        shared.ready.send_replace(None);
        tracing::info!(term, "no longer leading");
    }
}

/// Keeps delivering until another term begins or the quorum is gone.
async fn lead(weak: &Weak<Shared>, term: u64, leadership: &mut tokio::sync::watch::Receiver<Leadership>) {
    let mut next_page = Instant::now();
    let mut sweep = Sweep::after_takeover();
    loop {
        let Some(shared) = weak.upgrade() else { return };
        let still = {
            let now = leadership.borrow_and_update();
            now.this_node_leads && now.term == term
        };
        if !still || !shared.has_quorum() {
            return;
        }
        if Instant::now() >= next_page {
            let pause = sweep.next_page(&shared, term).await;
            next_page = Instant::now() + pause;
            if pause.is_zero() {
                // The leadership is looked at again before the next page.
                continue;
            }
        }
        let returned = shared.lanes.returned();
        drop(shared);
        // Cancel safe: `changed` only marks the value as seen, and a return that is not taken is kept.
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = returned.notified() => {
                sweep.hurry();
                next_page = Instant::now();
            }
            () = sleep(CHECK) => {}
        }
    }
}

/// Goes through the decisions that members have yet to acknowledge, page by page and again and again.
struct Sweep {
    /// Where the last page ended; none at the front.
    after: Option<TransactionId>,
    /// How often the end has to be reached before there is time.
    urgent_rounds: u8,
}

impl Sweep {
    fn after_takeover() -> Self {
        Self {
            after: None,
            urgent_rounds: 1,
        }
    }

    /// Something can be delivered that could not before, wherever it stands: the rest of this round, and another.
    fn hurry(&mut self) {
        self.urgent_rounds = 2;
    }

    /// Resumes the decisions of one page: those of earlier leaders, and those that were parked because a member was
    /// away. What waits for members that are still away stays where it is. Returns the pause before the next page,
    /// which begins where this one ended, also if it ended early: what is at the front must not keep the rest waiting.
    async fn next_page(&mut self, shared: &Arc<Shared>, term: u64) -> Duration {
        let page = match shared.replica.unended_aside(self.after, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "cannot search the table for unfinished transactions");
                return SWEEP;
            }
        };
        if page.is_empty() {
            self.after = None;
            self.urgent_rounds = self.urgent_rounds.saturating_sub(1);
            return if self.urgent_rounds > 0 {
                Duration::ZERO
            } else {
                SWEEP
            };
        }
        for (transaction, record) in page {
            if shared.completing() >= shared.limits.completing {
                return CHECK;
            }
            self.after = Some(transaction);
            // Somebody may have been at work on it when the page was read. Who is at it still puts down first what it did.
            if shared.runs(transaction) || !shared.lanes.take_any(&record.unacknowledged) {
                continue;
            }
            if let Ok(Some(record)) = shared.record(transaction) {
                shared.resume(transaction, record, term);
            }
        }
        if self.urgent_rounds > 0 {
            Duration::ZERO
        } else {
            CHECK
        }
    }
}
