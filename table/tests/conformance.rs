//! What both tables promise, as one suite that runs on each.

// A test fails by panicking, in its helping functions too.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use unanimo_table::{
    Batch, Entry, MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES, MemoryTable, Part, SledOptions, SledTable,
    Table, TableError,
};

#[test]
fn the_table_in_memory_keeps_the_promises() {
    conformance(&|| Arc::new(MemoryTable::new()));
}

#[test]
fn the_table_on_disk_keeps_the_promises() {
    let parent = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    conformance(&|| {
        number.set(number.get() + 1);
        let directory = parent.path().join(number.get().to_string());
        Arc::new(
            SledTable::open(directory, SledOptions::new("test"))
                .unwrap()
                .table,
        )
    });
}

/// Runs every promise on a fresh table.
fn conformance(fresh: &dyn Fn() -> Arc<dyn Table>) {
    applied_changes_are_visible(&*fresh());
    the_last_word_in_a_batch_wins(&*fresh());
    scans_are_ordered_and_bounded(&*fresh());
    pages_join_up(&*fresh());
    what_is_too_large_is_refused_and_changes_nothing(&*fresh());
    the_largest_things_are_kept(&*fresh());
    the_empty_key_is_refused(&*fresh());
    a_scan_never_sees_half_a_batch(fresh());
}

fn entry(key: &str, value: &str) -> Entry {
    (key.into(), value.into())
}

fn put(table: &dyn Table, entries: &[(&str, &str)]) {
    let mut batch = Batch::new();
    for (key, value) in entries {
        batch.put(*key, *value);
    }
    table.apply(batch).unwrap();
}

fn applied_changes_are_visible(table: &dyn Table) {
    assert_eq!(table.get(b"a").unwrap(), None);
    put(table, &[("a", "1"), ("b", ""), ("c", "3")]);
    assert_eq!(table.get(b"a").unwrap(), Some(b"1".to_vec()));
    assert_eq!(
        table.get(b"b").unwrap(),
        Some(Vec::new()),
        "an empty value is a value"
    );
    let mut batch = Batch::new();
    batch.put("a", "2").remove("c").remove("not there");
    table.apply(batch).unwrap();
    table.apply(Batch::new()).unwrap();
    table.checkpoint().unwrap();
    assert_eq!(
        table.scan(b"", None, 10).unwrap(),
        [entry("a", "2"), entry("b", "")]
    );
    assert_eq!(table.get(b"c").unwrap(), None);
}

fn the_last_word_in_a_batch_wins(table: &dyn Table) {
    let mut batch = Batch::new();
    batch
        .put("a", "1")
        .remove("a")
        .remove("b")
        .put("b", "1")
        .put("b", "2");
    table.apply(batch).unwrap();
    assert_eq!(table.scan(b"", None, 10).unwrap(), [entry("b", "2")]);
}

fn scans_are_ordered_and_bounded(table: &dyn Table) {
    put(
        table,
        &[("b", "2"), ("a", "1"), ("ab", "3"), ("c", "4"), ("\0", "0")],
    );
    let all = [
        entry("\0", "0"),
        entry("a", "1"),
        entry("ab", "3"),
        entry("b", "2"),
        entry("c", "4"),
    ];
    assert_eq!(table.scan(b"", None, usize::MAX).unwrap(), all);
    assert_eq!(table.scan(b"", None, 5).unwrap(), all);
    assert_eq!(table.scan(b"", None, 4).unwrap(), all[..4]);
    assert_eq!(table.scan(b"", None, 0).unwrap(), []);
    assert_eq!(
        table.scan(b"a", Some(b"b"), 10).unwrap(),
        all[1..3],
        "the upper end is exclusive"
    );
    assert_eq!(
        table.scan(b"aa", None, 10).unwrap(),
        all[2..],
        "the lower end need not exist"
    );
    assert_eq!(table.scan(b"", Some(b"a"), 10).unwrap(), all[..1]);
    assert_eq!(table.scan(b"", Some(b""), 10).unwrap(), []);
    assert_eq!(table.scan(b"b", Some(b"b"), 10).unwrap(), []);
    assert_eq!(
        table.scan(b"c", Some(b"a"), 10).unwrap(),
        [],
        "the ends the wrong way round"
    );
    assert_eq!(table.scan(b"d", None, 10).unwrap(), []);
}

