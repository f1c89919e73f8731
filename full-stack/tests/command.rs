//! The command, as it is called.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_unanimo-full-stack"))
        .args(arguments)
        .output()
        .unwrap()
}

/// A build that cannot repeat a run does not pretend to.
#[cfg(not(tokio_unstable))]
#[test]
fn a_build_without_seeds_for_tokio_says_how_to_make_one() {
    let output = run(&["seed", "1"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        errors.contains("RUSTFLAGS='--cfg tokio_unstable' cargo run"),
        "{errors}"
    );
}

#[cfg(tokio_unstable)]
#[test]
fn a_seed_does_the_same_in_every_process() {
    let output = run(&["seeds", "--first", "1", "--seeds", "3", "--twice", "--json"]);
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{line}");
    assert!(line.contains("\"violations\":[]"), "{line}");
}

#[cfg(tokio_unstable)]
#[test]
fn the_trace_is_the_same_byte_for_byte() {
    let (one, other) = (run(&["seed", "4", "--trace"]), run(&["seed", "4", "--trace"]));
    let lines = |output: &Output| {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        // The last line says how long it took.
        let lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        lines[..lines.len() - 1].to_vec()
    };
    assert!(lines(&one).len() > 100);
    assert_eq!(lines(&one), lines(&other));
}
