use std::collections::BTreeMap;

use crate::TableError;
use crate::error::Part;
use crate::table::{MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// Changes that a table carries out together or not at all.
///
/// The last word on a key wins: a `put` followed by a `remove` of the same key removes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    // Sorted, so that the same batch does the same work on every run.
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `key` this value, whether or not it had one.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.changes.insert(key.into(), Some(value.into()));
        self
    }

    /// Takes `key` out of the table. No error if it is not there.
    pub fn remove(&mut self, key: impl Into<Vec<u8>>) -> &mut Self {
        self.changes.insert(key.into(), None);
        self
    }

    /// How many keys the batch changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// True if the batch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What the keys and values add up to: compare with [`MAX_BATCH_BYTES`] to cut a large change.
    pub fn bytes(&self) -> usize {
        self.changes
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len))
            .sum()
    }

    /// The changes in key order; `None` removes the key.
    pub fn changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.changes
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    pub(crate) fn into_changes(self) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        self.changes
    }

    /// Refuses what no table may hold, the same way in every implementation.
    pub(crate) fn check(&self) -> Result<(), TableError> {
        for (key, value) in &self.changes {
            check_key(key)?;
            Part::Value.check(value.as_ref().map_or(0, Vec::len), MAX_VALUE_BYTES)?;
        }
        Part::Batch.check(self.bytes(), MAX_BATCH_BYTES)
    }
}

/// Refuses a key that no table may hold.
pub(crate) fn check_key(key: &[u8]) -> Result<(), TableError> {
    if key.is_empty() {
        return Err(TableError::EmptyKey);
    }
    Part::Key.check(key.len(), MAX_KEY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_key_wins() {
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch.put("a", "1").remove("a").remove("b").put("b", "22");
        assert_eq!(batch.len(), 2);
        assert_eq!(batch.bytes(), 4);
        let changes: Vec<_> = batch.changes().collect();
        assert_eq!(
            changes,
            [(b"a".as_slice(), None), (b"b".as_slice(), Some(b"22".as_slice()))]
        );
    }
}
