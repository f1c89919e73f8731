//! What is wrong with an input.

use std::fmt;

use thiserror::Error;

use crate::account::AccountError;
use crate::amount::AmountError;
use crate::input::{HEADER, MAX_KEY_BYTES, MAX_LINE_BYTES, MAX_ROWS};

/// Bad rows that an error shows; the others are counted.
pub(crate) const SHOWN: usize = 20;

/// An input that cannot be used. Nothing was started.
#[derive(Debug, Error)]
pub enum InputError {
    /// The file cannot be read.
    #[error("cannot read the input file {file}: {source}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The first row is not the header.
    #[error("input file {file}, row 1: found {found:?}, but the columns have to be {}", HEADER.join(","))]
    BadHeader {
        /// The file.
        file: String,
        /// The first row, shortened.
        found: String,
    },
    /// There is nothing to do.
    #[error("input file {file} has no transfers")]
    NoTransfers {
        /// The file.
        file: String,
    },
    /// More than [`MAX_ROWS`].
    #[error("input file {file}, row {row}: more than {MAX_ROWS} transfers; split the file")]
    TooManyRows {
        /// The file.
        file: String,
        /// The first row that is too many.
        row: u64,
    },
    /// A line that is no row of a table.
    #[error(
        "input file {file}, row {row}: the line is longer than {MAX_LINE_BYTES} bytes; is this a CSV file?"
    )]
    LineTooLong {
        /// The file.
        file: String,
        /// The row.
        row: u64,
    },
    /// Some rows are bad.
    #[error("input file {file} has {count} bad rows; nothing was started{}", listed(bad, *count))]
    BadRows {
        /// The file.
        file: String,
        /// How many.
        count: usize,
        /// The first of them.
        bad: Vec<BadRow>,
    },
}

fn listed(bad: &[BadRow], count: usize) -> String {
    let mut text: String = bad.iter().map(|row| format!("\n  {row}")).collect();
    if count > bad.len() {
        text.push_str(&format!("\n  and {} more", count - bad.len()));
    }
    text
}

/// What is wrong with one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Where it stands; the header is row 1.
    pub row: u64,
    /// What is wrong.
    pub problem: RowProblem,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}: {}", self.row, self.problem)
    }
}

/// Why a row is not a transfer. Values are shortened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RowProblem {
    /// Too few or too many columns.
    #[error("has {found} columns, but there are {}: {}", HEADER.len(), HEADER.join(","))]
    Columns {
        /// How many it has.
        found: usize,
    },
    /// A quote is opened and not closed.
    #[error("has a quote that is never closed")]
    OpenQuote,
    /// Not text.
    #[error("column {column}: {value:?} is not UTF-8")]
    NotUtf8 {
        /// The column.
        column: &'static str,
        /// The value.
        value: String,
    },
    /// The column names no account.
    #[error("column {column}: {value:?} {problem}")]
    Account {
        /// The column.
        column: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        problem: AccountError,
    },
    /// Both accounts are the same.
    #[error("column to: {value:?} is also the account in column from; a transfer needs two accounts")]
    SameAccount {
        /// The account.
        value: String,
    },
    /// Not an amount.
    #[error("column amount: {value:?} {problem}")]
    Amount {
        /// The value.
        value: String,
        /// What is wrong with it.
        problem: AmountError,
    },
    /// Not a key.
    #[error("column key: {value:?} is not a key; use 1 to {MAX_KEY_BYTES} visible ASCII characters")]
    Key {
        /// The value.
        value: String,
    },
    /// A key that an earlier row has.
    #[error("column key: {value:?} is the key of row {first} already; a key names one transfer")]
    RepeatedKey {
        /// The key.
        value: String,
        /// The row that has it.
        first: u64,
    },
}
