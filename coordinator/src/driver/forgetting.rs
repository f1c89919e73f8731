//! Closing and forgetting old transactions (R7), by a time that no clock can move (R8).
//!
//! The cluster keeps a time of its own in the table. The leader moves it forward now and then, but never past what a
//! majority's wall clocks say, and hardly faster than its own monotonic clock has gone since it last did. So a wall
//! clock that jumps forward, or all of them, closes nothing early; and while nobody leads the time stands still, which
//! only makes the cluster remember for longer. What it lost it makes up for slowly, and the window is lengthened by as
//! much, so that nothing is closed early by that either.
//!
//! What is older than the window by that time is closed: nothing is decided under those ids any more, and their
//! records are dropped, page by page, once no member needs them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::{Applied, Command, Horizon};
use unanimo_core::{ClusterId, Timestamp, TransactionId};
use unanimo_proto::transport::{Clock, Connector};
use unanimo_proto::v1::{GetStatusRequest, admin_client::AdminClient};

use super::{DriverError, Shared};
use crate::config::RetentionConfig;
use crate::raft::{Forgettable, Releasable, Replica};

/// How long another node's clock is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// The part of the time passed by which the cluster's time may run faster, and by which the window is lengthened.
const HASTE: u32 = 64;
/// Records that are dropped by one command. Their ids take 16 KiB of the log.
const PAGE: usize = 1024;
/// Idempotency keys that are freed by one command. They take as much as 16 KiB of the log, too.
const KEYS_PER_PAGE: usize = 128;

/// What the clocks of a majority say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// At least half of those asked say it is later, or as late.
    low: Timestamp,
    /// At least half of those asked say it is earlier, or as late.
    high: Timestamp,
}

impl Reading {
    /// The middle of these clocks; none if they are no majority of `voters`.
    fn of(mut clocks: Vec<Timestamp>, voters: usize) -> Option<Self> {
        if clocks.len() * 2 <= voters {
            return None;
        }
        clocks.sort_unstable();
        Some(Self {
            low: clocks[(clocks.len() - 1) / 2],
            high: clocks[clocks.len() / 2],
        })
    }
}

/// Where the cluster's time goes next: hardly further than has `passed`, and not past the majority's clocks.
fn next_time(known: Timestamp, low: Timestamp, passed: Duration) -> Timestamp {
    low.min(known.after(passed + passed / HASTE)).max(known)
}

/// The time that the cluster begins with: the clocks' own, as there is nothing yet that could be closed early.
///
/// A leader that loses its quorum for a moment forgets what it was about to do, and its first time may be recorded
/// later. If it proposed what the clocks say by then, they could have moved the cluster's time between the two.
#[derive(Default)]
struct FirstTime {
    /// In which term it was proposed, and when.
    proposed: Mutex<Option<(u64, Timestamp, Instant)>>,
}

impl FirstTime {
    /// What to propose as long as no time is known.
    fn next(&self, term: u64, low: Timestamp, now: Instant) -> Timestamp {
        let mut proposed = self.proposed.lock().unwrap_or_else(PoisonError::into_inner);
        match *proposed {
            Some((proposed_in, time, since)) if proposed_in == term => {
                next_time(time, low, now.saturating_duration_since(since))
            }
            Some(_) | None => {
                *proposed = Some((term, low, now));
                low
            }
        }
    }
}

/// What this node knows of time: enough to say whether an id is too old or too far ahead.
pub(super) struct Age {
    retention: RetentionConfig,
    clock: Arc<dyn Clock>,
    started: Instant,
    /// The highest that a majority's clocks allow, in Unix milliseconds less what had passed since `started`.
    /// Zero as long as none was read.
    ahead_by: AtomicU64,
    first: FirstTime,
}

