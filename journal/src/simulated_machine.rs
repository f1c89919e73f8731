//! The machine behind a simulated disk: its files, its directory before and after a power loss, and its faults.

use std::collections::BTreeMap;
use std::io;

use crate::simulated_disk::Lose;
use crate::simulated_file::{Choice, SimulatedFile};

#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) files: BTreeMap<u64, SimulatedFile>,
    pub(crate) next_file: u64,
    /// The directory as programs see it.
    pub(crate) visible: BTreeMap<String, u64>,
    /// The directory as a power loss leaves it.
    pub(crate) durable: BTreeMap<String, u64>,
    /// What was done to `visible` and not yet to `durable`. Each is whole or not at all.
    pub(crate) entries: Vec<EntryChange>,
    /// Handles of an earlier boot are dead.
    pub(crate) boot: u64,
    pub(crate) operations: u64,
    pub(crate) syncs: u64,
    pub(crate) writes: u64,
    pub(crate) off_at: Option<u64>,
    pub(crate) sync_fault: Option<(u64, Lose)>,
    pub(crate) write_fault: Option<(u64, i32)>,
}

#[derive(Clone, Debug)]
pub(crate) enum EntryChange {
    Set { name: String, file: u64 },
    Move { from: String, to: String, file: u64 },
    Unset { name: String },
}

impl Machine {
    pub(crate) fn add(&mut self, file: SimulatedFile) -> u64 {
        self.next_file += 1;
        self.files.insert(self.next_file, file);
        self.next_file
    }

    fn is_off(&self) -> bool {
        self.off_at.is_some_and(|off_at| self.operations >= off_at)
    }

    pub(crate) fn check_power(&self) -> io::Result<()> {
        if self.is_off() {
            Err(io::Error::other("the machine is off"))
        } else {
            Ok(())
        }
    }

    pub(crate) fn begin_operation(&mut self) -> io::Result<()> {
        self.check_power()?;
        self.operations += 1;
        Ok(())
    }

    pub(crate) fn change(&mut self, change: EntryChange) {
        change.apply(&mut self.visible);
        self.entries.push(change);
    }

    /// Decides which changes of names a power loss keeps.
    pub(crate) fn settle_entries(&mut self, choice: &mut Choice) {
        let entries = std::mem::take(&mut self.entries);
        let prefix = choice.below(entries.len() as u64 + 1) as usize;
        let any = choice.below(2) == 0;
        for (position, change) in entries.into_iter().enumerate() {
            let kept = if any {
                choice.below(2) == 0
            } else {
                position < prefix
            };
            if kept {
                change.apply(&mut self.durable);
            }
        }
    }

    pub(crate) fn restart(&mut self) {
        self.visible = self.durable.clone();
        let named: Vec<u64> = self.durable.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
        self.boot_again();
    }

    pub(crate) fn boot_again(&mut self) {
        self.boot += 1;
        self.off_at = None;
        self.sync_fault = None;
        self.write_fault = None;
    }
}

impl EntryChange {
    fn apply(&self, directory: &mut BTreeMap<String, u64>) {
        match self {
            EntryChange::Set { name, file } => {
                directory.insert(name.clone(), *file);
            }
            EntryChange::Move { from, to, file } => {
                directory.remove(from);
                directory.insert(to.clone(), *file);
            }
            EntryChange::Unset { name } => {
                directory.remove(name);
            }
        }
    }
}

/// Counts down to a fault that was set: true when it is due.
pub(crate) fn is_due<T: Copy>(fault: &mut Option<(u64, T)>) -> Option<T> {
    let (left, what) = fault.as_mut()?;
    *left = left.saturating_sub(1);
    let what = *what;
    if *left > 0 {
        return None;
    }
    *fault = None;
    Some(what)
}
