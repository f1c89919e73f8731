//! What the journal of a participant says, from its first record on: what it has promised, and how that ended.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use unanimo_core::{Record, TransactionId};
use unanimo_journal::{FrameKind, FrameStanding, SimulatedDisk, inspect};
use unanimo_proto::storage::decode_participant_record;

/// Bytes of a frame before its payload: a record's frame has nothing else there.
const FRAME_HEADER_BYTES: u64 = 32;

/// What was found in a journal.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    /// The numbers of its starts, in order.
    starts: Vec<u32>,
    /// When each promise was made, by the participant's clock (Unix milliseconds).
    promised: BTreeMap<TransactionId, u64>,
    /// For which members and for which request.
    promises: BTreeMap<TransactionId, Value>,
    /// Every end, in order.
    terminal: BTreeMap<TransactionId, Vec<Value>>,
    promised_after_end: BTreeSet<TransactionId>,
    committed_unpromised: BTreeSet<TransactionId>,
}

impl Promises {
    /// Reads the journal on this disk, released records included.
    pub(crate) fn read(disk: &SimulatedDisk) -> Result<Self, Box<dyn std::error::Error>> {
        let mut found = Self::default();
        for segment in inspect(disk)?.segments {
            let bytes = disk.contents(&segment.file).unwrap_or_default();
            for frame in segment.frames {
                if frame.kind != Some(FrameKind::Record) || frame.standing != FrameStanding::Valid {
                    continue;
                }
                let from = (frame.offset + FRAME_HEADER_BYTES) as usize;
                let payload = bytes.get(from..from + frame.length as usize);
                let (_, record) =
                    decode_participant_record(payload.ok_or("a record behind the end of its file")?)?;
                found.take(record);
            }
        }
        Ok(found)
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Started { generation, .. } => self.starts.push(generation.starts()),
            Record::Prepared(transaction, prepared) => {
                if self.terminal.contains_key(&transaction) {
                    self.promised_after_end.insert(transaction);
                }
                self.promised.insert(transaction, prepared.prepared_at.unix_ms());
                let members: Vec<String> = prepared.members.iter().map(ToString::to_string).collect();
                let promise = json!({ "members": members, "request": prepared.request_hash.to_string() });
                self.promises.insert(transaction, promise);
            }
            Record::Committed { transaction, .. } => {
                if !self.promised.contains_key(&transaction) {
                    self.committed_unpromised.insert(transaction);
                }
                self.end(transaction, json!("committed"));
            }
            Record::Aborted { transaction, reason } => self.end(transaction, json!({ "aborted": reason })),
            Record::Registered { .. } | Record::Closed { .. } => {}
        }
    }

    fn end(&mut self, transaction: TransactionId, how: Value) {
        self.terminal.entry(transaction).or_default().push(how);
    }

    /// How many promises have no end.
    pub(crate) fn open(&self) -> u64 {
        let open = self.promised.keys().filter(|tx| !self.terminal.contains_key(tx));
        open.count() as u64
    }

    /// Adds it to the evidence of a participant.
    pub(crate) fn add_to(&self, evidence: &mut Value) {
        // Where its first start is, nothing is missing before.
        evidence["journal_whole"] = json!(self.starts.contains(&1));
        evidence["starts"] = json!(self.starts);
        evidence["promised"] = by_name(&self.promised);
        evidence["promises"] = by_name(&self.promises);
        evidence["terminal"] = by_name(&self.terminal);
        evidence["promised_after_end"] = names(&self.promised_after_end);
        evidence["committed_unpromised"] = names(&self.committed_unpromised);
    }
}

fn by_name<T: serde::Serialize>(map: &BTreeMap<TransactionId, T>) -> Value {
    let map = map
        .iter()
        .map(|(transaction, what)| (transaction.to_string(), json!(what)));
    Value::Object(map.collect())
}

fn names(set: &BTreeSet<TransactionId>) -> Value {
    set.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use unanimo_core::{Generation, Members, Prepared, RequestHash, Timestamp};
    use unanimo_journal::{Journal, Options};
    use unanimo_proto::storage::encode_participant_record;

    use super::*;
    use crate::disk::WatchedDisk;
    use crate::failure::{Failure, Part};
    use crate::notes::Notes;

    fn tx(number: u64) -> TransactionId {
        TransactionId::new(Timestamp::from_unix_ms(number), 0)
    }

    fn prepared(number: u64) -> Record {
        let prepared = Prepared {
            cluster: "simulated".parse().unwrap(),
            members: Members::from(["p1".parse().unwrap(), "p2".parse().unwrap()]),
            request_hash: RequestHash::from_bytes([7; 32]),
            redo: bytes::Bytes::from(vec![0; 300]),
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

    /// Small files, and what comes first is released when all is written.
    fn disk_with(records: &[Record]) -> WatchedDisk {
        let notes = Notes::new(false);
        let disk = WatchedDisk::new(Failure::new(&notes, &"p1".into(), Part::Journal));
        let mut options = Options::new("participant journal");
        options.segment_bytes = 16 * 1024;
        options.max_record_bytes = 4 * 1024;
        let (journal, mut writer) =
            Journal::open(Arc::new(disk.clone()), options, &mut |_, _| Ok(())).unwrap();
        let name = "p1".parse().unwrap();
        let mut last = None;
        for record in records {
            let bytes = encode_participant_record(&name, record);
            last = Some(journal.append(bytes, |durable| assert!(durable.is_ok())).unwrap());
            while writer.step() != unanimo_journal::Step::Idle {}
        }
        journal.release_before(last.unwrap());
        while writer.step() != unanimo_journal::Step::Idle {}
        disk
    }

    #[test]
    fn promises_and_ends_are_read_from_the_first_on_though_their_files_are_gone() {
        let started = Record::Started {
            cluster: "simulated".parse().unwrap(),
            generation: Generation::of_start(1, 7),
        };
        let aborted = Record::Aborted {
            transaction: tx(2),
            reason: "no".to_owned(),
        };
        let mut records = vec![
            started,
            prepared(1),
            committed(1),
            aborted,
            prepared(2),
            committed(3),
        ];
        records.extend((10..200).map(prepared));
        let disk = disk_with(&records);
        assert!(!Promises::read(&disk.disk).unwrap().starts.contains(&1));
        let found = Promises::read(&disk.since_the_beginning()).unwrap();
        assert_eq!(found.starts, [1]);
        assert_eq!(found.promised.len(), 192);
        assert_eq!(found.promised[&tx(1)], 101);
        assert_eq!(found.terminal[&tx(1)], [json!("committed")]);
        assert_eq!(found.terminal[&tx(2)], [json!({ "aborted": "no" })]);
        assert_eq!(found.promised_after_end, [tx(2)].into());
        assert_eq!(found.committed_unpromised, [tx(3)].into());
        assert_eq!(found.open(), 190);
    }
}
