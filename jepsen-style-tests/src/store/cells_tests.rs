//! What a participant calls its resource manager for, once and again, also after a restart.

use std::path::Path;
use std::thread::JoinHandle;

use unanimo_core::Timestamp;
use unanimo_table::{SledOptions, SledTable};

use super::*;
use crate::wire::{Add, Read};

/// Cells on a disk, which can be opened again.
struct Store {
    folder: tempfile::TempDir,
    cells: Cells,
    writer: JoinHandle<()>,
}

impl Store {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (cells, writer) = open(folder.path());
        Self {
            folder,
            cells,
            writer,
        }
    }

    /// A new process finds what is on the disk, and no lock.
    fn restart(self) -> Self {
        let Self {
            folder,
            cells,
            writer,
        } = self;
        // The table is locked as long as somebody has it open.
        drop(cells);
        writer.join().unwrap();
        let (cells, writer) = open(folder.path());
        Self {
            folder,
            cells,
            writer,
        }
    }

    /// A store with 10 in the cell `account`.
    async fn with_account() -> Self {
        let store = Self::new();
        let redo = store.promise(tx(1), vec![add(10)]).await;
        store.cells.commit(tx(1), redo).await.unwrap();
        store
    }

    async fn prepare(&self, transaction: TransactionId, steps: Vec<Step>) -> Preparation {
        let operation = Steps { steps }.encode_to_vec().into();
        self.cells.prepare(transaction, operation).await.unwrap()
    }

    async fn promise(&self, transaction: TransactionId, steps: Vec<Step>) -> Bytes {
        redo_of(self.prepare(transaction, steps).await)
    }

    async fn extend(&self, transaction: TransactionId, redo: Bytes, steps: Vec<Step>) -> Preparation {
        let operation = Steps { steps }.encode_to_vec().into();
        self.cells.extend(transaction, redo, operation).await.unwrap()
    }

    /// What everybody sees in the cell `account`.
    fn account(&self) -> i64 {
        self.cells.cell("account").unwrap().number
    }

    /// Whose steps were applied, and how many.
    fn effects(&self) -> Vec<(String, usize)> {
        let effects = self.cells.effects(None).unwrap().into_iter();
        effects
            .inspect(|effect| assert_eq!(effect.times, 1))
            .map(|effect| (effect.transaction, effect.steps.len()))
            .collect()
    }
}

fn open(folder: &Path) -> (Cells, JoinHandle<()>) {
    let opened = SledTable::open(folder.join("cells"), SledOptions::new("cells")).unwrap();
    assert!(opened.set_aside.is_none());
    let table: Arc<dyn Table> = Arc::new(opened.table);
    let (checkpointer, writer) = Checkpointer::new(Arc::clone(&table));
    let writer = writer.spawn().unwrap();
    (Cells::new(table, checkpointer), writer)
}

fn redo_of(answer: Preparation) -> Bytes {
    match answer {
        Preparation::Yes { redo } => redo,
        other => panic!("no promise: {other:?}"),
    }
}

fn reason_of(answer: Preparation) -> String {
    match answer {
        Preparation::No { reason } => reason,
        other => panic!("no refusal: {other:?}"),
    }
}

fn tx(number: u64) -> TransactionId {
    TransactionId::new(Timestamp::from_unix_ms(number), 0)
}

fn step(cell: &str, action: step::Action) -> Step {
    Step {
        cell: cell.to_owned(),
        action: Some(action),
    }
}

fn add(delta: i64) -> Step {
    step("account", step::Action::Add(Add { delta, floor: 0 }))
}

fn append(value: u64) -> Step {
    step("list", step::Action::Append(value))
}

fn read() -> Step {
    step("account", step::Action::Read(Read {}))
}

