//! Closing and forgetting old transactions (R7), by a time that no clock can move (R8).

use std::time::Duration;

use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::{Command, Horizon, View as _};
use unanimo_core::{IdempotencyKey, Timestamp, TransactionId};

use super::Coordinator;
use crate::counters::Sometimes;
use crate::log::Waiter;
use crate::message::{Message, Why};
use crate::node::Node;
use crate::schedule::{MS, Time};
use crate::world::{Timer, World};

/// How long the clocks of the others are waited for.
const PATIENCE: Time = 150 * MS;
/// The part of the time passed by which the cluster's time may run faster, and by which the window is lengthened.
const HASTE: u32 = 64;

impl World {
    /// Refuses a transaction of which there is no record and which nobody runs, if it is closed or too far ahead.
    pub(crate) fn check_age(&mut self, place: usize, transaction: TransactionId) -> Result<(), Why> {
        let node = &self.coordinators[place];
        let Ok(horizon) = node.replica.table.horizon();
        if horizon.has_closed(transaction) {
            self.watch.sometimes(Sometimes::InitiatorToldExpired);
            return Err(Why::Expired);
        }
        let tolerance = Duration::from_millis(self.knobs.tolerance_ms);
        if transaction.timestamp() <= horizon.time.after(tolerance) {
            return Ok(());
        }
        // Which of the clocks is right is not known yet, but it will be in a moment.
        let (high, since) = node.ahead.ok_or(Why::NoLeader)?;
        let passed = Duration::from_micros(node.clock.monotonic(self.now).saturating_sub(since));
        if transaction.timestamp() > high.after(passed).after(tolerance) {
            self.watch.sometimes(Sometimes::IdTooFarAhead);
            return Err(Why::Premature);
        }
        Ok(())
    }

    /// The time for a new id: this node's clock, unless it cannot be right.
    pub(crate) fn time_of_new_id(&self, place: usize) -> Timestamp {
        let node = &self.coordinators[place];
        let now = node.clock.wall(self.now);
        let Ok(horizon) = node.replica.table.horizon();
        if horizon.time == Timestamp::default() {
            return now;
        }
        let tolerance = Duration::from_millis(self.knobs.tolerance_ms / 2);
        now.clamp(horizon.time, horizon.time.after(tolerance))
    }

    /// Asks the others what time it is.
    pub(crate) fn tick(&mut self, place: usize, term: u64) {
        if self.coordinators[place].ready != Some(term) {
            return;
        }
        let now = self.now;
        let node = &mut self.coordinators[place];
        node.clock_round += 1;
        node.clocks = vec![node.clock.wall(now)];
        let round = node.clock_round;
        let this = Node::Coordinator(place as u8);
        for other in self.others(place) {
            self.send(this, other, Message::ClockAsked { round });
        }
        self.wait(this, PATIENCE, Timer::ClocksRead { round });
        self.wait(this, self.knobs.tick_ms * MS + PATIENCE, Timer::Tick { term });
    }

    pub(crate) fn clocks_read(&mut self, place: usize, round: u64) {
        let (now, count) = (self.now, self.coordinators.len());
        let node = &mut self.coordinators[place];
        if node.ready.is_none() || node.clock_round != round {
            return;
        }
        let mut clocks = std::mem::take(&mut node.clocks);
        if clocks.len() * 2 > count {
            clocks.sort_unstable();
            let (low, high) = (clocks[(clocks.len() - 1) / 2], clocks[clocks.len() / 2]);
            let monotonic = node.clock.monotonic(now);
            node.ahead = Some((high, monotonic));
            let passed = Duration::from_micros(monotonic.saturating_sub(node.counted_until));
            node.counted_until = monotonic;
            let Ok(known) = node.replica.table.horizon();
            let mut time = if known.time == Timestamp::default() {
                let time = node.first_time(low, monotonic);
                self.watch.happened(&crate::event::Event::TimeRead { time });
                time
            } else {
                next_time(known.time, low, passed)
            };
            let node = &self.coordinators[place];
            if mutants::is_on(Mutant::M14) {
                time = node.clock.wall(now);
            }
            let window = Duration::from_millis(self.knobs.window_ms);
            let watermark = TransactionId::first_at(time.before(window + window / HASTE));
            let horizon = Horizon { time, watermark };
            self.propose(place, Some(Command::Advance(horizon)), Waiter::Nobody);
        }
        self.forget(place);
    }

    /// Drops what is closed, as far as this node has applied, and no member needs.
    fn forget(&mut self, place: usize) {
        if self.coordinators[place].ready.is_none() {
            return;
        }
        let table = &self.coordinators[place].replica.table;
        let Ok(horizon) = table.horizon();
        let closed = table.records().range(..horizon.watermark);
        let mut kept = 0;
        let mut transactions = Vec::new();
        for (id, record) in closed {
            if record.decision.is_commit() && !record.is_ended() && !mutants::is_on(Mutant::M14) {
                kept += 1;
            } else {
                transactions.push(*id);
            }
        }
        let keys = self.keys_to_release(place, horizon);
        if kept > 0 {
            self.watch.sometimes(Sometimes::CommitKeptBeyondTheWindow);
        }
        if !transactions.is_empty() {
            self.propose(place, Some(Command::Forget { transactions }), Waiter::Nobody);
        }
        if !keys.is_empty() {
            self.propose(place, Some(Command::Release { keys }), Waiter::Nobody);
        }
    }

    /// The keys whose transactions are forgotten.
    fn keys_to_release(&self, place: usize, horizon: Horizon) -> Vec<(IdempotencyKey, TransactionId)> {
        let table = &self.coordinators[place].replica.table;
        let works = self.schedule.works.iter().filter_map(|work| match &work.want {
            crate::schedule::Want::Submit { key, .. } => *key,
            _ => None,
        });
        let mut numbers: Vec<u64> = works.collect();
        numbers.sort_unstable();
        numbers.dedup();
        let bound = |number| {
            let key = crate::initiator::key_of(number);
            let Ok(binding) = table.binding(&key);
            let binding = binding?;
            let forgotten = horizon.has_closed(binding.transaction)
                && !table.records().contains_key(&binding.transaction);
            forgotten.then_some((key, binding.transaction))
        };
        numbers.into_iter().filter_map(bound).collect()
    }
}

impl Coordinator {
    /// The time to begin with: the clocks' own, unless this leader has proposed one and does not know what became of it.
    fn first_time(&mut self, low: Timestamp, monotonic: Time) -> Timestamp {
        let term = self.replica.term;
        match self.first_time {
            Some((proposed_in, time, since)) if proposed_in == term => {
                let passed = Duration::from_micros(monotonic.saturating_sub(since));
                next_time(time, low, passed)
            }
            Some(_) | None => {
                self.first_time = Some((term, low, monotonic));
                low
            }
        }
    }
}

/// Where the cluster's time goes next: hardly further than has passed, and not past the majority's clocks.
fn next_time(known: Timestamp, low: Timestamp, passed: Duration) -> Timestamp {
    low.min(known.after(passed + passed / HASTE)).max(known)
}
