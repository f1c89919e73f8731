//! Kills processes while the load runs, and starts them again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::BankName;
use crate::cluster::{Cluster, ClusterError, Role};
use crate::distribution::InDoubt;
use crate::observer::{Observer, POLL_EVERY};
use crate::progress::{Progress, Reached};

/// How long a new leader may take. It is there within about a second on a healthy machine.
const LONGEST_ELECTION: Duration = Duration::from_secs(60);
/// How often it is looked whether everybody is still there.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The coordinator that leads at that moment.
    Leader,
    /// A bank.
    Bank(BankName),
}

/// One fault: when, who, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When so many of a hundred transfers are finished.
    pub at_percent: usize,
    /// Who is killed.
    pub victim: Victim,
    /// How long it stays away.
    pub away: Duration,
}

/// The faults of a run, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    faults: VecDeque<Fault>,
}

impl Schedule {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// The leader after a quarter, and the bank of the hot account after six tenths.
    pub fn usual() -> Self {
        let leader = Fault {
            at_percent: 25,
            victim: Victim::Leader,
            away: Duration::from_millis(1500),
        };
        let bank = Fault {
            at_percent: 60,
            victim: Victim::Bank(BankName::South),
            away: Duration::from_secs(1),
        };
        Self {
            faults: VecDeque::from([leader, bank]),
        }
    }

    /// Takes the next fault if its time has come. Its time comes while transfers are under way, however few there
    /// are: the first of three is finished at 33 %, so a fault at 25 % comes before it.
    fn take_due(&mut self, reached: Reached, transfers: usize) -> Option<Fault> {
        let due = |fault: &Fault| reached.finished >= transfers * fault.at_percent / 100;
        if self.faults.front().is_some_and(due) {
            self.faults.pop_front()
        } else {
            None
        }
    }
}

/// What was done to the processes.
#[derive(Debug, Default)]
pub struct Injected {
    /// Leaders killed.
    pub leader_kills: u64,
    /// Banks killed.
    pub participant_kills: u64,
    /// For each leader killed, how long nobody led.
    pub without_leader: Vec<Duration>,
    /// What banks had counted until they were killed.
    pub in_doubt: InDoubt,
    /// Messages that banks had refused as violations until they were killed.
    pub refused_messages: BTreeMap<BankName, u64>,
}

/// Why faults could not be injected, or what they revealed.
#[derive(Debug, Error)]
pub enum FaultError {
    /// A process could not be started or killed, or ended by itself.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// There is no leader to kill, or none came after one was killed.
    #[error("no coordinator has led within {LONGEST_ELECTION:?}")]
    NoLeader,
}

/// Carries out a schedule.
pub struct Faults<'a> {
    cluster: &'a mut Cluster,
    observer: Observer,
    schedule: Schedule,
    progress: Progress,
    transfers: usize,
    away: Vec<(Instant, Role)>,
    elections: JoinSet<Option<Duration>>,
    injected: Injected,
}

impl<'a> Faults<'a> {
    /// The faults of this schedule over so many transfers.
    pub fn new(
        cluster: &'a mut Cluster,
        observer: Observer,
        schedule: Schedule,
        progress: Progress,
        transfers: usize,
    ) -> Self {
        Self {
            cluster,
            observer,
            schedule,
            progress,
            transfers,
            away: Vec::new(),
            elections: JoinSet::new(),
            injected: Injected::default(),
        }
    }

    /// Kills and restarts until the load is over and everybody runs again. An error if a process ends by itself.
    pub async fn inject(mut self) -> Result<Injected, FaultError> {
        let mut reached = self.progress.reached();
        loop {
            let now = *reached.borrow_and_update();
            while let Some(fault) = self.schedule.take_due(now, self.transfers) {
                self.kill(fault).await?;
            }
            self.restart_due()?;
            self.cluster.check()?;
            if now.over && self.away.is_empty() {
                break;
            }
            let next_restart = self.away.iter().map(|(due, _)| *due).min();
            let wake = next_restart
                .unwrap_or_else(|| Instant::now() + CHECK_EVERY)
                .min(Instant::now() + CHECK_EVERY);
            // Both arms may be dropped: the loop looks at everything again.
            tokio::select! {
                changed = reached.changed(), if !now.over => {
                    assert!(changed.is_ok(), "the progress holds the sender");
                }
                () = sleep_until(wake) => {}
            }
        }
        while let Some(election) = self.elections.join_next().await {
            let waited = election.ok().flatten().ok_or(FaultError::NoLeader)?;
            self.injected.without_leader.push(waited);
        }
        Ok(self.injected)
    }

