//! Every kind of bad input is refused, by name, and what is only written differently is not.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use bank_transfer::Cents;
use bank_transfer::input::{MAX_ROWS, Transfer, read, read_file};

const GOOD: &str = "from,to,amount,key\nnorth-000001,south-000002,12.50,k1\nsouth-000002,south-000003,1,k2\n";

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
