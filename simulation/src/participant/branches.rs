//! Gives each branch its inputs, one after the other.

use std::time::Duration;

use unanimo_core::mutants::{self, Mutant};
use unanimo_core::{
    Branch, BranchInput, BranchPhase, Finish, JoinRequest, PrepareRequest, Timestamp, TransactionId,
};

use super::{Asker, Entry, Participant, Presence};
use crate::counters::Sometimes;
use crate::event::Event;
use crate::message::{Message, Why};
use crate::node::Node;
use crate::world::{Timer, World};

/// How far ahead of its own clock a watermark or an id may lie.
const FAR_AHEAD: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// How long after its deadline a branch that only read is remembered.
const READ_ONLY_MARGIN: Duration = Duration::from_secs(10);

/// How whoever asks is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Vote,
    Commit,
    Abort,
    Join,
}

impl World {
    pub(super) fn heard_request(&mut self, place: usize, from: Node, life: u32, message: Message) {
        let node = &self.participants[place];
        let now = node.clock.wall(self.now);
        let asker = |call, request_hash| Asker {
            node: from,
            life,
            call,
            request_hash,
        };
        match message {
            Message::Prepare {
                transaction,
                members,
                request_hash,
                operation,
                remaining_ms,
                watermark,
            } => {
                self.raise_watermark(place, watermark);
                let request = PrepareRequest {
                    cluster: self.cluster.clone(),
                    members: (*members).clone(),
                    request_hash,
                    operation,
                    deadline: now.after(Duration::from_millis(remaining_ms)),
                };
                let input = BranchInput::Prepare(request);
                self.step_branch(
                    place,
                    transaction,
                    input,
                    Some((asker(0, request_hash), Asks::Vote)),
                );
            }
            Message::Deliver {
                transaction,
                request_hash,
                commit,
                watermark,
            } => {
                self.raise_watermark(place, watermark);
                let (input, asks) = if commit {
                    (BranchInput::Commit { request_hash }, Asks::Commit)
                } else {
                    (BranchInput::Abort, Asks::Abort)
                };
                let meant = self.participants[place].meant_by(transaction, commit);
                self.step_branch(place, meant, input, Some((asker(0, request_hash), asks)));
            }
            Message::Join {
                call,
                transaction,
                operation,
                remaining_ms,
            } => {
                let request = JoinRequest {
                    cluster: self.cluster.clone(),
                    operation,
                    deadline: now.after(Duration::from_millis(remaining_ms)),
                };
                let none = unanimo_core::RequestHash::NONE;
                let input = BranchInput::Join(request);
                self.step_branch(place, transaction, input, Some((asker(call, none), Asks::Join)));
            }
            other => unreachable!("no participant is sent {other:?}"),
        }
    }

    fn raise_watermark(&mut self, place: usize, told: Option<TransactionId>) {
        let now = self.now;
        let node = &mut self.participants[place];
        if told <= node.watermark {
            return;
        }
        let believed_until = node.clock.wall(now).after(FAR_AHEAD);
        if told.is_some_and(|told| told.timestamp() > believed_until) {
            return;
        }
        node.watermark = told;
        self.forget_soon(place);
    }

    /// Gives one input to a branch and carries out what follows.
    pub(super) fn step_branch(
        &mut self,
        place: usize,
        transaction: TransactionId,
        input: BranchInput,
        asker: Option<(Asker, Asks)>,
    ) {
        let refused = match asker {
            Some(_) if self.participants[place].presence != Presence::Serving => Err(Why::NoLeader),
            _ => self.admit(place, transaction, &input),
        };
        if let Err(refused) = refused {
            return self.refuse_or_acknowledge(place, transaction, asker, refused);
        }
        let now = self.participants[place].clock.wall(self.now);
        let node = &mut self.participants[place];
        let entry = node
            .branches
            .entry(transaction)
            .or_insert_with(|| Entry::new(Branch::unknown(transaction), None));
        let from = entry.branch.phase().clone();
        let is_prepare = matches!(input, BranchInput::Prepare(_));
        let deadline = voting_ends(&from, &input);
        let branch = std::mem::replace(&mut entry.branch, Branch::unknown(transaction));
        let (branch, effects) = branch.step(input, now);
        entry.branch = branch;
        let to = entry.branch.phase().clone();
        self.moved(place, transaction, &from, &to);
        if is_prepare {
            self.count_answer_to_prepare(&from);
        }
        self.watch_the_clock(place, transaction, now);
        let life = self.participants[place].life;
        self.carry_out_branch(place, transaction, effects, asker);
        if !self.lives(Node::Participant(place as u8), life) {
            return;
        }
        // Only now: whoever waits has been told, and what is remembered may be let go at once.
        if !has_only_read(&from) && has_only_read(&to) {
            self.remember_read_only(place, transaction, deadline.unwrap_or(now));
        }
        self.drop_if_unknown(place, transaction);
    }

