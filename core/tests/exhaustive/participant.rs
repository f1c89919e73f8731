//! A participant: what the library does around [`Branch`], its disk, and its resource manager.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use unanimo_core::mutants::{self, Mutant};
use unanimo_core::table::{Command, Registration, Witness};
use unanimo_core::{
    AbortReason, Branch, BranchEffect, BranchInput, BranchPhase, Decision, Finish, Generation, Position,
    PrepareRequest, Reach, Record, Resolution, TransactionId, Vote, recover,
};

use super::Protocol;
use super::message::{Envelope, Message, Told, Voted};
use super::names::{DEADLINE, HORIZON, NOW};
use super::rule::{Met, Rule};
use super::state::State;

/// What the resource manager is working on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Work {
    Prepare(u8),
    Commit(u8),
    Abort,
}

/// How a piece of work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// The operation is answered so.
    Answered(Voted),
    /// The resource manager could commit, and the deadline has passed meanwhile.
    Tardy,
    /// The decision is carried out.
    Applied,
}

/// What the resource manager has done for a transaction, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Done {
    pub(crate) request: u8,
    pub(crate) times: u8,
}

/// Effects that wait for a record to be durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Gated {
    transaction: u8,
    then: Vec<BranchEffect>,
}

/// One participant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    /// The journal: what is durable.
    pub(crate) disk: Vec<Record>,
    /// Done by the resource manager, durably.
    pub(crate) done: BTreeMap<u8, Done>,
    /// The cluster has refused it: it came back knowing less than before (R11).
    pub(crate) refused: bool,

    /// Written and not synced.
    pub(crate) tail: Vec<Record>,
    gated: Vec<Gated>,
    pub(crate) branches: BTreeMap<u8, Branch>,
    /// Whose Prepare has no answer yet, and the request that it was for.
    askers: BTreeMap<u8, BTreeSet<(u8, u8)>>,
    /// Whose decision is not acknowledged yet.
    tellers: BTreeMap<u8, BTreeSet<u8>>,
    /// Who holds what everybody wants.
    pub(crate) holds: BTreeSet<u8>,
    pub(crate) work: BTreeSet<(u8, Work)>,
    /// It has heard that everything of the scope is closed.
    pub(crate) heard_horizon: bool,
    pub(crate) generation: Generation,
    came_up_with: Position,

    /// For the rules: aborts that this life knows of.
    buried: BTreeSet<u8>,
    /// For the rules: commits that this life has asked of the resource manager.
    asked_to_commit: BTreeSet<u8>,
    /// For the rules: what this life has voted.
    votes: BTreeMap<u8, Voted>,
    /// For the rules: its disk was replaced by an old copy, and what it says need not fit what it said.
    pub(crate) fell_back: bool,
}

impl Member {
    /// A participant that runs for the first time; the cluster has confirmed that if lives are told apart.
    pub(crate) fn new(model: &Protocol) -> Self {
        let generation = Generation::of_start(1, 0);
        let started = Record::Started {
            cluster: model.names.cluster(),
            generation,
        };
        let disk = match model.scope.lives {
            true => vec![started, Record::Registered { generation }],
            false => Vec::new(),
        };
        Self {
            disk,
            generation,
            ..Self::default()
        }
    }

    pub(crate) fn in_doubt(&self, transaction: u8) -> bool {
        let branch = self.branches.get(&transaction);
        branch.is_some_and(|branch| branch.in_doubt().is_some())
    }

    /// Whether it is durable here that everything of the scope is closed.
    pub(crate) fn has_closed(&self) -> bool {
        let closed = |record: &Record| matches!(record, Record::Closed { .. });
        self.disk.iter().any(closed)
    }

    /// Whether the disk holds the promise, or the commit, of this request.
    pub(crate) fn remembers(&self, model: &Protocol, request: u8) -> bool {
        let id = model.names.id(model.names.transaction_of(request));
        let hash = model.names.hash(Some(request));
        self.disk.iter().any(|record| match record {
            Record::Prepared(of, prepared) => *of == id && prepared.request_hash == hash,
            Record::Committed {
                transaction,
                request_hash,
            } => *transaction == id && *request_hash == hash,
            _ => false,
        })
    }

