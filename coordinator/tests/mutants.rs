//! The `unanimo` program has planted bugs if it is built with the feature `mutants`, and not otherwise.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

use std::process::Command;

/// What `unanimo_core::mutants::MARKER` says. Spelt out: without the feature there is none.
const MARKER: &[u8] = b"unanimo was built with planted bugs";

/// Cargo builds the program of this test with the features of this test, so one build shows one half.
#[test]
fn the_program_contains_planted_bugs_if_it_was_built_with_them_and_not_otherwise() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_unanimo")).unwrap();
    let found = program.windows(MARKER.len()).any(|window| window == MARKER);
    assert_eq!(found, cfg!(feature = "mutants"));
}

#[test]
fn only_a_program_with_planted_bugs_looks_for_which_it_should_have() {
    let asked = Command::new(env!("CARGO_BIN_EXE_unanimo"))
        .args(["serve", "--config", "/nonexistent/node.toml"])
        .env("UNANIMO_MUTANT", "M0")
        .output()
        .unwrap();
    let told = String::from_utf8(asked.stderr).unwrap();
    assert!(!asked.status.success());
    assert_eq!(
        told.contains("there is no such mutant"),
        cfg!(feature = "mutants"),
        "{told}"
    );
}
