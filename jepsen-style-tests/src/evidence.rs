//! What is found when the faults are over and everything has resolved: what the participants have on disk, and what
//! each coordinator node answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tonic::transport::Channel;
use unanimo_proto::transport::{Connector as _, TcpConnector};

use crate::cluster::{Cluster, Layout};
use crate::history::{Action, Answer, History, Step, Tx};
use crate::late::LateAnswers;
use crate::wire::store_client::StoreClient;
use crate::wire::{self, step};

mod files;
mod journal;
mod logs;
mod outcomes;
mod raft_log;

pub use files::add_files;
pub(crate) use journal::read as read_journal;

/// Everything that was found. Saved beside the history, so that a run can be judged again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// How many of each there were.
    pub layout: Option<Layout>,
    /// What was done before the history begins: the opening balances, as one transaction at each participant.
    pub opening: Vec<Step>,
    /// What each participant has, by its name.
    pub participants: BTreeMap<String, ParticipantEvidence>,
    /// What each coordinator node knows of each transaction by itself, by node and transaction.
    pub outcomes: BTreeMap<u64, BTreeMap<Tx, Answer>>,
    /// What the logs of the coordinator nodes hold.
    #[serde(default)]
    pub raft_logs: LogsEvidence,
    /// Lines of logs that no correct process writes.
    pub panics: Vec<LogLine>,
    /// Lines of logs that say that somebody broke a rule of the protocol.
    #[serde(default)]
    pub alarms: Vec<LogLine>,
    /// Whose log was read whole.
    #[serde(default)]
    pub logs_read: BTreeSet<String>,
    /// When the history began (Unix milliseconds), so that the clocks of participants can be compared with it.
    #[serde(default)]
    pub began_unix_ms: Option<u64>,
    /// When the last question of what is in `outcomes` had been answered, by the same clock.
    #[serde(default)]
    pub asked_unix_ms: Option<u64>,
    /// How long nodes remember what is over (milliseconds).
    #[serde(default)]
    pub retention_ms: Option<u64>,
    /// What was answered to messages that came late, again, or from somewhere else.
    #[serde(default)]
    pub late: Vec<LateAnswers>,
    /// What could not be found out. Whatever needs it stays unknown.
    pub missing: Vec<String>,
}

/// What one participant has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ParticipantEvidence {
    /// Whether it was asked for its cells and effects, and answered with all of them.
    #[serde(default)]
    pub answered: bool,
    /// Its cells, by name.
    pub cells: BTreeMap<String, CellEvidence>,
    /// What it applied.
    pub effects: Vec<EffectEvidence>,
    /// Whether its journal was read, and goes back to its first start. Otherwise promises and ends may be missing.
    #[serde(default)]
    pub journal_whole: bool,
    /// The promises in its journal, and when the last word of each was given (its clock, Unix milliseconds).
    pub promised: BTreeMap<Tx, u64>,
    /// What each promise was for.
    #[serde(default)]
    pub promises: BTreeMap<Tx, PromiseEvidence>,
    /// When it was told how a promise ended, for the first time (its clock, Unix milliseconds).
    #[serde(default)]
    pub heard: BTreeMap<Tx, u64>,
    /// Transactions that its journal promises after it has ended them: a tombstone that did not hold.
    #[serde(default)]
    pub promised_after_end: BTreeSet<Tx>,
    /// Transactions that its journal commits without a promise before.
    #[serde(default)]
    pub committed_unpromised: BTreeSet<Tx>,
    /// The number of each start in its journal, in order.
    #[serde(default)]
    pub starts: Vec<u32>,
    /// The end of each branch in its journal: every terminal record, in order.
    pub terminal: BTreeMap<Tx, Vec<Answer>>,
    /// To what it has said Yes, as it noted elsewhere before each was heard.
    #[serde(default)]
    pub said_yes: Option<BTreeSet<Tx>>,
    /// The Commits that it has acknowledged, in the same way.
    #[serde(default)]
    pub said_committed: Option<BTreeSet<Tx>>,
    /// Messages that it refused because no coordinator that keeps the rules sends them.
    pub refused_messages: u64,
    /// Branches that are still in doubt.
    pub in_doubt: u64,
    /// Transactions that still hold locks.
    pub holding: u64,
}

/// What the logs of all coordinator nodes hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsEvidence {
    /// By node, those that were read.
    pub nodes: BTreeMap<u64, LogEvidence>,
    /// Entries that stand in two logs, for each pair.
    pub compared: u64,
    /// Where two contradict each other.
    pub disagree: Vec<String>,
}

/// What the log of a coordinator node holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEvidence {
    /// Its entries.
    pub entries: u64,
    /// Votes of Raft that are written down in it.
    pub votes: u64,
    /// Entries of a leader whose vote was not written before them.
    pub uncovered: Vec<String>,
    /// Votes that contradict one before.
    pub repeated: Vec<String>,
    /// Cuts below what was committed. A cut takes what was written behind it along, so few would show.
    #[serde(default)]
    pub committed_cut: Vec<String>,
}