    fn has_committed(&self, id: TransactionId) -> bool {
        self.disk
            .iter()
            .any(|record| matches!(record, Record::Committed { transaction, .. } if *transaction == id))
    }

    /// Nothing is under way inside.
    pub(crate) fn is_quiet(&self) -> bool {
        self.tail.is_empty() && self.work.is_empty()
    }
}

impl State {
    /// A message arrives at a member.
    pub(crate) fn hear_as_member(&mut self, model: &Protocol, envelope: Envelope) {
        let Envelope {
            node,
            member,
            transaction,
            message,
        } = envelope;
        let input = match message {
            Message::Prepare {
                request,
                members,
                with_operation,
            } => {
                let asked = model.names.request(request);
                let operation = asked.branches().get(model.names.participant(member));
                let prepare = PrepareRequest {
                    cluster: model.names.cluster(),
                    members: model.names.members(members),
                    request_hash: asked.hash(),
                    operation: operation.filter(|_| with_operation).cloned(),
                    deadline: DEADLINE,
                };
                self.count_prepare(model, member, transaction);
                let askers = self.member_mut(member).askers.entry(transaction).or_default();
                askers.insert((node, request));
                BranchInput::Prepare(prepare)
            }
            Message::Commit { request } => {
                self.teller(member, transaction, node);
                let request_hash = model.names.hash(Some(request));
                BranchInput::Commit { request_hash }
            }
            Message::Abort { .. } => {
                self.teller(member, transaction, node);
                BranchInput::Abort
            }
            Message::Answered { request, told } => BranchInput::Answered {
                request_hash: model.names.hash(Some(request)),
                decision: match told {
                    Told::Committed => Decision::Commit,
                    Told::Aborted => Decision::Abort(AbortReason::Presumed),
                },
            },
            Message::Inquire { .. }
            | Message::Voted { .. }
            | Message::Expired
            | Message::Acknowledged { .. } => unreachable!("these go to nodes"),
        };
        if self.is_turned_away(model, (node, member, transaction), &input) {
            return;
        }
        let aborts = |input: &BranchInput| match input {
            BranchInput::Abort => true,
            BranchInput::Answered { decision, .. } => {
                !decision.is_commit() && self.member(member).in_doubt(transaction)
            }
            _ => false,
        };
        if aborts(&input) {
            self.member_mut(member).buried.insert(transaction);
        }
        self.step_branch(model, member, transaction, input, Some(node));
    }

    fn teller(&mut self, member: u8, transaction: u8, node: u8) {
        let tellers = self.member_mut(member).tellers.entry(transaction).or_default();
        tellers.insert(node);
    }

    fn count_prepare(&self, model: &Protocol, member: u8, transaction: u8) {
        let branch = self.member(member).branches.get(&transaction);
        match branch.map(Branch::phase) {
            Some(BranchPhase::Prepared(_)) => model.tally.met(Met::PrepareInDoubt),
            Some(BranchPhase::Finished(Finish::Aborted { .. })) => model.tally.met(Met::PrepareMetTombstone),
            _ => {}
        }
    }

    /// Nothing begins under an id that is closed, and what is unknown there has been forgotten (R7).
    fn is_turned_away(
        &mut self,
        model: &Protocol,
        (node, member, transaction): (u8, u8, u8),
        input: &BranchInput,
    ) -> bool {
        let known = self.member(member).branches.contains_key(&transaction);
        if known || !self.member(member).heard_horizon {
            return false;
        }
        let message = match input {
            BranchInput::Prepare(_) => {
                model.tally.met(Met::ExpiredToLeader);
                Message::Expired
            }
            BranchInput::Abort => Message::Acknowledged { witness: None },
            BranchInput::Commit { .. } if self.member(member).has_closed() => {
                model.tally.met(Met::UnknownAcknowledged);
                Message::Acknowledged { witness: None }
            }
            _ => return false,
        };
        self.member_mut(member).askers.remove(&transaction);
        self.member_mut(member).tellers.remove(&transaction);
        self.send(Envelope {
            node,
            member,
            transaction,
            message,
        });
        true
    }

