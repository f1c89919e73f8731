//! What is decided and forgotten for ever takes no more room than one window of it (R7).

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use unanimo_core::table::{Command, Horizon, Proposal};
use unanimo_core::{Decision, Members, RequestHash, Timestamp, TransactionId};
use unanimo_journal::SimulatedDisk;
use unanimo_table::{SledOptions, SledTable, Table};

use super::fixture::{apply, entry, participant, snapshots};
use crate::raft::Background;
use crate::raft::failure::Failure;
use crate::raft::state_machine::StateMachine;
use crate::raft::table_view::{self, RECORDS, UNENDED};
use crate::raft::type_config::Entry;

const TRANSACTIONS: u64 = 1_000_000;
/// Commands that share an entry.
const GROUP: usize = 64;
/// Transactions that begin within one window; there are a thousand a second.
const WINDOW: u64 = 50_000;
/// Transactions that begin between two ticks: a hundredth of the window would be 500.
const TICK: u64 = 5_000;
/// What one call of the leader forgets.
const PAGE: usize = 1024;

fn transaction(number: u64) -> TransactionId {
    TransactionId::new(time(number), u128::from(number))
}

fn time(number: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_700_000_000_000 + number)
}

/// A short transaction: decided, acknowledged by its member.
fn run(number: u64, members: &Members) -> [Command; 2] {
    let decide = Command::Decide(Proposal {
        transaction: transaction(number),
        decision: Decision::Commit,
        request_hash: RequestHash::of_members(members),
        unacknowledged: members.clone(),
        witnesses: std::collections::BTreeMap::new(),
        members: members.clone(),
        decided_at: time(number),
    });
    let acknowledge = Command::Acknowledge {
        transaction: transaction(number),
        participants: members.clone(),
        witnesses: std::collections::BTreeMap::new(),
    };
    [decide, acknowledge]
}

fn bytes_in(folder: &Path) -> u64 {
    let size = |entry: std::fs::DirEntry| {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            bytes_in(&entry.path())
        } else {
            metadata.len()
        }
    };
    std::fs::read_dir(folder)
        .unwrap()
        .map(Result::unwrap)
        .map(size)
        .sum()
}

/// A log that grows by entries.
#[derive(Default)]
struct Log {
    length: u64,
}

impl Log {
    fn entry(&mut self, commands: &[Command]) -> Entry {
        self.length += 1;
        entry(1, self.length, commands)
    }
}

#[tokio::test]
async fn a_million_transactions_leave_no_more_behind_than_a_window_of_them() {
    let folder = TempDir::new().unwrap();
    let opened = SledTable::open(folder.path().join("table"), SledOptions::new("decision")).unwrap();
    let table: Arc<dyn Table> = Arc::new(opened.table);
    let store = snapshots(&SimulatedDisk::new());
    let mut machine =
        StateMachine::open(Arc::clone(&table), store, Background::Tasks, Failure::new()).unwrap();
    let mut log = Log::default();
    let members: Members = [participant(1)].into();
    let (mut records, mut sizes) = (Vec::new(), Vec::new());
    for begun in (0..TRANSACTIONS).step_by(TICK as usize) {
        let (decisions, acknowledgements): (Vec<_>, Vec<_>) = (begun..begun + TICK)
            .map(|number| run(number, &members).into())
            .unzip();
        let commands = decisions.chunks(GROUP).zip(acknowledgements.chunks(GROUP));
        let entries: Vec<Entry> = commands
            .flat_map(|(decisions, acknowledgements)| [log.entry(decisions), log.entry(acknowledgements)])
            .collect();
        apply(&mut machine, entries).await.unwrap();
        tick(&mut machine, &*table, &mut log, begun + TICK).await;
        table.checkpoint().unwrap();
        if (begun + TICK).is_multiple_of(WINDOW) {
            records.push(table.scan(RECORDS.0, Some(RECORDS.1), usize::MAX).unwrap().len() as u64);
            sizes.push(bytes_in(folder.path()));
        }
    }
    // The first transaction that is kept is the one that began a window ago.
    assert!(records[1..].iter().all(|found| *found == WINDOW), "{records:?}");
    assert!(
        table
            .scan(UNENDED.0, Some(UNENDED.1), usize::MAX)
            .unwrap()
            .is_empty(),
        "all of them ended"
    );
    let after_a_third = sizes[..sizes.len() * 3 / 10].iter().max().unwrap();
    let later = sizes.iter().max().unwrap();
    assert!(later * 10 <= after_a_third * 12, "the directory grows: {sizes:?}");
}

/// What a leader proposes when time has passed.
async fn tick(machine: &mut StateMachine, table: &dyn Table, log: &mut Log, now: u64) {
    let Some(before) = now.checked_sub(WINDOW) else {
        return;
    };
    let advance = Command::Advance(Horizon {
        time: time(now),
        watermark: TransactionId::first_at(time(before)),
    });
    let advance = log.entry(&[advance]);
    apply(machine, [advance]).await.unwrap();
    let mut after = None;
    while let Some(page) = table_view::forgettable(table, after, PAGE).unwrap() {
        after = Some(page.last);
        let forget = log.entry(&[Command::Forget {
            transactions: page.transactions,
        }]);
        apply(machine, [forget]).await.unwrap();
    }
}
