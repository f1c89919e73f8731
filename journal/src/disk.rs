//! What the journal asks of a disk: one directory of files, and no more.

use std::io;
use std::sync::Arc;

/// One directory of files.
///
/// The journal does all its work through this trait, so that the same code runs on a real file system and on a
/// [`SimulatedDisk`](crate::SimulatedDisk) that loses, tears and fails on demand. Names are plain file names.
pub trait Disk: Send + Sync + 'static {
    /// The names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates an empty file; fails with `AlreadyExists` if the name is taken.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives the file `from` the name `to`, in place of a file that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; handles that are open stay readable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every earlier create, rename and remove survive a power loss.
    fn sync_directory(&self) -> io::Result<()>;
}

/// An open file, read and written at explicit offsets.
///
/// A file grows when it is written past its end; the journal never shortens one.
pub trait DiskFile: Send + Sync + 'static {
    /// The length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Fills the whole buffer from `offset`; fails with `UnexpectedEof` if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. A power loss may keep any part of it until a sync has returned.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the bytes written so far survive a power loss (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the bytes and everything about the file survive a power loss (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
}
