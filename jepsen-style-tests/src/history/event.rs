use std::fmt;

use serde::{Deserialize, Serialize};
use unanimo_client::TransactionId;

/// A transaction's id as a history has it: its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tx(pub TransactionId);

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the history, from 0.
    pub index: u64,
    /// Nanoseconds since the run began, by the harness's monotonic clock.
    pub time_ns: u64,
    /// Who did it. A process does one thing at a time.
    pub process: Process,
    /// Invoked, or how it completed.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What was asked. In a completion the same as in the invocation, with what was read filled in.
    pub call: Call,
    /// What was told. Only with `ok`, and with `fail` if the answer was an abort, or a commit that nobody asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A client of the workload. After an operation whose outcome is unknown a client goes on under a new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Process(pub u32);

/// What a line says of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It was asked for.
    Invoke,
    /// It happened.
    Ok,
    /// It did not happen and will not.
    Fail,
    /// Nobody knows.
    Info,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "f")]
pub enum Call {
    /// A transaction. It is the first of its id, or repeats an earlier one.
    Transact {
        /// Its id. Absent in the invocation of a transaction whose id the cluster gives, or that has a key.
        transaction: Option<Tx>,
        /// How it was run.
        style: Style,
        /// The idempotency key it was submitted with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// What it does.
        steps: Vec<Step>,
    },
    /// The outcome of a transaction, asked of one node.
    Query {
        /// Which transaction.
        transaction: Tx,
        /// The node asked, by its id.
        node: u64,
    },
    /// The abort of a transaction that may be under way, asked of the cluster: the answer is what it has decided.
    Abort {
        /// Which transaction.
        transaction: Tx,
        /// Its members.
        members: Vec<String>,
    },
}

/// How a transaction is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// `Submit`: everything at once. Reads are checks of the participant's own and answer nothing.
    OneShot,
    /// `Begin`, calls to the participants, `Commit`.
    Interactive,
}

/// What a transaction does to one cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where.
    pub participant: String,
    /// To which cell.
    pub cell: String,
    /// What.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Adds to the cell's number. The participant votes No if it would be below the floor.
    Add {
        /// How much.
        delta: i64,
        /// The least that may be left.
        floor: i64,
    },
    /// Appends to the cell's list. Values are unique in a run.
    Append(u64),
    /// Reads the cell. What was read is filled in when the operation completes.
    Read {
        /// The number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<i64>,
        /// The list.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<Vec<u64>>,
    },
}

/// What was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Committed.
    Committed,
    /// Aborted, because of this.
    Aborted(String),
    /// A query: not decided yet, as this node knows.
    Undecided,
    /// A query: too old to be known.
    Expired,
}

impl Action {
    /// A read that has not happened yet.
    pub fn read() -> Self {
        Self::Read {
            number: None,
            list: None,
        }
    }
}

impl Call {
    /// The transaction it is about, if it is known.
    pub fn transaction(&self) -> Option<Tx> {
        match self {
            Self::Transact { transaction, .. } => *transaction,
            Self::Query { transaction, .. } | Self::Abort { transaction, .. } => Some(*transaction),
        }
    }

    /// Its steps; none if it is no transaction.
    pub fn steps(&self) -> &[Step] {
        match self {
            Self::Transact { steps, .. } => steps,
            Self::Query { .. } | Self::Abort { .. } => &[],
        }
    }
}

impl fmt::Display for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Tx> for String {
    fn from(tx: Tx) -> Self {
        tx.to_string()
    }
}

impl TryFrom<String> for Tx {
    type Error = unanimo_core::IdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}
