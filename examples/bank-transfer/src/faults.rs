//! Kills processes while the load runs, and starts them again.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use unanimo_core::Timestamp;
use unanimo_proto::transport::{Clock as _, SystemClock};

use crate::BankName;
use crate::cluster::{Cluster, ClusterError, Role};
use crate::observer::{Observer, POLL_EVERY};
use crate::progress::Progress;
use crate::schedule::{Extent, Fault, Schedule, Victim};

/// How long a new leader may take. It is there within about a second on a healthy machine.
const LONGEST_ELECTION: Duration = Duration::from_secs(60);
/// How often it is looked whether everybody is still there.
const CHECK_EVERY: Duration = Duration::from_millis(200);
/// How much later a kill is tried again that cannot be afforded yet.
const POSTPONE: Duration = Duration::from_millis(50);

/// What was done to the processes.
#[derive(Debug, Default)]
pub struct Injected {
    /// Leaders killed.
    pub leader_kills: u64,
    /// Banks killed.
    pub participant_kills: u64,
    /// For each leader killed, how long nobody led.
    pub without_leader: Vec<Duration>,
    /// For each leader killed, when: from before it until it was gone, by the wall clock.
    pub leader_deaths: Vec<(Timestamp, Timestamp)>,
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
    extent: Extent,
    started: Instant,
    away: Vec<(Instant, Role)>,
    elections: JoinSet<Option<Duration>>,
    injected: Injected,
}

impl<'a> Faults<'a> {
    /// The faults of this schedule over a load of this extent, which starts now.
    pub fn new(
        cluster: &'a mut Cluster,
        observer: Observer,
        schedule: Schedule,
        progress: Progress,
        extent: Extent,
    ) -> Self {
        Self {
            cluster,
            observer,
            schedule,
            progress,
            extent,
            started: Instant::now(),
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
            let percent = self.extent.percent(now.finished, self.started.elapsed());
            while let Some(fault) = self.schedule.take_due(percent) {
                self.kill(fault).await?;
            }
            if !now.over {
                self.kill_again().await?;
            }
            self.restart_due()?;
            self.cluster.check()?;
            if now.over && self.away.is_empty() {
                break;
            }
            let next_restart = self.away.iter().map(|(due, _)| *due).min();
            let next_kill = self.schedule.next_repeat().map(|due| self.started + due);
            let wake = [next_restart, next_kill]
                .into_iter()
                .flatten()
                .fold(Instant::now() + CHECK_EVERY, Instant::min);
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

    /// Kills whoever is killed again and again, if it is time and enough others are there.
    async fn kill_again(&mut self) -> Result<(), FaultError> {
        for victim in self.schedule.repeats_due(self.started.elapsed()) {
            let can_spare = match victim {
                Victim::Leader => self.observer.all_coordinators_caught_up().await,
                Victim::Bank(_) => !self.away.iter().any(|(_, role)| matches!(role, Role::Bank(_))),
            };
            // By this clock, and not by the one of the last line: asking takes a while.
            let now = self.started.elapsed();
            if can_spare {
                let fault = self.schedule.take_repeat(victim, now);
                self.kill(fault).await?;
            } else {
                self.schedule.postpone(victim, now + POSTPONE);
            }
        }
        Ok(())
    }

    async fn kill(&mut self, fault: Fault) -> Result<(), FaultError> {
        let role = match fault.victim {
            Victim::Leader => Role::Coordinator(self.find_leader().await?),
            Victim::Bank(bank) => Role::Bank(bank),
        };
        match role {
            Role::Coordinator(_) => {
                let (observer, killed) = (self.observer.clone(), Instant::now());
                let before = SystemClock.now();
                self.kill_now(role, "the leader", fault.away)?;
                self.injected.leader_deaths.push((before, SystemClock.now()));
                self.injected.leader_kills += 1;
                self.elections
                    .spawn(async move { observer.until_leader(killed, LONGEST_ELECTION).await });
            }
            Role::Bank(bank) => {
                // What it has counted is lost with it. What it counts between this answer and its end is not known.
                if let Some(statistics) = self.observer.statistics(bank).await {
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