fn pages_join_up(table: &dyn Table) {
    for number in 0..500_u16 {
        // A multiplication by an odd number visits every key, out of order.
        let key = number.wrapping_mul(25_173).to_be_bytes();
        let mut batch = Batch::new();
        batch.put(key, number.to_be_bytes());
        table.apply(batch).unwrap();
    }
    let whole = table.scan(b"", None, 1000).unwrap();
    assert_eq!(whole.len(), 500);
    assert!(whole.is_sorted_by(|one, next| one.0 < next.0));
    let mut paged = Vec::new();
    let mut from = Vec::new();
    loop {
        let page = table.scan(&from, None, 7).unwrap();
        let Some((last, _)) = page.last() else { break };
        from = [last.as_slice(), &[0]].concat();
        paged.extend(page);
    }
    assert_eq!(paged, whole);
}

fn what_is_too_large_is_refused_and_changes_nothing(table: &dyn Table) {
    let too_large = |result: Result<(), TableError>| match result {
        Err(error @ TableError::TooLarge { part, limit, bytes }) => {
            assert!(error.is_definite());
            assert!(bytes > limit);
            part
        }
        other => panic!("expected a refusal, got {other:?}"),
    };
    let long_key = vec![b'k'; MAX_KEY_BYTES + 1];
    let mut batch = Batch::new();
    batch.put("a", "1").put(long_key.clone(), "1");
    assert_eq!(too_large(table.apply(batch)), Part::Key);
    let mut batch = Batch::new();
    batch.put("a", "1").remove(long_key.clone());
    assert_eq!(too_large(table.apply(batch)), Part::Key);
    let mut batch = Batch::new();
    batch.put("a", "1").put("b", vec![0; MAX_VALUE_BYTES + 1]);
    assert_eq!(too_large(table.apply(batch)), Part::Value);
    let mut batch = Batch::new();
    for number in 0..=MAX_BATCH_BYTES / MAX_VALUE_BYTES {
        batch.put(number.to_be_bytes(), vec![0; MAX_VALUE_BYTES]);
    }
    assert_eq!(too_large(table.apply(batch)), Part::Batch);
    assert_eq!(too_large(table.get(&long_key).map(drop)), Part::Key);
    assert_eq!(table.scan(b"", None, 10).unwrap(), []);
}

fn the_largest_things_are_kept(table: &dyn Table) {
    let key = vec![b'k'; MAX_KEY_BYTES];
    let value = vec![b'v'; MAX_VALUE_BYTES];
    let mut batch = Batch::new();
    batch.put(key.clone(), value.clone());
    table.apply(batch).unwrap();
    let mut batch = Batch::new();
    while batch.bytes() + MAX_VALUE_BYTES + 8 <= MAX_BATCH_BYTES {
        batch.put(batch.len().to_be_bytes(), value.clone());
    }
    let count = batch.len();
    table.apply(batch).unwrap();
    table.checkpoint().unwrap();
    assert_eq!(table.get(&key).unwrap(), Some(value.clone()));
    let entries = table.scan(b"", None, 1000).unwrap();
    assert_eq!(entries.len(), count + 1);
    assert!(entries.iter().all(|(_, found)| *found == value));
}

fn the_empty_key_is_refused(table: &dyn Table) {
    let mut batch = Batch::new();
    batch.put("", "1").put("a", "1");
    assert!(matches!(table.apply(batch), Err(TableError::EmptyKey)));
    assert!(matches!(table.get(b""), Err(TableError::EmptyKey)));
    assert_eq!(table.scan(b"", None, 10).unwrap(), []);
}

fn a_scan_never_sees_half_a_batch(table: Arc<dyn Table>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=300_u32 {
                let mut batch = Batch::new();
                for key in 0..20_u8 {
                    batch.put([key + 1], number.to_be_bytes());
                }
                table.apply(batch).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let entries = table.scan(b"", None, 100).unwrap();
            assert!(entries.is_empty() || entries.len() == 20);
            assert!(
                entries.windows(2).all(|pair| pair[0].1 == pair[1].1),
                "half a batch: {entries:?}"
            );
        }
    });
}
