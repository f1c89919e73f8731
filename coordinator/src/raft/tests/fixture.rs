//! What the tests share: commands, entries, and storage on simulated disks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::storage::IOFlushed;
use openraft::type_config::TypeConfigExt;
use unanimo_core::table::{Binding, Command, Proposal, Registration, Witness};
use unanimo_core::{
    ClusterId, Decision, Generation, IdempotencyKey, Members, ParticipantId, Position, RequestHash,
    Timestamp, TransactionId,
};
use unanimo_journal::{Options, SimulatedDisk};
use unanimo_proto::storage::encode_commands;
use unanimo_table::{MemoryTable, Table};

use crate::raft::failure::Failure;
use crate::raft::log_records::Owner;
use crate::raft::snapshot_store::SnapshotStore;
use crate::raft::state_machine::StateMachine;
use crate::raft::type_config::{Commands, Entry, LogId, TypeConfig};
use crate::raft::{Background, NodeId};

pub(super) fn cluster_id() -> ClusterId {
    #[cfg(feature = "mutants")]
    crate::mutants::plant_what_is_asked_for().unwrap();
    ClusterId::new("test").unwrap()
}

pub(super) fn owner() -> Owner {
    Owner {
        cluster: cluster_id(),
        node: NodeId(1),
    }
}

pub(super) fn transaction(number: u64) -> TransactionId {
    TransactionId::new(Timestamp::from_unix_ms(1_700_000_000_000), u128::from(number))
}

pub(super) fn participant(number: u64) -> ParticipantId {
    ParticipantId::new(&format!("p{number}")).unwrap()
}

fn members(numbers: impl IntoIterator<Item = u64>) -> Members {
    numbers.into_iter().map(participant).collect()
}

/// A decision to commit among the first `count` participants, which the vote of each says to be at `position`.
pub(super) fn decide(number: u64, count: u64, position: u64) -> Command {
    let all = members(0..count);
    let witness = Witness {
        generation: Generation(1),
        position: Position(position),
    };
    Command::Decide(Proposal {
        transaction: transaction(number),
        decision: Decision::Commit,
        request_hash: RequestHash::of_members(&all),
        unacknowledged: all.clone(),
        witnesses: all
            .iter()
            .map(|member| (member.clone(), witness))
            .collect::<BTreeMap<_, _>>(),
        members: all,
        decided_at: Timestamp::from_unix_ms(1_700_000_000_000 + number),
    })
}

pub(super) fn key(number: u64) -> IdempotencyKey {
    IdempotencyKey::new(&format!("key {number}")).unwrap()
}

/// Key and transaction of these numbers.
pub(super) fn bind(number: u64, of: u64) -> Command {
    Command::Bind {
        key: key(number),
        binding: Binding {
            transaction: transaction(of),
            request_hash: RequestHash::of_members(&members([of])),
        },
    }
}

pub(super) fn acknowledge(number: u64, from: impl IntoIterator<Item = u64>) -> Command {
    Command::Acknowledge {
        transaction: transaction(number),
        participants: members(from),
        witnesses: std::collections::BTreeMap::new(),
    }
}

pub(super) fn register(number: u64, generation: u64, position: u64) -> Command {
    let witness = Witness {
        generation: Generation(generation),
        position: Position(position),
    };
    Command::Register {
        participant: participant(number),
        registration: Registration {
            address: format!("10.0.0.{number}:{generation}"),
            witness,
        },
    }
}

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

pub(super) fn entry(term: u64, index: u64, commands: &[Command]) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Commands(encode_commands(commands))),
    }
}

/// The entry that makes these nodes the members.
pub(super) fn membership(term: u64, index: u64, voters: impl IntoIterator<Item = u64>) -> Entry {
    let voters: BTreeSet<u64> = voters.into_iter().collect();
    let membership = openraft::Membership::new_with_defaults(vec![voters], []);
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Membership(membership),
    }
}

/// A small log: several segments for a few dozen records, and several writes for a few appends.
pub(super) fn small_journal() -> Options {
    Options {
        segment_bytes: 4096,
        max_record_bytes: 1024,
        max_group_bytes: 400,
        ..Options::new("raft log")
    }
}

pub(super) fn snapshots(disk: &SimulatedDisk) -> Arc<SnapshotStore> {
    Arc::new(SnapshotStore::open(Arc::new(disk.clone()), cluster_id()).unwrap())
}

pub(super) fn state_machine(table: &MemoryTable, snapshots: &Arc<SnapshotStore>) -> StateMachine {
    let table: Arc<dyn Table> = Arc::new(table.clone());
    StateMachine::open(table, Arc::clone(snapshots), Background::Tasks, Failure::new()).unwrap()
}

/// Everything in a table.
pub(super) fn contents(table: &dyn Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    table.scan(&[], None, usize::MAX).unwrap()
}

/// Applies entries that nobody waits for.
pub(super) async fn apply(
    machine: &mut StateMachine,
    entries: impl IntoIterator<Item = Entry>,
) -> io::Result<()> {
    use openraft::storage::RaftStateMachine as _;
    let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    machine.apply(futures::stream::iter(entries)).await
}

/// A callback for an append, and what it will be told.
pub(super) fn flushed() -> (
    IOFlushed<TypeConfig>,
    impl Future<Output = io::Result<()>> + Send + 'static,
) {
    let (told, answer) = <TypeConfig as TypeConfigExt>::oneshot();
    let answer = async move {
        answer
            .await
            .unwrap_or_else(|_| Err(io::Error::other("never told")))
    };
    (IOFlushed::signal(told), answer)
}

/// A repeatable source of choices.
pub(super) struct Choice(pub(super) u64);

impl Choice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
