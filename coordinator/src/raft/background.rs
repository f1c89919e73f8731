//! Blocking work, and the writer of the journal, on threads or in tasks.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::task::JoinHandle;
use unanimo_journal::{Step, Writer};

use super::Background;

/// Does blocking work where nothing else waits for it.
pub(super) async fn run<T: Send + 'static>(
    background: Background,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    match background {
        Background::Threads => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
        Background::Tasks | Background::SlowTasks(_) => Ok(work()),
    }
}

/// The journal's writer at work.
pub(super) enum WriterHandle {
    Thread(std::thread::JoinHandle<()>),
    Task(JoinHandle<()>),
}

impl WriterHandle {
    pub(super) fn start(background: Background, writer: Writer) -> io::Result<Self> {
        match background {
            Background::Threads => writer.spawn().map(Self::Thread),
            Background::Tasks => Ok(Self::Task(tokio::spawn(drive(writer, Duration::ZERO)))),
            Background::SlowTasks(pause) => Ok(Self::Task(tokio::spawn(drive(writer, pause)))),
        }
    }

    /// Waits until the writer has ended. The journal has to be closed before.
    pub(super) async fn ended(self) {
        // A writer that panicked has told the journal's failure hook; there is nothing to add.
        match self {
            Self::Thread(thread) => drop(tokio::task::spawn_blocking(move || thread.join()).await),
            Self::Task(task) => drop(task.await),
        }
    }
}

async fn drive(mut writer: Writer, pause: Duration) {
    loop {
        match writer.step() {
            Step::Closed | Step::Failed => return,
            Step::Idle => {
                poll_fn(|context| writer.poll_work(context)).await;
                wait(pause).await;
            }
            Step::Wrote { .. } => wait(pause).await,
            // One step at a time, so that everybody else has a turn between two writes.
            _ => tokio::task::yield_now().await,
        }
    }
}

async fn wait(pause: Duration) {
    if pause.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(pause).await;
    }
}
