//! A run as the checkers of the jepsen-style tests read it: a history of what was asked and told, and evidence of what there
//! is in the end. They are the shapes of `history` and `evidence` of that crate, which this one does not depend on: its
//! build has another tokio.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use unanimo_core::{ParticipantId, TransactionId};

use crate::bank::Changes;
use crate::clock::EPOCH;
use crate::journals::Promises;
use crate::ledger::Answer;

/// The lines of a history. A clone is another handle.
#[derive(Clone, Default)]
pub(crate) struct History {
    lines: Arc<Mutex<Vec<Value>>>,
}

impl History {
    /// Notes that somebody asks for a transaction, and returns who: each call is a process of its own.
    pub(crate) fn invoke(
        &self,
        at: Duration,
        transaction: TransactionId,
        branches: &BTreeMap<ParticipantId, Changes>,
    ) -> Invoked {
        let mut lines = self.lock();
        let invoked = Invoked {
            process: lines.len(),
            call: transact(transaction, branches),
        };
        let line = invoked.line(&lines, at, "invoke");
        lines.push(line);
        invoked
    }

    /// Notes what was told.
    pub(crate) fn complete(&self, at: Duration, invoked: &Invoked, answer: &Answer) {
        let mut lines = self.lock();
        let (kind, told, error) = match answer {
            Answer::Committed => ("ok", Some(json!("committed")), None),
            Answer::Aborted(reason) => ("fail", Some(json!({ "aborted": reason })), None),
            Answer::Refused(reason) => ("fail", None, Some(reason)),
            Answer::Unknown(reason) => ("info", None, Some(reason)),
        };
        let mut line = invoked.line(&lines, at, kind);
        if let Some(told) = told {
            line["answer"] = told;
        }
        if let Some(error) = error {
            line["error"] = json!(error);
        }
        lines.push(line);
    }

    /// Writes it down, a line for each event.
    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        let lines = self.lock();
        let text: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(file, text.concat())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Value>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is under way.
pub(crate) struct Invoked {
    process: usize,
    call: Value,
}

impl Invoked {
    fn line(&self, before: &[Value], at: Duration, kind: &str) -> Value {
        json!({
            "index": before.len(),
            "time_ns": at.as_nanos() as u64,
            "process": self.process,
            "type": kind,
            "call": self.call,
        })
    }
}

/// The call that asks for a transaction. Who only reads has no part in what is checked.
fn transact(transaction: TransactionId, branches: &BTreeMap<ParticipantId, Changes>) -> Value {
    let steps = branches
        .iter()
        .flat_map(|(participant, changes)| steps(participant.as_str(), &changes.0));
    json!({
        "f": "transact",
        "transaction": transaction.to_string(),
        "style": "one_shot",
        "steps": steps.collect::<Vec<_>>(),
    })
}

fn steps(participant: &str, changes: &BTreeMap<u64, i64>) -> Vec<Value> {
    let step = |(account, by): (&u64, &i64)| {
        json!({
            "participant": participant,
            "cell": account.to_string(),
            "action": { "add": { "delta": by, "floor": 0 } },
        })
    };
    changes.iter().map(step).collect()
}

/// What is there in the end.
pub(crate) struct Evidence {
    /// What each account began with.
    pub(crate) balance: i64,
    pub(crate) participants: BTreeMap<String, Found>,
    /// What each node's table says, by its number.
    pub(crate) outcomes: BTreeMap<u64, BTreeMap<TransactionId, Value>>,
    /// When it was looked at (Unix milliseconds), and for how long nodes remember.
    pub(crate) at_unix_ms: u64,
    pub(crate) retention_ms: u64,
    pub(crate) panics: Vec<String>,
}

/// What was found at a participant.
pub(crate) struct Found {
    pub(crate) balances: BTreeMap<u64, i64>,
    /// What each application of each transaction has changed.
    pub(crate) applied: BTreeMap<TransactionId, Vec<Changes>>,
    pub(crate) promises: Promises,
    /// Messages that contradicted what it knew, in all its lives.
    pub(crate) refused_messages: u64,
    pub(crate) in_doubt: u64,
    /// Transactions for which its service holds something.
    pub(crate) holding: u64,
}

impl Evidence {
    /// Writes it down.
    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        let participants: BTreeMap<&String, Value> = self
            .participants
            .iter()
            .map(|(name, found)| (name, found.evidence()))
            .collect();
        // What was put in, whatever was found there later.
        let opening = |found: &Found| {
            found
                .balances
                .keys()
                .map(|account| (*account, self.balance))
                .collect()
        };
        let opening: Vec<Value> = self
            .participants
            .iter()
            .flat_map(|(name, found)| steps(name, &opening(found)))
            .collect();
        let outcomes: BTreeMap<u64, BTreeMap<String, &Value>> = self
            .outcomes
            .iter()
            .map(|(node, outcomes)| {
                let outcomes = outcomes.iter().map(|(tx, answer)| (tx.to_string(), answer));
                (*node, outcomes.collect())
            })
            .collect();
        let panic = |line: &String| json!({ "member": "simulation", "line": line });
        let evidence = json!({
            "layout": { "coordinators": self.outcomes.len(), "participants": self.participants.len() },
            "opening": opening,
            "participants": participants,
            "outcomes": outcomes,
            "asked_unix_ms": self.at_unix_ms,
            "retention_ms": self.retention_ms,
            "began_unix_ms": EPOCH.as_millis() as u64,
            "panics": self.panics.iter().map(panic).collect::<Vec<_>>(),
            "missing": [],
        });
        fs::write(file, evidence.to_string())
    }
}

