//! One life of the service and its participant, from a start to a crash.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tonic::Status;
use unanimo_core::{ClusterId, Operation, ParticipantId, RequestHash, Timestamp, TransactionId, Vote};
use unanimo_participant::{
    Bytes, Endpoint, Participant, ParticipantOptions, Parts, ResourceManager, Writing,
};
use unanimo_proto::transport::SystemClock;
use unanimo_proto::v1::participant_client::ParticipantClient;
use unanimo_proto::v1::participant_server::ParticipantServer;
use unanimo_proto::{PrepareMessage, PrepareVote, v1};

use crate::Service;
use crate::coordinator::{CLUSTER, InMemory};
use crate::run::World;
use crate::watched::{Gate, Watched};

const NAME: &str = "service";

/// Long enough for a slow disk, and never waited for when all is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// The n-th transaction of a run.
pub(crate) fn transaction(number: u8) -> TransactionId {
    // Behind every clock, and spread as real ids are.
    let at = Timestamp::from_unix_ms(1_700_000_000_000 + u64::from(number));
    TransactionId::new(at, u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn hash() -> RequestHash {
    RequestHash::from_bytes([7; 32])
}

/// What ended a call.
pub(crate) enum Ended<T> {
    /// It was answered.
    Answered(T),
    /// It was refused for now, and has to be made again.
    Refused(String),
    /// The power was cut.
    Crashed,
}

/// A message to the participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Prepare(u8, Bytes),
    Commit(u8),
    Abort(u8),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Voted(Vote),
    Acknowledged,
}

/// What became of a Prepare that was overtaken by its Abort.
pub(crate) struct Overtaken {
    pub(crate) vote: Vote,
    /// Whether the resource manager was at work on it when the Abort came.
    pub(crate) was_at_work: bool,
}

/// One life. Dropping it ends everything that it was doing.
pub(crate) struct Life<M> {
    runtime: Runtime,
    participant: Participant,
    pub(crate) manager: Arc<M>,
    crashed: watch::Receiver<bool>,
}

impl<M: ResourceManager> Life<M> {
    /// Starts the service and its participant; returns when the cluster has confirmed it.
    pub(crate) fn start<S: Service<Manager = M>>(world: &World<S>) -> Result<Ended<Self>, String> {
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = built.map_err(|error| format!("no runtime: {error}"))?;
        let (crash, mut crashed) = watch::channel(false);
        world.storage.tell(crash.clone());
        let starting = async {
            let opened = world.service.open(&world.storage).await;
            let manager = Arc::new(opened.map_err(|error| format!("the service does not open: {error}"))?);
            let watched = Watched {
                manager: Arc::clone(&manager),
                trap: Arc::clone(&world.trap),
                crashed: crash,
            };
            let started = Participant::start_with(options()?, parts(world), watched).await;
            let participant = started.map_err(|error| format!("the participant does not start: {error}"))?;
            let registered = async {
                while !participant.statistics().registered {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                () = registered => {}
                reason = participant.stopped() => return Err(format!("the participant stops: {reason:?}")),
            }
            Ok::<_, String>((participant, manager))
        };
        let started = runtime.block_on(async {
            tokio::select! {
                biased;
                _ = crashed.wait_for(|crashed| *crashed) => None,
                started = tokio::time::timeout(PATIENCE, starting) => Some(started),
            }
        });
        let (participant, manager) = match started {
            None => return Ok(Ended::Crashed),
            Some(Ok(Ok(started))) => started,
            Some(Ok(Err(why))) => return Ok(Ended::Refused(why)),
            Some(Err(_)) => return Ok(Ended::Refused("it does not come up".to_owned())),
        };
        Ok(Ended::Answered(Self {
            runtime,
            participant,
            manager,
            crashed,
        }))
    }

    /// Sends one message, and waits for what comes of it.
    pub(crate) fn send(&mut self, message: &Message) -> Ended<Answer> {
        let client = ParticipantClient::new(self.participant.service());
        let (crashed, participant) = (&mut self.crashed, &self.participant);
        let answered = until_crashed(crashed, participant, answer(client, message));
        self.runtime.block_on(answered)
    }

    /// Sends a Prepare, and its Abort when the resource manager has reached the gate. That opens when the Prepare is
    /// answered, which does not wait for the resource manager; the Abort's answer does.
    pub(crate) fn send_overtaking(
        &mut self,
        prepare: &Message,
        abort: &Message,
        gate: &Gate,
    ) -> Ended<Overtaken> {
        let client = || ParticipantClient::new(self.participant.service());
        let (preparing, aborting) = (answer(client(), prepare), answer(client(), abort));
        let answered = Notify::new();
        let preparing = async {
            let voted = preparing.await;
            answered.notify_one();
            gate.open();
            voted
        };
        let aborting = async {
            let was_at_work = tokio::select! {
                biased;
                () = gate.reached() => true,
                () = answered.notified() => false,
            };
            aborting.await.map(|_| was_at_work)
        };
        let both = async {
            let (voted, aborted) = tokio::join!(preparing, aborting);
            let was_at_work = aborted?;
            match voted? {
                Answer::Voted(vote) => Ok(Overtaken { vote, was_at_work }),
                Answer::Acknowledged => Err(malformed("a Prepare is acknowledged")),
            }
        };
        let (crashed, participant) = (&mut self.crashed, &self.participant);
        self.runtime.block_on(until_crashed(crashed, participant, both))
    }

    /// Lets something of the service run in this life.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Messages that were refused as contradictions.
    pub(crate) fn violations(&self) -> u64 {
        self.participant.statistics().violations
    }
}

async fn until_crashed<T>(
    crashed: &mut watch::Receiver<bool>,
    participant: &Participant,
    call: impl Future<Output = Result<T, Status>>,
) -> Ended<T> {
    tokio::select! {
        biased;
        _ = crashed.wait_for(|crashed| *crashed) => Ended::Crashed,
        _ = participant.stopped() => Ended::Crashed,
        answered = tokio::time::timeout(PATIENCE, call) => match answered {
            Ok(Ok(answer)) => Ended::Answered(answer),
            Ok(Err(status)) => Ended::Refused(status.to_string()),
            Err(_) => Ended::Refused("there was no answer".to_owned()),
        },
    }
}

fn options() -> Result<ParticipantOptions, String> {
    let bad = |error: unanimo_core::IdError| error.to_string();
    let (cluster, name) = (CLUSTER.parse().map_err(bad)?, NAME.parse().map_err(bad)?);
    let mut options = ParticipantOptions::new(cluster, name, "service:1", ["coordinator:1"], "/nowhere");
    options.segment_bytes = 256 * 1024;
    // The kit tells the decisions.
    options.inquiry_after = Duration::from_secs(3600);
    options.retry_pause_max = Duration::from_millis(5);
    Ok(options)
}

fn parts<S>(world: &World<S>) -> Parts {
    Parts {
        disk: Arc::new(world.disk.clone()),
        table: Arc::new(world.branches.clone()),
        connector: InMemory::shared(),
        clock: SystemClock::shared(),
        seed: 1,
        random: world.lives,
        writing: Writing::Tasks,
    }
}

type Client = ParticipantClient<ParticipantServer<Endpoint>>;

async fn answer(mut client: Client, message: &Message) -> Result<Answer, Status> {
    match message {
        Message::Prepare(number, operation) => {
            let cluster: ClusterId = CLUSTER.parse().map_err(malformed)?;
            let name: ParticipantId = NAME.parse().map_err(malformed)?;
            let prepare = PrepareMessage {
                transaction: transaction(*number),
                participant: name.clone(),
                members: [name.clone()].into(),
                request_hash: hash(),
                operation: Some(Operation::new(operation.clone())),
                remaining: PATIENCE,
                epoch: 1,
                watermark: None,
            };
            let reply = client.prepare(prepare.to_wire(&cluster)).await?.into_inner();
            let voted = PrepareVote::from_wire(reply, &cluster, &name, transaction(*number));
            Ok(Answer::Voted(voted.map_err(malformed)?.vote))
        }
        Message::Commit(number) => {
            let request = v1::CommitRequest {
                cluster: CLUSTER.to_owned(),
                transaction: transaction(*number).to_string(),
                participant: NAME.to_owned(),
                request_hash: hash().as_bytes().to_vec().into(),
                epoch: 1,
                watermark: String::new(),
            };
            client.commit(request).await?;
            Ok(Answer::Acknowledged)
        }
        Message::Abort(number) => {
            let request = v1::AbortRequest {
                cluster: CLUSTER.to_owned(),
                transaction: transaction(*number).to_string(),
                participant: NAME.to_owned(),
                epoch: 1,
                watermark: String::new(),
            };
            client.abort(request).await?;
            Ok(Answer::Acknowledged)
        }
    }
}

fn malformed(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}
