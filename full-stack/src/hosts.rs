//! What runs on the machines: the real coordinator and the real participant, on simulated parts.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use unanimo_coordinator::{Background, Config, IdSource, Parts, run_with};
use unanimo_core::{ClusterId, Limits};
use unanimo_journal::Options as JournalOptions;
use unanimo_participant::{Participant, ParticipantOptions, Parts as ParticipantParts, Writing};

use crate::bank::Bank;
use crate::decided::{Decided, WatchedTable};
use crate::draw::Draw;
use crate::machine::Machine;
use crate::network::{SimulatedConnector, address, listen};
use crate::plan::Plan;

/// The cluster's name.
pub(crate) const CLUSTER: &str = "simulated";

/// The smallest file of Raft's log that holds the largest record, in bytes.
const LOG_SEGMENT_BYTES: u64 = 2_359_296;
const LOG_RECORD_BYTES: u32 = 2_200_000;
/// Small, so that a run fills many files.
const JOURNAL_SEGMENT_BYTES: u64 = 16 * 1024;

type AnyError = Box<dyn Error>;

/// Lives one life of a coordinator node. Returns when it has ended by itself.
pub(crate) async fn coordinate(machine: Machine, plan: Arc<Plan>, decided: Decided) -> Result<(), AnyError> {
    let notes = decided.notes();
    let (life, draw) = machine.begin_life();
    notes.trace(&machine.name, format!("starts, life {life}"));
    let ended = match coordinate_until_it_ends(&machine, &plan, decided, draw).await {
        Ok(()) => "it stopped without a reason".to_owned(),
        Err(error) => error.to_string(),
    };
    notes.trace(&machine.name, format!("has ended by itself: {ended}"));
    machine.end_life(ended);
    Ok(())
}

async fn coordinate_until_it_ends(
    machine: &Machine,
    plan: &Plan,
    decided: Decided,
    draw: Draw,
) -> Result<(), AnyError> {
    let mut log_options = JournalOptions::new("raft log");
    log_options.segment_bytes = LOG_SEGMENT_BYTES;
    log_options.max_record_bytes = LOG_RECORD_BYTES;
    let parts = Parts {
        folder: Arc::new(machine.folder.clone()),
        log: Arc::new(machine.journal.clone()),
        log_options,
        snapshots: Arc::new(machine.snapshots.clone()),
        table: Arc::new(WatchedTable {
            node: Arc::clone(&machine.name),
            table: machine.table.clone(),
            decided,
        }),
        rebuilt: Box::new(|| Ok(())),
        connector: Arc::new(SimulatedConnector),
        clock: Arc::new(machine.clock.clone()),
        ids: Arc::new(DrawnIds(Mutex::new(draw))),
        background: Background::SlowTasks(plan.disk_pause.0),
    };
    let config = config(&machine.name, plan)?;
    run_with(config, parts, listen().await?, std::future::pending()).await?;
    Ok(())
}

fn config(host: &str, plan: &Plan) -> Result<Config, AnyError> {
    let node = host.trim_start_matches('c');
    let mut text = format!(
        "cluster = \"{CLUSTER}\"\nnode = {node}\nlisten = \"{}\"\ndata = \"simulated\"\n",
        address(host)
    );
    for peer in plan.coordinator_hosts() {
        let node = peer.trim_start_matches('c');
        text += &format!("[[peers]]\nnode = {node}\naddress = \"{}\"\n", address(&peer));
    }
    text += &format!(
        "[raft]\nheartbeat_ms = {0}\nelection_min_ms = {1}\nelection_max_ms = {2}\nsnapshot_every_entries = {3}\nkeep_entries = {4}\n",
        plan.heartbeat_ms,
        plan.heartbeat_ms * 3,
        plan.heartbeat_ms * 6,
        plan.snapshot_every_entries,
        plan.keep_entries,
    );
    text += &format!("[retention]\nwindow_seconds = {}\n", plan.window.as_secs());
    Ok(Config::parse(&text, Path::new("simulated.toml"))?)
}

/// Lives one life of a participant. Returns when it has ended by itself.
pub(crate) async fn participate(machine: Machine, plan: Arc<Plan>, decided: Decided) -> Result<(), AnyError> {
    let notes = decided.notes();
    let (life, draw) = machine.begin_life();
    notes.trace(&machine.name, format!("starts, life {life}"));
    let ended = match participate_until_it_ends(&machine, &plan, draw, decided).await {
        Ok(()) => "it stopped without a reason".to_owned(),
        Err(error) => error.to_string(),
    };
    notes.trace(&machine.name, format!("has ended by itself: {ended}"));
    machine.end_life(ended);
    Ok(())
}

async fn participate_until_it_ends(
    machine: &Machine,
    plan: &Plan,
    mut draw: Draw,
    decided: Decided,
) -> Result<(), AnyError> {
    let Some(vault) = machine.vault.clone() else {
        unreachable!("participants have data");
    };
    let coordinators = plan.coordinator_hosts();
    let mut options = ParticipantOptions::new(
        ClusterId::new(CLUSTER)?,
        machine.name.parse()?,
        address(&machine.name),
        coordinators.iter().map(|host| address(host)),
        "simulated",
    );
    options.request = Limits {
        members: 8,
        ..Limits::default()
    };
    options.redo_bytes = 1024;
    options.segment_bytes = JOURNAL_SEGMENT_BYTES;
    options.checkpoint_after = 16;
    let parts = ParticipantParts {
        disk: Arc::new(machine.journal.clone()),
        table: Arc::new(machine.table.clone()),
        connector: Arc::new(SimulatedConnector),
        clock: Arc::new(machine.clock.clone()),
        seed: draw.number(),
        random: draw.number() as u32,
        writing: Writing::SlowTasks(plan.disk_pause.1),
    };
    let bank = Bank::new(&machine.name, vault, decided, draw, plan.service_pause);
    let incoming = listen().await?;
    let participant = Participant::start_with(options, parts, bank.clone()).await?;
    machine.set_participant(participant.clone(), bank);
    participant
        .serve_incoming(incoming, std::future::pending())
        .await?;
    Ok(())
}

/// Ids from the seed.
struct DrawnIds(Mutex<Draw>);

impl IdSource for DrawnIds {
    fn random(&self) -> u128 {
        let mut draw = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        u128::from(draw.number()) << 64 | u128::from(draw.number())
    }
}
