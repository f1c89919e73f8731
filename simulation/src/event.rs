//! What happens in a run, as the invariants see it and as a transcript shows it.

use std::fmt;

use unanimo_core::table::{Applied, Command, DecisionRecord};
use unanimo_core::{BranchPhase, Generation, Record, RequestHash, TransactionId, TransactionPhase, Vote};

use crate::journal::Left;
use crate::log::Entry;
use crate::message::{Ask, InquiryAnswer, Message, Told};
use crate::names::Names;
use crate::node::Node;
use crate::schedule::{Fate, Harm, Time};

/// How a call of an initiator ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Conclusion {
    Committed,
    Aborted,
    /// It is certain that this call started nothing and that none before it in the same call did.
    Refused(crate::message::Why),
    /// Nothing is known and nothing will happen any more.
    Expired,
    Undecided,
    Unknown,
}

/// One thing that happened.
pub(crate) enum Event<'a> {
    Harmed(&'a Harm),
    Mended(Node),
    FaultsStopped,
    Crashed {
        node: Node,
        left: Option<Left>,
        /// Entries of the log.
        lost: u64,
    },
    Started {
        node: Node,
        life: u32,
    },
    Stopped {
        node: Node,
        why: &'static str,
    },
    /// Somebody put another disk into the participant, with a journal that ends here.
    DiskReplaced {
        node: Node,
        end: u64,
        old: bool,
    },
    Sent {
        from: Node,
        to: Node,
        message: &'a Message,
    },
    Fated {
        key: String,
        fate: Fate,
    },
    Delivered {
        from: Node,
        to: Node,
        message: &'a Message,
    },
    Unheard {
        from: Node,
        to: Node,
        message: &'a Message,
        why: &'static str,
    },
    Elected {
        node: Node,
        term: u64,
        last_index: u64,
        /// Whether it has everything that was ever committed.
        complete: bool,
    },
    Resigned {
        node: Node,
        term: u64,
    },
    Ready {
        node: Node,
        term: u64,
    },
    Unready {
        node: Node,
        why: &'static str,
    },
    /// Entries that were never committed are gone.
    Truncated {
        node: Node,
        entries: usize,
        /// Which cannot be if nobody breaks a rule.
        committed: bool,
    },
    Installed {
        node: Node,
        index: u64,
    },
    Applied {
        node: Node,
        index: u64,
        entry: &'a Entry,
        /// Whether no node applied it before.
        first: bool,
        /// Whether so many disks have it that it cannot be lost.
        safe: bool,
        applied: Option<&'a Applied>,
        /// The table's record before.
        before: Option<&'a DecisionRecord>,
    },
    /// The first replica has dropped a decision.
    Forgotten {
        transaction: TransactionId,
        record: &'a DecisionRecord,
    },
    TransactionMoved {
        node: Node,
        transaction: TransactionId,
        request_hash: RequestHash,
        from: Option<&'a TransactionPhase>,
        to: &'a TransactionPhase,
    },
    Adopted {
        node: Node,
        transaction: TransactionId,
        request_hash: RequestHash,
    },
    DeadlineFired {
        node: Node,
        transaction: TransactionId,
        /// How long the voting phase may take.
        voting: Time,
        /// After how long a member that has not answered is asked again.
        attempt: Time,
    },
    AbortAsked {
        node: Node,
        transaction: TransactionId,
    },
    /// A vote reaches a run that collects them.
    VoteReached {
        node: Node,
        /// Whose it is.
        at: u8,
        transaction: TransactionId,
        request_hash: RequestHash,
        vote: &'a Vote,
    },
    /// How many are voting at a coordinator, or under way at a participant, and how many may be.
    Load {
        node: Node,
        count: u64,
        limit: u64,
    },
    BranchMoved {
        at: u8,
        transaction: TransactionId,
        from: &'a BranchPhase,
        to: &'a BranchPhase,
    },
    /// A vote is about to be sent.
    Votes {
        at: u8,
        transaction: TransactionId,
        request_hash: RequestHash,
        vote: &'a Vote,
        /// Of a Yes: whether its promise is on disk and names the members that were asked.
        sound: bool,
    },
    /// An acknowledgement of a Commit is about to be sent.
    AcknowledgesCommit {
        at: u8,
        transaction: TransactionId,
        /// Whether the commit is on disk.
        sound: bool,
    },
    Written {
        at: u8,
        position: u64,
        record: &'a Record,
        forced: bool,
    },
    Synced {
        at: u8,
        upto: u64,
    },
    /// A record has reached the disk, also by luck in a crash.
    OnDisk {
        at: u8,
        position: u64,
        record: &'a Record,
    },
    SyncFailed {
        node: Node,
    },
    WorkBegan {
        at: u8,
        transaction: TransactionId,
        what: Effort,
    },
    WorkDone {
        at: u8,
        transaction: TransactionId,
        what: Effort,
        result: String,
        /// Of a commit: whether it had happened before, and whether the account changed.
        repeated: bool,
        changed: bool,
        balance: i64,
    },
    Restored {
        at: u8,
        transaction: TransactionId,
    },
    /// It accepts traffic. In doubt are these; every one of them should have its hold.
    Serving {
        at: u8,
        generation: Generation,
        without_hold: Option<TransactionId>,
    },
    Registered {
        at: u8,
        generation: Generation,
        /// A commit that rests on a promise of this participant which its disk no longer has.
        missing: Option<TransactionId>,
    },
    /// Everything below is closed at this participant, durably.
    Closed {
        at: u8,
        below: TransactionId,
    },
    Alarm {
        node: Node,
        transaction: TransactionId,
        what: String,
    },
    /// A leader has read the clocks of a majority, and no time is recorded yet.
    TimeRead {
        time: unanimo_core::Timestamp,
    },
    Concluded {
        initiator: Node,
        /// When it began to ask.
        since: u64,
        transaction: TransactionId,
        /// None if it does not know the request.
        request_hash: Option<RequestHash>,
        key: Option<u64>,
        conclusion: &'a Conclusion,
    },
    AtRest,
    /// At the end: what is in an account, and what the committed transactions make it.
    Settled {
        at: u8,
        balance: i64,
        expected: i64,
    },
    /// At the end: a table that differs from the first one, or has not caught up.
    Differs {
        node: Node,
    },
    /// The faults have stopped for so long that everything should be at rest, and this is not.
    Stuck {
        what: String,
    },
}

