//! A disk in memory that behaves as badly as a real one may.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};
use crate::simulated_file::{Choice, SimulatedFile};
use crate::simulated_machine::{EntryChange, Machine, is_due};

/// A directory of files in memory, for tests and simulations; clones are the same disk.
///
/// What was written but not synced can be read, as from the page cache, and is at stake in a
/// [`crash`](SimulatedDisk::crash). Names too: a create, rename or remove is durable only after
/// `sync_directory`. Everything is deterministic from the seeds given.
///
/// Creates, writes, syncs, renames and removes are counted as operations, reads are not. Fault injection speaks in
/// these counts, so that a test can first count and then fail each in turn.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk {
    machine: Arc<Mutex<Machine>>,
}

/// What happens to the un-synced bytes of a file when its sync fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lose {
    /// They stay un-synced; a later sync would still make them durable.
    Nothing,
    /// They can be read until the next crash but count as clean: no later sync makes them durable. Linux does so.
    Data,
}

impl SimulatedDisk {
    /// The error number of a disk that does not work.
    pub const EIO: i32 = 5;
    /// The error number of a disk that is full.
    pub const ENOSPC: i32 = 28;

    /// An empty directory.
    pub fn new() -> SimulatedDisk {
        SimulatedDisk::default()
    }

    /// Cuts the power and brings it back. Of what was not synced each file keeps nothing, a prefix to the byte,
    /// any version of each 512-byte sector, or everything; the seed decides. Open handles are dead afterwards, and
    /// faults that were set are forgotten.
    pub fn crash(&self, seed: u64) {
        let mut choice = Choice::new(seed);
        let mut machine = self.lock();
        machine.settle_entries(&mut choice);
        for file in machine.files.values_mut() {
            file.crash(&mut choice);
        }
        machine.restart();
    }

    /// Cuts the power and brings it back; nothing that was not synced is kept.
    pub fn crash_losing_everything(&self) {
        let mut machine = self.lock();
        machine.entries.clear();
        for file in machine.files.values_mut() {
            file.lose_unsynced();
        }
        machine.restart();
    }

    /// Ends the process but not the machine, as `kill -9` does: everything written can still be read and is
    /// still un-synced. Open handles are dead afterwards, and faults that were set are forgotten.
    pub fn power_on(&self) {
        self.lock().boot_again();
    }

    /// Lets operation number `operation` (see [`operations`](SimulatedDisk::operations)) and all after it fail:
    /// the machine is off. Reads fail as well from then on.
    pub fn power_off_at_operation(&self, operation: u64) {
        self.lock().off_at = Some(operation);
    }

    /// Lets the `nth` sync of a file from now on (1 is the next one) fail with `EIO`.
    pub fn fail_nth_sync(&self, nth: u64, lose: Lose) {
        self.lock().sync_fault = Some((nth, lose));
    }

    /// Lets the `nth` write from now on (1 is the next one) fail with this error number, halfway through.
    pub fn fail_nth_write(&self, nth: u64, errno: i32) {
        self.lock().write_fault = Some((nth, errno));
    }

