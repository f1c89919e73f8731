//! What a bank's files tell once its process is gone: its promises, and when it heard how they ended.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use unanimo_core::{Record, Timestamp, TransactionId};
use unanimo_journal::{Journal, OpenError, Options, RealDisk};
use unanimo_proto::storage::{UnreadableRecord, decode_participant_record};

use crate::heard;

/// The participant's data, in a bank's folder.
pub(crate) const PARTICIPANT: &str = "participant";
/// The decisions that the bank was told, in a bank's folder.
pub(crate) const DECISIONS: &str = "decisions";

/// What a bank's files tell. Nothing of it comes from a coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BankFiles {
    /// Every promise in its journal, and when it was made: just before the record of it was written.
    pub promised: BTreeMap<TransactionId, Timestamp>,
    /// When the bank was first told the decision on what it had promised.
    pub heard: BTreeMap<TransactionId, Timestamp>,
}

/// Why a bank's files tell nothing.
#[derive(Debug, Error)]
pub enum BankFilesError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The journal does not open.
    #[error("cannot read the journal: {0}")]
    Journal(#[from] OpenError),
    /// A record in the journal is not one.
    #[error("cannot read the journal: {0}")]
    Record(#[from] UnreadableRecord),
    /// Promises may be missing, so nothing can be said about all of them.
    #[error("the journal does not go back to the first start of the bank")]
    Shortened,
}

impl BankFiles {
    /// Reads the files in a bank's folder. The bank must not be running.
    pub fn read(folder: &Path) -> Result<Self, BankFilesError> {
        let decisions = folder.join(DECISIONS);
        let heard = heard::read(&decisions).map_err(|source| BankFilesError::Unreadable {
            path: decisions,
            source,
        })?;
        Ok(Self {
            promised: read_promises(&folder.join(PARTICIPANT).join("journal"))?,
            heard,
        })
    }
}

fn read_promises(journal: &Path) -> Result<BTreeMap<TransactionId, Timestamp>, BankFilesError> {
    let disk = RealDisk::open(journal).map_err(|source| BankFilesError::Unreadable {
        path: journal.to_owned(),
        source,
    })?;
    let mut promised = BTreeMap::new();
    let mut complete = false;
    let mut unreadable = None;
    let mut take = |bytes: &[u8]| -> Result<(), UnreadableRecord> {
        match decode_participant_record(bytes)?.1 {
            Record::Started { generation, .. } => complete |= generation.starts() == 1,
            Record::Prepared(transaction, prepared) => {
                promised.insert(transaction, prepared.prepared_at);
            }
            _ => {}
        }
        Ok(())
    };
    // Opened the way the participant would, and closed at once.
    let opened = Journal::open(
        Arc::new(disk),
        Options::new("participant journal"),
        &mut |_sequence, bytes| {
            take(bytes).map_err(|error| {
                let text = error.to_string();
                unreadable = Some(error);
                text.into()
            })
        },
    );
    match (opened, unreadable) {
        (_, Some(error)) => Err(error.into()),
        (Err(error), None) => Err(error.into()),
        (Ok(_), None) if !complete => Err(BankFilesError::Shortened),
        (Ok(_), None) => Ok(promised),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unanimo_core::{Generation, Members, ParticipantId, Prepared, RequestHash};
    use unanimo_proto::storage::encode_participant_record;

    fn tx(number: u64) -> TransactionId {
        TransactionId::new(Timestamp::from_unix_ms(number), 0)
    }

    fn started(generation: u32) -> Record {
        Record::Started {
            cluster: "test".parse().unwrap(),
            generation: Generation::of_start(generation, 7),
        }
    }

    fn prepared(number: u64) -> Record {
        let north: ParticipantId = "bank-north".parse().unwrap();
        let prepared = Prepared {
            cluster: "test".parse().unwrap(),
            members: Members::from([north]),
            request_hash: RequestHash::from_bytes([7; 32]),
            redo: bytes::Bytes::new(),
            deadline: Timestamp::from_unix_ms(9000),
            prepared_at: Timestamp::from_unix_ms(100 + number),
        };
        Record::Prepared(tx(number), prepared)
    }

    /// A bank's folder with these records in its journal.
    fn folder(records: &[Record]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join(PARTICIPANT).join("journal");
        std::fs::create_dir_all(&journal).unwrap();
        let disk = RealDisk::open(&journal).unwrap();
        let options = Options::new("participant journal");
        let (journal, writer) = Journal::open(Arc::new(disk), options, &mut |_, _| Ok(())).unwrap();
        let writer = writer.spawn().unwrap();
        let name = "bank-north".parse().unwrap();
        for record in records {
            let bytes = encode_participant_record(&name, record);
            journal.append(bytes, |durable| assert!(durable.is_ok())).unwrap();
        }
        journal.close();
        writer.join().unwrap();
        std::fs::write(folder.path().join(DECISIONS), format!("150 {}\n", tx(1))).unwrap();
        folder
    }

    #[test]
    fn promises_and_decisions_are_read() {
        let folder = folder(&[started(1), prepared(1), started(2), prepared(2)]);
        let files = BankFiles::read(folder.path()).unwrap();
        let [at_one, at_two, heard] = [101, 102, 150].map(Timestamp::from_unix_ms);
        assert_eq!(files.promised, BTreeMap::from([(tx(1), at_one), (tx(2), at_two)]));
        assert_eq!(files.heard, BTreeMap::from([(tx(1), heard)]));
    }

    #[test]
    fn a_journal_that_may_lack_promises_is_no_evidence() {
        let shortened = folder(&[started(2), prepared(2)]);
        let error = BankFiles::read(shortened.path()).unwrap_err();
        assert!(matches!(error, BankFilesError::Shortened), "{error}");
        let nothing = tempfile::tempdir().unwrap();
        let error = BankFiles::read(nothing.path()).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read ") && error.contains(DECISIONS),
            "{error}"
        );
    }
}