/// What a resource manager does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    Prepare,
    Extend,
    Commit,
    Abort,
}

impl Event<'_> {
    /// Whether a transcript is better without it: the log's small talk.
    pub(crate) fn is_small_talk(&self) -> bool {
        match self {
            Self::Sent { message, .. } | Self::Delivered { message, .. } | Self::Unheard { message, .. } => {
                matches!(
                    message,
                    Message::Append { .. }
                        | Message::Appended { .. }
                        | Message::ClockAsked { .. }
                        | Message::ClockTold { .. }
                )
            }
            Self::Applied { entry, .. } => {
                matches!(entry.command, None | Some(Command::Advance(_)))
            }
            Self::Load { .. }
            | Self::VoteReached { .. }
            | Self::OnDisk { .. }
            | Self::Votes { .. }
            | Self::AcknowledgesCommit { .. } => true,
            _ => false,
        }
    }

    /// The event as a line of a transcript.
    pub(crate) fn line<'b>(&'b self, names: &'b Names) -> Line<'b> {
        Line { event: self, names }
    }
}

/// An event, as it is written down.
pub(crate) struct Line<'a> {
    event: &'a Event<'a>,
    names: &'a Names,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names;
        let t = |id: &TransactionId| format!("t{}", names.number(*id));
        let r = |id: &TransactionId, hash: &RequestHash| names.request(*id, *hash);
        let p = |at: &u8| Node::Participant(*at);
        match self.event {
            Event::Harmed(harm) => write!(f, "*** {harm}"),
            Event::Mended(node) => write!(f, "*** mended: {node}"),
            Event::FaultsStopped => f.write_str("*** the faults stop"),
            Event::AtRest => f.write_str("*** everything is at rest"),
            Event::Crashed { node, left, lost } => match left {
                Some(left) => {
                    write!(
                        f,
                        "{node} crashes, {} records kept, {} lost",
                        left.kept, left.lost
                    )
                }
                None => write!(f, "{node} crashes, {lost} entries lost"),
            },
            Event::Started { node, life } => write!(f, "{node} starts, life {life}"),
            Event::Stopped { node, why } => write!(f, "{node} stops: {why}"),
            Event::DiskReplaced { node, end, old } => {
                let what = if *old { "an old copy" } else { "its newest disk" };
                write!(f, "{node} gets {what}, journal @{end}")
            }
            Event::Sent { from, to, message } => {
                write!(f, "{from} → {to} {}", Content { message, names })
            }
            Event::Fated { key, fate } => write!(f, "{key}: {fate:?}"),
            Event::Delivered { from, to, message } => {
                write!(f, "{to} ← {from} {}", Content { message, names })
            }
            Event::Unheard {
                from,
                to,
                message,
                why,
            } => write!(f, "{to} ← {from} {} unheard: {why}", Content { message, names }),
            Event::Elected {
                node,
                term,
                last_index,
                ..
            } => {
                write!(f, "{node} is elected in term {term}, log @{last_index}")
            }
            Event::Resigned { node, term } => write!(f, "{node} no longer leads term {term}"),
            Event::Ready { node, term } => write!(f, "{node} is ready to lead term {term}"),
            Event::Unready { node, why } => write!(f, "{node} is not ready any more: {why}"),
            Event::Truncated { node, entries, .. } => write!(f, "{node} drops {entries} entries"),
            Event::Installed { node, index } => write!(f, "{node} installs a snapshot @{index}"),
            Event::Applied {
                node,
                index,
                entry,
                first,
                applied,
                ..
            } => {
                let mark = if *first { "commit point, " } else { "" };
                let command = Commanded {
                    command: entry.command.as_ref(),
                    names,
                };
                write!(f, "{node} @{index} {mark}{command} of c{}", entry.by + 1)?;
                match applied {
                    Some(Applied::Decided(record)) => {
                        write!(
                            f,
                            ": table holds {} {}",
                            r_of(names, entry, record),
                            record.decision
                        )
                    }
                    Some(Applied::Superseded { .. }) => f.write_str(": superseded"),
                    Some(Applied::Expired { .. }) => f.write_str(": expired"),
                    Some(Applied::Bound(binding)) => write!(f, ": {}", t(&binding.transaction)),
                    Some(Applied::Outdated { .. }) => f.write_str(": outdated"),
                    Some(
                        Applied::Registered
                        | Applied::Acknowledged
                        | Applied::Advanced
                        | Applied::Forgotten
                        | Applied::Released,
                    )
                    | None => Ok(()),
                }
            }
            Event::Forgotten { transaction, record } => {
                write!(f, "table forgets {} {}", t(transaction), record.decision)
            }
            Event::TransactionMoved {
                node,
                transaction,
                request_hash,
                from,
                to,
            } => {
                let name = r(transaction, request_hash);
                match from {
                    None => write!(f, "{node} {name}: {to}"),
                    Some(from) => {
                        write!(f, "{node} {name}: {from} ⇒ {to}")
                    }
                }
            }
            Event::Adopted {
                node,
                transaction,
                request_hash,
            } => write!(f, "{node} adopts {}", r(transaction, request_hash)),
            Event::DeadlineFired {
                node, transaction, ..
            } => {
                write!(f, "{node} {}: the voting deadline passes", t(transaction))
            }
            Event::AbortAsked { node, transaction } => {
                write!(f, "{node} {}: an abort is asked for", t(transaction))
            }
            Event::VoteReached {
                node,
                transaction,
                request_hash,
                vote,
                ..
            } => write!(f, "{node} {} hears {vote}", r(transaction, request_hash)),
            Event::Load { node, count, limit } => write!(f, "{node} runs {count} of {limit}"),
            Event::BranchMoved {
                at,
                transaction,
                from,
                to,
            } => write!(f, "{} {}: {from} ⇒ {to}", p(at), t(transaction)),
            Event::Votes {
                at,
                transaction,
                vote,
                ..
            } => write!(f, "{} {} votes {vote}", p(at), t(transaction)),
            Event::AcknowledgesCommit { at, transaction, .. } => {
                write!(f, "{} {} acknowledges", p(at), t(transaction))
            }
            Event::Written {
                at,
                position,
                record,
                forced,
            } => {
                let verb = if *forced { "records" } else { "notes" };
                write!(f, "{} {verb} @{position} {}", p(at), record_line(record, names))
            }
            Event::Synced { at, upto } => write!(f, "{} syncs up to @{upto}", p(at)),
            Event::OnDisk { at, position, .. } => write!(f, "{} @{position} is on disk", p(at)),
            Event::SyncFailed { node } => write!(f, "{node}: a forced write fails"),
            Event::WorkBegan {
                at,
                transaction,
                what,
            } => {
                write!(f, "{} rm {what:?} {}", p(at), t(transaction))
            }
            Event::WorkDone {
                at,
                transaction,
                what,
                result,
                balance,
                ..
            } => write!(
                f,
                "{} rm {what:?} {} done: {result}, balance {balance}",
                p(at),
                t(transaction)
            ),
            Event::Restored { at, transaction } => {
                write!(f, "{} rm takes the hold of {} again", p(at), t(transaction))
            }
            Event::Serving { at, generation, .. } => write!(f, "{} serves as {generation}", p(at)),
            Event::Registered { at, generation, .. } => write!(f, "{} is registered as {generation}", p(at)),
            Event::Closed { at, below } => {
                write!(f, "{} has closed everything before {}", p(at), below.timestamp())
            }
            Event::Alarm {
                node,
                transaction,
                what,
                ..
            } => write!(f, "{node} {} ALARM: {what}", t(transaction)),
            Event::TimeRead { time } => write!(f, "the clocks of a majority say {time}"),
            Event::Settled {
                at,
                balance,
                expected,
            } => write!(f, "{} has {balance}, expected {expected}", p(at)),
            Event::Differs { node } => write!(f, "{node}: its table differs"),
            Event::Stuck { what } => write!(f, "the faults have stopped and still {what}"),
            Event::Concluded {
                initiator,
                transaction,
                conclusion,
                ..
            } => write!(f, "{initiator} {} concludes: {conclusion:?}", t(transaction)),
        }
    }
}