    /// The branch has been in doubt for a while, and asks this node.
    pub(crate) fn ask(&mut self, model: &Protocol, member: u8, transaction: u8, node: u8) {
        self.step_branch(model, member, transaction, BranchInput::TimerFired, Some(node));
    }

    /// The resource manager finishes a piece of work.
    pub(crate) fn finish(&mut self, model: &Protocol, member: u8, (transaction, work): (u8, Work), end: End) {
        let changed = self.member_mut(member);
        changed.work.remove(&(transaction, work));
        let input = match (work, end) {
            (Work::Prepare(request), End::Answered(Voted::Yes) | End::Tardy) => {
                changed.holds.insert(transaction);
                let redo = Bytes::from(vec![request]);
                BranchInput::Resolved(Resolution::Yes { redo })
            }
            (Work::Prepare(_), End::Answered(Voted::ReadOnly)) => BranchInput::Resolved(Resolution::ReadOnly),
            (Work::Prepare(_), End::Answered(Voted::No)) => {
                changed.buried.insert(transaction);
                let reason = String::new();
                BranchInput::Resolved(Resolution::No { reason })
            }
            (Work::Commit(request), End::Applied) => {
                self.commit(model, member, transaction, request);
                BranchInput::Applied
            }
            (Work::Abort, End::Applied) => {
                changed.holds.remove(&transaction);
                BranchInput::Applied
            }
            (Work::Prepare(_) | Work::Commit(_) | Work::Abort, _) => {
                unreachable!("{work:?} does not end with {end:?}")
            }
        };
        let now = if end == End::Tardy { DEADLINE } else { NOW };
        self.step_branch_at(model, member, transaction, input, None, now);
    }

    /// The effect, once.
    fn commit(&mut self, model: &Protocol, member: u8, transaction: u8, request: u8) {
        let changed = self.member_mut(member);
        changed.holds.remove(&transaction);
        let done = changed
            .done
            .entry(transaction)
            .or_insert(Done { request, times: 0 });
        if done.times > 0 && !mutants::is_on(Mutant::M17) {
            return model.tally.met(Met::CommitRepeatedByResource);
        }
        done.times += 1;
        if done.times > 1 {
            self.breaks(Rule::Once, "the effect happened twice");
        }
        match self.facts.decided.get(&transaction).copied() {
            Some(outcome) if outcome.commits(request) => {
                if model.members_of(request) & (1 << member) == 0 {
                    self.breaks(Rule::Atomicity, "the effect happens at a stranger");
                }
            }
            Some(_) => self.breaks(Rule::Atomicity, "the effect of what is not committed happens"),
            None => self.breaks(Rule::Atomicity, "the effect of what is not decided happens"),
        }
    }

    /// What was written becomes durable, and what waited for it goes on.
    pub(crate) fn sync(&mut self, model: &Protocol, member: u8) {
        let changed = self.member_mut(member);
        let written = std::mem::take(&mut changed.tail);
        changed.disk.extend(written);
        for gated in std::mem::take(&mut changed.gated) {
            self.carry_out_branch(model, member, gated.transaction, gated.then, None);
            self.step_branch(model, member, gated.transaction, BranchInput::Recorded, None);
        }
    }

    /// Power loss, and the next start: the disk has what was synced and the first `keep` records of the rest.
    pub(crate) fn crash(&mut self, model: &Protocol, member: u8, keep: usize) {
        let crashed = self.member_mut(member);
        if crashed
            .branches
            .values()
            .any(|branch| branch.in_doubt().is_some())
        {
            model.tally.met(Met::CrashInDoubt);
        }
        let lost = crashed.tail.split_off(keep);
        for record in &lost {
            match record {
                Record::Prepared(..) => model.tally.met(Met::CrashLostPromise),
                Record::Aborted { .. } => model.tally.met(Met::CrashLostTombstone),
                _ => {}
            }
        }
        let kept = std::mem::take(&mut crashed.tail);
        crashed.disk.extend(kept);
        self.restart(model, member);
    }

