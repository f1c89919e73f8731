//! Snapshots: taken while applying goes on, damaged, and installed with a crash in between.

use std::sync::Arc;

use futures::FutureExt as _;
use openraft::RaftSnapshotBuilder as _;
use openraft::storage::RaftStateMachine as _;
use unanimo_core::Timestamp;
use unanimo_core::table::{Command, Horizon};
use unanimo_journal::{Disk as _, SimulatedDisk};
use unanimo_table::{Batch, Entry as Pair, MemoryTable, Table, TableError};

use super::fixture::{
    Choice, acknowledge, apply, bind, cluster_id, contents, decide, entry, key, log_id, membership, register,
    snapshots, state_machine, transaction,
};
use crate::raft::Background;
use crate::raft::failure::Failure;
use crate::raft::snapshot_store::SnapshotStore;
use crate::raft::state_machine::StateMachine;
use crate::raft::table_view::{BINDINGS, HORIZON, RECORDS, REGISTRATIONS};
use crate::raft::type_config::Entry;

/// Entries of random commands about few participants and transactions, so that they meet each other.
fn random_log(choice: &mut Choice, length: u64) -> Vec<Entry> {
    let mut log = vec![membership(1, 0, 1..4)];
    // Only participants that are registered vote, so registrations come first.
    log.push(entry(
        1,
        1,
        &(0..6).map(|number| register(number, 1, 1)).collect::<Vec<_>>(),
    ));
    for index in 2..length {
        let commands: Vec<Command> = (0..choice.below(4)).map(|_| random_command(choice)).collect();
        log.push(entry(1, index, &commands));
    }
    log
}

fn random_command(choice: &mut Choice) -> Command {
    match choice.below(11) {
        0 => register(choice.below(6), 1 + choice.below(4), choice.below(50)),
        8 => close_and_forget(choice.below(8), choice),
        9 => bind(choice.below(12), choice.below(60)),
        10 => Command::Release {
            keys: (0..24)
                .map(|_| (key(choice.below(12)), transaction(choice.below(60))))
                .collect(),
        },
        1..=4 => decide(choice.below(60), 1 + choice.below(5), choice.below(50)),
        _ => acknowledge(
            choice.below(60),
            (0..6).filter(|_| choice.below(2) == 0).collect::<Vec<_>>(),
        ),
    }
}

/// Closes a few more transactions, or forgets some of those that may be closed.
fn close_and_forget(number: u64, choice: &mut Choice) -> Command {
    if choice.below(2) == 0 {
        return Command::Advance(Horizon {
            time: Timestamp::from_unix_ms(number),
            watermark: transaction(number),
        });
    }
    Command::Forget {
        transactions: (0..=number).map(transaction).collect(),
    }
}

#[tokio::test]
async fn a_snapshot_shows_one_entry_although_applying_goes_on() {
    let mut changed = 0;
    for seed in 0..150 {
        let mut choice = Choice(seed);
        let log = random_log(&mut choice, 60);
        let cut = 2 + choice.below(50) as usize;
        let exact = MemoryTable::new();
        let mut machine = state_machine(&exact, &snapshots(&SimulatedDisk::new()));
        apply(&mut machine, log[..cut].to_vec()).await.unwrap();
        let exact = contents(&exact);

        let table = Arc::new(Paged(MemoryTable::new()));
        let dynamic: Arc<dyn Table> = table.clone();
        let store = snapshots(&SimulatedDisk::new());
        let mut machine = StateMachine::open(dynamic, store, Background::Tasks, Failure::new()).unwrap();
        apply(&mut machine, log[..cut].to_vec()).await.unwrap();
        let (mut writer, mut rest) = (machine.clone(), log[cut..].iter().cloned());
        let (past, state) = machine.past();
        assert_eq!(state.last_applied, Some(log_id(1, cut as u64 - 1)));
        let mut seen = Vec::new();
        for range in [RECORDS, HORIZON, BINDINGS, REGISTRATIONS] {
            past.read(range, |entries| {
                seen.extend(entries);
                apply(&mut writer, rest.by_ref().take(2).collect::<Vec<_>>())
                    .now_or_never()
                    .unwrap()
            })
            .unwrap();
        }
        let of_snapshot = |(key, _): &&Pair| {
            [b"d", b"h", b"k", b"r"]
                .iter()
                .any(|prefix| key.starts_with(*prefix))
        };
        let now = contents(&*table);
        assert_eq!(
            seen,
            exact.iter().filter(of_snapshot).cloned().collect::<Vec<_>>(),
            "seed {seed}"
        );
        changed += usize::from(seen != now.iter().filter(of_snapshot).cloned().collect::<Vec<_>>());
    }
    assert!(
        changed > 100,
        "only {changed} tables changed while they were read"
    );
}

