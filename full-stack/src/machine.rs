//! A machine that runs a coordinator node or a participant: its disks, its clock, and its lives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::time::Duration;

use unanimo_journal::{Lose, SimulatedDisk};
use unanimo_participant::Participant;
use unanimo_table::MemoryTable;

use crate::bank::{Bank, Vault};
use crate::clock::HostClock;
use crate::disk::WatchedDisk;
use crate::draw::Draw;
use crate::failure::{FailingTable, Failure, Part};
use crate::notes::Notes;

/// A machine. A clone is the same one. What is on its disks outlives what runs on it.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) name: Arc<str>,
    /// A coordinator's marks of membership.
    pub(crate) folder: WatchedDisk,
    /// Raft's log, or a participant's journal.
    pub(crate) journal: WatchedDisk,
    pub(crate) snapshots: WatchedDisk,
    /// The decision table, or the branch table.
    pub(crate) table: FailingTable,
    /// The data of a participant's service.
    pub(crate) vault: Option<Vault>,
    pub(crate) clock: HostClock,
    life: Arc<Mutex<Life>>,
    /// Messages that its participants have refused, in all lives.
    refused: Arc<AtomicU64>,
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
}

impl Machine {
    pub(crate) fn new(seed: u64, name: &str, vault: Option<Vault>, notes: &Notes) -> Self {
        let name: Arc<str> = name.into();
        let failure = |part| Failure::new(notes, &name, part);
        Self {
            folder: WatchedDisk::new(failure(Part::Folder)),
            journal: WatchedDisk::new(failure(Part::Journal)),
            snapshots: WatchedDisk::new(failure(Part::Snapshots)),
            table: FailingTable {
                table: MemoryTable::new(),
                failure: failure(Part::Table),
            },
            name,
            vault,
            clock: HostClock::default(),
            life: Arc::default(),
            refused: Arc::default(),
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
        for failure in self.failures() {
            failure.forget();
        }
        (number, self.draw(number, "life"))
    }

    /// The participant of this life, once it runs.
    pub(crate) fn set_participant(&self, participant: Participant, bank: Bank) {
        self.lock().participant = Some((participant, bank));
    }

    pub(crate) fn participant(&self) -> Option<(Participant, Bank)> {
        self.lock().participant.clone()
    }

    /// Adds what a participant has refused in its life that ends.
    pub(crate) fn refuse(&self, messages: u64) {
        self.refused.fetch_add(messages, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Notes that what runs here has ended by itself.
    pub(crate) fn end_life(&self, reason: impl Into<String>) {
        self.lock().ended = Some(reason.into());
    }

    /// Why the present life has ended by itself, if it has.
    pub(crate) fn ended(&self) -> Option<String> {
        self.lock().ended.clone()
    }

    /// Since when the present life has to end, because its storage has failed.
    pub(crate) fn failed_since(&self) -> Option<Duration> {
        self.failures().into_iter().filter_map(Failure::since).min()
    }

    /// Lets the power go after so many more operations of the journal's disk.
    pub(crate) fn cut_power_in(&self, operations: u64) {
        let at = self.journal.disk.operations() + operations;
        self.journal.disk.power_off_at_operation(at);
        self.lock().power_off_at = Some(at);
    }

    /// Whether the power is gone since then.
    pub(crate) fn has_lost_power(&self) -> bool {
        let at = self.lock().power_off_at;
        at.is_some_and(|at| self.journal.disk.operations() >= at)
    }

    /// Lets a sync of this part fail, the first or a later one. Of a table it is what comes next that fails: a checkpoint,
    /// or a change that is then lost.
    pub(crate) fn fail_sync_in(&self, part: Part, syncs: u64, data_is_gone: bool) {
        let lose = if data_is_gone { Lose::Data } else { Lose::Nothing };
        match part {
            Part::Journal => self.journal.disk.fail_nth_sync(syncs, lose),
            Part::Folder => self.folder.disk.fail_nth_sync(syncs, lose),
            Part::Snapshots => self.snapshots.disk.fail_nth_sync(syncs, lose),
            Part::Table if data_is_gone => self.table.table.fail_next_apply(),
            Part::Table => self.table.table.fail_next_checkpoint(),
        }
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
        for disk in [&self.folder, &self.journal, &self.snapshots] {
            disk.look_again();
        }
        self.crash_tables();
    }

    fn crash_tables(&self) {
        let mut draw = self.draw(self.lock().number, "tables");
        self.table.table.crash(draw.number());
        if let Some(vault) = &self.vault {
            vault.table.crash(draw.number());
        }
    }

    fn disks(&self) -> [&SimulatedDisk; 3] {
        [&self.folder.disk, &self.journal.disk, &self.snapshots.disk]
    }

    fn failures(&self) -> [&Failure; 4] {
        let [folder, journal, snapshots] =
            [&self.folder, &self.journal, &self.snapshots].map(|disk| &disk.failure);
        [folder, journal, snapshots, &self.table.failure]
    }

    fn draw(&self, life: u64, purpose: &str) -> Draw {
        Draw::new(self.seed, &format!("{} {life} {purpose}", self.name))
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
