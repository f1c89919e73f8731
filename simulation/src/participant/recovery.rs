//! Comes up: from records to branches, with their holds, before any traffic; and tells the cluster how far it remembers.

use std::collections::BTreeMap;

use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::Witness;
use unanimo_core::{Generation, Position, Reach, Record, TransactionId, recover};

use super::{Doubts, Entry, Presence};
use crate::counters::Sometimes;
use crate::event::Event;
use crate::message::Message;
use crate::node::Node;
use crate::schedule::MS;
use crate::world::{Timer, World};

/// How long it waits until it asks again to be registered.
const REGISTER_AGAIN_MS: u64 = 200;

impl World {
    pub(crate) fn crash_participant(&mut self, place: usize, keep: u64) {
        self.count_what_a_crash_meets(place);
        let at = place as u8;
        let node = &mut self.participants[place];
        let durable = node.journal.durable();
        let left = node.journal.crash(keep);
        node.bank.crash();
        node.presence = Presence::Down;
        node.branches.clear();
        node.recording.clear();
        node.efforts.clear();
        node.doubts = Doubts::default();
        node.syncing = None;
        node.notes = 0;
        node.forced_upto = 0;
        node.is_registered = false;
        node.confirmed_at = None;
        node.watermark = None;
        node.closed = None;
        node.closing_at = None;
        node.forget_scheduled = false;
        node.read_only.clear();
        if left.lost > 0 && left.kept > 0 {
            self.watch.sometimes(Sometimes::PartOfTheTailSurvived);
        }
        if left.lost > 0 {
            self.watch.fault("crashes_that_lost_records");
        }
        if left.kept > 0 {
            self.watch.sometimes(Sometimes::UnforcedRecordSurvived);
        }
        let node = Node::Participant(at);
        self.watch.happened(&Event::Crashed {
            node,
            left: Some(left),
            lost: 0,
        });
        let journal = &self.participants[place].journal;
        for position in durable + 1..=journal.end() {
            if let Some(record) = journal.record_at(position) {
                self.watch.happened(&Event::OnDisk { at, position, record });
            }
        }
    }

    /// Puts the old copy of the disk into the participant, if there is one and the newest disk is in.
    pub(crate) fn fall_back(&mut self, place: usize, down_ms: u64) {
        let me = Node::Participant(place as u8);
        if self.participants[place].newest.is_some() || self.participants[place].copied.is_none() {
            return;
        }
        self.crash(me, down_ms, 1000);
        let node = &mut self.participants[place];
        let Some(copy) = node.copied.take() else { return };
        let newest = (
            std::mem::replace(&mut node.journal, copy.0),
            std::mem::replace(&mut node.bank, copy.1),
        );
        node.newest = Some(newest);
        node.address += 1;
        self.disk_replaced(place, true);
    }

    /// The copy was refused: somebody finds the newest disk.
    fn put_newest_back(&mut self, place: usize) {
        let node = &mut self.participants[place];
        let Some((journal, bank)) = node.newest.take() else {
            return;
        };
        node.journal = journal;
        node.bank = bank;
        self.disk_replaced(place, false);
    }

    fn disk_replaced(&mut self, place: usize, old: bool) {
        let (at, end) = (place as u8, self.participants[place].journal.end());
        let node = Node::Participant(at);
        let end = if old { end } else { 0 };
        self.watch.happened(&Event::DiskReplaced { node, end, old });
        // What is on this disk is known again.
        let journal = &self.participants[place].journal;
        for (Position(position), record) in journal.records() {
            self.watch.happened(&Event::OnDisk { at, position, record });
        }
        // The records of what was committed long ago may have been released.
        let prepared = |(_, record): (Position, &Record)| match record {
            Record::Prepared(id, _) => Some(*id),
            _ => None,
        };
        let promised: Vec<TransactionId> = journal.records().filter_map(prepared).collect();
        for transaction in self.participants[place].bank.books.applied.clone() {
            if !promised.contains(&transaction) {
                let known = (at, transaction);
                self.watch.history.committed.entry(known).or_insert(0);
            }
        }
    }

    pub(crate) fn start_participant(&mut self, place: usize) {
        let at = place as u8;
        let me = Node::Participant(at);
        let node = &mut self.participants[place];
        node.life += 1;
        node.presence = Presence::Recovering;
        let life = node.life;
        self.watch.happened(&Event::Started { node: me, life });
        if self.ends_here(me) {
            return;
        }
        self.read_journal(place);
        if self.participants[place].presence == Presence::Down {
            return;
        }
        let generation = self.participants[place].generation;
        let cluster = self.cluster.clone();
        self.write(place, Record::Started { cluster, generation }, true);
        if !self.ends_here(me) {
            self.sync(place);
        }
    }

