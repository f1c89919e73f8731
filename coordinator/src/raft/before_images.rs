//! What keys had before they changed, so that a snapshot can be taken while applying goes on.
//!
//! A snapshot is read page by page, and between two pages entries are applied. Whoever applies first notes what the
//! keys had; whoever reads puts that in place of what it finds. So the snapshot shows the table as it was at one
//! entry, and nobody waits longer than for one page.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use unanimo_table::{Batch, Entry, Table, TableError};

/// Entries of the table that are read at once.
const PAGE: usize = 512;

/// The former values of keys, as long as a snapshot is being taken. There is no limit of its own: it holds the keys
/// that change while one snapshot is written, which takes seconds, and the proposer bounds how fast they do.
#[derive(Default)]
pub(super) struct BeforeImages {
    taken: Mutex<Option<Images>>,
}

/// What keys had; none for a key that was not there.
type Images = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The table as it was when this was made.
pub(super) struct Past<'a> {
    images: &'a BeforeImages,
    table: &'a dyn Table,
}

impl BeforeImages {
    fn lock(&self) -> MutexGuard<'_, Option<Images>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a batch, and then does something that a snapshot must see together with it.
    pub(super) fn apply(
        &self,
        table: &dyn Table,
        batch: Batch,
        then: impl FnOnce(),
    ) -> Result<(), TableError> {
        let mut taken = self.lock();
        if let Some(images) = &mut *taken {
            for (key, _) in batch.changes() {
                if !images.contains_key(key) {
                    images.insert(key.to_vec(), table.get(key)?);
                }
            }
        }
        table.apply(batch)?;
        then();
        Ok(())
    }

    /// Keeps the table as it is now readable until what is returned is dropped, and asks `at` what state that is.
    /// One at a time: openraft takes one snapshot after the other.
    pub(super) fn begin<'a, T>(&'a self, table: &'a dyn Table, at: impl FnOnce() -> T) -> (Past<'a>, T) {
        let mut taken = self.lock();
        assert!(taken.is_none(), "one snapshot is taken at a time");
        *taken = Some(Images::new());
        (Past { images: self, table }, at())
    }
}

impl Past<'_> {
    /// Shows every entry between two keys, page by page.
    pub(super) fn read(
        &self,
        (from, until): (&[u8], &[u8]),
        mut show: impl FnMut(Vec<Entry>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut next = Some(from.to_vec());
        while let Some(from) = next {
            let (entries, behind) = self.page(&from, until).map_err(io::Error::other)?;
            show(entries)?;
            next = behind;
        }
        Ok(())
    }

    /// The next entries from `from` on, and from where to go on; none at the end.
    fn page(&self, from: &[u8], until: &[u8]) -> Result<(Vec<Entry>, Option<Vec<u8>>), TableError> {
        let taken = self.images.lock();
        let page = self.table.scan(from, Some(until), PAGE)?;
        let next = page.last().map(|(last, _)| [last, [0].as_slice()].concat());
        let end = next.as_deref().unwrap_or(until);
        let mut entries: BTreeMap<Vec<u8>, Vec<u8>> = page.into_iter().collect();
        let changed = taken
            .as_ref()
            .map(|images| images.range(from.to_vec()..end.to_vec()));
        for (key, before) in changed.into_iter().flatten() {
            match before {
                Some(value) => drop(entries.insert(key.clone(), value.clone())),
                None => drop(entries.remove(key)),
            }
        }
        Ok((entries.into_iter().collect(), next))
    }
}

impl Drop for Past<'_> {
    fn drop(&mut self) {
        *self.images.lock() = None;
    }
}
