//! The simulation of the whole stack: the real coordinator and participant in a simulated network, on simulated disks.
//!
//! It is a program of its own, because tokio takes a seed only where it is compiled with `tokio_unstable`, and nothing else
//! here is to be compiled so. This starts it, in a build with its own target folder, lets the checkers judge what each
//! seed leaves behind, and adds what they find to what the program has found itself. See `docs/full-stack-simulation.md`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use thiserror::Error;

use crate::checker::{self, Case, Verdict};
use crate::evidence::Evidence;
use crate::history::{History, HistoryError};

/// What makes tokio take a seed.
const CONFIGURATION: &str = "--cfg tokio_unstable";

/// Those that find all that they need in what a seed leaves behind. Each of them applies to every seed: all move money, and
/// nothing else.
const CHECKERS: [&str; 6] = [
    "agreement",
    "durability",
    "exactly-once",
    "honest-unknowns",
    "conservation",
    "ledger",
];

/// Which seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullStack {
    /// The first.
    pub first: u64,
    /// How many.
    pub seeds: u64,
}

/// Why nothing is known.
#[derive(Debug, Error)]
pub enum FullStackError {
    /// Cargo, or a folder, cannot be had.
    #[error("the simulation cannot be started, or what it left cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The history of a seed is none.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// It said something else than it should, or nothing.
    #[error("the simulation did not say what it found: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// Builds the program if need be, runs these seeds with it, and judges them. Returns what is to be told, and whether all is
/// well.
///
/// # Errors
///
/// [`FullStackError`]: nothing is known then.
pub fn run(asked: FullStack) -> Result<(Value, bool), FullStackError> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let flags = std::env::var("RUSTFLAGS").ok();
    let folder = tempfile::tempdir()?;
    let output = command(asked, jobs, flags.as_deref(), folder.path())
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut told: Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
    let mut fine = output.status.success();
    for seed in asked.first..asked.first + asked.seeds {
        let left = folder.path().join(seed.to_string());
        fine &= judge(seed, &left, &mut told)?;
    }
    Ok((told, fine))
}

/// Lets the checkers judge one seed, and adds what they find. Every one has to conclude that all is right: what is unknown is
/// no pass, nor is what nobody has judged.
fn judge(seed: u64, left: &Path, told: &mut Value) -> Result<bool, FullStackError> {
    let mut found = Vec::new();
    let mut find = |kind: String, what: &str| found.push(json!({ "seed": seed, "kind": kind, "what": what }));
    match read(left)? {
        None => find(
            "left_nothing".to_owned(),
            "the run left nothing that could be judged",
        ),
        Some((history, evidence)) => {
            let case = Case {
                history: &history,
                evidence: &evidence,
                faults: &[],
            };
            for checker in checker::all() {
                let name = checker.name();
                if !CHECKERS.contains(&name) {
                    continue;
                }
                if !checker.applies(&case) {
                    find(
                        format!("{name}: not_judged"),
                        "it does not apply to what the run left",
                    );
                    continue;
                }
                let findings = checker.check(&case);
                let judged = &mut told["judged"][name];
                *judged = json!(judged.as_u64().unwrap_or_default() + 1);
                for violation in findings.violations {
                    find(format!("{name}: {}", violation.kind), &violation.what);
                }
                if findings.verdict == Verdict::Unknown {
                    find(format!("{name}: unknown"), &findings.missing.join("; "));
                }
            }
        }
    }
    let fine = found.is_empty();
    if let Some(violations) = told["violations"].as_array_mut() {
        violations.extend(found);
    }
    Ok(fine)
}

/// What a seed has left. One whose process crashed has left nothing.
fn read(left: &Path) -> Result<Option<(History, Evidence)>, FullStackError> {
    if !left.join("history.jsonl").exists() {
        return Ok(None);
    }
    let history = History::read(&left.join("history.jsonl"))?;
    let evidence = serde_json::from_str(&std::fs::read_to_string(left.join("evidence.json"))?)?;
    Ok(Some((history, evidence)))
}