fn r_of(names: &Names, entry: &Entry, record: &DecisionRecord) -> String {
    match &entry.command {
        Some(Command::Decide(proposal)) => names.request(proposal.transaction, record.request_hash),
        _ => String::new(),
    }
}

fn record_line(record: &Record, names: &Names) -> String {
    match record {
        Record::Started { generation, .. } => format!("Started {generation}"),
        Record::Registered { generation } => format!("Registered {generation}"),
        Record::Closed { below, .. } => format!("Closed before {}", below.timestamp()),
        Record::Prepared(id, prepared) => format!("Prepared {}", names.request(*id, prepared.request_hash)),
        Record::Committed {
            transaction,
            request_hash,
        } => format!("Committed {}", names.request(*transaction, *request_hash)),
        Record::Aborted { transaction, reason } => {
            format!("Aborted t{} ({reason})", names.number(*transaction))
        }
    }
}

struct Commanded<'a> {
    command: Option<&'a Command>,
    names: &'a Names,
}

impl fmt::Display for Commanded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = |id: &TransactionId| self.names.number(*id);
        match self.command {
            None => f.write_str("Blank"),
            Some(Command::Decide(proposal)) => write!(
                f,
                "Decide {} {}",
                self.names.request(proposal.transaction, proposal.request_hash),
                proposal.decision
            ),
            Some(Command::Acknowledge {
                transaction,
                participants,
                ..
            }) => {
                write!(f, "Acknowledge t{} {participants:?}", t(transaction))
            }
            Some(Command::Register {
                participant,
                registration,
            }) => write!(
                f,
                "Register {participant} {}{}",
                registration.witness.generation, registration.witness.position
            ),
            Some(Command::Advance(horizon)) => write!(f, "Advance {}", horizon.time),
            Some(Command::Forget { transactions }) => {
                f.write_str("Forget")?;
                transactions.iter().try_for_each(|id| write!(f, " t{}", t(id)))
            }
            Some(Command::Bind { key, binding }) => write!(f, "Bind {key} t{}", t(&binding.transaction)),
            Some(Command::Release { keys }) => {
                f.write_str("Release")?;
                keys.iter().try_for_each(|(key, _)| write!(f, " {key}"))
            }
        }
    }
}