    fn moved(&mut self, place: usize, transaction: TransactionId, from: &BranchPhase, to: &BranchPhase) {
        if std::mem::discriminant(from) == std::mem::discriminant(to) {
            return;
        }
        let at = place as u8;
        self.watch.happened(&Event::BranchMoved {
            at,
            transaction,
            from,
            to,
        });
        match (from.clone(), to.clone()) {
            (_, BranchPhase::Prepared(prepared)) => {
                self.doubt_arrives(place, transaction, prepared.prepared_at)
            }
            (BranchPhase::Prepared(_), _) => self.participants[place].doubts.resolved(transaction),
            _ => {}
        }
        if matches!(from, BranchPhase::Unknown) {
            let (count, limit) = (
                self.participants[place].in_flight(),
                self.knobs.branches_in_flight,
            );
            let node = Node::Participant(at);
            self.watch.happened(&Event::Load { node, count, limit });
        }
    }

    fn count_answer_to_prepare(&mut self, from: &BranchPhase) {
        if let BranchPhase::Finished(Finish::Aborted { .. }) | BranchPhase::Aborting { .. } = from {
            self.watch.sometimes(Sometimes::TombstoneRefusedAPrepare);
        }
    }

    /// Refuses what would grow without bound, what is closed, and what is too far ahead. What is known already is always
    /// let through.
    fn admit(&mut self, place: usize, transaction: TransactionId, input: &BranchInput) -> Result<(), Why> {
        let node = &self.participants[place];
        let known = node.branches.get(&transaction);
        if known.is_some_and(|entry| !matches!(entry.branch.phase(), BranchPhase::Unknown)) {
            return Ok(());
        }
        let begins = matches!(input, BranchInput::Prepare(_) | BranchInput::Join(_));
        if node.watermark.is_some_and(|watermark| transaction < watermark) {
            let forgotten = node.closed.is_some_and(|closed| transaction < closed);
            match input {
                BranchInput::Prepare(_) | BranchInput::Join(_) => {
                    self.watch.sometimes(Sometimes::ForgottenAndLateMessageExpired);
                    return Err(Why::Expired);
                }
                // Whatever it overtook is refused when it comes.
                BranchInput::Abort => return Err(Why::Mismatch),
                // What is unknown here was committed and forgotten.
                BranchInput::Commit { .. } if forgotten => {
                    self.watch
                        .sometimes(Sometimes::LateCommitOfTheForgottenAcknowledged);
                    return Err(Why::Mismatch);
                }
                _ => {}
            }
        }
        let node = &self.participants[place];
        if node.is_far_ahead(transaction, node.clock.wall(self.now)) {
            match input {
                BranchInput::Prepare(_) | BranchInput::Join(_) => return Err(Why::Premature),
                BranchInput::Abort => return Err(Why::Mismatch),
                _ => {}
            }
        }
        if !begins {
            return Ok(());
        }
        if !node.is_registered {
            return Err(Why::Unregistered);
        }
        if node.in_flight() >= self.knobs.branches_in_flight {
            self.watch.sometimes(Sometimes::OverloadedParticipantRefused);
            return Err(Why::Overloaded);
        }
        Ok(())
    }

    /// `Mismatch` stands for a decision about a branch of which nothing is left: there is nothing to do, and it is done.
    fn refuse_or_acknowledge(
        &mut self,
        place: usize,
        transaction: TransactionId,
        asker: Option<(Asker, Asks)>,
        why: Why,
    ) {
        let Some((asker, asks)) = asker else { return };
        match (asks, why) {
            (Asks::Commit | Asks::Abort, Why::Mismatch) => {
                self.acknowledge_to(place, transaction, asker, asks == Asks::Commit);
            }
            _ => self.refuse_to(place, transaction, asker, asks, why),
        }
    }

