//! What a human gets to see of a journal.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod driver;

use driver::{Driver, FIRST_SEGMENT};
use unanimo_journal::{Disk, Ending, Sequence, SimulatedDisk, inspect};

fn used() -> (SimulatedDisk, Driver) {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    driver.append("one");
    driver.append("two\n");
    driver.settle();
    driver.truncate_after(Sequence::new(1), "a payload that is longer than its preview");
    driver.settle();
    (disk, driver)
}

fn shown(disk: &SimulatedDisk) -> String {
    inspect(disk).unwrap().to_string()
}

#[test]
fn an_empty_directory_holds_no_journal() {
    assert_eq!(shown(&SimulatedDisk::new()), "There is no journal here.");
}

#[test]
fn every_frame_is_shown_with_its_bytes() {
    let (disk, _driver) = used();
    let expected = "\
test-journal-0000000000000001.segment: segment 1, 4096 bytes, header valid
        64  begin           0  durable      0       0 bytes  crc ok
        96  record          1  durable      0       3 bytes  crc ok  6f 6e 65  |one|
       136  record          2  durable      0       4 bytes  crc ok  74 77 6f 0a  |two.|
       176  truncation      3  durable      2      41 bytes  crc ok  after 1  \
61 20 70 61 79 6c 6f 61 64 20 74 68 61 74 20 69  |a payload that i|
       264  seal            3  durable      3       0 bytes  crc ok
  records end at 264, zeros behind
The journal ends after record 3 in test-journal-0000000000000001.segment at 264: a seal vouches for it.";
    assert_eq!(shown(&disk), expected);
}

#[test]
fn a_journal_without_a_seal_is_open_or_torn() {
    let (disk, mut driver) = used();
    driver.append("x");
    driver.append("y");
    driver.writer.step();
    let ending = inspect(&disk).unwrap().ending;
    assert!(
        matches!(&ending, Ending::Open { last, offset: 344, .. } if last.get() == 5),
        "{ending}"
    );

    // Damage to the first of the two: the second is a stray that proves nothing about it.
    disk.flip_bit(FIRST_SEGMENT, 264 + 32, 0);
    let inspection = inspect(&disk).unwrap();
    assert!(matches!(&inspection.ending, Ending::Torn { last, offset: 264, .. } if last.get() == 3));
    let text = inspection.to_string();
    assert!(
        text.contains("264  record          4  durable      3       1 bytes  NOT VALID  79 "),
        "{text}"
    );
    assert!(
        text.contains("304  record          5  durable      3       1 bytes  crc ok, behind the end  79"),
        "{text}"
    );
    assert!(
        text.contains("records end at 264, other bytes from 264 to 337"),
        "{text}"
    );
    assert!(
        text.ends_with("what follows is torn and was never acknowledged; opening the journal cuts it."),
        "{text}"
    );
}

#[test]
fn damage_is_named_with_its_proof() {
    let (disk, _driver) = used();
    disk.flip_bit(FIRST_SEGMENT, 96 + 32, 0);
    let text = shown(&disk);
    assert!(
        text.ends_with(
            "DAMAGED: test-journal-0000000000000001.segment holds no valid record at 96, after record 0, but \
             test-journal-0000000000000001.segment shows at 264 that record 3 was durable; the journal does not open."
        ),
        "{text}"
    );
    disk.flip_bit(FIRST_SEGMENT, 64, 0);
    assert_eq!(inspect(&disk).unwrap().ending, Ending::Headless);
}

#[test]
fn whatever_keeps_a_journal_from_opening_is_listed() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    for _ in 0..12 {
        driver.append(&"x".repeat(1000));
    }
    driver.settle();
    driver.close();
    let files = disk.list().unwrap();
    assert!(files.len() >= 4, "{files:?}");
    assert_eq!(inspect(&disk).unwrap().problems, Vec::<String>::new());
    disk.put("copy.segment", b"");
    disk.remove(&files[0]).unwrap();
    disk.remove(&files[2]).unwrap();
    disk.flip_bit(&files[1], 9, 0);
    let problems = inspect(&disk).unwrap().problems;
    assert_eq!(
        problems,
        [
            "copy.segment is not a segment of the same journal",
            "test-journal-0000000000000003.segment is missing",
            "test-journal-0000000000000001.segment is missing: it was not released",
            "test-journal-0000000000000002.segment: its format is version 257, this program reads version 1",
        ]
    );
}
