//! The end of a journal's service.

use std::io;
use std::sync::Arc;

/// The journal could not write or sync, and accepts nothing any more (rule R10).
///
/// A record whose callback hears this may or may not be found when the journal is opened again: the write may
/// have reached the disk. Nothing is retried, because after a failed sync the system may report success for
/// bytes that it has already dropped. The process must stop serving.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the {journal} could not {operation} {file}: {source}")]
pub struct Failed {
    journal: &'static str,
    operation: &'static str,
    file: String,
    source: Arc<io::Error>,
}

impl Failed {
    pub(crate) fn new(
        journal: &'static str,
        operation: &'static str,
        file: &str,
        source: io::Error,
    ) -> Failed {
        Failed {
            journal,
            operation,
            file: file.to_string(),
            source: Arc::new(source),
        }
    }

    /// What was tried: `write`, `sync`, `create`, ...
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The name of the file it was tried on.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The kind of the error that the disk gave.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The system's error number, if the disk gave one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}
