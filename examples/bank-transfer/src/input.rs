//! Transfers from a CSV file.
//!
//! The whole file is read and checked before anything is started: a file with a bad row is refused as a whole, with
//! every bad row named, so that nobody has to find out which of its transfers have happened.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, Trim};
use thiserror::Error;

use crate::account::AccountError;
use crate::amount::AmountError;
use crate::{AccountId, Cents};

/// What the first row has to be.
pub const HEADER: [&str; 4] = ["from", "to", "amount", "key"];

/// Rows in one file, at most: all of them are kept in memory, with their outcomes, until the audit.
pub const MAX_ROWS: usize = 1_000_000;

/// The longest line, in bytes: many times what a transfer needs.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 64;

/// Bad rows that an error shows; the others are counted.
const SHOWN: usize = 20;

/// One row: what somebody wants to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Where it stands in its file; the header is row 1.
    pub row: u64,
    /// Where the money is taken from.
    pub from: AccountId,
    /// Where it goes; another account.
    pub to: AccountId,
    /// How much.
    pub amount: Cents,
    /// Names the transfer for whoever asked for it; unique in its file.
    pub key: String,
}

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

/// Reads the transfers of a file.
pub fn read_file(path: &Path) -> Result<Vec<Transfer>, InputError> {
    let file = path.display().to_string();
    match File::open(path) {
        Ok(opened) => read(opened, file),
        Err(source) => Err(InputError::Unreadable { file, source }),
    }
}

/// Reads transfers; `file` is how errors name the input.
pub fn read(input: impl Read, file: impl Into<String>) -> Result<Vec<Transfer>, InputError> {
    let file = file.into();
    let mut lines = BufReader::new(input);
    let mut line = Vec::new();
    let mut checker = Checker::default();
    for row in 1.. {
        line.clear();
        match lines
            .by_ref()
            .take(MAX_LINE_BYTES + 1)
            .read_until(b'\n', &mut line)
        {
            Ok(0) => break,
            Ok(bytes) if bytes as u64 > MAX_LINE_BYTES => return Err(InputError::LineTooLong { file, row }),
            Ok(_) => {}
            Err(source) => return Err(InputError::Unreadable { file, source }),
        }
        let fields = fields(&line);
        if row == 1 {
            if fields != *HEADER.as_slice() {
                let found = shortened(line.trim_ascii());
                return Err(InputError::BadHeader { file, found });
            }
        } else if !line.trim_ascii().is_empty() {
            if checker.rows == MAX_ROWS {
                return Err(InputError::TooManyRows { file, row });
            }
            let quotes = line.iter().filter(|byte| **byte == b'"').count();
            checker.check(
                row,
                if quotes % 2 == 0 {
                    parse(row, &fields)
                } else {
                    Err(RowProblem::OpenQuote)
                },
            );
        }
    }
    checker.finish(file)
}

/// The fields of one line. A quote that is never closed ends with its line, so that it spoils no other row.
fn fields(line: &[u8]) -> ByteRecord {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .buffer_capacity(512)
        .from_reader(line);
    let mut record = ByteRecord::new();
    match reader.read_byte_record(&mut record) {
        Ok(_) => record,
        Err(error) => unreachable!("bytes in memory are always some record: {error}"),
    }
}

/// Checks rows one after the other, and goes on after a bad one so that all can be named.
#[derive(Default)]
struct Checker {
    rows: usize,
    transfers: Vec<Transfer>,
    keys: HashMap<String, u64>,
    bad: Vec<BadRow>,
    bad_count: usize,
}

impl Checker {
    fn check(&mut self, row: u64, parsed: Result<Transfer, RowProblem>) {
        self.rows += 1;
        let transfer = parsed.and_then(|transfer| match self.keys.entry(transfer.key.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(row);
                Ok(transfer)
            }
            Entry::Occupied(entry) => Err(RowProblem::RepeatedKey {
                value: entry.key().clone(),
                first: *entry.get(),
            }),
        });
        match transfer {
            // Nobody will need it when the file is refused.
            Ok(transfer) if self.bad_count == 0 => self.transfers.push(transfer),
            Ok(_) => {}
            Err(problem) => {
                self.bad_count += 1;
                if self.bad.len() < SHOWN {
                    self.bad.push(BadRow { row, problem });
                }
            }
        }
    }

    fn finish(self, file: String) -> Result<Vec<Transfer>, InputError> {
        if self.bad_count > 0 {
            return Err(InputError::BadRows {
                file,
                count: self.bad_count,
                bad: self.bad,
            });
        }
        if self.transfers.is_empty() {
            return Err(InputError::NoTransfers { file });
        }
        Ok(self.transfers)
    }
}

