use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Channel;
use unanimo_client::{
    CallError, Client, ClientError, Decision, IdempotencyKey, Operation, ParticipantId, SubmitError,
    TransactionId,
};
use unanimo_core::Members;
use unanimo_proto::ErrorReason;
use unanimo_proto::transport::{BadAddress, Connector as _, TcpConnector};

use super::{Ask, Leaves, Request, Work};
use crate::cluster::{Addresses, CLUSTER};
use crate::history::{Action, Answer, Call, Pending, Process, Recorder, Step, Style, Tx};
use crate::wire::{Add, Read, Steps, step};

/// How long one node alone is asked, before the others are or the client goes on. Shorter than commits may take to come
/// back when a node is gone, so that clients that ask for that very node do not make it look as if nothing went on.
const ONE_NODE: Duration = Duration::from_secs(1);

/// Carries out what clients ask for, and writes down what they are told. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    recorder: Recorder,
    pub(super) client: Client,
    /// A client for each node, which asks no other.
    nodes: BTreeMap<u64, Client>,
    /// Where the nodes are, if they may change.
    changes: Option<watch::Receiver<Addresses>>,
    pub(super) stores: BTreeMap<String, Channel>,
    pub(super) patience: Duration,
}

/// Why there is no outcome of what was submitted.
enum Unsubmitted {
    Error(SubmitError),
    /// One node alone did not answer, and then all of them refused it. That is definite for the second call only: the
    /// first may have started something.
    RefusedLater {
        unknown: SubmitError,
        refused: SubmitError,
    },
}

