//! Three real coordinator nodes on loopback, each with its own folder, and participants that do as a test says.

#![allow(dead_code)]

mod counted;
mod participant;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::transport::server::TcpIncoming;
use unanimo_coordinator::{Config, Parts, RunError, run_with};
use unanimo_core::{Decision, Operation, ParticipantId, Timestamp, TransactionId};
use unanimo_proto::transport::{Clock, SystemClock};
use unanimo_proto::v1::{self, admin_client::AdminClient, coordinator_client::CoordinatorClient};
use unanimo_proto::{ErrorReason, reason_of};

#[allow(unused_imports, reason = "each test file uses what it needs")]
pub(crate) use counted::{Counted, once};
#[allow(unused_imports, reason = "each test file uses what it needs")]
pub(crate) use participant::{Heard, TestParticipant};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `condition` gives something, or fails the test.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} did not happen within {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A port below the ephemeral range, so that no outgoing connection takes it while a node is down.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (std::process::id() as u16 % 97) * 200 + offset % 200;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A new transaction id. The clock's milliseconds and a counter are enough to be unique in a test.
pub(crate) fn new_transaction() -> TransactionId {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    TransactionId::new(
        Timestamp::from_unix_ms(now.as_millis() as u64),
        u128::from(NEXT.fetch_add(1, Ordering::Relaxed)),
    )
}

/// What an initiator is told.
pub(crate) type SubmitAnswer = Result<tonic::Response<v1::SubmitReply>, tonic::Status>;

pub(crate) struct TestCluster {
    folder: TempDir,
    ports: Vec<u16>,
    extra: String,
    nodes: Vec<Option<RunningNode>>,
    clocks: Vec<Arc<ShiftedClock>>,
}

/// A wall clock that a test can set.
#[derive(Default)]
pub(crate) struct ShiftedClock {
    shift_ms: AtomicI64,
}

impl ShiftedClock {
    /// Shows this much more than the real one from now on.
    pub(crate) fn shift(&self, milliseconds: i64) {
        self.shift_ms.store(milliseconds, Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        let real = SystemClock::shared().now().unix_ms();
        Timestamp::from_unix_ms(real.saturating_add_signed(self.shift_ms.load(Ordering::SeqCst)))
    }
}

struct RunningNode {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
}

impl TestCluster {
    /// Starts `size` nodes and waits for a leader.
    pub(crate) async fn start(size: usize) -> Self {
        Self::start_with(size, "").await
    }

    /// The same with more lines of configuration.
    pub(crate) async fn start_with(size: usize, extra: &str) -> Self {
        #[cfg(feature = "mutants")]
        unanimo_coordinator::mutants::plant_what_is_asked_for().unwrap();
        let mut cluster = Self::stopped(size, extra);
        for place in 0..size {
            cluster.start_node(place);
        }
        cluster.leader().await;
        cluster
    }

    pub(crate) fn stopped(size: usize, extra: &str) -> Self {
        // Silent unless RUST_LOG asks for more; shown for a test that fails.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .try_init();
        let ports = (0..size).map(|_| free_port()).collect();
        let nodes = (0..size).map(|_| None).collect();
        Self {
            folder: TempDir::new().unwrap(),
            ports,
            extra: extra.to_owned(),
            nodes,
            clocks: (0..size).map(|_| Arc::default()).collect(),
        }
    }

    pub(crate) fn clock(&self, place: usize) -> &ShiftedClock {
        &self.clocks[place]
    }

    /// More lines of configuration for the nodes that are started from now on, instead of those before.
    pub(crate) fn configure(&mut self, extra: &str) {
        extra.clone_into(&mut self.extra);
    }

    pub(crate) fn data(&self, place: usize) -> PathBuf {
        self.folder.path().join(format!("node{}", place + 1))
    }

    pub(crate) fn address(&self, place: usize) -> String {
        format!("127.0.0.1:{}", self.ports[place])
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        (0..self.ports.len()).map(|place| self.address(place)).collect()
    }

    pub(crate) fn config(&self, place: usize) -> Config {
        self.config_with(place, place + 1, &self.data(place), "test")
    }

    pub(crate) fn config_with(&self, place: usize, node: usize, data: &Path, cluster: &str) -> Config {
        let mut text = format!(
            "cluster = \"{cluster}\"\nnode = {node}\nlisten = \"{}\"\ndata = \"{}\"\n",
            self.address(place),
            data.display()
        );
        for peer in 0..self.ports.len() {
            text += &format!(
                "[[peers]]\nnode = {}\naddress = \"{}\"\n",
                peer + 1,
                self.address(peer)
            );
        }
        // Small files, so that a test does not write gigabytes.
        // And patient elections, so that leaders change when a test wants it.
        text += "[raft]\nlog_segment_mib = 8\nelection_min_ms = 700\nelection_max_ms = 1400\n";
        text += &self.extra;
        Config::parse(&text, Path::new("test.toml")).unwrap()
    }

    pub(crate) fn start_node(&mut self, place: usize) {
        assert!(self.nodes[place].is_none(), "node {place} runs already");
        let (stop, stopped) = oneshot::channel();
        let (config, clock) = (self.config(place), Arc::clone(&self.clocks[place]));
        let task = tokio::spawn(async move {
            let result = run_with_clock(config, clock, async move { drop(stopped.await) }).await;
            if let Err(error) = &result {
                // The test that waits for this node sees only that nothing happens.
                eprintln!("node {}: {error}", place + 1);
            }
            result
        });
        self.nodes[place] = Some(RunningNode { stop, task });
    }

    /// Stops a node as SIGTERM would.
    pub(crate) async fn stop_node(&mut self, place: usize) {
        self.begin_to_stop_node(place).await.unwrap();
    }

    /// Tells a node to stop; the future ends when it has.
    pub(crate) fn begin_to_stop_node(
        &mut self,
        place: usize,
    ) -> impl Future<Output = Result<(), RunError>> + use<> {
        let node = self.nodes[place].take().unwrap();
        drop(node.stop);
        async { tokio::time::timeout(PATIENCE, node.task).await.unwrap().unwrap() }
    }

    pub(crate) async fn status(&self, place: usize) -> Option<v1::GetStatusReply> {
        let mut admin = AdminClient::connect(format!("http://{}", self.address(place)))
            .await
            .ok()?;
        let call = admin.get_status(v1::GetStatusRequest::default());
        Some(
            tokio::time::timeout(Duration::from_secs(2), call)
                .await
                .ok()?
                .ok()?
                .into_inner(),
        )
    }

    /// The place of the node that leads and is ready.
    pub(crate) async fn leader(&self) -> usize {
        eventually("an election", async || {
            for place in 0..self.ports.len() {
                if self.nodes[place].is_some() && self.status(place).await.is_some_and(|status| status.ready)
                {
                    return Some(place);
                }
            }
            None
        })
        .await
    }

    pub(crate) async fn coordinator(&self, place: usize) -> CoordinatorClient<Channel> {
        let address = format!("http://{}", self.address(place));
        eventually("a connection", async || {
            CoordinatorClient::connect(address.clone()).await.ok()
        })
        .await
    }

    /// Submits to the leader in the background and waits until `participant` has heard `message` of it.
    ///
    /// Gives the node that runs the transaction, and the answer that is still to come. On a busy machine a leader
    /// may be lost at any time: a request that was answered with an error before it was heard is submitted again.
    pub(crate) async fn submit_until_heard(
        &self,
        request: v1::SubmitRequest,
        participant: &TestParticipant,
        message: &Heard,
    ) -> (usize, JoinHandle<SubmitAnswer>) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let place = self.leader().await;
            let mut client = self.coordinator(place).await;
            let again = request.clone();
            let mut answer = tokio::spawn(async move { client.submit(again).await });
            tokio::select! {
                () = participant.until_heard(message) => return (place, answer),
                early = &mut answer => {
                    let early = early.unwrap();
                    assert!(
                        early.is_err() && tokio::time::Instant::now() < deadline,
                        "{early:?} before {} heard {message:?}; it heard {:?}",
                        participant.name(),
                        participant.heard()
                    );
                }
            }
        }
    }

    /// Submits to one node, until it knows.
    pub(crate) async fn submit_at(
        &self,
        place: usize,
        transaction: TransactionId,
        branches: &[(&TestParticipant, &str)],
    ) -> Result<Decision, tonic::Status> {
        let request = submit_request(transaction, branches);
        let mut client = self.coordinator(place).await;
        // On a busy machine leaders may change at any time; initiators then ask again.
        let reply = eventually("an answer", async || match client.submit(request.clone()).await {
            Err(error)
                if matches!(
                    reason_of(&error),
                    Some(ErrorReason::NoLeader | ErrorReason::OutcomeUnknown)
                ) =>
            {
                None
            }
            answer => Some(answer),
        });
        let reply = reply.await?.into_inner();
        assert_eq!(reply.transaction, transaction.to_string());
        Ok(unanimo_proto::Outcome::try_from(reply.outcome).unwrap().0)
    }
}

