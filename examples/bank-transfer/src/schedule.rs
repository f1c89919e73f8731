//! Whom to kill when.

use std::collections::VecDeque;
use std::time::Duration;

use crate::BankName;

/// How long a coordinator that was killed stays away: longer than an election, so that another one leads.
const COORDINATOR_AWAY: Duration = Duration::from_millis(1500);
/// How long a bank that was killed stays away.
const BANK_AWAY: Duration = Duration::from_secs(1);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The coordinator that leads at that moment.
    Leader,
    /// A bank.
    Bank(BankName),
}

/// One fault: who, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who is killed.
    pub victim: Victim,
    /// How long it stays away.
    pub away: Duration,
}

impl Fault {
    fn of(victim: Victim) -> Self {
        let away = match victim {
            Victim::Leader => COORDINATOR_AWAY,
            Victim::Bank(_) => BANK_AWAY,
        };
        Self { victim, away }
    }
}

/// How far a load goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many transfers.
    Transfers(usize),
    /// For so long.
    Time(Duration),
}

impl Extent {
    /// How much of it is done, in percent. With few transfers a fault is due early rather than never: of three, none is
    /// needed for 25 %, and one for 60 %.
    pub(crate) fn percent(self, finished: usize, elapsed: Duration) -> u128 {
        match self {
            Self::Transfers(all) => ((finished as u128 + 1) * 100 - 1) / (all.max(1) as u128),
            Self::Time(all) => elapsed.as_millis() * 100 / all.as_millis().max(1),
        }
    }
}

/// The faults of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Once each, when so many percent of the load are done, in their order.
    once: VecDeque<(u128, Fault)>,
    /// Again and again.
    repeated: Vec<Repeat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repeat {
    victim: Victim,
    every: Duration,
    /// When, from the start on, it is next.
    next: Duration,
}

impl Schedule {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// The leader after a quarter, and the bank of the hot account after six tenths.
    pub fn usual() -> Self {
        let once = [
            (25, Fault::of(Victim::Leader)),
            (60, Fault::of(Victim::Bank(BankName::South))),
        ];
        Self {
            once: VecDeque::from(once),
            repeated: Vec::new(),
        }
    }

    /// The leader each time that so much has passed, and the banks in turn, each if a time is given.
    pub fn repeated(leader_every: Option<Duration>, bank_every: Option<Duration>) -> Self {
        let repeat = |victim, every| Repeat {
            victim,
            every,
            next: every,
        };
        let leader = leader_every.map(|every| repeat(Victim::Leader, every));
        let bank = bank_every.map(|every| repeat(Victim::Bank(BankName::South), every));
        Self {
            once: VecDeque::new(),
            repeated: leader.into_iter().chain(bank).collect(),
        }
    }

    /// Takes the next fault that comes once, if so much is done that its time has come.
    pub(crate) fn take_due(&mut self, percent: u128) -> Option<Fault> {
        if self.once.front().is_some_and(|(at, _)| *at <= percent) {
            self.once.pop_front().map(|(_, fault)| fault)
        } else {
            None
        }
    }

    /// When, from the start on, somebody is next to be killed again.
    pub(crate) fn next_repeat(&self) -> Option<Duration> {
        self.repeated.iter().map(|repeat| repeat.next).min()
    }

    /// Who is to be killed again now.
    pub(crate) fn repeats_due(&self, now: Duration) -> Vec<Victim> {
        let due = self.repeated.iter().filter(|repeat| repeat.next <= now);
        due.map(|repeat| repeat.victim).collect()
    }

    /// Takes a fault that is due. What was missed because it had to wait is not made up for.
    pub(crate) fn take_repeat(&mut self, victim: Victim, now: Duration) -> Fault {
        for repeat in self.repeated.iter_mut().filter(|repeat| repeat.victim == victim) {
            while repeat.next <= now {
                repeat.next += repeat.every;
            }
            repeat.victim = match victim {
                Victim::Leader => Victim::Leader,
                Victim::Bank(BankName::North) => Victim::Bank(BankName::South),
                Victim::Bank(BankName::South) => Victim::Bank(BankName::North),
            };
        }
        Fault::of(victim)
    }

