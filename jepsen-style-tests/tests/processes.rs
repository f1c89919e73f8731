//! Faults of processes, their limits, their clocks and their membership, on a real cluster: each happens, says so, and
//! leaves a cluster of full strength. One that did not happen says that too.
//!
//! What this machine does not allow is named, so that nobody takes silence for a pass.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use jepsen_style_tests::cluster::{Cluster, Layout, Member};
use jepsen_style_tests::history::{Action, Answer, Call, Recorder, Step, Style};
use jepsen_style_tests::nemesis::{self, Fault};
use jepsen_style_tests::random::Seed;
use jepsen_style_tests::workload::Executor;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use tokio::sync::Mutex;

const LAYOUT: Layout = Layout {
    coordinators: 3,
    participants: 2,
    replaced: 0,
};
/// How long a cluster may take to be whole.
const PATIENCE: Duration = Duration::from_secs(60);

/// One cluster at a time: each has many processes, and elections do not happen by themselves on a machine at rest.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn cluster(folder: &Path) -> Cluster {
    let executable = Path::new(env!("CARGO_BIN_EXE_jepsen-style-tests"));
    let mut cluster = Cluster::start(executable, folder, LAYOUT).unwrap();
    cluster.wait_until_whole(PATIENCE).await.unwrap();
    cluster
}

fn fault(name: &str) -> Box<dyn Fault> {
    let all = nemesis::all();
    all.into_iter().find(|fault| fault.name() == name).unwrap()
}

/// Whether this machine allows it.
fn allowed(fault: &dyn Fault) -> bool {
    if let Some(reason) = fault.unavailable() {
        println!("{} was not tested: {reason}", fault.name());
        return false;
    }
    true
}

/// Lets a fault happen for as short a time as it lasts, and says what it says of itself.
async fn happen(fault: &mut dyn Fault, cluster: &mut Cluster, random: &mut StdRng) -> Option<String> {
    let what = fault.begin(cluster, random).await.unwrap();
    let shortest = (0..20).map(|_| fault.lasts(random)).min().unwrap();
    tokio::time::sleep(shortest).await;
    let evidence = fault.end(cluster).await.unwrap();
    println!("{}: {what}: {evidence:?}", fault.name());
    evidence
}

/// Lets each of these happen, and looks whether it did and left a whole cluster.
async fn all_happen(names: &[&str], seed: u64) {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = cluster(folder.path()).await;
    let mut random = Seed(seed).stream("faults");
    for name in names {
        let mut fault = fault(name);
        if allowed(fault.as_ref()) {
            let evidence = happen(fault.as_mut(), &mut cluster, &mut random).await;
            assert!(evidence.is_some(), "{name} did not happen");
            cluster.wait_until_whole(PATIENCE).await.unwrap();
            assert!(cluster.ended().is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_and_restarts_happen() {
    let names = [
        "kill-leader",
        "kill-follower",
        "kill-participant",
        "kill-several",
        "kill-all",
        "rolling-restart",
        "leader-transfer",
    ];
    all_happen(&names, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_happen() {
    let names = [
        "pause-leader",
        "pause-leader-long",
        "pause-follower",
        "pause-participant",
        "pause-several",
        "pause-all",
    ];
    all_happen(&names, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_clocks_happen() {
    let names = [
        "file-descriptors",
        "memory",
        "clock-jump",
        "clock-strobe",
        "clock-drift",
        "monotonic-offset",
    ];
    all_happen(&names, 3).await;
}

/// A call that one participant carries out.
fn deposit() -> Call {
    let add = Step {
        participant: "p1".to_owned(),
        cell: "account".to_owned(),
        action: Action::Add { delta: 1, floor: 0 },
    };
    Call::Transact {
        transaction: None,
        style: Style::OneShot,
        key: None,
        steps: vec![add],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_participants_go_on_when_every_node_was_replaced() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = cluster(folder.path()).await;
    let recorder = Recorder::create(&folder.path().join("history.jsonl")).unwrap();
    let executor = Executor::new(cluster.addresses(), recorder.clone(), PATIENCE).unwrap();
    let mut executor = executor.following(cluster.follow());
    let mut random = Seed(4).stream("faults");
    let mut fault = fault("membership");
    for replaced in 1..=3 {
        let evidence = happen(fault.as_mut(), &mut cluster, &mut random).await.unwrap();
        let votes = format!("c{} votes, c{replaced} does not", replaced + 3);
        assert!(evidence.contains(&votes), "{evidence}");
        cluster.wait_until_whole(PATIENCE).await.unwrap();
    }
    assert_eq!(cluster.layout().nodes().collect::<Vec<_>>(), [4, 5, 6]);
    let former = [1, 2, 3].map(Member::Coordinator);
    assert_eq!(cluster.former(), former);
    assert!(former.iter().all(|member| cluster.process(*member).is_none()));
    executor.keep_up().unwrap();
    let (_, _, answer) = executor.perform(recorder.new_process(), deposit()).await;
    assert_eq!(answer, Some(Answer::Committed));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_happen_says_so() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = cluster(folder.path()).await;
    let mut random = Seed(5).stream("faults");
    let mut pause = fault("pause-several");
    pause.begin(&mut cluster, &mut random).await.unwrap();
    for member in LAYOUT.members() {
        // Somebody else lets them go on.
        let process = cluster.process(member).unwrap();
        kill(Pid::from_raw(process.try_into().unwrap()), Signal::SIGCONT).unwrap();
    }
    assert_eq!(pause.end(&mut cluster).await.unwrap(), None);

    let mut limit = fault("file-descriptors");
    if allowed(limit.as_ref()) {
        limit.begin(&mut cluster, &mut random).await.unwrap();
        for member in LAYOUT.members() {
            let process = cluster.process(member).unwrap().to_string();
            let lifted = std::process::Command::new("prlimit")
                .args(["--pid", &process, "--nofile=1000:"])
                .status();
            assert!(lifted.unwrap().success());
        }
        assert_eq!(limit.end(&mut cluster).await.unwrap(), None);
    }

    let mut clock = fault("clock-jump");
    if allowed(clock.as_ref()) {
        clock.begin(&mut cluster, &mut random).await.unwrap();
        for member in LAYOUT.members() {
            // Somebody else sets the clock right.
            let file = cluster.log(member).with_extension("clock");
            if file.exists() {
                std::fs::write(&file, "+0\n").unwrap();
            }
        }
        assert_eq!(clock.end(&mut cluster).await.unwrap(), None);
    }
    cluster.wait_until_whole(PATIENCE).await.unwrap();
}