    /// Somebody puts an old copy of the disk, and of what the resource manager keeps, in place of both.
    pub(crate) fn fall_back(&mut self, model: &Protocol, member: u8, records: usize) {
        let crashed = self.member_mut(member);
        crashed.disk.truncate(records);
        let disk = crashed.disk.clone();
        let committed = |transaction: &u8| {
            let id = model.names.id(*transaction);
            let is = |record: &Record| matches!(record, Record::Committed { transaction, .. } if *transaction == id);
            disk.iter().any(is)
        };
        crashed.done.retain(|transaction, _| committed(transaction));
        crashed.fell_back = true;
        self.restart(model, member);
    }

    /// Recovery: branches from records, and their holds before any traffic.
    fn restart(&mut self, model: &Protocol, member: u8) {
        let before = self.member(member).clone();
        let Ok(branches) = recover(before.disk.iter().cloned()) else {
            return self.breaks(Rule::NoAlarm, "its own records contradict each other");
        };
        let mut after = Member {
            generation: before.generation,
            heard_horizon: before.has_closed(),
            disk: before.disk,
            done: before.done,
            fell_back: before.fell_back,
            ..Member::default()
        };
        for (id, branch) in branches {
            let transaction = model.names.transaction(id).expect("all transactions are known");
            if branch.in_doubt().is_some() && !mutants::is_on(Mutant::M19) {
                after.holds.insert(transaction);
            }
            if matches!(branch.phase(), BranchPhase::Finished(Finish::Aborted { .. })) {
                after.buried.insert(transaction);
            }
            after.branches.insert(transaction, branch);
        }
        if model.scope.lives {
            after.begin_life(model, before.generation);
        }
        *self.member_mut(member) = after;
    }

    /// It says that it is back, and how far its memory reaches.
    pub(crate) fn register(&mut self, model: &Protocol, member: u8, node: u8) {
        let from = self.member(member);
        let witness = Witness {
            generation: from.generation,
            position: from.came_up_with,
        };
        let registration = Registration {
            address: String::new(),
            witness,
        };
        let participant = model.names.participant(member).clone();
        self.propose(
            node,
            Command::Register {
                participant,
                registration,
            },
        );
    }

    /// The cluster has answered a registration, perhaps one of an earlier life.
    pub(crate) fn registered(
        &mut self,
        model: &Protocol,
        member: u8,
        generation: Generation,
        confirmed: bool,
    ) {
        if self.member(member).generation != generation {
            return;
        }
        let changed = self.member_mut(member);
        let record = Record::Registered { generation };
        if !confirmed {
            model.tally.met(Met::OldCopyRefused);
            changed.refused = true;
        } else if !changed.disk.contains(&record) && !changed.tail.contains(&record) {
            changed.tail.push(record);
        }
    }

    /// It hears with some message that everything of the scope is closed, and notes it.
    pub(crate) fn hear_horizon(&mut self, model: &Protocol, member: u8) {
        let record = Record::Closed {
            cluster: model.names.cluster(),
            generation: self.member(member).generation,
            below: TransactionId::first_at(HORIZON),
        };
        let changed = self.member_mut(member);
        changed.heard_horizon = true;
        changed.tail.push(record);
    }

    /// It drops what is closed and over, from its memory and from its disk. A promise stays.
    pub(crate) fn forget(&mut self, model: &Protocol, member: u8) {
        let changed = self.member_mut(member);
        let over = |branch: &Branch| matches!(branch.phase(), BranchPhase::Finished(_));
        let forgotten: Vec<u8> = changed
            .branches
            .iter()
            .filter(|(_, branch)| over(branch))
            .map(|(transaction, _)| *transaction)
            .collect();
        for transaction in forgotten {
            let id = model.names.id(transaction);
            changed.branches.remove(&transaction);
            changed.disk.retain(|record| match record {
                Record::Prepared(of, _) => *of != id,
                Record::Committed { transaction, .. } | Record::Aborted { transaction, .. } => {
                    *transaction != id
                }
                Record::Started { .. } | Record::Registered { .. } | Record::Closed { .. } => true,
            });
        }
    }