fn command(asked: FullStack, jobs: usize, flags: Option<&str>, folder: &Path) -> Command {
    let flags = match flags {
        Some(flags) if flags.contains(CONFIGURATION) => flags.to_owned(),
        Some(flags) if !flags.is_empty() => format!("{flags} {CONFIGURATION}"),
        Some(_) | None => CONFIGURATION.to_owned(),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(root)
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(["run", "--release", "--locked", "--quiet"])
        .args(["--package", "unanimo-full-stack", "--target-dir"])
        .arg(target.join("full-stack"))
        .args(["--", "seeds", "--json"])
        .args(["--first", &asked.first.to_string()])
        .args(["--seeds", &asked.seeds.to_string()])
        .args(["--jobs", &jobs.to_string()])
        .arg("--folder")
        .arg(folder);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(given: Option<&str>) -> String {
        let asked = FullStack { first: 1, seeds: 50 };
        let command = command(asked, 2, given, Path::new("folder"));
        let mut variables = command.get_envs();
        let flags = variables.find(|(name, _)| *name == "RUSTFLAGS");
        flags.unwrap().1.unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn flags_that_somebody_has_set_are_kept() {
        assert_eq!(flags(None), "--cfg tokio_unstable");
        assert_eq!(flags(Some("")), "--cfg tokio_unstable");
        assert_eq!(
            flags(Some("-C opt-level=1")),
            "-C opt-level=1 --cfg tokio_unstable"
        );
        assert_eq!(flags(Some("--cfg tokio_unstable")), "--cfg tokio_unstable");
    }

    /// What a seed leaves of one transfer of 5 from p1 to p2, told to be committed.
    fn left(balances: (i64, i64)) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let tx = "00000000-0001-7000-8000-000000000001";
        let add = |participant: &str, delta: i64| {
            let action = json!({ "add": { "delta": delta, "floor": 0 } });
            json!({ "participant": participant, "cell": "0", "action": action })
        };
        let call = json!({
            "f": "transact", "transaction": tx, "style": "one_shot", "steps": [add("p1", -5), add("p2", 5)]
        });
        let line = |index: u64, kind: &str| json!({ "index": index, "time_ns": index, "process": 0, "type": kind, "call": call });
        let mut told = line(1, "ok");
        told["answer"] = json!("committed");
        let history = format!("{}\n{told}\n", line(0, "invoke"));
        let participant = |delta: i64, balance: i64| {
            let effect = |transaction: &str, delta: i64| json!({ "transaction": transaction, "steps": [add("", delta)], "times": 1 });
            json!({
                "answered": true,
                "cells": { "0": { "number": balance, "list": [] } },
                "effects": [effect("00000000-0000-7000-8000-000000000000", 100), effect(tx, delta)],
                "journal_whole": true, "promised": { tx: 1 }, "terminal": { tx: ["committed"] },
                "refused_messages": 0, "in_doubt": 0, "holding": 0,
            })
        };
        let evidence = json!({
            "layout": { "coordinators": 1, "participants": 2 },
            "opening": [add("p1", 100), add("p2", 100)],
            "participants": { "p1": participant(-5, balances.0), "p2": participant(5, balances.1) },
            "outcomes": { "1": { tx: "committed" } },
            "panics": [], "missing": [],
        });
        std::fs::write(folder.path().join("history.jsonl"), history).unwrap();
        std::fs::write(folder.path().join("evidence.json"), evidence.to_string()).unwrap();
        folder
    }

    fn kinds(told: &Value) -> Vec<&str> {
        let violations = told["violations"].as_array().unwrap();
        violations
            .iter()
            .map(|found| found["kind"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn what_the_checkers_find_is_added_to_what_the_program_has_found() {
        let mut told = json!({ "violations": [] });
        assert!(judge(7, left((95, 105)).path(), &mut told).unwrap(), "{told}");
        assert_eq!(told["violations"], json!([]));
        for name in CHECKERS {
            assert_eq!(told["judged"][name], 1);
        }
        assert!(!judge(8, left((95, 106)).path(), &mut told).unwrap());
        assert_eq!(told["violations"][0]["seed"], 8);
    }

    /// Changes what `left` has left of p1, and returns what is found then.
    fn found_with(change: impl Fn(&mut Value)) -> Value {
        let left = left((95, 105));
        let file = left.path().join("evidence.json");
        let mut evidence = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        change(&mut evidence);
        std::fs::write(file, evidence.to_string()).unwrap();
        let mut told = json!({ "violations": [] });
        assert!(!judge(7, left.path(), &mut told).unwrap(), "{told}");
        told
    }

    #[test]
    fn what_is_unknown_is_no_pass() {
        let told = found_with(|evidence| evidence["participants"]["p1"]["journal_whole"] = json!(false));
        assert_eq!(kinds(&told), ["agreement: unknown", "durability: unknown"]);
        assert_eq!(told["violations"][0]["what"], "the whole journal of p1");
    }

    #[test]
    fn what_is_not_judged_is_no_pass() {
        let told = found_with(|evidence| evidence["opening"] = json!([]));
        assert!(kinds(&told).contains(&"conservation: not_judged"), "{told}");
        let mut told = json!({ "violations": [] });
        let nothing = tempfile::tempdir().unwrap();
        assert!(!judge(7, nothing.path(), &mut told).unwrap());
        assert_eq!(kinds(&told), ["left_nothing"]);
    }

    #[test]
    fn what_a_service_has_applied_twice_is_found() {
        let told = found_with(|evidence| evidence["participants"]["p1"]["effects"][1]["times"] = json!(2));
        assert!(kinds(&told).contains(&"exactly-once: applied_again"), "{told}");
    }
}
