//! Faults of disks on a real cluster, each with disk and network of its own where the machine allows: each happens, says
//! so in words that checkers know, and leaves a cluster of full strength and nothing else.
//!
//! What this machine does not allow is named, so that nobody takes silence for a pass.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use jepsen_style_tests::checker::{self, Case, Verdict};
use jepsen_style_tests::cluster::{Cluster, Layout, Place};
use jepsen_style_tests::evidence::Evidence;
use jepsen_style_tests::history::{Action, Call, History, Recorder, Step, Style};
use jepsen_style_tests::nemesis::{self, Fault, Injected};
use jepsen_style_tests::random::Seed;
use jepsen_style_tests::workload::Executor;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

const LAYOUT: Layout = Layout {
    coordinators: 3,
    participants: 2,
    replaced: 0,
};
/// How long a cluster may take to be whole.
const PATIENCE: Duration = Duration::from_secs(60);

/// One cluster at a time: each has many processes.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Lets each of these happen while somebody writes, and returns what they say of themselves. Where the clients are.
async fn happen(mut cluster: Cluster, folder: &Path, names: &[&str], seed: u64) -> Vec<Injected> {
    cluster.wait_until_whole(PATIENCE).await.unwrap();
    let writing = write(&cluster, folder);
    let mut random = Seed(seed).stream("faults");
    let mut injected = Vec::new();
    for name in names {
        let fault = nemesis::all().into_iter().find(|fault| fault.name() == *name);
        let mut fault: Box<dyn Fault> = fault.unwrap();
        if let Some(reason) = fault.unavailable() {
            println!("{name} was not tested: {reason}");
            continue;
        }
        let what = fault.begin(&mut cluster, &mut random).await.unwrap();
        tokio::time::sleep(fault.lasts(&mut random)).await;
        let evidence = fault.end(&mut cluster).await.unwrap();
        println!("{name}: {what}: {evidence:?}");
        assert!(evidence.is_some(), "{name} did not happen");
        cluster.wait_until_whole(PATIENCE).await.unwrap();
        assert!(cluster.ended().is_empty());
        injected.push(Injected {
            fault: (*name).to_owned(),
            begun_ns: 0,
            in_force_ns: Some(0),
            healed_ns: Some(1),
            ended_ns: 1,
            what,
            evidence,
        });
    }
    writing.abort();
    injected
}

/// Transactions of both participants, one after the other.
fn write(cluster: &Cluster, folder: &Path) -> JoinHandle<()> {
    let recorder = Recorder::create(&folder.join("history.jsonl")).unwrap();
    let executor = Executor::new(cluster.addresses(), recorder.clone(), Duration::from_secs(10)).unwrap();
    let steps = LAYOUT.names().into_iter().map(|participant| Step {
        participant,
        cell: "account".to_owned(),
        action: Action::Add { delta: 1, floor: 0 },
    });
    let call = Call::Transact {
        transaction: None,
        style: Style::OneShot,
        key: None,
        steps: steps.collect(),
    };
    tokio::spawn(async move {
        loop {
            executor.perform(recorder.new_process(), call.clone()).await;
        }
    })
}

/// Lets these happen at the best place, and has the checkers judge what they say.
fn all_happen(names: &'static [&'static str], judges: &[&str], seed: u64) {
    let _alone = ALONE.blocking_lock();
    let folder = tempfile::tempdir().unwrap();
    let (place, addresses) = Place::best(LAYOUT, Seed(seed)).unwrap();
    let runtime = place.clients_runtime().unwrap();
    let executable = Path::new(env!("CARGO_BIN_EXE_jepsen-style-tests"));
    let cluster = Cluster::start_at(place, addresses, executable, folder.path(), LAYOUT).unwrap();
    let path = folder.path().to_owned();
    let happened = runtime.spawn(async move { happen(cluster, &path, names, seed).await });
    let injected = runtime.block_on(happened).unwrap();
    runtime.shutdown_background();
    left_nothing(folder.path());
    judge(&injected, judges);
}

/// No mount, no copy and no log of system calls is left.
fn left_nothing(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()), "{mounts}");
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            !name.starts_with("saved-") && !name.ends_with(".strace"),
            "{name}"
        );
    }
}

/// That these checkers find no violation in what the faults say, and all that they need to know of them.
fn judge(injected: &[Injected], judges: &[&str]) {
    let (history, evidence) = (History::default(), Evidence::default());
    let case = Case {
        history: &history,
        evidence: &evidence,
        faults: injected,
    };
    for findings in checker::judge(&case) {
        if judges.contains(&findings.checker.as_str()) {
            assert_ne!(findings.verdict, Verdict::Invalid, "{findings:?}");
            let what_came = |missing: &String| missing.starts_with("what came of");
            assert!(!findings.missing.iter().any(what_came), "{findings:?}");
        }
    }
}

#[test]
fn power_is_lost_and_comes_back() {
    all_happen(&["power-loss", "power-loss-all"], &[], 1);
}

#[test]
fn disks_fail_stall_and_fill_up() {
    all_happen(
        &["fsync-error", "fsync-stall", "disk-full", "fsync-error"],
        &["fail-stop"],
        2,
    );
}

#[test]
fn damage_is_refused_or_does_not_matter() {
    let names = &[
        "bit-flip", "truncate", "bit-flip", "truncate", "bit-flip", "truncate",
    ];
    all_happen(names, &["corruption"], 3);
}

#[test]
fn old_and_empty_folders_are_refused() {
    let names = &[
        "old-copy-participant",
        "old-copy-coordinator",
        "wiped-participant",
        "wiped-coordinator",
    ];
    all_happen(names, &["fencing"], 4);
}
