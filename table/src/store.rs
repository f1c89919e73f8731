use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::digest::Digest;
use crate::directory::{DATABASE_FILE, Directory};
use crate::floor::Floor;
use crate::{SledOptions, TableError};

/// Where the digest lies among the entries. Users cannot have the empty key.
pub(crate) const DIGEST_KEY: &[u8] = b"";

/// sled writes what is larger than a quarter of a segment to a file of its own that it never syncs, and it
/// writes whole pages: leaves of some twenty values, index pages of some 260 keys. At this size the largest
/// page that our limits allow, and a batch too, still fits.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// An open and verified database.
pub(crate) struct Store {
    pub(crate) database: sled::Db,
    /// Our own handle of the database file: sled's `flush` does not sync it (it calls `sync_file_range`,
    /// which neither empties the drive's cache nor writes the file's size). Open for as long as the database
    /// is, so that the kernel reports every failed write-back to it, whoever else was told.
    pub(crate) file: File,
    pub(crate) digest: Digest,
    pub(crate) floor: Floor,
}

/// Why there is no store.
pub(crate) enum Unopened {
    /// The contents are not what the last owner left.
    Damaged(String),
    /// The contents are not to blame.
    Refused(TableError),
}

impl Store {
    /// Makes an empty database. All of it is on disk on return.
    pub(crate) fn create(directory: &Directory, options: &SledOptions) -> Result<Self, TableError> {
        let failed = |reason: String| TableError::open("create a table in", directory.path(), reason);
        directory.create()?;
        let floor = Floor::create(directory.path()).map_err(|error| failed(error.to_string()))?;
        let digest = Digest::default();
        let database = guard(|| {
            let database = config(directory, options).open()?;
            database.insert(DIGEST_KEY, digest.to_bytes().as_slice())?;
            database.flush()?;
            Ok(database)
        })
        .map_err(|fault| failed(fault.to_string()))?;
        let file = open_file(directory)?;
        directory.sync_everything()?;
        Ok(Self {
            database,
            file,
            digest,
            floor,
        })
    }

    /// Opens a database and reads all of it. Neither an error nor a panic of sled is trusted to be the only
    /// sign of damage: it drops what it cannot read from the end of its log, and does not look at older pages
    /// at all.
    pub(crate) fn open(directory: &Directory, options: &SledOptions) -> Result<Self, Unopened> {
        let mut floor = Floor::open(directory.path()).map_err(|error| judge_io(directory, &error))?;
        let recovered = guard(|| {
            let database = config(directory, options).open()?;
            let (stored, counted) = read_everything(&database)?;
            database.flush()?;
            Ok((database, stored, counted))
        });
        let (database, stored, counted) = match recovered {
            Ok(recovered) => recovered,
            Err(Fault::Error(sled::Error::Io(error))) => return Err(judge_io(directory, &error)),
            Err(fault) => return Err(Unopened::Damaged(fault.to_string())),
        };
        let digest = match compare(stored, counted, &floor) {
            Ok(digest) => digest,
            Err(reason) => {
                close(database);
                return Err(Unopened::Damaged(reason));
            }
        };
        let file = open_file(directory).map_err(Unopened::Refused)?;
        // The recovery has written too, and what it kept may never have been synced.
        directory.sync_everything().map_err(Unopened::Refused)?;
        floor
            .raise(digest.batches)
            .map_err(|error| judge_io(directory, &error))?;
        Ok(Self {
            database,
            file,
            digest,
            floor,
        })
    }
}

fn config(directory: &Directory, options: &SledOptions) -> sled::Config {
    sled::Config::new()
        .path(directory.path())
        .cache_capacity(options.cache_bytes.max(SledOptions::LEAST_CACHE_BYTES))
        .segment_size(SEGMENT_BYTES)
        // Nothing relies on the periodic flush: durability is the checkpoint's, and pages are moved out of
        // half-empty segments as part of other writes as well. Without it there is no thread whose failed
        // sync is only logged.
        .flush_every_ms(None)
}

