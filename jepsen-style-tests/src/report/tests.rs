//! A small run made by hand, and what its report must have.

use std::path::Path;
use std::slice::from_ref;

use unanimo_core::{Timestamp, TransactionId};

use super::plot::LEFT;
use super::plots::{self, Seen};
use super::*;
use crate::checker::{Case, Violation};
use crate::evidence::{CellEvidence, Evidence, ParticipantEvidence};
use crate::history::{Action, Answer, Call, Event, History, Kind, Process, Step, Style, Tx};

const MS: u64 = 1_000_000;
const BEGAN_UNIX_MS: u64 = 1_795_267_792_000;
/// What nobody may ever see as markup.
const HOSTILE: &str = "<script>alert(\"1\")</script>";

fn tx(number: u64) -> Tx {
    Tx(TransactionId::new(Timestamp::from_unix_ms(number), 0))
}

fn step(cell: &str, action: Action) -> Step {
    Step {
        participant: "p1".to_owned(),
        cell: cell.to_owned(),
        action,
    }
}

fn add(cell: &str, delta: i64) -> Step {
    step(cell, Action::Add { delta, floor: 0 })
}

fn read(cell: &str, number: i64) -> Step {
    let (number, list) = (Some(number), Some(Vec::new()));
    step(cell, Action::Read { number, list })
}

struct Made {
    result: RunResult,
    history: History,
    evidence: Evidence,
}

impl Made {
    /// Ten seconds: a transfer in each, a fault from the second to the fourth, one that nobody can prove, and an audit
    /// that finds too little at 8 s.
    fn new() -> Self {
        let layout = Layout {
            coordinators: 3,
            participants: 1,
            replaced: 0,
        };
        let found = ParticipantEvidence {
            answered: true,
            cells: [("a", 40), ("b", 60)]
                .map(|(cell, number)| (cell.to_owned(), CellEvidence { number, list: vec![] }))
                .into(),
            promised: [(tx(1), BEGAN_UNIX_MS + 1_000), (tx(2), BEGAN_UNIX_MS + 2_000)].into(),
            heard: [(tx(1), BEGAN_UNIX_MS + 1_010), (tx(2), BEGAN_UNIX_MS + 3_000)].into(),
            ..ParticipantEvidence::default()
        };
        let evidence = Evidence {
            layout: Some(layout),
            opening: vec![add("a", 50), add("b", 50)],
            participants: [("p1".to_owned(), found)].into(),
            began_unix_ms: Some(BEGAN_UNIX_MS),
            ..Evidence::default()
        };
        let mut made = Self {
            result: result(layout),
            history: History::default(),
            evidence,
        };
        for second in 1..=7 {
            let steps = vec![add("a", -1), add("b", 1)];
            made.operation(0, second, second * 1_000, second * 1_000 + 100, Kind::Ok, steps);
        }
        made.operation(1, 8, 8_000, 8_010, Kind::Ok, vec![read("a", 40), read("b", 59)]);
        made.operation(2, 9, 3_000, 10_000, Kind::Info, vec![add("a", -1), add("b", 1)]);
        made.operation(3, 10, 9_000, 9_001, Kind::Fail, vec![add("z", -1), add("a", 1)]);
        made
    }

