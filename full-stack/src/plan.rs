//! What a seed stands for: sizes, times, and the faults that will happen.

use std::time::Duration;

use crate::draw::Draw;
use crate::failure::Part;

/// Short enough for a run to forget most of what it did.
pub(crate) const SHORT_WINDOW_SECONDS: u64 = 8;

/// A run, as its seed draws it. Everything else follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) coordinators: u64,
    pub(crate) participants: u64,
    pub(crate) initiators: u64,
    /// Accounts at each participant, and what each begins with.
    pub(crate) accounts: u64,
    pub(crate) balance: i64,
    /// The longest pause of an initiator between two transactions.
    pub(crate) think: Duration,
    /// How long a message takes.
    pub(crate) latency: (Duration, Duration),
    /// How long a group of a journal waits for its disk: at coordinators, at participants.
    pub(crate) disk_pause: (Duration, Duration),
    /// How long the service takes for a call, at most.
    pub(crate) service_pause: Duration,
    pub(crate) heartbeat_ms: u64,
    pub(crate) snapshot_every_entries: u64,
    pub(crate) keep_entries: u64,
    /// For how long transactions are remembered.
    pub(crate) window: Duration,
    /// For how long a transaction may be voting.
    pub(crate) voting: Duration,
    /// For how long faults happen.
    pub(crate) trouble: Duration,
    pub(crate) faults: Vec<Planned>,
    /// The coordinator whose mark of membership cannot be synced when the cluster forms, the only time that it is written.
    pub(crate) unmarked: Option<String>,
    /// Whether everything loses its power once more when all is over.
    pub(crate) power_loss_at_end: bool,
}

/// A fault and its time.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) lasting: Duration,
    pub(crate) fault: Fault,
}

/// Something that goes wrong. Hosts are named as in the simulated network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process ends; what it has written stays.
    Kill(String),
    /// The machine loses its power; what is not synced may be gone.
    PowerLoss(String),
    /// Every machine that runs a part of the system loses its power at the same moment.
    PowerLossEverywhere,
    /// The machine loses its power in the middle of its work, after so many more operations of its disk.
    PowerCut { host: String, operations: u64 },
    /// A sync of some part of the storage fails, so many from now on.
    FailedSync {
        host: String,
        part: Part,
        syncs: u64,
        data_is_gone: bool,
    },
    /// Nothing passes between the host and all others.
    Isolated(String),
    /// Nothing passes between the two.
    Cut(String, String),
    /// Nothing passes in this direction.
    OneWay(String, String),
    /// What passes between the two arrives when it is over.
    Held(String, String),
    /// Messages take up to so long.
    SlowNetwork { most_ms: u64 },
    /// The wall clock of the host jumps.
    ClockJump { host: String, by_ms: i64 },
}

impl Fault {
    /// The kinds that a set of runs has to have seen.
    pub(crate) const KINDS: [&str; 11] = [
        "clock_jump",
        "cut",
        "failed_sync",
        "held",
        "isolated",
        "kill",
        "one_way",
        "power_cut",
        "power_loss",
        "power_loss_everywhere",
        "slow_network",
    ];

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::PowerLoss(_) => "power_loss",
            Self::PowerLossEverywhere => "power_loss_everywhere",
            Self::PowerCut { .. } => "power_cut",
            Self::FailedSync { .. } => "failed_sync",
            Self::Isolated(_) => "isolated",
            Self::Cut(..) => "cut",
            Self::OneWay(..) => "one_way",
            Self::Held(..) => "held",
            Self::SlowNetwork { .. } => "slow_network",
            Self::ClockJump { .. } => "clock_jump",
        }
    }
}

/// In a plan, whoever leads when the time has come.
const LEADER: &str = "leader";

impl Fault {
    /// The same fault, with whoever leads in the place of the leader.
    pub(crate) fn aimed_at(mut self, leader: &str) -> Self {
        match &mut self {
            Self::Kill(host)
            | Self::PowerLoss(host)
            | Self::PowerCut { host, .. }
            | Self::FailedSync { host, .. }
            | Self::Isolated(host)
            | Self::ClockJump { host, .. } => {
                if host == LEADER {
                    leader.clone_into(host);
                }
            }
            Self::PowerLossEverywhere
            | Self::Cut(..)
            | Self::OneWay(..)
            | Self::Held(..)
            | Self::SlowNetwork { .. } => {}
        }
        self
    }
}

