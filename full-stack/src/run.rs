//! One run: the machines, the network between them, the faults, and the end, when all has to be well again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use turmoil::Sim;

use crate::bank::Vault;
use crate::clock::EPOCH;
use crate::decided::Decided;
use crate::draw::Draw;
use crate::failure::Part;
use crate::hosts::{coordinate, participate};
use crate::initiator::{Initiator, Signals};
use crate::judge::{Judge, Unsettled};
use crate::ledger::Ledger;
use crate::links::{Links, Trouble};
use crate::machine::Machine;
use crate::notes::Notes;
use crate::observer::observe;
use crate::outcome::Outcome;
use crate::plan::{Fault, Plan};
use crate::process_clock;

/// How long everything may take to resolve once the faults are over, in simulated time: an election, the pauses of
/// everybody who asks again, and keep-alive. Far less is usual.
const RESOLVED_WITHIN: Duration = Duration::from_secs(60);
/// How long a supervisor takes to start a process again that ended by itself.
const RESTART_AFTER: Duration = Duration::from_millis(300);
/// How long a process may take to end once it was told that its storage has failed (R10): a node waits five seconds for what
/// it runs, and five for its connections.
const ENDED_WITHIN: Duration = Duration::from_secs(11);
/// Long enough for anything; a run that gets here hangs.
const LONGEST: Duration = Duration::from_secs(300);
/// A millisecond of simulated time that takes so long by the wall clock never ends.
const STUCK_AFTER: Duration = Duration::from_secs(40);
const TICK: Duration = Duration::from_millis(1);

/// Panics of this process. A simulation runs on one thread, and one process runs one simulation.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs what this seed stands for, and judges it. To be called once in a process.
pub(crate) fn run(
    seed: u64,
    print_trace: bool,
    folder: Option<&Path>,
) -> Result<Outcome, Box<dyn std::error::Error>> {
    seed_raft(seed);
    std::panic::set_hook(Box::new(|panic| {
        // The process may not survive it, so it is told at once.
        eprintln!("{panic}");
        let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        panics.push(panic.to_string());
    }));
    let started = process_clock::of_the_machine();
    process_clock::simulate();
    let mut run = Run::new(Plan::of(seed), Notes::new(print_trace))?;
    watch_progress(Arc::clone(&run.steps));
    run.until_judged();
    let outcome = run.outcome(process_clock::of_the_machine().saturating_sub(started));
    if let Some(folder) = folder {
        run.judge().write_evidence(folder)?;
    }
    // What is dropped now is of no interest, and after a panic may panic again.
    std::mem::forget(run);
    Ok(outcome)
}

/// Ends the process if it works and no simulated time passes: somebody in it never waits.
fn watch_progress(steps: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut before = steps.load(Ordering::Relaxed);
        loop {
            std::thread::sleep(STUCK_AFTER);
            let now = steps.load(Ordering::Relaxed);
            if now == before {
                eprintln!("simulated time stands still: something in it never waits");
                std::process::exit(1);
            }
            before = now;
        }
    });
}

#[cfg(tokio_unstable)]
fn seed_raft(seed: u64) {
    unanimo_coordinator::seed_raft(Draw::new(seed, "raft").number());
}

/// The program does not run without a seed for Raft: see `main`.
#[cfg(not(tokio_unstable))]
fn seed_raft(_: u64) {}

/// The machines that run a part of the system.
fn machines(plan: &Plan, notes: &Notes) -> Result<BTreeMap<String, Machine>, unanimo_table::TableError> {
    let mut machines = BTreeMap::new();
    for name in plan.coordinator_hosts() {
        let machine = Machine::new(plan.seed, &name, None, notes);
        machines.insert(name, machine);
    }
    for name in plan.participant_hosts() {
        let vault = Vault::new(plan.accounts, plan.balance)?;
        let machine = Machine::new(plan.seed, &name, Some(vault), notes);
        machines.insert(name, machine);
    }
    if let Some(name) = &plan.unmarked {
        machines[name].fail_sync_in(Part::Folder, 1, plan.seed.is_multiple_of(2));
    }
    Ok(machines)
}