    pub(super) fn refuse_to(
        &mut self,
        place: usize,
        transaction: TransactionId,
        asker: Asker,
        asks: Asks,
        why: Why,
    ) {
        let message = match asks {
            Asks::Join => Message::Joined {
                call: asker.call,
                transaction,
                answer: None,
            },
            Asks::Vote | Asks::Commit | Asks::Abort => Message::Refused {
                transaction,
                request_hash: asker.request_hash,
                prepare: asks == Asks::Vote,
                why,
            },
        };
        self.reply(Node::Participant(place as u8), asker.node, asker.life, message);
    }

    /// What was joined is let go when its time is over.
    fn watch_the_clock(&mut self, place: usize, transaction: TransactionId, now: Timestamp) {
        let Some(entry) = self.participants[place].branches.get_mut(&transaction) else {
            return;
        };
        let deadline = match entry.branch.phase() {
            BranchPhase::Joining { request, .. } => request.deadline,
            BranchPhase::Joined { deadline, .. } => *deadline,
            _ => {
                entry.is_timed = false;
                return;
            }
        };
        if std::mem::replace(&mut entry.is_timed, true) {
            return;
        }
        let left = deadline.since(now).as_micros() as u64;
        self.wait(
            Node::Participant(place as u8),
            left,
            Timer::JoinExpires { transaction },
        );
    }

    pub(super) fn join_expires(&mut self, place: usize, transaction: TransactionId) {
        let entry = self.participants[place].branches.get(&transaction);
        let joined = entry.is_some_and(|entry| {
            let phase = entry.branch.phase();
            matches!(phase, BranchPhase::Joining { .. } | BranchPhase::Joined { .. })
        });
        if joined {
            self.watch.sometimes(Sometimes::JoinedWorkExpired);
            self.step_branch(place, transaction, BranchInput::DeadlinePassed, None);
        }
    }

    /// Keeps what only read in memory until its deadline has passed, and a little longer.
    fn remember_read_only(&mut self, place: usize, transaction: TransactionId, deadline: Timestamp) {
        let node = &mut self.participants[place];
        let now = node.clock.wall(self.now);
        node.read_only.push_back((deadline, transaction));
        let over = |(deadline, _): &(Timestamp, TransactionId)| deadline.after(READ_ONLY_MARGIN) < now;
        let forgotten: Vec<_> = node.read_only.iter().copied().filter(over).collect();
        node.read_only.retain(|one| !over(one));
        for (_, id) in forgotten {
            node.branches.remove(&id);
        }
    }

    fn drop_if_unknown(&mut self, place: usize, transaction: TransactionId) {
        let node = &mut self.participants[place];
        let entry = node.branches.get(&transaction);
        if entry.is_some_and(|entry| matches!(entry.branch.phase(), BranchPhase::Unknown)) {
            node.branches.remove(&transaction);
        }
    }
}

fn has_only_read(phase: &BranchPhase) -> bool {
    matches!(phase, BranchPhase::Finished(Finish::ReadOnly { .. }))
}

/// When the voting phase ends that this input begins, or that the branch is in.
fn voting_ends(phase: &BranchPhase, input: &BranchInput) -> Option<Timestamp> {
    match (input, phase) {
        (BranchInput::Prepare(request), _) | (_, BranchPhase::Preparing(request)) => Some(request.deadline),
        _ => None,
    }
}

impl Participant {
    fn is_far_ahead(&self, transaction: TransactionId, now: Timestamp) -> bool {
        let watermark = self.watermark.map(TransactionId::timestamp);
        let now = watermark.map_or(now, |watermark| now.max(watermark));
        transaction.timestamp() > now.after(FAR_AHEAD)
    }

    /// The branch that a Commit for this transaction is for.
    fn meant_by(&self, transaction: TransactionId, commit: bool) -> TransactionId {
        if !mutants::is_on(Mutant::M15) || !commit {
            return transaction;
        }
        let doubted = self.in_doubt();
        match doubted.first() {
            Some(oldest) if !doubted.contains(&transaction) => *oldest,
            _ => transaction,
        }
    }
}