/// Why nothing can be carried out.
#[derive(Debug, Error)]
pub enum ExecutorError {
    /// The client library refuses its options.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An address is none.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// A name is none.
    #[error(transparent)]
    Name(#[from] unanimo_core::IdError),
    /// An idempotency key is none.
    #[error(transparent)]
    Key(#[from] unanimo_core::KeyError),
}

/// How something came out.
pub(super) enum Outcome {
    Ok(Answer),
    Fail(Option<Answer>, String),
    Info(String),
}

/// A one-shot transaction as it is sent.
struct Submission {
    transaction: TransactionId,
    key: Option<IdempotencyKey>,
    branches: Vec<(ParticipantId, Operation)>,
}

impl Executor {
    /// Who works on the cluster at these addresses, and gives up on an answer after `patience`.
    pub fn new(addresses: &Addresses, recorder: Recorder, patience: Duration) -> Result<Self, ExecutorError> {
        let (client, nodes) = clients(addresses)?;
        let mut stores = BTreeMap::new();
        for (name, address) in addresses.participants() {
            stores.insert(name, TcpConnector::default().channel(address)?);
        }
        Ok(Self {
            recorder,
            client,
            nodes,
            stores,
            patience,
            changes: None,
        })
    }

    /// With nodes that may change: see [`keep_up`](Self::keep_up).
    #[must_use]
    pub fn following(self, changes: watch::Receiver<Addresses>) -> Self {
        Self {
            changes: Some(changes),
            ..self
        }
    }

    /// Works with the nodes that there are now, if they have changed.
    pub fn keep_up(&mut self) -> Result<(), ExecutorError> {
        let Some(changes) = &mut self.changes else {
            return Ok(());
        };
        // Fails only when the cluster is gone, and then nothing changes any more.
        if changes.has_changed().unwrap_or(false) {
            (self.client, self.nodes) = clients(&changes.borrow_and_update())?;
        }
        Ok(())
    }

    /// Does what a client does next, and says as whom it goes on.
    pub async fn turn(&self, process: Process, work: &mut dyn Work) -> Process {
        match work.next() {
            Request::One(ask) => {
                let (next, call, answer) = self.ask(process, ask).await;
                work.told(&call, answer.as_ref());
                next
            }
            Request::Together(asks) => {
                let all = asks
                    .into_iter()
                    .map(|ask| self.ask(self.recorder.new_process(), ask));
                for (_, call, answer) in futures::future::join_all(all).await {
                    work.told(&call, answer.as_ref());
                }
                process
            }
        }
    }

    /// Carries out a call as this process, and says who goes on, with what was done and told.
    pub async fn perform(&self, process: Process, call: Call) -> (Process, Call, Option<Answer>) {
        self.ask(process, call.into()).await
    }

    async fn ask(&self, process: Process, ask: Ask) -> (Process, Call, Option<Answer>) {
        if !ask.after.is_zero() {
            tokio::time::sleep(ask.after).await;
        }
        let mut call = ask.call;
        let pending = self.recorder.invoke(process, call.clone());
        let outcome = match self.carry_out(&mut call, ask.through, ask.leaves).await {
            Ok(outcome) => outcome,
            // Refused by our own side before anything was sent.
            Err(error) => Outcome::Fail(None, error.to_string()),
        };
        self.write_down(process, pending, call, outcome)
    }

    fn write_down(
        &self,
        process: Process,
        pending: Pending,
        call: Call,
        outcome: Outcome,
    ) -> (Process, Call, Option<Answer>) {
        match outcome {
            Outcome::Ok(answer) => {
                self.recorder.ok(pending, call.clone(), answer.clone());
                (process, call, Some(answer))
            }
            Outcome::Fail(answer, error) => {
                self.recorder.fail(pending, call.clone(), answer.clone(), error);
                (process, call, answer)
            }
            Outcome::Info(error) => (self.recorder.info(pending, call.clone(), error), call, None),
        }
    }

    async fn carry_out(
        &self,
        call: &mut Call,
        through: Option<u64>,
        leaves: Option<Leaves>,
    ) -> Result<Outcome, ExecutorError> {
        match call {
            Call::Transact {
                transaction,
                style: Style::OneShot,
                key,
                steps,
            } => {
                let submission = self.submission(transaction, key.as_deref(), steps)?;
                Ok(self.submit(transaction, submission, through, leaves).await)
            }
            Call::Transact {
                transaction,
                style: Style::Interactive,
                steps,
                ..
            } => Ok(self.interact(transaction, steps, leaves).await),
            Call::Query { transaction, node } => Ok(self.query(*transaction, *node).await),
            Call::Abort { transaction, members } => self.abort(*transaction, members).await,
        }
    }

    /// Gives the transaction an id unless it has one or is to be known by its key.
    fn submission(
        &self,
        transaction: &mut Option<Tx>,
        key: Option<&str>,
        steps: &[Step],
    ) -> Result<Submission, ExecutorError> {
        let mut branches = Vec::new();
        for (participant, steps) in by_participant(steps) {
            let steps = Steps { steps };
            branches.push((participant.parse()?, Operation::new(steps.encode_to_vec())));
        }
        let key = key.map(IdempotencyKey::new).transpose()?;
        let id = transaction.unwrap_or_else(|| Tx(self.client.new_transaction()));
        if key.is_none() {
            *transaction = Some(id);
        }
        Ok(Submission {
            transaction: id.0,
            key,
            branches,
        })
    }

    async fn submit(
        &self,
        transaction: &mut Option<Tx>,
        submission: Submission,
        through: Option<u64>,
        leaves: Option<Leaves>,
    ) -> Outcome {
        let submitted = self.submit_through(&submission, through);
        let submitted = match leaves {
            Some(Leaves::Unanswered(after)) => match timeout(after, submitted).await {
                Ok(submitted) => submitted,
                Err(_) => return went_away_unanswered(),
            },
            Some(Leaves::AfterBegin | Leaves::AfterCalls) | None => submitted.await,
        };
        match submitted {
            Ok((told, decision)) => {
                *transaction = Some(Tx(told));
                decided(decision)
            }
            Err(Unsubmitted::Error(error @ SubmitError::Refused { .. })) => {
                Outcome::Fail(None, error.to_string())
            }
            Err(Unsubmitted::Error(error)) => Outcome::Info(error.to_string()),
            Err(Unsubmitted::RefusedLater { unknown, refused }) => {
                Outcome::Info(format!("{unknown}; then it was refused: {refused}"))
            }
        }
    }

    /// Through one node, and if that is out of reach through any.
    async fn submit_through(
        &self,
        submission: &Submission,
        through: Option<u64>,
    ) -> Result<(TransactionId, Decision), Unsubmitted> {
        let Some(node) = through.and_then(|node| self.nodes.get(&node)) else {
            let told = submission.send(&self.client, self.patience).await;
            return told.map_err(Unsubmitted::Error);
        };
        let unknown = match submission.send(node, ONE_NODE.min(self.patience)).await {
            Err(error @ (SubmitError::Unknown { .. } | SubmitError::KeyUnknown { .. })) => error,
            definite => return definite.map_err(Unsubmitted::Error),
        };
        match submission.send(&self.client, self.patience).await {
            Err(refused @ SubmitError::Refused { .. }) => Err(Unsubmitted::RefusedLater { unknown, refused }),
            answered => answered.map_err(Unsubmitted::Error),
        }
    }

    async fn query(&self, transaction: Tx, node: u64) -> Outcome {
        let Some(client) = self.nodes.get(&node) else {
            return Outcome::Fail(None, format!("there is no node {node}"));
        };
        match client.outcome(transaction.0, ONE_NODE.min(self.patience)).await {
            Ok(Some(decision)) => Outcome::Ok(answer(decision)),
            Ok(None) => Outcome::Ok(Answer::Undecided),
            Err(CallError::Refused {
                reason: ErrorReason::Expired,
                ..
            }) => Outcome::Ok(Answer::Expired),
            // A question has no effect, so it did not happen.
            Err(error) => Outcome::Fail(None, error.to_string()),
        }
    }

    async fn abort(&self, transaction: Tx, members: &[String]) -> Result<Outcome, ExecutorError> {
        let members: Result<Members, _> = members.iter().map(|name| name.parse()).collect();
        let members = members?;
        let told = self.client.abort(transaction.0, &members, self.patience).await;
        Ok(match told {
            // Told what it is, whatever that is: the register answers with what it holds.
            Ok(decision) => Outcome::Ok(answer(decision)),
            Err(error @ CallError::Refused { .. }) => Outcome::Fail(None, error.to_string()),
            Err(error) => Outcome::Info(error.to_string()),
        })
    }
}

/// A client for all nodes, and one for each.
fn clients(addresses: &Addresses) -> Result<(Client, BTreeMap<u64, Client>), ExecutorError> {
    let client = |nodes: Vec<String>| -> Result<Client, ExecutorError> {
        Ok(Client::connect(CLUSTER.parse()?, nodes)?)
    };
    let mut nodes = BTreeMap::new();
    for (node, address) in addresses.nodes() {
        nodes.insert(node, client(vec![address.to_owned()])?);
    }
    Ok((client(addresses.coordinators())?, nodes))
}

impl Submission {
    async fn send(
        &self,
        client: &Client,
        patience: Duration,
    ) -> Result<(TransactionId, Decision), SubmitError> {
        let branches = self.branches.clone();
        match &self.key {
            Some(key) => client.submit_with_key(key, branches, patience).await,
            None => {
                let decision = client.submit(self.transaction, branches, patience).await?;
                Ok((self.transaction, decision))
            }
        }
    }
}

fn answer(decision: Decision) -> Answer {
    match decision {
        Decision::Commit => Answer::Committed,
        Decision::Abort(reason) => Answer::Aborted(reason.to_string()),
    }
}

pub(super) fn decided(decision: Decision) -> Outcome {
    match answer(decision) {
        Answer::Aborted(reason) => Outcome::Fail(Some(Answer::Aborted(reason.clone())), reason),
        committed => Outcome::Ok(committed),
    }
}

pub(super) fn went_away_unanswered() -> Outcome {
    Outcome::Info("the client went away before it heard an answer".to_owned())
}

/// The steps of each participant, in the order of the names.
fn by_participant(steps: &[Step]) -> BTreeMap<String, Vec<crate::wire::Step>> {
    let mut branches: BTreeMap<String, Vec<crate::wire::Step>> = BTreeMap::new();
    for step in steps {
        branches
            .entry(step.participant.clone())
            .or_default()
            .push(to_wire(step));
    }
    branches
}

pub(super) fn to_wire(step: &Step) -> crate::wire::Step {
    let action = match &step.action {
        Action::Add { delta, floor } => step::Action::Add(Add {
            delta: *delta,
            floor: *floor,
        }),
        Action::Append(value) => step::Action::Append(*value),
        Action::Read { .. } => step::Action::Read(Read {}),
    };
    crate::wire::Step {
        cell: step.cell.clone(),
        action: Some(action),
    }
}