impl Age {
    pub(super) fn new(retention: RetentionConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            retention,
            clock,
            started: Instant::now(),
            ahead_by: AtomicU64::new(0),
            first: FirstTime::default(),
        }
    }

    fn learn(&self, high: Timestamp) {
        let passed = Timestamp::default().after(self.started.elapsed());
        self.ahead_by
            .store(high.unix_ms().saturating_sub(passed.unix_ms()), Ordering::Relaxed);
    }

    /// The time as a majority sees it; none if this node has yet to ask.
    fn now(&self) -> Option<Timestamp> {
        match self.ahead_by.load(Ordering::Relaxed) {
            0 => None,
            ahead_by => Some(Timestamp::from_unix_ms(ahead_by).after(self.started.elapsed())),
        }
    }

    /// Refuses a transaction of which there is no record and which nobody runs, if it is closed, or so far ahead that
    /// it could not be forgotten when its time has come.
    pub(super) fn check(&self, transaction: TransactionId, horizon: Horizon) -> Result<(), DriverError> {
        if horizon.has_closed(transaction) {
            return Err(DriverError::Expired {
                transaction,
                watermark: horizon.watermark,
            });
        }
        let tolerance = Duration::from_millis(self.retention.future_tolerance_ms);
        if transaction.timestamp() <= horizon.time.after(tolerance) {
            return Ok(());
        }
        // Which of the clocks is right is not known yet, but it will be in a moment.
        let now = self.now().ok_or(DriverError::NotLeader)?;
        if transaction.timestamp() > now.after(tolerance) {
            let ahead = transaction.timestamp().since(now);
            return Err(DriverError::Premature {
                transaction,
                ahead,
                tolerance,
            });
        }
        Ok(())
    }

    /// The time for a new id: this node's clock, unless it cannot be right.
    pub(super) fn of_new_id(&self, horizon: Horizon) -> Timestamp {
        let now = self.clock.now();
        if horizon.time == Timestamp::default() {
            return now;
        }
        let tolerance = Duration::from_millis(self.retention.future_tolerance_ms / 2);
        now.clamp(horizon.time, horizon.time.after(tolerance))
    }
}

/// Moves time forward and forgets, as long as this node leads.
pub(super) async fn forget_as_time_passes(weak: &Weak<Shared>, term: u64) {
    let mut since = Instant::now();
    let mut passed = Passed::default();
    loop {
        let Some(shared) = weak.upgrade() else { return };
        if let Err(error) = advance(&shared, term, &mut since).await {
            // Another time: that nothing is forgotten meanwhile does no harm.
            tracing::debug!(%error, "the cluster's time stands still");
        }
        if let Err(error) = forget(&shared, &mut passed).await {
            tracing::debug!(%error, "old transactions are forgotten later");
        }
        let tick = shared.age.retention.tick();
        drop(shared);
        sleep(tick).await;
    }
}

async fn advance(shared: &Shared, term: u64, since: &mut Instant) -> Result<(), DriverError> {
    let reading = shared.clocks.read(&shared.replica).await;
    let Some(Reading { low, high }) = reading else {
        tracing::debug!("no majority says what time it is");
        return Ok(());
    };
    shared.age.learn(high);
    let known = shared.horizon()?;
    // Whatever becomes of the proposal: what has passed is counted once.
    let now = Instant::now();
    let passed = now.saturating_duration_since(std::mem::replace(since, now));
    let mut time = if known.time == Timestamp::default() {
        shared.age.first.next(term, low, now)
    } else {
        next_time(known.time, low, passed)
    };
    if mutants::is_on(Mutant::M14) {
        time = shared.clock.now();
    }
    let watermark = TransactionId::first_at(time.before(lengthened(shared.age.retention.window())));
    let horizon = Horizon { time, watermark };
    shared.propose(Command::Advance(horizon)).await.map(drop)
}

/// The window by a time that may run fast.
fn lengthened(window: Duration) -> Duration {
    window + window / HASTE
}

async fn forget(shared: &Shared, passed: &mut Passed) -> Result<(), DriverError> {
    forget_what_is_closed(shared, passed).await?;
    release_keys(shared).await
}

/// An idempotency key is free again when its transaction is forgotten.
async fn release_keys(shared: &Shared) -> Result<(), DriverError> {
    let mut after = None;
    loop {
        let page = shared.replica.releasable(after, KEYS_PER_PAGE);
        let page = page.map_err(|error| DriverError::StorageFailed(error.to_string()))?;
        let Some(Releasable { last, keys }) = page else {
            return Ok(());
        };
        after = Some(last);
        if !keys.is_empty() {
            shared.propose(Command::Release { keys }).await?;
        }
    }
}