    /// Tries a fault again that cannot be afforded yet.
    pub(crate) fn postpone(&mut self, victim: Victim, until: Duration) {
        for repeat in self.repeated.iter_mut().filter(|repeat| repeat.victim == victim) {
            repeat.next = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: Victim = Victim::Leader;
    const SOUTH: Victim = Victim::Bank(BankName::South);
    const NORTH: Victim = Victim::Bank(BankName::North);

    /// After how many of so many transfers each victim of the usual schedule is killed.
    fn killed_after(transfers: usize) -> Vec<(usize, Victim)> {
        let mut schedule = Schedule::usual();
        let mut killed = Vec::new();
        for finished in 0..=transfers {
            let percent = Extent::Transfers(transfers).percent(finished, Duration::ZERO);
            while let Some(fault) = schedule.take_due(percent) {
                killed.push((finished, fault.victim));
            }
        }
        killed
    }

    #[test]
    fn the_usual_schedule_kills_the_leader_and_a_bank_however_few_transfers_there_are() {
        assert_eq!(killed_after(10_000), [(2500, LEADER), (6000, SOUTH)]);
        assert_eq!(killed_after(10), [(2, LEADER), (6, SOUTH)]);
        assert_eq!(killed_after(3), [(0, LEADER), (1, SOUTH)]);
        assert_eq!(killed_after(1), [(0, LEADER), (0, SOUTH)]);
    }

    #[test]
    fn a_load_that_jumps_ahead_gets_every_fault() {
        let mut schedule = Schedule::usual();
        assert!(schedule.take_due(100).is_some());
        assert!(schedule.take_due(100).is_some());
        assert_eq!(schedule.take_due(100), None);
        assert_eq!(Schedule::none().take_due(100), None);
        assert_eq!(Schedule::usual().repeats_due(Duration::MAX), []);
    }

    #[test]
    fn a_load_that_lasts_is_measured_by_time() {
        let extent = Extent::Time(Duration::from_secs(60));
        let percent = |seconds| extent.percent(1_000_000, Duration::from_secs(seconds));
        assert_eq!([0, 15, 60].map(percent), [0, 25, 100]);
    }

    #[test]
    fn the_leader_is_killed_again_and_again_and_the_banks_in_turn() {
        let seconds = Duration::from_secs;
        let mut schedule = Schedule::repeated(Some(seconds(5)), Some(seconds(7)));
        let mut killed = Vec::new();
        for second in 0..=30 {
            for victim in schedule.repeats_due(seconds(second)) {
                assert_eq!(schedule.take_repeat(victim, seconds(second)).victim, victim);
                killed.push((second, victim));
            }
        }
        let expected = [
            (5, LEADER),
            (7, SOUTH),
            (10, LEADER),
            (14, NORTH),
            (15, LEADER),
            (20, LEADER),
            (21, SOUTH),
            (25, LEADER),
            (28, NORTH),
            (30, LEADER),
        ];
        assert_eq!(killed, expected);
    }

    #[test]
    fn a_kill_that_has_to_wait_is_not_made_up_for() {
        let seconds = Duration::from_secs;
        let mut schedule = Schedule::repeated(Some(seconds(5)), None);
        assert_eq!(schedule.next_repeat(), Some(seconds(5)));
        schedule.postpone(LEADER, seconds(6));
        assert_eq!(schedule.repeats_due(seconds(5)), []);
        assert_eq!(schedule.repeats_due(seconds(17)), [LEADER]);
        schedule.take_repeat(LEADER, seconds(17));
        assert_eq!(schedule.next_repeat(), Some(seconds(21)));
    }
}
