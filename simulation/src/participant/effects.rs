//! Carries out what a branch wants, in order. The participant may crash after each step.

use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::Witness;
use unanimo_core::{
    BranchEffect, BranchInput, BranchPhase, JoinAnswer, Position, Record, RequestHash, TransactionId, Vote,
};

use super::branches::Asks;
use super::{Asker, Effort, Presence};
use crate::counters::Sometimes;
use crate::event::{self, Event};
use crate::message::{Message, Why};
use crate::node::Node;
use crate::world::{Timer, World};

/// After so many notes one is forced to disk.
const NOTES_PER_SYNC: u64 = 16;

impl World {
    pub(super) fn carry_out_branch(
        &mut self,
        place: usize,
        id: TransactionId,
        effects: Vec<BranchEffect>,
        mut asker: Option<(Asker, Asks)>,
    ) {
        let node = Node::Participant(place as u8);
        for effect in effects {
            match effect {
                BranchEffect::Prepare(operation) => self.begin_effort(place, id, Effort::Prepare(operation)),
                BranchEffect::Extend { operation, .. } => {
                    self.begin_effort(place, id, Effort::Extend(operation));
                }
                BranchEffect::Commit { redo } => self.begin_effort(place, id, Effort::Commit(redo)),
                BranchEffect::Abort { .. } => self.begin_effort(place, id, Effort::Abort),
                BranchEffect::TellJoiner(answer) => {
                    let waiting = self.entry(place, id).and_then(|entry| entry.joiner.take());
                    if let Some(joiner) = waiting {
                        self.tell_joiner(place, id, joiner, answer);
                    }
                }
                BranchEffect::AnswerJoin(answer) => {
                    if let Some((joiner, Asks::Join)) = asker.take() {
                        self.tell_joiner(place, id, joiner, answer);
                    }
                }
                BranchEffect::Record(record) => self.record(place, id, record),
                BranchEffect::Note(record) => self.note(place, record),
                BranchEffect::Vote(vote) => {
                    if let Some((waiting, Asks::Vote)) = asker {
                        self.vote_to(place, id, waiting, &vote);
                        asker = None;
                    }
                    let waiting = self
                        .entry(place, id)
                        .map(|entry| std::mem::take(&mut entry.votes));
                    for one in waiting.unwrap_or_default() {
                        self.vote_to(place, id, one, &vote);
                    }
                }
                BranchEffect::Answer(vote) => {
                    if let Some((waiting, Asks::Vote)) = asker.take() {
                        if vote == Vote::Yes {
                            self.watch.sometimes(Sometimes::RepeatedPrepareAnsweredYes);
                        }
                        self.vote_to(place, id, waiting, &vote);
                    }
                }
                BranchEffect::Acknowledge => {
                    if let Some((waiting, asks @ (Asks::Commit | Asks::Abort))) = asker {
                        self.acknowledge_to(place, id, waiting, asks == Asks::Commit);
                        asker = None;
                    }
                    let waiting = self
                        .entry(place, id)
                        .map(|entry| std::mem::take(&mut entry.acknowledgements));
                    for (one, commit) in waiting.unwrap_or_default() {
                        self.acknowledge_to(place, id, one, commit);
                    }
                }
                BranchEffect::Inquire => self.question(place, id),
                BranchEffect::Refuse(violation) => {
                    let what = violation.to_string();
                    self.watch.happened(&Event::Alarm {
                        node,
                        transaction: id,
                        what,
                    });
                    if let Some((waiting, asks)) = asker.take() {
                        self.refuse_to(place, id, waiting, asks, Why::Violation);
                    }
                }
                BranchEffect::Ignored(_) => {}
            }
            if self.ends_here(node) {
                return;
            }
        }
        self.keep_asker(place, id, asker);
    }

    fn entry(&mut self, place: usize, id: TransactionId) -> Option<&mut super::Entry> {
        self.participants[place].branches.get_mut(&id)
    }

    /// Whoever has no answer yet waits for it.
    fn keep_asker(&mut self, place: usize, id: TransactionId, asker: Option<(Asker, Asks)>) {
        let Some((asker, asks)) = asker else { return };
        let Some(entry) = self.entry(place, id) else {
            return;
        };
        match asks {
            Asks::Vote => entry.votes.push(asker),
            Asks::Commit => entry.acknowledgements.push((asker, true)),
            Asks::Abort => entry.acknowledgements.push((asker, false)),
            Asks::Join => entry.joiner = Some(asker),
        }
    }

    fn tell_joiner(&mut self, place: usize, transaction: TransactionId, joiner: Asker, answer: JoinAnswer) {
        let answer = Some((self.participants[place].generation, answer));
        let message = Message::Joined {
            call: joiner.call,
            transaction,
            answer,
        };
        self.reply(Node::Participant(place as u8), joiner.node, joiner.life, message);
    }