/// A table that gives few entries at a time, so that much happens between two pages.
struct Paged(MemoryTable);

impl Table for Paged {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.0.get(key)
    }

    fn apply(&self, batch: Batch) -> Result<(), TableError> {
        self.0.apply(batch)
    }

    fn scan(&self, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, TableError> {
        self.0.scan(
            from,
            until,
            if limit == usize::MAX { limit } else { limit.min(3) },
        )
    }

    fn checkpoint(&self) -> Result<(), TableError> {
        self.0.checkpoint()
    }
}

/// Replaces what the table had, also what the snapshot does not have.
#[tokio::test]
async fn an_installed_snapshot_replaces_what_was_there() {
    let (leader, follower) = (MemoryTable::new(), MemoryTable::new());
    let mut machine = state_machine(&leader, &snapshots(&SimulatedDisk::new()));
    let closing = Command::Advance(Horizon {
        time: Timestamp::from_unix_ms(7),
        watermark: transaction(9),
    });
    let commands = |index| {
        let decide = decide(index * 2, 3, 1);
        [
            decide,
            acknowledge(4, 0..3),
            closing.clone(),
            bind(index, index * 2),
        ]
    };
    let entries = (1..40).map(|index| entry(2, index, &commands(index)));
    apply(
        &mut machine,
        std::iter::once(membership(1, 0, 1..4)).chain(entries),
    )
    .await
    .unwrap();
    let snapshot = machine.build_snapshot().await.unwrap();

    let store = snapshots(&SimulatedDisk::new());
    let mut other = state_machine(&follower, &store);
    let commands: Vec<Command> = (0..20)
        .flat_map(|index| {
            [
                decide(index * 3, 2, 1),
                register(index, 1, 1),
                bind(index * 2, index),
            ]
        })
        .collect();
    apply(&mut other, [membership(1, 0, [7]), entry(1, 1, &commands)])
        .await
        .unwrap();
    let meta = snapshot.meta.clone();
    other.install_snapshot(&meta, snapshot.snapshot).await.unwrap();
    assert_eq!(contents(&follower), contents(&leader));
    assert_eq!(
        other.applied_state().await.unwrap(),
        (meta.last_log_id, meta.last_membership.clone())
    );
    assert_eq!(
        other
            .get_current_snapshot()
            .await
            .unwrap()
            .map(|current| current.meta),
        Some(meta)
    );
}

#[tokio::test]
async fn a_crash_while_a_snapshot_is_installed_leaves_the_old_table_the_new_one_or_none() {
    let leader = MemoryTable::new();
    let disk = SimulatedDisk::new();
    let mut machine = state_machine(&leader, &snapshots(&disk));
    // Large enough for many batches.
    let entries = (1..1200).map(|index| entry(2, index, &[decide(index, 60, 1)]));
    apply(
        &mut machine,
        std::iter::once(membership(1, 0, 1..4)).chain(entries),
    )
    .await
    .unwrap();
    machine.build_snapshot().await.unwrap();

    let mut seen = [0; 3];
    for seed in 0..16 {
        let (disk, table) = (disk.fork(), MemoryTable::new());
        let store = snapshots(&disk);
        let mut old = state_machine(&table, &store);
        apply(
            &mut old,
            (1..300).map(|index| entry(1, index, &[decide(index * 7, 1, 1)])),
        )
        .await
        .unwrap();
        table.checkpoint().unwrap();
        let before = contents(&table);
        let snapshot = old.get_current_snapshot().await.unwrap().unwrap();
        table.fail_next_checkpoint();
        assert!(
            old.install_snapshot(&snapshot.meta, snapshot.snapshot)
                .await
                .is_err()
        );
        table.crash(seed);
        disk.crash_losing_everything();

        let store = snapshots(&disk);
        let mut restarted = state_machine(&table, &store);
        let found = match contents(&table) {
            found if found == before => 0,
            found if found == contents(&leader) => 1,
            found => {
                assert!(found.is_empty(), "half of a snapshot was taken for a table");
                assert_eq!(restarted.applied_state().await.unwrap().0, None);
                2
            }
        };
        seen[found] += 1;
        let snapshot = restarted.get_current_snapshot().await.unwrap().unwrap();
        restarted
            .install_snapshot(&snapshot.meta, snapshot.snapshot)
            .await
            .unwrap();
        assert_eq!(contents(&table), contents(&leader), "seed {seed}");
    }
    assert!(seen[2] > 5, "the crashes hit {seen:?}");
}

