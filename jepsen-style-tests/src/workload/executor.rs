use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use thiserror::Error;
use tokio::sync::watch;
use tonic::transport::Channel;
use unanimo_client::{
    CallError, Client, ClientError, CommitError, Decision, InteractiveTransaction, Operation, ParticipantId,
    SubmitError,
};
use unanimo_core::Members;
use unanimo_proto::ErrorReason;
use unanimo_proto::transport::{BadAddress, Connector as _, TcpConnector};

use crate::cluster::{Addresses, CLUSTER};
use crate::history::{Action, Answer, Call, Pending, Process, Recorder, Step, Style, Tx};
use crate::wire::store_client::StoreClient;
use crate::wire::{Add, ExecuteRequest, Read, Steps, step};

/// How long an interactive transaction may hold things before its commit.
const TIME: Duration = Duration::from_secs(5);
/// How long one call to a participant may take.
const CALL: Duration = Duration::from_secs(2);

/// Carries out what clients ask for, and writes down what they are told. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    recorder: Recorder,
    client: Client,
    /// A client for each node, which asks no other.
    nodes: BTreeMap<u64, Client>,
    stores: BTreeMap<String, Channel>,
    patience: Duration,
    /// Where the nodes are, if they may change.
    changes: Option<watch::Receiver<Addresses>>,
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
}

/// How something came out.
enum Outcome {
    Ok(Answer),
    Fail(Option<Answer>, String),
    Info(String),
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

    /// Carries out a call as this process, and says who goes on, with what was done and told.
    pub async fn perform(&self, process: Process, call: Call) -> (Process, Call, Option<Answer>) {
        let pending = self.recorder.invoke(process, call.clone());
        let mut call = call;
        let outcome = match self.carry_out(&mut call).await {
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

    async fn carry_out(&self, call: &mut Call) -> Result<Outcome, ExecutorError> {
        match call {
            Call::Transact {
                transaction,
                style: Style::OneShot,
                steps,
                ..
            } => self.submit(transaction, steps).await,
            Call::Transact {
                transaction,
                style: Style::Interactive,
                steps,
                ..
            } => Ok(self.interact(transaction, steps).await),
            Call::Query { transaction, node } => Ok(self.query(*transaction, *node).await),
            Call::Abort { transaction, members } => self.abort(*transaction, members).await,
        }
    }

    async fn submit(&self, transaction: &mut Option<Tx>, steps: &[Step]) -> Result<Outcome, ExecutorError> {
        let tx = *transaction.get_or_insert_with(|| Tx(self.client.new_transaction()));
        let mut branches: Vec<(ParticipantId, Operation)> = Vec::new();
        for (participant, steps) in by_participant(steps) {
            let steps = Steps { steps };
            branches.push((participant.parse()?, Operation::new(steps.encode_to_vec())));
        }
        Ok(match self.client.submit(tx.0, branches, self.patience).await {
            Ok(decision) => decided(decision),
            Err(error @ SubmitError::Refused { .. }) => Outcome::Fail(None, error.to_string()),
            Err(error) => Outcome::Info(error.to_string()),
        })
    }

    async fn interact(&self, transaction: &mut Option<Tx>, steps: &mut [Step]) -> Outcome {
        let interactive = match self.client.begin(TIME).await {
            Ok(interactive) => interactive,
            // An id may have been given; nobody has joined it.
            Err(error) => return Outcome::Fail(None, error.to_string()),
        };
        *transaction = Some(Tx(interactive.transaction()));
        match self.execute(&interactive, steps).await {
            Ok(()) => commit(interactive, self.patience).await,
            Err(error) => give_up(interactive, self.patience, error).await,
        }
    }

    /// One participant after the other, in the order of their names, so that no two wait for each other.
    async fn execute(&self, transaction: &InteractiveTransaction, steps: &mut [Step]) -> Result<(), String> {
        for (participant, asked) in by_participant(steps) {
            let Some(channel) = self.stores.get(&participant) else {
                return Err(format!("there is no participant {participant}"));
            };
            let mut request = tonic::Request::new(ExecuteRequest { steps: asked });
            request.set_timeout(CALL);
            let mut store = StoreClient::new(transaction.channel(channel.clone()));
            let reply = store
                .execute(request)
                .await
                .map_err(|status| format!("{participant}: {status}"))?;
            let mut cells = reply.into_inner().read.into_iter();
            for step in steps.iter_mut().filter(|step| step.participant == participant) {
                if let Action::Read { number, list } = &mut step.action {
                    let cell = cells.next().ok_or("a read was not answered")?;
                    (*number, *list) = (Some(cell.number), Some(cell.list));
                }
            }
        }
        Ok(())
    }

    async fn query(&self, transaction: Tx, node: u64) -> Outcome {
        let Some(client) = self.nodes.get(&node) else {
            return Outcome::Fail(None, format!("there is no node {node}"));
        };
        match client.outcome(transaction.0, self.patience).await {
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

fn answer(decision: Decision) -> Answer {
    match decision {
        Decision::Commit => Answer::Committed,
        Decision::Abort(reason) => Answer::Aborted(reason.to_string()),
    }
}

fn decided(decision: Decision) -> Outcome {
    match answer(decision) {
        Answer::Aborted(reason) => Outcome::Fail(Some(Answer::Aborted(reason.clone())), reason),
        committed => Outcome::Ok(committed),
    }
}

async fn commit(transaction: InteractiveTransaction, patience: Duration) -> Outcome {
    match transaction.commit(patience).await {
        Ok(decision) => decided(decision),
        Err(error @ CommitError::Unknown { .. }) => Outcome::Info(error.to_string()),
        Err(error) => Outcome::Fail(None, error.to_string()),
    }
}

/// Nobody has asked for the commit, so it cannot have happened, whatever becomes of the abort.
async fn give_up(transaction: InteractiveTransaction, patience: Duration, error: String) -> Outcome {
    match transaction.abort(patience).await {
        Ok(Decision::Commit) => Outcome::Info(format!("committed, though nobody asked for it; {error}")),
        Ok(Decision::Abort(reason)) => Outcome::Fail(Some(Answer::Aborted(reason.to_string())), error),
        Err(_) => Outcome::Fail(None, error),
    }
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

fn to_wire(step: &Step) -> crate::wire::Step {
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
