//! The replicated decision table: one write-once register for each transaction (R1), the participants'
//! registrations, the watermark below which transactions are closed (R7), and what idempotency keys stand for (R12).
//!
//! Every replica applies the same [`Command`]s in the same order with [`apply`] and so holds the same table. The
//! commands are idempotent and monotone: applying a stretch of the log again, on top of a table that has some of
//! it already, ends in the same table. So a replica that fell back to an older durable state simply applies
//! again. That rests on a few things that every leader keeps: it proposes the acknowledgement of a decision only after
//! the decision, to forget a transaction only when it has seen the watermark above it, and to bind a key or to
//! free it only when it sees that it may. There is one exception, which no replica meets, because each goes back to a
//! table that it once had and never applies an entry on top of what later ones did: of two bindings of one key that
//! were on their way at once, the one that came too late wins when both are applied again after the first
//! transaction was forgotten.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::convert::Infallible;

use crate::mutants::{self, Mutant};
use crate::{
    Decision, Generation, IdempotencyKey, Members, ParticipantId, Position, RequestHash, Timestamp,
    TransactionId,
};

/// One decided transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DecisionRecord {
    /// The decision. It never changes.
    pub decision: Decision,
    /// The request it was made for; [`RequestHash::NONE`] if whoever asked for the abort did not say.
    pub request_hash: RequestHash,
    /// Every member of the transaction, as far as whoever had it recorded knew.
    pub members: Members,
    /// The members that have yet to acknowledge the decision; empty once the transaction has ended.
    pub unacknowledged: Members,
    /// When the leader that decided says it did. Only retention looks at it.
    pub decided_at: Timestamp,
}

impl DecisionRecord {
    /// Whether the request `asked` has this outcome: it was made for it, or it is an abort that was made for no
    /// request and so is the outcome of whatever was asked under this id (R12).
    pub fn is_for(&self, asked: RequestHash) -> bool {
        let whatever_was_asked = self.request_hash == RequestHash::NONE && !self.decision.is_commit();
        asked == self.request_hash || whatever_was_asked
    }

    /// What this record means for a branch of the request `asked`. Where the id was won by another request, the
    /// one asked about can never commit any more (R12).
    pub fn decision_for(&self, asked: RequestHash) -> Decision {
        if self.is_for(asked) {
            self.decision.clone()
        } else {
            Decision::Abort(crate::AbortReason::Presumed)
        }
    }

    /// Whether every member that had to hear the decision has acknowledged it.
    pub fn is_ended(&self) -> bool {
        self.unacknowledged.is_empty()
    }
}

/// What the cluster knows of one participant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registration {
    /// Where it serves, as `host:port`.
    pub address: String,
    /// The participant's last known start.
    pub witness: Witness,
}

/// How far a participant's memory is known to reach: if it comes back knowing less, it runs from an old copy of
/// its data and is refused instead of believed (R11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Witness {
    /// The life it is in, or voted in.
    pub generation: Generation,
    /// In a vote, where the promise stands in its journal. In a registration, where the journal ended when it came up:
    /// see [`Reach`](crate::Reach). In the table, the highest of either.
    pub position: Position,
}

impl Witness {
    /// The highest of both, each for itself.
    fn highest(self, other: Self) -> Self {
        Self {
            generation: self.generation.max(other.generation),
            position: self.position.max(other.position),
        }
    }
}

/// A decision somebody wants recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The transaction.
    pub transaction: TransactionId,
    /// The decision wanted. Whether it is the one that holds is for the table to say.
    pub decision: Decision,
    /// The request it is for.
    pub request_hash: RequestHash,
    /// Every member.
    pub members: Members,
    /// The members that have to hear the decision.
    pub unacknowledged: Members,
    /// Where the votes that this decision rests on stand in their participants' journals.
    pub witnesses: BTreeMap<ParticipantId, Witness>,
    /// The proposing leader's clock.
    pub decided_at: Timestamp,
}

