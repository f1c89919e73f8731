//! A simulated disk and somebody who looks on: who knows of which transactions something durable speaks, keeps what was
//! removed, and sees whether a process goes on after an error.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unanimo_core::TransactionId;
use unanimo_journal::{Disk, DiskFile, SimulatedDisk};

use crate::clock::EPOCH;
use crate::failure::Failure;

/// A disk. A clone is the same one.
#[derive(Clone)]
pub(crate) struct WatchedDisk {
    pub(crate) disk: SimulatedDisk,
    pub(crate) failure: Failure,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Files keep their numbers when they get other names.
    names: BTreeMap<String, u64>,
    files: u64,
    /// The transactions of which something speaks that is written and not synced, by file.
    unsynced: BTreeMap<u64, BTreeSet<TransactionId>>,
    /// Those of which something spoke that was durable, once.
    durable: BTreeSet<TransactionId>,
    /// What was in files that were removed.
    removed: BTreeMap<String, Vec<u8>>,
}

impl WatchedDisk {
    pub(crate) fn new(failure: Failure) -> Self {
        Self {
            disk: SimulatedDisk::new(),
            failure,
            seen: Arc::default(),
        }
    }

    /// Whether anything speaks of this transaction that no loss of power takes away.
    pub(crate) fn has_durable(&self, transaction: TransactionId) -> bool {
        self.lock().durable.contains(&transaction)
    }

    /// The power was lost and is back: whatever is there now was durable, or has become so.
    pub(crate) fn look_again(&self) {
        let mut seen = self.lock();
        seen.names.clear();
        seen.unsynced.clear();
        for name in self.disk.list().unwrap_or_default() {
            let contents = self.disk.contents(&name).unwrap_or_default();
            seen.durable.extend(transactions_in(&contents));
        }
    }

    /// A disk with all that is there, and with the files before the first of them that were removed.
    pub(crate) fn since_the_beginning(&self) -> SimulatedDisk {
        let whole = SimulatedDisk::new();
        let present = self.disk.list().unwrap_or_default();
        for (name, contents) in &self.lock().removed {
            if present.iter().all(|present| name < present) {
                whole.put(name, contents);
            }
        }
        for name in present {
            whole.put(&name, &self.disk.contents(&name).unwrap_or_default());
        }
        whole
    }

    fn watched(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let mut seen = self.lock();
        let number = match seen.names.get(name) {
            Some(number) => *number,
            None => {
                seen.files += 1;
                let number = seen.files;
                seen.names.insert(name.to_owned(), number);
                number
            }
        };
        Arc::new(WatchedFile {
            disk: self.clone(),
            number,
            file,
        })
    }

