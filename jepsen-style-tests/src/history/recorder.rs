use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use thiserror::Error;

use super::{Answer, Call, Event, Kind, Process};

/// Writes a history down, line by line, while it happens. A clone is another handle.
#[derive(Clone)]
pub struct Recorder {
    started: Instant,
    state: Arc<Mutex<State>>,
}

struct State {
    events: Vec<Event>,
    file: BufWriter<File>,
    failed: Option<io::Error>,
    next_process: u32,
    /// When a client last heard of a commit.
    committed_ns: Option<u64>,
}

/// An operation that has not completed.
#[derive(Debug)]
#[must_use = "an operation has to complete, or nothing may be concluded from it"]
pub struct Pending {
    process: Process,
    call: Call,
}

/// A whole history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Its lines, in their order.
    pub events: Vec<Event>,
}

/// Why there is no history.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The file cannot be read or written.
    #[error("cannot read or write the history {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no event.
    #[error("line {line} of {} is no event: {source}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

impl Recorder {
    /// A history that begins now, in this file.
    pub fn create(path: &Path) -> Result<Self, HistoryError> {
        let file = File::create(path).map_err(|source| HistoryError::File {
            path: path.to_owned(),
            source,
        })?;
        let state = State {
            events: Vec::new(),
            file: BufWriter::new(file),
            failed: None,
            next_process: 0,
            committed_ns: None,
        };
        Ok(Self {
            started: Instant::now(),
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// When the history began. Faults are dated by the same clock.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// When a client last heard of a commit, in nanoseconds since the history began.
    pub fn committed_ns(&self) -> Option<u64> {
        self.lock().committed_ns
    }

    /// A number for a client that no other has or had.
    pub fn new_process(&self) -> Process {
        let mut state = self.lock();
        state.next_process += 1;
        Process(state.next_process - 1)
    }

    /// Notes that something is asked for. To be called before anything is sent.
    pub fn invoke(&self, process: Process, call: Call) -> Pending {
        self.push(process, Kind::Invoke, call.clone(), None, None);
        Pending { process, call }
    }

    /// Notes that it happened, with what was read and what was told.
    pub fn ok(&self, pending: Pending, call: Call, answer: Answer) {
        self.push(pending.process, Kind::Ok, call, Some(answer), None);
    }

    /// Notes that it did not happen and will not.
    pub fn fail(&self, pending: Pending, call: Call, answer: Option<Answer>, error: String) {
        self.push(pending.process, Kind::Fail, call, answer, Some(error));
    }

    /// Notes that nobody knows. The client goes on under a new number, which is returned.
    pub fn info(&self, pending: Pending, call: Call, error: String) -> Process {
        self.push(pending.process, Kind::Info, call, None, Some(error));
        self.new_process()
    }

    /// What has happened, if all of it could be written down.
    pub fn finish(&self, path: &Path) -> Result<History, HistoryError> {
        let mut state = self.lock();
        let flushed = match state.failed.take() {
            Some(error) => Err(error),
            None => state.file.flush(),
        };
        flushed.map_err(|source| HistoryError::File {
            path: path.to_owned(),
            source,
        })?;
        Ok(History {
            events: state.events.clone(),
        })
    }

    fn push(&self, process: Process, kind: Kind, call: Call, answer: Option<Answer>, error: Option<String>) {
        let mut state = self.lock();
        // Under the lock, so that the order of the lines is the order of the times.
        let event = Event {
            index: state.events.len() as u64,
            time_ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            process,
            kind,
            call,
            answer,
            error,
        };
        let written = serde_json::to_writer(&mut state.file, &event)
            .map_err(io::Error::from)
            .and_then(|()| state.file.write_all(b"\n"));
        if let Err(error) = written {
            state.failed.get_or_insert(error);
        }
        if event.kind == Kind::Ok && matches!(event.call, Call::Transact { .. }) {
            state.committed_ns = Some(event.time_ns);
        }
        state.events.push(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// What was asked.
    pub fn call(&self) -> &Call {
        &self.call
    }
}

impl History {
    /// Reads a history from its file.
    pub fn read(path: &Path) -> Result<Self, HistoryError> {
        let unusable = |source| HistoryError::File {
            path: path.to_owned(),
            source,
        };
        let mut events = Vec::new();
        for (number, line) in BufReader::new(File::open(path).map_err(unusable)?)
            .lines()
            .enumerate()
        {
            let line = line.map_err(unusable)?;
            let event = serde_json::from_str(&line).map_err(|source| HistoryError::Line {
                path: path.to_owned(),
                line: number + 1,
                source,
            })?;
            events.push(event);
        }
        Ok(Self { events })
    }

    /// Each operation: its invocation, and its completion if there is one. In the order of the invocations.
    pub fn operations(&self) -> Vec<(&Event, Option<&Event>)> {
        let mut open = std::collections::BTreeMap::new();
        let mut operations: Vec<(&Event, Option<&Event>)> = Vec::new();
        for event in &self.events {
            match event.kind {
                Kind::Invoke => {
                    open.insert(event.process, operations.len());
                    operations.push((event, None));
                }
                Kind::Ok | Kind::Fail | Kind::Info => {
                    if let Some(place) = open.remove(&event.process) {
                        operations[place].1 = Some(event);
                    }
                }
            }
        }
        operations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Tx;

    #[test]
    fn what_was_recorded_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        let recorder = Recorder::create(&path).unwrap();
        let (first, second) = (recorder.new_process(), recorder.new_process());
        let query = |node| Call::Query {
            transaction: Tx("018f3b7e-0000-7000-8000-000000000001".parse().unwrap()),
            node,
        };
        let a = recorder.invoke(first, query(1));
        let b = recorder.invoke(second, query(2));
        recorder.ok(b, query(2), Answer::Committed);
        let next = recorder.info(a, query(1), "no answer".to_owned());
        assert_eq!(next, Process(2));
        let c = recorder.invoke(next, query(3));
        recorder.fail(c, query(3), None, "refused".to_owned());
        drop(recorder.invoke(second, query(4)));
        let history = recorder.finish(&path).unwrap();
        assert_eq!(History::read(&path).unwrap(), history);
        let kinds: Vec<_> = history
            .operations()
            .iter()
            .map(|(_, completion)| completion.map(|event| event.kind))
            .collect();
        assert_eq!(kinds, [Some(Kind::Info), Some(Kind::Ok), Some(Kind::Fail), None]);
    }
}
