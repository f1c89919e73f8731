use std::fmt;
use std::sync::OnceLock;

use crate::TableError;

/// The first failure of a table, which every later call repeats (R10): after a failed write or sync the pages
/// in memory may differ from those on disk, so an answer could show what no restart would find again.
#[derive(Debug)]
pub(crate) struct Sticky {
    table: &'static str,
    first: OnceLock<TableError>,
}

impl Sticky {
    pub(crate) fn new(table: &'static str) -> Self {
        Self {
            table,
            first: OnceLock::new(),
        }
    }

    /// Refuses once the table has failed.
    pub(crate) fn check(&self) -> Result<(), TableError> {
        self.first.get().cloned().map_or(Ok(()), Err)
    }

    /// Remembers the failure, unless there was an earlier one, and returns the first.
    pub(crate) fn fail(&self, operation: &'static str, reason: impl fmt::Display) -> TableError {
        let table = self.table;
        self.first
            .get_or_init(|| {
                tracing::error!(table, operation, %reason, "the table has failed and serves nothing more");
                TableError::Failed {
                    table,
                    operation,
                    reason: reason.to_string().into(),
                }
            })
            .clone()
    }
}