#[tokio::test]
async fn a_commit_that_is_repeated_happens_once_also_after_a_restart() {
    let store = Store::with_account().await;
    let redo = store.promise(tx(2), vec![add(-3), append(7)]).await;
    assert_eq!(store.account(), 10, "nothing is visible before the commit");
    for _ in 0..2 {
        store.cells.commit(tx(2), redo.clone()).await.unwrap();
        assert_eq!((store.account(), store.cells.holding()), (7, 0));
    }
    let store = store.restart();
    // The record of the commit was lost: the promise comes back, and so does the commit.
    store.cells.restore(tx(2), redo.clone()).await.unwrap();
    assert_eq!(store.cells.holding(), 0);
    store.cells.commit(tx(2), redo).await.unwrap();
    assert_eq!(store.account(), 7);
    assert_eq!(store.cells.cell("list").unwrap().list, [7]);
    assert_eq!(store.effects(), [(tx(1).to_string(), 1), (tx(2).to_string(), 2)]);
}

#[tokio::test]
async fn an_abort_lets_go_and_may_be_repeated_or_come_alone() {
    let store = Store::with_account().await;
    store.cells.abort(tx(2), None).await.unwrap();
    let redo = store.promise(tx(3), vec![add(-3)]).await;
    assert_eq!(store.cells.holding(), 1);
    for _ in 0..2 {
        store.cells.abort(tx(3), Some(redo.clone())).await.unwrap();
        assert_eq!((store.account(), store.cells.holding()), (10, 0));
    }
    assert_eq!(store.effects(), [(tx(1).to_string(), 1)]);
    // What it saw of its own is gone as well.
    let redo = store.promise(tx(4), vec![add(-10)]).await;
    store.cells.commit(tx(4), redo).await.unwrap();
    assert_eq!(store.account(), 0);
}

