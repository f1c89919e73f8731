//! R10 for real processes: a node whose disk fails tells nobody anything more and ends; what it had said is there when
//! it comes back.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;
mod disk_faults;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use cluster::{PATIENCE, TestParticipant, eventually, free_port, new_transaction, submit_request};
use disk_faults::{FailingCalls, SmallDisk};
use tempfile::TempDir;
use tonic::transport::Channel;
use unanimo_core::{Decision, TransactionId};
use unanimo_proto::v1::{self, admin_client::AdminClient, coordinator_client::CoordinatorClient};

/// Nodes of the `unanimo` binary, each a process with a folder of its own.
struct Nodes {
    folder: TempDir,
    ports: Vec<u16>,
    /// Where each node keeps its data.
    data: Vec<PathBuf>,
    processes: Vec<Option<Child>>,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for place in 0..self.ports.len() {
                eprintln!("node {}: {}", place + 1, self.log(place));
            }
        }
        for process in self.processes.iter_mut().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Nodes {
    /// Starts nodes with their data in these folders.
    fn start(data: Vec<PathBuf>) -> Self {
        let mut nodes = Self {
            folder: TempDir::new().unwrap(),
            ports: data.iter().map(|_| free_port()).collect(),
            processes: data.iter().map(|_| None).collect(),
            data,
        };
        for place in 0..nodes.data.len() {
            nodes.start_node(place);
        }
        nodes
    }

    fn file(&self, place: usize, extension: &str) -> PathBuf {
        self.folder.path().join(format!("node{}.{extension}", place + 1))
    }

    fn start_node(&mut self, place: usize) {
        assert!(self.processes[place].is_none(), "node {place} runs already");
        let mut text = format!(
            "cluster = \"test\"\nnode = {}\nlisten = \"{}\"\ndata = \"{}\"\n",
            place + 1,
            self.address(place),
            self.data[place].display()
        );
        for peer in 0..self.ports.len() {
            let address = self.address(peer);
            text += &format!("[[peers]]\nnode = {}\naddress = \"{address}\"\n", peer + 1);
        }
        // Small files. And nothing is delivered for long to members that are away, so that a test has the machine.
        text += "[raft]\nlog_segment_mib = 8\n[limits]\ncompleting = 1\n";
        let config = self.file(place, "toml");
        fs::write(&config, text).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_unanimo"))
            .args(["serve", "--config"])
            .arg(&config)
            .stderr(File::create(self.file(place, "log")).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.processes[place] = Some(process);
    }

    fn address(&self, place: usize) -> String {
        format!("127.0.0.1:{}", self.ports[place])
    }

    fn process(&self, place: usize) -> u32 {
        self.processes[place].as_ref().unwrap().id()
    }

    fn log(&self, place: usize) -> String {
        fs::read_to_string(self.file(place, "log")).unwrap()
    }

    /// Lets these calls of a node fail from now on.
    fn fail(&self, place: usize, calls: &str) -> FailingCalls {
        FailingCalls::of(self.process(place), calls, self.file(place, "strace"))
    }

    /// Waits until the node has ended by itself.
    async fn ended(&mut self, place: usize) -> ExitStatus {
        eventually("the node's end", async || self.try_end(place)).await
    }

    /// How the node has ended, if it has.
    fn try_end(&mut self, place: usize) -> Option<ExitStatus> {
        let status = self.processes[place].as_mut().unwrap().try_wait().unwrap()?;
        self.processes[place] = None;
        Some(status)
    }

    async fn coordinator(&self, place: usize) -> CoordinatorClient<Channel> {
        let address = format!("http://{}", self.address(place));
        eventually("a connection", async || {
            CoordinatorClient::connect(address.clone()).await.ok()
        })
        .await
    }

    async fn status(&self, place: usize) -> Option<v1::GetStatusReply> {
        let mut admin = AdminClient::connect(format!("http://{}", self.address(place)))
            .await
            .ok()?;
        Some(
            admin
                .get_status(v1::GetStatusRequest::default())
                .await
                .ok()?
                .into_inner(),
        )
    }

    /// The place of the node that leads and is ready.
    async fn leader(&self) -> usize {
        eventually("an election", async || {
            for place in 0..self.ports.len() {
                if self.status(place).await.is_some_and(|status| status.ready) {
                    return Some(place);
                }
            }
            None
        })
        .await
    }

    async fn register(&self, participant: &TestParticipant) {
        self.register_at(participant.name().as_str(), participant.address())
            .await;
    }

    async fn register_at(&self, name: &str, address: &str) {
        let request = v1::RegisterRequest {
            cluster: "test".to_owned(),
            participant: name.to_owned(),
            address: address.to_owned(),
            generation: 1,
            position: 1,
        };
        let mut client = self.coordinator(self.leader().await).await;
        eventually("a registration", async || {
            client.register(request.clone()).await.ok()
        })
        .await;
    }

    /// Commits a transaction at this node, however often it has to be asked for.
    async fn commit(&self, place: usize, participant: &TestParticipant) -> TransactionId {
        let transaction = new_transaction();
        let mut client = self.coordinator(place).await;
        let request = submit_request(transaction, &[(participant, "x")]);
        let reply = eventually("a commit", async || client.submit(request.clone()).await.ok()).await;
        assert_eq!(decision(reply.into_inner().outcome), Decision::Commit);
        transaction
    }

    /// What this node knows of a transaction, once it can be asked.
    async fn outcome(&self, place: usize, transaction: TransactionId) -> Option<Decision> {
        let mut client = self.coordinator(place).await;
        let request = v1::GetOutcomeRequest {
            cluster: "test".to_owned(),
            transaction: transaction.to_string(),
        };
        let reply = eventually("an outcome", async || {
            client.get_outcome(request.clone()).await.ok()
        })
        .await;
        match reply.into_inner().known.unwrap() {
            v1::get_outcome_reply::Known::Outcome(outcome) => Some(decision(Some(outcome))),
            v1::get_outcome_reply::Known::Undecided(_) => None,
        }
    }

    /// The node said what failed and what to do.
    fn assert_said(&self, place: usize, status: ExitStatus, what: &[&str]) {
        let log = self.log(place);
        assert_eq!(status.code(), Some(1), "{status}: {log}");
        let last = log.lines().last().unwrap();
        for says in ["the storage of this node failed", "start the node again"]
            .iter()
            .chain(what)
        {
            assert!(last.contains(says), "{says}: {log}");
        }
    }
}

fn decision(outcome: Option<v1::Outcome>) -> Decision {
    unanimo_proto::Outcome::try_from(outcome).unwrap().0
}

fn folder(parent: &Path, place: usize) -> PathBuf {
    parent.join(format!("data{}", place + 1))
}

/// Every call of this kind fails at once: nobody may be told anything that rests on one.
async fn nothing_is_told_after_a_failed(call: &str, says: &[&str]) {
    let disk = TempDir::new().unwrap();
    let mut nodes = Nodes::start(vec![folder(disk.path(), 0)]);
    let a = TestParticipant::start_unregistered("a").await;
    nodes.register(&a).await;
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(nodes.commit(0, &a).await);
    }
    let client = nodes.coordinator(0).await;
    let failing = nodes.fail(0, call);
    let asked: Vec<TransactionId> = (0..20).map(|_| new_transaction()).collect();
    let submit = |transaction: &TransactionId| {
        let (mut client, request) = (client.clone(), submit_request(*transaction, &[(&a, "x")]));
        async move { client.submit(request).await }
    };
    let answers = futures::future::join_all(asked.iter().map(submit));
    for answer in tokio::time::timeout(PATIENCE, answers).await.unwrap() {
        assert!(answer.is_err(), "told after the disk had failed: {answer:?}");
    }
    let status = nodes.ended(0).await;
    nodes.assert_said(0, status, says);
    // A call that failed is not tried again: the system may report success for bytes that it has dropped.
    let mut failed = failing.failed_files();
    failed.retain(|file| file.contains("/log/"));
    let calls = failed.len();
    failed.sort_unstable();
    failed.dedup();
    assert!(
        calls > 0 && failed.len() == calls,
        "a call was repeated: {failed:?}"
    );
    // The fault is gone, and so is nothing that was told.
    nodes.start_node(0);
    for transaction in told {
        assert_eq!(nodes.outcome(0, transaction).await, Some(Decision::Commit));
    }
    nodes.commit(0, &a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_forced_writes_fail_ends_and_tells_nobody_anything_more() {
    nothing_is_told_after_a_failed("fdatasync", &["raft log could not sync", "Input/output error"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_writes_fail_ends_and_tells_nobody_anything_more() {
    nothing_is_told_after_a_failed("pwrite64", &["raft log could not write", "Input/output error"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_full_ends_and_has_everything_when_there_is_room_again() {
    let disk = SmallDisk::of_mib(48);
    let mut nodes = Nodes::start(vec![folder(disk.path(), 0)]);
    let a = TestParticipant::start_unregistered("a").await;
    nodes.register(&a).await;
    // What was told: whether it is committed.
    let mut told = vec![(nodes.commit(0, &a).await, true)];
    // Many members make large entries. They are away, so that nothing is delivered to them.
    let members: Vec<String> = (0..64).map(|member| format!("{member:0>64}")).collect();
    for member in &members {
        nodes.register_at(member, "127.0.0.1:1").await;
    }
    disk.fill();
    // What was allocated before is used up.
    let client = nodes.coordinator(0).await;
    let abort = || {
        let (mut client, transaction) = (client.clone(), new_transaction());
        let request = v1::AbortTransactionRequest {
            cluster: "test".to_owned(),
            transaction: transaction.to_string(),
            participants: members.clone(),
        };
        async move { client.abort(request).await.map(|_| (transaction, false)) }
    };
    let status = eventually("the node's end", async || {
        let asked: Vec<_> = std::iter::repeat_with(abort).take(64).collect();
        // Nobody who asks is left waiting either.
        let answers = tokio::time::timeout(PATIENCE, futures::future::join_all(asked))
            .await
            .unwrap();
        told.extend(answers.into_iter().flatten());
        nodes.try_end(0)
    })
    .await;
    nodes.assert_said(0, status, &["No space left on device"]);
    disk.free();
    nodes.start_node(0);
    for (transaction, committed) in told {
        let found = nodes.outcome(0, transaction).await;
        assert_eq!(
            found.map(|found| found.is_commit()),
            Some(committed),
            "{transaction}"
        );
    }
    nodes.commit(0, &a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_fails_is_replaced_and_comes_back() {
    let disk = TempDir::new().unwrap();
    let mut nodes = Nodes::start((0..3).map(|place| folder(disk.path(), place)).collect());
    let a = TestParticipant::start_unregistered("a").await;
    nodes.register(&a).await;
    let failed = nodes.leader().await;
    let before = nodes.commit(failed, &a).await;
    let failing = nodes.fail(failed, "fdatasync");
    // The others go on.
    let other = (failed + 1) % 3;
    let during = nodes.commit(other, &a).await;
    let status = nodes.ended(failed).await;
    nodes.assert_said(failed, status, &["could not sync"]);
    drop(failing);
    let after = nodes.commit(other, &a).await;
    nodes.start_node(failed);
    for transaction in [before, during, after] {
        assert_eq!(nodes.outcome(failed, transaction).await, Some(Decision::Commit));
    }
    let caught_up = nodes.status(other).await.unwrap().applied_index;
    eventually("the node follows", async || {
        (nodes.status(failed).await?.applied_index >= caught_up).then_some(())
    })
    .await;
}
