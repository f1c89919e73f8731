//! Runs of drawn schedules and of scripts, and the program around them.

#![allow(clippy::unwrap_used)] // In a test a panic is the report.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use unanimo_simulation::{replay, simulate};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_unanimo-simulate"))
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn the_rules_hold_and_transactions_commit_and_abort() {
    let report = simulate(1..61, 2, false, false);
    assert_eq!(report.violations, []);
    let counters = report.counters();
    for often in [
        "committed",
        "aborted",
        "adopted_by_a_new_leader",
        "tombstone_refused_a_prepare",
    ] {
        assert!(counters[often] > 0, "{often}: {counters:?}");
    }
    assert!(report.transactions > 60 * 50);
    assert!(report.is_valid());
}

#[test]
fn a_seed_gives_the_same_transcript_in_every_process() {
    let hashes = || stdout(&program(&["--seeds", "100", "--hashes", "--jobs", "1"]));
    let (first, second) = (hashes(), hashes());
    // The last line says how long it took.
    let lines = |text: &str| text.lines().take(100).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&first), lines(&second));
    let distinct: std::collections::BTreeSet<_> = lines(&first).into_iter().collect();
    assert_eq!(distinct.len(), 100);
    let one = || program(&["--seed", "7"]);
    let (first, second) = (one(), one());
    assert!(first.status.success());
    assert!(first.stdout.len() > 100_000);
    assert_eq!(first.stdout, second.stdout);
}

#[test]
fn how_many_run_at_a_time_changes_nothing() {
    let report = |jobs| {
        let report = simulate(1..21, jobs, true, false);
        (report.hashes, report.events, report.transactions)
    };
    assert_eq!(report(1), report(3));
}

#[test]
fn a_report_is_one_line_of_json() {
    let output = program(&["simulate", "--seeds", "3", "--json"]);
    assert!(output.status.success());
    let text = stdout(&output);
    let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for name in [
        "seeds",
        "simulated_seconds",
        "wall_seconds",
        "transactions",
        "faults",
        "counters",
        "missing",
        "violations",
    ] {
        assert!(!report[name].is_null(), "{name}");
    }
    assert_eq!(report["seeds"], 3);
    assert_eq!(report["violations"].as_array().unwrap().len(), 0);
}

#[test]
fn what_a_script_found_once_does_not_come_back() {
    assert!(scripts().len() >= 3);
    for path in scripts() {
        let text = std::fs::read_to_string(&path).unwrap();
        let (broken, transcript) = replay(&text).unwrap();
        assert_eq!(broken, None, "{}\n{transcript}", path.display());
        assert!(transcript.ends_with("everything is at rest\n") || transcript.contains("expected"));
    }
}

/// A cluster that may let nobody wait for acknowledgements never delivers again what was lost: a planted failure.
#[test]
fn a_failure_is_shrunk_to_a_script_that_shows_it() {
    let folder = std::env::temp_dir().join(format!("unanimo-shrink-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (large, small) = (folder.join("large.txt"), folder.join("small.txt"));
    let work = |n: u64| format!("work {} t{n} c1 3000 submit p1=-1 p2=+1\n", 1000 + n * 50);
    let script: String = ["seed 3\nknob completing 0\nknob loss 30\nknob faults_until_ms 6000\n".to_owned()]
        .into_iter()
        .chain((1..=60).map(work))
        .chain(["fault 2000 crash p2 after=0 down=3000 keep=0\nfault 900 elect c2\nfates drawn\n".to_owned()])
        .collect();
    std::fs::write(&large, &script).unwrap();
    let (large, small) = (large.to_str().unwrap(), small.to_str().unwrap());
    let output = program(&["--script", large, "--shrink", "--save", small]);
    assert!(!output.status.success());
    let saved = std::fs::read_to_string(small).unwrap();
    assert_eq!(saved, stdout(&output), "what is printed is what is saved");
    let count = |word: &str| saved.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!(count("work"), 1, "{saved}");
    assert!(count("fault") + count("fate") <= 1, "{saved}");
    let (broken, transcript) = replay(&saved).unwrap();
    assert_eq!(broken.unwrap().invariant, "progress");
    assert!(saved.ends_with(&transcript), "the script repeats its transcript");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_script_that_is_none_is_refused() {
    assert!(replay("sing a song").unwrap_err().to_string().contains("sing"));
    let output = program(&["--script", "/nowhere"]);
    assert!(!output.status.success());
}

/// Scripts named after a planted bug were shrunk from a run that has it, and find it. The others showed bugs that are
/// mended.
#[cfg(feature = "mutants")]
#[test]
fn scripts_find_the_bugs_that_they_are_named_after() {
    let named = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_uppercase();
    let planted: Vec<_> = scripts()
        .into_iter()
        .filter(|path| unanimo_core::mutants::Mutant::named(&named(path)).is_some())
        .collect();
    assert!(planted.len() >= 5, "{planted:?}");
    for path in planted {
        let name = named(&path);
        let output = program(&["--mutant", &name, "--script", path.to_str().unwrap()]);
        assert!(!output.status.success(), "{name} is not found");
        assert!(stdout(&output).contains("is broken"), "{name} is not found");
    }
}
