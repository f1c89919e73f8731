//! How entries come to all disks, and from there into the tables.

use std::rc::Rc;

use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::{Applied, Command, View as _};
use unanimo_core::{AbortReason, Decision, Members};

use super::{Barrier, Entry, Role, Snapshot, Waiter};
use crate::coordinator::Continuation;
use crate::counters::Sometimes;
use crate::event::Event;
use crate::message::Message;
use crate::node::Node;
use crate::schedule::MS;
use crate::world::{Timer, World};

/// Entries in one message.
const BATCH: usize = 64;

impl World {
    /// Appends to the leader's log and sends it on. What becomes of it the waiter hears. A node that does not lead
    /// proposes nothing.
    pub(crate) fn propose(&mut self, place: usize, command: Option<Command>, waiter: Waiter) {
        let replica = &mut self.coordinators[place].replica;
        let term = replica.term;
        let index = replica.last_index() + 1;
        let Role::Leader(leading) = &mut replica.role else {
            return;
        };
        let is_awaited = !matches!(waiter, Waiter::Nobody);
        if is_awaited {
            leading.waiting.insert(index, waiter);
        }
        replica.append(Rc::new(Entry {
            term,
            command,
            by: place as u8,
        }));
        self.sync_log(place);
        let node = Node::Coordinator(place as u8);
        if is_awaited {
            let patience = self.knobs.propose_timeout_ms * MS;
            self.wait(node, patience, Timer::ProposalDue { term, index });
        }
        if self.ends_here(node) {
            return;
        }
        for other in self.others(place) {
            self.send_entries(place, other);
        }
    }

    /// Nobody waits for this proposal any longer. It stays in the log, and may be applied yet.
    pub(crate) fn proposal_due(&mut self, place: usize, term: u64, index: u64) {
        let replica = &mut self.coordinators[place].replica;
        let Role::Leader(leading) = &mut replica.role else {
            return;
        };
        if replica.term != term {
            return;
        }
        if let Some(waiter) = leading.waiting.remove(&index) {
            leading.given_up.insert(index);
            self.watch.sometimes(Sometimes::ProposalTimedOut);
            self.waiter_hears(place, waiter, None);
        }
    }

    /// Begins to force the log to the disk, unless that is under way.
    fn sync_log(&mut self, place: usize) {
        let replica = &mut self.coordinators[place].replica;
        let upto = replica.last_index();
        if replica.syncing.is_some() || upto <= replica.durable {
            return;
        }
        replica.syncing = Some(upto);
        let node = Node::Coordinator(place as u8);
        let (least, most) = (self.knobs.sync_min_us, self.knobs.sync_max_us);
        let count = upto << 8 ^ place as u64;
        let duration = self.duration("log sync", count, least, most) * self.slowness(node);
        self.wait(node, duration, Timer::LogSynced { upto });
    }

    pub(crate) fn log_synced(&mut self, place: usize, _: u64) {
        let node = Node::Coordinator(place as u8);
        if let Some(down_ms) = self.coordinators[place].next_sync_fails.take() {
            return self.stop_for_failed_disk(node, down_ms);
        }
        let replica = &mut self.coordinators[place].replica;
        // It may have been cut back meanwhile.
        if let Some(upto) = replica.syncing.take() {
            replica.durable = replica.durable.max(upto);
        }
        if self.ends_here(node) {
            return;
        }
        self.sync_log(place);
        let replica = &mut self.coordinators[place].replica;
        match &mut replica.role {
            Role::Leader(leading) => {
                leading.matched[place] = replica.durable;
                self.count_matches(place);
            }
            Role::Follower | Role::Candidate { .. } => self.confirm_entries(place, 0),
        }
    }

    /// Tells the leader how far this disk has its log.
    fn confirm_entries(&mut self, place: usize, round: u64) {
        let replica = &self.coordinators[place].replica;
        let Some(leader) = replica.leader.filter(|leader| usize::from(*leader) != place) else {
            return;
        };
        let matched = if mutants::is_on(Mutant::M11) {
            replica.verified
        } else {
            replica.verified.min(replica.durable)
        };
        let message = Message::Appended {
            term: replica.term,
            round,
            matched: Ok(matched),
        };
        self.send(Node::Coordinator(place as u8), Node::Coordinator(leader), message);
    }