    fn operation(
        &mut self,
        process: u32,
        number: u64,
        from_ms: u64,
        until_ms: u64,
        kind: Kind,
        steps: Vec<Step>,
    ) {
        let call = Call::Transact {
            transaction: Some(tx(number)),
            style: Style::Interactive,
            key: None,
            steps,
        };
        for (kind, at) in [(Kind::Invoke, from_ms), (kind, until_ms)] {
            self.history.events.push(Event {
                index: self.history.events.len() as u64,
                time_ns: at * MS,
                process: Process(process),
                kind,
                call: call.clone(),
                answer: (kind == Kind::Ok).then_some(Answer::Committed),
                error: (kind == Kind::Fail || kind == Kind::Info).then(|| HOSTILE.to_owned()),
            });
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen::new(Case {
            history: &self.history,
            evidence: &self.evidence,
            faults: &self.result.faults,
        })
    }

    /// As a run leaves it, with its report.
    fn write(&self, folder: &Path) -> Summary {
        let lines = self
            .history
            .events
            .iter()
            .map(|event| serde_json::to_string(event).unwrap());
        let history: String = lines.map(|line| line + "\n").collect();
        std::fs::write(folder.join("history.jsonl"), history).unwrap();
        std::fs::write(
            folder.join("evidence.json"),
            serde_json::to_vec(&self.evidence).unwrap(),
        )
        .unwrap();
        std::fs::create_dir_all(folder.join("data")).unwrap();
        let log = format!(
            "2026-11-21T13:29:52.500000Z  INFO coordinator: long before\n\
             2026-11-21T13:29:54.100000Z  INFO coordinator: leading {HOSTILE}\n\
             2026-11-21T13:29:57.000000Z  WARN raft: timeout after 225ms\n\
             2026-11-21T13:29:57.100000Z  WARN raft: timeout after 31ms\n\
             2026-11-21T13:29:59.000000Z  INFO coordinator: nothing near\n"
        );
        std::fs::write(folder.join("data/c1.log"), log).unwrap();
        Stored::new(folder, self.result.clone()).unwrap().write().unwrap()
    }
}

fn result(layout: Layout) -> RunResult {
    let fault = |fault: &str, begun_ms: u64, ended_ms: u64, evidence: Option<&str>| Injected {
        fault: fault.to_owned(),
        begun_ns: begun_ms * MS,
        in_force_ns: Some(begun_ms * MS),
        healed_ns: Some(ended_ms * MS),
        ended_ns: ended_ms * MS,
        what: format!("{fault} of c1 {HOSTILE}"),
        evidence: evidence.map(str::to_owned),
    };
    let violation = Violation {
        kind: "money_lost".to_owned(),
        what: format!("{} read 99 of 100", tx(8)),
        event: Some(15),
    };
    RunResult {
        verdict: Verdict::Invalid,
        seed: 7,
        workload: "bank".to_owned(),
        layout,
        seconds: 10,
        command: "run --workload bank --seed 7".to_owned(),
        findings: vec![Findings {
            checker: "conservation".to_owned(),
            verdict: Verdict::Invalid,
            violations: vec![violation],
            missing: vec![],
            counted: [("audits".to_owned(), 1)].into(),
        }],
        faults: vec![
            fault(
                "kill-leader",
                2_000,
                4_000,
                Some("it was process 1 and is process 2"),
            ),
            fault("pause-leader", 5_000, 5_500, None),
        ],
        faults_missing: vec!["pause-leader".to_owned()],
        problems: vec![],
    }
}

/// The value of an attribute of the first element that has all of these words in its tag.
fn attribute<'a>(svg: &'a str, words: &[&str], name: &str) -> &'a str {
    let tags = svg.split('<').map(|tag| tag.split('>').next().unwrap());
    let mut found = tags.filter(|tag| words.iter().all(|word| tag.contains(word)));
    let tag = found.next().unwrap_or_else(|| panic!("no {words:?} in {svg}"));
    let from = tag.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
    tag[from..].split('"').next().unwrap()
}

fn drawing(made: &Made, name: &str) -> String {
    let drawings = plots::all(&made.seen());
    let drawing = drawings.iter().find(|drawing| drawing.name == name).unwrap();
    drawing.wide.as_str().to_owned()
}

/// Where a moment is in a drawing 1100 wide of a run of ten seconds, with 14 left free at the right.
fn x(ms: u64) -> f64 {
    LEFT + ms as f64 / 10_000.0 * (1100.0 - LEFT - 14.0)
}

#[track_caller]
fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 0.06, "{found} is not {expected}");
}

#[test]
fn a_fault_is_shaded_from_its_beginning_to_its_end_and_named() {
    let made = Made::new();
    for name in ["latency", "rate", "money", "in-doubt", "timeline"] {
        let svg = drawing(&made, name);
        let number = |name| {
            attribute(&svg, &["rect ", "class=\"fault\""], name)
                .parse::<f64>()
                .unwrap()
        };
        assert_near(number("x"), x(2_000));
        assert_near(number("x") + number("width"), x(4_000));
        let unproven = attribute(&svg, &["rect ", "class=\"fault missing\""], "x");
        assert_near(unproven.parse().unwrap(), x(5_000));
        assert!(svg.contains(">1 kill-leader</text>") && svg.contains(">2 pause-leader</text>"));
    }
}