    /// Notes an error that was planned, and a success that must not be.
    fn note<T>(&self, what: &str, result: io::Result<T>) -> io::Result<T> {
        match &result {
            Ok(_) => self.failure.check_untouched(what),
            Err(error) if error.raw_os_error() == Some(SimulatedDisk::EIO) => self.failure.happened(),
            // Without power nothing succeeds, and files may be there or not.
            Err(_) => {}
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for WatchedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.note("creates a file", self.disk.create(name))?;
        self.lock().names.remove(name);
        Ok(self.watched(name, file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.watched(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.note("renames a file", self.disk.rename(from, to))?;
        let mut seen = self.lock();
        if let Some(number) = seen.names.remove(from) {
            seen.names.insert(to.to_owned(), number);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let contents = self.disk.contents(name);
        self.disk.remove(name)?;
        let mut seen = self.lock();
        seen.names.remove(name);
        seen.removed
            .extend(contents.map(|contents| (name.to_owned(), contents)));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.note("syncs the directory", self.disk.sync_directory())
    }
}

struct WatchedFile {
    disk: WatchedDisk,
    number: u64,
    file: Arc<dyn DiskFile>,
}

impl WatchedFile {
    fn synced(&self, result: io::Result<()>) -> io::Result<()> {
        self.disk.note("syncs a file", result)?;
        let mut seen = self.disk.lock();
        let durable = seen.unsynced.remove(&self.number).unwrap_or_default();
        seen.durable.extend(durable);
        Ok(())
    }
}

impl DiskFile for WatchedFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.note("writes", self.file.write_at(bytes, offset))?;
        let mut written = transactions_in(bytes).peekable();
        if written.peek().is_some() {
            let mut seen = self.disk.lock();
            seen.unsynced.entry(self.number).or_default().extend(written);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.synced(self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.synced(self.file.sync_all())
    }
}

/// Bytes of an id, which is written big-endian: its time takes the first six.
const ID_BYTES: usize = 16;
const BLOCK_BYTES: usize = 4096;

/// The transactions of this run whose ids stand anywhere in these bytes.
fn transactions_in(bytes: &[u8]) -> impl Iterator<Item = TransactionId> {
    // All of a run begin with the same bytes: the next ones change every few hours.
    let milliseconds = (EPOCH.as_millis() as u64).to_be_bytes();
    let common = [milliseconds[2], milliseconds[3], milliseconds[4]];
    // Most of a new file is zeros, and there is much of that.
    let blocks = bytes.chunks(BLOCK_BYTES).enumerate();
    let written = blocks.filter(|(_, block)| block.iter().fold(0, |all, byte| all | byte) != 0);
    let places = written.flat_map(|(block, content)| {
        let from = block * BLOCK_BYTES;
        from..from + content.len()
    });
    places.filter_map(move |from| {
        let id = bytes.get(from..from + ID_BYTES)?;
        if id[..common.len()] != common {
            return None;
        }
        TransactionId::from_u128(u128::from_be_bytes(id.try_into().ok()?)).ok()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use unanimo_core::Timestamp;
    use unanimo_journal::Lose;

    use super::*;
    use crate::failure::Part;
    use crate::notes::Notes;

    fn tx(number: u128) -> TransactionId {
        let late = EPOCH + Duration::from_secs(300);
        TransactionId::new(Timestamp::from_unix_ms(late.as_millis() as u64), number)
    }

    fn bytes(number: u128) -> Vec<u8> {
        let id = tx(number).as_u128().to_be_bytes();
        [vec![0; 5000], id.to_vec(), vec![7; 3]].concat()
    }

    fn disk() -> (WatchedDisk, Notes) {
        let notes = Notes::new(false);
        let failure = Failure::new(&notes, &"p1".into(), Part::Journal);
        (WatchedDisk::new(failure), notes)
    }

    #[test]
    fn a_transaction_is_durable_when_what_speaks_of_it_is_synced() {
        let (disk, _) = disk();
        let file = disk.create("a").unwrap();
        file.write_at(&bytes(1), 0).unwrap();
        assert!(!disk.has_durable(tx(1)));
        disk.rename("a", "b").unwrap();
        disk.open("b").unwrap().sync_data().unwrap();
        assert!(disk.has_durable(tx(1)));
        assert!(!disk.has_durable(tx(2)));
    }

    #[test]
    fn what_a_loss_of_power_has_left_is_durable_and_nothing_else() {
        let (disk, _) = disk();
        let file = disk.create("a").unwrap();
        disk.sync_directory().unwrap();
        file.write_at(&bytes(1), 0).unwrap();
        file.sync_all().unwrap();
        file.write_at(&bytes(2), 6000).unwrap();
        disk.disk.crash_losing_everything();
        disk.look_again();
        assert!(disk.has_durable(tx(1)));
        assert!(!disk.has_durable(tx(2)));
    }

    #[test]
    fn whoever_writes_or_syncs_after_a_failed_sync_breaks_a_rule() {
        for goes_on in [
            |file: &dyn DiskFile| file.sync_data().unwrap(),
            |file: &dyn DiskFile| file.write_at(&[1], 0).unwrap(),
        ] {
            let (disk, notes) = disk();
            let file = disk.create("a").unwrap();
            disk.disk.fail_nth_sync(1, Lose::Data);
            assert!(file.sync_data().is_err());
            assert_eq!(notes.violations(), []);
            assert!(disk.failure.since().is_some());
            goes_on(&*file);
            assert_eq!(notes.violations()[0].kind, "went_on_after_a_failure");
        }
    }

    #[test]
    fn files_that_were_removed_are_kept_if_they_came_before_the_others() {
        let (disk, _) = disk();
        for name in ["1", "2", "3"] {
            disk.create(name).unwrap().write_at(name.as_bytes(), 0).unwrap();
        }
        disk.remove("1").unwrap();
        disk.remove("3").unwrap();
        let whole = disk.since_the_beginning();
        assert_eq!(whole.list().unwrap(), ["1", "2"]);
        assert_eq!(whole.contents("1").unwrap(), b"1");
    }

    /// Ids of all runs begin alike, whatever the time in them: half an hour is longer than a run with all jumps of its clocks.
    #[test]
    fn the_time_of_a_run_does_not_change_how_ids_begin() {
        let first = |after: u64| (EPOCH.as_millis() as u64 + after).to_be_bytes()[2..5].to_vec();
        assert_eq!(first(0), first(1_800_000));
    }
}