    fn send_entries(&mut self, place: usize, to: Node) {
        let Node::Coordinator(other) = to else { return };
        let other = usize::from(other);
        let replica = &mut self.coordinators[place].replica;
        let (term, commit, last) = (replica.term, replica.commit, replica.last_index());
        let Role::Leader(leading) = &mut replica.role else {
            return;
        };
        let (next, round) = (leading.next[other], leading.round);
        leading.next[other] = (last + 1).min(next + BATCH as u64);
        let message = match next.checked_sub(1).and_then(|previous| replica.term_at(previous)) {
            Some(previous_term) => Message::Append {
                term,
                previous_index: next - 1,
                previous_term,
                entries: replica.entries_from(next, BATCH),
                commit,
                round,
            },
            None => {
                let Snapshot {
                    index,
                    term: index_term,
                    table,
                } = replica.snapshot.clone();
                if let Role::Leader(leading) = &mut replica.role {
                    leading.next[other] = index + 1;
                }
                Message::Snapshot {
                    term,
                    index,
                    index_term,
                    table,
                    round,
                }
            }
        };
        self.send(Node::Coordinator(place as u8), to, message);
    }

    /// Says that this node leads, and sends again what was not confirmed.
    pub(crate) fn heartbeat(&mut self, place: usize, term: u64) {
        let replica = &mut self.coordinators[place].replica;
        if replica.term != term {
            return;
        }
        let Role::Leader(leading) = &mut replica.role else {
            return;
        };
        for (next, matched) in leading.next.iter_mut().zip(&leading.matched) {
            *next = (*next).min(matched + 1);
        }
        for other in self.others(place) {
            self.send_entries(place, other);
        }
        let wait = self.knobs.heartbeat_ms * MS;
        self.wait(Node::Coordinator(place as u8), wait, Timer::Heartbeat { term });
    }

    /// Goes on with `then` when it is sure that this node still led after now.
    pub(crate) fn barrier(&mut self, place: usize, then: Continuation) {
        let replica = &mut self.coordinators[place].replica;
        let commit = replica.commit;
        let Role::Leader(leading) = &mut replica.role else {
            return self.give_up(place, then);
        };
        leading.round += 1;
        let (round, index) = (leading.round, commit.max(leading.first));
        leading.barriers.push(Barrier { round, index, then });
        for other in self.others(place) {
            self.send_entries(place, other);
        }
    }

    fn pass_barriers(&mut self, place: usize) {
        loop {
            let count = self.coordinators.len();
            let replica = &mut self.coordinators[place].replica;
            let applied = replica.applied;
            let Role::Leader(leading) = &mut replica.role else {
                return;
            };
            let mut echoed = leading.echoed.clone();
            echoed[place] = leading.round;
            echoed.sort_unstable();
            let sure = echoed[(count - 1) / 2];
            let passed = |barrier: &Barrier| barrier.round <= sure && barrier.index <= applied;
            let Some(first) = leading.barriers.iter().position(passed) else {
                return;
            };
            let barrier = leading.barriers.remove(first);
            self.pass(place, barrier.then);
        }
    }

    /// Whether a majority has been heard lately.
    pub(crate) fn has_quorum(&self, place: usize) -> bool {
        let Role::Leader(leading) = &self.coordinators[place].replica.role else {
            return false;
        };
        let patience = 2 * self.knobs.election_ms * MS;
        let heard = |(other, at): (usize, &u64)| other == place || at + patience > self.now;
        let heard = leading
            .heard_at
            .iter()
            .enumerate()
            .filter(|one| heard(*one))
            .count();
        heard > self.coordinators.len() / 2
    }

    pub(crate) fn append_heard(
        &mut self,
        place: usize,
        from: Node,
        (term, round, commit): (u64, u64, u64),
        (previous_index, previous_term): (u64, u64),
        entries: &[Rc<Entry>],
    ) {
        if !self.follow(place, from, term, round) {
            return;
        }
        let replica = &mut self.coordinators[place].replica;
        let known = replica.term_at(previous_index);
        let before_snapshot = previous_index < replica.snapshot.index;
        if !before_snapshot && known != Some(previous_term) {
            // What is committed here is the same everywhere.
            let hint = (replica.commit + 1).min(previous_index);
            let message = Message::Appended {
                term,
                round,
                matched: Err(hint),
            };
            return self.send(Node::Coordinator(place as u8), from, message);
        }
        let mut dropped = None;
        for (index, entry) in (previous_index + 1..).zip(entries) {
            if index <= replica.snapshot.index || replica.term_at(index) == Some(entry.term) {
                continue;
            }
            if index <= replica.last_index() {
                let committed = index <= replica.commit;
                dropped = Some((replica.truncate_after(index - 1), committed));
                if committed {
                    break;
                }
            }
            replica.append(Rc::clone(entry));
        }
        replica.verified = replica.verified.max(previous_index + entries.len() as u64);
        replica.verified = replica.verified.min(replica.last_index());
        replica.commit = replica.commit.max(commit.min(replica.verified));
        if let Some((entries, committed)) = dropped {
            let node = Node::Coordinator(place as u8);
            self.watch.sometimes(Sometimes::ProposalLostWithItsLeader);
            self.watch.happened(&Event::Truncated {
                node,
                entries,
                committed,
            });
            if committed {
                return;
            }
        }
        self.sync_log(place);
        self.schedule_apply(place);
        if !self.ends_here(Node::Coordinator(place as u8)) {
            self.confirm_entries(place, round);
        }
    }