    fn step_branch(
        &mut self,
        model: &Protocol,
        member: u8,
        transaction: u8,
        input: BranchInput,
        node: Option<u8>,
    ) {
        self.step_branch_at(model, member, transaction, input, node, NOW);
    }

    fn step_branch_at(
        &mut self,
        model: &Protocol,
        member: u8,
        transaction: u8,
        input: BranchInput,
        node: Option<u8>,
        now: unanimo_core::Timestamp,
    ) {
        let id = model.names.id(transaction);
        let known = self.member(member).branches.get(&transaction).cloned();
        let before = known.unwrap_or_else(|| Branch::unknown(id));
        let was_abort = input == BranchInput::Abort;
        let (after, effects) = before.clone().step(input, now);
        count_move(model, before.phase(), after.phase(), was_abort);
        self.check_move(model, member, transaction, before.phase(), after.phase());
        if *after.phase() != BranchPhase::Unknown {
            self.member_mut(member).branches.insert(transaction, after);
        }
        self.carry_out_branch(model, member, transaction, effects, node);
    }

    /// Only the decision releases a promise (R3), and nobody who promised aborts what is committed.
    fn check_move(
        &mut self,
        model: &Protocol,
        member: u8,
        transaction: u8,
        from: &BranchPhase,
        to: &BranchPhase,
    ) {
        if from == to {
            return;
        }
        if let BranchPhase::Prepared(prepared) = from {
            let request = model.names.number_of_request(prepared.request_hash);
            let request = request.expect("whatever was promised was asked for");
            match (to, self.commits(model, transaction, request)) {
                (BranchPhase::Committing(_), Some(true)) | (BranchPhase::Aborting { .. }, Some(false)) => {}
                _ => self.breaks(Rule::Promise, "a promise ends without its decision"),
            }
        }
        let aborts = matches!(
            to,
            BranchPhase::Cancelling
                | BranchPhase::Aborting { .. }
                | BranchPhase::Finished(Finish::Aborted { .. })
        );
        let committed = self.facts.decided.get(&transaction).copied();
        let committed = committed.filter(|outcome| outcome.commit);
        if let Some(request) = committed.and_then(|outcome| outcome.request)
            && aborts
            && !self.member(member).fell_back
            && self.has_said(member, request, Voted::Yes)
        {
            self.breaks(Rule::Atomicity, "a member that said Yes aborts what is committed");
        }
    }

