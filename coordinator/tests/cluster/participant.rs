//! A participant that votes and acknowledges as a test says, and keeps what it heard.

use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use unanimo_core::{ParticipantId, Vote};
use unanimo_proto::v1::participant_server::{Participant, ParticipantServer};
use unanimo_proto::v1::{self, prepare_reply};
use unanimo_proto::{ErrorReason, refusal};

use super::{PATIENCE, TestCluster, eventually};

/// One message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Prepare {
        transaction: String,
        operation: Option<String>,
    },
    Commit {
        transaction: String,
    },
    Abort {
        transaction: String,
    },
}

/// What it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Behaviour {
    /// None: it keeps whoever asks waiting.
    pub(crate) vote: Option<Vote>,
    /// What it says when asked without the operation.
    pub(crate) vote_again: Option<Vote>,
    /// Whether decisions are acknowledged; else refused for now.
    pub(crate) acknowledges: bool,
    /// Where its journal ends when it acknowledges a Commit, if it says so.
    pub(crate) acknowledges_at: Option<u64>,
    /// The life that it votes in.
    pub(crate) generation: u64,
    /// Whose name its votes and acknowledgements carry instead of its own.
    pub(crate) poses_as: Option<String>,
    /// As what it refuses every `Prepare`, if it does.
    pub(crate) refuses: Option<ErrorReason>,
}

#[derive(Clone)]
pub(crate) struct TestParticipant {
    name: ParticipantId,
    address: String,
    behaviour: watch::Sender<Behaviour>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl TestParticipant {
    /// Starts a participant that votes Yes and acknowledges, and registers it.
    pub(crate) async fn start(cluster: &TestCluster, name: &str) -> Self {
        let this = Self::start_unregistered(name).await;
        this.register(cluster, 1, 1).await.unwrap();
        this
    }

    pub(crate) async fn start_unregistered(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behaviour = Behaviour {
            vote: Some(Vote::Yes),
            vote_again: Some(Vote::Yes),
            acknowledges: true,
            acknowledges_at: None,
            generation: 1,
            poses_as: None,
            refuses: None,
        };
        let this = Self {
            name: super::participant(name),
            address,
            behaviour: watch::Sender::new(behaviour),
            heard: Arc::default(),
        };
        let server = Server::builder().add_service(ParticipantServer::new(this.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        this
    }

    /// Registers, again and again until some node takes it.
    pub(crate) async fn register(
        &self,
        cluster: &TestCluster,
        generation: u64,
        position: u64,
    ) -> Result<(), Status> {
        let request = v1::RegisterRequest {
            cluster: "test".to_owned(),
            participant: self.name.to_string(),
            address: self.address.clone(),
            generation,
            position,
        };
        let place = cluster.leader().await;
        let mut client = cluster.coordinator(place).await;
        eventually("a registration", async || {
            match client.register(request.clone()).await {
                Ok(_) => Some(Ok(())),
                Err(error) if unanimo_proto::definite(&error) => Some(Err(error)),
                Err(_) => None,
            }
        })
        .await
    }

    pub(crate) fn name(&self) -> &ParticipantId {
        &self.name
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        self.behaviour.send_modify(change);
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until a message has arrived.
    pub(crate) async fn until_heard(&self, message: &Heard) {
        eventually(&format!("{} hears {message:?}", self.name), async || {
            self.heard().contains(message).then_some(())
        })
        .await;
    }

    fn hear(&self, message: Heard) {
        self.heard.lock().unwrap().push(message);
    }

    /// The name in a reply.
    fn sender(&self, asked: String) -> String {
        self.behaviour.borrow().poses_as.clone().unwrap_or(asked)
    }

    async fn acknowledge(&self) -> Result<(), Status> {
        if self.behaviour.borrow().acknowledges {
            Ok(())
        } else {
            Err(Status::unavailable("not now"))
        }
    }
}

#[tonic::async_trait]
impl Participant for TestParticipant {
    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareReply>, Status> {
        let message = request.into_inner();
        let again = message.operation.is_none();
        // Read before anybody can know that this was heard, and change it.
        let refuses = self.behaviour.borrow().refuses;
        self.hear(Heard::Prepare {
            transaction: message.transaction.clone(),
            operation: message
                .operation
                .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()),
        });
        if let Some(reason) = refuses {
            return Err(refusal(reason, "told to refuse"));
        }
        let mut behaviour = self.behaviour.subscribe();
        let chosen = |now: &Behaviour| {
            if again {
                now.vote_again.clone()
            } else {
                now.vote.clone()
            }
        };
        let waited = tokio::time::timeout(PATIENCE, behaviour.wait_for(|now| chosen(now).is_some())).await;
        let vote = waited.unwrap().map(|now| chosen(&now)).unwrap();
        let vote = match vote.unwrap() {
            Vote::Yes => prepare_reply::Vote::Yes(prepare_reply::Yes {
                generation: self.behaviour.borrow().generation,
                position: 7,
            }),
            Vote::ReadOnly => prepare_reply::Vote::ReadOnly(prepare_reply::ReadOnly {}),
            Vote::No { reason } => prepare_reply::Vote::No(prepare_reply::No { reason }),
        };
        Ok(Response::new(v1::PrepareReply {
            cluster: message.cluster,
            transaction: message.transaction,
            participant: self.sender(message.participant),
            vote: Some(vote),
        }))
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitReply>, Status> {
        let message = request.into_inner();
        self.hear(Heard::Commit {
            transaction: message.transaction.clone(),
        });
        self.acknowledge().await?;
        let Behaviour {
            generation,
            acknowledges_at,
            ..
        } = *self.behaviour.borrow();
        Ok(Response::new(v1::CommitReply {
            cluster: message.cluster,
            transaction: message.transaction,
            participant: self.sender(message.participant),
            reached: acknowledges_at.map(|position| v1::commit_reply::Reached { generation, position }),
        }))
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Result<Response<v1::AbortReply>, Status> {
        let message = request.into_inner();
        self.hear(Heard::Abort {
            transaction: message.transaction.clone(),
        });
        self.acknowledge().await?;
        Ok(Response::new(v1::AbortReply {
            cluster: message.cluster,
            transaction: message.transaction,
            participant: self.sender(message.participant),
        }))
    }
}
