//! What is said between nodes: conversions, and how much one message may hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::raft::AppendEntriesRequest;
use openraft::storage::RaftLogStorage as _;
use openraft::{BasicNode, EntryPayload, RaftLogReader as _};
use unanimo_core::table::Command;
use unanimo_journal::{Options, SimulatedDisk};
use unanimo_proto::internal as wire;
use unanimo_proto::transport::MAX_MESSAGE_BYTES;

use super::fixture::{decide, entry, flushed, log_id, membership, owner};
use crate::raft::Background;
use crate::raft::background::WriterHandle;
use crate::raft::convert::{append, entry_from_wire, entry_to_wire, membership_from_wire};
use crate::raft::log_store::LogStore;
use crate::raft::type_config::{Entry, Membership, TypeConfig, Vote};

#[test]
fn every_entry_survives_the_wire() {
    let voters = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
    // Between the two steps of a change, with a node that only follows.
    let nodes: BTreeMap<u64, BasicNode> = (1..=5)
        .map(|id| (id, BasicNode::new(format!("host{id}:1"))))
        .collect();
    let joint = Membership::new(voters, nodes).unwrap();
    let entries = [
        Entry {
            log_id: log_id(3, 7),
            payload: EntryPayload::Blank,
        },
        Entry {
            log_id: log_id(3, 8),
            payload: EntryPayload::Membership(joint),
        },
        entry(3, 9, &[decide(1, 3, 4)]),
        membership(4, 10, [1]),
    ];
    for entry in entries {
        assert_eq!(entry_from_wire(entry_to_wire(&entry)).unwrap(), entry);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let request = |entries| AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(3, 1),
        prev_log_id: Some(log_id(2, 6)),
        entries,
        leader_commit: Some(log_id(2, 5)),
    };
    let good = append::to_wire(request(vec![entry(3, 7, &[]), entry(3, 8, &[])]), "test", 2);
    assert_eq!(append::from_wire(good.clone()).unwrap().entries.len(), 2);
    let hole = append::to_wire(request(vec![entry(3, 7, &[]), entry(3, 9, &[])]), "test", 2);
    assert!(
        append::from_wire(hole).is_err(),
        "a hole in the entries was accepted"
    );
    let early = append::to_wire(request(vec![entry(3, 6, &[])]), "test", 2);
    assert!(
        append::from_wire(early).is_err(),
        "entries that do not follow were accepted"
    );
    assert!(
        append::from_wire(wire::AppendRequest {
            vote: None,
            ..good.clone()
        })
        .is_err()
    );
    let nameless = wire::AppendRequest {
        entries: vec![wire::Entry {
            id: None,
            payload: None,
        }],
        ..good
    };
    assert!(append::from_wire(nameless).is_err());
    let unlisted = wire::Membership {
        configs: vec![wire::membership::NodeSet { nodes: vec![1, 2] }],
        nodes: vec![wire::Node {
            id: 1,
            address: "a:1".to_owned(),
        }],
    };
    assert!(
        membership_from_wire(unlisted).is_err(),
        "a voter without an address was accepted"
    );
    assert!(append::answer_from_wire(wire::AppendReply { result: None }).is_err());
}

#[tokio::test]
async fn one_message_holds_no_more_entries_than_fit() {
    let options = Options {
        segment_bytes: 16 * 1024 * 1024,
        ..Options::new("raft log")
    };
    let (mut log, writer) = LogStore::open(
        Arc::new(SimulatedDisk::new()),
        options,
        owner(),
        1024 * 1024,
        None,
    )
    .unwrap();
    let writer = WriterHandle::start(Background::Tasks, writer).unwrap();
    let commands: Vec<Command> = (0..500).map(|number| decide(number, 4, 1)).collect();
    let (callback, durable) = flushed();
    log.append((0..100).map(|index| entry(1, index, &commands)), callback)
        .await
        .unwrap();
    durable.await.unwrap();
    let mut next = 0;
    while next < 100 {
        let entries = log.limited_get_log_entries(next, 100).await.unwrap();
        assert_eq!(entries.first().map(|entry| entry.log_id.index), Some(next));
        let bytes: usize = entries
            .iter()
            .map(|entry| prost::Message::encoded_len(&entry_to_wire(entry)))
            .sum();
        assert!(
            bytes < MAX_MESSAGE_BYTES - 64 * 1024,
            "{bytes} bytes in one message"
        );
        assert!(entries.len() > 1 || next == 99, "messages could hold more");
        next += entries.len() as u64;
    }
    log.journal().close();
    writer.ended().await;
}