/// How far the cluster has come in time, and what it has closed (R7). Both only rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Horizon {
    /// The cluster's own time. It never runs ahead of a majority's clocks, and never faster than time passes on the
    /// leaders' monotonic clocks; so no wall clock can make it jump (R8).
    pub time: Timestamp,
    /// Transactions with a smaller id are closed: nothing is decided under them any more, and what is known of them is
    /// forgotten once no member needs it.
    pub watermark: TransactionId,
}

impl Horizon {
    /// Whether nothing is decided under this id any more.
    pub fn has_closed(&self, transaction: TransactionId) -> bool {
        transaction < self.watermark
    }

    fn highest(self, other: Self) -> Self {
        Self {
            time: self.time.max(other.time),
            watermark: self.watermark.max(other.watermark),
        }
    }
}

impl Default for Horizon {
    fn default() -> Self {
        let time = Timestamp::default();
        Self {
            time,
            watermark: TransactionId::first_at(time),
        }
    }
}

/// What a key stands for (R12). It is written before any member hears of the transaction, so that whoever takes over
/// finds the one transaction that may have been started under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// The transaction.
    pub transaction: TransactionId,
    /// The request it was bound for.
    pub request_hash: RequestHash,
}

/// A change to the table, replicated through the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Record a decision, unless there is one.
    Decide(Proposal),
    /// These members have made the decision durable.
    Acknowledge {
        /// The transaction.
        transaction: TransactionId,
        /// Who has acknowledged.
        participants: Members,
        /// How far their journals reached then: at least to the records of the decision. Not of everybody.
        witnesses: BTreeMap<ParticipantId, Witness>,
    },
    /// A participant says where it serves and how far its memory reaches.
    Register {
        /// Who.
        participant: ParticipantId,
        /// Where and how far.
        registration: Registration,
    },
    /// Time has passed.
    Advance(Horizon),
    /// Drop what is known of these transactions, if they are closed and no member needs it any more.
    Forget {
        /// Which.
        transactions: Vec<TransactionId>,
    },
    /// Let a key stand for a transaction, unless it stands for one.
    Bind {
        /// The key.
        key: IdempotencyKey,
        /// The transaction.
        binding: Binding,
    },
    /// Free these keys, each if it still stands for this transaction, and that is closed and not kept for anybody.
    Release {
        /// Which, and for what they stood.
        keys: Vec<(IdempotencyKey, TransactionId)>,
    },
}

/// What applying a command led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The decision that stands: the one proposed, or the one that was there first.
    Decided(DecisionRecord),
    /// Nothing is recorded: the Commit rests on votes of earlier lives of these participants, which may have come
    /// back without what they promised. They have to be asked again (R11).
    Superseded {
        /// Who.
        participants: Members,
    },
    /// Nothing is recorded, and nothing is known of this transaction: it is closed (R7). It may have been decided and
    /// forgotten, or never have been seen.
    Expired {
        /// Below which transactions are closed.
        watermark: TransactionId,
    },
    /// The acknowledgement is counted, or was already, or the transaction is not known.
    Acknowledged,
    /// The horizon is at least there.
    Advanced,
    /// What may be forgotten of it is.
    Forgotten,
    /// What the key stands for: the transaction proposed, or the one that was there first.
    Bound(Binding),
    /// The keys that may be free are.
    Released,
    /// The participant is registered.
    Registered,
    /// The participant knows less than it once did, and is not registered (R11).
    Outdated {
        /// What the cluster has seen of it.
        known: Registration,
    },
}

/// One key of the table and its new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The decision record of a transaction.
    Record(TransactionId, DecisionRecord),
    /// The registration of a participant.
    Registration(ParticipantId, Registration),
    /// The horizon.
    Horizon(Horizon),
    /// The decision record of a transaction is dropped.
    Forgotten(TransactionId),
    /// A key stands for a transaction.
    Binding(IdempotencyKey, Binding),
    /// A key no longer stands for this transaction.
    Released(IdempotencyKey, TransactionId),
}

/// Reads the table, wherever it is kept.
pub trait View {
    /// Why a read may fail.
    type Error;

