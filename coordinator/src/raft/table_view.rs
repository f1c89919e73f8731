//! The decision table as it stands under its keys.
//!
//! | Key | Value |
//! |---|---|
//! | `d` + transaction | its decision record |
//! | `u` + transaction | nothing: the transaction is decided and some member has yet to acknowledge it |
//! | `h` | the horizon: how far the cluster has come in time, and below which transaction everything is closed |
//! | `k` + idempotency key | the transaction and request that it stands for |
//! | `r` + participant | its registration |
//! | `t` + transaction + idempotency key | nothing: the key stands for the transaction |
//! | `m/applied` | how far the log is applied; written in the same batch as what the entries change |
//! | `m/installing` | a snapshot is replacing the contents; what is here must not be relied on |
//!
//! The `u` keys follow from the records, and the `t` keys from the bindings. They are there so that a leader finds what
//! is unfinished, and which idempotency keys have had their time, without reading everything.

use std::collections::BTreeMap;
use std::io;

use thiserror::Error;
use unanimo_core::table::{Binding, Change, DecisionRecord, Horizon, Registration, View};
use unanimo_core::{IdempotencyKey, ParticipantId, TransactionId};
use unanimo_proto::storage::{
    UnreadableRecord, decode_binding, decode_decision_record, decode_horizon, decode_registration,
    encode_binding, encode_decision_record, encode_horizon, encode_registration,
};
use unanimo_table::{Batch, Table, TableError};

pub(super) const APPLIED: &[u8] = b"m/applied";
pub(super) const INSTALLING: &[u8] = b"m/installing";
/// The records; their keys go up to `e`.
pub(super) const RECORDS: (&[u8], &[u8]) = (b"d", b"e");
/// The horizon; one key.
pub(super) const HORIZON: (&[u8], &[u8]) = (b"h", b"i");
/// What idempotency keys stand for.
pub(super) const BINDINGS: (&[u8], &[u8]) = (b"k", b"l");
/// Which idempotency keys stand for a transaction.
pub(super) const BOUND: (&[u8], &[u8]) = (b"t", b"u");
/// The registrations.
pub(super) const REGISTRATIONS: (&[u8], &[u8]) = (b"r", b"s");
/// What is unfinished.
pub(super) const UNENDED: (&[u8], &[u8]) = (b"u", b"v");

