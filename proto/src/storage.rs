//! What stands on disk, to core types and back. A record that cannot be read is damage or comes from a later
//! version; its reader must refuse to go on (R10).

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;
use unanimo_core::table::{Binding, Command, DecisionRecord, Horizon, Proposal, Registration, Witness};
use unanimo_core::{
    AbortReason, Branch, BranchPhase, ClusterId, Decision, Finish, Generation, IdempotencyKey, Members,
    ParticipantId, Position, Prepared, Record, Timestamp, TransactionId,
};

use crate::MalformedMessage;
use crate::convert::{hash_from_wire, hash_to_wire, members_to_wire, names_from_wire, participant_from_wire};
use crate::internal as disk;

/// Bytes that are not a record of this version.
#[derive(Clone, Debug, Error)]
pub enum UnreadableRecord {
    /// Not a message at all.
    #[error("not a readable record: {0}")]
    Encoding(#[from] prost::DecodeError),
    /// A message that does not say what it has to.
    #[error("not a readable record: {0}")]
    Content(#[from] MalformedMessage),
}

const fn missing(field: &'static str) -> MalformedMessage {
    MalformedMessage::Missing { field }
}

fn transaction_to_disk(transaction: TransactionId) -> Bytes {
    Bytes::copy_from_slice(&transaction.as_u128().to_be_bytes())
}

fn transaction_from_disk(bytes: &[u8]) -> Result<TransactionId, MalformedMessage> {
    let bits: [u8; 16] = bytes.try_into().map_err(|_| MalformedMessage::WrongLength {
        field: "transaction",
        expected: 16,
        found: bytes.len(),
    })?;
    Ok(TransactionId::from_u128(u128::from_be_bytes(bits))?)
}

fn decision_to_disk(decision: &Decision) -> disk::Decision {
    use disk::decision::{
        Abort, Commit, DeadlinePassed, Decision as Kind, Presumed, Requested, VotedNo, abort::Reason,
    };
    let kind = match decision {
        Decision::Commit => Kind::Commit(Commit {}),
        Decision::Abort(reason) => {
            let reason = match reason {
                AbortReason::VotedNo { participant, reason } => Reason::VotedNo(VotedNo {
                    participant: participant.to_string(),
                    reason: reason.clone(),
                }),
                AbortReason::DeadlinePassed { missing } => Reason::DeadlinePassed(DeadlinePassed {
                    missing: members_to_wire(missing),
                }),
                AbortReason::Requested => Reason::Requested(Requested {}),
                AbortReason::Presumed => Reason::Presumed(Presumed {}),
            };
            Kind::Abort(Abort { reason: Some(reason) })
        }
    };
    disk::Decision { decision: Some(kind) }
}

fn decision_from_disk(decision: Option<disk::Decision>) -> Result<Decision, MalformedMessage> {
    use disk::decision::{Decision as Kind, abort::Reason};
    let kind = decision
        .and_then(|decision| decision.decision)
        .ok_or(missing("decision"))?;
    let abort = match kind {
        Kind::Commit(_) => return Ok(Decision::Commit),
        Kind::Abort(abort) => abort,
    };
    Ok(Decision::Abort(match abort.reason.ok_or(missing("reason"))? {
        Reason::VotedNo(no) => AbortReason::VotedNo {
            participant: participant_from_wire(&no.participant)?,
            reason: no.reason,
        },
        Reason::DeadlinePassed(passed) => AbortReason::DeadlinePassed {
            missing: names_from_wire("missing", &passed.missing)?,
        },
        Reason::Requested(_) => AbortReason::Requested,
        Reason::Presumed(_) => AbortReason::Presumed,
    }))
}

/// A decision record as the value of a table.
pub fn encode_decision_record(record: &DecisionRecord) -> Vec<u8> {
    disk::DecisionRecord {
        decision: Some(decision_to_disk(&record.decision)),
        request_hash: hash_to_wire(record.request_hash),
        members: members_to_wire(&record.members),
        unacknowledged: members_to_wire(&record.unacknowledged),
        decided_at_unix_ms: record.decided_at.unix_ms(),
    }
    .encode_to_vec()
}

/// The decision record that a table's value holds.
pub fn decode_decision_record(bytes: &[u8]) -> Result<DecisionRecord, UnreadableRecord> {
    let record = disk::DecisionRecord::decode(bytes)?;
    Ok(DecisionRecord {
        decision: decision_from_disk(record.decision)?,
        request_hash: hash_from_wire(&record.request_hash)?,
        members: names_from_wire("members", &record.members)?,
        unacknowledged: names_from_wire("unacknowledged", &record.unacknowledged)?,
        decided_at: Timestamp::from_unix_ms(record.decided_at_unix_ms),
    })
}

fn registration_to_disk(registration: &Registration) -> disk::Registration {
    disk::Registration {
        address: registration.address.clone(),
        generation: registration.witness.generation.0,
        position: registration.witness.position.0,
    }
}

fn registration_from_disk(registration: disk::Registration) -> Registration {
    let witness = Witness {
        generation: Generation(registration.generation),
        position: Position(registration.position),
    };
    Registration {
        address: registration.address,
        witness,
    }
}

/// A registration as the value of a table.
pub fn encode_registration(registration: &Registration) -> Vec<u8> {
    registration_to_disk(registration).encode_to_vec()
}

/// The registration that a table's value holds.
pub fn decode_registration(bytes: &[u8]) -> Result<Registration, UnreadableRecord> {
    Ok(registration_from_disk(disk::Registration::decode(bytes)?))
}

fn horizon_to_disk(horizon: Horizon) -> disk::Horizon {
    disk::Horizon {
        time_unix_ms: horizon.time.unix_ms(),
        watermark: transaction_to_disk(horizon.watermark),
    }
}

fn horizon_from_disk(horizon: &disk::Horizon) -> Result<Horizon, MalformedMessage> {
    Ok(Horizon {
        time: Timestamp::from_unix_ms(horizon.time_unix_ms),
        watermark: transaction_from_disk(&horizon.watermark)?,
    })
}

/// The horizon as the value of a table.
pub fn encode_horizon(horizon: Horizon) -> Vec<u8> {
    horizon_to_disk(horizon).encode_to_vec()
}

/// The horizon that a table's value holds.
pub fn decode_horizon(bytes: &[u8]) -> Result<Horizon, UnreadableRecord> {
    Ok(horizon_from_disk(&disk::Horizon::decode(bytes)?)?)
}

fn binding_to_disk(binding: Binding) -> disk::Binding {
    disk::Binding {
        transaction: transaction_to_disk(binding.transaction),
        request_hash: hash_to_wire(binding.request_hash),
    }
}

fn binding_from_disk(binding: &disk::Binding) -> Result<Binding, MalformedMessage> {
    Ok(Binding {
        transaction: transaction_from_disk(&binding.transaction)?,
        request_hash: hash_from_wire(&binding.request_hash)?,
    })
}

/// What a key stands for as the value of a table.
pub fn encode_binding(binding: Binding) -> Vec<u8> {
    binding_to_disk(binding).encode_to_vec()
}

/// What a key stands for, as a table's value holds it.
pub fn decode_binding(bytes: &[u8]) -> Result<Binding, UnreadableRecord> {
    Ok(binding_from_disk(&disk::Binding::decode(bytes)?)?)
}

fn witnesses_to_disk(witnesses: &BTreeMap<ParticipantId, Witness>) -> Vec<disk::command::Witness> {
    let to_disk = |(participant, witness): (&ParticipantId, &Witness)| disk::command::Witness {
        participant: participant.to_string(),
        generation: witness.generation.0,
        position: witness.position.0,
    };
    witnesses.iter().map(to_disk).collect()
}

fn witnesses_from_disk(
    witnesses: Vec<disk::command::Witness>,
) -> Result<BTreeMap<ParticipantId, Witness>, MalformedMessage> {
    let from_disk = |witness: disk::command::Witness| {
        let value = Witness {
            generation: Generation(witness.generation),
            position: Position(witness.position),
        };
        Ok((participant_from_wire(&witness.participant)?, value))
    };
    witnesses.into_iter().map(from_disk).collect()
}

/// Commands as the payload of one Raft entry.
pub fn encode_commands(commands: &[Command]) -> Bytes {
    disk::CommandBatch {
        commands: commands.iter().map(command_to_disk).collect(),
    }
    .encode_to_vec()
    .into()
}

/// The commands of one Raft entry.
pub fn decode_commands(bytes: Bytes) -> Result<Vec<Command>, UnreadableRecord> {
    let batch = disk::CommandBatch::decode(bytes)?;
    Ok(batch
        .commands
        .into_iter()
        .map(command_from_disk)
        .collect::<Result<_, _>>()?)
}

fn command_to_disk(command: &Command) -> disk::Command {
    use disk::command::release::Stood;
    use disk::command::{Acknowledge, Bind, Command as Kind, Decide, Forget, Register, Release};
    let kind = match command {
        Command::Decide(proposal) => Kind::Decide(Decide {
            transaction: transaction_to_disk(proposal.transaction),
            decision: Some(decision_to_disk(&proposal.decision)),
            request_hash: hash_to_wire(proposal.request_hash),
            members: members_to_wire(&proposal.members),
            unacknowledged: members_to_wire(&proposal.unacknowledged),
            witnesses: witnesses_to_disk(&proposal.witnesses),
            decided_at_unix_ms: proposal.decided_at.unix_ms(),
        }),
        Command::Acknowledge {
            transaction,
            participants,
            witnesses,
        } => Kind::Acknowledge(Acknowledge {
            transaction: transaction_to_disk(*transaction),
            participants: members_to_wire(participants),
            witnesses: witnesses_to_disk(witnesses),
        }),
        Command::Register {
            participant,
            registration,
        } => Kind::Register(Register {
            participant: participant.to_string(),
            registration: Some(registration_to_disk(registration)),
        }),
        Command::Advance(horizon) => Kind::Advance(horizon_to_disk(*horizon)),
        Command::Forget { transactions } => Kind::Forget(Forget {
            transactions: transactions.iter().copied().map(transaction_to_disk).collect(),
        }),
        Command::Bind { key, binding } => Kind::Bind(Bind {
            key: key.to_string(),
            binding: Some(binding_to_disk(*binding)),
        }),
        Command::Release { keys } => Kind::Release(Release {
            keys: keys
                .iter()
                .map(|(key, transaction)| Stood {
                    key: key.to_string(),
                    transaction: transaction_to_disk(*transaction),
                })
                .collect(),
        }),
    };
    disk::Command { command: Some(kind) }
}

fn command_from_disk(command: disk::Command) -> Result<Command, MalformedMessage> {
    use disk::command::Command as Kind;
    Ok(match command.command.ok_or(missing("command"))? {
        Kind::Decide(decide) => {
            let witnesses = witnesses_from_disk(decide.witnesses)?;
            Command::Decide(Proposal {
                transaction: transaction_from_disk(&decide.transaction)?,
                decision: decision_from_disk(decide.decision)?,
                request_hash: hash_from_wire(&decide.request_hash)?,
                members: names_from_wire("members", &decide.members)?,
                unacknowledged: names_from_wire("unacknowledged", &decide.unacknowledged)?,
                witnesses,
                decided_at: Timestamp::from_unix_ms(decide.decided_at_unix_ms),
            })
        }
        Kind::Acknowledge(acknowledge) => Command::Acknowledge {
            transaction: transaction_from_disk(&acknowledge.transaction)?,
            participants: names_from_wire("participants", &acknowledge.participants)?,
            witnesses: witnesses_from_disk(acknowledge.witnesses)?,
        },
        Kind::Register(register) => Command::Register {
            participant: participant_from_wire(&register.participant)?,
            registration: registration_from_disk(register.registration.ok_or(missing("registration"))?),
        },
        Kind::Advance(horizon) => Command::Advance(horizon_from_disk(&horizon)?),
        Kind::Forget(forget) => Command::Forget {
            transactions: forget
                .transactions
                .iter()
                .map(|id| transaction_from_disk(id))
                .collect::<Result<_, _>>()?,
        },
        Kind::Bind(bind) => Command::Bind {
            key: IdempotencyKey::new(&bind.key)?,
            binding: binding_from_disk(&bind.binding.ok_or(missing("binding"))?)?,
        },
        Kind::Release(release) => Command::Release {
            keys: release
                .keys
                .iter()
                .map(|stood| {
                    let key = IdempotencyKey::new(&stood.key)?;
                    Ok((key, transaction_from_disk(&stood.transaction)?))
                })
                .collect::<Result<_, MalformedMessage>>()?,
        },
    })
}

/// A record of a participant's journal, with whose journal it is.
pub fn encode_participant_record(participant: &ParticipantId, record: &Record) -> Bytes {
    use disk::participant_record as on_disk;
    let kind = match record {
        Record::Started { cluster, generation } => on_disk::Record::Started(on_disk::Started {
            cluster: cluster.to_string(),
            generation: generation.0,
            participant: participant.to_string(),
        }),
        Record::Registered { generation } => on_disk::Record::Registered(on_disk::Registered {
            generation: generation.0,
        }),
        Record::Closed {
            cluster,
            generation,
            below,
        } => on_disk::Record::Closed(on_disk::Closed {
            cluster: cluster.to_string(),
            generation: generation.0,
            participant: participant.to_string(),
            below: transaction_to_disk(*below),
        }),
        Record::Prepared(transaction, prepared) => on_disk::Record::Prepared(on_disk::Prepared {
            transaction: transaction_to_disk(*transaction),
            cluster: prepared.cluster.to_string(),
            members: members_to_wire(&prepared.members),
            request_hash: hash_to_wire(prepared.request_hash),
            redo: prepared.redo.clone(),
            deadline_unix_ms: prepared.deadline.unix_ms(),
            prepared_at_unix_ms: prepared.prepared_at.unix_ms(),
        }),
        Record::Committed {
            transaction,
            request_hash,
        } => on_disk::Record::Committed(on_disk::Committed {
            transaction: transaction_to_disk(*transaction),
            request_hash: hash_to_wire(*request_hash),
        }),
        Record::Aborted { transaction, reason } => on_disk::Record::Aborted(on_disk::Aborted {
            transaction: transaction_to_disk(*transaction),
            reason: reason.clone(),
        }),
    };
    disk::ParticipantRecord { record: Some(kind) }
        .encode_to_vec()
        .into()
}

/// A record of a participant's journal. A Started or Closed record also says whose journal it is.
pub fn decode_participant_record(bytes: &[u8]) -> Result<(Option<ParticipantId>, Record), UnreadableRecord> {
    use disk::participant_record as on_disk;
    let record = disk::ParticipantRecord::decode(bytes)?;
    let record = match record.record.ok_or(missing("record"))? {
        on_disk::Record::Started(started) => {
            let owner = participant_from_wire(&started.participant)?;
            let cluster = ClusterId::new(&started.cluster).map_err(MalformedMessage::from)?;
            let record = Record::Started {
                cluster,
                generation: Generation(started.generation),
            };
            return Ok((Some(owner), record));
        }
        on_disk::Record::Registered(registered) => Record::Registered {
            generation: Generation(registered.generation),
        },
        on_disk::Record::Closed(closed) => {
            let owner = participant_from_wire(&closed.participant)?;
            let record = Record::Closed {
                cluster: ClusterId::new(&closed.cluster).map_err(MalformedMessage::from)?,
                generation: Generation(closed.generation),
                below: transaction_from_disk(&closed.below)?,
            };
            return Ok((Some(owner), record));
        }
        on_disk::Record::Prepared(prepared) => Record::Prepared(
            transaction_from_disk(&prepared.transaction)?,
            Prepared {
                cluster: ClusterId::new(&prepared.cluster).map_err(MalformedMessage::from)?,
                members: members_from_disk(&prepared.members)?,
                request_hash: hash_from_wire(&prepared.request_hash)?,
                redo: prepared.redo,
                deadline: Timestamp::from_unix_ms(prepared.deadline_unix_ms),
                prepared_at: Timestamp::from_unix_ms(prepared.prepared_at_unix_ms),
            },
        ),
        on_disk::Record::Committed(committed) => Record::Committed {
            transaction: transaction_from_disk(&committed.transaction)?,
            request_hash: hash_from_wire(&committed.request_hash)?,
        },
        on_disk::Record::Aborted(aborted) => Record::Aborted {
            transaction: transaction_from_disk(&aborted.transaction)?,
            reason: aborted.reason,
        },
    };
    Ok((None, record))
}

fn members_from_disk(names: &[String]) -> Result<Members, MalformedMessage> {
    crate::members_from_wire("members", names)
}

/// A finished branch as the value of a participant's table; none for a branch that is not finished for good.
pub fn encode_finished_branch(branch: &Branch) -> Option<Vec<u8>> {
    use disk::finished_branch as on_disk;
    let BranchPhase::Finished(finish) = branch.phase() else {
        return None;
    };
    let finish = match finish {
        Finish::Committed { request_hash } => on_disk::Finish::Committed(on_disk::Committed {
            request_hash: hash_to_wire(*request_hash),
        }),
        Finish::Aborted { reason } => on_disk::Finish::Aborted(on_disk::Aborted {
            reason: reason.clone(),
        }),
        // A read-only vote is remembered in memory only: forgetting it costs an abort, nothing else.
        Finish::ReadOnly { .. } => return None,
    };
    Some(disk::FinishedBranch { finish: Some(finish) }.encode_to_vec())
}

/// The finished branch that a participant's table holds for a transaction.
pub fn decode_finished_branch(transaction: TransactionId, bytes: &[u8]) -> Result<Branch, UnreadableRecord> {
    use disk::finished_branch as on_disk;
    let branch = disk::FinishedBranch::decode(bytes)?;
    let finish = match branch.finish.ok_or(missing("finish"))? {
        on_disk::Finish::Committed(committed) => Finish::Committed {
            request_hash: hash_from_wire(&committed.request_hash)?,
        },
        on_disk::Finish::Aborted(aborted) => Finish::Aborted {
            reason: aborted.reason,
        },
    };
    Ok(Branch::finished(transaction, finish))
}
