use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::TableError;
use crate::floor::FLOOR_FILE;
use crate::marker::{Marker, Reading};

/// The file that sled keeps everything in.
pub(crate) const DATABASE_FILE: &str = "db";

const MARKER_FILE: &str = "table.marker";
const NEW_MARKER_FILE: &str = "table.marker.new";

/// Between the name of a directory that was set aside and its number.
const ASIDE: &str = ".damaged-";

/// The threads of a table that was just closed in this process may hold sled's lock a little longer. They
/// need milliseconds; a lock that is still there after this time belongs to somebody else.
const RELEASE_DEADLINE: Duration = Duration::from_secs(2);
const RELEASE_POLL: Duration = Duration::from_millis(2);

/// The directory of one table, held by this process alone for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    parent: PathBuf,
    /// Locked. It lies beside the directory, so that it stays when the directory itself is moved aside.
    _lock: File,
}

/// What a directory holds before it is opened.
#[derive(Debug)]
pub(crate) enum Contents {
    /// Nothing: it does not exist, or it is empty.
    Nothing,
    /// A table whose creation was completed.
    Table(Marker),
    /// Files of a table, but without a readable marker: a crash interrupted the creation, or the marker is
    /// lost.
    Unfinished,
}

impl Directory {
    /// Locks the place of the directory, whether or not it exists yet. Its parents are created.
    pub(crate) fn claim(path: &Path) -> Result<Self, TableError> {
        let path = std::path::absolute(path).map_err(|error| TableError::open("locate", path, error))?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(TableError::open(
                "use as a table",
                path,
                "it has no name of its own",
            ));
        };
        create_durably(parent)?;
        // Without symbolic links, so that two names of one directory meet at the same lock.
        let resolved = match fs::canonicalize(&path) {
            Ok(resolved) => resolved,
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::canonicalize(parent)
                .map_err(|error| TableError::open("locate", parent, error))?
                .join(name),
            Err(error) => return Err(TableError::open("locate", path, error)),
        };
        let lock_path = suffixed(&resolved, ".lock");
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|error| TableError::open("create the lock file", &lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TableError::Locked { directory: resolved }),
            Err(TryLockError::Error(error)) => return Err(TableError::open("lock", lock_path, error)),
        }
        let parent = resolved.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self {
            path: resolved,
            parent,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is there. Refuses another table and anything that is not a table at all.
    pub(crate) fn contents(&self, name: &str) -> Result<Contents, TableError> {
        let names = match names(&self.path) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Nothing),
            Err(error) => return Err(TableError::open("list", &self.path, error)),
        };
        let marker = match fs::read(self.path.join(MARKER_FILE)) {
            Ok(text) => Marker::read(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Reading::Unreadable,
            Err(error) => return Err(TableError::open("read", self.path.join(MARKER_FILE), error)),
        };
        let found = match marker {
            Reading::Marker(marker) if marker.name == name => return Ok(Contents::Table(marker)),
            Reading::Marker(marker) => Marker::describe(&marker.name),
            Reading::OtherFormat(format) => format!("table of another version ({format})"),
            Reading::Unreadable if names.is_empty() => return Ok(Contents::Nothing),
            Reading::Unreadable => {
                // A mistyped path must not move somebody's home directory aside.
                if let Some(entry) = names.into_iter().find(|name| !belongs_to_a_table(name)) {
                    return Err(TableError::NotATable {
                        directory: self.path.clone(),
                        entry,
                    });
                }
                return Ok(Contents::Unfinished);
            }
        };
        let expected = Marker::describe(name);
        Err(TableError::OtherTable {
            directory: self.path.clone(),
            expected,
            found,
        })
    }

    /// Waits until no thread of an earlier owner holds sled's own lock any more. Whoever holds it longer is
    /// alive and does not know our lock file: its table must be neither opened nor moved.
    pub(crate) fn await_release(&self) -> Result<(), TableError> {
        let path = self.path.join(DATABASE_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(TableError::open("open", path, error)),
        };
        let deadline = Instant::now() + RELEASE_DEADLINE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()), // Closing the file gives the lock back.
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(RELEASE_POLL)
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(TableError::Locked {
                        directory: self.path.clone(),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(TableError::open("lock", path, error)),
            }
        }
    }

    /// Removes the snapshots that a crash left half written. sled takes them for finished ones and then
    /// refuses to open; they hold nothing that it cannot find in the database file again.
    pub(crate) fn remove_half_written_snapshots(&self) -> Result<(), TableError> {
        let names = names(&self.path).map_err(|error| TableError::open("list", &self.path, error))?;
        for name in names
            .iter()
            .filter(|name| name.starts_with("snap.") && name.ends_with(".generating"))
        {
            let path = self.path.join(name);
            tracing::warn!(path = %path.display(), "removing a half-written snapshot");
            fs::remove_file(&path).map_err(|error| TableError::open("remove", path, error))?;
        }
        Ok(())
    }

    /// The directory that was set aside last, if there is any.
    pub(crate) fn last_set_aside(&self) -> Result<Option<PathBuf>, TableError> {
        Ok(self.set_aside_before()?.map(|number| self.aside(number)))
    }

    /// Moves the directory out of the way, under a new name, and returns where it is now.
    pub(crate) fn set_aside(&self, reason: &str) -> Result<PathBuf, TableError> {
        let aside = self.aside(
            self.set_aside_before()?
                .map_or(1, |number| number.saturating_add(1)),
        );
        fs::rename(&self.path, &aside).map_err(|error| TableError::open("move aside", &self.path, error))?;
        sync(&self.parent)?;
        tracing::error!(
            directory = %self.path.display(),
            aside = %aside.display(),
            reason,
            "the table was set aside and must be rebuilt"
        );
        Ok(aside)
    }

    fn aside(&self, number: u64) -> PathBuf {
        suffixed(&self.path, &format!("{ASIDE}{number}"))
    }

    /// The highest number under which the directory was set aside, `None` if it never was.
    fn set_aside_before(&self) -> Result<Option<u64>, TableError> {
        let siblings = names(&self.parent).map_err(|error| TableError::open("list", &self.parent, error))?;
        let prefix = suffixed(&self.path, ASIDE);
        let prefix = prefix.file_name().unwrap_or_default().to_string_lossy();
        let numbers = siblings
            .iter()
            .filter_map(|name| name.strip_prefix(&*prefix)?.parse().ok());
        Ok(numbers.max())
    }

    /// Makes the directory itself, unless it is there.
    pub(crate) fn create(&self) -> Result<(), TableError> {
        create_durably(&self.path)
    }

    /// Syncs every file and directory of the table: sled leaves some of that out when it creates or recovers.
    pub(crate) fn sync_everything(&self) -> Result<(), TableError> {
        let mut directories = vec![self.path.clone()];
        while let Some(directory) = directories.pop() {
            for name in names(&directory).map_err(|error| TableError::open("list", &directory, error))? {
                let path = directory.join(name);
                if path.is_dir() {
                    directories.push(path)
                } else {
                    sync(&path)?
                }
            }
            sync(&directory)?;
        }
        sync(&self.parent)
    }

    /// Writes the marker: from now on, and not before, the directory is a table. Everything else is synced.
    pub(crate) fn write_marker(&self, marker: &Marker) -> Result<(), TableError> {
        let new = self.path.join(NEW_MARKER_FILE);
        fs::write(&new, marker.to_text()).map_err(|error| TableError::open("write", &new, error))?;
        sync(&new)?;
        let path = self.path.join(MARKER_FILE);
        fs::rename(&new, &path).map_err(|error| TableError::open("rename", &new, error))?;
        sync(&self.path)
    }

    /// The path of a directory that was set aside, from the name in the marker.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.parent.join(name)
    }
}

fn belongs_to_a_table(name: &str) -> bool {
    matches!(
        name,
        DATABASE_FILE | "conf" | "blobs" | MARKER_FILE | NEW_MARKER_FILE | FLOOR_FILE
    ) || name.starts_with("snap.")
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    // Sorted, so that messages name the same entry on every run.
    names.sort();
    Ok(names)
}

/// Creates the directory and what is missing above it; each new name is synced before anything goes inside.
fn create_durably(directory: &Path) -> Result<(), TableError> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(Path::new("/"));
    if parent != directory {
        create_durably(parent)?;
    }
    match fs::create_dir(directory) {
        Ok(()) => sync(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(TableError::open("create", directory, error)),
    }
}

fn sync(path: &Path) -> Result<(), TableError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| TableError::open("sync", path, error))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
