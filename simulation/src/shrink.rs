//! Makes a schedule that breaks a rule smaller, as long as it breaks the same rule: fewer faults, fewer transactions,
//! fewer messages that go astray, a shorter run, and a calmer world.
//!
//! What is left out changes nothing else, because whatever a run draws it draws for a purpose of its own
//! ([`Chance`](crate::chance::Chance)). The fates of messages are written down first, so that they are data like the rest.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::run::{Keep, Outcome, run};
use crate::schedule::{Fates, Knobs, Schedule};
use crate::watch::Broken;

/// No schedule is tried more often than this: what is left then is small enough to read.
const MOST_RUNS: u32 = 4_000;

/// A schedule that breaks a rule, on its way to a smaller one.
pub(crate) struct Shrinking {
    schedule: Schedule,
    broken: Broken,
    runs: u32,
}

impl Shrinking {
    /// None if the schedule breaks no rule.
    pub(crate) fn of(schedule: Schedule) -> Option<Self> {
        let outcome = run(&Rc::new(schedule.clone()), Keep::Nothing);
        let broken = outcome.broken.clone()?;
        let mut shrinking = Self {
            schedule,
            broken,
            runs: 1,
        };
        shrinking.list_fates(&outcome);
        Some(shrinking)
    }

    /// Writes down what became of messages.
    fn list_fates(&mut self, outcome: &Outcome) {
        let listed: BTreeMap<_, _> = outcome.fates.iter().copied().collect();
        let calm = Knobs::default();
        let knobs = Knobs {
            loss: calm.loss,
            repeat: calm.repeat,
            hold: calm.hold,
            hold_max_ms: calm.hold_max_ms,
            ..self.schedule.knobs.clone()
        };
        let mut candidate = Schedule {
            fates: Fates::Listed(listed),
            ..self.schedule.clone()
        };
        self.take_if_it_breaks(candidate.clone());
        candidate.knobs = knobs;
        self.take_if_it_breaks(candidate);
    }

    /// The smallest schedule that was found, and the rule that it breaks.
    pub(crate) fn finish(mut self) -> (Schedule, Broken, u32) {
        loop {
            let before = self.size();
            self.shorten();
            self.without_faults();
            self.without_works();
            self.without_fates();
            self.calmer();
            if self.size() >= before || self.runs >= MOST_RUNS {
                return (self.schedule, self.broken, self.runs);
            }
        }
    }

    fn size(&self) -> usize {
        let fates = match &self.schedule.fates {
            Fates::Drawn => usize::MAX / 2,
            Fates::Listed(fates) => fates.len(),
        };
        let usual = Knobs::default().list();
        let knobs = self.schedule.knobs.list();
        let changed = knobs.iter().zip(&usual).filter(|(one, other)| one != other);
        fates + self.schedule.works.len() + self.schedule.faults.len() + changed.count()
    }

    fn take_if_it_breaks(&mut self, candidate: Schedule) -> bool {
        if self.runs >= MOST_RUNS {
            return false;
        }
        self.runs += 1;
        let outcome = run(&Rc::new(candidate.clone()), Keep::Nothing);
        match outcome.broken {
            Some(broken) if broken.invariant == self.broken.invariant => {
                self.schedule = candidate;
                self.broken = broken;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Nothing that begins after the end matters.
    fn shorten(&mut self) {
        let end_ms = self.broken.at_us / 1000 + 1;
        let mut candidate = self.schedule.clone();
        candidate.works.retain(|work| work.at_ms <= end_ms);
        candidate.faults.retain(|fault| fault.at_ms <= end_ms);
        if candidate != self.schedule {
            self.take_if_it_breaks(candidate);
        }
        for part in [2, 4, 8] {
            let mut candidate = self.schedule.clone();
            let until = &mut candidate.knobs.faults_until_ms;
            *until -= *until / part;
            self.take_if_it_breaks(candidate);
        }
    }

    fn without_faults(&mut self) {
        let count = self.schedule.faults.len();
        self.leave_out(count, |schedule, from, to| {
            schedule.faults.drain(from..to);
        });
    }

    fn without_works(&mut self) {
        let count = self.schedule.works.len();
        self.leave_out(count, |schedule, from, to| {
            schedule.works.drain(from..to);
        });
    }

    fn without_fates(&mut self) {
        let Fates::Listed(fates) = &self.schedule.fates else {
            return;
        };
        let count = fates.len();
        self.leave_out(count, |schedule, from, to| {
            if let Fates::Listed(fates) = &mut schedule.fates {
                let keys: Vec<_> = fates.keys().copied().skip(from).take(to - from).collect();
                for key in keys {
                    fates.remove(&key);
                }
            }
        });
    }

    /// Leaves out stretches of a list, first long ones and then ever shorter ones.
    fn leave_out(&mut self, mut count: usize, leave: impl Fn(&mut Schedule, usize, usize)) {
        let mut stretch = count.next_power_of_two();
        while stretch > 0 {
            let mut from = 0;
            while from < count {
                let to = (from + stretch).min(count);
                let mut candidate = self.schedule.clone();
                leave(&mut candidate, from, to);
                if self.take_if_it_breaks(candidate) {
                    count -= to - from;
                } else {
                    from = to;
                }
            }
            stretch /= 2;
        }
    }

    /// Each knob as it is in a small calm world.
    fn calmer(&mut self) {
        for (name, usual) in Knobs::default().list() {
            let mut candidate = self.schedule.clone();
            let Some(knob) = candidate.knobs.named(name) else {
                continue;
            };
            if *knob != usual && name != "faults_until_ms" {
                *knob = usual;
                self.take_if_it_breaks(candidate);
            }
        }
    }
}
