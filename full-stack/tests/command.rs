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

/// h2 forgets reset streams after a second, so that seed 2 once did something else where a run took several. Nobody waits for
/// anything here: time that passes for the machine and not for the run is what is tested.
#[cfg(tokio_unstable)]
#[test]
fn a_run_on_a_slow_machine_does_the_same() {
    use std::time::Duration;

    let hash = |text: &[u8]| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        text.split("trace_hash").nth(1).unwrap().to_owned()
    };
    let undisturbed = hash(&run(&["seed", "2"]).stdout);
    let mut child = Command::new(env!("CARGO_BIN_EXE_unanimo-full-stack"));
    let child = child.args(["seed", "2"]).stdout(std::process::Stdio::piped());
    let mut child = child.spawn().unwrap();
    let number = child.id().to_string();
    let signal = |name: &str| drop(Command::new("kill").args([name, &number]).output().unwrap());
    // A line is shorter than what a pipe holds, so nobody has to read it before the end.
    while child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
        signal("-STOP");
        std::thread::sleep(Duration::from_millis(100));
        signal("-CONT");
    }
    assert_eq!(hash(&child.wait_with_output().unwrap().stdout), undisturbed);
}
