//! Damage of all kinds to a journal at rest: it is refused, or it changes nothing. It never costs a record.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod driver;

use driver::{Driver, FIRST_SEGMENT, Records, SECOND_SEGMENT, open, small};
use unanimo_journal::{Disk, FrameKind, OpenError, Sequence, SimulatedDisk, Step, inspect};

/// A disk with a journal on it, and what the journal must replay.
struct Image {
    disk: SimulatedDisk,
    records: Records,
}

/// A journal with a bit of everything, idle in the middle of its third segment; its first is gone.
fn running() -> (Driver, Image) {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    for number in 0..17 {
        driver.append(&format!("{number:0>300}"));
        if number % 3 == 0 {
            driver.settle();
        }
    }
    driver.settle();
    driver.journal.release_before(Sequence::new(12));
    driver.truncate_after(Sequence::new(16), "after sixteen");
    for number in 0..13 {
        driver.append(&"odd length ".repeat(20 + number));
    }
    driver.settle();
    driver.append("");
    driver.append("last");
    assert_eq!(driver.settle(), Step::Idle);
    let records = open(&disk.fork(), small()).unwrap().2;
    assert_eq!(
        records.len(),
        5 + 1 + 13 + 2,
        "of what is released and truncated nothing comes back"
    );
    assert_eq!(
        disk.list().unwrap().len(),
        3,
        "two segments in use, one being prepared: {:?}",
        disk.list()
    );
    (driver, Image { disk, records })
}

fn images() -> [Image; 2] {
    let (_driver, idle) = running();
    let (driver, closed) = running();
    driver.close();
    [
        Image {
            disk: idle.disk.fork(),
            ..idle
        },
        closed,
    ]
}

/// Opens a damaged copy. True if it opened, and then with every record; false if it refused.
fn opens_whole(disk: &SimulatedDisk, records: &Records, context: &str) -> bool {
    match open(disk, small()) {
        Ok((.., replayed)) => {
            assert!(replayed == *records, "{context}: opened without all records");
            true
        }
        Err(error) => {
            let known = matches!(
                error,
                OpenError::Damaged { .. }
                    | OpenError::UnusableSegment { .. }
                    | OpenError::MissingSegment { .. }
            );
            assert!(known, "{context}: {error}");
            assert!(
                error.to_string().contains("Restore this node"),
                "{context}: {error}"
            );
            false
        }
    }
}

/// The bytes of a segment that matter: its header and its lasting frames without their padding.
fn precious(disk: &SimulatedDisk, file: &str) -> Vec<bool> {
    let inspection = inspect(disk).unwrap();
    let segment = inspection
        .segments
        .iter()
        .find(|segment| segment.file == file)
        .unwrap();
    let mut precious = vec![false; segment.length as usize];
    precious[..64].fill(true);
    for frame in segment
        .frames
        .iter()
        .filter(|frame| frame.kind != Some(FrameKind::Seal))
    {
        let body = frame.length + frame.position.map_or(0, |_| 8);
        precious[frame.offset as usize..(frame.offset + 32 + body) as usize].fill(true);
    }
    precious
}