fn parse(row: u64, record: &ByteRecord) -> Result<Transfer, RowProblem> {
    if record.len() != HEADER.len() {
        return Err(RowProblem::Columns { found: record.len() });
    }
    let text = |column: usize| {
        std::str::from_utf8(&record[column]).map_err(|_| RowProblem::NotUtf8 {
            column: HEADER[column],
            value: shortened(&record[column]),
        })
    };
    let account = |column: usize| {
        let value = text(column)?;
        value.parse::<AccountId>().map_err(|problem| RowProblem::Account {
            column: HEADER[column],
            value: shortened(value.as_bytes()),
            problem,
        })
    };
    let (from, to) = (account(0)?, account(1)?);
    if from == to {
        return Err(RowProblem::SameAccount {
            value: to.to_string(),
        });
    }
    let value = text(2)?;
    let amount = value.parse().map_err(|problem| RowProblem::Amount {
        value: shortened(value.as_bytes()),
        problem,
    })?;
    let key = text(3)?;
    if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(RowProblem::Key {
            value: shortened(key.as_bytes()),
        });
    }
    Ok(Transfer {
        row,
        from,
        to,
        amount,
        key: key.to_owned(),
    })
}

/// What strangers write may be megabytes long; an error quotes the beginning.
fn shortened(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(300)]);
    let kept: String = text.chars().take(60).collect();
    if kept.len() < value.len() && kept.len() < text.len() {
        format!("{kept}…")
    } else {
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "from,to,amount,key\nnorth-000001,south-000002,12.50,k1\nsouth-000002,south-000003,1,k2\n";

    fn refused(text: impl AsRef<[u8]>) -> String {
        read(text.as_ref(), "book.csv").unwrap_err().to_string()
    }

    /// What is said of a file whose third row is this.
    fn refused_row(row: &str) -> String {
        refused(format!(
            "from,to,amount,key\nnorth-000001,south-000002,12.50,k1\n{row}\n"
        ))
    }

    #[test]
    fn rows_are_read_with_their_place() {
        let transfers = read(GOOD.as_bytes(), "book.csv").unwrap();
        let expected = Transfer {
            row: 3,
            from: "south-000002".parse().unwrap(),
            to: "south-000003".parse().unwrap(),
            amount: Cents::new(100).unwrap(),
            key: "k2".to_owned(),
        };
        assert_eq!((transfers.len(), &transfers[1]), (2, &expected));
    }

    #[test]
    fn spaces_quotes_windows_line_ends_and_a_byte_order_mark_do_not_matter() {
        let expected = read(GOOD.as_bytes(), "").unwrap();
        let quoted = GOOD
            .replace("north-000001", "\"north-000001\"")
            .replace("k1", "\"k1\"");
        let windows = GOOD.replace('\n', "\r\n");
        let written_elsewhere = [
            quoted.clone(),
            windows.clone(),
            quoted.replace('\n', "\r\n"),
            GOOD.replace(',', " , "),
            format!("\u{feff}{windows}"),
            GOOD.trim_end().to_owned(),
        ];
        for text in written_elsewhere {
            assert_eq!(read(text.as_bytes(), "").unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn lines_without_anything_are_skipped_and_counted() {
        for line_end in ["\n", "\r\n", " \t\n"] {
            let text = GOOD.replace(
                "south-000002,south",
                &format!("{line_end}{line_end}south-000002,south"),
            );
            let rows: Vec<u64> = read(text.as_bytes(), "")
                .unwrap()
                .iter()
                .map(|transfer| transfer.row)
                .collect();
            assert_eq!(rows, [2, 5], "{line_end:?}");
        }
    }

    #[test]
    fn a_bad_row_is_named_with_file_row_column_and_value() {
        let cases = [
            ("north-000001,south-000002,12.50", "has 3 columns"),
            ("north-000001,south-000002,12.50,k2,more", "has 5 columns"),
            ("nonsense", "has 1 columns"),
            (
                "north-1,south-000002,1,k2",
                "column from: \"north-1\" is not an account",
            ),
            (
                "north-000001,west-000002,1,k2",
                "column to: \"west-000002\" names no bank",
            ),
            (",south-000002,1,k2", "column from: \"\" is not an account"),
            (
                "south-000002,south-000002,1,k2",
                "column to: \"south-000002\" is also the account",
            ),
            (
                "north-000001,south-000002,-1,k2",
                "column amount: \"-1\" is negative",
            ),
            (
                "north-000001,south-000002,0.00,k2",
                "column amount: \"0.00\" is zero",
            ),
            (
                "north-000001,south-000002,99999999999999999999,k2",
                "column amount: \"99999999999999999999\" is too large",
            ),
            (
                "north-000001,south-000002,0.001,k2",
                "column amount: \"0.001\" has more than two decimal places",
            ),
            (
                "north-000001,south-000002,\"1,5\",k2",
                "column amount: \"1,5\" is not an amount",
            ),
            (
                "north-000001,south-000002,,k2",
                "column amount: \"\" is not an amount",
            ),
            ("north-000001,south-000002,1,", "column key: \"\" is not a key"),
            (
                "north-000001,south-000002,1,a b",
                "column key: \"a b\" is not a key",
            ),
            (
                "north-000001,south-000002,1,k1",
                "column key: \"k1\" is the key of row 2 already",
            ),
        ];
        for (row, says) in cases {
            let error = refused_row(row);
            assert!(
                error.contains("book.csv has 1 bad rows; nothing was started"),
                "{error}"
            );
            assert!(error.contains(&format!("row 3: {says}")), "{row}: {error}");
        }
        let long_key = refused_row(&format!("north-000001,south-000002,1,{}", "k".repeat(65)));
        assert!(
            long_key.contains(&format!("column key: \"{}…\"", "k".repeat(60))),
            "{long_key}"
        );
    }

    #[test]
    fn bytes_that_are_not_text_are_named_too() {
        let mut bytes = GOOD.as_bytes().to_vec();
        bytes.extend(b"north-000001,south-000002,\xff\xfe,k3\n");
        let error = refused(&bytes);
        assert!(
            error.contains("row 4: column amount") && error.contains("is not UTF-8"),
            "{error}"
        );
    }

    #[test]
    fn every_bad_row_is_named_up_to_twenty() {
        let mut text = GOOD.to_owned();
        for _ in 0..23 {
            text.push_str("north-000001,south-000002,0,k9\n");
        }
        let error = refused(&text);
        assert!(
            error.contains("has 23 bad rows") && error.ends_with("and 3 more"),
            "{error}"
        );
        assert_eq!(error.matches("is zero").count(), 20);
    }

    #[test]
    fn a_file_without_header_or_rows_is_refused() {
        assert!(refused("").contains("book.csv has no transfers"));
        assert!(refused("\n").contains("row 1: found \"\""));
        assert!(refused("from,to,amount,key\n").contains("book.csv has no transfers"));
        let no_header = refused("north-000001,south-000002,12.50,k1\n");
        assert!(
            no_header.contains("row 1: found \"north-000001,south-000002,12.50,k1\""),
            "{no_header}"
        );
        let other_columns = refused("from,to,amount\n");
        assert!(
            other_columns.contains("have to be from,to,amount,key"),
            "{other_columns}"
        );
    }

    #[test]
    fn a_quote_that_is_never_closed_spoils_only_its_row() {
        let error = refused(GOOD.replace("k1", "\"k1"));
        assert!(
            error.ends_with("has 1 bad rows; nothing was started\n  row 2: has a quote that is never closed"),
            "{error}"
        );
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let error = refused(format!("{GOOD}{}", "x".repeat(70_000)));
        assert!(
            error.contains("book.csv, row 4: the line is longer than 65536 bytes"),
            "{error}"
        );
        let long = refused(format!("{GOOD}{}\n", "x".repeat(60_000)));
        assert!(long.contains("row 4: has 1 columns"), "{long}");
    }

    #[test]
    fn too_many_rows_are_refused() {
        let mut text = "from,to,amount,key\n".to_owned();
        for row in 0..=MAX_ROWS {
            text.push_str(&format!("north-000001,south-000002,1,{row}\n"));
        }
        let error = refused(&text);
        assert!(
            error.contains("row 1000002: more than 1000000 transfers"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_file_and_a_folder_are_named() {
        for path in ["no/such/book.csv", "src"] {
            let error = read_file(Path::new(path)).unwrap_err().to_string();
            assert!(
                error.contains(&format!("cannot read the input file {path}")),
                "{error}"
            );
        }
    }
}
