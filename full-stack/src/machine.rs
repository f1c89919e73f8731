//! A machine that runs a coordinator node or a participant: its disks, its clock, and its lives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unanimo_journal::{Lose, SimulatedDisk};
use unanimo_participant::Participant;
use unanimo_table::MemoryTable;

use crate::bank::{Bank, Vault};
use crate::clock::HostClock;
use crate::draw::Draw;

/// A machine. A clone is the same one. What is on its disks outlives what runs on it.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) name: Arc<str>,
    /// A coordinator's marks of membership.
    pub(crate) folder: SimulatedDisk,
    /// Raft's log, or a participant's journal.
    pub(crate) journal: SimulatedDisk,
    pub(crate) snapshots: SimulatedDisk,
    /// The decision table, or the branch table.
    pub(crate) table: MemoryTable,
    /// The data of a participant's service.
    pub(crate) vault: Option<Vault>,
    pub(crate) clock: HostClock,
    life: Arc<Mutex<Life>>,
    seed: u64,
}

/// What is known of the life that the machine is in.
#[derive(Default)]
struct Life {
    number: u64,
    /// Why it has ended by itself, if it has.
    ended: Option<String>,
    participant: Option<(Participant, Bank)>,
    /// The operation of the journal's disk at which the power goes.
    power_off_at: Option<u64>,
    /// Whether the disk is to fail in this life.
    disk_may_fail: bool,
}

impl Machine {
    pub(crate) fn new(seed: u64, name: &str, vault: Option<Vault>) -> Self {
        Self {
            name: name.into(),
            folder: SimulatedDisk::new(),
            journal: SimulatedDisk::new(),
            snapshots: SimulatedDisk::new(),
            table: MemoryTable::new(),
            vault,
            clock: HostClock::default(),
            life: Arc::default(),
            seed,
        }
    }

    /// Begins the next life, and returns what is to be drawn in it.
    pub(crate) fn begin_life(&self) -> (u64, Draw) {
        let mut life = self.lock();
        let number = life.number + 1;
        *life = Life {
            number,
            ..Life::default()
        };
        (number, self.draw(number, "life"))
    }

    /// The participant of this life, once it runs.
    pub(crate) fn set_participant(&self, participant: Participant, bank: Bank) {
        self.lock().participant = Some((participant, bank));
    }

    pub(crate) fn participant(&self) -> Option<(Participant, Bank)> {
        self.lock().participant.clone()
    }

    /// Notes that what runs here has ended by itself.
    pub(crate) fn end_life(&self, reason: impl Into<String>) {
        self.lock().ended = Some(reason.into());
    }

    /// Why the present life has ended by itself, if it has.
    pub(crate) fn ended(&self) -> Option<String> {
        self.lock().ended.clone()
    }

    /// Whether an error of the disk was planned for this life.
    pub(crate) fn disk_may_fail(&self) -> bool {
        self.lock().disk_may_fail
    }

    /// Lets the power go after so many more operations of the journal's disk.
    pub(crate) fn cut_power_in(&self, operations: u64) {
        let at = self.journal.operations() + operations;
        self.journal.power_off_at_operation(at);
        let mut life = self.lock();
        life.power_off_at = Some(at);
        life.disk_may_fail = true;
    }

    /// Whether the power is gone since then.
    pub(crate) fn has_lost_power(&self) -> bool {
        let at = self.lock().power_off_at;
        at.is_some_and(|at| self.journal.operations() >= at)
    }

    /// Lets a sync of the journal fail.
    pub(crate) fn fail_sync_in(&self, syncs: u64, data_is_gone: bool) {
        let lose = if data_is_gone { Lose::Data } else { Lose::Nothing };
        self.journal.fail_nth_sync(syncs, lose);
        self.lock().disk_may_fail = true;
    }

    /// From now on nothing reaches the disks. To be called before what runs here is ended: its parts clear up behind
    /// themselves then, which a process that is killed does not.
    pub(crate) fn stop_disks(&self) {
        for disk in self.disks() {
            disk.power_off_at_operation(0);
        }
        self.lock().participant = None;
    }

    /// The process has ended: what it had written stays, what it had in memory is gone.
    pub(crate) fn after_kill(&self) {
        for disk in self.disks() {
            disk.power_on();
        }
        self.crash_tables();
    }

    /// The power was lost: what was not synced may be gone, in part or whole.
    pub(crate) fn after_power_loss(&self) {
        let mut draw = self.draw(self.lock().number, "power loss");
        for disk in self.disks() {
            disk.crash(draw.number());
        }
        self.crash_tables();
    }

    fn crash_tables(&self) {
        let mut draw = self.draw(self.lock().number, "tables");
        self.table.crash(draw.number());
        if let Some(vault) = &self.vault {
            vault.table.crash(draw.number());
        }
    }

    fn disks(&self) -> [&SimulatedDisk; 3] {
        [&self.folder, &self.journal, &self.snapshots]
    }

    fn draw(&self, life: u64, purpose: &str) -> Draw {
        Draw::new(self.seed, &format!("{} {life} {purpose}", self.name))
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