    /// Follows whoever leads this term; false if it is an old one.
    fn follow(&mut self, place: usize, from: Node, term: u64, round: u64) -> bool {
        self.adopt_term(place, term);
        let Node::Coordinator(leader) = from else {
            return false;
        };
        let replica = &mut self.coordinators[place].replica;
        if term < replica.term {
            let message = Message::Appended {
                term: replica.term,
                round,
                matched: Err(1),
            };
            self.send(Node::Coordinator(place as u8), from, message);
            return false;
        }
        if matches!(replica.role, Role::Leader(_)) {
            return false;
        }
        replica.role = Role::Follower;
        replica.leader = Some(leader);
        self.hear_of_leader(place);
        true
    }

    pub(crate) fn snapshot_heard(
        &mut self,
        place: usize,
        from: Node,
        (term, round): (u64, u64),
        snapshot: Snapshot,
    ) {
        if !self.follow(place, from, term, round) {
            return;
        }
        let index = snapshot.index;
        let replica = &mut self.coordinators[place].replica;
        if index > replica.snapshot.index && index > replica.commit {
            replica.install(snapshot);
            let node = Node::Coordinator(place as u8);
            self.watch.sometimes(Sometimes::SnapshotInstalled);
            self.watch.happened(&Event::Installed { node, index });
        } else {
            replica.verified = replica.verified.max(index.min(replica.commit));
        }
        self.confirm_entries(place, round);
    }

    pub(crate) fn appended_heard(
        &mut self,
        place: usize,
        from: Node,
        term: u64,
        round: u64,
        matched: Result<u64, u64>,
    ) {
        self.adopt_term(place, term);
        let Node::Coordinator(other) = from else { return };
        let (other, now) = (usize::from(other), self.now);
        let replica = &mut self.coordinators[place].replica;
        let last = replica.last_index();
        if term != replica.term {
            return;
        }
        let Role::Leader(leading) = &mut replica.role else {
            return;
        };
        leading.heard_at[other] = now;
        leading.echoed[other] = leading.echoed[other].max(round);
        match matched {
            Ok(index) => {
                leading.matched[other] = leading.matched[other].max(index.min(last));
                leading.next[other] = leading.next[other].max(leading.matched[other] + 1);
            }
            Err(next) => {
                leading.next[other] = next.clamp(leading.matched[other] + 1, last + 1);
                self.send_entries(place, from);
            }
        }
        self.count_matches(place);
        self.pass_barriers(place);
    }

    /// What a majority has on disk in this term is committed, and everything before it.
    fn count_matches(&mut self, place: usize) {
        let count = self.coordinators.len();
        let replica = &mut self.coordinators[place].replica;
        let Role::Leader(leading) = &replica.role else {
            return;
        };
        let mut matched = leading.matched.clone();
        matched.sort_unstable();
        let index = matched[(count - 1) / 2];
        if index > replica.commit && replica.term_at(index) == Some(replica.term) {
            replica.commit = index;
            self.schedule_apply(place);
        }
    }

    fn schedule_apply(&mut self, place: usize) {
        let replica = &mut self.coordinators[place].replica;
        if replica.apply_scheduled || replica.applied >= replica.commit {
            return;
        }
        replica.apply_scheduled = true;
        let node = Node::Coordinator(place as u8);
        let count = replica.commit << 8 ^ place as u64;
        let lag = self.duration("lag", count, 0, self.knobs.apply_lag_us) * self.slowness(node);
        self.wait(node, lag, Timer::Apply);
    }

    /// Applies what is committed.
    pub(crate) fn apply_committed(&mut self, place: usize) {
        let life = self.coordinators[place].life;
        let node = Node::Coordinator(place as u8);
        self.coordinators[place].replica.apply_scheduled = false;
        while self.lives(node, life) && self.watch.broken.is_none() {
            let replica = &self.coordinators[place].replica;
            if replica.applied >= replica.commit {
                break;
            }
            self.apply_next(place);
            self.ends_here(node);
        }
        if self.lives(node, life) {
            let replica = &mut self.coordinators[place].replica;
            if replica.applied >= replica.snapshot.index + self.knobs.snapshot_every {
                replica.take_snapshot();
            }
            self.pass_barriers(place);
        }
    }

