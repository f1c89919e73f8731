use super::*;
use crate::checker::Verdict;
use crate::checker::made::{Made, step, tx};
use crate::history::{Answer, Step};

fn append(list: &str, value: u64) -> Step {
    let (participant, cell) = list.split_once('/').unwrap();
    step(participant, cell, Action::Append(value))
}

fn read(list: &str, values: &[u64]) -> Step {
    let (participant, cell) = list.split_once('/').unwrap();
    let values = Action::Read {
        number: Some(0),
        list: Some(values.to_vec()),
    };
    step(participant, cell, values)
}

/// What a list has at the end.
fn end(made: &mut Made, list: &str, values: &[u64]) {
    let (participant, cell) = list.split_once('/').unwrap();
    let cells = &mut made.participant(participant).cells;
    cells.entry(cell.to_owned()).or_default().list = values.to_vec();
}

/// Transactions that all committed, at the same time.
fn together(all: Vec<Vec<Step>>) -> Made {
    let mut made = Made::new();
    let open: Vec<_> = all
        .into_iter()
        .zip(1..)
        .map(|(steps, number)| made.invoke(Some(tx(number)), steps))
        .collect();
    for open in open {
        made.complete_ok(open, Answer::Committed);
    }
    made
}

/// The same, one after the other.
fn in_turn(all: Vec<Vec<Step>>) -> Made {
    let mut made = Made::new();
    for (steps, number) in all.into_iter().zip(1..) {
        made.ok(Some(tx(number)), steps, Answer::Committed);
    }
    made
}

#[test]
fn lists_that_were_written_one_after_the_other_are_right() {
    let mut made = in_turn(vec![
        vec![append("p1/x", 1), append("p2/y", 2)],
        vec![read("p1/x", &[1]), append("p1/x", 3), read("p1/x", &[1, 3])],
        vec![read("p1/x", &[1, 3]), read("p2/y", &[2])],
    ]);
    made.fail(Some(tx(9)), vec![append("p1/x", 9)], None);
    end(&mut made, "p1/x", &[1, 3]);
    end(&mut made, "p2/y", &[2]);
    let findings = made.assert(&Append, &[]);
    assert_eq!(findings.counted["appends"], 3);
    assert_eq!(findings.counted["reads"], 4);
}

#[test]
fn what_happened_at_once_may_have_come_in_any_order() {
    let mut made = together(vec![
        vec![append("p1/x", 1)],
        vec![append("p1/x", 2)],
        vec![read("p1/x", &[])],
        vec![read("p1/x", &[2])],
    ]);
    end(&mut made, "p1/x", &[2, 1]);
    made.assert(&Append, &[]);
}

#[test]
fn g0_dirty_writes_are_found() {
    let mut made = together(vec![
        vec![append("p1/x", 1), append("p2/y", 3)],
        vec![append("p1/x", 2), append("p2/y", 4)],
    ]);
    end(&mut made, "p1/x", &[1, 2]);
    end(&mut made, "p2/y", &[4, 3]);
    let findings = made.assert(&Append, &["G0"]);
    let what = &findings.violations[0].what;
    assert!(what.contains("appended 2 to p1/x after"), "{what}");
    assert!(what.contains("appended 3 to p2/y after"), "{what}");
}

#[test]
fn g1a_reads_of_what_was_aborted_are_found() {
    let mut made = Made::new();
    made.fail(Some(tx(1)), vec![append("p1/x", 1)], None);
    made.ok(Some(tx(2)), vec![read("p1/x", &[1])], Answer::Committed);
    made.assert(&Append, &["G1a_aborted_read"]);
    // Also when the list was read otherwise by others.
    made.ok(Some(tx(3)), vec![append("p1/x", 3)], Answer::Committed);
    made.ok(Some(tx(4)), vec![append("p1/x", 4)], Answer::Committed);
    end(&mut made, "p1/x", &[3, 4]);
    made.assert(&Append, &["G1a_aborted_read", "incompatible_order"]);
}

#[test]
fn g1b_reads_of_the_half_done_are_found() {
    let mut made = together(vec![
        vec![append("p1/x", 1), append("p1/x", 2)],
        vec![read("p1/x", &[1])],
    ]);
    end(&mut made, "p1/x", &[1, 2]);
    made.assert(&Append, &["G1b_intermediate_read", "G-single"]);
}

#[test]
fn g1c_circles_of_reads_are_found() {
    let mut made = together(vec![
        vec![append("p1/x", 1), read("p2/y", &[2])],
        vec![append("p2/y", 2), read("p1/x", &[1])],
    ]);
    end(&mut made, "p1/x", &[1]);
    end(&mut made, "p2/y", &[2]);
    made.assert(&Append, &["G1c"]);
}

