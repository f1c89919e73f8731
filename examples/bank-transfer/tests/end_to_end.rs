//! The program as people run it: processes, signals, exit codes.

#![allow(clippy::unwrap_used)]

mod program;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bank_transfer::wire::GetStatisticsRequest;
use bank_transfer::wire::bank_client::BankClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use program::{program, run, stderr, stdout};

/// How long anything may take that is waited for. A debug build on a busy machine needs a small part of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Three coordinators and two banks.
const PROCESSES: usize = 5;

/// The processes that have this folder in their arguments and are not the program that started them.
fn children_with(folder: &Path) -> Vec<i32> {
    let folder = folder.canonicalize().unwrap();
    let has_folder = |process: &i32| {
        let arguments = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        let is_child = arguments
            .split('\0')
            .nth(1)
            .is_some_and(|command| ["coordinator", "bank"].contains(&command));
        is_child && arguments.contains(folder.to_str().unwrap())
    };
    let processes = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    processes.filter(has_folder).collect()
}

/// Looks again and again until it is so.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A run that goes on for long, in the middle of its load.
fn under_way(folder: &Path) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut run = program()
        .args([
            "--transfers",
            "200000",
            "--json",
            "--data",
            folder.to_str().unwrap(),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let errors = BufReader::new(run.stderr.take().unwrap());
    until("all processes run", || children_with(folder).len() == PROCESSES);
    until("transfers commit", || committed(folder) > 0);
    (run, errors)
}

/// How many branches the northern bank of a run has committed; 0 if it does not answer.
fn committed(folder: &Path) -> u64 {
    let address = children_with(folder).into_iter().find_map(|process| {
        let arguments = fs::read_to_string(format!("/proc/{process}/cmdline")).ok()?;
        let mut arguments = arguments.split('\0').skip_while(|argument| *argument != "north");
        arguments.nth(2).map(str::to_owned)
    });
    let Some(address) = address else { return 0 };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let Ok(mut bank) = BankClient::connect(format!("http://{address}")).await else {
            return 0;
        };
        let statistics = bank.get_statistics(GetStatisticsRequest {}).await;
        statistics.map_or(0, |reply| reply.into_inner().committed)
    })
}

fn rest_of(errors: BufReader<std::process::ChildStderr>) -> String {
    errors.lines().map(|line| line.unwrap() + "\n").collect()
}

/// Waits for the end, but not for ever.
fn exit_code(run: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = run.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline, "the program does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_run_with_kills_passes_its_audit_and_says_so_in_json() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let output = run(&["--transfers", "300", "--json", "--data", data.to_str().unwrap()]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        stdout(&output),
        stderr(&output)
    );
    assert_eq!(stdout(&output).lines().count(), 1);
    let report: Value = serde_json::from_str(stdout(&output).lines().last().unwrap()).unwrap();
    for (key, expected) in [
        ("submitted", 300),
        ("unknown", 0),
        ("refused", 0),
        ("violations", 0),
        ("leader_kills", 1),
        ("participant_kills", 1),
        ("total_before", 200_000_000),
        ("total_after", 200_000_000),
    ] {
        assert_eq!(report[key], expected, "{key}: {report}");
    }
    let [committed, aborted] = ["committed", "aborted"].map(|key| report[key].as_u64().unwrap());
    assert_eq!(committed + aborted, 300);
    assert!(committed > 200 && aborted > 0, "neither may be all: {report}");
    for distribution in ["latency_ms", "in_doubt_ms", "in_doubt_all_ms"] {
        let [p50, p99, max] = ["p50", "p99", "max"].map(|key| report[distribution][key].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{distribution}: {report}");
    }
    assert!(report["transfers_per_second"].as_f64().unwrap() > 0.0);
    assert!(
        report["without_leader_ms"].as_f64().unwrap() > 100.0,
        "an election takes a while: {report}"
    );
    assert!(
        stderr(&output).contains("kill -9 of coordinator-")
            && stderr(&output).contains("kill -9 of bank-south")
    );
    assert_eq!(children_with(&data), [0; 0]);
}