// Whoever waits in vain waits in a time that passes at once.
#[tokio::test(start_paused = true)]
async fn a_promise_holds_its_cells_again_after_a_restart() {
    let store = Store::with_account().await;
    let redo = store.promise(tx(2), vec![add(-10)]).await;
    let store = store.restart();
    assert_eq!(store.cells.holding(), 0);
    // Repeated, as after a failure on the way.
    for _ in 0..2 {
        store.cells.restore(tx(2), redo.clone()).await.unwrap();
        assert_eq!((store.account(), store.cells.holding()), (10, 1));
    }
    for steps in [vec![add(5)], vec![read()]] {
        assert_eq!(reason_of(store.prepare(tx(3), steps).await), LOCKED);
    }
    assert_eq!(store.cells.holding(), 1);
    store.cells.commit(tx(2), redo).await.unwrap();
    assert_eq!((store.account(), store.cells.holding()), (0, 0));
    store.promise(tx(4), vec![add(5)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_promise_that_is_aborted_after_a_restart_lets_go() {
    let store = Store::with_account().await;
    let redo = store.promise(tx(2), vec![add(-10)]).await;
    let store = store.restart();
    store.cells.restore(tx(2), redo.clone()).await.unwrap();
    store.cells.abort(tx(2), Some(redo)).await.unwrap();
    assert_eq!((store.account(), store.cells.holding()), (10, 0));
    store.promise(tx(3), vec![add(-10)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_further_operation_sees_the_first_one_and_both_are_one_effect() {
    let store = Store::with_account().await;
    let first = store.promise(tx(2), vec![add(-4)]).await;
    let both = redo_of(store.extend(tx(2), first, vec![read(), add(-6), append(1)]).await);
    assert_eq!(store.cells.seen_by(tx(2), "account").unwrap().number, 0);
    assert_eq!(store.cells.seen_by(tx(3), "account").unwrap().number, 10);
    // Refused, it holds what it had until it is aborted.
    let too_much = store.extend(tx(2), both.clone(), vec![add(-1)]).await;
    assert!(reason_of(too_much).contains(TOO_LITTLE));
    assert_eq!(store.cells.holding(), 1);
    store.cells.commit(tx(2), both).await.unwrap();
    assert_eq!(store.account(), 0);
    assert_eq!(store.effects()[1], (tx(2).to_string(), 4));
}

#[tokio::test(start_paused = true)]
async fn readers_share_and_a_writer_gets_its_turn_when_they_let_go() {
    let store = Store::with_account().await;
    let [one, two] = [tx(2), tx(3)];
    store.promise(one, vec![read()]).await;
    store.promise(two, vec![read()]).await;
    assert_eq!(reason_of(store.prepare(tx(4), vec![add(1)]).await), LOCKED);
    let mut writer = Box::pin(store.promise(tx(5), vec![add(1)]));
    assert!(futures::poll!(&mut writer).is_pending());
    store.cells.abort(one, None).await.unwrap();
    assert!(futures::poll!(&mut writer).is_pending());
    store.cells.abort(two, None).await.unwrap();
    writer.await;
    assert_eq!(store.cells.holding(), 1);
}

#[tokio::test]
async fn what_is_no_list_of_steps_is_refused() {
    let store = Store::new();
    let answer = store
        .cells
        .prepare(tx(1), Bytes::from_static(b"\xff\xff"))
        .await
        .unwrap();
    assert!(matches!(answer, Preparation::No { .. }), "{answer:?}");
    let nothing = Step {
        cell: "account".to_owned(),
        action: None,
    };
    assert!(reason_of(store.prepare(tx(2), vec![nothing]).await).contains("without an action"));
    assert_eq!(store.cells.holding(), 0);
}

#[tokio::test]
async fn a_transaction_that_is_refused_holds_nothing() {
    let store = Store::new();
    // The first step is done, the second refused.
    let answer = store.prepare(tx(1), vec![append(1), add(-1)]).await;
    assert!(reason_of(answer).contains(TOO_LITTLE));
    assert_eq!(store.cells.holding(), 0);
    assert!(store.cells.lock().written.is_empty());
}

#[tokio::test]
async fn whoever_goes_away_while_it_waits_holds_nobody_up() {
    let store = Store::new();
    let cells = &store.cells;
    assert!(cells.take_locks(tx(1), &[append(1)]).await);
    let steps = [append(2)];
    let mut waiting = Box::pin(cells.take_locks(tx(2), &steps));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(waiting);
    cells.let_go(tx(1));
    assert!(cells.take_locks(tx(3), &[append(3)]).await);
}

fn spend(delta: i64) -> Vec<Step> {
    let action = Some(step::Action::Add(crate::wire::Add {
        delta: -delta,
        floor: 0,
    }));
    let cell = "account".to_owned();
    vec![Step { cell, action }]
}

#[tokio::test]
async fn nobody_builds_on_a_commit_that_is_not_durable() {
    let folder = tempfile::tempdir().unwrap();
    let opened = SledTable::open(folder.path().join("cells"), SledOptions::new("cells")).unwrap();
    let table: Arc<dyn Table> = Arc::new(opened.table);
    let (checkpointer, writer) = Checkpointer::new(Arc::clone(&table));
    let cells = Cells::new(table, checkpointer);
    let [first, next] = [1, 2].map(|n| TransactionId::new(Timestamp::from_unix_ms(n), 0));
    let steps = spend(0);
    assert!(cells.take_locks(first, &steps).await);
    let redo = Bytes::from(Steps { steps: steps.clone() }.encode_to_vec());
    let mut commit = Box::pin(cells.commit(first, redo));
    assert!(futures::poll!(&mut commit).is_pending());
    assert!(!cells.take_locks(next, &steps).await);
    // From now on what was applied becomes durable.
    let _writer = writer.spawn().unwrap();
    commit.await.unwrap();
    assert!(cells.take_locks(next, &steps).await);
}

#[tokio::test]
async fn promises_come_back_as_they_were_even_two_of_one_cell() {
    let folder = tempfile::tempdir().unwrap();
    let opened = SledTable::open(folder.path().join("cells"), SledOptions::new("cells")).unwrap();
    let table: Arc<dyn Table> = Arc::new(opened.table);
    let (checkpointer, _writer) = Checkpointer::new(Arc::clone(&table));
    let cells = Cells::new(table, checkpointer);
    let [aborted, promised, other] = [1, 2, 3].map(|n| TransactionId::new(Timestamp::from_unix_ms(n), 0));
    // More than there is by now: somebody else has spent it since the first one let go.
    let redo = Bytes::from(Steps { steps: spend(5) }.encode_to_vec());
    cells.restore(aborted, redo.clone()).await.unwrap();
    cells.restore(promised, redo.clone()).await.unwrap();
    assert_eq!(cells.holding(), 2);
    cells.abort(aborted, Some(redo)).await.unwrap();
    assert!(!cells.take_locks(other, &spend(0)).await);
}
