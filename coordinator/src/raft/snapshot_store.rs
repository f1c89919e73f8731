//! The folder of snapshots: the newest whole one, and those being written or received.
//!
//! A snapshot is written under a temporary name, forced to disk, given its name, and the directory forced to disk.
//! Only then are older ones removed. What has a temporary name at a start is a leftover and is removed.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unanimo_core::ClusterId;
use unanimo_journal::{Disk, DiskFile};

use super::applied_state::AppliedState;
use super::snapshot_file::{SnapshotReader, SnapshotWriter};
use super::type_config::LogId;

const TEMPORARY: &str = ".tmp";
const SUFFIX: &str = ".snapshot";
const DAMAGED: &str = ".damaged";

/// The snapshots of one node.
pub(super) struct SnapshotStore {
    disk: Arc<dyn Disk>,
    cluster: ClusterId,
    newest: Mutex<Option<Newest>>,
    temporaries: AtomicU64,
}

struct Newest {
    name: String,
    file: Arc<dyn DiskFile>,
    state: AppliedState,
}

/// A whole snapshot that has been checked from front to back. Stays readable when a newer one takes its place.
pub(super) struct SnapshotFile {
    file: Arc<dyn DiskFile>,
    state: AppliedState,
    /// Set as long as it was received and not installed.
    temporary: Option<Temporary>,
}

/// A file that is removed unless it is kept.
struct Temporary {
    disk: Arc<dyn Disk>,
    name: String,
    kept: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.disk.remove(&self.name)
        {
            // The next start removes it.
            tracing::warn!(name = self.name, %error, "cannot remove a temporary snapshot file");
        }
    }
}

impl SnapshotFile {
    /// What it is the state of.
    pub(super) fn state(&self) -> &AppliedState {
        &self.state
    }

    /// Its bytes, to be sent.
    pub(super) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Reads it from the front.
    pub(super) fn read(&self) -> io::Result<SnapshotReader> {
        SnapshotReader::open(Arc::clone(&self.file))
    }
}

