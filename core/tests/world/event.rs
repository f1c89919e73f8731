//! Everything that happens in the world, one event each. Transcripts print them, the invariants read them.

use unanimo_core::table::{Applied, Command};
use unanimo_core::{
    BranchPhase, Decision, Finish, Generation, Ignored, JoinAnswer, ParticipantId, Record, RequestHash,
    TransactionId, TransactionPhase, Violation,
};

use super::message::Envelope;
use super::names::{Names, Seat, transaction_name};
use super::resource::{Finished, Work};

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The script or the schedule did something.
    Performed(String),
    Sent(Envelope),
    Delivered(Envelope),
    /// The network lost it.
    Lost(Envelope),
    /// It arrived where nobody listens for it, and why.
    Unheard(Envelope, &'static str),
    /// A coordinator's transaction started or moved on.
    TransactionMoved {
        at: Seat,
        transaction: TransactionId,
        request_hash: RequestHash,
        from: Option<TransactionPhase>,
        to: TransactionPhase,
    },
    TransactionIgnored {
        at: Seat,
        transaction: TransactionId,
        why: Ignored,
    },
    TransactionAlarmed {
        at: Seat,
        transaction: TransactionId,
        violation: Violation,
    },
    /// A leader started to finish what it did not begin (R6).
    Adopted {
        at: Seat,
        transaction: TransactionId,
        request_hash: RequestHash,
    },
    /// The voting deadline passed by a leader's clock.
    DeadlineFired {
        at: Seat,
        transaction: TransactionId,
    },
    /// The initiator asked for an abort.
    AbortRequested {
        at: Seat,
        transaction: TransactionId,
    },
    /// The initiator was told the outcome of its request.
    OutcomeTold {
        at: Seat,
        transaction: TransactionId,
        request_hash: RequestHash,
        decision: Decision,
    },
    /// The initiator was told that the id is another request's.
    MismatchTold {
        at: Seat,
        transaction: TransactionId,
        request_hash: RequestHash,
    },
    Proposed {
        by: Seat,
        command: Command,
    },
    /// A proposal was lost with the leader that made it.
    ProposalLost {
        by: Seat,
        command: Command,
    },
    Applied {
        by: Seat,
        command: Command,
        applied: Applied,
    },
    BranchMoved {
        at: ParticipantId,
        transaction: TransactionId,
        from: BranchPhase,
        to: BranchPhase,
    },
    /// The application brought an operation.
    JoinAsked {
        at: ParticipantId,
        transaction: TransactionId,
        operation: String,
    },
    /// The application was told what became of its operation.
    JoinAnswered {
        at: ParticipantId,
        transaction: TransactionId,
        answer: JoinAnswer,
    },
    BranchIgnored {
        at: ParticipantId,
        transaction: TransactionId,
        why: Ignored,
    },
    BranchRefused {
        at: ParticipantId,
        transaction: TransactionId,
        violation: Violation,
    },
    /// Appended to the journal; `lazily` if nobody waits for the sync.
    Written {
        at: ParticipantId,
        record: Record,
        lazily: bool,
    },
    Synced {
        at: ParticipantId,
        records: Vec<Record>,
    },
    ResourceStarted {
        at: ParticipantId,
        work: Work,
    },
    ResourceFinished {
        at: ParticipantId,
        work: Work,
        finished: Finished,
    },
    /// The holds of a branch in doubt were taken again.
    ResourceRestored {
        at: ParticipantId,
        transaction: TransactionId,
    },
    ParticipantCrashed {
        at: ParticipantId,
        /// Un-synced records that reached the disk all the same.
        kept: Vec<Record>,
        lost: Vec<Record>,
    },
    /// The disk holds an old copy.
    FellBack {
        at: ParticipantId,
        records: Vec<Record>,
    },
    Recovering {
        at: ParticipantId,
        generation: Generation,
    },
    Serving {
        at: ParticipantId,
    },
    CoordinatorCrashed(Seat),
    CoordinatorStarted(Seat),
    /// A remark of the world.
    Remark(String),
}

