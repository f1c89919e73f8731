use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a table did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// A key, a value or a batch is over its limit. Nothing was changed.
    #[error("a {part} of {bytes} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// What is too large.
        part: Part,
        /// Its size.
        bytes: usize,
        /// The most that is accepted.
        limit: usize,
    },

    /// The empty key belongs to the table itself. Nothing was changed.
    #[error("the empty key is reserved")]
    EmptyKey,

    /// A write, a checkpoint or a read went wrong, now or earlier. It is not known what is on disk, so the
    /// table serves nothing more: the process must stop, and find out by opening the table again.
    #[error("the {table} table failed to {operation} and serves nothing more: {reason}")]
    Failed {
        /// The name of the table.
        table: &'static str,
        /// The operation that failed first.
        operation: &'static str,
        /// The error of that operation.
        reason: Arc<str>,
    },

    /// The checkpointer was closed before the checkpoint that was waited for. It is not known whether what
    /// was applied is durable.
    #[error("the checkpointer is closed")]
    Closed,

    /// Somebody has the directory open: another process, or another table of this one. It was not touched.
    #[error("the directory {} is in use by another process, or twice by this one", directory.display())]
    Locked {
        /// The directory of the table.
        directory: PathBuf,
    },

    /// The directory holds another table. It was not touched.
    #[error(
        "the directory {} holds the {found}, but the {expected} was asked for: check the configured paths",
        directory.display()
    )]
    OtherTable {
        /// The directory of the table.
        directory: PathBuf,
        /// The name and format that the caller asked for.
        expected: String,
        /// The name and format on disk.
        found: String,
    },

    /// The directory holds something that no table has put there. It was not touched.
    #[error("the directory {} is not a table: it contains {entry:?}", directory.display())]
    NotATable {
        /// The directory that was to be opened.
        directory: PathBuf,
        /// One of the entries that do not belong to a table.
        entry: String,
    },

    /// The operating system refused something while the table was opened. This says nothing about the table
    /// itself, which was left where it is.
    #[error("cannot {operation} {}: {reason}", path.display())]
    Open {
        /// What was attempted.
        operation: &'static str,
        /// The file or directory it was attempted on.
        path: PathBuf,
        /// The error of the operating system.
        reason: Arc<str>,
    },
}

impl TableError {
    /// True only if the refused call has certainly changed nothing and never will.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::EmptyKey | Self::Locked { .. } => true,
            Self::OtherTable { .. } | Self::NotATable { .. } => true,
            Self::Failed { .. } | Self::Closed | Self::Open { .. } => false,
        }
    }

    pub(crate) fn open(operation: &'static str, path: impl Into<PathBuf>, reason: impl fmt::Display) -> Self {
        Self::Open {
            operation,
            path: path.into(),
            reason: reason.to_string().into(),
        }
    }
}

/// What a limit applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A key: [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES).
    Key,
    /// A value: [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES).
    Value,
    /// A batch: [`MAX_BATCH_BYTES`](crate::MAX_BATCH_BYTES).
    Batch,
}

impl Part {
    pub(crate) fn check(self, bytes: usize, limit: usize) -> Result<(), TableError> {
        if bytes > limit {
            Err(TableError::TooLarge {
                part: self,
                bytes,
                limit,
            })
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
            Self::Batch => "batch",
        })
    }
}