#[test]
fn g_single_read_skew_is_found() {
    let mut made = together(vec![
        vec![read("p1/x", &[]), read("p2/y", &[2])],
        vec![append("p1/x", 1), append("p2/y", 2)],
    ]);
    end(&mut made, "p1/x", &[1]);
    end(&mut made, "p2/y", &[2]);
    let findings = made.assert(&Append, &["G-single"]);
    let what = &findings.violations[0].what;
    assert!(what.contains("did not see 1 in p1/x"), "{what}");
    assert!(what.contains("read 2 in p2/y"), "{what}");
}

#[test]
fn g2_write_skew_and_long_forks_are_found() {
    let mut skew = together(vec![
        vec![read("p1/x", &[]), append("p2/y", 2)],
        vec![read("p2/y", &[]), append("p1/x", 1)],
    ]);
    end(&mut skew, "p1/x", &[1]);
    end(&mut skew, "p2/y", &[2]);
    skew.assert(&Append, &["G2"]);
    let mut fork = together(vec![
        vec![append("p1/x", 1)],
        vec![append("p2/y", 2)],
        vec![read("p1/x", &[1]), read("p2/y", &[])],
        vec![read("p1/x", &[]), read("p2/y", &[2])],
    ]);
    end(&mut fork, "p1/x", &[1]);
    end(&mut fork, "p2/y", &[2]);
    fork.assert(&Append, &["G2"]);
}

#[test]
fn what_real_time_forbids_is_found() {
    let mut stale = in_turn(vec![vec![append("p1/x", 1)], vec![read("p1/x", &[])]]);
    end(&mut stale, "p1/x", &[1]);
    let findings = stale.assert(&Append, &["G-single-realtime"]);
    let what = &findings.violations[0].what;
    assert!(what.contains("was told before line 2 asked for"), "{what}");
    let mut backwards = in_turn(vec![
        vec![append("p1/x", 1)],
        vec![append("p1/x", 2)],
        vec![read("p1/x", &[2, 1])],
    ]);
    end(&mut backwards, "p1/x", &[2, 1]);
    backwards.assert(&Append, &["G0-realtime"]);
    let mut future = in_turn(vec![vec![read("p1/x", &[1])], vec![append("p1/x", 1)]]);
    end(&mut future, "p1/x", &[1]);
    future.assert(&Append, &["G1c-realtime"]);
    let mut long = Made::new();
    let middle = long.invoke(Some(tx(2)), vec![append("p1/x", 1), read("p2/y", &[])]);
    long.ok(Some(tx(3)), vec![append("p2/y", 2)], Answer::Committed);
    long.ok(Some(tx(1)), vec![read("p1/x", &[])], Answer::Committed);
    long.complete_ok(middle, Answer::Committed);
    end(&mut long, "p1/x", &[1]);
    end(&mut long, "p2/y", &[2]);
    long.assert(&Append, &["G2-realtime"]);
    let mut two = in_turn(vec![
        vec![append("p1/x", 1), read("p2/y", &[])],
        vec![read("p1/x", &[]), append("p2/y", 2)],
    ]);
    end(&mut two, "p1/x", &[1]);
    end(&mut two, "p2/y", &[2]);
    two.assert(&Append, &["G2"]);
}

#[test]
fn a_transaction_that_nobody_was_told_of_may_come_at_any_time() {
    let mut made = Made::new();
    made.info(Some(tx(1)), vec![append("p1/x", 1)]);
    made.info(None, vec![append("p1/x", 2)]);
    made.ok(Some(tx(3)), vec![read("p1/x", &[])], Answer::Committed);
    made.ok(Some(tx(4)), vec![read("p1/x", &[2])], Answer::Committed);
    made.ok(Some(tx(5)), vec![append("p1/x", 3)], Answer::Committed);
    end(&mut made, "p1/x", &[2, 1, 3]);
    made.assert(&Append, &[]);
    // But not before what it appended after.
    made.info(Some(tx(6)), vec![append("p1/x", 6), read("p1/x", &[])]);
    end(&mut made, "p1/x", &[2, 1, 3, 6]);
    made.assert(&Append, &["internal", "G-single"]);
}