#[test]
fn every_flipped_bit_is_refused_or_harmless() {
    for image in images() {
        for file in image.disk.list().unwrap() {
            let precious = precious(&image.disk, &file);
            for (offset, precious) in precious.into_iter().enumerate() {
                // Behind the frames one bit of each byte stands for all.
                let bits = if precious {
                    0..8
                } else {
                    offset as u8 % 8..offset as u8 % 8 + 1
                };
                for bit in bits {
                    let disk = image.disk.fork();
                    disk.flip_bit(&file, offset as u64, bit);
                    let context = format!("{file}: bit {bit} of byte {offset}");
                    assert_eq!(
                        opens_whole(&disk, &image.records, &context),
                        !precious,
                        "{context}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_truncated_file_is_refused() {
    for image in images() {
        for file in image.disk.list().unwrap() {
            for length in 0..4096 {
                let disk = image.disk.fork();
                disk.truncate(&file, length);
                assert!(
                    !opens_whole(&disk, &image.records, &file),
                    "{file} cut to {length}"
                );
            }
        }
    }
}

#[test]
fn every_missing_segment_is_noticed_but_an_unused_last_one() {
    for image in images() {
        let files = image.disk.list().unwrap();
        for (position, file) in files.iter().enumerate() {
            let disk = image.disk.fork();
            disk.remove(file).unwrap();
            let unused = position == files.len() - 1;
            assert_eq!(opens_whole(&disk, &image.records, file), unused, "without {file}");
        }
    }
}

#[test]
fn a_missing_newest_segment_is_noticed_by_the_seal_before_it() {
    for image in images() {
        let files = image.disk.list().unwrap();
        let disk = image.disk.fork();
        for file in &files[1..] {
            disk.remove(file).unwrap();
        }
        let error = open(&disk, small()).err().unwrap();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
}

#[test]
fn every_zeroed_sector_before_the_last_is_refused() {
    let [image, _] = images();
    for file in image.disk.list().unwrap() {
        let precious = precious(&image.disk, &file);
        let until = precious.iter().rposition(|precious| *precious).unwrap_or(0);
        for sector in 0..until / 512 {
            let mut bytes = image.disk.contents(&file).unwrap();
            bytes[sector * 512..][..512].fill(0);
            let disk = image.disk.fork();
            disk.put(&file, &bytes);
            let context = format!("{file}: sector {sector}");
            assert!(!opens_whole(&disk, &image.records, &context), "{context}");
        }
    }
}

#[test]
fn a_segment_in_the_place_of_another_is_refused() {
    let [image, _] = images();
    let files = image.disk.list().unwrap();
    for (from, to) in [(0, 1), (1, 0), (2, 1), (2, 0), (0, 2)] {
        let disk = image.disk.fork();
        disk.put(&files[to], &image.disk.contents(&files[from]).unwrap());
        assert!(
            !opens_whole(&disk, &image.records, "misplaced"),
            "{} in {}",
            files[from],
            files[to]
        );
    }
}

#[test]
fn a_segment_of_another_journal_is_refused() {
    let journal = |text: &str| {
        let disk = SimulatedDisk::new();
        let mut driver = Driver::open(&disk);
        for _ in 0..6 {
            driver.append(&text.repeat(1000));
            driver.settle();
        }
        driver.close();
        disk
    };
    let (ours, theirs) = (journal("a"), journal("b"));
    for file in [FIRST_SEGMENT, SECOND_SEGMENT] {
        let disk = ours.fork();
        disk.put(file, &theirs.contents(file).unwrap());
        let error = open(&disk, small()).err().unwrap();
        assert!(matches!(error, OpenError::Damaged { .. }), "{file}: {error}");
    }
}

#[test]
fn files_that_are_not_ours_are_refused_if_they_look_like_ours() {
    let [image, _] = images();
    for name in [
        "other-journal-0000000000000001.segment",
        "copy.segment",
        "x.segment.new",
    ] {
        let disk = image.disk.fork();
        disk.put(name, b"");
        let error = open(&disk, small()).err().unwrap();
        assert!(
            matches!(&error, OpenError::ForeignFile { file, .. } if file == name),
            "{error}"
        );
    }
    let disk = image.disk.fork();
    disk.put("README", b"");
    assert!(opens_whole(&disk, &image.records, "a README"));
}

#[test]
fn unfinished_segments_are_removed() {
    let [image, _] = images();
    let unfinished = "test-journal-00000000000000ff.segment.new";
    image.disk.put(unfinished, &[1; 100]);
    assert!(opens_whole(&image.disk, &image.records, "unfinished"));
    assert_eq!(image.disk.contents(unfinished), None);
}

#[test]
fn the_refusal_says_what_an_operator_has_to_know() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    for text in ["one", "two", "three"] {
        driver.append(text);
    }
    driver.settle();
    driver.close();
    // The records stand at 96, 136 and 176.
    disk.flip_bit(FIRST_SEGMENT, 136 + 32, 0);
    let error = open(&disk, small()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "the test journal is damaged: test-journal-0000000000000001.segment holds no valid record at offset 136, \
         after record 1, but test-journal-0000000000000001.segment shows at offset 216 that record 3 was durable. \
         Restore this node from its peers or from a replica; never delete or edit the file."
    );
}

#[test]
fn a_refusal_leaves_the_disk_as_it_was() {
    let [image, _] = images();
    image.disk.flip_bit(&image.disk.list().unwrap()[0], 100, 0);
    let before = image.disk.operations();
    assert!(!opens_whole(&image.disk, &image.records, "flipped"));
    assert_eq!(image.disk.operations(), before);
}

#[test]
fn the_seal_of_a_closed_journal_is_on_the_disk() {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    driver.append("one");
    driver.settle();
    driver.close();
    disk.crash_losing_everything();
    disk.flip_bit(FIRST_SEGMENT, 96 + 32, 0);
    let error = open(&disk, small()).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { offset: 96, .. }), "{error}");
}

#[test]
fn a_record_of_another_history_is_refused_though_it_fits() {
    let history = |first: &str, second: &str| {
        let disk = SimulatedDisk::new();
        let mut driver = Driver::open(&disk);
        driver.append(first);
        driver.append(second);
        driver.settle();
        driver.close();
        disk.contents(FIRST_SEGMENT).unwrap()
    };
    let (mut ours, theirs) = (history("one", "two"), history("eno", "owt"));
    // Their second record has the position and the place of ours, and its own checksum is right.
    ours[136..176].copy_from_slice(&theirs[136..176]);
    let disk = SimulatedDisk::new();
    disk.put(FIRST_SEGMENT, &ours);
    let error = open(&disk, small()).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { offset: 136, .. }), "{error}");
}

/// Two groups that were synced, and no seal after them: the journal died right there.
fn unsealed() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let mut driver = Driver::open(&disk);
    for text in ["one", "two"] {
        driver.append(text);
        assert!(matches!(driver.writer.step(), Step::Wrote { durable: true, .. }));
    }
    assert_eq!(driver.acknowledged().len(), 2);
    disk.power_on();
    disk
}

