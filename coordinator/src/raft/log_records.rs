//! What the records of the log's journal mean together.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use prost::Message as _;
use unanimo_core::ClusterId;
use unanimo_journal::Sequence;
use unanimo_proto::internal as wire;
use wire::raft_record::{Identity, Purge, Record as Kind, Truncation};

use super::convert::{
    entry_from_wire, entry_to_wire, log_id_from_wire, log_id_to_wire, vote_from_wire, vote_to_wire,
};
use super::type_config::{Entry, LogId, Vote};
use super::{NodeId, StartError};

/// Whose log it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
}

/// One record that stands for itself.
pub(super) enum Record<'a> {
    Entry(&'a Entry),
    Vote(&'a Vote),
    Committed(&'a LogId),
}

impl Record<'_> {
    pub(super) fn encode(&self) -> Bytes {
        encode(match self {
            Self::Entry(entry) => Kind::Entry(entry_to_wire(entry)),
            Self::Vote(vote) => Kind::Vote(vote_to_wire(vote)),
            Self::Committed(id) => Kind::Committed(log_id_to_wire(id)),
        })
    }
}

fn encode(record: Kind) -> Bytes {
    wire::RaftRecord { record: Some(record) }.encode_to_vec().into()
}

/// Where an entry stands in the journal.
#[derive(Clone, Copy, Debug)]
struct Slot {
    log_id: LogId,
    sequence: Sequence,
    bytes: u32,
}

/// Where a wanted entry is.
pub(super) enum Read {
    Cached(Entry),
    InJournal(LogId, Sequence),
}

/// The log as the records up to now leave it.
pub(super) struct Log {
    owner: Owner,
    /// Whom the records say that they belong to.
    found: Option<Owner>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    /// The last entry that was dropped from the front.
    pub(super) purged: Option<LogId>,
    /// The entries that are there, without a gap.
    slots: VecDeque<Slot>,
    /// The last of them, in memory.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    cached_bytes: usize,
}

impl Log {
    pub(super) fn new(owner: Owner, cached_bytes: usize) -> Self {
        Self {
            owner,
            found: None,
            vote: None,
            committed: None,
            purged: None,
            slots: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            cached_bytes,
        }
    }

    /// Takes one record into account, at recovery. The journal's front may be gone, so entries may begin at any
    /// index, and the owner may be told by a later record only.
    pub(super) fn replay(&mut self, sequence: Sequence, payload: &[u8]) -> Result<(), StartError> {
        let nonsense = |reason: String| StartError::LogContents {
            reason: format!("record {sequence}: {reason}"),
        };
        let record = wire::RaftRecord::decode(payload).map_err(|error| nonsense(error.to_string()))?;
        match record
            .record
            .ok_or_else(|| nonsense("it is of an unknown kind".to_owned()))?
        {
            Kind::Identity(identity) => self.identify(identity)?,
            Kind::Entry(entry) => {
                let entry = entry_from_wire(entry).map_err(|error| nonsense(error.to_string()))?;
                let expected = self.last().map(|last| last.index + 1);
                if expected.is_some_and(|expected| expected != entry.log_id.index) {
                    return Err(nonsense(format!(
                        "entry {} does not follow {:?}",
                        entry.log_id,
                        self.last()
                    )));
                }
                self.push(sequence, entry, payload.len());
            }
            Kind::Vote(vote) => self.vote = Some(vote_from_wire(vote)),
            Kind::Committed(id) => self.committed = Some(log_id_from_wire(id)),
            Kind::Truncation(cut) => {
                self.resume(cut.identity, cut.vote, cut.committed, cut.purged)?;
                let last = cut.last.map(log_id_from_wire);
                if self.last() != last {
                    return Err(nonsense(format!(
                        "the log was cut after {last:?}, but ends at {:?}",
                        self.last()
                    )));
                }
            }
            Kind::Purge(purge) => self.resume(purge.identity, purge.vote, purge.committed, purge.purged)?,
        }
        Ok(())
    }

    /// Checks that the records make a log, and this owner's. True if there were none.
    pub(super) fn finish_replay(&mut self) -> Result<bool, StartError> {
        let nonsense = |reason: &str| StartError::LogContents {
            reason: reason.to_owned(),
        };
        let empty = self.vote.is_none() && self.last().is_none();
        match &self.found {
            None if empty => return Ok(true),
            None => return Err(nonsense("no record says whose log it is")),
            Some(_) => {}
        }
        let first = self.slots.front().map(|slot| slot.log_id.index);
        if first.is_some_and(|first| first != self.first_index()) {
            return Err(nonsense("entries are missing at its front"));
        }
        // What is not in the log cannot be applied again.
        self.committed = self.committed.min(self.last());
        Ok(false)
    }

    fn resume(
        &mut self,
        identity: Option<Identity>,
        vote: Option<wire::Vote>,
        committed: Option<wire::LogId>,
        purged: Option<wire::LogId>,
    ) -> Result<(), StartError> {
        let missing = || StartError::LogContents {
            reason: "a record does not say whose it is".to_owned(),
        };
        self.identify(identity.ok_or_else(missing)?)?;
        self.vote = vote.map(vote_from_wire);
        self.committed = committed.map(log_id_from_wire);
        if let Some(upto) = purged.map(log_id_from_wire) {
            self.purge(upto);
        }
        Ok(())
    }

    fn identify(&mut self, identity: Identity) -> Result<(), StartError> {
        let cluster = ClusterId::new(&identity.cluster).map_err(|error| StartError::LogContents {
            reason: error.to_string(),
        })?;
        let found = Owner {
            cluster,
            node: NodeId(identity.node),
        };
        if found != self.owner {
            return Err(StartError::OtherOwner {
                found: found.node,
                found_cluster: found.cluster,
                expected: self.owner.node,
                expected_cluster: self.owner.cluster.clone(),
            });
        }
        self.found = Some(found);
        Ok(())
    }

    fn identity_message(&self) -> Identity {
        Identity {
            cluster: self.owner.cluster.to_string(),
            node: self.owner.node.0,
        }
    }

    /// The record that says whose log it is.
    pub(super) fn identity(&self) -> Bytes {
        encode(Kind::Identity(self.identity_message()))
    }

    /// The record of a truncation that has been carried out here.
    pub(super) fn truncation(&self) -> Bytes {
        encode(Kind::Truncation(Truncation {
            identity: Some(self.identity_message()),
            vote: self.vote.as_ref().map(vote_to_wire),
            committed: self.committed.as_ref().map(log_id_to_wire),
            purged: self.purged.as_ref().map(log_id_to_wire),
            last: self.last().as_ref().map(log_id_to_wire),
        }))
    }

    /// The record of a purge that has been carried out here.
    pub(super) fn purge_record(&self) -> Bytes {
        encode(Kind::Purge(Purge {
            identity: Some(self.identity_message()),
            vote: self.vote.as_ref().map(vote_to_wire),
            committed: self.committed.as_ref().map(log_id_to_wire),
            purged: self.purged.as_ref().map(log_id_to_wire),
        }))
    }

    /// The last entry, present or purged.
    pub(super) fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.log_id).or(self.purged)
    }

    /// The index of the first entry, present or to come.
    fn first_index(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    /// The position in the journal of the first entry that is there.
    pub(super) fn first_sequence(&self) -> Option<Sequence> {
        self.slots.front().map(|slot| slot.sequence)
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        let first = self.slots.front()?.log_id.index;
        self.slots.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// Where this very entry stands, if it is there.
    pub(super) fn sequence_of(&self, log_id: LogId) -> Option<Sequence> {
        self.slot(log_id.index)
            .filter(|slot| slot.log_id == log_id)
            .map(|slot| slot.sequence)
    }

    /// Adds an entry that the journal has taken.
    pub(super) fn push(&mut self, sequence: Sequence, entry: Entry, bytes: usize) {
        let follows = self
            .slots
            .back()
            .is_none_or(|last| last.log_id.index + 1 == entry.log_id.index);
        assert!(follows, "entry {} follows {:?}", entry.log_id, self.last());
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.slots.push_back(Slot {
            log_id: entry.log_id,
            sequence,
            bytes,
        });
        self.recent.push_back(entry);
        self.recent_bytes += bytes as usize;
        while self.recent_bytes > self.cached_bytes {
            self.forget_oldest_recent();
        }
    }

    fn forget_oldest_recent(&mut self) {
        let oldest = self.slots.len() - self.recent.len();
        self.recent.pop_front();
        self.recent_bytes -= self.slots[oldest].bytes as usize;
    }

    /// Drops the entries after `last`. Returns the position in the journal behind which to cut, or none if there
    /// is nothing to drop.
    pub(super) fn truncate_after(&mut self, last: Option<LogId>) -> Option<Sequence> {
        let keep_below = last.map_or(0, |last| last.index + 1);
        let first = self.slots.front()?.log_id.index;
        let keep = usize::try_from(keep_below.saturating_sub(first)).unwrap_or(usize::MAX);
        let cut_from = self.slots.get(keep)?.sequence;
        let after = match keep.checked_sub(1) {
            Some(last_kept) => self.slots[last_kept].sequence,
            None => cut_from.previous(),
        };
        while self.slots.len() > keep {
            let dropped = self.slots.pop_back();
            if self.recent.pop_back().is_some() {
                self.recent_bytes -= dropped.map_or(0, |slot| slot.bytes as usize);
            }
        }
        self.committed = self.committed.min(self.last());
        Some(after)
    }

    /// Drops the entries up to `upto`, which may be beyond the last: a snapshot has put it there.
    pub(super) fn purge(&mut self, upto: LogId) {
        while self
            .slots
            .front()
            .is_some_and(|slot| slot.log_id.index <= upto.index)
        {
            if self.recent.len() == self.slots.len() {
                self.forget_oldest_recent();
            }
            self.slots.pop_front();
        }
        self.purged = self.purged.max(Some(upto));
    }

    /// Where the entries from `start` to before `end` are, as far as they are there.
    pub(super) fn read(&self, start: u64, end: u64) -> Vec<Read> {
        let Some(first) = self.slots.front().map(|slot| slot.log_id.index) else {
            return Vec::new();
        };
        let length = self.slots.len();
        let position = |index: u64| {
            usize::try_from(index.saturating_sub(first))
                .unwrap_or(length)
                .min(length)
        };
        let old = length - self.recent.len();
        let (from, to) = (position(start), position(end));
        (from..to.max(from))
            .map(|at| match at.checked_sub(old) {
                Some(recent) => Read::Cached(self.recent[recent].clone()),
                None => Read::InJournal(self.slots[at].log_id, self.slots[at].sequence),
            })
            .collect()
    }

    /// The end of a range that starts at `start`, ends before `end` and holds at most `bytes`, or one entry.
    pub(super) fn end_within(&self, start: u64, end: u64, bytes: usize) -> u64 {
        let mut sum = 0;
        for index in start..end {
            sum += self.slot(index).map_or(0, |slot| slot.bytes as usize);
            if sum > bytes && index > start {
                return index;
            }
        }
        end
    }

    /// The entry that a record of the journal holds, which must be this one.
    pub(super) fn entry_of(payload: Bytes, log_id: LogId) -> io::Result<Entry> {
        let damaged =
            |reason: String| io::Error::new(io::ErrorKind::InvalidData, format!("entry {log_id}: {reason}"));
        let record = wire::RaftRecord::decode(payload).map_err(|error| damaged(error.to_string()))?;
        let Some(Kind::Entry(entry)) = record.record else {
            return Err(damaged("its record holds something else".to_owned()));
        };
        let entry = entry_from_wire(entry).map_err(|error| damaged(error.to_string()))?;
        if entry.log_id != log_id {
            return Err(damaged(format!("its record holds {}", entry.log_id)));
        }
        Ok(entry)
    }
}