    fn read_journal(&mut self, place: usize) {
        let me = Node::Participant(place as u8);
        let records: Vec<(Position, Record)> = {
            let journal = &self.participants[place].journal;
            journal
                .records()
                .map(|(at, record)| (at, record.clone()))
                .collect()
        };
        let mut reach = Reach::default();
        let mut generation = Generation::default();
        let mut promises: BTreeMap<TransactionId, Position> = BTreeMap::new();
        let mut closed = None;
        for (position, record) in &records {
            reach.take(*position, record);
            match record {
                Record::Started { generation: of, .. } => generation = *of,
                Record::Closed {
                    generation: of,
                    below,
                    ..
                } => {
                    generation = generation.max(*of);
                    closed = closed.max(Some(*below));
                }
                Record::Prepared(id, _) => {
                    promises.insert(*id, *position);
                }
                Record::Registered { .. } | Record::Committed { .. } | Record::Aborted { .. } => {}
            }
        }
        let branches = match recover(records.into_iter().map(|(_, record)| record)) {
            Ok(branches) => branches,
            Err(contradiction) => {
                let transaction = contradiction.transaction;
                let what = contradiction.to_string();
                return self.watch.happened(&Event::Alarm {
                    node: me,
                    transaction,
                    what,
                });
            }
        };
        let node = &mut self.participants[place];
        // Two lives that began from copies of the same disk differ in the random half.
        node.generation = generation.next(node.life);
        node.reach = reach.position().unwrap_or(Position(node.journal.end()));
        node.closed = closed;
        node.watermark = closed;
        let finished_below = |id: &TransactionId| closed.is_some_and(|closed| *id < closed);
        node.branches = branches
            .into_iter()
            .filter(|(id, branch)| branch.in_doubt().is_some() || !finished_below(id))
            .map(|(id, branch)| (id, Entry::new(branch, promises.get(&id).copied())))
            .collect();
        self.restore_promises(place);
    }

    /// Holds come back before any traffic (R3), and whoever is in doubt asks.
    fn restore_promises(&mut self, place: usize) {
        let me = Node::Participant(place as u8);
        for transaction in self.participants[place].in_doubt() {
            let node = &mut self.participants[place];
            let Some(promise) = node.branches[&transaction].branch.in_doubt() else {
                continue;
            };
            if !mutants::is_on(Mutant::M19) {
                node.bank.restore(transaction, &promise.redo);
                let at = place as u8;
                self.watch.happened(&Event::Restored { at, transaction });
            }
            self.doubt(place, transaction, self.now);
            if self.ends_here(me) {
                return;
            }
        }
    }

    /// A sync has ended: the start may be durable now, or the registration, or a watermark.
    pub(super) fn after_sync(&mut self, place: usize, upto: u64) {
        let at = place as u8;
        let node = &mut self.participants[place];
        if node.presence == Presence::Recovering {
            node.presence = Presence::Serving;
            let generation = node.generation;
            let without_hold = node
                .in_doubt()
                .into_iter()
                .find(|id| !node.bank.holds().contains_key(id));
            self.watch.happened(&Event::Serving {
                at,
                generation,
                without_hold,
            });
            self.ask_to_register(place);
        }
        let node = &mut self.participants[place];
        if node.confirmed_at.is_some_and(|position| position <= upto) {
            node.confirmed_at = None;
            node.is_registered = true;
            // The copy has become the disk.
            if node.newest.take().is_some() {
                self.watch.sometimes(Sometimes::OldCopyAccepted);
            }
            let missing = self.missing_promise(place);
            let generation = self.participants[place].generation;
            self.watch.happened(&Event::Registered {
                at,
                generation,
                missing,
            });
            if self.participants[place].watermark > self.participants[place].closed {
                self.forget_soon(place);
            }
        }
        self.forget_what_is_closed(place, upto);
    }

    /// A commit that rests on a promise of this participant of which its disk knows nothing.
    fn missing_promise(&self, place: usize) -> Option<TransactionId> {
        let at = place as u8;
        let node = &self.participants[place];
        let history = &self.watch.history;
        let on_disk = |id: &TransactionId| {
            node.bank.books.applied.contains(id)
                || node.closed.is_some_and(|closed| *id < closed)
                || node.branches.contains_key(id)
        };
        let lost = history.decided.iter().find(|(id, decided)| {
            let record = &decided.record;
            record.decision.is_commit()
                && history.said_yes.contains(&(at, **id, record.request_hash))
                && !on_disk(id)
                && !history.is_closed(**id)
        });
        lost.map(|(id, _)| *id)
    }

    pub(super) fn ask_to_register(&mut self, place: usize) {
        let count = self.coordinators.len() as u8;
        let node = &mut self.participants[place];
        if node.is_registered || node.confirmed_at.is_some() || node.presence != Presence::Serving {
            return;
        }
        let to = node.preferred % count;
        node.preferred = (to + 1) % count;
        let witness = Witness {
            generation: node.generation,
            position: node.reach,
        };
        let address = node.address;
        let me = Node::Participant(place as u8);
        self.send(me, Node::Coordinator(to), Message::Register { witness, address });
        self.wait(me, REGISTER_AGAIN_MS * MS, Timer::Register);
    }

    pub(super) fn heard_of_registration(
        &mut self,
        place: usize,
        generation: Generation,
        confirmed: Option<bool>,
    ) {
        let node = &mut self.participants[place];
        if node.presence != Presence::Serving
            || node.generation != generation
            || node.is_registered
            || node.confirmed_at.is_some()
        {
            return;
        }
        match confirmed {
            Some(true) => {
                let position = self.write(place, Record::Registered { generation }, true);
                self.participants[place].confirmed_at = Some(position);
                if !self.ends_here(Node::Participant(place as u8)) {
                    self.sync(place);
                }
            }
            Some(false) => self.refused_as_outdated(place),
            None => {}
        }
    }

    /// It runs from an old copy of its data, stops, and says what to do.
    fn refused_as_outdated(&mut self, place: usize) {
        let node = Node::Participant(place as u8);
        let why = "its data is an old copy";
        self.watch.sometimes(Sometimes::OldCopyRefused);
        self.watch.happened(&Event::Stopped { node, why });
        self.crash(node, 100, 1000);
        self.put_newest_back(place);
    }
}
