use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tonic::Status;
use unanimo_core::table::Witness;
use unanimo_core::{
    Generation, Operation, ParticipantId, Position, RequestHash, Timestamp, TransactionId, Vote,
};
use unanimo_journal::SimulatedDisk;
use unanimo_participant::{Endpoint, Participant, ParticipantOptions, Parts, StartError, Writing};
use unanimo_proto::transport::{Clock, TcpConnector};
use unanimo_proto::v1::participant_client::ParticipantClient;
use unanimo_proto::v1::participant_server::ParticipantServer;
use unanimo_proto::{ErrorReason, PrepareMessage, PrepareVote, v1};
use unanimo_table::MemoryTable;

use super::{FakeCoordinator, Recorder};

pub(crate) const CLUSTER: &str = "test";
pub(crate) const NAME: &str = "stock";

/// The n-th transaction.
pub(crate) fn transaction(n: u128) -> TransactionId {
    // Spread like real ids are, and behind every clock.
    TransactionId::new(
        Timestamp::from_unix_ms(1_700_000_000_000 + n as u64),
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    )
}

/// The hash of the request that transactions of these tests are about.
pub(crate) fn commit_hash() -> RequestHash {
    RequestHash::from_bytes([7; 32])
}

/// Why a call was refused.
pub(crate) fn reason(status: &Status) -> Option<ErrorReason> {
    unanimo_proto::reason_of(status)
}

/// Waits until something holds, ten seconds at most.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A clock that stands until it is moved.
#[derive(Clone)]
pub(crate) struct ManualClock {
    unix_ms: Arc<AtomicU64>,
    /// Whoever looks at it next panics.
    panics: Arc<AtomicBool>,
}

impl ManualClock {
    fn new() -> Self {
        Self {
            unix_ms: Arc::new(AtomicU64::new(1_900_000_000_000)),
            panics: Arc::default(),
        }
    }

    pub(crate) fn advance(&self, time: Duration) {
        self.unix_ms.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }

    pub(crate) fn panic_once(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let panics = self.panics.swap(false, Ordering::SeqCst);
        assert!(!panics, "the clock was told to panic");
        Timestamp::from_unix_ms(self.unix_ms.load(Ordering::SeqCst))
    }
}

/// Everything around one participant that outlives it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) disk: SimulatedDisk,
    pub(crate) table: MemoryTable,
    pub(crate) recorder: Recorder,
    pub(crate) clock: ManualClock,
    pub(crate) coordinator: FakeCoordinator,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(FakeCoordinator::start())
    }

    pub(crate) fn with(coordinator: FakeCoordinator) -> Self {
        #[cfg(feature = "mutants")]
        if let Ok(name) = std::env::var("UNANIMO_MUTANT") {
            unanimo_core::mutants::plant(unanimo_core::mutants::Mutant::named(&name).unwrap());
        }
        Self {
            disk: SimulatedDisk::new(),
            table: MemoryTable::new(),
            recorder: Recorder::new(),
            clock: ManualClock::new(),
            coordinator,
        }
    }

    pub(crate) fn options(&self) -> ParticipantOptions {
        let (cluster, name) = (CLUSTER.parse().unwrap(), NAME.parse().unwrap());
        let coordinators = [self.coordinator.address.clone()];
        let mut options = ParticipantOptions::new(cluster, name, "127.0.0.1:9", coordinators, "/nowhere");
        options.segment_bytes = 64 * 1024;
        options.redo_bytes = 1024;
        // Tests that want inquiries ask for them.
        options.inquiry_after = Duration::from_secs(3600);
        // The same with forgetting.
        options.forget_pause = Duration::from_secs(3600);
        options.shutdown_patience = Duration::from_millis(200);
        options
    }

    pub(crate) fn parts(&self) -> Parts {
        Parts {
            disk: Arc::new(self.disk.clone()),
            table: Arc::new(self.table.clone()),
            connector: TcpConnector::shared(),
            clock: Arc::new(self.clock.clone()),
            seed: 1,
            random: 0,
            writing: Writing::Tasks,
        }
    }

    /// A participant that has recovered and registered.
    pub(crate) async fn start(&self) -> (Participant, Peer) {
        self.start_with(self.options()).await
    }

    pub(crate) async fn start_with(&self, options: ParticipantOptions) -> (Participant, Peer) {
        let participant = self.try_start(options).await.unwrap();
        eventually("registered", || participant.statistics().registered).await;
        let peer = Peer::new(&participant);
        (participant, peer)
    }

    pub(crate) async fn try_start(&self, options: ParticipantOptions) -> Result<Participant, StartError> {
        Participant::start_with(options, self.parts(), self.recorder.clone()).await
    }

    /// Cuts the power: what was not durable may be lost, holds are.
    pub(crate) fn crash(&self, seed: u64) {
        match seed {
            0 => self.disk.crash_losing_everything(),
            seed => self.disk.crash(seed),
        }
        self.table.crash(seed);
        self.recorder.restart();
    }
}