#[test]
fn the_group_after_vouches_for_the_group_before() {
    let disk = unsealed();
    disk.flip_bit(FIRST_SEGMENT, 96 + 32, 0);
    assert!(matches!(
        open(&disk, small()).err().unwrap(),
        OpenError::Damaged { offset: 96, .. }
    ));
}

#[test]
fn damage_to_the_very_last_group_before_its_seal_cannot_be_told_from_a_torn_tail() {
    // The limit of what one copy can know: this takes a power loss and damage to the last group at once.
    let disk = unsealed();
    disk.flip_bit(FIRST_SEGMENT, 136 + 32, 0);
    assert_eq!(open(&disk, small()).unwrap().2.len(), 1);
}

#[test]
fn recovery_seals_what_it_found_so_that_later_damage_is_noticed() {
    let disk = unsealed();
    assert_eq!(open(&disk, small()).unwrap().2.len(), 2);
    disk.crash_losing_everything();
    disk.flip_bit(FIRST_SEGMENT, 136 + 32, 0);
    assert!(matches!(
        open(&disk, small()).err().unwrap(),
        OpenError::Damaged { offset: 136, .. }
    ));
}

#[test]
fn a_torn_tail_is_zeroed_before_anything_follows() {
    let disk = unsealed();
    // The remains of a group that was cut: a whole frame that would follow the next record of the same size.
    let mut driver = Driver::open(&disk);
    driver.append("aaa");
    driver.append("bbb");
    driver.writer.step();
    disk.flip_bit(FIRST_SEGMENT, 176 + 32, 0);
    disk.power_on();
    // Nobody knows that these two were durable, see above.
    let mut driver = Driver::open(&disk);
    assert_eq!(driver.replayed.len(), 2);
    assert!(
        disk.contents(FIRST_SEGMENT).unwrap()[176 + 32..]
            .iter()
            .all(|byte| *byte == 0),
        "only the seal is left"
    );
    driver.append("aaa");
    driver.settle();
    driver.close();
    assert_eq!(
        open(&disk, small()).unwrap().2.len(),
        3,
        "what was cut does not come back"
    );
}
