//! Crashes and damage: what was durable is there, or the table says that it is not.

// A test fails by panicking, in its helping functions too.
#![allow(clippy::unwrap_used)]

mod fixture;

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;

use fixture::{CHILD, Model, contents, copy, open, options, put, second_process, small_table};
use unanimo_table::{Batch, MAX_KEY_BYTES, MAX_VALUE_BYTES, SledTable, Table};

#[test]
fn no_side_files_at_the_limits() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("table");
    let table = open(&directory).table;
    let mut model = Model::new();
    // The most that leaves and index pages can hold: long keys that differ in their first bytes, so that
    // there is no prefix to save, and long values; then changes to all of them.
    for round in 0..2_u8 {
        for number in 0..600_u32 {
            let mut key = number.wrapping_mul(0x9E37_79B1).to_be_bytes().to_vec();
            key.resize(MAX_KEY_BYTES, number as u8);
            let value = vec![round.wrapping_add(number as u8); MAX_VALUE_BYTES];
            put(&table, key.clone(), value.clone());
            model.insert(key, value);
        }
        table.checkpoint().unwrap();
        assert_eq!(fs::read_dir(directory.join("blobs")).unwrap().count(), 0);
    }
    drop(table);
    let opened = open(&directory);
    assert_eq!(opened.set_aside, None);
    assert!(contents(&opened.table) == model);
}

#[test]
fn the_image_of_a_running_table_has_its_last_checkpoint() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("table");
    let table = open(&directory).table;
    // After each batch, oldest first, and which of them the last checkpoint has made durable.
    let mut states = vec![contents(&table)];
    let mut durable = 0;
    for number in 0..120_u32 {
        put(&table, (number % 40).to_be_bytes(), vec![number as u8; 3000]);
        states.push(contents(&table));
        put(&table, "last", number.to_be_bytes());
        states.push(contents(&table));
        if number % 3 == 0 {
            table.checkpoint().unwrap();
            durable = states.len() - 1;
        }
        if number % 20 == 1 {
            let image = parent.path().join(format!("image-{number}"));
            copy(&directory, &image);
            let opened = open(&image);
            assert_eq!(opened.set_aside, None);
            let found = contents(&opened.table);
            assert!(
                states[durable..].contains(&found),
                "not a state since the checkpoint, image {number}"
            );
        }
    }
}

#[test]
fn a_killed_process_has_lost_nothing_it_had_announced() {
    if let Some(directory) = env::var_os(CHILD) {
        let table = SledTable::open(directory, options()).unwrap().table;
        let first = contents(&table).len() as u64 / 2;
        for number in first.. {
            let mut batch = Batch::new();
            batch.put(
                [b"a", number.to_be_bytes().as_slice()].concat(),
                vec![number as u8; 500],
            );
            batch.put(
                [b"b", number.to_be_bytes().as_slice()].concat(),
                vec![number as u8; 500],
            );
            table.apply(batch).unwrap();
            if number % 4 == 0 {
                table.checkpoint().unwrap();
                println!("\ndurable {number}");
            }
        }
    }
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("table");
    for round in 1..=5_u64 {
        let mut child = second_process("a_killed_process_has_lost_nothing_it_had_announced", &directory);
        let announced = |line: String| {
            line.strip_prefix("durable ")
                .map(|number| number.parse::<u64>().unwrap())
        };
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let mut lines = lines.filter_map(announced);
        lines.by_ref().find(|number| *number >= round * 100).unwrap();
        child.kill().unwrap();
        // What it had still written into the pipe counts as well.
        let announced = lines.last().unwrap_or(round * 100);
        child.wait().unwrap();
        let opened = open(&directory);
        assert_eq!(opened.set_aside, None);
        let found = contents(&opened.table);
        let complete = found.len() as u64 / 2;
        assert!(
            complete > announced,
            "{announced} was announced, {complete} are there"
        );
        for number in 0..complete {
            for name in [b"a", b"b"] {
                let key = [name, number.to_be_bytes().as_slice()].concat();
                assert_eq!(found[&key], vec![number as u8; 500]);
            }
        }
    }
}