struct Content<'a> {
    message: &'a Message,
    names: &'a Names,
}

impl fmt::Display for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names;
        let r = |id: &TransactionId, hash: &RequestHash| names.request(*id, *hash);
        match self.message {
            Message::Call { ask, .. } => match ask {
                Ask::Submit {
                    transaction,
                    request,
                    key,
                } => {
                    write!(f, "Submit {}", r(transaction, &request.hash()))?;
                    if let Some(key) = key {
                        write!(f, " key {key}")?;
                    }
                    request.branches().iter().try_for_each(|(who, operation)| {
                        write!(f, " {who}={}", String::from_utf8_lossy(operation.as_bytes()))
                    })
                }
                Ask::Begin => f.write_str("Begin"),
                Ask::Commit { transaction, members } => {
                    write!(f, "Commit t{} {members:?}", names.number(*transaction))
                }
                Ask::Abort { transaction, members } => {
                    write!(f, "Abort t{} {members:?}", names.number(*transaction))
                }
                Ask::Outcome { transaction } => write!(f, "GetOutcome t{}", names.number(*transaction)),
            },
            Message::Told { told, .. } => match told {
                Told::Decided {
                    transaction,
                    decision,
                } => write!(f, "Outcome t{} {decision}", names.number(*transaction)),
                Told::Begun(at) => write!(f, "Begun {at}"),
                Told::Undecided => f.write_str("Undecided"),
                Told::Refused(why) => write!(f, "Refused {why}"),
            },
            Message::Join {
                transaction,
                operation,
                ..
            } => write!(
                f,
                "Join t{} {}",
                names.number(*transaction),
                String::from_utf8_lossy(operation.as_bytes())
            ),
            Message::Joined {
                transaction, answer, ..
            } => {
                write!(f, "Joined t{} {answer:?}", names.number(*transaction))
            }
            Message::Prepare {
                transaction,
                request_hash,
                operation,
                ..
            } => match operation {
                Some(operation) => write!(
                    f,
                    "Prepare {} {}",
                    r(transaction, request_hash),
                    String::from_utf8_lossy(operation.as_bytes())
                ),
                None => write!(f, "Prepare {} without operation", r(transaction, request_hash)),
            },
            Message::Voted {
                transaction,
                request_hash,
                vote,
                witness,
            } => {
                write!(f, "Voted {} {vote}", r(transaction, request_hash))?;
                match witness {
                    Some(witness) => write!(f, " {}{}", witness.generation, witness.position),
                    None => Ok(()),
                }
            }
            Message::Deliver {
                transaction,
                request_hash,
                commit,
                ..
            } => {
                let verb = if *commit { "Commit" } else { "Abort" };
                write!(f, "{verb} {}", r(transaction, request_hash))
            }
            Message::Acknowledged {
                transaction,
                request_hash,
                commit,
                witness,
            } => {
                let verb = if *commit { "Commit" } else { "Abort" };
                write!(f, "Acknowledged {verb} {}", r(transaction, request_hash))?;
                match witness {
                    Some(witness) => write!(f, " {}{}", witness.generation, witness.position),
                    None => Ok(()),
                }
            }
            Message::Refused {
                transaction,
                request_hash,
                prepare,
                why,
            } => {
                let what = if *prepare { "Prepare" } else { "decision" };
                write!(f, "refuses the {what} of {}: {why}", r(transaction, request_hash))
            }
            Message::Inquire { questions, .. } => {
                f.write_str("Inquire")?;
                questions
                    .iter()
                    .try_for_each(|one| write!(f, " {}", r(&one.transaction, &one.request_hash)))
            }
            Message::Inquired { answers, .. } => {
                f.write_str("Answered")?;
                answers.iter().try_for_each(|(id, hash, answer)| match answer {
                    InquiryAnswer::Decided(decision) => write!(f, " {} {decision}", r(id, hash)),
                    InquiryAnswer::Undecided => write!(f, " {} Undecided", r(id, hash)),
                    InquiryAnswer::Refused(why) => write!(f, " {} {why}", r(id, hash)),
                })
            }
            Message::Register { witness, address } => {
                write!(
                    f,
                    "Register {}{} at {address}",
                    witness.generation, witness.position
                )
            }
            Message::Registered {
                generation,
                confirmed,
            } => {
                let what = match confirmed {
                    Some(true) => "confirmed",
                    Some(false) => "outdated",
                    None => "ask another",
                };
                write!(f, "Registered {generation}: {what}")
            }
            Message::ClockAsked { .. } => f.write_str("ClockAsked"),
            Message::ClockTold { at, .. } => write!(f, "ClockTold {at}"),
            Message::VoteAsked { term, last_index, .. } => {
                write!(f, "VoteAsked term {term}, log @{last_index}")
            }
            Message::VoteGiven { term, granted } => write!(f, "VoteGiven term {term}: {granted}"),
            Message::Append { entries, term, .. } => {
                write!(f, "Append term {term}, {} entries", entries.len())
            }
            Message::Appended { matched, .. } => write!(f, "Appended {matched:?}"),
            Message::Snapshot { index, .. } => write!(f, "Snapshot @{index}"),
        }
    }
}