    /// A vote, and of a Yes where its promise stands.
    fn vote_to(&mut self, place: usize, transaction: TransactionId, asker: Asker, vote: &Vote) {
        let node = &self.participants[place];
        let promised_at = node
            .branches
            .get(&transaction)
            .and_then(|entry| entry.promised_at);
        let witness = matches!(vote, Vote::Yes).then(|| Witness {
            generation: node.generation,
            position: promised_at.unwrap_or(node.reach),
        });
        let sound = self.is_promise_sound(place, (transaction, asker.request_hash), promised_at);
        self.watch.happened(&Event::Votes {
            at: place as u8,
            transaction,
            request_hash: asker.request_hash,
            vote,
            sound,
        });
        let message = Message::Voted {
            transaction,
            request_hash: asker.request_hash,
            vote: vote.clone(),
            witness,
        };
        self.reply(Node::Participant(place as u8), asker.node, asker.life, message);
    }

    /// Whether the promise is on disk and names the members that the coordinator asked, or has been kept already.
    fn is_promise_sound(
        &self,
        place: usize,
        (id, hash): (TransactionId, RequestHash),
        promised_at: Option<Position>,
    ) -> bool {
        let node = &self.participants[place];
        let Some(Position(position)) = promised_at else {
            return node.bank.books.applied.contains(&id);
        };
        match node.journal.record_at(position) {
            Some(Record::Prepared(of, prepared)) => {
                let asked = self.watch.history.members.get(&(id, hash));
                let names_them = asked.is_some_and(|asked| **asked == prepared.members);
                let same = *of == id && prepared.request_hash == hash;
                same && names_them && node.journal.is_on_disk(position)
            }
            // Its beginning was released, so its end is on disk.
            _ => node.bank.books.applied.contains(&id),
        }
    }

    pub(super) fn acknowledge_to(
        &mut self,
        place: usize,
        transaction: TransactionId,
        asker: Asker,
        commit: bool,
    ) {
        let node = &self.participants[place];
        // Only what is durably confirmed says how far this life reaches (R11). Until then the teller has to come again.
        if commit && !node.is_registered {
            return self.refuse_to(place, transaction, asker, Asks::Commit, Why::Unregistered);
        }
        let witness = commit.then(|| Witness {
            generation: node.generation,
            position: Position(node.journal.durable()),
        });
        if commit {
            let at = place as u8;
            let on_disk = self.watch.history.committed.contains_key(&(at, transaction));
            let promised = self
                .watch
                .history
                .said_yes
                .contains(&(at, transaction, asker.request_hash));
            self.watch.happened(&Event::AcknowledgesCommit {
                at,
                transaction,
                sound: on_disk || !promised,
            });
        }
        let message = Message::Acknowledged {
            transaction,
            request_hash: asker.request_hash,
            commit,
            witness,
        };
        self.reply(Node::Participant(place as u8), asker.node, asker.life, message);
    }

    /// Makes the record durable, and then gives the branch its next input.
    fn record(&mut self, place: usize, id: TransactionId, record: Record) {
        let promises = matches!(record, Record::Prepared(..));
        let early = mutants::is_on(Mutant::M1) && promises;
        let position = self.write(place, record, !early);
        if let Some(entry) = self.entry(place, id).filter(|_| promises) {
            entry.promised_at = Some(Position(position));
        }
        if early {
            return self.step_branch(place, id, BranchInput::Recorded, None);
        }
        self.participants[place].recording.insert(position, id);
        self.sync(place);
    }

    fn note(&mut self, place: usize, record: Record) {
        let node = &mut self.participants[place];
        node.notes += 1;
        let forced = node.notes >= NOTES_PER_SYNC;
        if forced {
            node.notes = 0;
        }
        self.write(place, record, forced);
        self.sync(place);
    }

    pub(super) fn write(&mut self, place: usize, record: Record, forced: bool) -> u64 {
        let node = &mut self.participants[place];
        let Position(position) = node.journal.append(record);
        if forced {
            node.forced_upto = position;
        }
        if let Some(record) = node.journal.record_at(position) {
            self.watch.happened(&Event::Written {
                at: place as u8,
                position,
                record,
                forced,
            });
        }
        position
    }

    /// Begins a forced write of everything that was written, unless one is under way or nobody waits for one.
    pub(super) fn sync(&mut self, place: usize) {
        let node = &mut self.participants[place];
        if node.syncing.is_some() || node.forced_upto <= node.journal.durable() {
            return;
        }
        let upto = node.journal.end();
        node.syncing = Some(upto);
        let range = (self.knobs.sync_min_us, self.knobs.sync_max_us);
        let duration = self.duration_at(place, "sync", upto, range);
        self.wait(Node::Participant(place as u8), duration, Timer::Synced { upto });
    }

