//! A data folder of another node or cluster is refused.

use std::sync::Arc;

use openraft::storage::RaftLogStorage as _;
use unanimo_core::ClusterId;
use unanimo_journal::SimulatedDisk;

use super::fixture::{decide, entry, flushed, log_id, owner, small_journal};
use crate::raft::background::WriterHandle;
use crate::raft::log_records::Owner;
use crate::raft::log_store::LogStore;
use crate::raft::type_config::Vote;
use crate::raft::{Background, NodeId, StartError};

async fn used_log(disk: &SimulatedDisk, purged: bool) {
    let (mut log, writer) =
        LogStore::open(Arc::new(disk.clone()), small_journal(), owner(), 0, None).unwrap();
    let writer = WriterHandle::start(Background::Tasks, writer).unwrap();
    log.save_vote(&Vote::new(1, 1)).await.unwrap();
    for index in 0..40 {
        let (callback, durable) = flushed();
        log.append([entry(1, index, &[decide(index, 2, index)])], callback)
            .await
            .unwrap();
        durable.await.unwrap();
    }
    if purged {
        log.purge(log_id(1, 38)).await.unwrap();
    }
    log.journal().close();
    writer.ended().await;
}

#[tokio::test]
async fn the_log_of_another_node_or_cluster_is_refused_with_both_names() {
    for purged in [false, true] {
        let disk = SimulatedDisk::new();
        used_log(&disk, purged).await;
        let strangers = [
            Owner {
                node: NodeId(2),
                ..owner()
            },
            Owner {
                cluster: ClusterId::new("other").unwrap(),
                ..owner()
            },
        ];
        for stranger in strangers {
            let opened = LogStore::open(Arc::new(disk.clone()), small_journal(), stranger.clone(), 0, None);
            let Err(error) = opened.map(drop) else {
                panic!("{stranger:?} opened the log of {:?}", owner())
            };
            let message = error.to_string();
            assert!(message.contains("n1 of cluster test"), "{message}");
            let stranger = format!("{} of cluster {}", stranger.node, stranger.cluster);
            assert!(message.contains(&stranger), "{message}");
        }
        let (log, _writer) = LogStore::open(Arc::new(disk), small_journal(), owner(), 0, None).unwrap();
        assert_eq!(log.bounds(), (purged.then(|| log_id(1, 38)), Some(log_id(1, 39))));
    }
}

/// The error comes through the journal's, and must still be one that a program can tell apart.
#[tokio::test]
async fn the_refusal_of_a_stranger_keeps_its_kind() {
    let disk = SimulatedDisk::new();
    used_log(&disk, false).await;
    let stranger = Owner {
        node: NodeId(9),
        ..owner()
    };
    let opened = LogStore::open(Arc::new(disk), small_journal(), stranger, 0, None).map(drop);
    assert!(matches!(
        opened,
        Err(StartError::OtherOwner {
            found: NodeId(1),
            expected: NodeId(9),
            ..
        })
    ));
}