    fn apply_next(&mut self, place: usize) {
        let node = Node::Coordinator(place as u8);
        let replica = &mut self.coordinators[place].replica;
        let index = replica.applied + 1;
        let Some(entry) = replica.entry(index).cloned() else {
            replica.applied = replica.commit;
            return;
        };
        replica.applied = index;
        let first = self
            .watch
            .history
            .committed_entries
            .last_key_value()
            .is_none_or(|(_, (known, _))| index > *known);
        let safe = !first || self.is_on_quorum(index, &entry);
        let command = self.judged(place, &entry);
        let replica = &mut self.coordinators[place].replica;
        let touched = match command.as_ref().or(entry.command.as_ref()) {
            Some(Command::Decide(proposal)) => vec![proposal.transaction],
            Some(Command::Acknowledge { transaction, .. }) if first => vec![*transaction],
            Some(Command::Forget { transactions }) if first => transactions.clone(),
            _ => Vec::new(),
        };
        let record = |id| {
            let Ok(record) = replica.table.record(id);
            record.map(|record| (id, record))
        };
        let before: Vec<_> = touched.into_iter().filter_map(record).collect();
        let applied = command
            .as_ref()
            .or(entry.command.as_ref())
            .map(|command| replica.table.apply(command));
        self.watch.happened(&Event::Applied {
            node,
            index,
            entry: &entry,
            first,
            safe,
            applied: applied.as_ref(),
            before: before.first().map(|(_, record)| record),
        });
        if first {
            let commits = &mut self.watch.history.committed_entries;
            // Whoever applies it has heard of the term in which it was committed, and perhaps of later ones.
            let term = self.coordinators[place].replica.term;
            let last = commits.last_key_value().map_or(0, |(last, _)| *last);
            commits.insert(term.max(last), (index, entry.term));
            self.count_applied(&entry, applied.as_ref(), before.first().map(|(_, record)| record));
            for (transaction, record) in &before {
                if !self.coordinators[place]
                    .replica
                    .table
                    .records()
                    .contains_key(transaction)
                {
                    self.count_forgotten(record);
                    self.watch.happened(&Event::Forgotten {
                        transaction: *transaction,
                        record,
                    });
                }
            }
        }
        let replica = &mut self.coordinators[place].replica;
        if let Role::Leader(leading) = &mut replica.role {
            if leading.given_up.remove(&index) {
                self.watch.sometimes(Sometimes::TimedOutProposalApplied);
            }
            if let Some(waiter) = leading.waiting.remove(&index) {
                self.waiter_hears(place, waiter, applied);
            }
        }
    }

    /// What is applied depends on what is proposed and nothing else: the command as it is, that is none but its own.
    fn judged(&self, place: usize, entry: &Entry) -> Option<Command> {
        if !mutants::is_on(Mutant::M24) {
            return None;
        }
        let node = &self.coordinators[place];
        let mut command = entry.command.clone()?;
        if let Command::Decide(proposal) = &mut command {
            let late = node.clock.wall(self.now).since(proposal.decided_at);
            if late > std::time::Duration::from_millis(500) {
                let missing = Members::new();
                proposal.decision = Decision::Abort(AbortReason::DeadlinePassed { missing });
            }
        }
        Some(command)
    }

    fn is_on_quorum(&self, index: u64, entry: &Rc<Entry>) -> bool {
        let has = |node: &&crate::coordinator::Coordinator| node.replica.has_on_disk(index, entry);
        self.coordinators.iter().filter(has).count() > self.coordinators.len() / 2
    }

    fn count_forgotten(&mut self, record: &unanimo_core::table::DecisionRecord) {
        self.watch.sometimes(if record.decision.is_commit() {
            Sometimes::CommitForgotten
        } else {
            Sometimes::AbortForgotten
        });
    }

    fn count_applied(
        &mut self,
        entry: &Entry,
        applied: Option<&Applied>,
        before: Option<&unanimo_core::table::DecisionRecord>,
    ) {
        match (&entry.command, applied) {
            (Some(Command::Decide(proposal)), Some(Applied::Decided(record))) => match before {
                None => {
                    self.watch.sometimes(if record.decision.is_commit() {
                        Sometimes::Committed
                    } else {
                        Sometimes::Aborted
                    });
                    if record.request_hash == unanimo_core::RequestHash::NONE {
                        self.watch.sometimes(Sometimes::AbortAskedAndRecordedForNobody);
                    }
                    if record.decision.is_commit() && record.unacknowledged.is_empty() {
                        self.watch.sometimes(Sometimes::OnlyRead);
                    }
                }
                Some(_) => {
                    // Both are of one leader: the next one begins when it has applied what the last one decided.
                    self.watch.sometimes(Sometimes::SecondDecisionFoundTheFirst);
                    if proposal.decision.is_commit() && !record.decision.is_commit() {
                        self.watch.sometimes(Sometimes::CommitLostItsRace);
                    }
                }
            },
            (Some(Command::Decide(_)), Some(Applied::Superseded { .. })) => {
                self.watch.sometimes(Sometimes::VotesSuperseded);
            }
            (Some(Command::Release { .. }), _) => self.watch.sometimes(Sometimes::KeyReleased),
            _ => {}
        }
    }
}
