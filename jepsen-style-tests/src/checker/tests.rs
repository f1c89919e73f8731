//! What holds for all checkers: nothing panics, nothing missing is a pass, and what is right passes all of them.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::made::{Made, add, step, tx};
use super::*;
use crate::cluster::Layout;
use crate::evidence::{CellEvidence, EffectEvidence, LogLine, ParticipantEvidence, PromiseEvidence};
use crate::history::{Action, Answer, Call, Event, Kind, Process, Step, Style, Tx};

fn any_tx() -> impl Strategy<Value = Tx> {
    (0..6_u64).prop_map(tx)
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof!["p[1-3]", Just("c1".to_owned()), Just(String::new())]
}

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..8_u64, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn any_delta() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -5..5_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)]
}

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        Just(Answer::Committed),
        Just(Answer::Aborted("no".to_owned())),
        Just(Answer::Undecided),
        Just(Answer::Expired),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        (any_delta(), any_delta()).prop_map(|(delta, floor)| Action::Add { delta, floor }),
        any_number().prop_map(Action::Append),
        (option::of(any_delta()), option::of(vec(any_number(), 0..5)))
            .prop_map(|(number, list)| Action::Read { number, list }),
    ];
    (any_name(), "[ab]", action).prop_map(|(participant, cell, action)| step(&participant, &cell, action))
}

