//! Opening a directory: creation, restarts, locks and mix-ups.

// A test fails by panicking, in its helping functions too.
#![allow(clippy::unwrap_used)]

mod fixture;

use std::env;
use std::fs::{self, File};
use std::sync::{Barrier, Mutex};

use fixture::{CHILD, Model, contents, copy, open, options, put, second_process, small_table};
use unanimo_table::{SledOptions, SledTable, TableError};

#[test]
fn what_was_applied_is_there_after_a_restart() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("not/yet/there");
    for round in 0..5_u8 {
        let opened = open(&directory);
        assert_eq!(opened.set_aside, None);
        assert_eq!(contents(&opened.table).len(), usize::from(round));
        put(&opened.table, [round], [round; 100]);
    }
    assert_eq!(contents(&open(&directory).table)[[4].as_slice()], [4; 100]);
}

#[test]
fn a_cache_that_is_too_small_for_sled_is_not_damage() {
    let parent = tempfile::tempdir().unwrap();
    let directory = small_table(parent.path());
    let opened = SledTable::open(
        &directory,
        SledOptions {
            cache_bytes: 0,
            ..options()
        },
    )
    .unwrap();
    assert_eq!(opened.set_aside, None);
    assert_eq!(contents(&opened.table).len(), 1);
}

#[test]
fn an_empty_directory_is_used_where_it_is() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("table");
    fs::create_dir(&directory).unwrap();
    assert_eq!(open(&directory).set_aside, None);
}

#[test]
fn a_table_that_is_in_use_is_refused_and_left_alone() {
    if let Some(directory) = env::var_os(CHILD) {
        match SledTable::open(directory, options()) {
            Err(TableError::Locked { .. }) => println!("\nrefused"),
            other => println!("\nnot refused: {other:?}"),
        }
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let directory = small_table(parent.path());
    let opened = open(&directory);
    assert!(matches!(
        SledTable::open(&directory, options()),
        Err(TableError::Locked { .. })
    ));
    let link = parent.path().join("link");
    std::os::unix::fs::symlink(&directory, &link).unwrap();
    assert!(matches!(
        SledTable::open(&link, options()),
        Err(TableError::Locked { .. })
    ));
    let child = second_process("a_table_that_is_in_use_is_refused_and_left_alone", &directory);
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(output.lines().any(|line| line == "refused"), "{output}");
    put(&opened.table, "b", "2");
    drop(opened);
    let opened = open(&directory);
    assert_eq!((opened.set_aside, contents(&opened.table).len()), (None, 2));
}

#[test]
fn of_many_who_create_a_table_at_once_one_gets_it() {
    const CALLERS: usize = 8;
    let parent = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let directory = parent.path().join(format!("table-{round}"));
        let start = Barrier::new(CALLERS);
        // The results are kept until everybody has tried, and the table with them.
        let results = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    start.wait();
                    let result = SledTable::open(&directory, options());
                    results.lock().unwrap().push(result);
                });
            }
        });
        let results = results.into_inner().unwrap();
        let refused = |result: &Result<_, _>| matches!(result, Err(TableError::Locked { .. }));
        assert_eq!(
            results.iter().filter(|result| refused(result)).count(),
            CALLERS - 1,
            "{results:?}"
        );
        let opened = results.iter().find_map(|result| result.as_ref().ok()).unwrap();
        assert_eq!(opened.set_aside, None);
    }
}

#[test]
fn a_table_in_use_by_somebody_who_does_not_know_our_lock_is_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = small_table(parent.path());
    let database = File::open(directory.join("db")).unwrap();
    for marker in [true, false] {
        if !marker {
            fs::remove_file(directory.join("table.marker")).unwrap();
        }
        database.lock().unwrap();
        let error = SledTable::open(&directory, options()).unwrap_err();
        assert!(matches!(error, TableError::Locked { .. }), "{error}");
        assert!(directory.join("db").exists());
        database.unlock().unwrap();
    }
}

#[test]
fn another_table_is_refused_by_name() {
    let parent = tempfile::tempdir().unwrap();
    let directory = small_table(parent.path());
    let error = SledTable::open(&directory, SledOptions::new("other")).unwrap_err();
    assert!(error.is_definite());
    let text = error.to_string();
    assert!(text.contains(directory.to_str().unwrap()), "{text}");
    assert!(
        text.contains("test table") && text.contains("other table"),
        "{text}"
    );
    fs::write(
        directory.join("table.marker"),
        "unanimo table, format 77\nwhatever\n",
    )
    .unwrap();
    let text = SledTable::open(&directory, options()).unwrap_err().to_string();
    assert!(text.contains("format 77") && text.contains("format 1"), "{text}");
    assert!(directory.join("db").exists());
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("table");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("letters.txt"), "dear").unwrap();
    fs::write(directory.join("db"), "a file by the name of one of ours").unwrap();
    let error = SledTable::open(&directory, options()).unwrap_err();
    assert!(
        matches!(&error, TableError::NotATable { entry, .. } if entry == "letters.txt"),
        "{error}"
    );
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
}

#[test]
fn an_unfinished_creation_starts_over() {
    // Every file that a creation makes before the marker, alone and with the earlier ones.
    let parent = tempfile::tempdir().unwrap();
    let original = small_table(parent.path());
    fs::remove_file(original.join("table.marker")).unwrap();
    let mut names: Vec<_> = fs::read_dir(&original)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    for count in 1..=names.len() {
        let directory = parent.path().join(format!("cut-{count}"));
        copy(&original, &directory);
        for name in &names[count..] {
            let path = directory.join(name);
            if path.is_dir() {
                fs::remove_dir(path).unwrap()
            } else {
                fs::remove_file(path).unwrap()
            }
        }
        let opened = open(&directory);
        let aside = opened.set_aside.unwrap();
        assert_eq!(aside, directory.with_extension("damaged-1"));
        assert_eq!(fs::read_dir(&aside).unwrap().count(), count, "nothing is deleted");
        assert_eq!(contents(&opened.table).len(), 0);
    }
}

#[test]
fn a_half_written_snapshot_is_not_a_reason_to_start_over() {
    let parent = tempfile::tempdir().unwrap();
    let directory = small_table(parent.path());
    fs::write(directory.join("snap.7FFFFFFFFFFFFFFF.generating"), "half").unwrap();
    let opened = open(&directory);
    assert_eq!(opened.set_aside, None);
    assert_eq!(
        contents(&opened.table),
        Model::from([(b"a".to_vec(), b"1".to_vec())])
    );
    assert!(!directory.join("snap.7FFFFFFFFFFFFFFF.generating").exists());
}

#[test]
fn a_table_that_cannot_be_read_is_not_set_aside_for_that() {
    // A name that cannot be opened as a file, for a reason that says nothing about the contents.
    let parent = tempfile::tempdir().unwrap();
    let directory = small_table(parent.path());
    let (database, elsewhere) = (directory.join("db"), directory.join("db.elsewhere"));
    fs::rename(&database, &elsewhere).unwrap();
    fs::create_dir(&database).unwrap();
    let error = SledTable::open(&directory, options()).unwrap_err();
    assert!(matches!(error, TableError::Open { .. }), "{error:?}");
    fs::remove_dir(&database).unwrap();
    fs::rename(&elsewhere, &database).unwrap();
    let opened = open(&directory);
    assert_eq!((opened.set_aside, contents(&opened.table).len()), (None, 1));
}