    /// How many operations there were; the next one has this number.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// How many syncs of files there were.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many writes there were.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Flips one bit of a file, on the disk and in the cache.
    ///
    /// # Panics
    ///
    /// If there is no such file or byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        assert!(bit < 8, "a byte has no bit {bit}");
        self.damage(name, |bytes| bytes[offset as usize] ^= 1 << bit);
    }

    /// Cuts a file to this length, on the disk and in the cache.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn truncate(&self, name: &str, length: u64) {
        self.damage(name, |bytes| bytes.truncate(length as usize));
    }

    /// Puts a durable file with these bytes into the directory, in place of one that has the name.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut machine = self.lock();
        let file = machine.add(SimulatedFile::durable(bytes.to_vec()));
        machine.visible.insert(name.to_string(), file);
        machine.durable.insert(name.to_string(), file);
    }

    /// What a program would read from the file, if it is there.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let machine = self.lock();
        let file = machine.visible.get(name)?;
        Some(machine.files[file].cached().to_vec())
    }

    /// A copy that shares nothing with this disk: what is un-synced here is un-synced there.
    pub fn fork(&self) -> SimulatedDisk {
        SimulatedDisk {
            machine: Arc::new(Mutex::new(self.lock().clone())),
        }
    }

    fn damage(&self, name: &str, damage: impl Fn(&mut Vec<u8>)) {
        let mut machine = self.lock();
        let file = machine.visible.get(name).copied();
        match file.and_then(|file| machine.files.get_mut(&file)) {
            Some(file) => file.damage(damage),
            None => panic!("there is no file {name}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // A test that failed while it held the lock says so itself.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, file: u64, boot: u64) -> Arc<dyn DiskFile> {
        Arc::new(Handle {
            disk: self.clone(),
            file,
            boot,
        })
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no file {name}"))
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let machine = self.lock();
        machine.check_power()?;
        Ok(machine.visible.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut machine = self.lock();
        machine.begin_operation()?;
        if machine.visible.contains_key(name) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{name} is there already"),
            ));
        }
        let file = machine.add(SimulatedFile::default());
        machine.change(EntryChange::Set {
            name: name.to_string(),
            file,
        });
        Ok(self.handle(file, machine.boot))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let machine = self.lock();
        machine.check_power()?;
        let file = machine.visible.get(name).ok_or_else(|| not_found(name))?;
        Ok(self.handle(*file, machine.boot))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut machine = self.lock();
        machine.begin_operation()?;
        let file = *machine.visible.get(from).ok_or_else(|| not_found(from))?;
        machine.change(EntryChange::Move {
            from: from.to_string(),
            to: to.to_string(),
            file,
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut machine = self.lock();
        machine.begin_operation()?;
        if !machine.visible.contains_key(name) {
            return Err(not_found(name));
        }
        machine.change(EntryChange::Unset {
            name: name.to_string(),
        });
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut machine = self.lock();
        machine.begin_operation()?;
        machine.entries.clear();
        machine.durable = machine.visible.clone();
        Ok(())
    }
}

struct Handle {
    disk: SimulatedDisk,
    file: u64,
    boot: u64,
}

impl Handle {
    /// The machine, if this handle is of its present boot.
    fn machine(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let machine = self.disk.lock();
        if machine.boot != self.boot {
            return Err(io::Error::other(
                "the machine was restarted since the file was opened",
            ));
        }
        machine.check_power()?;
        Ok(machine)
    }

    fn file<'a>(&self, machine: &'a mut Machine) -> io::Result<&'a mut SimulatedFile> {
        machine
            .files
            .get_mut(&self.file)
            .ok_or_else(|| not_found("of this handle"))
    }

    fn sync(&self) -> io::Result<()> {
        let mut machine = self.machine()?;
        machine.begin_operation()?;
        machine.syncs += 1;
        let fault = is_due(&mut machine.sync_fault);
        let file = self.file(&mut machine)?;
        match fault {
            None => {
                file.sync();
                return Ok(());
            }
            Some(Lose::Nothing) => {}
            Some(Lose::Data) => file.forget_unsynced(),
        }
        Err(io::Error::from_raw_os_error(SimulatedDisk::EIO))
    }
}

impl DiskFile for Handle {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file(&mut *self.machine()?)?.cached().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut machine = self.machine()?;
        let bytes = self.file(&mut machine)?.cached();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = from
            .checked_add(buffer.len())
            .and_then(|until| bytes.get(from..until));
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut machine = self.machine()?;
        machine.begin_operation()?;
        machine.writes += 1;
        let fault = is_due(&mut machine.write_fault);
        let file = self.file(&mut machine)?;
        match fault {
            None => {
                file.write(bytes, offset);
                Ok(())
            }
            Some(errno) => {
                file.write(&bytes[..bytes.len() / 2], offset);
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}
