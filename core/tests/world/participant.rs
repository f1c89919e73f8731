//! The participant's driver: what the library does around [`Branch`].

use std::collections::BTreeMap;

use unanimo_core::table::Witness;
use unanimo_core::{
    Branch, BranchEffect, BranchInput, Generation, JoinRequest, Operation, ParticipantId, Position,
    PrepareRequest, Reach, Record, RequestHash, Timestamp, TransactionId, Vote, recover,
};

use super::World;
use super::event::Event;
use super::journal::Journal;
use super::message::{Address, Envelope, Message, Told};
use super::names::{Seat, cluster};
use super::resource::{Finished, Resource, Work};

/// How long the work of an interactive transaction is held without a promise.
const JOINED_TIME: std::time::Duration = std::time::Duration::from_millis(1000);

/// Whether a participant can be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Down,
    /// It has restarted; its record of that is not durable yet, so it says nothing.
    Recovering,
    Serving,
}

/// Somebody who waits for a vote or an acknowledgement.
#[derive(Clone, Debug)]
struct Asker {
    address: Address,
    /// What it asked about; only a Prepare says so.
    request_hash: Option<RequestHash>,
}

/// A branch and who waits for it. Volatile.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) branch: Branch,
    vote_askers: Vec<Asker>,
    decision_tellers: Vec<Asker>,
    /// Where the promise stands in the journal.
    promised_at: Option<Position>,
}

impl Entry {
    fn new(branch: Branch, promised_at: Option<Position>) -> Self {
        Self {
            branch,
            vote_askers: Vec::new(),
            decision_tellers: Vec::new(),
            promised_at,
        }
    }
}

/// Effects that wait for a record to be durable.
#[derive(Clone, Debug)]
struct Gated {
    transaction: TransactionId,
    then: Vec<BranchEffect>,
}

/// One participant.
#[derive(Clone, Debug)]
pub(crate) struct Participant {
    pub(crate) presence: Presence,
    pub(crate) now: Timestamp,
    pub(crate) generation: Generation,
    /// How far its memory reached when it came up.
    pub(crate) came_up_with: Position,
    pub(crate) journal: Journal,
    pub(crate) resource: Resource,
    pub(crate) branches: BTreeMap<TransactionId, Entry>,
    gated: Vec<Gated>,
}

impl Participant {
    /// A participant whose first start is on disk.
    pub(crate) fn new() -> Self {
        let mut journal = Journal::default();
        let generation = Generation::of_start(1, 0);
        journal.append(Record::Started {
            cluster: cluster(),
            generation,
        });
        journal.sync();
        Self {
            presence: Presence::Serving,
            now: Timestamp::from_unix_ms(0),
            generation,
            came_up_with: Position(0),
            journal,
            resource: Resource::default(),
            branches: BTreeMap::new(),
            gated: Vec::new(),
        }
    }
}

impl World {
    pub(crate) fn hear_as_participant(&mut self, at: ParticipantId, envelope: Envelope) {
        let asker = |request_hash| {
            Some(Asker {
                address: envelope.from.clone(),
                request_hash,
            })
        };
        let now = self.participant(&at).now;
        let (input, asker) = match envelope.message {
            Message::Prepare {
                members,
                request_hash,
                operation,
                remaining_ms,
            } => {
                let request = PrepareRequest {
                    cluster: cluster(),
                    members,
                    request_hash,
                    operation,
                    deadline: now.after(std::time::Duration::from_millis(remaining_ms)),
                };
                (BranchInput::Prepare(request), asker(Some(request_hash)))
            }
            Message::Commit { request_hash } => (BranchInput::Commit { request_hash }, asker(None)),
            Message::Abort { .. } => (BranchInput::Abort, asker(None)),
            Message::Answered { request_hash, told } => match told {
                Told::Committed => (BranchInput::Commit { request_hash }, None),
                Told::Aborted => (BranchInput::Abort, None),
                Told::Undecided => return,
            },
            Message::Voted { .. } | Message::Acknowledged { .. } | Message::Inquire { .. } => {
                unreachable!("these go to coordinators")
            }
        };
        self.step_branch(&at, envelope.transaction, input, asker, None);
    }

