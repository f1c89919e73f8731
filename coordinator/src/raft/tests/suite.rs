//! openraft's own tests of a storage, on ours.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::sync::Arc;
use unanimo_journal::{Journal, Options, SimulatedDisk};
use unanimo_table::MemoryTable;

use super::fixture::{owner, snapshots, state_machine};
use crate::raft::Background;
use crate::raft::background::WriterHandle;
use crate::raft::log_store::LogStore;
use crate::raft::state_machine::StateMachine;
use crate::raft::type_config::TypeConfig;

struct Builder {
    cached_bytes: usize,
    background: Background,
}

/// Ends the writer of the journal when a test is over.
struct Guard(Journal);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<TypeConfig>> {
        let disk = Arc::new(SimulatedDisk::new());
        let options = Options {
            segment_bytes: 64 * 1024,
            max_record_bytes: 16 * 1024,
            ..Options::new("raft log")
        };
        // The suite purges without snapshots, so there is nothing to check a purge against.
        let (log, writer) = LogStore::open(disk, options, owner(), self.cached_bytes, None).unwrap();
        WriterHandle::start(self.background, writer).unwrap();
        let machine = state_machine(&MemoryTable::new(), &snapshots(&SimulatedDisk::new()));
        Ok((Guard(log.journal().clone()), log, machine))
    }
}

#[tokio::test]
async fn openraft_accepts_the_storage() {
    Suite::test_all(Builder {
        cached_bytes: 1024 * 1024,
        background: Background::Tasks,
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn openraft_accepts_the_storage_when_every_entry_is_read_from_the_journal() {
    Suite::test_all(Builder {
        cached_bytes: 0,
        background: Background::Tasks,
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_accepts_the_storage_with_a_writer_thread() {
    Suite::test_all(Builder {
        cached_bytes: 256,
        background: Background::Threads,
    })
    .await
    .unwrap();
}