struct Run {
    plan: Arc<Plan>,
    notes: Notes,
    ledger: Ledger,
    decided: Decided,
    signals: Signals,
    sim: Sim<'static>,
    links: Links,
    machines: BTreeMap<String, Machine>,
    /// Machines whose power is off, or whose process is away, and when they start again.
    away: BTreeMap<String, Duration>,
    /// Faults that are under way: their number, when they end, and what they are.
    under_way: Vec<(Duration, u64, Fault)>,
    /// Links that are cut because a machine has no power have numbers from here on.
    next_number: u64,
    isolations: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    /// The steps so far, for the watchdog.
    steps: Arc<AtomicU64>,
    /// The node that was last seen to lead.
    leader: Arc<AtomicU64>,
}

impl Run {
    fn new(plan: Plan, notes: Notes) -> Result<Self, unanimo_table::TableError> {
        let mut sim = turmoil::Builder::new()
            .rng_seed(Draw::new(plan.seed, "network").number())
            .epoch(SystemTime::UNIX_EPOCH + EPOCH)
            .simulation_duration(LONGEST * 2)
            .tick_duration(TICK)
            .min_message_latency(plan.latency.0)
            .max_message_latency(plan.latency.1)
            .tcp_capacity(65_536)
            .enable_random_order()
            .build();
        notes.trace("", format!("{plan:?}"));
        let plan = Arc::new(plan);
        let machines = machines(&plan, &notes)?;
        let journal = |name: &String| machines[name].journal.clone();
        let decided = Decided::new(
            notes.clone(),
            plan.coordinator_hosts().iter().map(journal),
            plan.participant_hosts()
                .into_iter()
                .map(|name| (name.clone(), journal(&name)))
                .collect(),
        );
        for name in plan.coordinator_hosts() {
            let machine = machines[&name].clone();
            let (plan, decided) = (Arc::clone(&plan), decided.clone());
            sim.host(name, move || {
                coordinate(machine.clone(), Arc::clone(&plan), decided.clone())
            });
        }
        for name in plan.participant_hosts() {
            let machine = machines[&name].clone();
            let (plan, decided) = (Arc::clone(&plan), decided.clone());
            sim.host(name, move || {
                participate(machine.clone(), Arc::clone(&plan), decided.clone())
            });
        }
        let (ledger, signals) = (Ledger::new(decided.clone()), Signals::default());
        for name in plan.initiator_hosts() {
            let initiator = Initiator {
                name: name.clone(),
                plan: Arc::clone(&plan),
                ledger: ledger.clone(),
                notes: notes.clone(),
                signals: signals.clone(),
            };
            sim.client(name, initiator.work());
        }
        let leader = Arc::new(AtomicU64::new(1));
        sim.client(
            "o",
            observe(Arc::clone(&plan), notes.clone(), Arc::clone(&leader)),
        );
        Ok(Self {
            plan,
            notes,
            ledger,
            decided,
            signals,
            sim,
            links: Links::default(),
            machines,
            away: BTreeMap::new(),
            under_way: Vec::new(),
            next_number: 1_000,
            isolations: BTreeMap::new(),
            faults: BTreeMap::new(),
            steps: Arc::default(),
            leader,
        })
    }

    fn until_judged(&mut self) {
        let mut planned: std::collections::VecDeque<_> = self.plan.faults.clone().into();
        let mut number = 0;
        while self.sim.elapsed() < self.plan.trouble {
            while planned
                .front()
                .is_some_and(|planned| planned.at <= self.sim.elapsed())
            {
                if let Some(planned) = planned.pop_front() {
                    number += 1;
                    self.inject(number, planned.fault, planned.lasting);
                }
            }
            if !self.step() {
                return;
            }
        }
        self.heal();
        let initiators = self.plan.initiators;
        let all_told = |run: &Self| run.signals.done.load(Ordering::Relaxed) >= initiators;
        if !self.until_settled("after the faults", all_told) {
            return;
        }
        if self.plan.power_loss_at_end {
            self.lose_power_everywhere(Duration::from_millis(500));
            self.notes.count("power_loss_at_end");
            if !self.until_settled("after the last power loss", |_| true) {
                return;
            }
        }
        self.judge().judge();
        for machine in self.machines.values() {
            self.judge().absorb(machine);
        }
    }

