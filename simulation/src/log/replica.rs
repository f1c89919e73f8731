use std::collections::VecDeque;
use std::rc::Rc;

use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::DecisionTable;

use super::{Entry, Role, Waiter};
use crate::coordinator::Continuation;
use crate::schedule::Time;

/// The table as it was after some entry.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) table: Rc<DecisionTable>,
}

/// One node's copy of the log and the table.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) term: u64,
    pub(crate) voted_for: Option<u8>,
    /// The same as they stand on disk.
    on_disk: (u64, Option<u8>),
    /// On disk as soon as it is there.
    pub(crate) snapshot: Snapshot,
    /// What comes after the snapshot.
    entries: VecDeque<Rc<Entry>>,
    /// Up to where the log is on disk.
    pub(crate) durable: u64,
    /// Up to where it will be when the forced write under way has ended.
    pub(crate) syncing: Option<u64>,
    /// Up to where the log is known to be the one of this term's leader.
    pub(crate) verified: u64,
    pub(crate) role: Role,
    pub(crate) leader: Option<u8>,
    pub(crate) commit: u64,
    pub(crate) applied: u64,
    pub(crate) table: DecisionTable,
    /// When it stands for election, unless it hears from a leader before.
    pub(crate) election_at: Time,
    pub(crate) apply_scheduled: bool,
}

impl Replica {
    pub(crate) fn new() -> Self {
        Self {
            term: 0,
            voted_for: None,
            on_disk: (0, None),
            snapshot: Snapshot {
                index: 0,
                term: 0,
                table: Rc::new(DecisionTable::new()),
            },
            entries: VecDeque::new(),
            durable: 0,
            syncing: None,
            verified: 0,
            role: Role::Follower,
            leader: None,
            commit: 0,
            applied: 0,
            table: DecisionTable::new(),
            election_at: 0,
            apply_scheduled: false,
        }
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.snapshot.index + self.entries.len() as u64
    }

    pub(crate) fn last_term(&self) -> u64 {
        self.entries.back().map_or(self.snapshot.term, |entry| entry.term)
    }

    /// The term of an entry; none if it is not here, or is in the snapshot.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.snapshot.index {
            return Some(self.snapshot.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    pub(crate) fn entry(&self, index: u64) -> Option<&Rc<Entry>> {
        let place = index.checked_sub(self.snapshot.index + 1)?;
        self.entries.get(place as usize)
    }

    /// Some entries from this one on.
    pub(crate) fn entries_from(&self, index: u64, most: usize) -> Vec<Rc<Entry>> {
        let skipped = index.saturating_sub(self.snapshot.index + 1) as usize;
        self.entries.iter().skip(skipped).take(most).cloned().collect()
    }

    pub(crate) fn append(&mut self, entry: Rc<Entry>) {
        self.entries.push_back(entry);
    }

    /// How many keys this leader is binding whose transactions have a place already.
    pub(crate) fn binding(&self) -> u64 {
        let Role::Leader(leading) = &self.role else {
            return 0;
        };
        let admitted =
            |waiter: &&Waiter| matches!(waiter, Waiter::Caller(Continuation::Bound { admitted: true, .. }));
        leading.waiting.values().filter(admitted).count() as u64
    }

    /// Drops what comes after this entry; returns how much.
    pub(crate) fn truncate_after(&mut self, index: u64) -> usize {
        let kept = index.saturating_sub(self.snapshot.index) as usize;
        let dropped = self.entries.len().saturating_sub(kept);
        self.entries.truncate(kept);
        self.durable = self.durable.min(index);
        self.syncing = self.syncing.map(|until| until.min(index));
        dropped
    }

    /// Writes the term and the vote down, before anybody hears of them.
    pub(crate) fn save_vote(&mut self) {
        if !mutants::is_on(Mutant::M9) {
            self.on_disk = (self.term, self.voted_for);
        }
    }

    /// Replaces the beginning of the log by what came of it.
    pub(crate) fn take_snapshot(&mut self) {
        let term = self.term_at(self.applied).unwrap_or(self.snapshot.term);
        let dropped = (self.applied - self.snapshot.index) as usize;
        self.entries.drain(..dropped.min(self.entries.len()));
        self.snapshot = Snapshot {
            index: self.applied,
            term,
            table: Rc::new(self.table.clone()),
        };
        self.durable = self.durable.max(self.applied);
    }

    /// Takes a snapshot of the leader's in place of everything that it has.
    pub(crate) fn install(&mut self, snapshot: Snapshot) {
        let index = snapshot.index;
        if self.term_at(index) == Some(snapshot.term) {
            let dropped = (index - self.snapshot.index) as usize;
            self.entries.drain(..dropped.min(self.entries.len()));
        } else {
            self.entries.clear();
        }
        self.durable = self.durable.clamp(index, index + self.entries.len() as u64);
        self.syncing = None;
        if self.applied < index {
            self.applied = index;
            self.table = (*snapshot.table).clone();
        }
        self.commit = self.commit.max(index);
        self.verified = self.verified.max(index);
        self.snapshot = snapshot;
    }

    /// Whether the disk has this very entry, or a snapshot with it.
    pub(crate) fn has_on_disk(&self, index: u64, entry: &Rc<Entry>) -> bool {
        index <= self.snapshot.index
            || (index <= self.durable && self.entry(index).is_some_and(|one| Rc::ptr_eq(one, entry)))
    }

    /// Loses what is not on disk, but for `kept` entries that happen to be. The table is again as it was in the snapshot,
    /// and what is committed is applied to it again. Returns how many entries are lost.
    pub(crate) fn crash(&mut self, kept: u64) -> u64 {
        let tail = self.last_index().saturating_sub(self.durable);
        let kept = kept.min(tail);
        self.durable += kept;
        self.truncate_after(self.durable);
        (self.term, self.voted_for) = self.on_disk;
        self.syncing = None;
        self.verified = 0;
        self.role = Role::Follower;
        self.leader = None;
        self.commit = self.snapshot.index;
        self.applied = self.snapshot.index;
        self.apply_scheduled = false;
        self.table = (*self.snapshot.table).clone();
        tail - kept
    }
}