    /// Carries the effects out in the order given; what follows a record waits for the sync.
    fn carry_out_branch(
        &mut self,
        model: &Protocol,
        member: u8,
        transaction: u8,
        effects: Vec<BranchEffect>,
        node: Option<u8>,
    ) {
        let mut effects = effects.into_iter();
        while let Some(effect) = effects.next() {
            let changed = self.member_mut(member);
            match effect {
                BranchEffect::Prepare(operation) => {
                    let request = model.names.request_in(operation.as_bytes());
                    changed.work.insert((transaction, Work::Prepare(request)));
                    if changed.buried.contains(&transaction) {
                        self.breaks(Rule::NoIsRemembered, "what was aborted is worked on");
                    }
                }
                BranchEffect::Commit { redo } => {
                    let request = model.names.request_in(&redo);
                    changed.work.insert((transaction, Work::Commit(request)));
                    let first = changed.asked_to_commit.insert(transaction);
                    if !first || changed.has_committed(model.names.id(transaction)) {
                        self.breaks(Rule::Once, "the resource manager is asked to commit twice");
                    }
                }
                BranchEffect::Abort { .. } => _ = changed.work.insert((transaction, Work::Abort)),
                BranchEffect::Note(record) => changed.tail.push(record),
                BranchEffect::Record(record) => {
                    let promise = matches!(record, Record::Prepared(..));
                    changed.tail.push(record);
                    let then = effects.collect();
                    if promise && mutants::is_on(Mutant::M1) {
                        self.carry_out_branch(model, member, transaction, then, None);
                        return self.step_branch(model, member, transaction, BranchInput::Recorded, None);
                    }
                    changed.gated.push(Gated { transaction, then });
                    return;
                }
                BranchEffect::Vote(vote) => {
                    let waiting = changed.askers.remove(&transaction);
                    for asker in waiting.unwrap_or_default() {
                        self.reply_vote(model, member, transaction, asker, &vote);
                    }
                }
                BranchEffect::Answer(vote) => {
                    let node = node.expect("only a Prepare is answered, and some node has sent it");
                    for asker in self.take_askers_of(member, transaction, node) {
                        self.reply_vote(model, member, transaction, asker, &vote);
                    }
                }
                BranchEffect::Acknowledge => {
                    let waiting = changed.tellers.remove(&transaction);
                    for node in waiting.unwrap_or_default() {
                        self.acknowledge(model, node, member, transaction);
                    }
                }
                BranchEffect::Inquire => {
                    let node = node.expect("the timer says whom to ask");
                    self.inquire(model, member, transaction, node);
                }
                BranchEffect::Refuse(_) => {
                    changed.tellers.remove(&transaction);
                    // An old copy does not know what it promised, and is told before it is refused.
                    if changed.fell_back {
                        continue;
                    }
                    self.breaks(Rule::NoAlarm, "a member raises an alarm");
                }
                BranchEffect::Ignored(_) => {}
                BranchEffect::Extend { .. } | BranchEffect::TellJoiner(_) | BranchEffect::AnswerJoin(_) => {
                    unreachable!("nobody joins here")
                }
            }
        }
    }

    /// The call that is answered now. Two calls of one node for two requests do not wait at the same time, for a node
    /// runs one request of an id.
    fn take_askers_of(&mut self, member: u8, transaction: u8, node: u8) -> Vec<(u8, u8)> {
        let changed = self.member_mut(member);
        let waiting = changed.askers.remove(&transaction).unwrap_or_default();
        let (answered, still): (BTreeSet<_>, BTreeSet<_>) =
            waiting.into_iter().partition(|(asker, _)| *asker == node);
        if !still.is_empty() {
            changed.askers.insert(transaction, still);
        }
        answered.into_iter().collect()
    }

    fn inquire(&mut self, model: &Protocol, member: u8, transaction: u8, node: u8) {
        let branch = &self.member(member).branches[&transaction];
        let promise = branch.in_doubt().expect("only a branch in doubt asks");
        let request = model.names.number_of_request(promise.request_hash);
        let message = Message::Inquire {
            request: request.expect("whatever was promised was asked for"),
            members: model.names.bits(&promise.members),
        };
        self.send(Envelope {
            node,
            member,
            transaction,
            message,
        });
    }

    fn reply_vote(
        &mut self,
        model: &Protocol,
        member: u8,
        transaction: u8,
        (node, request): (u8, u8),
        vote: &Vote,
    ) {
        let vote = match vote {
            Vote::Yes => Voted::Yes,
            Vote::ReadOnly => Voted::ReadOnly,
            Vote::No { .. } => Voted::No,
        };
        self.check_vote(model, member, transaction, request, vote);
        let witness = match vote {
            Voted::Yes if model.scope.lives => Some(self.witness(model, member, transaction)),
            Voted::Yes | Voted::ReadOnly | Voted::No => None,
        };
        self.send(Envelope {
            node,
            member,
            transaction,
            message: Message::Voted {
                request,
                vote,
                witness,
            },
        });
    }