    /// The application brings an operation.
    pub(crate) fn join(&mut self, at: &ParticipantId, id: TransactionId, operation: &str) {
        self.happened(Event::JoinAsked {
            at: at.clone(),
            transaction: id,
            operation: operation.to_owned(),
        });
        let request = JoinRequest {
            cluster: cluster(),
            operation: Operation::new(operation.to_owned().into_bytes()),
            deadline: self.participant(at).now.after(JOINED_TIME),
        };
        self.step_branch(at, id, BranchInput::Join(request), None, None);
    }

    /// The deadline of what was joined passes.
    pub(crate) fn expire(&mut self, at: &ParticipantId, id: TransactionId) {
        if self.participant(at).branches.contains_key(&id) {
            self.step_branch(at, id, BranchInput::DeadlinePassed, None, None);
        }
    }

    /// The branch has been in doubt for a while, and asks this node.
    pub(crate) fn ask(&mut self, at: &ParticipantId, id: TransactionId, node: usize) {
        let seat = self.coordinator(node).seat;
        self.step_branch(at, id, BranchInput::TimerFired, None, Some(seat));
    }

    /// The resource manager finishes a piece of work.
    pub(crate) fn finish_work(&mut self, at: &ParticipantId, place: usize) {
        let (work, finished) = self.participant_mut(at).resource.finish(place);
        let id = work.transaction();
        self.happened(Event::ResourceFinished {
            at: at.clone(),
            work,
            finished: finished.clone(),
        });
        let input = match finished {
            Finished::Resolved(resolution) => BranchInput::Resolved(resolution),
            Finished::Committed | Finished::CommittedBefore | Finished::LetGo => BranchInput::Applied,
        };
        self.step_branch(at, id, input, None, None);
    }

    /// What was written becomes durable, and what waited for it goes on.
    pub(crate) fn sync(&mut self, at: &ParticipantId) {
        let records = self.participant_mut(at).journal.sync();
        self.happened(Event::Synced {
            at: at.clone(),
            records,
        });
        if self.participant(at).presence == Presence::Recovering {
            self.participant_mut(at).presence = Presence::Serving;
            self.happened(Event::Serving { at: at.clone() });
        }
        for gated in std::mem::take(&mut self.participant_mut(at).gated) {
            self.carry_out_branch(at, gated.transaction, gated.then, None);
            self.step_branch(at, gated.transaction, BranchInput::Recorded, None, None);
        }
    }

    /// Power loss: the disk has what was synced, and perhaps the first `keep` records of the rest.
    pub(crate) fn crash_participant(&mut self, at: &ParticipantId, keep: usize) {
        let participant = self.participant_mut(at);
        let (kept, lost) = participant.journal.crash(keep);
        participant.presence = Presence::Down;
        participant.resource.crash();
        participant.branches.clear();
        participant.gated.clear();
        self.happened(Event::ParticipantCrashed {
            at: at.clone(),
            kept,
            lost,
        });
    }

    /// Somebody puts an old copy of the disk in place of the disk.
    pub(crate) fn fall_back(&mut self, at: &ParticipantId, records: usize) {
        self.participant_mut(at).journal.fall_back(records);
        let records = self.participant(at).journal.durable().to_vec();
        self.happened(Event::FellBack {
            at: at.clone(),
            records,
        });
    }