/// Why the table cannot be read. The replica fails.
#[derive(Clone, Debug, Error)]
pub(crate) enum ReadTableError {
    /// The table itself.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A record in it.
    #[error(transparent)]
    Record(#[from] UnreadableRecord),
}

impl From<ReadTableError> for io::Error {
    fn from(error: ReadTableError) -> Self {
        Self::other(error)
    }
}

pub(super) fn record_key(transaction: TransactionId) -> Vec<u8> {
    key(b'd', &transaction.as_u128().to_be_bytes())
}

pub(super) fn unended_key(transaction: TransactionId) -> Vec<u8> {
    key(b'u', &transaction.as_u128().to_be_bytes())
}

pub(super) fn registration_key(participant: &ParticipantId) -> Vec<u8> {
    key(b'r', participant.as_str().as_bytes())
}

pub(super) fn binding_key(key: &IdempotencyKey) -> Vec<u8> {
    self::key(b'k', key.as_str().as_bytes())
}

pub(super) fn bound_key(transaction: TransactionId, key: &[u8]) -> Vec<u8> {
    let mut bound = self::key(b't', &transaction.as_u128().to_be_bytes());
    bound.extend_from_slice(key);
    bound
}

fn key(prefix: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(prefix);
    key.extend_from_slice(rest);
    key
}

/// The transaction that a `d` or `u` key is of.
pub(super) fn transaction_of(key: &[u8]) -> Result<TransactionId, UnreadableRecord> {
    let wrong = unanimo_proto::MalformedMessage::WrongLength {
        field: "key",
        expected: 17,
        found: key.len(),
    };
    let bits: [u8; 16] = key.get(1..).and_then(|id| id.try_into().ok()).ok_or(wrong)?;
    let id = TransactionId::from_u128(u128::from_be_bytes(bits));
    Ok(id.map_err(unanimo_proto::MalformedMessage::from)?)
}

/// The participant that an `r` key is of.
pub(super) fn participant_of(key: &[u8]) -> Result<ParticipantId, UnreadableRecord> {
    let name = String::from_utf8_lossy(key.get(1..).unwrap_or_default());
    Ok(ParticipantId::new(&name).map_err(unanimo_proto::MalformedMessage::from)?)
}

pub(super) fn record(
    table: &dyn Table,
    transaction: TransactionId,
) -> Result<Option<DecisionRecord>, ReadTableError> {
    let value = table.get(&record_key(transaction))?;
    Ok(value.map(|value| decode_decision_record(&value)).transpose()?)
}

pub(super) fn registration(
    table: &dyn Table,
    participant: &ParticipantId,
) -> Result<Option<Registration>, ReadTableError> {
    let value = table.get(&registration_key(participant))?;
    Ok(value.map(|value| decode_registration(&value)).transpose()?)
}

/// The first `limit` registrations behind `after`, in the order of the names.
pub(super) fn registrations(
    table: &dyn Table,
    after: Option<&ParticipantId>,
    limit: usize,
) -> Result<Vec<(ParticipantId, Registration)>, ReadTableError> {
    let from = match after {
        Some(after) => [registration_key(after).as_slice(), &[0]].concat(),
        None => REGISTRATIONS.0.to_vec(),
    };
    let entries = table.scan(&from, Some(REGISTRATIONS.1), limit)?;
    let parsed = entries
        .iter()
        .map(|(key, value)| Ok((participant_of(key)?, decode_registration(value)?)));
    parsed.collect()
}

pub(super) fn horizon(table: &dyn Table) -> Result<Horizon, ReadTableError> {
    let value = table.get(HORIZON.0)?;
    let horizon = value.map(|value| decode_horizon(&value)).transpose()?;
    Ok(horizon.unwrap_or_default())
}

pub(super) fn binding(table: &dyn Table, key: &IdempotencyKey) -> Result<Option<Binding>, ReadTableError> {
    let value = table.get(&binding_key(key))?;
    Ok(value.map(|value| decode_binding(&value)).transpose()?)
}

/// Puts a binding, and with it what follows from it.
pub(super) fn put_binding(batch: &mut Batch, key: Vec<u8>, encoded: Vec<u8>, transaction: TransactionId) {
    batch.put(bound_key(transaction, &key[1..]), Vec::new());
    batch.put(key, encoded);
}

/// Removes a binding, and with it what follows from it.
pub(super) fn remove_binding(batch: &mut Batch, key: Vec<u8>, transaction: TransactionId) {
    batch.remove(bound_key(transaction, &key[1..]));
    batch.remove(key);
}

/// A stretch of the idempotency keys of closed transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Releasable {
    /// Where the next stretch begins, behind this.
    pub(crate) last: Vec<u8>,
    /// Those of the stretch whose transaction has no record any more, and that transaction.
    pub(crate) keys: Vec<(IdempotencyKey, TransactionId)>,
}

/// What may be free of the first `limit` keys of closed transactions after `after`; none when there are no more.
pub(super) fn releasable(
    table: &dyn Table,
    after: Option<Vec<u8>>,
    limit: usize,
) -> Result<Option<Releasable>, ReadTableError> {
    let until = bound_key(horizon(table)?.watermark, &[]);
    let from = after.map_or_else(|| BOUND.0.to_vec(), |after| [after.as_slice(), &[0]].concat());
    let mut keys = Vec::new();
    let mut last = None;
    for (bound, _) in table.scan(&from, Some(&until), limit)? {
        let (transaction, key) = bound.split_at(17.min(bound.len()));
        let transaction = transaction_of(transaction)?;
        if record(table, transaction)?.is_none() {
            let key = IdempotencyKey::new(&String::from_utf8_lossy(key));
            let key = key
                .map_err(unanimo_proto::MalformedMessage::from)
                .map_err(UnreadableRecord::from)?;
            keys.push((key, transaction));
        }
        last = Some(bound);
    }
    Ok(last.map(|last| Releasable { last, keys }))
}

/// A stretch of the closed transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forgettable {
    /// The last of the stretch. The next one begins behind it.
    pub(crate) last: TransactionId,
    /// Those of the stretch that no member needs any more.
    pub(crate) transactions: Vec<TransactionId>,
}