impl Found {
    fn evidence(&self) -> Value {
        let cells: BTreeMap<String, Value> = self
            .balances
            .iter()
            .map(|(account, balance)| (account.to_string(), json!({ "number": balance, "list": [] })))
            .collect();
        let mut evidence = json!({
            "answered": true,
            "cells": cells,
            "effects": self.effects(),
            "refused_messages": self.refused_messages,
            "in_doubt": self.in_doubt,
            "holding": self.holding,
        });
        self.promises.add_to(&mut evidence);
        evidence
    }

    /// What was applied, and how often: the service has written it down with each application.
    fn effects(&self) -> Vec<Value> {
        let mut effects = Vec::new();
        for (transaction, applications) in &self.applied {
            // Applications that changed the same are one effect that happened so often.
            for same in applications.chunk_by(|one, next| one == next) {
                effects.push(json!({
                    "transaction": transaction.to_string(),
                    // A participant does not say its own name.
                    "steps": steps("", &same[0].0),
                    "times": same.len(),
                }));
            }
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use unanimo_core::Timestamp;

    use super::*;

    #[test]
    fn effects_are_what_was_applied_and_as_often_as_it_was() {
        let transaction = TransactionId::new(Timestamp::from_unix_ms(1), 1);
        let changes = |by| Changes(BTreeMap::from([(0, by)]));
        let found = Found {
            balances: BTreeMap::from([(0, 5)]),
            applied: BTreeMap::from([(transaction, vec![changes(-5), changes(-5), changes(3)])]),
            promises: Promises::default(),
            refused_messages: 1,
            in_doubt: 2,
            holding: 3,
        };
        let evidence = found.evidence();
        let step = |by| json!([{ "participant": "", "cell": "0", "action": { "add": { "delta": by, "floor": 0 } } }]);
        assert_eq!(evidence["effects"][0]["times"], 2);
        assert_eq!(evidence["effects"][0]["steps"], step(-5));
        assert_eq!(evidence["effects"][1]["times"], 1);
        assert_eq!(evidence["effects"][1]["steps"], step(3));
        assert_eq!(evidence["refused_messages"], 1);
        assert_eq!(evidence["journal_whole"], false);
    }

    #[test]
    fn a_call_and_its_answer_are_two_lines_of_one_process() {
        let history = History::default();
        let transaction = TransactionId::new(Timestamp::from_unix_ms(1), 1);
        let branches = BTreeMap::from([(crate::initiator::named("p1"), Changes(BTreeMap::from([(0, -5)])))]);
        let invoked = history.invoke(Duration::from_nanos(1), transaction, &branches);
        history.complete(
            Duration::from_nanos(2),
            &invoked,
            &Answer::Aborted("no".to_owned()),
        );
        let lines = history.lock();
        assert_eq!(lines[0]["type"], "invoke");
        assert_eq!(lines[1]["type"], "fail");
        assert_eq!(lines[1]["answer"], json!({ "aborted": "no" }));
        assert_eq!(
            (&lines[0]["process"], &lines[0]["call"]),
            (&lines[1]["process"], &lines[1]["call"])
        );
        assert_eq!(
            lines[0]["call"]["steps"][0]["action"],
            json!({ "add": { "delta": -5, "floor": 0 } })
        );
    }
}