#[test]
fn a_damaged_table_is_reported_until_it_is_rebuilt() {
    let parent = tempfile::tempdir().unwrap();
    let directory = small_table(parent.path());
    let damage = || {
        File::options()
            .write(true)
            .open(directory.join("db"))
            .unwrap()
            .set_len(10)
            .unwrap()
    };
    let aside = |number| Some(parent.path().join(format!("table.damaged-{number}")));
    damage();
    let opened = open(&directory);
    assert_eq!(opened.set_aside, aside(1));
    assert!(aside(1).unwrap().join("db").exists(), "nothing is deleted");
    assert_eq!(contents(&opened.table).len(), 0);
    put(&opened.table, "a", "half of it");
    drop(opened);
    let opened = open(&directory);
    assert_eq!(
        opened.set_aside,
        aside(1),
        "a crash in the middle of the rebuild must not hide it"
    );
    assert_eq!(contents(&opened.table).len(), 1);
    opened.table.rebuilt().unwrap();
    drop(opened);
    let opened = open(&directory);
    assert_eq!((&opened.set_aside, contents(&opened.table).len()), (&None, 1));
    drop(opened);
    damage();
    assert_eq!(open(&directory).set_aside, aside(2), "the first is still there");
}

#[test]
fn a_change_that_no_batch_has_made_is_damage() {
    // As when a page is lost and an older one takes its place: every checksum of sled's is right.
    type Wound = fn(&sled::Db);
    let wounds: [Wound; 4] = [
        |database| drop(database.remove("b").unwrap()),
        |database| drop(database.insert("b", "1").unwrap()),
        |database| drop(database.insert("c", "2").unwrap()),
        |database| drop(database.remove("").unwrap()),
    ];
    for wound in wounds {
        let parent = tempfile::tempdir().unwrap();
        let directory = small_table(parent.path());
        let table = open(&directory).table;
        put(&table, "b", "2");
        drop(table);
        assert_eq!(open(&directory).set_aside, None);
        let database = sled::Config::new().path(&directory).segment_size(8 * 1024 * 1024);
        let database = database.flush_every_ms(None).open().unwrap();
        wound(&database);
        drop(database);
        assert!(open(&directory).set_aside.is_some());
    }
}

#[test]
fn a_crash_between_setting_aside_and_starting_over_hides_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let directory = small_table(parent.path());
    for (number, empty_successor) in [(1, false), (2, true)] {
        let aside = parent.path().join(format!("table.damaged-{number}"));
        fs::rename(&directory, &aside).unwrap();
        if empty_successor {
            fs::create_dir(&directory).unwrap();
        }
        let opened = open(&directory);
        assert_eq!(opened.set_aside, Some(aside));
        opened.table.rebuilt().unwrap();
        drop(opened);
        assert_eq!(open(&directory).set_aside, None);
    }
}

#[test]
fn an_older_state_that_looks_sound_is_damage() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("table");
    let old = parent.path().join("old");
    let table = open(&directory).table;
    put(&table, "a", "1");
    table.checkpoint().unwrap();
    copy(&directory, &old);
    put(&table, "a", "2");
    table.checkpoint().unwrap();
    drop(table);
    assert_eq!(open(&old).set_aside, None, "it is sound");
    // The file of the floor is the newer one.
    fs::copy(directory.join("table.floor"), old.join("table.floor")).unwrap();
    assert!(open(&old).set_aside.is_some());
}

