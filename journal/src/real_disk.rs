//! The disk of the machine.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};

/// A directory of the file system.
///
/// It is locked as long as this value lives, so that two processes cannot write the same journal.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
    handle: File,
    access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Write,
    ReadOnly,
}

impl RealDisk {
    /// Opens the directory and locks it. One that is missing is created, and its name is made durable.
    ///
    /// Fails with `ResourceBusy` if another process (or another `RealDisk` of this one) holds the directory.
    pub fn open(directory: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let directory = directory.into();
        create_durably(&directory)?;
        let handle = File::open(&directory)?;
        match handle.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{} is in use by another process", directory.display());
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(RealDisk {
            directory,
            handle,
            access: Access::Write,
        })
    }

    /// Opens a directory that exists for reading only: no lock is taken and every change is refused.
    ///
    /// Meant for looking at a journal, even one that is in use.
    pub fn open_read_only(directory: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let directory = directory.into();
        let handle = File::open(&directory)?;
        Ok(RealDisk {
            directory,
            handle,
            access: Access::ReadOnly,
        })
    }

    fn writable_path(&self, name: &str) -> io::Result<PathBuf> {
        match self.access {
            Access::Write => Ok(self.directory.join(name)),
            Access::ReadOnly => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "opened for reading only",
            )),
        }
    }
}

/// Creates the directory with its missing parents and syncs every directory that got a new name.
fn create_durably(directory: &Path) -> io::Result<()> {
    // The last parent is synced even if nothing is missing: an earlier start may have died before it did so.
    let mut parents = Vec::new();
    let mut path = directory;
    loop {
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => break,
        };
        parents.push(parent);
        if parent.exists() {
            break;
        }
        path = parent;
    }
    fs::create_dir_all(directory)?;
    for parent in parents.into_iter().rev() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.writable_path(name)?;
        Ok(Arc::new(RealFile(
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)?,
        )))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let write = self.access == Access::Write;
        let path = self.directory.join(name);
        Ok(Arc::new(RealFile(
            OpenOptions::new().read(true).write(write).open(path)?,
        )))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.writable_path(from)?, self.writable_path(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.writable_path(name)?)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}