    async fn kill(&mut self, fault: Fault) -> Result<(), FaultError> {
        let role = match fault.victim {
            Victim::Leader => Role::Coordinator(self.find_leader().await?),
            Victim::Bank(bank) => Role::Bank(bank),
        };
        match role {
            Role::Coordinator(_) => {
                let (observer, killed) = (self.observer.clone(), Instant::now());
                self.kill_now(role, "the leader", fault.away)?;
                self.injected.leader_kills += 1;
                self.elections
                    .spawn(async move { observer.until_leader(killed, LONGEST_ELECTION).await });
            }
            Role::Bank(bank) => {
                // What it has counted is lost with it. What it counts between this answer and its end is not known.
                if let Some(statistics) = self.observer.statistics(bank).await {
                    self.injected.in_doubt.add(&statistics.in_doubt_times);
                    *self.injected.refused_messages.entry(bank).or_default() += statistics.violations;
                }
                self.kill_now(role, "a bank", fault.away)?;
                self.injected.participant_kills += 1;
            }
        }
        Ok(())
    }

    fn kill_now(&mut self, role: Role, what: &str, away: Duration) -> Result<(), FaultError> {
        self.cluster.kill(role)?;
        self.away.push((Instant::now() + away, role));
        let finished = self.progress.reached().borrow().finished;
        self.progress.say(&format!(
            "after {finished} transfers: kill -9 of {role}, {what}, for {away:?}"
        ));
        Ok(())
    }

    fn restart_due(&mut self) -> Result<(), FaultError> {
        let now = Instant::now();
        let due: Vec<Role> = self
            .away
            .extract_if(.., |(due, _)| *due <= now)
            .map(|(_, role)| role)
            .collect();
        for role in due {
            self.cluster.start_again(role)?;
            self.progress.say(&format!("{role} is started again"));
        }
        Ok(())
    }

    /// The node that leads, which at the moment may be nobody.
    async fn find_leader(&self) -> Result<u64, FaultError> {
        let deadline = Instant::now() + LONGEST_ELECTION;
        while Instant::now() < deadline {
            if let Some(leader) = self.observer.leader().await {
                return Ok(leader.node);
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Err(FaultError::NoLeader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many of so many transfers each victim of the usual schedule is killed.
    fn killed_after(transfers: usize) -> Vec<(usize, Victim)> {
        let mut schedule = Schedule::usual();
        let mut killed = Vec::new();
        for finished in 0..=transfers {
            while let Some(fault) = schedule.take_due(
                Reached {
                    finished,
                    over: false,
                },
                transfers,
            ) {
                killed.push((finished, fault.victim));
            }
        }
        killed
    }

    #[test]
    fn the_usual_schedule_kills_the_leader_and_a_bank_however_few_transfers_there_are() {
        let (leader, bank) = (Victim::Leader, Victim::Bank(BankName::South));
        assert_eq!(killed_after(10_000), [(2500, leader), (6000, bank)]);
        assert_eq!(killed_after(10), [(2, leader), (6, bank)]);
        assert_eq!(killed_after(3), [(0, leader), (1, bank)]);
        assert_eq!(killed_after(1), [(0, leader), (0, bank)]);
    }

    #[test]
    fn a_load_that_jumps_ahead_gets_every_fault() {
        let mut schedule = Schedule::usual();
        let end = Reached {
            finished: 100,
            over: true,
        };
        assert!(schedule.take_due(end, 100).is_some());
        assert!(schedule.take_due(end, 100).is_some());
        assert_eq!(schedule.take_due(end, 100), None);
        assert_eq!(Schedule::none().take_due(end, 100), None);
    }
}
