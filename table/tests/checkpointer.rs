//! Many callers share one checkpoint, and everybody gets an answer.

// A test fails by panicking, in its helping functions too.
#![allow(clippy::unwrap_used)]

use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use unanimo_table::{
    Batch, CheckpointStep, Checkpointer, Entry, MemoryTable, SledOptions, SledTable, Table, TableError,
};

/// A real wait on another thread ends long before this, or the test has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// A table that does something of the test's before each checkpoint.
struct Hooked<T> {
    inner: T,
    before_checkpoint: Box<dyn Fn() + Send + Sync>,
}

impl<T: Table> Table for Hooked<T> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.inner.get(key)
    }
    fn apply(&self, batch: Batch) -> Result<(), TableError> {
        self.inner.apply(batch)
    }
    fn scan(&self, from: &[u8], until: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>, TableError> {
        self.inner.scan(from, until, limit)
    }
    fn checkpoint(&self) -> Result<(), TableError> {
        (self.before_checkpoint)();
        self.inner.checkpoint()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for the future on this thread: whatever runtime the caller has, it needs no more than this.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn put(key: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, "1");
    batch
}

/// Asks for a checkpoint; the number arrives with the answer.
fn ask(checkpointer: &Checkpointer, number: u32) -> Receiver<(u32, Result<(), TableError>)> {
    let (sender, receiver) = mpsc::channel();
    checkpointer.durable(move |result| sender.send((number, result)).unwrap());
    receiver
}

#[test]
fn one_checkpoint_answers_everybody_who_waits_in_order() {
    let table = MemoryTable::new();
    let (checkpointer, mut writer) = Checkpointer::new(Arc::new(table.clone()));
    assert_eq!(writer.step(), CheckpointStep::Idle);
    let (sender, receiver) = mpsc::channel();
    for number in 0..64_u32 {
        table.apply(put(&number.to_be_bytes())).unwrap();
        let sender = sender.clone();
        checkpointer.durable(move |result| sender.send((number, result.is_ok())).unwrap());
    }
    assert_eq!(
        receiver.try_iter().count(),
        0,
        "nobody is answered before the checkpoint"
    );
    assert_eq!(writer.step(), CheckpointStep::Written { callers: 64 });
    let answers: Vec<_> = receiver.try_iter().collect();
    assert_eq!(answers, (0..64).map(|number| (number, true)).collect::<Vec<_>>());
    assert_eq!(table.checkpoints(), 1);
    assert_eq!(writer.step(), CheckpointStep::Idle);
    table.crash(1);
    assert_eq!(table.scan(b"", None, 100).unwrap().len(), 64);
}

#[test]
fn who_comes_while_a_checkpoint_is_written_waits_for_the_next() {
    let late: Arc<Mutex<Option<Checkpointer>>> = Arc::default();
    let (sender, receiver) = mpsc::channel();
    let table = MemoryTable::new();
    let hook = {
        let late = Arc::clone(&late);
        let sender = Mutex::new(sender);
        move || {
            if let Some(checkpointer) = late.lock().unwrap().take() {
                let sender = sender.lock().unwrap().clone();
                checkpointer.durable(move |result| sender.send(result.is_ok()).unwrap());
            }
        }
    };
    let hooked = Hooked {
        inner: table.clone(),
        before_checkpoint: Box::new(hook),
    };
    let (checkpointer, mut writer) = Checkpointer::new(Arc::new(hooked));
    *late.lock().unwrap() = Some(checkpointer.clone());
    let first = ask(&checkpointer, 1);
    assert_eq!(writer.step(), CheckpointStep::Written { callers: 1 });
    assert!(first.try_recv().unwrap().1.is_ok());
    assert!(
        receiver.try_recv().is_err(),
        "its change may have come too late for the checkpoint"
    );
    assert_eq!(writer.step(), CheckpointStep::Written { callers: 1 });
    assert!(receiver.try_recv().unwrap());
    assert_eq!(table.checkpoints(), 2);
}

#[test]
fn a_failure_is_final_for_those_who_wait_and_those_who_come() {
    let late: Arc<Mutex<Option<Checkpointer>>> = Arc::default();
    let (sender, during) = mpsc::channel();
    let table = MemoryTable::new();
    let hook = {
        let late = Arc::clone(&late);
        let sender = Mutex::new(sender);
        move || {
            let checkpointer = late.lock().unwrap().take().expect("there is no second attempt");
            let sender = sender.lock().unwrap().clone();
            checkpointer.durable(move |result| sender.send(result).unwrap());
        }
    };
    let hooked = Hooked {
        inner: table.clone(),
        before_checkpoint: Box::new(hook),
    };
    let (checkpointer, mut writer) = Checkpointer::new(Arc::new(hooked));
    *late.lock().unwrap() = Some(checkpointer.clone());
    let hooks = Arc::new(AtomicUsize::new(0));
    let count = |hooks: &Arc<AtomicUsize>| {
        let hooks = Arc::clone(hooks);
        move |error| {
            assert!(matches!(error, TableError::Failed { .. }));
            hooks.fetch_add(1, Ordering::SeqCst);
        }
    };
    checkpointer.on_failure(count(&hooks));
    let waiting = ask(&checkpointer, 1);
    table.fail_next_checkpoint();
    assert_eq!(writer.step(), CheckpointStep::Failed);
    assert_eq!(hooks.load(Ordering::SeqCst), 1);
    checkpointer.on_failure(count(&hooks));
    assert_eq!(
        hooks.load(Ordering::SeqCst),
        2,
        "a hook that comes late is called at once"
    );
    let coming = ask(&checkpointer, 2);
    for result in [
        waiting.try_recv().unwrap().1,
        during.try_recv().unwrap(),
        coming.try_recv().unwrap().1,
    ] {
        assert!(matches!(result, Err(TableError::Failed { .. })), "{result:?}");
    }
    assert_eq!(writer.step(), CheckpointStep::Failed);
    assert!(matches!(
        block_on(checkpointer.wait_durable()),
        Err(TableError::Failed { .. })
    ));
    drop(writer);
    assert!(matches!(
        block_on(checkpointer.wait_durable()),
        Err(TableError::Failed { .. })
    ));
    assert_eq!(hooks.load(Ordering::SeqCst), 2, "each hook is called once");
}

#[test]
fn closing_still_answers_those_who_wait() {
    let table = MemoryTable::new();
    let (checkpointer, mut writer) = Checkpointer::new(Arc::new(table.clone()));
    let waiting = ask(&checkpointer, 1);
    checkpointer.close();
    let coming = ask(&checkpointer, 2);
    assert!(matches!(coming.try_recv().unwrap().1, Err(TableError::Closed)));
    assert_eq!(writer.step(), CheckpointStep::Written { callers: 1 });
    assert!(waiting.try_recv().unwrap().1.is_ok());
    assert_eq!(writer.step(), CheckpointStep::Closed);
    assert_eq!(writer.step(), CheckpointStep::Closed);
    assert!(matches!(
        ask(&checkpointer, 3).try_recv().unwrap().1,
        Err(TableError::Closed)
    ));
}

#[test]
fn a_writer_that_goes_away_leaves_nobody_waiting() {
    let (checkpointer, writer) = Checkpointer::new(Arc::new(MemoryTable::new()));
    let waiting = ask(&checkpointer, 1);
    let future = checkpointer.wait_durable();
    drop(writer);
    assert!(matches!(waiting.try_recv().unwrap().1, Err(TableError::Closed)));
    assert!(matches!(block_on(future), Err(TableError::Closed)));
    assert!(matches!(
        block_on(checkpointer.wait_durable()),
        Err(TableError::Closed)
    ));
}

#[test]
fn a_callback_that_panics_leaves_nobody_waiting() {
    let (checkpointer, writer) = Checkpointer::new(Arc::new(MemoryTable::new()));
    checkpointer.durable(|_| panic!("a mistake in a callback, made on purpose"));
    let waiting = ask(&checkpointer, 1);
    assert!(writer.spawn().unwrap().join().is_err());
    assert!(matches!(waiting.try_recv().unwrap().1, Err(TableError::Closed)));
    assert!(matches!(
        block_on(checkpointer.wait_durable()),
        Err(TableError::Closed)
    ));
}

#[test]
fn the_thread_ends_with_the_last_handle() {
    let table = MemoryTable::new();
    let (checkpointer, writer) = Checkpointer::new(Arc::new(table.clone()));
    let thread = writer.spawn().unwrap();
    let other = checkpointer.clone();
    let future = other.wait_durable();
    drop(checkpointer);
    drop(other);
    thread.join().unwrap();
    assert!(block_on(future).is_ok(), "it had asked before");
}

#[test]
fn sixty_four_callers_need_two_checkpoints() {
    const CALLERS: usize = 64;
    // The first checkpoint lasts until everybody has asked, as a slow disk would make it.
    let asked = Arc::new((Mutex::new(0_usize), Condvar::new()));
    let hook = {
        let asked = Arc::clone(&asked);
        move || {
            let (count, changed) = &*asked;
            let wait = changed.wait_timeout_while(count.lock().unwrap(), DEADLINE, |count| *count < CALLERS);
            assert!(!wait.unwrap().1.timed_out());
        }
    };
    let table = MemoryTable::new();
    let hooked = Arc::new(Hooked {
        inner: table.clone(),
        before_checkpoint: Box::new(hook),
    });
    let (checkpointer, writer) = Checkpointer::new(Arc::clone(&hooked) as Arc<dyn Table>);
    let thread = writer.spawn().unwrap();
    std::thread::scope(|scope| {
        for number in 0..CALLERS {
            let (checkpointer, hooked, asked) =
                (checkpointer.clone(), Arc::clone(&hooked), Arc::clone(&asked));
            scope.spawn(move || {
                hooked.apply(put(&number.to_be_bytes())).unwrap();
                let future = checkpointer.wait_durable();
                *asked.0.lock().unwrap() += 1;
                asked.1.notify_all();
                block_on(future).unwrap();
            });
        }
    });
    assert!(
        (1..=2).contains(&table.checkpoints()),
        "{} checkpoints",
        table.checkpoints()
    );
    drop(checkpointer);
    thread.join().unwrap();
    table.crash(7);
    assert_eq!(table.scan(b"", None, 100).unwrap().len(), CALLERS);
}

#[test]
fn concurrent_callers_share_the_syncs_of_a_real_disk() {
    const THREADS: u64 = 32;
    const ROUNDS: u64 = 10;
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("table");
    let checkpoints = Arc::new(AtomicU64::new(0));
    let hook = {
        let checkpoints = Arc::clone(&checkpoints);
        move || {
            checkpoints.fetch_add(1, Ordering::SeqCst);
        }
    };
    let inner = SledTable::open(&directory, SledOptions::new("test"))
        .unwrap()
        .table;
    let table = Arc::new(Hooked {
        inner,
        before_checkpoint: Box::new(hook),
    });
    let (checkpointer, writer) = Checkpointer::new(Arc::clone(&table) as Arc<dyn Table>);
    let thread = writer.spawn().unwrap();
    let start = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (checkpointer, table, start) = (checkpointer.clone(), Arc::clone(&table), &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    table.apply(put(&[number as u8, round as u8])).unwrap();
                    block_on(checkpointer.wait_durable()).unwrap();
                }
            });
        }
    });
    let checkpoints = checkpoints.load(Ordering::SeqCst);
    assert!(
        checkpoints <= THREADS * ROUNDS / 4,
        "{checkpoints} checkpoints for {} calls",
        THREADS * ROUNDS
    );
    drop(checkpointer);
    thread.join().unwrap();
    drop(table);
    let table = SledTable::open(&directory, SledOptions::new("test"))
        .unwrap()
        .table;
    assert_eq!(
        table.scan(b"", None, 1000).unwrap().len() as u64,
        THREADS * ROUNDS
    );
}
