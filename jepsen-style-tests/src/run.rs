//! One run, from start to verdict.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rand::Rng as _;
use rand::rngs::StdRng;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};

use crate::checker::{self, Case, Verdict};
use crate::cluster::{Addresses, Cluster, ClusterError, Layout, Place, Settings, sweep_disks};
use crate::evidence::{add_files, collect};
use crate::history::{Answer, Call, HistoryError, Recorder, Step, Style};
use crate::nemesis::{Fault, Injected};
use crate::random::Seed;
use crate::report::RunResult;
use crate::workload::{Executor, ExecutorError, Workload};

/// How long the cluster may take to be there at first.
const START: Duration = Duration::from_secs(60);
/// How long nothing happens at first, and at last, so that it is seen how the cluster does undisturbed.
const QUIET: Duration = Duration::from_secs(3);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a fault is tried that can pass unnoticed.
const ATTEMPTS: u64 = 3;

/// How long the next fault waits for a commit after the last one: longer than it may take (`checker/availability.rs`).
const COMMITS_AGAIN: Duration = Duration::from_secs(16);

/// What is said of a process that ended and of which nobody can say why.
pub(crate) const UNASKED: &str = "and nothing was done to it";

/// What a run is to be.
pub struct Plan {
    /// What everything is drawn from.
    pub seed: Seed,
    /// For how long clients work and faults happen.
    pub lasting: Duration,
    /// How many clients work at once.
    pub clients: usize,
    /// How many processes there are.
    pub layout: Layout,
    /// What clients do.
    pub workload: Box<dyn Workload>,
    /// What happens meanwhile.
    pub faults: Vec<Box<dyn Fault>>,
    /// This program.
    pub executable: PathBuf,
    /// Where everything goes.
    pub folder: PathBuf,
    /// The command that plans the same run.
    pub command: String,
}

/// Why there is no result.
#[derive(Debug, Error)]
pub enum RunError {
    /// There is no network, nor the threads in it.
    #[error("no place for the processes: {source}")]
    Place {
        /// Why.
        source: std::io::Error,
    },
    /// Somebody wanted it to end.
    #[error("interrupted by {signal}")]
    Interrupted {
        /// How.
        signal: &'static str,
    },
    /// The processes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The clients.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The opening balances.
    #[error("the opening transactions do not commit: {0}")]
    Opening(String),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs it and judges it, unless it is interrupted (SIGINT, SIGTERM). Nothing of it is left but its folder, however it
/// ends.
pub async fn run(plan: Plan) -> Result<RunResult, RunError> {
    sweep_disks();
    let unusable = |source| RunError::Place { source };
    let (place, addresses) = Place::best(plan.layout, plan.seed).map_err(unusable)?;
    let runtime = RuntimeThere(Some(place.clients_runtime().map_err(unusable)?));
    let mut running = runtime.spawn(run_there(plan, place, addresses));
    let signal = tokio::select! {
        ended = &mut running => return match ended {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        },
        signal = interrupted() => signal,
    };
    running.abort();
    // Everything is taken down when the task is gone.
    let _ = running.await;
    Err(RunError::Interrupted { signal })
}

/// The threads that are where the clients are. They end with it, without waiting for what still runs on them.
struct RuntimeThere(Option<Runtime>);

impl RuntimeThere {
    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        match &self.0 {
            Some(runtime) => runtime.spawn(task),
            None => unreachable!("it is there until it is dropped"),
        }
    }
}

impl Drop for RuntimeThere {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for somebody to want an end.
async fn interrupted() -> &'static str {
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => match interrupt {
            Ok(()) => "SIGINT",
            Err(_) => std::future::pending().await,
        },
        _ = term.recv() => "SIGTERM",
    }
}

/// Where the clients are.
async fn run_there(mut plan: Plan, place: Place, addresses: Addresses) -> Result<RunResult, RunError> {
    let data = plan.folder.join("data");
    make(&data)?;
    let unavailable = take_unavailable(&mut plan.faults);
    let settings = Settings {
        retention: plan.faults.iter().filter_map(|fault| fault.retention()).min(),
    };
    let mut cluster = Cluster::start_with(place, addresses, &plan.executable, &data, plan.layout, settings)?;
    cluster.wait_for_leader(START).await?;
    let history_file = plan.folder.join("history.jsonl");
    // Outside the history: what there is before it begins.
    let opening = plan.workload.opening(plan.layout);
    open(&cluster, &data, &opening).await?;
    let recorder = Recorder::create(&history_file)?;
    let executor =
        Executor::new(cluster.addresses(), recorder.clone(), PATIENCE)?.following(cluster.follow());
    let stop = Arc::new(AtomicBool::new(false));
    let clients = start_clients(&plan, &executor, &recorder, &stop);
    let (faults, problems) = disturb(&mut plan, &mut cluster, &recorder).await;
    stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    let history = recorder.finish(&history_file)?;
    let mut evidence = collect(&mut cluster, opening, &history).await;
    evidence.began_unix_ms = began_unix_ms(recorder.started());
    add_files(&mut evidence, &mut cluster);
    evidence.late = plan.faults.iter().flat_map(|fault| fault.answers()).collect();
    write(&plan.folder.join("evidence.json"), &evidence)?;
    let case = Case {
        history: &history,
        evidence: &evidence,
        faults: &faults,
    };
    let findings = checker::judge(&case);
    let mut faults_missing = missed(&plan.faults, &faults);
    faults_missing.extend(unavailable);
    let verdict = RunResult::conclude(&findings, &faults_missing, &problems);
    if verdict == Verdict::Valid {
        // What a run that is no pass left on its disks stays, for whoever looks into it.
        cluster.discard_disks()?;
    }
    Ok(RunResult {
        verdict,
        seed: plan.seed.0,
        workload: plan.workload.name().to_owned(),
        layout: plan.layout,
        seconds: plan.lasting.as_secs(),
        command: plan.command,
        findings,
        faults,
        faults_missing,
        problems,
    })
}