async fn small_snapshot() -> (SimulatedDisk, String) {
    let disk = SimulatedDisk::new();
    let mut machine = state_machine(&MemoryTable::new(), &snapshots(&disk));
    let commands = [decide(1, 2, 1), register(1, 1, 1)];
    apply(&mut machine, [membership(1, 0, 1..4), entry(1, 1, &commands)])
        .await
        .unwrap();
    machine.build_snapshot().await.unwrap();
    let names = disk.list().unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    (disk, names[0].clone())
}

#[tokio::test]
async fn every_flipped_bit_and_every_missing_end_of_a_snapshot_is_found() {
    let (disk, name) = small_snapshot().await;
    let length = disk.contents(&name).unwrap().len() as u64;
    let set_aside = |disk: &SimulatedDisk, what: &str| {
        let store = SnapshotStore::open(Arc::new(disk.clone()), cluster_id()).unwrap();
        assert!(store.newest().is_none(), "{what}");
        assert_eq!(disk.list().unwrap(), [format!("{name}.damaged")], "{what}");
    };
    for offset in 0..length {
        for bit in 0..8 {
            let damaged = disk.fork();
            damaged.flip_bit(&name, offset, bit);
            set_aside(&damaged, &format!("bit {bit} of byte {offset}"));
        }
        let cut = disk.fork();
        cut.truncate(&name, offset);
        set_aside(&cut, &format!("cut to {offset} bytes"));
    }
    let mut longer = disk.contents(&name).unwrap();
    longer.push(0);
    disk.put(&name, &longer);
    set_aside(&disk, "one byte too many");
}

#[tokio::test]
async fn a_snapshot_is_there_or_not_after_a_crash_at_every_operation() {
    let mut found_new = 0;
    for operation in 0.. {
        let disk = SimulatedDisk::new();
        let mut machine = state_machine(&MemoryTable::new(), &snapshots(&disk));
        apply(
            &mut machine,
            [membership(1, 0, 1..4), entry(1, 1, &[decide(1, 2, 1)])],
        )
        .await
        .unwrap();
        machine.build_snapshot().await.unwrap();
        apply(&mut machine, [entry(1, 2, &[decide(2, 2, 1)])])
            .await
            .unwrap();
        disk.power_off_at_operation(disk.operations() + operation);
        let built = machine.build_snapshot().await;
        for seed in 0..8 {
            let crashed = disk.fork();
            crashed.crash(seed);
            let last = snapshots(&crashed).last_log_id();
            assert!(
                last == Some(log_id(1, 1)) || last == Some(log_id(1, 2)),
                "{operation}: {last:?}"
            );
            assert!(
                built.is_err() || last == Some(log_id(1, 2)),
                "{operation}: an acknowledged snapshot is lost"
            );
            found_new += usize::from(last == Some(log_id(1, 2)));
            assert_eq!(
                crashed.list().unwrap().len(),
                1,
                "{operation}: leftovers stay: {:?}",
                crashed.list()
            );
        }
        if built.is_ok() {
            assert!(operation > 3 && found_new > 0);
            return;
        }
    }
}

#[tokio::test]
async fn the_snapshot_of_another_cluster_is_refused() {
    let (disk, _) = small_snapshot().await;
    let other = unanimo_core::ClusterId::new("other").unwrap();
    let error = SnapshotStore::open(Arc::new(disk), other)
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cluster test") && error.contains("cluster other"),
        "{error}"
    );
}