/// What may be forgotten of the first `limit` closed transactions after `after`; none when there are no more.
pub(super) fn forgettable(
    table: &dyn Table,
    after: Option<TransactionId>,
    limit: usize,
) -> Result<Option<Forgettable>, ReadTableError> {
    let until = record_key(horizon(table)?.watermark);
    let from = match after {
        Some(after) => [record_key(after).as_slice(), &[0]].concat(),
        None => RECORDS.0.to_vec(),
    };
    let mut transactions = Vec::new();
    let mut last = None;
    for (key, value) in table.scan(&from, Some(&until), limit)? {
        let transaction = transaction_of(&key)?;
        let record = decode_decision_record(&value)?;
        if record.is_ended() || !record.decision.is_commit() {
            transactions.push(transaction);
        }
        last = Some(transaction);
    }
    Ok(last.map(|last| Forgettable { last, transactions }))
}

/// The table with changes on top that have yet to go into it.
pub(super) struct Overlay<'a> {
    table: &'a dyn Table,
    /// None for one that is forgotten.
    records: BTreeMap<TransactionId, Option<DecisionRecord>>,
    registrations: BTreeMap<ParticipantId, Registration>,
    /// None for one that is free.
    bindings: BTreeMap<IdempotencyKey, Option<Binding>>,
    horizon: Option<Horizon>,
    batch: Batch,
    /// No less than what the batch adds up to.
    bytes: usize,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(table: &'a dyn Table) -> Self {
        let (records, registrations) = (BTreeMap::new(), BTreeMap::new());
        Self {
            table,
            records,
            registrations,
            bindings: BTreeMap::new(),
            horizon: None,
            batch: Batch::new(),
            bytes: 0,
        }
    }

    /// Makes a change visible here.
    pub(super) fn put(&mut self, change: Change) {
        match change {
            Change::Record(transaction, record) => {
                let encoded = encode_decision_record(&record);
                self.bytes += encoded.len() + 64;
                put_record(&mut self.batch, transaction, encoded, &record);
                self.records.insert(transaction, Some(record));
            }
            Change::Registration(participant, registration) => {
                let encoded = encode_registration(&registration);
                self.bytes += encoded.len() + 128;
                self.batch.put(registration_key(&participant), encoded);
                self.registrations.insert(participant, registration);
            }
            Change::Horizon(horizon) => {
                self.bytes += 64;
                self.batch.put(HORIZON.0, encode_horizon(horizon));
                self.horizon = Some(horizon);
            }
            Change::Forgotten(transaction) => {
                self.bytes += 64;
                self.batch
                    .remove(record_key(transaction))
                    .remove(unended_key(transaction));
                self.records.insert(transaction, None);
            }
            Change::Binding(key, binding) => {
                self.bytes += 512;
                let encoded = encode_binding(binding);
                put_binding(&mut self.batch, binding_key(&key), encoded, binding.transaction);
                self.bindings.insert(key, Some(binding));
            }
            Change::Released(key, transaction) => {
                self.bytes += 512;
                remove_binding(&mut self.batch, binding_key(&key), transaction);
                self.bindings.insert(key, None);
            }
        }
    }

    /// About how much the changes add up to, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes, for the table.
    pub(super) fn into_batch(self) -> Batch {
        self.batch
    }
}

/// Puts a record, and with it whether the transaction is unfinished.
pub(super) fn put_record(
    batch: &mut Batch,
    transaction: TransactionId,
    encoded: Vec<u8>,
    record: &DecisionRecord,
) {
    batch.put(record_key(transaction), encoded);
    if record.is_ended() {
        batch.remove(unended_key(transaction));
    } else {
        batch.put(unended_key(transaction), Vec::new());
    }
}

impl View for Overlay<'_> {
    type Error = ReadTableError;

    fn record(&self, transaction: TransactionId) -> Result<Option<DecisionRecord>, ReadTableError> {
        match self.records.get(&transaction) {
            Some(record) => Ok(record.clone()),
            None => record(self.table, transaction),
        }
    }

    fn registration(&self, participant: &ParticipantId) -> Result<Option<Registration>, ReadTableError> {
        match self.registrations.get(participant) {
            Some(registration) => Ok(Some(registration.clone())),
            None => registration(self.table, participant),
        }
    }

    fn horizon(&self) -> Result<Horizon, ReadTableError> {
        self.horizon.map_or_else(|| horizon(self.table), Ok)
    }

    fn binding(&self, key: &IdempotencyKey) -> Result<Option<Binding>, ReadTableError> {
        match self.bindings.get(key) {
            Some(known) => Ok(*known),
            None => binding(self.table, key),
        }
    }
}