/// The faults of which nothing was seen, though it should have been. One that can pass unnoticed has to be seen once.
fn missed(planned: &[Box<dyn Fault>], injected: &[Injected]) -> Vec<String> {
    let seen_once = |name: &str| {
        let planned = planned.iter().find(|fault| fault.name() == name);
        planned.is_some_and(|fault| fault.may_pass_unnoticed())
            && injected
                .iter()
                .any(|fault| fault.fault == name && fault.evidence.is_some())
    };
    let unseen = injected.iter().filter(|fault| fault.evidence.is_none());
    unseen
        .filter(|fault| !seen_once(&fault.fault))
        .map(|fault| fault.fault.clone())
        .collect()
}

/// When the history began, by the clock on the wall.
fn began_unix_ms(started: Instant) -> Option<u64> {
    let began = SystemTime::now().checked_sub(started.elapsed())?;
    let since = began.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// Takes out the faults that this machine cannot do, and says why it cannot.
fn take_unavailable(faults: &mut Vec<Box<dyn Fault>>) -> Vec<String> {
    let mut unavailable = Vec::new();
    faults.retain(|fault| match fault.unavailable() {
        None => true,
        Some(reason) => {
            unavailable.push(format!("{}: {reason}", fault.name()));
            false
        }
    });
    unavailable
}

/// Commits what there is at first, one transaction at each participant.
async fn open(cluster: &Cluster, data: &Path, opening: &[Step]) -> Result<(), RunError> {
    let scratch = Recorder::create(&data.join("opening.jsonl"))?;
    let executor = Executor::new(cluster.addresses(), scratch.clone(), START)?;
    for name in cluster.layout().names() {
        let steps: Vec<Step> = opening
            .iter()
            .filter(|step| step.participant == name)
            .cloned()
            .collect();
        if steps.is_empty() {
            continue;
        }
        let call = Call::Transact {
            transaction: None,
            style: Style::OneShot,
            key: None,
            steps,
        };
        let deadline = Instant::now() + START;
        // Refused until the participants are registered.
        while executor.perform(scratch.new_process(), call.clone()).await.2 != Some(Answer::Committed) {
            if Instant::now() >= deadline {
                return Err(RunError::Opening(name));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

fn write(path: &Path, value: &impl serde::Serialize) -> Result<(), RunError> {
    let text = serde_json::to_vec_pretty(value).map_err(std::io::Error::from);
    text.and_then(|text| std::fs::write(path, text))
        .map_err(|source| RunError::File {
            path: path.to_owned(),
            source,
        })
}

fn make(folder: &Path) -> Result<(), RunError> {
    std::fs::create_dir_all(folder).map_err(|source| RunError::File {
        path: folder.to_owned(),
        source,
    })
}

fn start_clients(
    plan: &Plan,
    executor: &Executor,
    recorder: &Recorder,
    stop: &Arc<AtomicBool>,
) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for number in 0..plan.clients {
        let random = plan.seed.stream(&format!("client-{number}"));
        let mut work = plan.workload.client(plan.layout, number, random);
        let (mut executor, recorder, stop) = (executor.clone(), recorder.clone(), Arc::clone(stop));
        clients.spawn(async move {
            let mut process = recorder.new_process();
            while !stop.load(Ordering::Relaxed) {
                if let Err(error) = executor.keep_up() {
                    tracing::error!(%error, "a client goes on with the nodes that there were");
                }
                process = executor.turn(process, work.as_mut()).await;
            }
        });
    }
    clients
}

/// The faults of a run while they happen.
struct Disturbance {
    recorder: Recorder,
    injected: Vec<Injected>,
    /// What went wrong in the harness, and processes that ended by themselves.
    problems: Vec<String>,
}

/// Lets the faults happen one after the other, each in its turn, until the time is over and each has happened once.
/// Before the first and after the last nothing happens for a while.
async fn disturb(
    plan: &mut Plan,
    cluster: &mut Cluster,
    recorder: &Recorder,
) -> (Vec<Injected>, Vec<String>) {
    let mut random = plan.seed.stream("schedule");
    let begun = tokio::time::Instant::now();
    let deadline = begun + plan.lasting.saturating_sub(QUIET);
    let mut disturbance = Disturbance {
        recorder: recorder.clone(),
        injected: Vec::new(),
        problems: Vec::new(),
    };
    tokio::time::sleep_until(deadline.min(begun + QUIET)).await;
    for turn in 0.. {
        let now = tokio::time::Instant::now();
        if plan.faults.is_empty() || now >= deadline && turn >= plan.faults.len() {
            break;
        }
        if turn > 0 {
            let pause = Duration::from_millis(random.random_range(500..3000));
            tokio::time::sleep_until(now + pause).await;
        }
        for fault in &mut plan.faults {
            fault.attend(cluster).await;
        }
        disturbance.look(cluster, "before the next fault").await;
        let place = turn % plan.faults.len();
        let fault = &mut plan.faults[place];
        for attempt in 1..=ATTEMPTS {
            // How much one of them draws may depend on what the cluster does. The others draw the same all the same.
            let stream = format!("{} in turn {turn}, attempt {attempt}", fault.name());
            let mut random = plan.seed.stream(&stream);
            let seen = disturbance.happen(fault.as_mut(), cluster, &mut random).await;
            if seen || !fault.may_pass_unnoticed() {
                break;
            }
        }
    }
    let end = deadline.max(tokio::time::Instant::now()) + QUIET;
    tokio::time::sleep_until(end).await;
    disturbance.look(cluster, "at the end").await;
    (disturbance.injected, disturbance.problems)
}

impl Disturbance {
    /// One fault, from its beginning until commits have come back. Returns whether it is known to have happened.
    async fn happen(&mut self, fault: &mut dyn Fault, cluster: &mut Cluster, random: &mut StdRng) -> bool {
        let begun_ns = self.now();
        cluster.take_healed();
        let what = match fault.begin(cluster, random).await {
            Ok(what) => what,
            Err(error) => {
                self.problems.push(format!("{}: {error}", fault.name()));
                return false;
            }
        };
        let in_force_ns = self.now();
        tokio::time::sleep(fault.lasts(random)).await;
        let ended = fault.end(cluster).await;
        let ended_ns = self.now();
        let healed = cluster.take_healed().map(|at| self.since(at));
        let healed_ns = healed.unwrap_or(ended_ns);
        let evidence = ended.unwrap_or_else(|error| {
            self.problems.push(format!("{}: {error}", fault.name()));
            None
        });
        let seen = evidence.is_some();
        self.injected.push(Injected {
            fault: fault.name().to_owned(),
            begun_ns,
            in_force_ns: Some(in_force_ns),
            healed_ns: Some(healed_ns),
            ended_ns,
            what,
            evidence,
        });
        self.wait_for_commit(healed_ns).await;
        seen
    }

    /// Until a client has heard of a commit since then, so that the next fault does not hide how long it takes; or for
    /// longer than it may take.
    async fn wait_for_commit(&self, healed_ns: u64) {
        let late = healed_ns.saturating_add(u64::try_from(COMMITS_AGAIN.as_nanos()).unwrap_or(u64::MAX));
        while self.now() < late && self.recorder.committed_ns().is_none_or(|at| at < healed_ns) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether anybody has ended to whom nothing was done. Whoever has is started again.
    async fn look(&mut self, cluster: &mut Cluster, when: &str) {
        let again = match cluster.start_ended() {
            Ok(ended) if ended.is_empty() => return,
            Ok(ended) => {
                for (error, might) in ended {
                    match might {
                        true => tracing::warn!(%error, when, "it was to be expected"),
                        false => self.problems.push(format!("{when}: {error}, {UNASKED}")),
                    }
                }
                cluster.wait_until_whole(START).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = again {
            self.problems.push(format!("{when}: {error}"));
        }
    }

    fn now(&self) -> u64 {
        self.since(Instant::now())
    }

    fn since(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.recorder.started());
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injected(fault: &str, evidence: Option<&str>) -> Injected {
        Injected {
            fault: fault.to_owned(),
            begun_ns: 1,
            in_force_ns: Some(2),
            healed_ns: Some(3),
            ended_ns: 3,
            what: "something".to_owned(),
            evidence: evidence.map(str::to_owned),
        }
    }

    #[test]
    fn what_can_pass_unnoticed_has_to_be_seen_once_and_all_else_each_time() {
        let planned = crate::nemesis::all();
        let (cut, kill) = ("partition-clients", "kill-leader");
        let missed = |injected: &[Injected]| missed(&planned, injected);
        assert_eq!(missed(&[injected(cut, None), injected(cut, None)]), [cut, cut]);
        assert!(missed(&[injected(cut, None), injected(cut, Some("7 packets"))]).is_empty());
        assert_eq!(
            missed(&[injected(kill, None), injected(kill, Some("dead"))]),
            [kill]
        );
        assert_eq!(
            missed(&[injected(cut, None), injected(kill, Some("dead"))]),
            [cut]
        );
    }
}
