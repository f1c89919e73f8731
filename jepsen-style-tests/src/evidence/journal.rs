use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use unanimo_core::Record;
use unanimo_journal::{Journal, OpenError, Options, RealDisk};
use unanimo_proto::storage::decode_participant_record;

use super::{ParticipantEvidence, PromiseEvidence};
use crate::history::{Answer, Tx};

/// Why a journal tells nothing.
#[derive(Debug, Error)]
pub(crate) enum JournalError {
    /// Its folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not open, or holds something that is no record.
    #[error("cannot read the journal: {0}")]
    Open(#[from] OpenError),
}

/// Reads a participant's journal. The participant must not be running.
pub(crate) fn read(folder: &Path, found: &mut ParticipantEvidence) -> Result<(), JournalError> {
    let unreadable = |source| JournalError::Folder {
        path: folder.to_owned(),
        source,
    };
    // Opening it would make one.
    std::fs::metadata(folder).map_err(unreadable)?;
    let disk = RealDisk::open(folder).map_err(unreadable)?;
    // Opened the way the participant would, and closed at once.
    Journal::open(
        Arc::new(disk),
        Options::new("participant journal"),
        &mut |_, bytes| {
            let (_, record) = decode_participant_record(bytes).map_err(|error| error.to_string())?;
            take(record, found);
            Ok(())
        },
    )?;
    Ok(())
}

/// Takes the next record into account.
fn take(record: Record, found: &mut ParticipantEvidence) {
    match record {
        Record::Started { generation, .. } => {
            found.journal_whole |= generation.starts() == 1;
            found.starts.push(generation.starts());
        }
        Record::Prepared(transaction, prepared) => {
            let transaction = Tx(transaction);
            if found.terminal.contains_key(&transaction) {
                found.promised_after_end.insert(transaction);
            }
            found.promised.insert(transaction, prepared.prepared_at.unix_ms());
            let promise = PromiseEvidence {
                members: prepared.members.iter().map(ToString::to_string).collect(),
                request: prepared.request_hash.to_string(),
            };
            found.promises.insert(transaction, promise);
        }
        Record::Committed { transaction, .. } => {
            let transaction = Tx(transaction);
            if !found.promised.contains_key(&transaction) {
                found.committed_unpromised.insert(transaction);
            }
            found
                .terminal
                .entry(transaction)
                .or_default()
                .push(Answer::Committed);
        }
        Record::Aborted { transaction, reason } => found
            .terminal
            .entry(Tx(transaction))
            .or_default()
            .push(Answer::Aborted(reason)),
        Record::Registered { .. } | Record::Closed { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use unanimo_core::{Generation, Members, Prepared, RequestHash, Timestamp, TransactionId};
    use unanimo_proto::storage::encode_participant_record;

    use super::*;

    fn tx(number: u64) -> TransactionId {
        TransactionId::new(Timestamp::from_unix_ms(number), 0)
    }

    fn started(generation: u32) -> Record {
        Record::Started {
            cluster: "jepsen".parse().unwrap(),
            generation: Generation::of_start(generation, 7),
        }
    }

    fn prepared(number: u64) -> Record {
        let members = Members::from(["p1".parse().unwrap(), "p2".parse().unwrap()]);
        let prepared = Prepared {
            cluster: "jepsen".parse().unwrap(),
            members,
            request_hash: RequestHash::from_bytes([7; 32]),
            redo: bytes::Bytes::new(),
            deadline: Timestamp::from_unix_ms(9000),
            prepared_at: Timestamp::from_unix_ms(100 + number),
        };
        Record::Prepared(tx(number), prepared)
    }

    fn committed(number: u64) -> Record {
        Record::Committed {
            transaction: tx(number),
            request_hash: RequestHash::from_bytes([7; 32]),
        }
    }

    fn aborted(number: u64) -> Record {
        Record::Aborted {
            transaction: tx(number),
            reason: "no".to_owned(),
        }
    }

    fn found(records: &[Record]) -> ParticipantEvidence {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(folder.path()).unwrap();
        let options = Options::new("participant journal");
        let (journal, writer) = Journal::open(Arc::new(disk), options, &mut |_, _| Ok(())).unwrap();
        let writer = writer.spawn().unwrap();
        let name = "p1".parse().unwrap();
        for record in records {
            let bytes = encode_participant_record(&name, record);
            journal.append(bytes, |durable| assert!(durable.is_ok())).unwrap();
        }
        journal.close();
        writer.join().unwrap();
        let mut found = ParticipantEvidence::default();
        read(folder.path(), &mut found).unwrap();
        found
    }

    #[test]
    fn promises_ends_and_their_order_are_read() {
        let found = found(&[
            started(1),
            prepared(1),
            committed(1),
            aborted(2),
            started(2),
            prepared(2),
            committed(3),
        ]);
        assert!(found.journal_whole);
        assert_eq!(found.starts, [1, 2]);
        assert_eq!(found.promised, [(Tx(tx(1)), 101), (Tx(tx(2)), 102)].into());
        assert_eq!(found.promises[&Tx(tx(1))].members, ["p1", "p2"]);
        assert_eq!(found.terminal[&Tx(tx(1))], [Answer::Committed]);
        assert_eq!(found.terminal[&Tx(tx(2))], [Answer::Aborted("no".to_owned())]);
        assert_eq!(found.promised_after_end, [Tx(tx(2))].into());
        assert_eq!(found.committed_unpromised, [Tx(tx(3))].into());
    }

    #[test]
    fn a_journal_that_may_lack_promises_is_not_whole_and_none_is_none() {
        assert!(!found(&[started(2), prepared(2)]).journal_whole);
        let folder = tempfile::tempdir().unwrap();
        let nothing = folder.path().join("journal");
        assert!(read(&nothing, &mut ParticipantEvidence::default()).is_err());
        assert!(!nothing.exists());
    }
}
