use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::Instant;
use unanimo_core::TransactionId;
use unanimo_core::mutants::{self, Mutant};
use unanimo_participant::{Preparation, ResourceError, ResourceManager};
use unanimo_table::{Batch, Checkpointer, Table, TableError};

use super::locks::{Locks, Want};
use crate::wire::{Cell, Effect, Step, Steps, step};

/// How long each locked cell is waited for. A few times of what a transaction takes.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// Why a branch votes No: it waited for a lock in vain.
pub(crate) const LOCKED: &str = "a cell is locked by another transaction";
/// Why a branch votes No, before the floor that it names: its cell has not enough.
pub(crate) const TOO_LITTLE: &str = "would leave less than";
/// Entries in one page of a listing.
const PAGE: usize = 500;
/// Where cells and effects are in the table.
const CELL: u8 = b'c';
const EFFECT: u8 = b'e';
/// Where a table has when a promise was told how it ended: eight bytes of Unix milliseconds under the transaction.
pub(crate) const HEARD: u8 = b'h';

/// The cells of one participant: its resource manager. A clone is another handle.
#[derive(Clone)]
pub struct Cells {
    table: Arc<dyn Table>,
    checkpointer: Checkpointer,
    state: Arc<Mutex<State>>,
    released: Arc<Notify>,
}

#[derive(Default)]
struct State {
    locks: Locks,
    /// What undecided transactions have written: their view of the cells that they touched.
    written: BTreeMap<TransactionId, BTreeMap<String, Cell>>,
}

/// Why cells cannot be used.
#[derive(Debug, Error)]
pub enum CellsError {
    /// The table failed. Whether the last change is there is not known.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Something is there that nobody here has written.
    #[error("the cells are damaged: {0}")]
    Damaged(String),
}

impl From<CellsError> for ResourceError {
    fn from(error: CellsError) -> Self {
        Self::failed(error)
    }
}

impl Cells {
    /// The cells in this table. The checkpointer is that table's.
    pub fn new(table: Arc<dyn Table>, checkpointer: Checkpointer) -> Self {
        Self {
            table,
            checkpointer,
            state: Arc::default(),
            released: Arc::default(),
        }
    }

    /// A cell as this transaction sees it, which holds a lock on it.
    pub fn seen_by(&self, transaction: TransactionId, name: &str) -> Result<Cell, CellsError> {
        let state = self.lock();
        let own = state.written.get(&transaction).and_then(|cells| cells.get(name));
        match own {
            Some(cell) => Ok(cell.clone()),
            None => self.cell(name),
        }
    }

    /// How many transactions hold a lock.
    pub fn holding(&self) -> usize {
        self.lock().locks.holding()
    }

    /// A page of the cells after this one.
    pub fn cells(&self, after: &str) -> Result<Vec<Cell>, CellsError> {
        let from = match after {
            "" => vec![CELL],
            after => [&cell_key(after)[..], &[0]].concat(),
        };
        let page = self.table.scan(&from, Some(&[CELL + 1]), PAGE)?;
        page.into_iter().map(|(_, value)| decode(&value)).collect()
    }

    /// A page of what was applied after this transaction.
    pub fn effects(&self, after: Option<TransactionId>) -> Result<Vec<Effect>, CellsError> {
        let from = after.map_or_else(|| vec![EFFECT], |after| [&effect_key(after)[..], &[0]].concat());
        let page = self.table.scan(&from, Some(&[EFFECT + 1]), PAGE)?;
        page.into_iter().map(|(_, value)| decode(&value)).collect()
    }

    fn cell(&self, name: &str) -> Result<Cell, CellsError> {
        match self.table.get(&cell_key(name))? {
            Some(value) => decode(&value),
            None => Ok(Cell {
                name: name.to_owned(),
                ..Cell::default()
            }),
        }
    }

    /// Takes the locks, one after the other in the order of the names, waiting a short while for others. What it has it
    /// keeps meanwhile: who wants all cells at the same moment would never get them.
    async fn take_locks(&self, transaction: TransactionId, steps: &[Step]) -> bool {
        let _line = Line(self, transaction);
        for (cell, want) in wants(steps) {
            let deadline = Instant::now() + LOCK_PATIENCE;
            loop {
                let released = self.released.notified();
                if self.lock().locks.take_or_wait(transaction, &cell, want) {
                    break;
                }
                if tokio::time::timeout_at(deadline, released).await.is_err() {
                    return false;
                }
            }
        }
        true
    }

    /// Carries out steps in the transaction's own view.
    fn carry_out(
        &self,
        transaction: TransactionId,
        steps: &[Step],
    ) -> Result<Result<(), String>, CellsError> {
        for step in steps {
            let mut cell = self.seen_by(transaction, &step.cell)?;
            match &step.action {
                Some(step::Action::Add(add)) => {
                    let Some(number) = cell
                        .number
                        .checked_add(add.delta)
                        .filter(|number| *number >= add.floor)
                    else {
                        return Ok(Err(format!(
                            "cell {} has {}, {} {TOO_LITTLE} {}",
                            cell.name, cell.number, add.delta, add.floor
                        )));
                    };
                    cell.number = number;
                }
                Some(step::Action::Append(value)) => cell.list.push(*value),
                Some(step::Action::Read(_)) => continue,
                None => return Ok(Err("a step without an action".to_owned())),
            }
            let mut state = self.lock();
            state
                .written
                .entry(transaction)
                .or_default()
                .insert(step.cell.clone(), cell);
        }
        Ok(Ok(()))
    }

