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
use unanimo_core::{ParticipantId, Timestamp, TransactionId};

use crate::bank::Changes;
use crate::ledger::{Answer, Asked};

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
pub(crate) struct Evidence<'a> {
    pub(crate) asked: &'a BTreeMap<TransactionId, Asked>,
    /// What each account began with.
    pub(crate) balance: i64,
    pub(crate) balances: BTreeMap<String, BTreeMap<u64, i64>>,
    pub(crate) applied: BTreeMap<String, Vec<TransactionId>>,
    /// What each node's table says, by its number.
    pub(crate) outcomes: BTreeMap<u64, BTreeMap<TransactionId, Value>>,
}

impl Evidence<'_> {
    /// Writes it down.
    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        let participants: BTreeMap<&String, Value> = self
            .balances
            .iter()
            .map(|(name, balances)| (name, self.participant(name, balances)))
            .collect();
        let opening: Vec<Value> = self
            .balances
            .iter()
            .flat_map(|(name, balances)| steps(name, &self.opening(balances)))
            .collect();
        let outcomes: BTreeMap<u64, BTreeMap<String, &Value>> = self
            .outcomes
            .iter()
            .map(|(node, outcomes)| {
                let outcomes = outcomes.iter().map(|(tx, answer)| (tx.to_string(), answer));
                (*node, outcomes.collect())
            })
            .collect();
        let evidence = json!({
            "layout": { "coordinators": self.outcomes.len(), "participants": self.balances.len() },
            "opening": opening,
            "participants": participants,
            "outcomes": outcomes,
            "panics": [],
            "missing": [],
        });
        fs::write(file, evidence.to_string())
    }

    fn opening(&self, balances: &BTreeMap<u64, i64>) -> BTreeMap<u64, i64> {
        balances.keys().map(|account| (*account, self.balance)).collect()
    }

    fn participant(&self, name: &str, balances: &BTreeMap<u64, i64>) -> Value {
        let cells: BTreeMap<String, Value> = balances
            .iter()
            .map(|(account, balance)| (account.to_string(), json!({ "number": balance, "list": [] })))
            .collect();
        // A participant does not say its own name.
        let effect = |transaction: TransactionId, changes: &BTreeMap<u64, i64>| json!({ "transaction": transaction.to_string(), "steps": steps("", changes), "times": 1 });
        let opening = TransactionId::new(Timestamp::from_unix_ms(0), 0);
        let mut effects = vec![effect(opening, &self.opening(balances))];
        for transaction in self.applied.get(name).into_iter().flatten() {
            let asked = self.asked.get(transaction);
            let branch = asked.and_then(|asked| {
                let mut branches = asked.branches.iter();
                branches.find(|(participant, _)| participant.as_str() == name)
            });
            let changes = branch.map(|(_, changes)| changes.0.clone()).unwrap_or_default();
            effects.push(effect(*transaction, &changes));
        }
        json!({
            "answered": true,
            "cells": cells,
            "effects": effects,
            "promised": {},
            "terminal": {},
            "refused_messages": 0,
            "in_doubt": 0,
            "holding": 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