async fn forget_what_is_closed(shared: &Shared, passed: &mut Passed) -> Result<(), DriverError> {
    let page = |after| {
        let page = shared.replica.forgettable(after, PAGE);
        page.map_err(|error| DriverError::StorageFailed(error.to_string()))
    };
    let forget = async |transactions: Vec<TransactionId>| {
        let count = transactions.len();
        let applied = shared.propose(Command::Forget { transactions }).await?;
        crate::metrics::forgotten(count);
        Ok(applied)
    };
    passed.go_on(page, forget).await
}

/// Up to where a leader has looked for what may be forgotten.
///
/// What it found there and had to keep is not looked at again, however much it is: those are commits that a member has
/// yet to acknowledge, and as they are closed, the last acknowledgement drops them. Behind it nothing is decided any
/// more. The next leader begins at the front.
#[derive(Default)]
struct Passed {
    last: Option<TransactionId>,
}

impl Passed {
    async fn go_on<F: Future<Output = Result<Applied, DriverError>>>(
        &mut self,
        page: impl Fn(Option<TransactionId>) -> Result<Option<Forgettable>, DriverError>,
        forget: impl Fn(Vec<TransactionId>) -> F,
    ) -> Result<(), DriverError> {
        while let Some(Forgettable { last, transactions }) = page(self.last)? {
            if !transactions.is_empty() {
                forget(transactions).await?;
            }
            // Only now: what could not be forgotten is looked for again.
            self.last = Some(last);
        }
        Ok(())
    }
}

