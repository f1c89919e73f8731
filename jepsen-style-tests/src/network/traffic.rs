use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;

use super::rule::Reordering;
use super::{Counts, Host, Link, Rule};
use crate::random::Seed;

/// Packets that may be on their way at once. Beyond that they are dropped, as in any router.
const ROOM: usize = 50_000;

/// What happens to packets between arrival and delivery. Does no IO and knows no clock: the router carries it out.
pub(super) struct Traffic {
    seed: Seed,
    links: BTreeMap<Link, State>,
    flying: BinaryHeap<Reverse<Flying>>,
    next: u64,
}

/// A link, from its first packet or rule on.
struct State {
    rule: Rule,
    since: Instant,
    random: StdRng,
    counts: Counts,
    /// When the last packet that keeps its place is delivered. None that keeps its place comes earlier.
    tail: Instant,
    /// The newest packet that was delivered, by its number. What has a smaller one was overtaken.
    newest: Option<u64>,
}

/// A packet on its way. Ordered by when it is due, and then by arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    due: Instant,
    number: u64,
    link: Link,
    packet: Vec<u8>,
}

impl Traffic {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            seed,
            links: BTreeMap::new(),
            flying: BinaryHeap::new(),
            next: 0,
        }
    }

    /// From now on this happens to the packets that are sent on this link. Those on their way are not touched.
    pub(super) fn set(&mut self, link: Link, rule: Rule, now: Instant) {
        let state = self.state(link, now);
        state.rule = rule;
        state.since = now;
    }

    /// What happened on this link so far.
    pub(super) fn counts(&self, link: Link) -> Counts {
        self.links
            .get(&link)
            .map_or_else(Counts::default, |state| state.counts)
    }

    /// Takes a packet that was sent.
    pub(super) fn arrive(&mut self, link: Link, packet: &[u8], now: Instant) {
        let number = self.next;
        self.next += 1;
        let room = self.flying.len() < ROOM;
        let state = self.state(link, now);
        for due in state.fate(now, room) {
            self.flying.push(Reverse(Flying {
                due,
                number,
                link,
                packet: packet.to_vec(),
            }));
        }
    }

    /// The next packet to deliver, if one is due.
    pub(super) fn deliver(&mut self, now: Instant) -> Option<(Host, Vec<u8>)> {
        if self.due()? > now {
            return None;
        }
        let Reverse(Flying {
            number, link, packet, ..
        }) = self.flying.pop()?;
        let state = self.state(link, now);
        if state.newest.is_some_and(|newest| number < newest) {
            state.counts.overtaken += 1;
        }
        state.newest = state.newest.max(Some(number));
        Some((link.to, packet))
    }

    /// When the next packet is due, if any is on its way.
    pub(super) fn due(&self) -> Option<Instant> {
        self.flying.peek().map(|Reverse(flying)| flying.due)
    }

    fn state(&mut self, link: Link, now: Instant) -> &mut State {
        let seed = self.seed;
        self.links.entry(link).or_insert_with(|| State {
            rule: Rule::default(),
            since: now,
            random: seed.stream(&format!("link {link}")),
            counts: Counts::default(),
            tail: now,
            newest: None,
        })
    }
}

impl State {
    /// When each copy of a packet is delivered: none if it is dropped.
    fn fate(&mut self, now: Instant, room: bool) -> Vec<Instant> {
        self.counts.sent += 1;
        if self.rule.is_down(now.saturating_duration_since(self.since)) {
            self.counts.cut += 1;
            return Vec::new();
        }
        if self.chance(self.rule.loss) {
            self.counts.lost += 1;
            return Vec::new();
        }
        if !room {
            self.counts.overflowed += 1;
            return Vec::new();
        }
        let late = self.lateness();
        if late > Duration::ZERO {
            self.counts.delayed += 1;
        }
        let due = self.place(now + late);
        if self.chance(self.rule.duplication) {
            self.counts.duplicated += 1;
            vec![due, due]
        } else {
            vec![due]
        }
    }

    /// Where a packet that would be due then comes in the order of the others.
    fn place(&mut self, due: Instant) -> Instant {
        if let Some(Reordering { share, held }) = self.rule.reordering
            && self.chance(share)
        {
            return due + held;
        }
        self.tail = self.tail.max(due);
        self.tail
    }

    fn lateness(&mut self) -> Duration {
        let jitter = self.rule.jitter;
        if jitter > Duration::ZERO {
            self.rule.delay + jitter.mul_f64(self.random.random::<f64>())
        } else {
            self.rule.delay
        }
    }

    /// Draws nothing for what cannot happen, so that links without a rule leave their stream alone.
    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random::<f64>() < share
    }
}

#[cfg(test)]
#[path = "traffic_tests.rs"]
mod tests;
