//! A table whose power the kit cuts, for services that keep their data in one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use unanimo_table::{
    Batch, CheckpointStep, CheckpointWriter, Checkpointer, Entry, MemoryTable, Table, TableError,
};

/// Where a service may keep its data, so that the kit can cut the power at each of its writes. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    table: MemoryTable,
    switch: Arc<Switch>,
}

/// Counts writes and cuts the power.
#[derive(Debug, Default)]
struct Switch {
    writes: AtomicU64,
    state: Mutex<Power>,
}

#[derive(Debug, Default)]
struct Power {
    off_at: Option<u64>,
    is_off: bool,
    crashed: Option<watch::Sender<bool>>,
}

impl Storage {
    /// The table of the service. It loses what came after the last checkpoint, or any end of it.
    pub fn table(&self) -> Arc<dyn Table> {
        Arc::new(self.clone())
    }

    /// What makes that table durable, for services that wait for checkpoints before they acknowledge. It writes in a task
    /// of the life that asks for it, and ends with that. To be called in [`Service::open`](crate::Service::open).
    pub fn checkpointer(&self) -> Checkpointer {
        let (checkpointer, writer) = Checkpointer::new(self.table());
        tokio::spawn(write_checkpoints(writer));
        checkpointer
    }

    /// How many writes and checkpoints there were.
    pub(crate) fn writes(&self) -> u64 {
        self.switch.writes.load(Ordering::SeqCst)
    }

    /// Cuts the power at that write.
    pub(crate) fn power_off_at(&self, write: u64) {
        self.power(|power| power.off_at = Some(write));
    }

    pub(crate) fn is_off(&self) -> bool {
        self.power(|power| power.is_off)
    }

    /// Whom to tell when the power is cut.
    pub(crate) fn tell(&self, crashed: watch::Sender<bool>) {
        self.power(|power| power.crashed = Some(crashed));
    }

    /// Everything that is not durable may be lost, and the power is back.
    pub(crate) fn crash(&self, seed: u64) {
        self.table.crash(seed);
        self.power(|power| *power = Power::default());
    }

    fn power<T>(&self, change: impl FnOnce(&mut Power) -> T) -> T {
        let locked = self.switch.state.lock();
        change(&mut locked.unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> Result<(), TableError> {
        let write = self.switch.writes.fetch_add(1, Ordering::SeqCst);
        self.power(|power| {
            if power.off_at.is_some_and(|off_at| write >= off_at) {
                power.is_off = true;
                if let Some(crashed) = &power.crashed {
                    crashed.send_replace(true);
                }
            }
        });
        self.read()
    }

    fn read(&self) -> Result<(), TableError> {
        match self.is_off() {
            false => Ok(()),
            true => Err(TableError::Failed {
                table: "test",
                operation: "work",
                reason: "the power is off".into(),
            }),
        }
    }
}

async fn write_checkpoints(mut writer: CheckpointWriter) {
    loop {
        match writer.step() {
            CheckpointStep::Written { .. } => {}
            CheckpointStep::Idle => tokio::time::sleep(Duration::from_millis(1)).await,
            CheckpointStep::Failed | CheckpointStep::Closed => return,
        }
    }
}

impl Table for Storage {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.read()?;
        self.table.get(key)
    }

    fn apply(&self, batch: Batch) -> Result<(), TableError> {
        self.write()?;
        self.table.apply(batch)
    }

    fn scan(&self, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, TableError> {
        self.read()?;
        self.table.scan(from, until, limit)
    }

    fn checkpoint(&self) -> Result<(), TableError> {
        self.write()?;
        self.table.checkpoint()
    }
}
