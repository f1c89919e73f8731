use std::fmt;
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::batch::check_key;
use crate::digest::Digest;
use crate::directory::{Contents, Directory};
use crate::floor::Floor;
use crate::marker::Marker;
use crate::sticky::Sticky;
use crate::store::{DIGEST_KEY, Store, Unopened, close, guard};
use crate::{Batch, Entry, Table, TableError};

/// A table in a directory of its own, kept by sled.
pub struct SledTable {
    name: &'static str,
    /// Taken only when the table is dropped.
    database: Option<sled::Db>,
    file: File,
    /// Of everything that is visible. Held for writing by `apply` and for reading by `scan`, which in sled
    /// alone could see half of a batch.
    digest: RwLock<Digest>,
    /// Held for the time of a checkpoint, so that they are written one after the other.
    floor: Mutex<Floor>,
    failure: Sticky,
    /// Last, because the directory must stay locked until the database is closed.
    directory: Directory,
}

/// How to open a [`SledTable`].
#[derive(Debug, Clone)]
pub struct SledOptions {
    /// What the table is for, such as `"decision"`: kept on disk and compared, so that two directories cannot
    /// be mixed up; also in messages. One line.
    pub name: &'static str,
    /// How much of the table sled keeps in memory, in bytes; at least 64 KiB, whatever is asked for. sled
    /// counts the pages as they are on disk, and some buffers of 8 MiB come on top.
    pub cache_bytes: u64,
}

impl SledOptions {
    /// The default cache, 64 MiB: room for some hundred thousand records, while two tables and the process
    /// around them still fit into half a gigabyte.
    pub const DEFAULT_CACHE_BYTES: u64 = 64 * 1024 * 1024;

    /// sled divides the cache into 256 parts and panics if one of them is left with nothing, which would look
    /// like damage.
    pub(crate) const LEAST_CACHE_BYTES: u64 = 64 * 1024;

    /// The options of a table of this name, with the default cache.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            cache_bytes: Self::DEFAULT_CACHE_BYTES,
        }
    }
}

/// An opened table.
#[derive(Debug)]
pub struct Opened {
    /// The table.
    pub table: SledTable,
    /// If this is a path, the former contents were damaged and are there now. The table does not have them:
    /// the caller must rebuild it from what it keeps elsewhere, or refuse to go on, and then call
    /// [`SledTable::rebuilt`]. Until that has happened every opening says so again; the table then holds what
    /// an interrupted rebuild has left in it.
    pub set_aside: Option<PathBuf>,
}

impl SledTable {
    /// Opens the table in this directory, or creates it. Everything in it is read once and compared with its
    /// digest, which takes one to two seconds for a million entries.
    ///
    /// A table that does not open, or that is not what its last owner left there, is renamed to
    /// `<directory>.damaged-<n>`, and an empty one takes its place; see [`Opened::set_aside`]. The same
    /// happens to a directory whose creation was never completed. sled overwrites what it cannot read, so a
    /// directory that was set aside no longer shows exactly what had happened to it.
    ///
    /// `<directory>.lock` is created beside the directory and stays.
    ///
    /// # Errors
    ///
    /// [`TableError::Locked`], [`TableError::OtherTable`] and [`TableError::NotATable`] leave the directory
    /// alone, and so does [`TableError::Open`] if it was there already.
    pub fn open(directory: impl AsRef<Path>, options: SledOptions) -> Result<Opened, TableError> {
        assert!(!options.name.contains('\n'), "the name of a table is one line");
        let directory = Directory::claim(directory.as_ref())?;
        let replaces = match directory.contents(options.name)? {
            // A crash may have come between setting the former table aside and completing its successor.
            Contents::Nothing => directory.last_set_aside()?,
            Contents::Unfinished => {
                directory.await_release()?;
                Some(directory.set_aside("its creation was not completed")?)
            }
            Contents::Table(marker) => {
                directory.await_release()?;
                directory.remove_half_written_snapshots()?;
                match Store::open(&directory, &options) {
                    Ok(store) => {
                        let set_aside = marker.replaces.map(|name| directory.beside(&name));
                        return Ok(Opened {
                            table: Self::new(store, directory, &options),
                            set_aside,
                        });
                    }
                    Err(Unopened::Damaged(reason)) => Some(directory.set_aside(&reason)?),
                    Err(Unopened::Refused(error)) => return Err(error),
                }
            }
        };
        let store = Store::create(&directory, &options)?;
        let aside_name = replaces.as_deref().and_then(Path::file_name);
        let aside_name = aside_name.map(|name| name.to_string_lossy().into_owned());
        directory.write_marker(&Marker {
            name: options.name.to_owned(),
            replaces: aside_name,
        })?;
        Ok(Opened {
            table: Self::new(store, directory, &options),
            set_aside: replaces,
        })
    }

    /// Says that the table has again everything that the directory named by [`Opened::set_aside`] had, and
    /// writes a checkpoint. From now on an opening reports nothing set aside.
    ///
    /// # Errors
    ///
    /// Those of [`Table::checkpoint`].
    pub fn rebuilt(&self) -> Result<(), TableError> {
        self.checkpoint()?;
        self.directory
            .write_marker(&Marker {
                name: self.name.to_owned(),
                replaces: None,
            })
            .map_err(|error| self.failure.fail("write its marker", error))
    }

    fn new(store: Store, directory: Directory, options: &SledOptions) -> Self {
        let Store {
            database,
            file,
            digest,
            floor,
        } = store;
        Self {
            name: options.name,
            database: Some(database),
            file,
            digest: RwLock::new(digest),
            floor: Mutex::new(floor),
            failure: Sticky::new(options.name),
            directory,
        }
    }