    pub(super) fn synced(&mut self, place: usize, upto: u64) {
        let node = Node::Participant(place as u8);
        if let Some(down_ms) = self.participants[place].next_sync_fails.take() {
            if !mutants::is_on(Mutant::M2) {
                return self.stop_for_failed_disk(node, down_ms);
            }
            self.watch.happened(&Event::SyncFailed { node });
            self.participants[place].journal.lied();
        }
        self.participants[place].syncing = None;
        self.now_on_disk(place, upto);
        if self.ends_here(node) {
            return;
        }
        self.after_sync(place, upto);
        let node = &mut self.participants[place];
        let waiting = node.recording.split_off(&(upto + 1));
        let durable = std::mem::replace(&mut node.recording, waiting);
        let life = node.life;
        for id in durable.into_values() {
            self.step_branch(place, id, BranchInput::Recorded, None);
            if !self.lives(Node::Participant(place as u8), life) {
                return;
            }
        }
        self.sync(place);
    }

    /// Tells everybody who watches what has reached the disk.
    fn now_on_disk(&mut self, place: usize, upto: u64) {
        let at = place as u8;
        let from = self.participants[place].journal.durable() + 1;
        self.participants[place].journal.synced(upto);
        self.watch.happened(&Event::Synced { at, upto });
        let journal = &self.participants[place].journal;
        for position in from..=upto {
            if let Some(record) = journal.record_at(position)
                && journal.is_on_disk(position)
            {
                self.watch.happened(&Event::OnDisk { at, position, record });
            }
        }
    }

    fn begin_effort(&mut self, place: usize, id: TransactionId, effort: Effort) {
        let at = place as u8;
        let what = effort.what();
        self.watch.happened(&Event::WorkBegan {
            at,
            transaction: id,
            what,
        });
        let node = &mut self.participants[place];
        node.effort_count += 1;
        let work = node.effort_count;
        node.efforts.insert(work, (id, effort));
        let count = u64::from(node.life) << 32 ^ work;
        let range = (self.knobs.work_min_us, self.knobs.work_max_us);
        let duration = self.duration_at(place, "work", count, range);
        self.wait(Node::Participant(at), duration, Timer::WorkDone { work });
    }

    pub(super) fn work_done(&mut self, place: usize, work: u64) {
        let node = &mut self.participants[place];
        let Some((transaction, effort)) = node.efforts.remove(&work) else {
            return;
        };
        let (before, what) = (node.bank.books.balance, effort.what());
        let mut repeated = false;
        let (input, result) = match effort {
            Effort::Prepare(operation) | Effort::Extend(operation) => {
                let resolution = node.bank.prepare(transaction, &operation);
                let result = format!("{resolution:?}");
                (BranchInput::Resolved(resolution), result)
            }
            Effort::Commit(redo) => {
                repeated = !node.bank.commit(transaction, &redo);
                let result = if repeated { "was done before" } else { "done" };
                (BranchInput::Applied, result.to_owned())
            }
            Effort::Abort => {
                node.bank.abort(transaction);
                (BranchInput::Applied, "holds nothing".to_owned())
            }
        };
        let balance = node.bank.books.balance;
        if repeated {
            self.watch.sometimes(Sometimes::CommitRepeatedAfterItsEffect);
        }
        self.watch.happened(&Event::WorkDone {
            at: place as u8,
            transaction,
            what,
            result,
            repeated,
            changed: balance != before,
            balance,
        });
        if what == event::Effort::Commit
            && self.participants[place]
                .armed
                .is_some_and(|armed| armed.after == 1)
        {
            self.watch.sometimes(Sometimes::CrashedBetweenEffectAndRecord);
        }
        if self.ends_here(Node::Participant(place as u8)) {
            return;
        }
        self.step_branch(place, transaction, input, None);
    }

    /// Counts in what state a crash finds the branches.
    pub(super) fn count_what_a_crash_meets(&mut self, place: usize) {
        let node = &self.participants[place];
        let mut met = [false; 3];
        for entry in node.branches.values() {
            match entry.branch.phase() {
                BranchPhase::Prepared(_) => met[0] = true,
                BranchPhase::Promising(_) => met[1] = true,
                BranchPhase::Joined { .. } => met[2] = true,
                _ => {}
            }
        }
        let recovering = node.presence == Presence::Recovering;
        let counters = [
            (met[0], Sometimes::CrashedBetweenVoteAndDecision),
            (met[1], Sometimes::CrashedBeforeThePromiseWasOnDisk),
            (met[2], Sometimes::JoinedWorkLostInACrash),
            (recovering, Sometimes::CrashedInRecovery),
        ];
        for (met, counter) in counters {
            if met {
                self.watch.sometimes(counter);
            }
        }
    }
}

impl Effort {
    const fn what(&self) -> event::Effort {
        match self {
            Self::Prepare(_) => event::Effort::Prepare,
            Self::Extend(_) => event::Effort::Extend,
            Self::Commit(_) => event::Effort::Commit,
            Self::Abort => event::Effort::Abort,
        }
    }
}
