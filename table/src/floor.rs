use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::digest::mix;

/// The name of the floor's file in the directory of a table.
pub(crate) const FLOOR_FILE: &str = "table.floor";

const BYTES: usize = 16;

/// The number of batches that the last checkpoint covered, in a file beside sled's own: a table with fewer
/// has lost a checkpoint, although what is left of it may look perfectly sound.
///
/// It is written after the checkpoint is on disk, so it is never ahead of the table. It is not synced: after
/// a power failure it may be a little behind, which only makes it the weaker witness that it would be anyway.
#[derive(Debug)]
pub(crate) struct Floor {
    file: File,
    batches: u64,
}

impl Floor {
    /// Makes the file, for a table without batches. The caller syncs it with the rest of the directory.
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FLOOR_FILE);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        let mut floor = Self { file, batches: 0 };
        floor.write(0)?;
        Ok(floor)
    }

    /// Opens the file. An error of the kind `InvalidData` or `UnexpectedEof` means that it is damaged.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(directory.join(FLOOR_FILE))?;
        let mut bytes = [0; BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        // Its sixteen bytes lie in one sector and replace older ones in place, so no crash can tear them.
        let (batches, check) = (
            u128::from_le_bytes(bytes) as u64,
            (u128::from_le_bytes(bytes) >> 64) as u64,
        );
        if check != mix(batches) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its checksum is wrong",
            ));
        }
        Ok(Self { file, batches })
    }

    /// The least number of batches that the table must have.
    pub(crate) fn batches(&self) -> u64 {
        self.batches
    }

    /// Raises the floor. The caller has a checkpoint of that many batches on disk.
    pub(crate) fn raise(&mut self, batches: u64) -> io::Result<()> {
        assert!(
            batches >= self.batches,
            "checkpoints are written one after the other"
        );
        if batches == self.batches {
            Ok(())
        } else {
            self.write(batches)
        }
    }

    fn write(&mut self, batches: u64) -> io::Result<()> {
        let value = u128::from(batches) | (u128::from(mix(batches)) << 64);
        self.file.write_all_at(&value.to_le_bytes(), 0)?;
        self.batches = batches;
        Ok(())
    }
}
