//! The journal with its threads on the disk of the machine.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use tempfile::TempDir;
use unanimo_journal::{Disk, DiskFile, Journal, Options, RealDisk, Sequence};

fn options() -> Options {
    Options {
        segment_bytes: 64 * 1024,
        max_record_bytes: 16 * 1024,
        ..Options::new("raft log")
    }
}

fn ignore(_: Sequence, _: &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Ok(())
}

fn replayed(disk: Arc<dyn Disk>) -> BTreeMap<Sequence, Vec<u8>> {
    let mut records = BTreeMap::new();
    let opened = Journal::open(disk, options(), &mut |sequence, payload| {
        assert!(
            records.last_key_value().is_none_or(|(last, _)| *last < sequence),
            "in order"
        );
        records.insert(sequence, payload.to_vec());
        Ok(())
    });
    drop(opened.unwrap());
    records
}

/// Appends and waits until the record is durable.
fn append(journal: &Journal, payload: String) -> Sequence {
    let (answer, answered) = mpsc::channel();
    let sequence = journal
        .append(payload, move |result| answer.send(result).unwrap())
        .unwrap();
    answered.recv().unwrap().unwrap();
    assert!(journal.durable() >= sequence);
    sequence
}

#[test]
fn many_threads_append_and_everything_comes_back() {
    let directory = TempDir::new().unwrap();
    let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
    let (journal, writer) = Journal::open(disk.clone(), options(), &mut ignore).unwrap();
    let running = writer.spawn().unwrap();
    let appended = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for number in 0..8 {
            let (journal, appended) = (&journal, &appended);
            scope.spawn(move || {
                for round in 0..60 {
                    // About 400 KiB in all: several segments are filled.
                    let payload = format!("{number}/{round} {}", "x".repeat(round * 25));
                    let sequence = append(journal, payload.clone());
                    assert_eq!(journal.read(sequence).unwrap(), payload);
                    appended.lock().unwrap().insert(sequence, payload.into_bytes());
                }
            });
        }
    });
    journal.close();
    running.join().unwrap();
    drop(journal);
    let appended = appended.into_inner().unwrap();
    assert_eq!(appended.len(), 480);
    assert!(disk.list().unwrap().len() > 4);
    assert!(replayed(disk) == appended);
}

#[test]
fn released_segments_disappear_while_appends_go_on() {
    let directory = TempDir::new().unwrap();
    let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
    let (journal, writer) = Journal::open(disk.clone(), options(), &mut ignore).unwrap();
    let running = writer.spawn().unwrap();
    for _ in 0..60 {
        let sequence = append(&journal, "x".repeat(10_000));
        journal.release_before(sequence);
    }
    journal.close();
    running.join().unwrap();
    let first = journal.first();
    assert_eq!(first, Sequence::new(60));
    drop(journal);
    // Ten segments were filled; at least those that the thread did not come to are removed by the next opening.
    let records = replayed(disk.clone());
    assert!(records.contains_key(&first));
    assert!(records.len() < 12, "{}", records.len());
    assert!(disk.list().unwrap().len() <= 3, "{:?}", disk.list());
}

#[test]
fn a_journal_whose_last_handle_is_dropped_ends_its_threads() {
    let directory = TempDir::new().unwrap();
    let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
    let (journal, writer) = Journal::open(disk.clone(), options(), &mut ignore).unwrap();
    let running = writer.spawn().unwrap();
    journal.append_lazily("last words").unwrap();
    drop(journal);
    running.join().unwrap();
    assert_eq!(replayed(disk).into_values().collect::<Vec<_>>(), [b"last words"]);
}