#[test]
fn orders_that_do_not_fit_are_found() {
    let mut made = together(vec![
        vec![append("p1/x", 1)],
        vec![append("p1/x", 2)],
        vec![read("p1/x", &[1, 2])],
        vec![read("p1/x", &[2])],
    ]);
    end(&mut made, "p1/x", &[1, 2]);
    made.assert(&Append, &["incompatible_order"]);
    let mut made = together(vec![
        vec![append("p1/x", 1)],
        vec![append("p1/x", 2)],
        vec![read("p1/x", &[1, 2])],
    ]);
    end(&mut made, "p1/x", &[2]);
    made.assert(&Append, &["incompatible_order", "lost_append"]);
}

#[test]
fn appends_that_are_lost_doubled_or_from_nowhere_are_found() {
    let writes = || in_turn(vec![vec![append("p1/x", 1)], vec![read("p1/x", &[1])]]);
    let mut lost = writes();
    end(&mut lost, "p1/x", &[]);
    lost.assert(&Append, &["lost_append"]);
    let mut doubled = writes();
    end(&mut doubled, "p1/x", &[1, 1]);
    doubled.assert(&Append, &["duplicate_append"]);
    let mut nowhere = writes();
    end(&mut nowhere, "p1/x", &[1, 77]);
    nowhere.assert(&Append, &["value_from_nowhere"]);
    let mut elsewhere = writes();
    end(&mut elsewhere, "p1/x", &[1]);
    end(&mut elsewhere, "p2/y", &[]);
    elsewhere.ok(Some(tx(3)), vec![read("p2/y", &[1])], Answer::Committed);
    elsewhere.assert(&Append, &["value_from_nowhere"]);
}

#[test]
fn a_transaction_that_does_not_see_itself_is_found() {
    for seen in [&[][..], &[2, 1], &[1]] {
        let mut made = in_turn(vec![vec![
            append("p1/x", 1),
            append("p1/x", 2),
            read("p1/x", seen),
        ]]);
        end(&mut made, "p1/x", &[1, 2]);
        let findings = made.check(&Append);
        assert!(
            findings
                .violations
                .iter()
                .any(|violation| violation.kind == "internal"),
            "{seen:?}"
        );
    }
    let mut twice = together(vec![
        vec![append("p1/x", 1)],
        vec![read("p1/x", &[]), read("p1/x", &[1])],
    ]);
    end(&mut twice, "p1/x", &[1]);
    twice.assert(&Append, &["internal", "G-single"]);
}

#[test]
fn without_reads_values_or_participants_nothing_is_concluded() {
    let mut unread = in_turn(vec![vec![append("p1/x", 1)]]);
    end(&mut unread, "p1/x", &[1]);
    assert_eq!(unread.check(&Append).verdict, Verdict::Unknown);
    let mut twice = in_turn(vec![
        vec![append("p1/x", 1)],
        vec![append("p1/x", 1)],
        vec![read("p1/x", &[])],
    ]);
    end(&mut twice, "p1/x", &[1]);
    assert_eq!(twice.check(&Append).verdict, Verdict::Unknown);
    let mut unheard = in_turn(vec![vec![append("p1/x", 1)], vec![read("p1/x", &[1])]]);
    unheard.evidence.participants.clear();
    assert_eq!(unheard.check(&Append).verdict, Verdict::Unknown);
}

#[test]
fn it_applies_where_lists_are_written() {
    assert!(!Append.applies(&Made::with_transfers().case()));
    assert!(Append.applies(&in_turn(vec![vec![append("p1/x", 1)]]).case()));
}

/// So many transactions on lists of eight values, each of which reads what the last one left. With `wrong` every reader
/// of a list misses its last value.
fn long(transactions: u64, wrong: bool) -> Made {
    let mut made = Made::new();
    for value in 0..transactions {
        let list = format!("p1/x{}", value / 8);
        let before: Vec<u64> = (value / 8 * 8..value).collect();
        let seen = before.len() - usize::from(wrong && !before.is_empty());
        made.ok(
            Some(tx(value)),
            vec![read(&list, &before[..seen]), append(&list, value)],
            Answer::Committed,
        );
        if value % 8 == 7 {
            let all: Vec<u64> = before.into_iter().chain([value]).collect();
            end(&mut made, &list, &all);
        }
    }
    made
}

/// Bounds the work, because time depends on the machine. A step is a few nanoseconds.
#[test]
fn the_work_grows_with_the_history_and_no_faster() {
    for wrong in [false, true] {
        let steps = |transactions| {
            let findings = long(transactions, wrong).check(&Append);
            assert_eq!(findings.verdict == Verdict::Invalid, wrong);
            findings.counted["steps"]
        };
        let (some, twice) = (steps(4_000), steps(8_000));
        assert!(some < 4_000 * 80, "{some} steps");
        assert!(twice < some * 5 / 2, "{some} steps, then {twice}");
    }
}