impl Event {
    /// The event as a line of a transcript.
    pub(crate) fn line(&self, names: &Names) -> String {
        let tx = |id: &TransactionId| transaction_name(*id);
        match self {
            Self::Performed(action) => format!("> {action}"),
            Self::Sent(envelope) => envelope.line(names),
            Self::Delivered(envelope) => {
                format!("{} ← {} {}", envelope.to, envelope.from, envelope.content(names))
            }
            Self::Lost(envelope) => format!("network loses {}", envelope.line(names)),
            Self::Unheard(envelope, why) => {
                format!("{} does not hear {}: {why}", envelope.to, envelope.content(names))
            }
            Self::TransactionMoved {
                at,
                transaction,
                request_hash,
                from,
                to,
            } => {
                let name = names.request(*transaction, *request_hash);
                match from {
                    Some(from) => format!("{at} {name}: {from} ⇒ {to}"),
                    None => format!("{at} {name}: {to}"),
                }
            }
            Self::TransactionIgnored { at, transaction, why } => {
                format!("{at} {} ignores it: {why:?}", tx(transaction))
            }
            Self::TransactionAlarmed {
                at,
                transaction,
                violation,
            } => format!("{at} {} ALARM: {violation}", tx(transaction)),
            Self::Adopted {
                at,
                transaction,
                request_hash,
            } => format!("{at} adopts {}", names.request(*transaction, *request_hash)),
            Self::DeadlineFired { at, transaction } => format!("{at} deadline of {} fires", tx(transaction)),
            Self::AbortRequested { at, transaction } => {
                format!("{at} ← initiator Abort {}", tx(transaction))
            }
            Self::OutcomeTold {
                at,
                transaction,
                request_hash,
                decision,
            } => format!(
                "{at} → initiator {} {decision}",
                names.request(*transaction, *request_hash)
            ),
            Self::MismatchTold {
                at,
                transaction,
                request_hash,
            } => format!(
                "{at} → initiator {} refused: the id is another request's",
                names.request(*transaction, *request_hash)
            ),
            Self::Proposed { by, command } => format!("{by} proposes {}", command_line(command, names)),
            Self::ProposalLost { by, command } => {
                format!("table never gets {} of {by}", command_line(command, names))
            }
            Self::Applied { command, applied, .. } => applied_line(command, applied, names),
            Self::BranchMoved {
                at,
                transaction,
                from,
                to,
            } => format!("{at} {}: {from} ⇒ {to}", tx(transaction)),
            Self::JoinAsked {
                at,
                transaction,
                operation,
            } => format!("{at} ← application Join {} {operation}", tx(transaction)),
            Self::JoinAnswered {
                at,
                transaction,
                answer,
            } => {
                let answer = match answer {
                    JoinAnswer::Joined => "Joined".to_owned(),
                    JoinAnswer::Refused { reason } => format!("Refused({reason})"),
                    JoinAnswer::Busy => "Busy".to_owned(),
                };
                format!("{at} → application {} {answer}", tx(transaction))
            }
            Self::BranchIgnored { at, transaction, why } => {
                format!("{at} {} ignores it: {why:?}", tx(transaction))
            }
            Self::BranchRefused {
                at,
                transaction,
                violation,
            } => format!("{at} {} refuses it, ALARM: {violation}", tx(transaction)),
            Self::Written { at, record, lazily } => {
                let how = if *lazily { "notes" } else { "records" };
                format!("{at} {how} {}", record_line(record))
            }
            Self::Synced { at, records } => format!("{at} syncs {}", record_lines(records)),
            Self::ResourceStarted { at, work } => format!("{at} rm starts to {work}"),
            Self::ResourceFinished { at, work, finished } => format!("{at} rm {work}: {finished}"),
            Self::ResourceRestored { at, transaction } => {
                format!("{at} rm restores the holds of {}", tx(transaction))
            }
            Self::ParticipantCrashed { at, kept, lost } => {
                let mut line = format!("{at} crashes");
                if !kept.is_empty() {
                    line += &format!(", its disk has got {}", record_lines(kept));
                }
                if !lost.is_empty() {
                    line += &format!(", losing {}", record_lines(lost));
                }
                line
            }
            Self::FellBack { at, records } => {
                format!("{at} disk is an old copy: {}", record_lines(records))
            }
            Self::Recovering { at, generation } => format!("{at} recovers as {generation}"),
            Self::Serving { at } => format!("{at} serves"),
            Self::CoordinatorCrashed(seat) => format!("{seat} crashes"),
            Self::CoordinatorStarted(seat) => format!("{seat} starts"),
            Self::Remark(text) => text.clone(),
        }
    }
}