impl std::fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotFile")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl SnapshotStore {
    /// Opens the folder: checks the snapshots from the newest on until one is whole, and removes leftovers. One
    /// that is damaged is renamed and kept for whoever wants to know.
    pub(super) fn open(disk: Arc<dyn Disk>, cluster: ClusterId) -> io::Result<Self> {
        let store = Self {
            disk,
            cluster,
            newest: Mutex::new(None),
            temporaries: AtomicU64::new(0),
        };
        let mut names = store.disk.list()?;
        names.sort_unstable();
        for name in names.iter().filter(|name| name.ends_with(TEMPORARY)) {
            store.disk.remove(name)?;
        }
        for name in names.iter().rev().filter(|name| name.ends_with(SUFFIX)) {
            if store.lock().is_some() {
                store.disk.remove(name)?;
                continue;
            }
            match store.check(name) {
                Ok(newest) => *store.lock() = Some(newest),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(name, %error, "a snapshot is damaged; it is set aside");
                    store.disk.rename(name, &format!("{name}{DAMAGED}"))?;
                }
                Err(error) => return Err(error),
            }
        }
        store.disk.sync_directory()?;
        Ok(store)
    }

    fn check(&self, name: &str) -> io::Result<Newest> {
        let file = self.disk.open(name)?;
        let (cluster, state) = SnapshotReader::open(Arc::clone(&file))?.verify()?;
        self.check_cluster(&cluster)?;
        Ok(Newest {
            name: name.to_owned(),
            file,
            state,
        })
    }

    fn check_cluster(&self, found: &ClusterId) -> io::Result<()> {
        if *found == self.cluster {
            return Ok(());
        }
        let reason = format!(
            "the snapshot is of cluster {found}, this is cluster {}",
            self.cluster
        );
        Err(io::Error::other(reason))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Newest>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest snapshot.
    pub(super) fn newest(&self) -> Option<SnapshotFile> {
        self.lock().as_ref().map(|newest| SnapshotFile {
            file: Arc::clone(&newest.file),
            state: newest.state.clone(),
            temporary: None,
        })
    }

    /// The last entry that the newest snapshot covers. It is durable.
    pub(super) fn last_log_id(&self) -> Option<LogId> {
        self.lock().as_ref().and_then(|newest| newest.state.last_applied)
    }

    /// Writes a snapshot of this state and makes it the newest. Whoever asks gets it, or one that is newer still.
    pub(super) fn build(
        &self,
        state: &AppliedState,
        fill: impl FnOnce(&mut SnapshotWriter) -> io::Result<()>,
    ) -> io::Result<SnapshotFile> {
        let (temporary, file) = self.temporary()?;
        let mut writer = SnapshotWriter::begin(Arc::clone(&file), &self.cluster, state)?;
        fill(&mut writer)?;
        writer.finish()?;
        self.publish(SnapshotFile {
            file,
            state: state.clone(),
            temporary: Some(temporary),
        })
    }

    /// Begins to receive a snapshot from another node.
    pub(super) fn receive(self: &Arc<Self>) -> io::Result<Incoming> {
        let (temporary, file) = self.temporary()?;
        Ok(Incoming {
            store: Arc::clone(self),
            temporary,
            file,
            length: 0,
        })
    }

    /// Makes a snapshot the newest, unless there is one that is at least as new, and removes older ones.
    pub(super) fn publish(&self, snapshot: SnapshotFile) -> io::Result<SnapshotFile> {
        let mut newest = self.lock();
        if let Some(newer) = newest
            .as_ref()
            .filter(|newest| newest.state.last_applied >= snapshot.state.last_applied)
        {
            let (file, state) = (Arc::clone(&newer.file), newer.state.clone());
            return Ok(SnapshotFile {
                file,
                state,
                temporary: None,
            });
        }
        let SnapshotFile {
            file,
            state,
            temporary,
        } = snapshot;
        let (mut temporary, file) = match temporary {
            Some(temporary) => (temporary, file),
            // It lies in the folder of another node, as in tests that have several in one process.
            None => self.copy(&*file)?,
        };
        let name = name_of(&state);
        self.disk.rename(&temporary.name, &name)?;
        temporary.kept = true;
        self.disk.sync_directory()?;
        let published = Newest {
            name,
            file: Arc::clone(&file),
            state: state.clone(),
        };
        if let Some(older) = newest.replace(published) {
            self.disk.remove(&older.name)?;
        }
        Ok(SnapshotFile {
            file,
            state,
            temporary: None,
        })
    }

    fn copy(&self, from: &dyn DiskFile) -> io::Result<(Temporary, Arc<dyn DiskFile>)> {
        let (temporary, file) = self.temporary()?;
        let length = from.length()?;
        let mut piece = vec![0; 64 * 1024];
        let mut offset = 0;
        while offset < length {
            let bytes = usize::try_from(length - offset)
                .unwrap_or(usize::MAX)
                .min(piece.len());
            from.read_at(&mut piece[..bytes], offset)?;
            file.write_at(&piece[..bytes], offset)?;
            offset += bytes as u64;
        }
        file.sync_all()?;
        Ok((temporary, file))
    }

    fn temporary(&self) -> io::Result<(Temporary, Arc<dyn DiskFile>)> {
        let name = format!("{}{TEMPORARY}", self.temporaries.fetch_add(1, Ordering::Relaxed));
        let file = self.disk.create(&name)?;
        Ok((
            Temporary {
                disk: Arc::clone(&self.disk),
                name,
                kept: false,
            },
            file,
        ))
    }
}

/// Names sort as the snapshots do: by the last entry.
fn name_of(state: &AppliedState) -> String {
    let (index, term) = state
        .last_applied
        .map_or((0, 0), |id| (id.index + 1, **id.committed_leader_id()));
    format!("{term:016x}-{index:016x}{SUFFIX}")
}

/// A snapshot that is being received.
pub(super) struct Incoming {
    store: Arc<SnapshotStore>,
    temporary: Temporary,
    file: Arc<dyn DiskFile>,
    length: u64,
}

impl Incoming {
    /// Adds the next bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Forces what was received to disk and checks all of it.
    pub(super) fn finish(self) -> io::Result<SnapshotFile> {
        self.file.sync_all()?;
        let (cluster, state) = SnapshotReader::open(Arc::clone(&self.file))?.verify()?;
        self.store.check_cluster(&cluster)?;
        Ok(SnapshotFile {
            file: self.file,
            state,
            temporary: Some(self.temporary),
        })
    }
}
