//! Every workload on a cluster that nobody disturbs: most of what clients ask for commits, and they hear how it ended.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use jepsen_style_tests::cluster::{Addresses, Cluster, Layout};
use jepsen_style_tests::history::{Action, Answer, Call, Event, History, Kind, Recorder, Step, Style};
use jepsen_style_tests::random::Seed;
use jepsen_style_tests::workload::{Executor, Workload, all};
use tokio::time::timeout;

const LAYOUT: Layout = Layout {
    coordinators: 3,
    participants: 3,
    replaced: 0,
};
/// For everything that has to happen once.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a client waits for an answer: longer than it takes on the slowest machine, as an unknown outcome fails the
/// test.
const PATIENCE: Duration = Duration::from_secs(30);
const CLIENTS: usize = 3;
/// What each client does.
const TURNS: usize = 25;

#[tokio::test(flavor = "multi_thread")]
async fn most_of_every_workload_commits_and_nothing_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let executable = Path::new(env!("CARGO_BIN_EXE_jepsen-style-tests"));
    let cluster = Cluster::start(executable, folder.path(), LAYOUT).unwrap();
    cluster.wait_for_leader(DEADLINE).await.unwrap();
    for workload in all() {
        let opening = folder.path().join("opening.jsonl");
        open(cluster.addresses(), &opening, workload.opening(LAYOUT)).await;
        let path = folder.path().join(format!("{}.jsonl", workload.name()));
        let history = timeout(DEADLINE, history(cluster.addresses(), &path, workload.as_ref())).await;
        judge(workload.name(), &history.unwrap());
    }
}

/// Commits what there is at first. Refused until the participants are registered.
async fn open(addresses: &Addresses, path: &Path, opening: Vec<Step>) {
    let recorder = Recorder::create(path).unwrap();
    let executor = Executor::new(addresses, recorder.clone(), PATIENCE).unwrap();
    for name in LAYOUT.names() {
        let steps = opening.iter().filter(|step| step.participant == name);
        let call = Call::Transact {
            transaction: None,
            style: Style::OneShot,
            key: None,
            steps: steps.cloned().collect(),
        };
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (_, _, answer) = executor.perform(recorder.new_process(), call.clone()).await;
            if answer == Some(Answer::Committed) {
                break;
            }
            assert!(Instant::now() < deadline, "{name} is not opened: {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Lets clients work on it.
async fn history(addresses: &Addresses, path: &Path, workload: &dyn Workload) -> History {
    let recorder = Recorder::create(path).unwrap();
    let executor = Executor::new(addresses, recorder.clone(), PATIENCE).unwrap();
    let clients = (0..CLIENTS).map(|number| {
        let random = Seed(7).stream(&format!("client-{number}"));
        let mut work = workload.client(LAYOUT, number, random);
        let (executor, mut process) = (executor.clone(), recorder.new_process());
        async move {
            for _ in 0..TURNS {
                process = executor.turn(process, work.as_mut()).await;
            }
        }
    });
    futures::future::join_all(clients).await;
    recorder.finish(path).unwrap()
}

fn judge(name: &str, history: &History) {
    let mut completed: BTreeMap<&str, usize> = BTreeMap::new();
    for (invoked, event) in history.operations() {
        let event = event.unwrap_or_else(|| panic!("{name}: {invoked:?} did not complete"));
        let left = event
            .error
            .as_ref()
            .is_some_and(|error| error.contains("went away"));
        let what = match event.kind {
            _ if left => "left",
            Kind::Info => panic!("{name}: nobody knows what became of {event:?}"),
            Kind::Ok => "ok",
            Kind::Fail if is_refused(event) || is_to_fail(invoked, history) => "refused",
            Kind::Fail => "failed",
            Kind::Invoke => unreachable!("nothing completes by being invoked"),
        };
        *completed.entry(what).or_default() += 1;
        if event.kind == Kind::Ok {
            all_was_read(name, event);
        }
    }
    println!("{name}: {completed:?}");
    let count = |what| completed.get(what).copied().unwrap_or_default();
    assert_eq!(count("failed"), 0, "{name}: {completed:?}");
    assert!(
        count("ok") > count("refused") + count("left"),
        "{name}: {completed:?}"
    );
}

/// A store refused it for a reason of its own.
fn is_refused(event: &Event) -> bool {
    let answer = match &event.answer {
        Some(Answer::Aborted(reason)) => reason.as_str(),
        Some(Answer::Committed | Answer::Undecided | Answer::Expired) | None => "",
    };
    let error = event.error.as_deref().unwrap_or_default();
    [answer, error]
        .iter()
        .any(|said| said.contains("is locked by another") || said.contains("would leave less than"))
}

/// Somebody wants it aborted, or it is another request than the first of its id or key.
fn is_to_fail(invoked: &Event, history: &History) -> bool {
    let Call::Transact { transaction, key, .. } = &invoked.call else {
        return false;
    };
    history.events.iter().any(|event| match &event.call {
        Call::Abort {
            transaction: asked, ..
        } => *transaction == Some(*asked),
        Call::Transact {
            transaction: same_id,
            key: same_key,
            steps,
            ..
        } => {
            let same =
                (same_id.is_some() && same_id == transaction) || (same_key.is_some() && same_key == key);
            same && steps != invoked.call.steps()
        }
        Call::Query { .. } => false,
    })
}

/// Who commits an interactive transaction has read everything that it asked for.
fn all_was_read(name: &str, event: &Event) {
    let Call::Transact {
        style: Style::Interactive,
        steps,
        ..
    } = &event.call
    else {
        return;
    };
    for step in steps {
        if let Action::Read { number, list } = &step.action {
            assert!(number.is_some() && list.is_some(), "{name}: {event:?}");
        }
    }
}
