//! What the random runs have met. A rule that was never in danger has not been tested.

use std::collections::BTreeMap;

use unanimo_core::table::{Applied, Command};
use unanimo_core::{
    AbortReason, BranchPhase, Decision, Finish, Ignored, Record, TransactionId, TransactionPhase, Vote,
};

use crate::invariants::History;
use crate::world::{Event, Finished, Message, Seat, Work};

/// How often each of these happened, over all runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    counts: BTreeMap<&'static str, u64>,
}

/// Every one of these has to happen in some run.
const WANTED: [&str; 35] = [
    "abort by No",
    "abort by deadline",
    "abort by request",
    "abort of a branch that was promising",
    "abort while the resource manager worked",
    "adopted and aborted",
    "adopted and committed",
    "adopted",
    "commit",
    "commit repeated by the resource manager after a crash",
    "coordinator crash while deciding",
    "coordinator crash while preparing",
    "crash between commit and its record",
    "crash in doubt",
    "crash lost a promise that nobody heard",
    "crash kept a record that was not synced",
    "crash of a participant that recovers",
    "decision lost against another decision",
    "holds restored",
    "inquiry answered Abort",
    "inquiry answered Commit",
    "join: extended",
    "join: given up while it worked",
    "join: joined",
    "join: let go",
    "join: lost in a crash",
    "join: promised",
    "join: refused by a tombstone",
    "late Prepare met a tombstone",
    "mismatch told",
    "Prepare repeated in doubt",
    "proposal lost",
    "read-only vote",
    "repeated Prepare while preparing",
    "two leaders ran one transaction",
];