/// A record in two words.
pub(crate) fn record_line(record: &Record) -> String {
    match record {
        Record::Started { generation, .. } => format!("Started {generation}"),
        Record::Registered { generation } => format!("Registered {generation}"),
        Record::Closed { below, .. } => format!("Closed {below}"),
        Record::Prepared(transaction, _) => format!("Prepared {}", transaction_name(*transaction)),
        Record::Committed { transaction, .. } => format!("Committed {}", transaction_name(*transaction)),
        Record::Aborted { transaction, .. } => format!("Aborted {}", transaction_name(*transaction)),
    }
}

fn record_lines(records: &[Record]) -> String {
    let lines: Vec<String> = records.iter().map(record_line).collect();
    lines.join(", ")
}

/// A command of the table.
pub(crate) fn command_line(command: &Command, names: &Names) -> String {
    match command {
        Command::Decide(proposal) => format!(
            "{} {}",
            names.request(proposal.transaction, proposal.request_hash),
            proposal.decision
        ),
        Command::Acknowledge { transaction, .. } => {
            format!("{} Acknowledged", transaction_name(*transaction))
        }
        Command::Register {
            participant,
            registration,
        } => format!(
            "registration of {participant} at {} as {}{}",
            registration.address, registration.witness.generation, registration.witness.position
        ),
        Command::Advance(horizon) => format!("watermark {}", transaction_name(horizon.watermark)),
        Command::Forget { transactions } => {
            let names: Vec<String> = transactions.iter().map(|id| transaction_name(*id)).collect();
            format!("{} forgotten", names.join(", "))
        }
        Command::Bind { key, binding } => {
            format!(
                "key {key} of {}",
                names.request(binding.transaction, binding.request_hash)
            )
        }
        Command::Release { keys } => format!("keys {keys:?} free"),
    }
}

fn applied_line(command: &Command, applied: &Applied, names_of: &Names) -> String {
    match applied {
        Applied::Decided(record) => {
            let Command::Decide(proposal) = command else {
                unreachable!("only Decide decides")
            };
            let held = format!(
                "{} {}",
                names_of.request(proposal.transaction, record.request_hash),
                record.decision
            );
            let proposed = command_line(command, names_of);
            if held == proposed {
                format!("table holds {held}")
            } else {
                format!("table keeps {held} against {proposed}")
            }
        }
        Applied::Expired { .. } => format!("table refuses {}: it is closed", command_line(command, names_of)),
        Applied::Acknowledged
        | Applied::Registered
        | Applied::Advanced
        | Applied::Forgotten
        | Applied::Bound(_)
        | Applied::Released => {
            format!("table holds {}", command_line(command, names_of))
        }
        Applied::Superseded { participants } => {
            let names: Vec<String> = participants.iter().map(ToString::to_string).collect();
            format!(
                "table refuses {}: {} came up again since the vote",
                command_line(command, names_of),
                names.join(", ")
            )
        }
        Applied::Outdated { known } => format!(
            "table refuses the {}: it knows {}{} at {}",
            command_line(command, names_of),
            known.witness.generation,
            known.witness.position,
            known.address
        ),
    }
}