    /// Recovery: branches from records, holds before traffic, the next generation before anything is said.
    pub(crate) fn restart_participant(&mut self, at: &ParticipantId) {
        let records = self.participant(at).journal.durable().to_vec();
        let branches = recover(records.iter().cloned()).expect("our own records never contradict each other");
        let promised_at = |id| {
            let promise = |record: &Record| matches!(record, Record::Prepared(of, _) if *of == id);
            let place = records.iter().position(promise);
            place.map(|place| Position(place as u64 + 1))
        };
        let starts = records
            .iter()
            .filter(|record| matches!(record, Record::Started { .. }));
        let generation = Generation::of_start(starts.count() as u32 + 1, 0);
        let mut reach = Reach::default();
        for (place, record) in records.iter().enumerate() {
            reach.take(Position(place as u64 + 1), record);
        }
        let participant = self.participant_mut(at);
        participant.generation = generation;
        // Its own start comes next, and changes nothing if an earlier one is not confirmed either.
        let end = participant.journal.end();
        participant.came_up_with = reach.position().unwrap_or(end);
        participant.presence = Presence::Recovering;
        participant.branches = branches
            .into_iter()
            .map(|(id, branch)| (id, Entry::new(branch, promised_at(id))))
            .collect();
        let in_doubt = participant
            .branches
            .iter()
            .filter(|(_, entry)| entry.branch.in_doubt().is_some());
        let in_doubt: Vec<TransactionId> = in_doubt.map(|(id, _)| *id).collect();
        self.happened(Event::Recovering {
            at: at.clone(),
            generation,
        });
        for transaction in in_doubt {
            self.participant_mut(at).resource.restore(transaction);
            self.happened(Event::ResourceRestored {
                at: at.clone(),
                transaction,
            });
        }
        let started = Record::Started {
            cluster: cluster(),
            generation,
        };
        self.write(at, started, false);
    }

    /// The cluster has confirmed a registration, perhaps one of an earlier life.
    pub(crate) fn registration_confirmed(&mut self, at: &ParticipantId, generation: Generation) {
        let participant = self.participant(at);
        if participant.presence == Presence::Serving && participant.generation == generation {
            self.write(at, Record::Registered { generation }, true);
        }
    }

    fn write(&mut self, at: &ParticipantId, record: Record, lazily: bool) -> Position {
        self.happened(Event::Written {
            at: at.clone(),
            record: record.clone(),
            lazily,
        });
        self.participant_mut(at).journal.append(record)
    }

    fn step_branch(
        &mut self,
        at: &ParticipantId,
        id: TransactionId,
        input: BranchInput,
        asker: Option<Asker>,
        inquire_at: Option<Seat>,
    ) {
        let participant = self.participant_mut(at);
        let now = participant.now;
        let entry = participant
            .branches
            .entry(id)
            .or_insert_with(|| Entry::new(Branch::unknown(id), None));
        let votes = matches!(input, BranchInput::Prepare(_));
        let from = entry.branch.phase().clone();
        let (branch, effects) = entry.branch.clone().step(input, now);
        let to = branch.phase().clone();
        entry.branch = branch;
        // Who is refused has its answer; everybody else waits until a vote or an acknowledgement is told.
        let refused = effects
            .iter()
            .any(|effect| matches!(effect, BranchEffect::Refuse(_)));
        if let Some(asker) = asker.filter(|_| !refused) {
            let waiting = if votes {
                &mut entry.vote_askers
            } else {
                &mut entry.decision_tellers
            };
            waiting.push(asker);
        }
        if from.to_string() != to.to_string() {
            self.happened(Event::BranchMoved {
                at: at.clone(),
                transaction: id,
                from,
                to,
            });
        }
        self.carry_out_branch(at, id, effects, inquire_at);
    }