#[test]
fn points_lie_where_the_operations_are() {
    let svg = drawing(&Made::new(), "latency");
    let path = attribute(&svg, &["path ", "class=\"ok\""], "d");
    let points: Vec<(f64, f64)> = path
        .split('M')
        .skip(1)
        .map(|point| {
            let (x, y) = point.strip_suffix("h0").unwrap().split_once(' ').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        })
        .collect();
    assert_eq!(points.len(), 8);
    for (place, point) in points.iter().take(7).enumerate() {
        assert_near(point.0, x((place as u64 + 1) * 1_000));
    }
    // From 1 ms at the bottom to 10 s at the top, four steps of ten; 100 ms is in the middle, 10 ms a step below.
    let [bottom, top] = [">1 ms</text>", ">10 s</text>"].map(|tick| {
        let before = &svg[..svg.find(tick).unwrap()];
        let tag = &before[before.rfind("<text").unwrap()..];
        attribute(&format!("{tag}>"), &["text"], "y")
            .parse::<f64>()
            .unwrap()
            - 4.0
    });
    assert_near(points[0].1, (bottom + top) / 2.0);
    assert_near(points[7].1, bottom - (bottom - top) / 4.0);
}

#[test]
fn bars_last_as_long_as_the_operations() {
    let svg = drawing(&Made::new(), "timeline");
    let path = attribute(&svg, &["path ", "class=\"info\""], "d");
    let (from, to) = path.strip_prefix('M').unwrap().split_once('H').unwrap();
    assert_near(from.split_once(' ').unwrap().0.parse().unwrap(), x(3_000));
    assert_near(to.parse::<f64>().unwrap() + 0.4, x(10_000));
}

#[test]
fn money_that_is_missing_is_drawn_as_bad() {
    let svg = drawing(&Made::new(), "money");
    let number = |class: &str, name| {
        // The first of each class is the legend.
        let after = &svg[svg.find(&format!("sign {class}")).unwrap() + 1..];
        attribute(after, &["circle", class], name).parse::<f64>().unwrap()
    };
    assert_near(number("bad", "cx"), x(8_010));
    assert_near(number("final", "cx"), x(10_000));
    // Too little is below the line of what there was at first, on which the end is.
    assert!(number("bad", "cy") > number("final", "cy") + 1.0);
    assert_near(
        number("final", "cy"),
        attribute(&svg, &["line", "opened"], "y1").parse().unwrap(),
    );
}

#[test]
fn the_page_says_what_happened_and_escapes_what_others_said() {
    let folder = tempfile::tempdir().unwrap();
    let summary = Made::new().write(folder.path());
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    for said in [
        "<b>INVALID</b> A rule was broken: money lost.",
        "It was asked for 2.5 s after 2 pause-leader was over.",
        "run --workload bank --seed 7",
        "it was process 1 and is process 2",
        "none: nobody can tell whether it happened",
        "leading &lt;script&gt;",
        "(and 1 more like it)",
        "1 kill-leader begins",
        "The first bad operation",
        "<tr class=\"bad\"><td class=\"number\">8</td>",
    ] {
        assert!(page.contains(said), "{said:?} is not in the page");
    }
    for absent in [
        "<script",
        "long before",
        "nothing near",
        "http://",
        "https://",
        "NaN",
        "inf\"",
    ] {
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(absent), "{absent:?} is in the page");
    }
    for name in ["rate", "latency", "money", "in-doubt", "timeline", "first-bad"] {
        let svg = std::fs::read_to_string(folder.path().join(format!("{name}.svg"))).unwrap();
        assert!(svg.contains("</svg>") && svg.contains("prefers-color-scheme") && !svg.contains("<script"));
    }
    assert_eq!(summary.report, folder.path().join("report.html"));
}

#[test]
fn the_last_line_has_what_other_programs_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::new();
    let counted = [("ms p50", 5), ("ms p99", 900), ("ms max", 1_000)].map(|(name, ms)| (name.to_owned(), ms));
    made.result.findings.push(Findings {
        checker: "in-doubt".to_owned(),
        verdict: Verdict::Unknown,
        violations: vec![],
        missing: vec!["the clock".to_owned()],
        counted: counted.into(),
    });
    let line: serde_json::Value = serde_json::to_value(made.write(folder.path())).unwrap();
    assert_eq!(line["verdict"], "invalid");
    assert_eq!(line["seed"], 7);
    assert_eq!(
        [&line["operations"], &line["ok"], &line["fail"], &line["info"]],
        [10, 8, 1, 1]
    );
    assert_eq!(line["faults"], serde_json::json!({"kill-leader": 1}));
    assert_eq!(line["faults_missing"], serde_json::json!(["pause-leader"]));
    assert_eq!(line["violations"][0]["kind"], "money_lost");
    assert_eq!(line["violations"][0]["checker"], "conservation");
    assert_eq!(
        line["in_doubt_ms"],
        serde_json::json!({"p50": 5, "p99": 900, "max": 1_000})
    );
    assert!(line["recovery_ms"].is_null());
    assert_eq!(line["missing"], serde_json::json!(["in-doubt: the clock"]));
}