/// What a promise was for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseEvidence {
    /// The members that it names, in the order of their names.
    pub members: Vec<String>,
    /// The hash of the request, in hexadecimal digits.
    pub request: String,
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellEvidence {
    /// Its number.
    pub number: i64,
    /// Its list.
    pub list: Vec<u64>,
}

/// What a transaction did at a participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectEvidence {
    /// Which transaction.
    pub transaction: Tx,
    /// What it did.
    pub steps: Vec<Step>,
    /// How often.
    pub times: u32,
}

/// A line of a process's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Whose.
    pub member: String,
    /// The line.
    pub line: String,
}

/// How long everything may take to resolve once the faults are over.
const RESOLVE: Duration = Duration::from_secs(60);

/// Waits until everything has resolved, and asks everybody. What cannot be found out is noted as missing.
pub async fn collect(cluster: &mut Cluster, opening: Vec<Step>, history: &History) -> Evidence {
    let mut evidence = Evidence {
        layout: Some(cluster.layout()),
        opening,
        retention_ms: u64::try_from(cluster.retention().as_millis()).ok(),
        ..Evidence::default()
    };
    if let Err(error) = cluster.wait_for_leader(RESOLVE).await {
        evidence.missing.push(error.to_string());
    }
    for (name, address) in cluster.addresses().participants() {
        match participant(address).await {
            Ok(found) => {
                evidence.participants.insert(name, found);
            }
            Err(error) => evidence.missing.push(format!("{name}: {error}")),
        }
    }
    let asked: BTreeSet<Tx> = history
        .events
        .iter()
        .filter_map(|event| event.call.transaction())
        .collect();
    let nodes = cluster.addresses().nodes();
    let nodes = nodes.map(|(node, address)| (node, address.to_owned())).collect();
    let (outcomes, missing) = outcomes::of_nodes(&nodes, &asked).await;
    evidence.outcomes = outcomes;
    evidence.missing.extend(missing);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
    evidence.asked_unix_ms = now.and_then(|now| u64::try_from(now.as_millis()).ok());
    evidence
}

async fn participant(address: &str) -> Result<ParticipantEvidence, String> {
    let channel = TcpConnector::default()
        .channel(address)
        .map_err(|error| error.to_string())?;
    let mut store = StoreClient::new(channel);
    let deadline = Instant::now() + RESOLVE;
    let status = loop {
        let asked = store.get_status(wire::GetStatusRequest {}).await;
        let resolved = |status: &wire::GetStatusReply| status.in_flight == 0 && status.holding == 0;
        match asked.map(tonic::Response::into_inner) {
            Ok(status) if resolved(&status) || Instant::now() >= deadline => break status,
            Err(error) if Instant::now() >= deadline => return Err(error.to_string()),
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    Ok(ParticipantEvidence {
        answered: true,
        cells: cells(&mut store).await.map_err(|error| error.to_string())?,
        effects: effects(&mut store).await.map_err(|error| error.to_string())?,
        refused_messages: status.violations,
        in_doubt: status.in_doubt,
        holding: status.holding,
        ..ParticipantEvidence::default()
    })
}

async fn cells(store: &mut StoreClient<Channel>) -> Result<BTreeMap<String, CellEvidence>, tonic::Status> {
    let mut cells = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = store
            .list_cells(wire::ListCellsRequest { after })
            .await?
            .into_inner()
            .cells;
        let Some(last) = page.last() else { return Ok(cells) };
        after = last.name.clone();
        for wire::Cell { name, number, list } in page {
            cells.insert(name, CellEvidence { number, list });
        }
    }
}

async fn effects(store: &mut StoreClient<Channel>) -> Result<Vec<EffectEvidence>, tonic::Status> {
    let mut effects = Vec::new();
    let mut after = String::new();
    let internal = |error: unanimo_core::IdError| tonic::Status::internal(error.to_string());
    loop {
        let request = wire::ListEffectsRequest { after };
        let page = store.list_effects(request).await?.into_inner().effects;
        let Some(last) = page.last() else {
            return Ok(effects);
        };
        after = last.transaction.clone();
        for effect in page {
            effects.push(EffectEvidence {
                transaction: Tx(effect.transaction.parse().map_err(internal)?),
                steps: effect.steps.into_iter().map(from_wire).collect(),
                times: effect.times,
            });
        }
    }
}

/// A step as a participant has it; the participant's name is left empty.
fn from_wire(step: wire::Step) -> Step {
    let action = match step.action {
        Some(step::Action::Add(add)) => Action::Add {
            delta: add.delta,
            floor: add.floor,
        },
        Some(step::Action::Append(value)) => Action::Append(value),
        Some(step::Action::Read(_)) | None => Action::read(),
    };
    Step {
        participant: String::new(),
        cell: step.cell,
        action,
    }
}