    /// Carries the effects out in the order given; what follows a record waits for the sync.
    fn carry_out_branch(
        &mut self,
        at: &ParticipantId,
        id: TransactionId,
        effects: Vec<BranchEffect>,
        inquire_at: Option<Seat>,
    ) {
        let mut effects = effects.into_iter();
        while let Some(effect) = effects.next() {
            match effect {
                BranchEffect::Prepare(operation) => self.start_work(at, Work::Prepare(id, operation)),
                BranchEffect::Extend { operation, .. } => self.start_work(at, Work::Extend(id, operation)),
                BranchEffect::TellJoiner(answer) | BranchEffect::AnswerJoin(answer) => {
                    self.happened(Event::JoinAnswered {
                        at: at.clone(),
                        transaction: id,
                        answer,
                    });
                }
                BranchEffect::Commit { .. } => self.start_work(at, Work::Commit(id)),
                BranchEffect::Abort { .. } => self.start_work(at, Work::Abort(id)),
                BranchEffect::Note(record) => {
                    self.write(at, record, true);
                }
                BranchEffect::Record(record) => {
                    let promises = matches!(record, Record::Prepared(..));
                    let position = self.write(at, record, false);
                    if promises {
                        self.entry(at, id).promised_at = Some(position);
                    }
                    let then = effects.collect();
                    let gated = Gated {
                        transaction: id,
                        then,
                    };
                    self.participant_mut(at).gated.push(gated);
                    return;
                }
                BranchEffect::Vote(vote) => {
                    for asker in std::mem::take(&mut self.entry(at, id).vote_askers) {
                        self.reply_vote(at, id, asker, vote.clone());
                    }
                }
                BranchEffect::Answer(vote) => {
                    let asker = self.entry(at, id).vote_askers.pop();
                    let asker = asker.expect("only a Prepare is answered, and its sender waits");
                    self.reply_vote(at, id, asker, vote);
                }
                BranchEffect::Acknowledge => {
                    let witness = self.reaches(at);
                    for teller in std::mem::take(&mut self.entry(at, id).decision_tellers) {
                        self.reply(at, teller.address, id, Message::Acknowledged { witness });
                    }
                }
                BranchEffect::Inquire => self.inquire(at, id, inquire_at),
                BranchEffect::Refuse(violation) => self.happened(Event::BranchRefused {
                    at: at.clone(),
                    transaction: id,
                    violation,
                }),
                BranchEffect::Ignored(why) => self.happened(Event::BranchIgnored {
                    at: at.clone(),
                    transaction: id,
                    why,
                }),
            }
        }
    }

    fn start_work(&mut self, at: &ParticipantId, work: Work) {
        self.happened(Event::ResourceStarted {
            at: at.clone(),
            work: work.clone(),
        });
        self.participant_mut(at).resource.start(work);
    }

    fn inquire(&mut self, at: &ParticipantId, id: TransactionId, inquire_at: Option<Seat>) {
        let seat = inquire_at.expect("only the timer makes a branch ask");
        let promise = self.entry(at, id).branch.in_doubt().cloned();
        let promise = promise.expect("only a branch in doubt asks");
        let message = Message::Inquire {
            members: promise.members,
            request_hash: promise.request_hash,
        };
        self.reply(at, Address::Coordinator(seat), id, message);
    }

    fn reply_vote(&mut self, at: &ParticipantId, id: TransactionId, asker: Asker, vote: Vote) {
        let request_hash = asker
            .request_hash
            .expect("who waits for a vote has asked for one");
        let generation = self.participant(at).generation;
        let witness = match vote {
            Vote::Yes => self
                .entry(at, id)
                .promised_at
                .map(|position| Witness { generation, position }),
            Vote::ReadOnly | Vote::No { .. } => None,
        };
        let message = Message::Voted {
            request_hash,
            vote,
            witness,
        };
        self.reply(at, asker.address, id, message);
    }

    /// How far its journal reaches, once this life is confirmed in it.
    fn reaches(&self, at: &ParticipantId) -> Option<Witness> {
        let participant = self.participant(at);
        let (generation, durable) = (participant.generation, participant.journal.durable());
        let confirmed = durable.contains(&Record::Registered { generation });
        let position = Position(durable.len() as u64);
        confirmed.then_some(Witness { generation, position })
    }

    fn reply(&mut self, at: &ParticipantId, to: Address, transaction: TransactionId, message: Message) {
        self.send(Envelope {
            from: Address::Participant(at.clone()),
            to,
            transaction,
            message,
        });
    }

    fn entry(&mut self, at: &ParticipantId, id: TransactionId) -> &mut Entry {
        let entry = self.participant_mut(at).branches.get_mut(&id);
        entry.expect("a branch that has effects is known")
    }
}