    /// One millisecond. False if the run cannot go on.
    fn step(&mut self) -> bool {
        self.notes.set_now(self.sim.elapsed());
        process_clock::show(self.sim.elapsed());
        self.end_faults();
        self.look_after_machines();
        if let Err(error) = self.sim.step() {
            self.notes.violate("simulation_ended", error.to_string());
            return false;
        }
        let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
        for panic in &panics {
            self.notes.violate("panicked", panic.clone());
        }
        self.steps.fetch_add(1, Ordering::Relaxed);
        // What comes after a violation says nothing new.
        !self.notes.has_violations()
    }

    /// Goes on until nothing is open any more. False, with a violation, if that takes too long.
    fn until_settled(&mut self, when: &str, told: impl Fn(&Self) -> bool) -> bool {
        let since = self.sim.elapsed();
        let mut unsettled = Unsettled::default();
        while self.sim.elapsed() < since + RESOLVED_WITHIN {
            for _ in 0..50 {
                if !self.step() {
                    return false;
                }
            }
            unsettled = self.judge().unsettled();
            if !told(self) {
                unsettled.add("initiators wait for their answers");
            }
            if unsettled.is_empty() && self.away.is_empty() {
                let took = (self.sim.elapsed() - since).as_millis();
                self.notes
                    .trace("", format!("all is settled {when}, {took} ms later"));
                return true;
            }
        }
        self.notes.violate("unresolved", format!("{when}: {unsettled}"));
        self.judge().judge();
        false
    }

