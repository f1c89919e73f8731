//! The program as people run it, for a while: processes are killed again and again, and audits run.

#![allow(clippy::unwrap_used)]

mod program;

use serde_json::Value;

use program::{run, stderr, stdout};

#[test]
fn leaders_are_killed_again_and_again_while_audits_run() {
    let output = run(&[
        "--seconds",
        "6",
        "--in-flight",
        "16",
        "--kill-leader-every",
        "2s",
        "--audit-every",
        "200ms",
        "--json",
    ]);
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{}{errors}", stdout(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    for (key, expected) in [
        ("unknown", 0),
        ("refused", 0),
        ("violations", 0),
        ("aborted_fully_prepared", 0),
        ("audits_wrong", 0),
        ("audits_unknown", 0),
        ("participant_kills", 0),
        ("total_after", 200_000_000),
    ] {
        assert_eq!(report[key], expected, "{key}: {report}");
    }
    let number = |key: &str| report[key].as_u64().unwrap();
    // The next one waits until everybody has caught up, however slow the machine is.
    assert!((1..=3).contains(&number("leader_kills")), "{report}");
    assert_eq!(
        errors.matches("the leader, for").count() as u64,
        number("leader_kills")
    );
    assert!(number("audits") > 0 && number("committed") > 0, "{report}");
    assert!(number("submitted") == number("transfers"), "{report}");
    let [at_deaths, all] =
        ["in_doubt_ms", "in_doubt_all_ms"].map(|key| report[key]["count"].as_u64().unwrap());
    assert!(
        0 < at_deaths && at_deaths < all,
        "some were in doubt when a leader died: {report}"
    );
}

#[test]
fn banks_are_killed_in_turn_while_audits_run() {
    let output = run(&[
        "--seconds",
        "6",
        "--in-flight",
        "16",
        "--kill-bank-every",
        "2s",
        "--audit-every",
        "200ms",
        "--json",
    ]);
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{}{errors}", stdout(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&report["violations"], &report["audits_wrong"]),
        (&Value::from(0), &Value::from(0)),
        "{report}"
    );
    assert!(report["participant_kills"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["audits"].as_u64().unwrap() > 0, "{report}");
    assert!(errors.contains("kill -9 of bank-south, a bank"), "{errors}");
}