impl Coverage {
    /// What never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        WANTED
            .into_iter()
            .filter(|wanted| !self.counts.contains_key(wanted))
            .collect()
    }

    fn met(&mut self, what: &'static str) {
        debug_assert!(WANTED.contains(&what), "{what} is not listed");
        *self.counts.entry(what).or_default() += 1;
    }

    /// Counts one run.
    pub(crate) fn count(&mut self, events: &[Event], history: &History) {
        let mut phases: BTreeMap<(Seat, TransactionId), (TransactionPhase, bool)> = BTreeMap::new();
        let mut branches = BTreeMap::new();
        let mut recovering = None;
        for event in events {
            match event {
                Event::Applied { command, applied, .. } => self.applied(command, applied),
                Event::Adopted { .. } => self.met("adopted"),
                Event::TransactionMoved {
                    at,
                    transaction,
                    from,
                    to,
                    ..
                } => {
                    let elsewhere = phases
                        .keys()
                        .any(|(seat, id)| id == transaction && seat.node != at.node);
                    if from.is_none() && elsewhere {
                        self.met("two leaders ran one transaction");
                    }
                    phases.insert((*at, *transaction), (to.clone(), false));
                }
                Event::CoordinatorCrashed(seat) => {
                    for (_, (phase, _)) in phases.iter().filter(|((at, _), _)| at == seat) {
                        match phase {
                            TransactionPhase::Preparing { .. } => {
                                self.met("coordinator crash while preparing")
                            }
                            TransactionPhase::Deciding { .. } => self.met("coordinator crash while deciding"),
                            TransactionPhase::Completing { .. } | TransactionPhase::Ended { .. } => {}
                        }
                    }
                    phases.retain(|(at, _), _| at != seat);
                }
                Event::BranchMoved {
                    at,
                    transaction,
                    from,
                    to,
                } => {
                    self.moved(from, to);
                    branches.insert((at.clone(), *transaction), to.clone());
                }
                Event::ParticipantCrashed { at, kept, lost } => {
                    self.crashed(kept, lost);
                    if recovering == Some(at) {
                        self.met("crash of a participant that recovers");
                    }
                    for (_, phase) in branches.iter().filter(|((participant, _), _)| participant == at) {
                        match phase {
                            BranchPhase::Prepared(_) => self.met("crash in doubt"),
                            BranchPhase::Joined { .. } => self.met("join: lost in a crash"),
                            BranchPhase::Recording { .. } => self.met("crash between commit and its record"),
                            _ => {}
                        }
                    }
                    branches.retain(|(participant, _), _| participant != at);
                }
                Event::Recovering { at, .. } => recovering = Some(at),
                Event::Serving { .. } => recovering = None,
                Event::JoinAsked { at, transaction, .. } => {
                    let phase = branches.get(&(at.clone(), *transaction));
                    if let Some(BranchPhase::Finished(Finish::Aborted { .. })) = phase {
                        self.met("join: refused by a tombstone");
                    }
                }
                Event::Sent(envelope) => self.sent(&envelope.message),
                Event::Delivered(envelope) => {
                    if let Message::Prepare { .. } = envelope.message
                        && let crate::world::Address::Participant(at) = &envelope.to
                    {
                        match branches.get(&(at.clone(), envelope.transaction)) {
                            Some(BranchPhase::Finished(Finish::Aborted { .. })) => {
                                self.met("late Prepare met a tombstone");
                            }
                            Some(BranchPhase::Prepared(_)) => self.met("Prepare repeated in doubt"),
                            _ => {}
                        }
                    }
                }
                other => self.simple(other),
            }
        }
        self.adopted(events, history);
    }

    fn simple(&mut self, event: &Event) {
        match event {
            Event::MismatchTold { .. } => self.met("mismatch told"),
            Event::ProposalLost { .. } => self.met("proposal lost"),
            Event::ResourceRestored { .. } => self.met("holds restored"),
            Event::ResourceFinished {
                finished: Finished::CommittedBefore,
                ..
            } => self.met("commit repeated by the resource manager after a crash"),
            Event::ResourceStarted {
                work: Work::Extend(..),
                ..
            } => self.met("join: extended"),
            Event::BranchIgnored {
                why: Ignored::AlreadyPreparing,
                ..
            } => self.met("repeated Prepare while preparing"),
            _ => {}
        }
    }

    fn applied(&mut self, command: &Command, applied: &Applied) {
        let (Command::Decide(proposal), Applied::Decided(record)) = (command, applied) else {
            return;
        };
        if record.decision.is_commit() != proposal.decision.is_commit() {
            return self.met("decision lost against another decision");
        }
        match &record.decision {
            Decision::Commit => self.met("commit"),
            Decision::Abort(AbortReason::VotedNo { .. }) => self.met("abort by No"),
            Decision::Abort(AbortReason::DeadlinePassed { .. }) => self.met("abort by deadline"),
            Decision::Abort(AbortReason::Requested) => self.met("abort by request"),
            Decision::Abort(AbortReason::Presumed) => {}
        }
    }

    fn moved(&mut self, from: &BranchPhase, to: &BranchPhase) {
        match (from, to) {
            (BranchPhase::Promising(_), BranchPhase::Aborting { .. }) => {
                self.met("abort of a branch that was promising");
            }
            (BranchPhase::Preparing(_), BranchPhase::Cancelling) => {
                self.met("abort while the resource manager worked")
            }
            (BranchPhase::Joining { .. }, BranchPhase::Joined { .. }) => self.met("join: joined"),
            (BranchPhase::Joining { .. }, BranchPhase::Interrupted { .. }) => {
                self.met("join: given up while it worked");
            }
            (BranchPhase::Joined { .. }, BranchPhase::Promising(_)) => self.met("join: promised"),
            (BranchPhase::Joined { .. }, BranchPhase::Aborting { .. }) => self.met("join: let go"),
            _ => {}
        }
    }

    fn crashed(&mut self, kept: &[Record], lost: &[Record]) {
        if lost.iter().any(|record| matches!(record, Record::Prepared(..))) {
            self.met("crash lost a promise that nobody heard");
        }
        if !kept.is_empty() {
            self.met("crash kept a record that was not synced");
        }
    }

    fn sent(&mut self, message: &Message) {
        use crate::world::Told;
        match message {
            Message::Voted {
                vote: Vote::ReadOnly, ..
            } => self.met("read-only vote"),
            Message::Answered {
                told: Told::Committed,
                ..
            } => self.met("inquiry answered Commit"),
            Message::Answered {
                told: Told::Aborted, ..
            } => self.met("inquiry answered Abort"),
            _ => {}
        }
    }

    fn adopted(&mut self, events: &[Event], history: &History) {
        for event in events {
            if let Event::Adopted {
                transaction,
                request_hash,
                ..
            } = event
            {
                match history.commits(*transaction, *request_hash) {
                    Some(true) => self.met("adopted and committed"),
                    Some(false) => self.met("adopted and aborted"),
                    None => {}
                }
            }
        }
    }
}