/// The wall clocks of all nodes.
pub(super) struct Clocks {
    pub(super) cluster: ClusterId,
    pub(super) connector: Arc<dyn Connector>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Clocks {
    async fn read(&self, replica: &Replica) -> Option<Reading> {
        let status = replica.status();
        let voters = status.nodes.iter().filter(|node| node.voter);
        let others = voters
            .clone()
            .filter(|node| node.node != status.node)
            .map(|node| self.ask(&node.address));
        let mut clocks: Vec<Timestamp> = join_all(others).await.into_iter().flatten().collect();
        clocks.push(self.clock.now());
        Reading::of(clocks, voters.count())
    }

    async fn ask(&self, address: &str) -> Option<Timestamp> {
        let channel = self.connector.channel(address).ok()?;
        let request = GetStatusRequest {
            cluster: self.cluster.to_string(),
            omit_participants: true,
            participants_after: String::new(),
        };
        let mut node = AdminClient::new(channel);
        let reply = timeout(PATIENCE, node.get_status(request)).await.ok()?.ok()?;
        // A node that says nothing of its clock shows the epoch.
        let clock = Timestamp::from_unix_ms(reply.into_inner().wall_clock_unix_ms);
        (clock != Timestamp::default()).then_some(clock)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::ops::Bound;

    use unanimo_core::table::{DecisionTable, Proposal, View as _};
    use unanimo_core::{Decision, Members, ParticipantId, RequestHash};

    use super::*;

    /// A table as a leader reads it, and how many records it has read.
    #[derive(Default)]
    struct Read {
        table: RefCell<DecisionTable>,
        records: Cell<usize>,
        is_down: Cell<bool>,
    }

    impl Read {
        fn apply(&self, command: &Command) -> Applied {
            self.table.borrow_mut().apply(command)
        }

        fn close_below(&self, watermark: TransactionId) {
            let time = watermark.timestamp();
            self.apply(&Command::Advance(Horizon { time, watermark }));
        }

        fn page(&self, after: Option<TransactionId>) -> Option<Forgettable> {
            let table = self.table.borrow();
            let Ok(horizon) = table.horizon();
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let records = table.records().range((from, Bound::Excluded(horizon.watermark)));
            let read: Vec<_> = records.take(100).collect();
            self.records.set(self.records.get() + read.len());
            let (last, _) = read.last()?;
            let ended = read.iter().filter(|(_, record)| record.is_ended());
            let transactions = ended.map(|(transaction, _)| **transaction).collect();
            Some(Forgettable {
                last: **last,
                transactions,
            })
        }

        /// One tick of a leader. Returns how many records it read.
        async fn tick(&self, passed: &mut Passed) -> usize {
            self.records.set(0);
            let forget = async |transactions| match self.is_down.get() {
                true => Err(DriverError::NotLeader),
                false => Ok(self.apply(&Command::Forget { transactions })),
            };
            let told = passed.go_on(|after| Ok(self.page(after)), forget).await;
            assert_eq!(told.is_err(), self.is_down.get());
            self.records.get()
        }

        fn kept(&self) -> usize {
            self.table.borrow().records().len()
        }
    }

    fn transaction(number: u64) -> TransactionId {
        TransactionId::new(at(1000 + number), 1)
    }

    fn decide(number: u64, unacknowledged: &Members) -> Command {
        Command::Decide(Proposal {
            transaction: transaction(number),
            decision: Decision::Commit,
            request_hash: RequestHash::of_members(unacknowledged),
            members: unacknowledged.clone(),
            unacknowledged: unacknowledged.clone(),
            witnesses: BTreeMap::new(),
            decided_at: at(1),
        })
    }

    #[tokio::test]
    async fn commits_kept_for_a_member_that_is_away_are_looked_at_once() {
        let away = Members::from([ParticipantId::new("away").unwrap()]);
        let read = Read::default();
        for number in 0..3000 {
            let unacknowledged = if number % 3 == 0 {
                Members::new()
            } else {
                away.clone()
            };
            read.apply(&decide(number, &unacknowledged));
        }
        let mut passed = Passed::default();
        read.close_below(transaction(1500));
        assert_eq!(read.tick(&mut passed).await, 1500);
        assert_eq!(read.kept(), 2500);
        assert_eq!(read.tick(&mut passed).await, 0, "nothing new is closed");
        // What cannot be proposed now is looked for again.
        read.close_below(transaction(1800));
        read.is_down.set(true);
        assert_eq!(read.tick(&mut passed).await, 100);
        read.is_down.set(false);
        assert_eq!(read.tick(&mut passed).await, 300);
        assert_eq!(read.kept(), 2400);
        // The member is back, and nobody has to look for what was kept for it.
        for number in 0..1800 {
            read.apply(&Command::Acknowledge {
                transaction: transaction(number),
                participants: away.clone(),
                witnesses: std::collections::BTreeMap::new(),
            });
        }
        assert_eq!(read.kept(), 1200, "what is not closed");
        // A new leader does not know what the old one has seen.
        assert_eq!(read.tick(&mut Passed::default()).await, 0);
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    #[test]
    fn one_clock_of_three_moves_nothing_and_a_minority_says_nothing() {
        let day = 86_400_000;
        for wrong in [0, 5 * day - day, 5 * day + day, u64::MAX] {
            let reading = Reading::of(vec![at(5 * day), at(wrong), at(5 * day)], 3);
            let right = Reading {
                low: at(5 * day),
                high: at(5 * day),
            };
            assert_eq!(reading, Some(right), "{wrong}");
        }
        // Of two the earlier one closes, and the later one says what is too far ahead.
        let two = Reading::of(vec![at(9), at(7)], 3);
        assert_eq!(
            two,
            Some(Reading {
                low: at(7),
                high: at(9)
            })
        );
        assert_eq!(Reading::of(vec![at(9)], 3), None);
        assert_eq!(Reading::of(vec![at(9), at(7)], 4), None);
    }

    #[test]
    fn the_clusters_time_hardly_runs_faster_than_time_passes() {
        let second = Duration::from_secs(1);
        let cases = [
            (at(500_000), at(501_000), second, at(501_000)),
            // All clocks jump forward.
            (at(500_000), at(900_000), second, at(501_015)),
            // All clocks jump back.
            (at(500_000), at(100_000), second, at(500_000)),
            // A new leader has seen no time pass.
            (at(500_000), at(900_000), Duration::ZERO, at(500_000)),
        ];
        // The most that it may gain within a window is what the window is longer.
        let window = Duration::from_secs(86_400);
        let fast = next_time(at(1), at(u64::MAX), window);
        assert!(fast.before(lengthened(window)) <= at(1));
        for (known, low, passed, expected) in cases {
            assert_eq!(
                next_time(known, low, passed),
                expected,
                "{known} {low} {passed:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_time_that_may_yet_be_recorded_is_not_overtaken_by_clocks_that_jump() {
        let first = FirstTime::default();
        assert_eq!(first.next(3, at(500_000), Instant::now()), at(500_000));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(first.next(3, at(900_000), Instant::now()), at(501_015));
        // In another term what was proposed is recorded, and known, or never will be.
        assert_eq!(first.next(4, at(900_000), Instant::now()), at(900_000));
    }
}
