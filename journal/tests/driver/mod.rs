//! Drives a journal on a simulated disk step by step, and keeps the books on what it was told.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of it")]

pub mod book;

use std::sync::{Arc, Mutex};

use unanimo_journal::{Journal, OpenError, Options, Sequence, SimulatedDisk, Step, Writer};

pub const FIRST_SEGMENT: &str = "test-journal-0000000000000001.segment";
pub const SECOND_SEGMENT: &str = "test-journal-0000000000000002.segment";

pub type Records = Vec<(Sequence, Vec<u8>)>;

/// The smallest segments there are, so that a few records fill one.
pub fn small() -> Options {
    Options {
        segment_bytes: 4096,
        max_record_bytes: 2048,
        ..Options::new("test journal")
    }
}

pub fn open(disk: &SimulatedDisk, options: Options) -> Result<(Journal, Writer, Records), OpenError> {
    let mut replayed = Vec::new();
    let mut replay = |sequence: Sequence, payload: &[u8]| {
        replayed.push((sequence, payload.to_vec()));
        Ok(())
    };
    let (journal, writer) = Journal::open(Arc::new(disk.clone()), options, &mut replay)?;
    Ok((journal, writer, replayed))
}

pub fn texts(records: &Records) -> Vec<String> {
    let text = |(sequence, payload): &(Sequence, Vec<u8>)| {
        format!("{sequence} {}", String::from_utf8_lossy(payload))
    };
    records.iter().map(text).collect()
}

#[derive(Debug, Default)]
pub struct Answers {
    pub acknowledged: Vec<Sequence>,
    pub failed: Vec<Sequence>,
}

pub struct Driver {
    pub journal: Journal,
    pub writer: Writer,
    pub replayed: Records,
    pub answers: Arc<Mutex<Answers>>,
}

impl Driver {
    pub fn open(disk: &SimulatedDisk) -> Driver {
        Driver::open_with(disk, small())
    }

    pub fn open_with(disk: &SimulatedDisk, options: Options) -> Driver {
        Driver::try_open(disk, options).unwrap()
    }

    pub fn try_open(disk: &SimulatedDisk, options: Options) -> Result<Driver, OpenError> {
        let (journal, writer, replayed) = open(disk, options)?;
        Ok(Driver {
            journal,
            writer,
            replayed,
            answers: Arc::default(),
        })
    }

    pub fn append(&self, text: &str) -> Sequence {
        let (expected, answer) = self.next_answer();
        let sequence = self.journal.append(text.to_string(), answer).unwrap();
        assert_eq!(sequence, expected);
        sequence
    }

    pub fn truncate_after(&self, after: Sequence, text: &str) -> Sequence {
        let (expected, answer) = self.next_answer();
        let sequence = self
            .journal
            .truncate_after(after, text.to_string(), answer)
            .unwrap();
        assert_eq!(sequence, expected);
        sequence
    }

    /// The position of the next record, and the callback that books its answer.
    pub fn next_answer(
        &self,
    ) -> (
        Sequence,
        impl FnOnce(Result<(), unanimo_journal::Failed>) + Send + 'static,
    ) {
        let (sequence, answers) = (self.journal.next(), Arc::clone(&self.answers));
        let answer = move |result: Result<(), unanimo_journal::Failed>| {
            let mut answers = answers.lock().unwrap();
            match result {
                Ok(()) => answers.acknowledged.push(sequence),
                Err(_) => answers.failed.push(sequence),
            }
        };
        (sequence, answer)
    }

    /// Steps until there is nothing left to do.
    pub fn settle(&mut self) -> Step {
        loop {
            let step = self.writer.step();
            if matches!(step, Step::Idle | Step::Closed | Step::Failed) {
                return step;
            }
        }
    }

    pub fn close(mut self) {
        self.journal.close();
        assert_eq!(self.settle(), Step::Closed);
    }

    pub fn acknowledged(&self) -> Vec<Sequence> {
        self.answers.lock().unwrap().acknowledged.clone()
    }

    pub fn failed(&self) -> Vec<Sequence> {
        self.answers.lock().unwrap().failed.clone()
    }
}