/// What `run` does, with another clock.
async fn run_with_clock(
    config: Config,
    clock: Arc<ShiftedClock>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let listener = TcpListener::bind(&config.listen).await.unwrap();
    let parts = Parts {
        clock,
        ..Parts::real(&config)?
    };
    run_with(config, parts, TcpIncoming::from(listener), shutdown).await
}

pub(crate) fn submit_request(
    transaction: TransactionId,
    branches: &[(&TestParticipant, &str)],
) -> v1::SubmitRequest {
    let branch = |(participant, operation): &(&TestParticipant, &str)| v1::Branch {
        participant: participant.name().to_string(),
        operation: operation.as_bytes().to_vec().into(),
    };
    v1::SubmitRequest {
        idempotency_key: String::new(),
        cluster: "test".to_owned(),
        transaction: transaction.to_string(),
        branches: branches.iter().map(branch).collect(),
        voting_timeout_ms: 0,
    }
}

/// The hash of a request as the coordinator computes it.
pub(crate) fn request_hash(branches: &[(&TestParticipant, &str)]) -> unanimo_core::RequestHash {
    let branch = |(participant, operation): &(&TestParticipant, &str)| {
        (
            participant.name().clone(),
            Operation::new(operation.as_bytes().to_vec()),
        )
    };
    let limits = unanimo_core::Limits::default();
    unanimo_core::Request::new(branches.iter().map(branch), limits)
        .unwrap()
        .hash()
}

pub(crate) fn participant(name: &str) -> ParticipantId {
    ParticipantId::new(name).unwrap()
}