impl Plan {
    /// The plan of this seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut draw = Draw::new(seed, "plan");
        let milliseconds = Duration::from_millis;
        let heartbeat_ms = *draw.pick(&[60, 100, 100]);
        // A heartbeat's answer has to be there within three quarters of its time, the forced write included.
        let slowest = draw.between(2, heartbeat_ms / 5);
        let mut plan = Self {
            seed,
            coordinators: *draw.pick(&[3, 3, 3, 5]),
            participants: draw.between(2, 4),
            initiators: draw.between(1, 4),
            accounts: draw.between(1, 4),
            balance: draw.between(20, 200) as i64,
            think: milliseconds(*draw.pick(&[10, 40, 150])),
            latency: (milliseconds(1), milliseconds(slowest)),
            disk_pause: (
                milliseconds(draw.between(0, 12)),
                milliseconds(draw.between(0, 12)),
            ),
            service_pause: milliseconds(draw.between(0, 5)),
            heartbeat_ms,
            snapshot_every_entries: *draw.pick(&[20, 60, 1000]),
            keep_entries: *draw.pick(&[5, 30, 500]),
            window: Duration::from_secs(*draw.pick(&[86_400, 86_400, SHORT_WINDOW_SECONDS])),
            voting: milliseconds(draw.between(200, 3_000)),
            trouble: milliseconds(draw.between(4_000, 10_000)),
            faults: Vec::new(),
            unmarked: None,
            power_loss_at_end: draw.chance(50),
        };
        if plan.window.as_secs() == SHORT_WINDOW_SECONDS {
            // Long enough for decisions to be forgotten while faults happen.
            plan.trouble += plan.window;
        }
        plan.faults = plan.draw_faults();
        let mut draw = Draw::new(seed, "unmarked");
        if draw.chance(12) {
            plan.unmarked = Some(draw.pick(&plan.coordinator_hosts()).clone());
        }
        plan
    }

    pub(crate) fn coordinator_hosts(&self) -> Vec<String> {
        (1..=self.coordinators)
            .map(|number| format!("c{number}"))
            .collect()
    }

    pub(crate) fn participant_hosts(&self) -> Vec<String> {
        (1..=self.participants)
            .map(|number| format!("p{number}"))
            .collect()
    }

    pub(crate) fn initiator_hosts(&self) -> Vec<String> {
        (1..=self.initiators).map(|number| format!("i{number}")).collect()
    }

    /// For how long nodes remember at least. The cluster's time is never ahead of a majority's clocks, so it is no further
    /// ahead than all jumps together.
    pub(crate) fn remembers(&self) -> Duration {
        let ahead = |planned: &Planned| match planned.fault {
            Fault::ClockJump { by_ms, .. } => u64::try_from(by_ms).unwrap_or_default(),
            _ => 0,
        };
        let ahead: u64 = self.faults.iter().map(ahead).sum();
        self.window.saturating_sub(Duration::from_millis(ahead))
    }

    fn draw_faults(&self) -> Vec<Planned> {
        let mut draw = Draw::new(self.seed, "faults");
        // Each run leaves out some kinds of faults, so that the others are seen without them.
        let kinds: Vec<&str> = Fault::KINDS.into_iter().filter(|_| draw.chance(60)).collect();
        let mut faults = Vec::new();
        if kinds.is_empty() {
            return faults;
        }
        // The cluster forms and the participants register in about the first second.
        let first = 1_500;
        let most = draw.between(2, 12);
        for _ in 0..most {
            let at = draw.between(first, self.trouble.as_millis() as u64 - 500);
            let kind = *draw.pick(&kinds);
            faults.push(Planned {
                at: Duration::from_millis(at),
                // Many are over before an election is.
                lasting: Duration::from_millis(if draw.chance(50) {
                    draw.between(5, 300)
                } else {
                    draw.between(300, 2_500)
                }),
                fault: self.draw_fault(kind, &mut draw),
            });
        }
        faults.sort_by_key(|planned| planned.at);
        faults
    }

    fn draw_fault(&self, kind: &str, draw: &mut Draw) -> Fault {
        let (coordinators, participants) = (self.coordinator_hosts(), self.participant_hosts());
        let machines = [coordinators.as_slice(), participants.as_slice()].concat();
        let leader = LEADER.to_owned();
        let host = if draw.chance(35) {
            leader
        } else {
            draw.pick(&machines).clone()
        };
        // Links between coordinators, and between them and everybody else.
        let mut others = [machines.as_slice(), self.initiator_hosts().as_slice()].concat();
        let one = draw.pick(&coordinators).clone();
        others.retain(|other| *other != one);
        let other = draw.pick(&others).clone();
        let (from, to) = if draw.chance(50) {
            (one, other)
        } else {
            (other, one)
        };
        match kind {
            "kill" => Fault::Kill(host),
            "power_loss" => Fault::PowerLoss(host),
            "power_loss_everywhere" => Fault::PowerLossEverywhere,
            "power_cut" => Fault::PowerCut {
                host,
                operations: draw.between(1, 40),
            },
            "failed_sync" => {
                let of_a_participant = host.starts_with('p');
                let part = match draw.between(0, 9) {
                    0..=2 => Part::Table,
                    3..=5 if !of_a_participant => Part::Snapshots,
                    _ => Part::Journal,
                };
                // Snapshots are few.
                let most = if part == Part::Snapshots { 2 } else { 8 };
                Fault::FailedSync {
                    host,
                    part,
                    syncs: draw.between(1, most),
                    data_is_gone: draw.chance(50),
                }
            }
            "isolated" => Fault::Isolated(host),
            "cut" => Fault::Cut(from, to),
            "one_way" => Fault::OneWay(from, to),
            "held" => Fault::Held(from, to),
            "slow_network" => Fault::SlowNetwork {
                most_ms: draw.between(50, 400),
            },
            "clock_jump" => {
                // A clock that is ahead by more than the window closes what is new for everybody.
                let short = self.window.as_secs() == SHORT_WINDOW_SECONDS;
                let farthest = if short { 2_000 } else { 300_000 };
                let far = draw.between(100, farthest) as i64;
                let by_ms = if draw.chance(50) { far } else { -far };
                Fault::ClockJump { host, by_ms }
            }
            other => unreachable!("{other} is no kind of fault"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_has_one_plan() {
        assert_eq!(format!("{:?}", Plan::of(7)), format!("{:?}", Plan::of(7)));
        assert_ne!(format!("{:?}", Plan::of(7)), format!("{:?}", Plan::of(8)));
    }

    #[test]
    fn a_few_seeds_plan_every_kind_of_fault_and_some_leave_each_out() {
        let plans: Vec<BTreeSet<&str>> = (1..=50)
            .map(|seed| {
                let faults = Plan::of(seed).faults;
                faults.iter().map(|planned| planned.fault.kind()).collect()
            })
            .collect();
        for kind in Fault::KINDS {
            let with = plans.iter().filter(|kinds| kinds.contains(kind)).count();
            assert!(
                0 < with && with < plans.len(),
                "{kind} is planned by {with} seeds"
            );
        }
    }
}
