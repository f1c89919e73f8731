//! What has happened so far, folded from the events alone, so that the invariants trust nothing that the code under
//! test remembers.

use std::collections::{BTreeMap, BTreeSet};

use unanimo_core::table::{Applied, Command, DecisionRecord};
use unanimo_core::{ParticipantId, Record, RequestHash, TransactionId, Vote};

use crate::world::{Address, Event, Message};

/// A branch of one request: the same id may have been given to two requests.
pub(crate) type Asked = (ParticipantId, TransactionId, RequestHash);

/// The facts that several invariants need.
#[derive(Default)]
pub(crate) struct History {
    /// The first decision applied for each transaction.
    pub(crate) decided: BTreeMap<TransactionId, DecisionRecord>,
    /// What each participant's disk holds.
    pub(crate) durable: BTreeMap<ParticipantId, Vec<Record>>,
    /// Whoever has said Yes, in any of its lives.
    pub(crate) said_yes: BTreeSet<Asked>,
}

impl History {
    pub(crate) fn add(&mut self, event: &Event) {
        match event {
            Event::Applied {
                command: Command::Decide(proposal),
                applied: Applied::Decided(record),
                ..
            } => {
                self.decided
                    .entry(proposal.transaction)
                    .or_insert_with(|| record.clone());
            }
            Event::Synced { at, records } => self.keep(at, records),
            Event::ParticipantCrashed { at, kept, .. } => self.keep(at, kept),
            Event::Sent(envelope) => {
                if let (
                    Address::Participant(participant),
                    Message::Voted {
                        request_hash,
                        vote: Vote::Yes,
                        ..
                    },
                ) = (&envelope.from, &envelope.message)
                {
                    self.said_yes
                        .insert((participant.clone(), envelope.transaction, *request_hash));
                }
            }
            _ => {}
        }
    }

    fn keep(&mut self, at: &ParticipantId, records: &[Record]) {
        self.durable
            .entry(at.clone())
            .or_default()
            .extend_from_slice(records);
    }

    /// Whether the table holds a decision for this request, and whether it is Commit.
    pub(crate) fn commits(&self, transaction: TransactionId, request_hash: RequestHash) -> Option<bool> {
        let record = self.decided.get(&transaction)?;
        Some(record.decision_for(request_hash).is_commit())
    }

    /// Whether a durable record of this transaction is one that `is` looks for.
    pub(crate) fn has_record(
        &self,
        at: &ParticipantId,
        transaction: TransactionId,
        is: impl Fn(&Record) -> bool,
    ) -> bool {
        self.records(at)
            .any(|record| record_of(record) == Some(transaction) && is(record))
    }

    pub(crate) fn records(&self, at: &ParticipantId) -> impl Iterator<Item = &Record> {
        self.durable.get(at).into_iter().flatten()
    }
}

/// Whose record it is; a start is nobody's.
pub(crate) fn record_of(record: &Record) -> Option<TransactionId> {
    match record {
        Record::Started { .. } | Record::Registered { .. } | Record::Closed { .. } => None,
        Record::Prepared(transaction, _)
        | Record::Committed { transaction, .. }
        | Record::Aborted { transaction, .. } => Some(*transaction),
    }
}