    /// The record of a transaction, if it is decided.
    fn record(&self, transaction: TransactionId) -> Result<Option<DecisionRecord>, Self::Error>;

    /// The registration of a participant, if it ever registered.
    fn registration(&self, participant: &ParticipantId) -> Result<Option<Registration>, Self::Error>;

    /// The horizon.
    fn horizon(&self) -> Result<Horizon, Self::Error>;

    /// What a key stands for, if it stands for anything.
    fn binding(&self, key: &IdempotencyKey) -> Result<Option<Binding>, Self::Error>;
}

/// Applies one command: returns the keys that change, and what to tell who proposed it. Pure but for the reads.
pub fn apply<V: View>(view: &V, command: &Command) -> Result<(Vec<Change>, Applied), V::Error> {
    match command {
        Command::Decide(proposal) => decide(view, proposal),
        Command::Acknowledge {
            transaction,
            participants,
            witnesses,
        } => acknowledge(view, *transaction, participants, witnesses),
        Command::Register {
            participant,
            registration,
        } => register(view, participant, registration),
        Command::Advance(horizon) => advance(view, *horizon),
        Command::Forget { transactions } => forget(view, transactions),
        Command::Bind { key, binding } => bind(view, key, *binding),
        Command::Release { keys } => release(view, keys),
    }
}

fn decide<V: View>(view: &V, proposal: &Proposal) -> Result<(Vec<Change>, Applied), V::Error> {
    // The first decision applied wins, for ever (R1).
    let key = key_of(proposal);
    if let Some(stored) = view.record(key)?.filter(|_| !mutants::is_on(Mutant::M6)) {
        return Ok((Vec::new(), Applied::Decided(stored)));
    }
    // Below the watermark a missing record says nothing: there may have been one (R7).
    let horizon = view.horizon()?;
    if horizon.has_closed(proposal.transaction) {
        let watermark = horizon.watermark;
        return Ok((Vec::new(), Applied::Expired { watermark }));
    }
    let participants = superseded(view, proposal)?;
    if !participants.is_empty() {
        return Ok((Vec::new(), Applied::Superseded { participants }));
    }
    let record = DecisionRecord {
        decision: proposal.decision.clone(),
        request_hash: proposal.request_hash,
        members: proposal.members.clone(),
        unacknowledged: proposal.unacknowledged.clone(),
        decided_at: proposal.decided_at,
    };
    let mut changes = vec![Change::Record(key, record.clone())];
    for (participant, witness) in &proposal.witnesses {
        changes.extend(raise(view, participant, *witness)?);
    }
    Ok((changes, Applied::Decided(record)))
}

/// Under what a decision is kept: the transaction, whatever the decision is.
fn key_of(proposal: &Proposal) -> TransactionId {
    let transaction = proposal.transaction;
    if mutants::is_on(Mutant::M7) && !proposal.decision.is_commit() {
        return TransactionId::from_u128(transaction.as_u128() ^ 1).unwrap_or(transaction);
    }
    transaction
}

/// Remembers how far a participant's memory has reached (R11).
fn raise<V: View>(
    view: &V,
    participant: &ParticipantId,
    witness: Witness,
) -> Result<Option<Change>, V::Error> {
    // Of the registered life only. Of a start that has yet to register: its registration would look as if it knew less
    // than before. Of an earlier one: the cluster has confirmed since that nothing which it has decided is missing, and
    // an abort may still name a vote that is; the participant would be refused from its next start on.
    let known = view.registration(participant)?;
    let known = known.filter(|known| witness.generation == known.witness.generation);
    Ok(known.and_then(|known| {
        let highest = known.witness.highest(witness);
        (highest != known.witness).then(|| {
            let registration = Registration {
                witness: highest,
                ..known
            };
            Change::Registration(participant.clone(), registration)
        })
    }))
}