#[test]
fn a_stored_run_is_judged_again() {
    let folder = tempfile::tempdir().unwrap();
    Made::new().write(folder.path());
    let mut stored = Stored::read(folder.path()).unwrap();
    stored.judge();
    let summary = stored.write().unwrap();
    assert_eq!(summary.verdict, Verdict::Invalid);
    let kinds: Vec<_> = summary
        .violations
        .iter()
        .map(|violation| violation.kind.as_str())
        .collect();
    assert!(kinds.contains(&"money_lost"), "{kinds:?}");
    // More checkers than the one that was written down.
    let again: RunResult =
        serde_json::from_slice(&std::fs::read(folder.path().join("result.json")).unwrap()).unwrap();
    assert!(again.findings.len() > 5);
    assert!(Stored::read(&folder.path().join("nothing")).is_err());
}

#[test]
fn the_first_bad_operation_is_found_by_its_transaction_too() {
    let mut made = Made::new();
    let violation = &mut made.result.findings[0].violations[0];
    (violation.event, violation.what) = (None, format!("{} has no effect", tx(9)));
    let seen = made.seen();
    let bad = context::first_bad(&seen, &made.result.findings).unwrap();
    let is_bad = |near: &&context::Near<'_>| near.why == context::Why::Bad;
    let asked = bad.around.iter().find(is_bad).unwrap().asked;
    assert_eq!(
        (asked.call.transaction(), asked.time_ns),
        (Some(tx(9)), 3_000 * MS)
    );
    let disturbed = bad.disturbed(&seen).unwrap();
    assert!(
        disturbed.ends_with("1 kill-leader, 2 pause-leader."),
        "{disturbed}"
    );
    made.result.findings[0].violations[0].what = "something else".to_owned();
    assert!(context::first_bad(&made.seen(), &made.result.findings).is_none());
}

#[test]
fn a_plan_that_was_not_carried_out_is_no_pass() {
    let valid = Findings {
        checker: "x".to_owned(),
        verdict: Verdict::Valid,
        violations: vec![],
        missing: vec![],
        counted: Default::default(),
    };
    let some = ["kill-leader".to_owned()];
    let conclude = |findings: &[Findings], faults: &[String], problems: &[String]| {
        RunResult::conclude(findings, faults, problems)
    };
    assert_eq!(conclude(from_ref(&valid), &[], &[]), Verdict::Valid);
    assert_eq!(conclude(from_ref(&valid), &some, &[]), Verdict::Unknown);
    assert_eq!(conclude(from_ref(&valid), &[], &some), Verdict::Unknown);
    assert_eq!(conclude(&[], &[], &[]), Verdict::Unknown);
    let invalid = Findings {
        verdict: Verdict::Invalid,
        ..valid
    };
    assert_eq!(conclude(&[invalid], &some, &some), Verdict::Invalid);
}

#[test]
fn jepsen_reads_the_history_with_the_faults_in_it() {
    let made = Made::new();
    let edn = edn::history(&made.history, &made.result.faults);
    let lines: Vec<&str> = edn.lines().collect();
    assert_eq!(
        lines.len(),
        made.history.events.len() + 2 * made.result.faults.len()
    );
    for (place, line) in lines.iter().enumerate() {
        assert!(
            line.starts_with(&format!("{{:index {place}, :time ")) && line.ends_with('}'),
            "{line}"
        );
    }
    assert_eq!(
        lines[0],
        format!(
            "{{:index 0, :time 1000000000, :type :invoke, :process 0, :f :txn, \
             :value [[:add \"p1/a\" -1] [:add \"p1/b\" 1]], :tx \"{}\", :style :interactive, :line 0}}",
            tx(1)
        )
    );
    assert!(edn.contains(":process :nemesis, :f :start-kill-leader"));
    assert!(edn.contains(":value [[:r \"p1/a\" 40] [:r \"p1/b\" 59]]"));
    assert!(edn.contains(r#":error "<script>alert(\"1\")</script>""#));
}

#[test]
fn a_run_in_which_nothing_happened_has_a_report_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::new();
    made.history.events.clear();
    made.evidence = Evidence::default();
    made.result.findings.clear();
    made.result.faults.clear();
    made.result.verdict = Verdict::Unknown;
    let summary = made.write(folder.path());
    assert_eq!(summary.operations, 0);
    let page = std::fs::read_to_string(summary.report).unwrap();
    assert!(page.contains("A fault did not happen: pause-leader"));
    assert!(!page.contains("NaN"));
}
