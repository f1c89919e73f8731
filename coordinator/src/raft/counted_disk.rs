//! A disk that counts how often it is asked to force writes, for the status of a replica.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use unanimo_journal::{Disk, DiskFile};

/// Passes everything on and counts the syncs of files.
pub(super) struct CountedDisk {
    disk: Arc<dyn Disk>,
    syncs: Arc<AtomicU64>,
}

struct CountedFile {
    file: Arc<dyn DiskFile>,
    syncs: Arc<AtomicU64>,
}

impl CountedDisk {
    /// The disk, and its counter.
    pub(super) fn wrap(disk: Arc<dyn Disk>) -> (Arc<dyn Disk>, Arc<AtomicU64>) {
        let syncs = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&syncs);
        (Arc::new(Self { disk, syncs }), counter)
    }

    fn counted(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let syncs = Arc::clone(&self.syncs);
        Arc::new(CountedFile { file, syncs })
    }
}

impl Disk for CountedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.counted(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.counted(self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }
}

impl DiskFile for CountedFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_all()
    }
}