/// The participants that have come up again since they gave the votes that a Commit rests on. Once superseded a vote
/// stays so, whatever is applied in between: the table must not depend on how often the log was applied.
fn superseded<V: View>(view: &V, proposal: &Proposal) -> Result<Members, V::Error> {
    let mut participants = Members::new();
    if !proposal.decision.is_commit() || mutants::is_on(Mutant::M16) {
        return Ok(participants);
    }
    for (participant, witness) in &proposal.witnesses {
        let known = view.registration(participant)?;
        if known.is_some_and(|known| witness.generation < known.witness.generation) {
            participants.insert(participant.clone());
        }
    }
    Ok(participants)
}

fn acknowledge<V: View>(
    view: &V,
    transaction: TransactionId,
    participants: &Members,
    witnesses: &BTreeMap<ParticipantId, Witness>,
) -> Result<(Vec<Change>, Applied), V::Error> {
    let Some(mut record) = view.record(transaction)? else {
        return Ok((Vec::new(), Applied::Acknowledged));
    };
    let mut changes = Vec::new();
    let before = record.unacknowledged.len();
    for participant in participants {
        if !record.unacknowledged.contains(participant) {
            continue;
        }
        let witness = witnesses.get(participant);
        let known = view.registration(participant)?;
        // It has come up again since, perhaps from a copy that does not know the decision: it is told once more.
        let earlier_life =
            |witness: &Witness| known.is_some_and(|known| witness.generation < known.witness.generation);
        if witness.is_some_and(earlier_life) {
            continue;
        }
        record.unacknowledged.remove(participant);
        // Once the decision is forgotten, nobody could tell it again to a copy from before it (R7).
        if let Some(witness) = witness {
            changes.extend(raise(view, participant, *witness)?);
        }
    }
    if record.unacknowledged.len() < before {
        let at_once = mutants::is_on(Mutant::M13);
        changes.push(if at_once || may_be_forgotten(view, transaction, &record)? {
            // It was kept for this member only.
            Change::Forgotten(transaction)
        } else {
            Change::Record(transaction, record)
        });
    }
    Ok((changes, Applied::Acknowledged))
}

/// A member that is still in doubt about a closed transaction without a record concludes an abort. So a commit is
/// kept until every member has acknowledged it, and an abort need not be.
fn may_be_forgotten<V: View>(
    view: &V,
    transaction: TransactionId,
    record: &DecisionRecord,
) -> Result<bool, V::Error> {
    let needed = record.decision.is_commit() && !record.is_ended() && !mutants::is_on(Mutant::M14);
    Ok(view.horizon()?.has_closed(transaction) && !needed)
}

fn advance<V: View>(view: &V, horizon: Horizon) -> Result<(Vec<Change>, Applied), V::Error> {
    let known = view.horizon()?;
    let highest = known.highest(horizon);
    let changes = if highest == known {
        Vec::new()
    } else {
        vec![Change::Horizon(highest)]
    };
    Ok((changes, Applied::Advanced))
}

fn forget<V: View>(view: &V, transactions: &[TransactionId]) -> Result<(Vec<Change>, Applied), V::Error> {
    let mut changes = Vec::new();
    for transaction in transactions {
        if let Some(record) = view.record(*transaction)?
            && may_be_forgotten(view, *transaction, &record)?
        {
            changes.push(Change::Forgotten(*transaction));
        }
    }
    Ok((changes, Applied::Forgotten))
}

fn bind<V: View>(
    view: &V,
    key: &IdempotencyKey,
    binding: Binding,
) -> Result<(Vec<Change>, Applied), V::Error> {
    let mut changes = Vec::new();
    if let Some(known) = view.binding(key)? {
        if !is_free(view, known)? {
            return Ok((changes, Applied::Bound(known)));
        }
        changes.push(Change::Released(key.clone(), known.transaction));
    }
    // Also keeps an old log entry from binding again what has been released.
    let horizon = view.horizon()?;
    if horizon.has_closed(binding.transaction) {
        let watermark = horizon.watermark;
        return Ok((Vec::new(), Applied::Expired { watermark }));
    }
    changes.push(Change::Binding(key.clone(), binding));
    Ok((changes, Applied::Bound(binding)))
}

