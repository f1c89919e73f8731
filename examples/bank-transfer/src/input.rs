//! Transfers from a CSV file.
//!
//! The whole file is read and checked before anything is started: a file with a bad row is refused as a whole, with
//! every bad row named, so that nobody has to find out which of its transfers have happened.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, Trim};

use crate::bad_input::SHOWN;
pub use crate::bad_input::{BadRow, InputError, RowProblem};
use crate::{AccountId, Cents};

/// What the first row has to be.
pub const HEADER: [&str; 4] = ["from", "to", "amount", "key"];

/// Rows in one file, at most: all of them are kept in memory, with their outcomes, until the audit.
pub const MAX_ROWS: usize = 1_000_000;

/// The longest line, in bytes: many times what a transfer needs.
pub(crate) const MAX_LINE_BYTES: u64 = 64 * 1024;

/// The longest key, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 64;

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
        if row == 1 {
            // Some programs write a byte order mark.
            let header = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
            if fields(header) != *HEADER.as_slice() {
                let found = shortened(line.trim_ascii());
                return Err(InputError::BadHeader { file, found });
            }
        } else if !line.trim_ascii().is_empty() {
            if checker.rows == MAX_ROWS {
                return Err(InputError::TooManyRows { file, row });
            }
            checker.check(row, parse(row, &line));
        }
    }
    checker.finish(file)
}

/// The fields of one line. A quote that is never closed ends with its line, so that it spoils no other row.
fn fields(line: &[u8]) -> ByteRecord {
    if !line.contains(&b'"') {
        // Nearly all lines: a reader for each would take many times as long.
        return line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
    }
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
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

fn parse(row: u64, line: &[u8]) -> Result<Transfer, RowProblem> {
    if line.iter().filter(|byte| **byte == b'"').count() % 2 != 0 {
        return Err(RowProblem::OpenQuote);
    }
    let record = fields(line);
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
