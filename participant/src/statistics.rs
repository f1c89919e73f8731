use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use unanimo_core::ParticipantId;

use crate::metrics::Metrics;

/// The longest time in doubt that is told apart from longer ones: a day.
const LONGEST_MS: u64 = 24 * 60 * 60 * 1000;

/// What a participant has done since it started, at one moment.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Branches that are not finished.
    pub in_flight: usize,
    /// Branches in doubt: prepared, decision not yet known.
    pub in_doubt: usize,
    /// For how long the oldest of them has been in doubt, by the wall clock.
    pub oldest_in_doubt: Option<Duration>,
    /// Branches that were in doubt when recovery had ended.
    pub recovered_in_doubt: u64,
    /// Votes Yes. Repeats are not counted, here and below.
    pub voted_yes: u64,
    /// Votes ReadOnly.
    pub voted_read_only: u64,
    /// Votes No.
    pub voted_no: u64,
    /// Branches committed.
    pub committed: u64,
    /// Branches aborted, those that never prepared included.
    pub aborted: u64,
    /// Branches asked about, each time it was asked.
    pub inquiries: u64,
    /// Calls that carried them.
    pub inquiry_calls: u64,
    /// Branches that the coordinators refused to answer for, each time. They stay in doubt; anything but zero is an alarm.
    pub inquiries_refused: u64,
    /// Operations of interactive transactions that were done.
    pub joined: u64,
    /// Such operations that were not done: refused, or turned away because another one was under way.
    pub joins_refused: u64,
    /// Branches of interactive transactions whose deadline passed before anybody asked for a vote.
    pub joins_expired: u64,
    /// Calls refused because their context was damaged, of another cluster or too old.
    pub bad_contexts: u64,
    /// Messages that came again or too late, and changed nothing.
    pub duplicates: u64,
    /// Messages refused because no coordinator that keeps the rules sends them. Anything but zero is an alarm (R9).
    pub violations: u64,
    /// New transactions refused because their ids lie below the watermark (R7).
    pub expired: u64,
    /// Watermarks ignored because they lie too far ahead of this participant's clock. Anything but zero is an alarm.
    pub watermarks_ignored: u64,
    /// New transactions refused because too much was going on.
    pub overloads: u64,
    /// Calls of the resource manager that were unavailable or panicked.
    pub resource_manager_errors: u64,
    /// Whether the cluster has confirmed the registration of this start.
    pub registered: bool,
    /// How long branches were in doubt, from the promise until the decision was known here.
    pub in_doubt_times: InDoubtTimes,
}

/// A histogram of times in doubt, precise to a millisecond or two digits.
///
/// They are measured by the wall clock, because a restart may lie in between; a clock that jumps shows up here, and
/// nowhere else (R8).
#[derive(Clone, Debug)]
pub struct InDoubtTimes {
    milliseconds: Histogram<u64>,
}

impl InDoubtTimes {
    fn new() -> Self {
        let milliseconds = match Histogram::new_with_bounds(1, LONGEST_MS, 2) {
            Ok(histogram) => histogram,
            Err(error) => unreachable!("the bounds are constants: {error}"),
        };
        Self { milliseconds }
    }

    fn record(&mut self, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.milliseconds.saturating_record(milliseconds);
    }

    /// How many branches were in doubt and are not any more.
    pub fn count(&self) -> u64 {
        self.milliseconds.len()
    }

    /// The longest time; zero if there is none.
    pub fn max(&self) -> Duration {
        Duration::from_millis(self.milliseconds.max())
    }

    /// The time that this share of the branches stayed below, for example 0.99.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_millis(self.milliseconds.value_at_quantile(share))
    }

    /// Every time that occurred and how often, shortest first, so that several participants can be added up.
    pub fn counts(&self) -> Vec<(Duration, u64)> {
        self.milliseconds
            .iter_recorded()
            .map(|step| {
                let time = Duration::from_millis(step.value_iterated_to());
                (time, step.count_at_value())
            })
            .collect()
    }
}

/// Counts one thing, for [`Statistics`] and for whoever collects metrics.
pub(crate) struct Counter {
    count: AtomicU64,
    exported: metrics::Counter,
}

impl Default for Counter {
    /// One that only [`Statistics`] shows.
    fn default() -> Self {
        Self::exported(metrics::Counter::noop())
    }
}

impl Counter {
    fn exported(exported: metrics::Counter) -> Self {
        exported.absolute(0);
        Self {
            count: AtomicU64::new(0),
            exported,
        }
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
        self.exported.increment(count);
    }

    pub(crate) fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// The counters behind [`Statistics`].
pub(crate) struct Counters {
    pub(crate) metrics: Metrics,
    pub(crate) recovered_in_doubt: Counter,
    pub(crate) voted_yes: Counter,
    pub(crate) voted_read_only: Counter,
    pub(crate) voted_no: Counter,
    pub(crate) committed: Counter,
    pub(crate) aborted: Counter,
    pub(crate) inquiries: Counter,
    pub(crate) inquiry_calls: Counter,
    pub(crate) inquiries_refused: Counter,
    pub(crate) joined: Counter,
    pub(crate) joins_refused: Counter,
    pub(crate) joins_expired: Counter,
    pub(crate) bad_contexts: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) violations: Counter,
    pub(crate) expired: Counter,
    pub(crate) watermarks_ignored: Counter,
    pub(crate) overloads: Counter,
    pub(crate) resource_manager_errors: Counter,
    in_doubt_times: Mutex<InDoubtTimes>,
    committed_after: metrics::Histogram,
    aborted_after: metrics::Histogram,
}

impl Counters {
    pub(crate) fn new(participant: &ParticipantId) -> Self {
        let metrics = Metrics::new(participant);
        let exported = Counter::exported;
        Self {
            recovered_in_doubt: exported(metrics.recovered_in_doubt()),
            voted_yes: exported(metrics.votes("yes")),
            voted_read_only: exported(metrics.votes("read_only")),
            voted_no: exported(metrics.votes("no")),
            committed: exported(metrics.branches("committed")),
            aborted: exported(metrics.branches("aborted")),
            inquiries: exported(metrics.inquiries()),
            inquiry_calls: exported(metrics.inquiry_calls()),
            inquiries_refused: exported(metrics.inquiries_refused()),
            joined: Counter::default(),
            joins_refused: Counter::default(),
            joins_expired: exported(metrics.joins_expired()),
            bad_contexts: Counter::default(),
            duplicates: exported(metrics.duplicates()),
            violations: exported(metrics.violations()),
            expired: Counter::default(),
            watermarks_ignored: Counter::default(),
            overloads: Counter::default(),
            resource_manager_errors: exported(metrics.resource_manager_errors()),
            in_doubt_times: Mutex::new(InDoubtTimes::new()),
            committed_after: metrics.in_doubt_time("commit"),
            aborted_after: metrics.in_doubt_time("abort"),
            metrics,
        }
    }

    /// A branch was in doubt for so long, until it was to commit or to abort.
    pub(crate) fn was_in_doubt(&self, time: Duration, committed: bool) {
        let after = if committed {
            &self.committed_after
        } else {
            &self.aborted_after
        };
        after.record(time);
        self.in_doubt_times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .record(time);
    }

    pub(crate) fn in_doubt_times(&self) -> InDoubtTimes {
        self.in_doubt_times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
