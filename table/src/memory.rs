use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::batch::check_key;
use crate::digest::mix;
use crate::sticky::Sticky;
use crate::{Batch, Entry, Table, TableError};

const NAME: &str = "simulated";

/// The in-memory twin of [`SledTable`](crate::SledTable), for simulations. A clone is another handle on the
/// same table, so that the simulation keeps one while the process that uses the other crashes.
#[derive(Debug, Clone, Default)]
pub struct MemoryTable {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    visible: BTreeMap<Vec<u8>, Vec<u8>>,
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Applied since the last checkpoint, oldest first.
    unsynced: Vec<Batch>,
    checkpoints: u64,
    failure: Sticky,
    fail_next_apply: bool,
    fail_next_checkpoint: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            visible: BTreeMap::new(),
            durable: BTreeMap::new(),
            unsynced: Vec::new(),
            checkpoints: 0,
            failure: Sticky::new(NAME),
            fail_next_apply: false,
            fail_next_checkpoint: false,
        }
    }
}

impl MemoryTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses what a crash may lose: the table becomes what it was at the last checkpoint plus the first few
    /// of the batches since, as many as the seed says (from none to all). Armed and past failures are gone,
    /// as after a restart. Returns how many batches were lost.
    pub fn crash(&self, seed: u64) -> usize {
        let mut state = self.lock();
        let kept = mix(seed) as usize % (state.unsynced.len() + 1);
        let lost = state.unsynced.len() - kept;
        state.keep(kept);
        state.visible = state.durable.clone();
        state.failure = Sticky::new(NAME);
        state.fail_next_apply = false;
        state.fail_next_checkpoint = false;
        lost
    }

    /// Lets the next checkpoint fail. How much of it reached the disk only the next [`crash`](Self::crash)
    /// shows.
    pub fn fail_next_checkpoint(&self) {
        self.lock().fail_next_checkpoint = true;
    }

    /// Lets the next apply fail. Its batch is lost.
    pub fn fail_next_apply(&self) {
        self.lock().fail_next_apply = true;
    }

    /// How many checkpoints have succeeded.
    pub fn checkpoints(&self) -> u64 {
        self.lock().checkpoints
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes the first `count` of the unsynced batches durable and forgets the others.
    fn keep(&mut self, count: usize) {
        for batch in std::mem::take(&mut self.unsynced).into_iter().take(count) {
            carry_out(&mut self.durable, batch);
        }
    }
}

impl Table for MemoryTable {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        check_key(key)?;
        let state = self.lock();
        state.failure.check()?;
        Ok(state.visible.get(key).cloned())
    }

    fn apply(&self, batch: Batch) -> Result<(), TableError> {
        batch.check()?;
        let mut state = self.lock();
        state.failure.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut state.fail_next_apply) {
            return Err(state.failure.fail("apply a batch", "simulated error"));
        }
        carry_out(&mut state.visible, batch.clone());
        state.unsynced.push(batch);
        Ok(())
    }

    fn scan(&self, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, TableError> {
        let state = self.lock();
        state.failure.check()?;
        if until.is_some_and(|until| until <= from) {
            return Ok(Vec::new());
        }
        let range = (
            Bound::Included(from),
            until.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let entries = state.visible.range::<[u8], _>(range).take(limit);
        Ok(entries.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn checkpoint(&self) -> Result<(), TableError> {
        let mut state = self.lock();
        state.failure.check()?;
        if std::mem::take(&mut state.fail_next_checkpoint) {
            return Err(state.failure.fail("write a checkpoint", "simulated error"));
        }
        let all = state.unsynced.len();
        state.keep(all);
        state.checkpoints += 1;
        Ok(())
    }
}

fn carry_out(entries: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: Batch) {
    for (key, value) in batch.into_changes() {
        match value {
            Some(value) => entries.insert(key, value),
            None => entries.remove(&key),
        };
    }
}