fn open_file(directory: &Directory) -> Result<File, TableError> {
    let path = directory.path().join(DATABASE_FILE);
    File::open(&path).map_err(|error| TableError::open("open", path, error))
}

/// The digest that lies among the entries, and the one that they give.
fn read_everything(database: &sled::Db) -> sled::Result<(Option<Digest>, Digest)> {
    let mut stored = None;
    let mut counted = Digest::default();
    for entry in database.iter() {
        let (key, value) = entry?;
        if key == DIGEST_KEY {
            stored = Digest::from_bytes(&value)
        } else {
            counted.add(&key, &value)
        }
    }
    Ok((stored, counted))
}

/// The digest of the table if its contents give it and no checkpoint is missing, or what is wrong.
fn compare(stored: Option<Digest>, counted: Digest, floor: &Floor) -> Result<Digest, String> {
    let Some(digest) = stored else {
        return Err("the digest of its contents is missing".to_owned());
    };
    if (digest.entries, digest.sum) != (counted.entries, counted.sum) {
        let (found, expected) = (counted.entries, digest.entries);
        return Err(format!(
            "its contents do not give their digest ({found} entries, {expected} expected)"
        ));
    }
    if digest.batches < floor.batches() {
        let (found, expected) = (digest.batches, floor.batches());
        return Err(format!(
            "it ends at batch {found}, but batch {expected} was durable"
        ));
    }
    Ok(digest)
}

/// Closes a database on which nobody relies any more. sled panics if the last sync fails.
pub(crate) fn close(database: sled::Db) {
    let closed = guard(|| {
        drop(database);
        Ok(())
    });
    if let Err(fault) = closed {
        tracing::error!(%fault, "closing a table failed");
    }
}

/// An error of the operating system that has nothing to do with the contents (no permission, no space, no
/// file descriptors, a broken device) must not cost the table. What sled itself raises while it reads has one
/// of these kinds.
fn judge_io(directory: &Directory, error: &io::Error) -> Unopened {
    let text = error.to_string();
    if text.contains("could not acquire lock") {
        return Unopened::Refused(TableError::Locked {
            directory: directory.path().to_path_buf(),
        });
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::InvalidData
        | io::ErrorKind::NotFound
        | io::ErrorKind::Other => Unopened::Damaged(text),
        _ => Unopened::Refused(TableError::open("open the table", directory.path(), text)),
    }
}

/// What sled answers when it does not answer what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Error(#[from] sled::Error),
    #[error("sled panicked: {0}")]
    Panic(String),
}

/// Calls into sled, which panics on some damaged files.
pub(crate) fn guard<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, Fault> {
    // Unwind safe, because nobody uses the database again after a fault.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => Ok(result?),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Fault::Panic(text.unwrap_or_else(|| "no message".to_owned())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_contents_cause_is_damage() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::claim(&parent.path().join("table")).unwrap();
        let damaged = |error: io::Error| matches!(judge_io(&directory, &error), Unopened::Damaged(_));
        for kind in [
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::InvalidData,
            io::ErrorKind::NotFound,
        ] {
            assert!(damaged(kind.into()), "{kind}");
        }
        assert!(damaged(io::Error::other("encountered torn segment")));
        // Input/output error, too many open files, permission denied, no space left: Linux numbers them so.
        for number in [5, 24, 13, 28] {
            assert!(!damaged(io::Error::from_raw_os_error(number)), "errno {number}");
        }
        assert!(!damaged(io::Error::other("could not acquire lock on \"db\"")));
    }

    #[test]
    fn a_panic_inside_sled_becomes_an_error() {
        let fault = guard::<()>(|| panic!("a page that is not there, on purpose")).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "sled panicked: a page that is not there, on purpose"
        );
        let number = 3;
        let fault = guard::<()>(|| panic!("page {number}")).unwrap_err();
        assert_eq!(fault.to_string(), "sled panicked: page 3");
    }
}