/// A key is free again when its transaction is forgotten, or was never decided and never will be.
fn is_free<V: View>(view: &V, binding: Binding) -> Result<bool, V::Error> {
    let closed = view.horizon()?.has_closed(binding.transaction);
    Ok(closed && view.record(binding.transaction)?.is_none())
}

fn release<V: View>(
    view: &V,
    keys: &[(IdempotencyKey, TransactionId)],
) -> Result<(Vec<Change>, Applied), V::Error> {
    let mut changes = Vec::new();
    for (key, transaction) in keys {
        // Applied again, it frees nothing that the key was bound to since.
        if let Some(binding) = view.binding(key)?
            && binding.transaction == *transaction
            && is_free(view, binding)?
        {
            changes.push(Change::Released(key.clone(), binding.transaction));
        }
    }
    Ok((changes, Applied::Released))
}

fn register<V: View>(
    view: &V,
    participant: &ParticipantId,
    new: &Registration,
) -> Result<(Vec<Change>, Applied), V::Error> {
    let Some(known) = view.registration(participant)? else {
        return Ok((
            vec![Change::Registration(participant.clone(), new.clone())],
            Applied::Registered,
        ));
    };
    let refused = match new.witness.generation.cmp(&known.witness.generation) {
        // A start counts up, and a journal is as long when its participant comes up as any vote has shown it. Below
        // either, records are missing.
        Ordering::Less => true,
        Ordering::Greater => new.witness.position < known.witness.position,
        // Repeated. From another address it is a second copy of the data; with a shorter journal it only counted up
        // to a start that was seen before.
        Ordering::Equal => new.address != known.address || new.witness.position < known.witness.position,
    };
    if refused && !mutants::is_on(Mutant::M25) {
        return Ok((Vec::new(), Applied::Outdated { known }));
    }
    let registration = Registration {
        witness: known.witness.highest(new.witness),
        ..new.clone()
    };
    let changes = if registration == known {
        Vec::new()
    } else {
        vec![Change::Registration(participant.clone(), registration)]
    };
    Ok((changes, Applied::Registered))
}

/// The table in memory: what tests and simulations run, with the same [`apply`] as the replicas on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DecisionTable {
    records: BTreeMap<TransactionId, DecisionRecord>,
    registrations: BTreeMap<ParticipantId, Registration>,
    bindings: BTreeMap<IdempotencyKey, Binding>,
    horizon: Horizon,
}

impl DecisionTable {
    /// A table that knows of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one command.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let Ok((changes, applied)) = apply(self, command);
        for change in changes {
            match change {
                Change::Record(transaction, record) => {
                    self.records.insert(transaction, record);
                }
                Change::Registration(participant, registration) => {
                    self.registrations.insert(participant, registration);
                }
                Change::Horizon(horizon) => self.horizon = horizon,
                Change::Forgotten(transaction) => drop(self.records.remove(&transaction)),
                Change::Binding(key, binding) => drop(self.bindings.insert(key, binding)),
                Change::Released(key, _) => drop(self.bindings.remove(&key)),
            }
        }
        applied
    }

    /// Every decided transaction, in the order of their ids.
    pub fn records(&self) -> &BTreeMap<TransactionId, DecisionRecord> {
        &self.records
    }
}

impl View for DecisionTable {
    type Error = Infallible;

    fn record(&self, transaction: TransactionId) -> Result<Option<DecisionRecord>, Infallible> {
        Ok(self.records.get(&transaction).cloned())
    }

    fn registration(&self, participant: &ParticipantId) -> Result<Option<Registration>, Infallible> {
        Ok(self.registrations.get(participant).cloned())
    }

    fn horizon(&self) -> Result<Horizon, Infallible> {
        Ok(self.horizon)
    }

    fn binding(&self, key: &IdempotencyKey) -> Result<Option<Binding>, Infallible> {
        Ok(self.bindings.get(key).copied())
    }
}