    async fn promise(
        &self,
        transaction: TransactionId,
        before: Vec<Step>,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        let no = |reason: String| Ok(Preparation::No { reason });
        let Ok(asked) = Steps::decode(operation) else {
            return no("the operation is no list of steps".to_owned());
        };
        if !self.take_locks(transaction, &asked.steps).await {
            return no(LOCKED.to_owned());
        }
        if let Err(reason) = self.carry_out(transaction, &asked.steps)? {
            return no(reason);
        }
        let steps = before.into_iter().chain(asked.steps).collect();
        let redo = Steps { steps }.encode_to_vec().into();
        Ok(Preparation::Yes { redo })
    }

    fn apply(&self, transaction: TransactionId, steps: Vec<Step>) -> Result<(), CellsError> {
        let key = effect_key(transaction);
        // One commit at a time: what is added to must not change meanwhile.
        let _state = self.lock();
        let known = self.table.get(&key)?;
        if known.is_none() || mutants::is_on(Mutant::M17) {
            let mut cells: BTreeMap<String, Cell> = BTreeMap::new();
            for step in &steps {
                let cell = match cells.remove(&step.cell) {
                    Some(cell) => cell,
                    None => self.cell(&step.cell)?,
                };
                cells.insert(step.cell.clone(), applied(cell, step));
            }
            let effect = Effect {
                transaction: transaction.to_string(),
                steps,
                times: 1 + u32::from(known.is_some()),
            };
            let mut batch = Batch::new();
            for (name, cell) in cells {
                batch.put(cell_key(&name), cell.encode_to_vec());
            }
            batch.put(key, effect.encode_to_vec());
            batch.put(heard_key(transaction), unix_ms().to_be_bytes());
            self.table.apply(batch)?;
        }
        Ok(())
    }

    fn let_go(&self, transaction: TransactionId) {
        let mut state = self.lock();
        state.written.remove(&transaction);
        state.locks.release(transaction);
        drop(state);
        self.released.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cell after a step that was promised: nothing is checked any more.
fn applied(mut cell: Cell, step: &Step) -> Cell {
    match &step.action {
        Some(step::Action::Add(add)) => cell.number = cell.number.wrapping_add(add.delta),
        Some(step::Action::Append(value)) => cell.list.push(*value),
        Some(step::Action::Read(_)) | None => {}
    }
    cell
}

/// Whoever stands in line for a lock. Dropped, also when its caller goes away, it stands there no longer.
struct Line<'a>(&'a Cells, TransactionId);

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let Self(cells, transaction) = self;
        cells.lock().locks.give_up(*transaction);
        cells.released.notify_waiters();
    }
}

/// What the steps need, in the order of the names; a cell that is read and written, as it is written.
fn wants(steps: &[Step]) -> Vec<(String, Want)> {
    let mut wants = BTreeMap::new();
    for step in steps {
        let writes = !matches!(step.action, Some(step::Action::Read(_)));
        let want = if writes { Want::Write } else { Want::Read };
        let known = wants.entry(step.cell.clone()).or_insert(want);
        if writes {
            *known = Want::Write;
        }
    }
    wants.into_iter().collect()
}

fn cell_key(name: &str) -> Vec<u8> {
    [&[CELL], name.as_bytes()].concat()
}

fn effect_key(transaction: TransactionId) -> Vec<u8> {
    [&[EFFECT], &transaction.as_u128().to_be_bytes()[..]].concat()
}

fn heard_key(transaction: TransactionId) -> Vec<u8> {
    [&[HEARD], &transaction.as_u128().to_be_bytes()[..]].concat()
}

fn unix_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn decode<M: prost::Message + Default>(value: &[u8]) -> Result<M, CellsError> {
    M::decode(value).map_err(|error| CellsError::Damaged(error.to_string()))
}

fn decode_redo(redo: &[u8]) -> Result<Vec<Step>, CellsError> {
    Ok(decode::<Steps>(redo)?.steps)
}

impl ResourceManager for Cells {
    async fn prepare(
        &self,
        transaction: TransactionId,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        let preparation = self.promise(transaction, Vec::new(), operation).await?;
        if let Preparation::No { .. } = preparation {
            // Nobody comes back to a first No: what the steps before the refused one took would be held for ever.
            self.let_go(transaction);
        }
        Ok(preparation)
    }

    async fn extend(
        &self,
        transaction: TransactionId,
        redo: Bytes,
        operation: Bytes,
    ) -> Result<Preparation, ResourceError> {
        self.promise(transaction, decode_redo(&redo)?, operation).await
    }

    async fn commit(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        self.apply(transaction, decode_redo(&redo)?)?;
        // Only then: whoever came next would promise on top of what a crash can still take back.
        self.checkpointer.wait_durable().await.map_err(CellsError::from)?;
        self.let_go(transaction);
        Ok(())
    }

    async fn abort(&self, transaction: TransactionId, promised: Option<Bytes>) -> Result<(), ResourceError> {
        let key = heard_key(transaction);
        if promised.is_some() && self.table.get(&key).map_err(CellsError::from)?.is_none() {
            // For the evidence only: losing it in a crash makes a time unknown, nothing else.
            let mut batch = Batch::new();
            batch.put(key, unix_ms().to_be_bytes());
            self.table.apply(batch).map_err(CellsError::from)?;
        }
        self.let_go(transaction);
        Ok(())
    }

    async fn restore(&self, transaction: TransactionId, redo: Bytes) -> Result<(), ResourceError> {
        let steps = decode_redo(&redo)?;
        if self
            .table
            .get(&effect_key(transaction))
            .map_err(CellsError::from)?
            .is_some()
        {
            return Ok(());
        }
        // Without a look at what there is: it was promised, and may be aborted yet.
        let mut state = self.lock();
        for (cell, want) in wants(&steps) {
            state.locks.hold(transaction, &cell, want);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "cells_tests.rs"]
mod tests;