    fn judge(&self) -> Judge<'_> {
        Judge {
            plan: &self.plan,
            notes: &self.notes,
            ledger: &self.ledger,
            decided: &self.decided,
            machines: &self.machines,
        }
    }

    fn inject(&mut self, number: u64, fault: Fault, lasting: Duration) {
        let leader = format!("c{}", self.leader.load(Ordering::Relaxed));
        let fault = fault.aimed_at(&leader);
        let ends = self.sim.elapsed() + lasting;
        let gone = |host: &String| self.away.contains_key(host);
        let host = match &fault {
            Fault::Kill(host)
            | Fault::PowerLoss(host)
            | Fault::PowerCut { host, .. }
            | Fault::FailedSync { host, .. } => Some(host.clone()),
            _ => None,
        };
        if host.as_ref().is_some_and(gone) {
            self.notes.trace("", format!("{fault:?} finds nobody there"));
            return;
        }
        self.notes
            .trace("", format!("{fault:?} for {} ms", lasting.as_millis()));
        *self.faults.entry(fault.kind().to_owned()).or_default() += 1;
        match &fault {
            Fault::Kill(host) => self.kill(host, lasting),
            Fault::PowerLoss(host) => self.lose_power(host, lasting),
            Fault::PowerLossEverywhere => self.lose_power_everywhere(lasting),
            Fault::PowerCut { host, operations } => self.machines[host].cut_power_in(*operations),
            Fault::FailedSync {
                host,
                part,
                syncs,
                data_is_gone,
            } => self.machines[host].fail_sync_in(*part, *syncs, *data_is_gone),
            Fault::Isolated(host) => self.isolate(number, host),
            Fault::Cut(one, other) => self.links.trouble(&self.sim, number, one, other, Trouble::Cut),
            Fault::OneWay(from, to) => {
                self.links
                    .trouble(&self.sim, number, from, to, Trouble::FirstIsMute);
            }
            Fault::Held(one, other) => self.links.trouble(&self.sim, number, one, other, Trouble::Held),
            Fault::SlowNetwork { most_ms } => {
                self.sim.set_max_message_latency(Duration::from_millis(*most_ms));
            }
            Fault::ClockJump { host, by_ms } => self.machines[host].clock.jump(*by_ms),
        }
        self.under_way.push((ends, number, fault));
    }

    fn end_faults(&mut self) {
        let now = self.sim.elapsed();
        let (ended, going_on) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|(ends, ..)| *ends <= now);
        self.under_way = going_on;
        for (_, number, fault) in ended {
            self.end(number, &fault);
        }
    }

    fn end(&mut self, number: u64, fault: &Fault) {
        match fault {
            Fault::Isolated(_) | Fault::Cut(..) | Fault::OneWay(..) | Fault::Held(..) => {
                self.links.end(&self.sim, number);
            }
            Fault::SlowNetwork { .. } => self.sim.set_max_message_latency(self.plan.latency.1),
            // Clocks stay wrong until the time for faults is over; machines start again by themselves.
            Fault::ClockJump { .. }
            | Fault::Kill(_)
            | Fault::PowerLoss(_)
            | Fault::PowerLossEverywhere
            | Fault::PowerCut { .. }
            | Fault::FailedSync { .. } => {}
        }
    }

    /// The faults are over.
    fn heal(&mut self) {
        self.notes.trace("", "the faults are over");
        for (_, number, fault) in std::mem::take(&mut self.under_way) {
            self.end(number, &fault);
        }
        self.sim.set_max_message_latency(self.plan.latency.1);
        for machine in self.machines.values() {
            machine.clock.set_right();
        }
        self.signals.healed.store(true, Ordering::Relaxed);
    }

    /// Starts those again whose time has come, and ends those whose power has gone or whose process has ended.
    fn look_after_machines(&mut self) {
        let now = self.sim.elapsed();
        let names: Vec<String> = self.machines.keys().cloned().collect();
        for name in names {
            if let Some(back) = self.away.get(&name) {
                if *back <= now {
                    self.start(&name);
                }
                continue;
            }
            let machine = self.machines[&name].clone();
            if machine.has_lost_power() {
                self.notes.count("power_lost_in_the_middle_of_work");
                self.lose_power(&name, RESTART_AFTER);
            } else if let Some(reason) = machine.ended() {
                if machine.failed_since().is_some() {
                    self.notes.count("stopped_after_a_failed_sync");
                } else {
                    self.notes
                        .violate("stopped_without_need", format!("{name}: {reason}"));
                }
                // An operator who sees a broken disk restarts the machine.
                self.lose_power(&name, RESTART_AFTER);
            } else if machine
                .failed_since()
                .is_some_and(|since| since + ENDED_WITHIN < now)
            {
                let what =
                    format!("{name} runs {ENDED_WITHIN:?} after it was told that its storage has failed");
                self.notes.violate("went_on_after_a_failure", what);
            }
        }
    }

    fn start(&mut self, name: &str) {
        self.away.remove(name);
        if let Some(number) = self.isolations.remove(name) {
            self.links.end(&self.sim, number);
        }
        self.sim.bounce(name);
    }

    fn kill(&mut self, name: &str, lasting: Duration) {
        self.note_statistics(name);
        self.machines[name].stop_disks();
        self.sim.crash(name);
        self.machines[name].after_kill();
        self.away.insert(name.to_owned(), self.sim.elapsed() + lasting);
    }

    fn lose_power(&mut self, name: &str, lasting: Duration) {
        self.note_statistics(name);
        // A machine without power says no farewell.
        let number = self.next_number;
        self.next_number += 1;
        self.isolate(number, name);
        self.isolations.insert(name.to_owned(), number);
        self.machines[name].stop_disks();
        self.sim.crash(name);
        self.machines[name].after_power_loss();
        self.away.insert(name.to_owned(), self.sim.elapsed() + lasting);
    }

    fn lose_power_everywhere(&mut self, lasting: Duration) {
        let names: Vec<String> = self.machines.keys().cloned().collect();
        for name in names {
            if !self.away.contains_key(&name) {
                self.lose_power(&name, lasting);
            }
        }
    }

    fn isolate(&mut self, number: u64, host: &str) {
        let mut others = self.plan.coordinator_hosts();
        others.extend(self.plan.participant_hosts());
        others.extend(self.plan.initiator_hosts());
        others.push("o".to_owned());
        for other in others.iter().filter(|other| *other != host) {
            self.links.trouble(&self.sim, number, host, other, Trouble::Cut);
        }
    }

    /// Before a life is over: what its participant has counted.
    fn note_statistics(&self, name: &str) {
        self.judge().note_statistics(&self.machines[name]);
    }

    fn outcome(&self, wall: Duration) -> Outcome {
        for machine in self.machines.values() {
            self.judge().note_statistics(machine);
        }
        let (trace_lines, trace_hash) = self.notes.hash();
        Outcome {
            seed: self.plan.seed,
            simulated_ms: self.sim.elapsed().as_millis() as u64,
            wall_ms: wall.as_millis() as u64,
            transactions: self.ledger.all().len() as u64,
            faults: self.faults.clone(),
            counters: self.notes.counters(),
            violations: self.notes.violations(),
            trace_lines,
            trace_hash,
        }
    }
}