/// A coordinator as the participant sees it: calls in, without a network.
#[derive(Clone)]
pub(crate) struct Peer {
    client: ParticipantClient<ParticipantServer<Endpoint>>,
}

impl Peer {
    pub(crate) fn new(participant: &Participant) -> Self {
        Self {
            client: ParticipantClient::new(participant.service()),
        }
    }

    pub(crate) fn message(transaction: TransactionId, operation: Option<&str>) -> PrepareMessage {
        let name: ParticipantId = NAME.parse().unwrap();
        PrepareMessage {
            transaction,
            participant: name.clone(),
            members: [name, "other".parse().unwrap()].into(),
            request_hash: commit_hash(),
            operation: operation.map(|text| Operation::new(text.to_owned())),
            remaining: Duration::from_secs(5),
            epoch: 1,
            watermark: None,
        }
    }

    pub(crate) async fn prepare(
        &self,
        transaction: TransactionId,
        operation: &str,
    ) -> Result<PrepareVote, Status> {
        self.prepare_message(&Self::message(transaction, Some(operation)))
            .await
    }

    /// As a new leader asks, who does not know the operation.
    pub(crate) async fn prepare_again(&self, transaction: TransactionId) -> Result<PrepareVote, Status> {
        self.prepare_message(&Self::message(transaction, None)).await
    }

    pub(crate) async fn prepare_message(&self, message: &PrepareMessage) -> Result<PrepareVote, Status> {
        self.prepare_wire(message.to_wire(&CLUSTER.parse().unwrap()))
            .await
    }

    pub(crate) async fn prepare_wire(&self, wire: v1::PrepareRequest) -> Result<PrepareVote, Status> {
        let transaction = wire.transaction.parse();
        let reply = self.client.clone().prepare(wire).await?.into_inner();
        let (cluster, name) = (CLUSTER.parse().unwrap(), NAME.parse().unwrap());
        Ok(PrepareVote::from_wire(reply, &cluster, &name, transaction.unwrap()).unwrap())
    }

    /// Why this Prepare is refused.
    pub(crate) async fn refused_prepare(&self, wire: v1::PrepareRequest) -> Status {
        self.client.clone().prepare(wire).await.unwrap_err()
    }

    /// Prepares and expects a Yes; says where it stands.
    pub(crate) async fn yes(&self, transaction: TransactionId) -> Witness {
        let vote = self.prepare(transaction, "yes").await.unwrap();
        assert_eq!(vote.vote, Vote::Yes);
        vote.witness.unwrap()
    }

    /// The reason of a vote No.
    pub(crate) async fn no(&self, transaction: TransactionId, operation: &str) -> String {
        match self.prepare(transaction, operation).await.unwrap().vote {
            Vote::No { reason } => reason,
            other => panic!("voted {other}"),
        }
    }

    pub(crate) async fn commit(&self, transaction: TransactionId) -> Result<(), Status> {
        self.commit_wire(Self::commit_request(transaction)).await
    }

    pub(crate) fn commit_request(transaction: TransactionId) -> v1::CommitRequest {
        v1::CommitRequest {
            cluster: CLUSTER.to_owned(),
            transaction: transaction.to_string(),
            participant: NAME.to_owned(),
            request_hash: commit_hash().as_bytes().to_vec().into(),
            epoch: 1,
            watermark: String::new(),
        }
    }

    pub(crate) async fn commit_wire(&self, wire: v1::CommitRequest) -> Result<(), Status> {
        self.commit_reached(wire).await?;
        Ok(())
    }

    /// Commits, and says how far the journal reached.
    pub(crate) async fn commit_reached(&self, wire: v1::CommitRequest) -> Result<Witness, Status> {
        let transaction = wire.transaction.clone();
        let reply = self.client.clone().commit(wire).await?.into_inner();
        assert_eq!(
            (
                reply.cluster.as_str(),
                reply.participant.as_str(),
                reply.transaction
            ),
            (CLUSTER, NAME, transaction)
        );
        let reached = reply.reached.unwrap();
        Ok(Witness {
            generation: Generation(reached.generation),
            position: Position(reached.position),
        })
    }

    pub(crate) async fn abort(&self, transaction: TransactionId) -> Result<(), Status> {
        self.abort_wire(Self::abort_request(transaction)).await
    }

    pub(crate) fn abort_request(transaction: TransactionId) -> v1::AbortRequest {
        v1::AbortRequest {
            cluster: CLUSTER.to_owned(),
            transaction: transaction.to_string(),
            participant: NAME.to_owned(),
            epoch: 1,
            watermark: String::new(),
        }
    }

    pub(crate) async fn abort_wire(&self, wire: v1::AbortRequest) -> Result<(), Status> {
        let transaction = wire.transaction.clone();
        let reply = self.client.clone().abort(wire).await?.into_inner();
        assert_eq!(
            (
                reply.cluster.as_str(),
                reply.participant.as_str(),
                reply.transaction
            ),
            (CLUSTER, NAME, transaction)
        );
        Ok(())
    }
}