#[test]
fn without_faults_nobody_is_killed_and_times_in_doubt_are_told_by_the_banks() {
    let output = run(&["--transfers", "200", "--no-faults", "--json"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        stdout(&output),
        stderr(&output)
    );
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&report["leader_kills"], &report["participant_kills"]),
        (&Value::from(0), &Value::from(0))
    );
    assert_eq!(report["without_leader_ms"], 0.0);
    assert_eq!(report["in_doubt_ms"]["count"], 0, "no leader died: {report}");
    assert!(
        report["in_doubt_all_ms"]["p50"].as_f64().unwrap() > 0.0,
        "dozens wait for each other: {report}"
    );
    assert!(
        !stderr(&output).contains("kept in"),
        "the data of a run that passed is removed: {}",
        stderr(&output)
    );
}

#[test]
fn a_file_is_run_and_refusals_are_told_with_their_reason() {
    let folder = TempDir::new().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("book.csv"));
    let rows = "from,to,amount,key\n\
                north-000001,south-000002,12.50,between\n\
                south-000003,south-000004,1,within\n\
                north-000005,south-000006,1000.01,too much\n\
                north-000007,south-999999,1,nobody there\n\
                south-888888,north-000008,1,nobody here\n\
                north-000009,south-000010,1000.00,all of it\n";
    fs::write(
        &file,
        rows.replace("too much", "too-much")
            .replace(" there", "-t")
            .replace(" here", "-h")
            .replace("all of it", "all"),
    )
    .unwrap();
    let output = run(&[
        "--input",
        file.to_str().unwrap(),
        "--no-faults",
        "--data",
        data.to_str().unwrap(),
    ]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for line in [
        "committed                3\n",
        "aborted                  3\n",
        "  insufficient funds       1\n",
        "  unknown account          2\n",
        "leader killed            not once\n",
        "bank killed              not once\n",
        "total before             2000000.00\n",
        "total after              2000000.00\n",
        "The audit holds",
    ] {
        assert!(text.contains(line), "{text}\nhas no\n{line}");
    }
    assert_eq!(children_with(&data), [0; 0]);
}

#[test]
fn a_file_with_bad_rows_is_refused_before_anything_is_started() {
    let folder = TempDir::new().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("book.csv"));
    let rows = "from,to,amount,key\nnorth-000001,south-000002,12.50,k1\n\
                north-000001,south-000002,-3,k2\nnorth-000001,north-000001,3,k1\nnorth-000001\n";
    fs::write(&file, rows).unwrap();
    let output = run(&[
        "--input",
        file.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(2));
    let errors = stderr(&output);
    for says in [
        "book.csv has 3 bad rows; nothing was started",
        "row 3: column amount: \"-3\" is negative",
        "row 4: column to: \"north-000001\" is also the account in column from",
        "row 5: has 1 columns",
    ] {
        assert!(errors.contains(says), "{errors}\nhas no\n{says}");
    }
    assert!(!data.exists(), "nothing was started");
}

#[test]
fn a_missing_file_is_named() {
    let output = run(&["--input", "no/such/book.csv"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("cannot read the input file no/such/book.csv"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_data_folder_in_use_is_left_alone() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("precious"), "precious").unwrap();
    let output = run(&["--transfers", "1", "--data", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("is not empty; name a new one"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn ctrl_c_ends_everything() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = TempDir::new().unwrap();
        let (mut run, errors) = under_way(folder.path());
        kill(Pid::from_raw(run.id() as i32), signal).unwrap();
        assert_eq!(exit_code(&mut run), Some(130));
        assert_eq!(children_with(folder.path()), [0; 0]);
        assert!(rest_of(errors).contains("interrupted; all processes are ended"));
    }
}

#[test]
fn no_process_outlives_a_program_that_is_killed() {
    let folder = TempDir::new().unwrap();
    let (mut run, _errors) = under_way(folder.path());
    run.kill().unwrap();
    run.wait().unwrap();
    until("the processes notice and end", || {
        children_with(folder.path()).is_empty()
    });
}

#[test]
fn a_process_that_dies_unasked_ends_the_run_with_its_log() {
    let folder = TempDir::new().unwrap();
    let (mut run, errors) = under_way(folder.path());
    let victim = children_with(folder.path())[0];
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    let all = rest_of(errors);
    assert_eq!(exit_code(&mut run), Some(1), "{all}");
    assert!(all.contains("ended by itself: signal: 9"), "{all}");
    assert!(
        all.contains("--- bank-south: the end of") && all.contains("is kept in"),
        "{all}"
    );
    assert_eq!(children_with(folder.path()), [0; 0]);
}
