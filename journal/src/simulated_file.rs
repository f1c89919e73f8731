//! One file of the simulated disk, and the choices a power loss makes about it.

/// The unit that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A small generator of numbers (splitmix64): the same seed makes the same choices.
#[derive(Debug)]
pub(crate) struct Choice(u64);

impl Choice {
    pub(crate) fn new(seed: u64) -> Choice {
        Choice(seed)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedFile {
    /// What programs read.
    cached: Vec<u8>,
    /// What is on the disk for certain.
    durable: Vec<u8>,
    /// The writes since the last sync, oldest first.
    unsynced: Vec<Write>,
}

#[derive(Clone, Debug)]
struct Write {
    offset: usize,
    bytes: Vec<u8>,
}

impl SimulatedFile {
    pub(crate) fn durable(bytes: Vec<u8>) -> SimulatedFile {
        SimulatedFile {
            cached: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
        }
    }

    pub(crate) fn cached(&self) -> &[u8] {
        &self.cached
    }

    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) {
        let write = Write {
            offset: offset as usize,
            bytes: bytes.to_vec(),
        };
        write.apply(&mut self.cached, write.bytes.len());
        self.unsynced.push(write);
    }

    pub(crate) fn sync(&mut self) {
        for write in self.unsynced.drain(..) {
            write.apply(&mut self.durable, write.bytes.len());
        }
    }

    /// The un-synced bytes stay readable but will never be written.
    pub(crate) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }

    pub(crate) fn lose_unsynced(&mut self) {
        self.unsynced.clear();
        self.cached.clone_from(&self.durable);
    }

    pub(crate) fn damage(&mut self, damage: impl Fn(&mut Vec<u8>)) {
        damage(&mut self.cached);
        damage(&mut self.durable);
    }

    /// Keeps nothing of the un-synced writes, a prefix, any version of each sector, or everything.
    pub(crate) fn crash(&mut self, choice: &mut Choice) {
        match choice.below(4) {
            0 => {}
            1 => self.keep_prefix(choice),
            2 => self.keep_sectors(choice),
            _ => self.sync(),
        }
        self.lose_unsynced();
    }

    fn keep_prefix(&mut self, choice: &mut Choice) {
        let total: usize = self.unsynced.iter().map(|write| write.bytes.len()).sum();
        let mut left = choice.below(total as u64 + 1) as usize;
        for write in &self.unsynced {
            let kept = left.min(write.bytes.len());
            write.apply(&mut self.durable, kept);
            left -= kept;
        }
    }

    /// A sector goes to the disk whole, as it was after one of the writes that touched it, or not at all.
    fn keep_sectors(&mut self, choice: &mut Choice) {
        let before = self.durable.clone();
        let sectors = self.cached.len().div_ceil(SECTOR_BYTES);
        for sector in 0..sectors {
            let from = sector * SECTOR_BYTES;
            let touching: Vec<&Write> = self
                .unsynced
                .iter()
                .filter(|write| write.touches(from, from + SECTOR_BYTES))
                .collect();
            let kept = choice.below(touching.len() as u64 + 1) as usize;
            if kept == 0 {
                continue;
            }
            let kept = &touching[..kept];
            let length = kept
                .iter()
                .map(|write| write.end())
                .fold(before.len(), usize::max);
            let until = length.min(from + SECTOR_BYTES);
            // Of large files there are many sectors, so only this one is looked at.
            let mut version = vec![0; until - from];
            if from < before.len() {
                let there = before.len().min(until) - from;
                version[..there].copy_from_slice(&before[from..from + there]);
            }
            for write in kept {
                let (start, end) = (write.offset.max(from), write.end().min(until));
                version[start - from..end - from]
                    .copy_from_slice(&write.bytes[start - write.offset..end - write.offset]);
            }
            if self.durable.len() < until {
                self.durable.resize(until, 0);
            }
            self.durable[from..until].copy_from_slice(&version);
        }
    }
}

impl Write {
    /// Puts the first `length` bytes into `file`, which grows as needed.
    fn apply(&self, file: &mut Vec<u8>, length: usize) {
        let end = self.offset + length;
        if length > 0 && file.len() < end {
            file.resize(end, 0);
        }
        if length > 0 {
            file[self.offset..end].copy_from_slice(&self.bytes[..length]);
        }
    }

    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    fn touches(&self, from: usize, until: usize) -> bool {
        self.offset < until && from < self.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A synced file of two sectors with one un-synced write over the border.
    fn written() -> SimulatedFile {
        let mut file = SimulatedFile::durable(vec![b'.'; 2 * SECTOR_BYTES]);
        file.write(&[b'x'; 8], 508);
        file
    }

    fn border(file: &SimulatedFile) -> String {
        file.cached()[506..518]
            .iter()
            .map(|byte| char::from(*byte))
            .collect()
    }

    #[test]
    fn a_crash_keeps_nothing_a_prefix_some_sectors_or_everything() {
        let mut seen = BTreeSet::new();
        for seed in 0..1000 {
            let mut file = written();
            file.crash(&mut Choice::new(seed));
            seen.insert(border(&file));
        }
        let prefixes = (0..=8).map(|kept| format!("..{}{}..", "x".repeat(kept), ".".repeat(8 - kept)));
        let mut expected: BTreeSet<String> = prefixes.collect();
        expected.insert("......xxxx..".to_string());
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_same_seed_crashes_the_same_way() {
        for seed in 0..100 {
            let (mut one, mut other) = (written(), written());
            one.crash(&mut Choice::new(seed));
            other.crash(&mut Choice::new(seed));
            assert_eq!(one.cached(), other.cached());
        }
    }

    #[test]
    fn a_sector_never_shows_a_later_write_without_an_earlier_one() {
        for seed in 0..1000 {
            let mut file = SimulatedFile::durable(vec![b'.'; SECTOR_BYTES]);
            file.write(b"a", 0);
            file.write(b"b", 1);
            file.crash(&mut Choice::new(seed));
            assert_ne!(&file.cached()[..2], b".b");
        }
    }
}