fn any_call() -> impl Strategy<Value = Call> {
    let transact = (
        option::of(any_tx()),
        any::<bool>(),
        option::of("k[12]"),
        vec(any_step(), 0..5),
    );
    prop_oneof![
        4 => transact.prop_map(|(transaction, one_shot, key, steps)| Call::Transact {
            transaction,
            style: if one_shot { Style::OneShot } else { Style::Interactive },
            key,
            steps,
        }),
        1 => (any_tx(), any_number()).prop_map(|(transaction, node)| Call::Query { transaction, node }),
        1 => (any_tx(), vec(any_name(), 0..3)).prop_map(|(transaction, members)| Call::Abort { transaction, members }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![
        Just(Kind::Invoke),
        Just(Kind::Ok),
        Just(Kind::Fail),
        Just(Kind::Info)
    ];
    (
        any_number(),
        any_number(),
        0..4_u32,
        kind,
        any_call(),
        option::of(any_answer()),
    )
        .prop_map(|(index, time_ns, process, kind, call, answer)| Event {
            index,
            time_ns,
            process: Process(process),
            kind,
            call,
            answer,
            error: None,
        })
}

fn any_participant() -> impl Strategy<Value = ParticipantEvidence> {
    let cell =
        (any_delta(), vec(any_number(), 0..5)).prop_map(|(number, list)| CellEvidence { number, list });
    let effect = (
        any_tx(),
        vec(any_step(), 0..4),
        prop_oneof![0..3_u32, Just(u32::MAX)],
    )
        .prop_map(|(transaction, steps, times)| EffectEvidence {
            transaction,
            steps,
            times,
        });
    let promise =
        (vec(any_name(), 0..3), "r[12]").prop_map(|(members, request)| PromiseEvidence { members, request });
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any_number(),
        any_number(),
        any_number(),
    );
    let journal = (
        btree_map(any_tx(), any_number(), 0..5),
        btree_map(any_tx(), promise, 0..5),
        btree_map(any_tx(), any_number(), 0..5),
        btree_map(any_tx(), vec(any_answer(), 0..3), 0..5),
        vec(any::<u32>(), 0..4),
    );
    let ends = (
        btree_map("[ab]", cell, 0..3),
        vec(effect, 0..5),
        proptest::collection::btree_set(any_tx(), 0..2),
    );
    (flags, journal, ends).prop_map(|(flags, journal, ends)| ParticipantEvidence {
        answered: flags.0,
        journal_whole: flags.1,
        refused_messages: flags.2,
        in_doubt: flags.3,
        holding: flags.4,
        promised: journal.0,
        promises: journal.1,
        heard: journal.2,
        terminal: journal.3,
        starts: journal.4,
        cells: ends.0,
        effects: ends.1,
        promised_after_end: ends.2.clone(),
        committed_unpromised: ends.2.clone(),
        said_yes: flags.0.then(|| ends.2.clone()),
        said_committed: flags.1.then_some(ends.2),
    })
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    let numbers = (any_number(), any_number(), any_number());
    let layout = numbers.prop_map(|(coordinators, participants, replaced)| Layout {
        coordinators,
        participants,
        replaced,
    });
    let line = any_name().prop_map(|member| LogLine {
        member,
        line: "panicked at".to_owned(),
    });
    (
        option::of(layout),
        vec(any_step(), 0..4),
        btree_map(any_name(), any_participant(), 0..3),
        btree_map(any_number(), btree_map(any_tx(), any_answer(), 0..5), 0..4),
        vec(line, 0..2),
        option::of(any_number()),
    )
        .prop_map(
            |(layout, opening, participants, outcomes, lines, began_unix_ms)| Evidence {
                layout,
                opening,
                participants,
                outcomes,
                alarms: lines.clone(),
                panics: lines,
                began_unix_ms,
                ..Evidence::default()
            },
        )
}

fn any_fault() -> impl Strategy<Value = Injected> {
    let name = prop_oneof![
        Just("kill-leader"),
        Just("replay-commit"),
        Just("restore-participant"),
        Just("bit-flip"),
        Just("wiped-participant"),
        Just("fsync-error"),
        Just("clock-jump"),
        Just(""),
    ];
    let said = prop_oneof![Just("refused"), Just("accepted"), Just("served"), Just("")];
    (name, any_number(), any_number(), option::of(said)).prop_map(|(fault, begun_ns, ended_ns, evidence)| {
        Injected {
            fault: fault.to_owned(),
            begun_ns,
            in_force_ns: begun_ns.checked_add(1),
            healed_ns: ended_ns.checked_sub(1),
            ended_ns,
            what: fault.to_owned(),
            evidence: evidence.map(str::to_owned),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn nothing_panics_on_anything(
        events in vec(any_event(), 0..30),
        evidence in any_evidence(),
        faults in vec(any_fault(), 0..3),
    ) {
        let history = History { events };
        let case = Case { history: &history, evidence: &evidence, faults: &faults };
        for checker in all() {
            checker.applies(&case);
            let findings = checker.check(&case);
            let verdict = match (findings.violations.is_empty(), findings.missing.is_empty()) {
                (false, _) => Verdict::Invalid,
                (true, false) => Verdict::Unknown,
                (true, true) => Verdict::Valid,
            };
            prop_assert_eq!(findings.verdict, verdict, "{}", checker.name());
        }
    }
}

/// A run with something for every checker, in which everything is right.
fn everything() -> Made {
    let mut made = Made::new();
    for number in 1..=40 {
        made.commit(tx(number), vec![add("p1", "a", -1), add("p2", "b", 1)]);
        made.wait(250);
    }
    let audit = ["p1/a", "p2/b"].map(|account| {
        let (participant, cell) = account.split_once('/').unwrap();
        let number = made.participant(participant).cells[cell].number;
        super::made::read_number(participant, cell, number)
    });
    made.commit(tx(41), audit.to_vec());
    made.commit(
        tx(42),
        vec![
            step("p1", "x", Action::Append(1)),
            step("p2", "y", Action::Append(2)),
        ],
    );
    let list = Action::Read {
        number: Some(0),
        list: Some(vec![1]),
    };
    made.commit(
        tx(43),
        vec![step("p1", "x", list), step("p1", "x", Action::Append(3))],
    );
    made.query(tx(1), 2, Answer::Committed);
    made.ok(
        Some(tx(1)),
        vec![add("p1", "a", -1), add("p2", "b", 1)],
        Answer::Committed,
    );
    made.fault("kill-leader", 3_000, 7_000, Some("killed"));
    made.fault("replay-commit", 7_000, 7_100, Some("refused"));
    made.fault("restore-participant", 7_200, 7_300, Some("refused"));
    made.fault("bit-flip", 7_400, 7_500, Some("refused"));
    made.fault("fsync-error", 7_600, 7_700, Some("it ended by itself"));
    made
}

#[test]
fn what_is_right_passes_every_checker_and_every_checker_looked() {
    let made = everything();
    let judged = judge(&made.case());
    assert_eq!(judged.len(), all().len());
    for findings in judged {
        assert_eq!(findings.verdict, Verdict::Valid, "{findings:#?}");
        assert!(findings.counted.values().any(|count| *count > 0), "{findings:#?}");
    }
}

#[test]
fn nothing_missing_is_a_pass() {
    type Strip = fn(&mut Made);
    let strip: [(&str, Strip); 6] = [
        ("participants", |made| made.evidence.participants.clear()),
        ("journals", |made| {
            for participant in made.evidence.participants.values_mut() {
                participant.journal_whole = false;
            }
        }),
        ("answers", |made| {
            for participant in made.evidence.participants.values_mut() {
                participant.answered = false;
            }
        }),
        ("nodes", |made| made.evidence.outcomes.clear()),
        ("logs", |made| made.evidence.logs_read.clear()),
        ("layout", |made| made.evidence.layout = None),
    ];
    for (what, strip) in strip {
        let mut made = everything();
        strip(&mut made);
        let findings = judge(&made.case());
        let unknown = findings
            .iter()
            .filter(|findings| findings.verdict == Verdict::Unknown);
        assert!(unknown.count() > 0, "a run without {what} passed");
        assert!(
            findings
                .iter()
                .all(|findings| findings.verdict != Verdict::Invalid),
            "{what}: {findings:#?}"
        );
    }
    // Without a history hardly anything is left.
    let mut made = everything();
    made.history.events.clear();
    for checker in all() {
        let verdict = made.check(checker.as_ref()).verdict;
        let by_evidence_alone = [
            "conservation",
            "ledger",
            "panics",
            "late-messages",
            "fencing",
            "raft-log",
            "promises",
            "corruption",
            "fail-stop",
            "in-doubt",
        ];
        let expected = by_evidence_alone.contains(&checker.name());
        assert_eq!(
            verdict == Verdict::Valid,
            expected,
            "{}: {verdict:?}",
            checker.name()
        );
    }
}

#[test]
fn names_are_unique_and_say_what_they_stand_for() {
    let names: std::collections::BTreeSet<_> = all().iter().map(|checker| checker.name()).collect();
    assert_eq!(names.len(), all().len());
    assert!(all().iter().all(|checker| checker.checks().starts_with('V')));
}

#[test]
fn of_many_violations_of_a_kind_some_are_kept_and_all_are_counted() {
    let mut findings = Findings::new(&panics::Panics);
    for _ in 0..100 {
        findings.violate("panic", "again", None);
    }
    assert_eq!(findings.violations.len() as u64, MOST_OF_A_KIND);
    assert_eq!(findings.counted["violations: panic"], 100);
}