/// Makes a table of more than one segment, with older versions of most pages, and removals. Closes it.
fn worn_table(directory: &Path) -> Model {
    let table = open(directory).table;
    let mut model = Model::new();
    for number in 0..2400_u32 {
        let key = (number.wrapping_mul(7919) % 700).to_be_bytes();
        if number % 11 == 3 {
            let mut batch = Batch::new();
            batch.remove(key);
            table.apply(batch).unwrap();
            model.remove(key.as_slice());
        } else {
            let value = vec![number as u8; 100 + (number as usize * 37) % 9000];
            put(&table, key, value.clone());
            model.insert(key.to_vec(), value);
        }
        if number % 100 == 0 {
            table.checkpoint().unwrap();
        }
    }
    table.checkpoint().unwrap();
    model
}

/// Damages one copy after another of a closed table, and opens each: it is set aside, or it serves exactly
/// what it had. Returns how many of each there were.
fn damage(file: &str, cases: usize, wound: impl Fn(&File, u64, usize)) -> (usize, usize) {
    let parent = tempfile::tempdir().unwrap();
    // sled takes a snapshot whenever it opens. What is older it reads only when asked for it; what is younger
    // is the end of its log, of which it keeps what it can read and says nothing about the rest.
    let young = parent.path().join("young");
    let model = worn_table(&young);
    let old = parent.path().join("old");
    copy(&young, &old);
    drop(open(&old));
    let (mut aside, mut intact) = (0, 0);
    for (original, case) in [&young, &old]
        .into_iter()
        .flat_map(|original| (0..cases).map(move |case| (original, case)))
    {
        let directory = parent.path().join("copy");
        copy(original, &directory);
        let names = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut names = names.map(|name| name.into_string().unwrap());
        // A table that was never opened again has no snapshot.
        let Some(name) = names.find(|name| name.starts_with(file)) else {
            fs::remove_dir_all(&directory).unwrap();
            continue;
        };
        let victim = File::options()
            .read(true)
            .write(true)
            .open(directory.join(&name))
            .unwrap();
        let length = victim.metadata().unwrap().len();
        wound(&victim, length, case);
        let opened = open(&directory);
        if let Some(path) = &opened.set_aside {
            aside += 1;
            assert_eq!(contents(&opened.table).len(), 0);
            fs::remove_dir_all(path).unwrap();
        } else {
            intact += 1;
            let same = contents(&opened.table) == model;
            assert!(
                same,
                "{}, {file}, case {case}: it serves something else",
                original.display()
            );
        }
        drop(opened);
        fs::remove_dir_all(&directory).unwrap();
    }
    (aside, intact)
}

/// A different place for every case, spread over the whole file.
fn place(length: u64, case: usize, cases: usize) -> u64 {
    length * (2 * case as u64 + 1) / (2 * cases as u64)
}

#[test]
fn overwritten_bytes_in_the_database_are_noticed() {
    let (aside, intact) = damage("db", 24, |file, length, case| {
        file.write_all_at(&[0xA5; 8], place(length, case, 24)).unwrap();
    });
    assert!(aside > 0, "{aside} set aside, {intact} intact");
}

#[test]
fn lost_blocks_in_the_database_are_noticed() {
    let (aside, intact) = damage("db", 16, |file, length, case| {
        let offset = place(length, case, 16) / 4096 * 4096;
        file.write_all_at(
            &vec![0; (4096 << (case % 8)).min((length - offset) as usize)],
            offset,
        )
        .unwrap();
    });
    assert!(aside > 0, "{aside} set aside, {intact} intact");
}

#[test]
fn a_truncated_database_is_noticed() {
    let (aside, intact) = damage("db", 16, |file, length, case| {
        file.set_len(place(length, case, 16) + case as u64 % 3).unwrap();
    });
    assert!(aside > 0, "{aside} set aside, {intact} intact");
}

#[test]
fn damage_in_the_small_files_is_noticed() {
    for name in ["conf", "snap.", "table.floor"] {
        let (aside, intact) = damage(name, 6, |file, length, case| {
            if case % 2 == 0 {
                file.write_all_at(&[0xA5], place(length, case, 6)).unwrap();
            } else {
                file.set_len(place(length, case, 6)).unwrap();
            }
        });
        assert!(aside > 0, "{name}: {aside} set aside, {intact} intact");
    }
}