#[test]
fn concurrent_appends_share_syncs() {
    const THREADS: usize = 32;
    const APPENDS: usize = 50;
    let directory = TempDir::new().unwrap();
    let disk = CountingDisk::new(RealDisk::open(directory.path()).unwrap());
    let (journal, writer) = Journal::open(disk.clone(), options(), &mut ignore).unwrap();
    let running = writer.spawn().unwrap();
    let before = disk.counter.syncs.load(Ordering::SeqCst);
    // The first sync takes until all have appended, as a slow disk's would; so what the test counts does not
    // depend on the disk that it runs on.
    disk.counter.hold();
    let (answers, answered) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (journal, answers) = (&journal, answers.clone());
            scope.spawn(move || {
                for _ in 0..APPENDS {
                    let answer = answers.clone();
                    journal
                        .append("a decision", move |result| answer.send(result).unwrap())
                        .unwrap();
                }
            });
        }
    });
    disk.counter.let_go();
    for _ in 0..THREADS * APPENDS {
        answered.recv().unwrap().unwrap();
    }
    let syncs = disk.counter.syncs.load(Ordering::SeqCst) - before;
    // One for the group that was held, one for each segment that the rest fills, some for a segment being made.
    assert!(syncs <= 8, "{syncs} syncs for {} appends", THREADS * APPENDS);
    journal.close();
    running.join().unwrap();
}

#[test]
fn two_cannot_hold_the_same_directory() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a/journal");
    let first = RealDisk::open(&path).unwrap();
    let error = RealDisk::open(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    assert!(
        error
            .to_string()
            .contains("a/journal is in use by another process"),
        "{error}"
    );
    let reader = RealDisk::open_read_only(&path).unwrap();
    assert_eq!(
        reader.create("x").map(drop).unwrap_err().kind(),
        io::ErrorKind::PermissionDenied
    );
    drop(first);
    RealDisk::open(&path).unwrap();
}

#[test]
fn a_real_disk_keeps_the_promises_of_the_trait() {
    let directory = TempDir::new().unwrap();
    let disk = RealDisk::open(directory.path()).unwrap();
    let file = disk.create("one").unwrap();
    assert_eq!(
        disk.create("one").map(drop).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    file.write_at(b"abc", 5).unwrap();
    assert_eq!(file.length().unwrap(), 8);
    let mut bytes = [9; 4];
    file.read_at(&mut bytes, 4).unwrap();
    assert_eq!(&bytes, b"\0abc");
    assert_eq!(
        file.read_at(&mut bytes, 5).unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
    file.sync_data().and_then(|()| file.sync_all()).unwrap();
    disk.create("two").unwrap();
    disk.rename("one", "two").unwrap();
    disk.sync_directory().unwrap();
    assert_eq!(disk.list().unwrap(), ["two"]);
    assert_eq!(disk.open("two").unwrap().length().unwrap(), 8);
    disk.remove("two").unwrap();
    assert_eq!(
        disk.open("two").map(drop).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

/// A disk that counts the syncs of its files and can hold them up.
#[derive(Clone)]
struct CountingDisk {
    disk: Arc<RealDisk>,
    counter: Arc<Counter>,
}

#[derive(Default)]
struct Counter {
    syncs: AtomicUsize,
    held: Mutex<bool>,
    changed: Condvar,
}

struct CountingFile {
    file: Arc<dyn DiskFile>,
    counter: Arc<Counter>,
}

impl Counter {
    fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    fn let_go(&self) {
        *self.held.lock().unwrap() = false;
        self.changed.notify_all();
    }

    fn count(&self) {
        let held = self.held.lock().unwrap();
        drop(self.changed.wait_while(held, |held| *held).unwrap());
        self.syncs.fetch_add(1, Ordering::SeqCst);
    }
}

impl CountingDisk {
    fn new(disk: RealDisk) -> Arc<CountingDisk> {
        Arc::new(CountingDisk {
            disk: Arc::new(disk),
            counter: Arc::default(),
        })
    }

    fn counting(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CountingFile {
            file: file?,
            counter: Arc::clone(&self.counter),
        }))
    }
}

impl Disk for CountingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.counting(self.disk.create(name))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.counting(self.disk.open(name))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }
}

impl DiskFile for CountingFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.counter.count();
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.counter.count();
        self.file.sync_all()
    }
}