    /// A Yes has a durable record beneath it (R3), and the same question gets the same answer (R9).
    fn check_vote(&mut self, model: &Protocol, member: u8, transaction: u8, request: u8, vote: Voted) {
        if vote == Voted::Yes && !self.member(member).remembers(model, request) {
            self.breaks(Rule::Promise, "a Yes without a durable promise");
        }
        let aborted = self.commits(model, transaction, request) == Some(false);
        let promised = self.has_said(member, request, Voted::Yes);
        if promised && vote != Voted::Yes && !aborted && !self.member(member).fell_back {
            self.breaks(Rule::Once, "it has said Yes before, and no Abort is decided");
        }
        if self.has_said(member, request, Voted::ReadOnly) && vote == Voted::Yes {
            model.tally.met(Met::ReadOnlyThenPromised);
        }
        let before = self.member_mut(member).votes.insert(request, vote);
        let same = match (before, vote) {
            (None, _) => true,
            // The promise was released by the decision, and the tombstone answers now.
            (Some(Voted::Yes), Voted::No) => aborted,
            (Some(before), vote) => before == vote,
        };
        if !same {
            self.breaks(Rule::Once, "the same Prepare has two answers");
        }
        let of_another = self.member(member).votes.len() > 1 && vote == Voted::No;
        if of_another && model.names.requests().any(|other| other != request) {
            model.tally.met(Met::PrepareOfAnother);
        }
    }

    fn acknowledge(&mut self, model: &Protocol, node: u8, member: u8, transaction: u8) {
        let from = self.member(member);
        let committed = match self.facts.decided.get(&transaction) {
            Some(outcome) => outcome.request.filter(|_| outcome.commit),
            None => return self.breaks(Rule::DecideBeforeSpeak, "nothing is decided, and it was told"),
        };
        let durable = from.has_committed(model.names.id(transaction));
        let promised = committed.is_some_and(|request| self.has_said(member, request, Voted::Yes));
        if promised && !durable && !from.fell_back {
            self.breaks(Rule::Once, "a commit is acknowledged that is not durable");
        }
        let confirmed = Record::Registered {
            generation: self.member(member).generation,
        };
        let from = self.member(member);
        let witness = (model.scope.lives && from.disk.contains(&confirmed)).then_some(Witness {
            generation: from.generation,
            position: Position(from.disk.len() as u64),
        });
        let envelope = Envelope {
            node,
            member,
            transaction,
            message: Message::Acknowledged { witness },
        };
        if self.network.contains(&envelope) {
            model.tally.met(Met::AcknowledgedAgain);
        }
        self.send(envelope);
    }

    /// Where the promise stands.
    fn witness(&self, model: &Protocol, member: u8, transaction: u8) -> Witness {
        let from = self.member(member);
        let id = model.names.id(transaction);
        let promise = |record: &Record| matches!(record, Record::Prepared(of, _) if *of == id);
        let place = from.disk.iter().position(promise);
        Witness {
            generation: from.generation,
            position: place.map_or(from.came_up_with, |place| Position(place as u64 + 1)),
        }
    }
}

impl Member {
    /// The next life: its start is durable before anything is said.
    fn begin_life(&mut self, model: &Protocol, before: Generation) {
        let mut reach = Reach::default();
        let mut starts = 0;
        for (place, record) in self.disk.iter().enumerate() {
            reach.take(Position(place as u64 + 1), record);
            starts += u32::from(matches!(record, Record::Started { .. }));
        }
        let end = Position(self.disk.len() as u64);
        self.came_up_with = reach.position().unwrap_or(end);
        // The random half differs in every life, also of one that begins from an old copy.
        let random = before.0 as u32 + 1;
        self.generation = Generation::of_start(starts + 1, random);
        self.disk.push(Record::Started {
            cluster: model.names.cluster(),
            generation: self.generation,
        });
    }
}

fn count_move(model: &Protocol, from: &BranchPhase, to: &BranchPhase, was_abort: bool) {
    match (from, to) {
        (BranchPhase::Unknown, BranchPhase::Finished(Finish::Aborted { .. })) if was_abort => {
            model.tally.met(Met::AbortOvertookPrepare);
        }
        (BranchPhase::Preparing(_), BranchPhase::Cancelling) => model.tally.met(Met::AbortWhileWorking),
        (BranchPhase::Promising(_), BranchPhase::Aborting { .. }) => {
            model.tally.met(Met::AbortWhilePromising)
        }
        _ => {}
    }
}