    /// Calls sled. An error or a panic is the end of the table.
    fn call<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, TableError> {
        let Some(database) = &self.database else {
            unreachable!("the database is only taken by drop")
        };
        guard(|| call(database)).map_err(|fault| self.failure.fail(operation, fault))
    }
}

impl Table for SledTable {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        check_key(key)?;
        self.failure.check()?;
        let value = self.call("read", |database| database.get(key))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn apply(&self, batch: Batch) -> Result<(), TableError> {
        batch.check()?;
        let mut visible = self.digest.write().unwrap_or_else(PoisonError::into_inner);
        self.failure.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        let mut digest = *visible;
        digest.batches += 1;
        self.call("apply a batch", |database| {
            let mut changes = sled::Batch::default();
            for (key, value) in batch.into_changes() {
                if let Some(old) = database.get(&key)? {
                    digest.subtract(&key, &old);
                }
                match value {
                    Some(value) => {
                        digest.add(&key, &value);
                        changes.insert(key, value);
                    }
                    None => changes.remove(key),
                }
            }
            changes.insert(DIGEST_KEY, digest.to_bytes().as_slice());
            database.apply_batch(changes)
        })?;
        *visible = digest;
        Ok(())
    }

    fn scan(&self, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, TableError> {
        // Held to the end, so that no batch comes in between.
        let _visible = self.digest.read().unwrap_or_else(PoisonError::into_inner);
        self.failure.check()?;
        if until.is_some_and(|until| until <= from) {
            return Ok(Vec::new());
        }
        // The digest has the empty key, which comes first.
        let start = if from.is_empty() {
            Bound::Excluded(DIGEST_KEY)
        } else {
            Bound::Included(from)
        };
        let range = (start, until.map_or(Bound::Unbounded, Bound::Excluded));
        self.call("scan", |database| {
            let entries = database.range::<&[u8], _>(range).take(limit);
            entries
                .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
                .collect()
        })
    }

    fn checkpoint(&self) -> Result<(), TableError> {
        let mut floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        self.failure.check()?;
        let batches = self.digest.read().unwrap_or_else(PoisonError::into_inner).batches;
        self.call("flush", |database| database.flush())?;
        self.file
            .sync_data()
            .map_err(|error| self.failure.fail("sync", error))?;
        floor
            .raise(batches)
            .map_err(|error| self.failure.fail("note a checkpoint", error))
    }
}

impl Drop for SledTable {
    fn drop(&mut self) {
        // Whoever drops the table relies on nothing since the last checkpoint.
        if let Some(database) = self.database.take() {
            close(database);
        }
    }
}

impl fmt::Debug for SledTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("SledTable");
        debug
            .field("name", &self.name)
            .field("directory", &self.directory.path())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn open(directory: &Path) -> Opened {
        SledTable::open(
            directory,
            SledOptions {
                name: "test",
                cache_bytes: 64 * 1024,
            },
        )
        .unwrap()
    }

    fn put(table: &SledTable, key: u32, value: &[u8]) -> Result<(), TableError> {
        let mut batch = Batch::new();
        batch.put(key.to_be_bytes(), value);
        table.apply(batch)
    }

    #[test]
    fn a_checkpoint_ends_in_a_sync_of_our_own_and_its_failure_is_final() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("table");
        let mut table = open(&directory).table;
        put(&table, 1, b"1").unwrap();
        table.checkpoint().unwrap();
        put(&table, 2, b"2").unwrap();
        // A pipe cannot be synced, so the kernel answers with an error.
        let (reader, _writer) = io::pipe().unwrap();
        let database = std::mem::replace(&mut table.file, File::from(OwnedFd::from(reader)));
        let first = table.checkpoint().unwrap_err();
        assert!(
            matches!(
                first,
                TableError::Failed {
                    operation: "sync",
                    ..
                }
            ),
            "{first}"
        );
        table.file = database;
        let later = [
            table.checkpoint(),
            table.get(b"1").map(drop),
            table.scan(b"", None, 1).map(drop),
            put(&table, 3, b"3"),
            table.apply(Batch::new()),
            table.rebuilt(),
        ];
        for result in later {
            assert_eq!(result.unwrap_err().to_string(), first.to_string());
        }
        assert_eq!(
            table.floor.lock().unwrap().batches(),
            1,
            "the checkpoint did not happen"
        );
    }

    #[test]
    fn damage_under_a_running_table_stops_it_and_the_next_opening_finds_it() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("table");
        let table = open(&directory).table;
        // Ten pages for each of the 256 parts of sled's cache, none of which ever drops its last page.
        for group in 0..300_u32 {
            let mut batch = Batch::new();
            for key in 0..100 {
                batch.put((group * 100 + key).to_be_bytes(), [group as u8; 400]);
            }
            table.apply(batch).unwrap();
        }
        table.checkpoint().unwrap();
        let file = File::options().write(true).open(directory.join("db")).unwrap();
        let length = file.metadata().unwrap().len() as usize;
        file.write_all_at(&vec![0xFF; length], 0).unwrap();
        let first = (0..30_000_u32)
            .find_map(|key| table.get(&key.to_be_bytes()).err())
            .unwrap();
        assert!(
            matches!(
                first,
                TableError::Failed {
                    operation: "read",
                    ..
                }
            ),
            "{first}"
        );
        assert_eq!(put(&table, 1, b"1").unwrap_err().to_string(), first.to_string());
        assert_eq!(table.checkpoint().unwrap_err().to_string(), first.to_string());
        drop(table);
        assert!(open(&directory).set_aside.is_some());
    }
}
