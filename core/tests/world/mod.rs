//! A deterministic world around the real state machines of `unanimo-core`.
//!
//! Any coordinator node may act as leader at any time, also two at once. One decision table stands for Raft: a
//! proposal is applied later, or is lost with the leader that made it. Participants have a journal with a tail that
//! a crash may lose and a resource manager that forgets its holds in a crash. The network is a multiset of messages
//! that may be delivered in any order, repeated, lost or held back. Nothing happens by itself: whatever could happen
//! next is [`World::pending`], and an [`Action`] says what does.
//!
//! [`World::events`] tells everything that happened, for transcripts to print and for invariants to read.

// Two test programs share this module, and each uses its own part of it.
#![allow(dead_code, unused_imports)]

mod action;
mod coordinator;
mod event;
mod journal;
mod message;
mod names;
mod participant;
mod pending;
mod raft;
mod resource;

use std::collections::BTreeMap;

use unanimo_core::{ParticipantId, RequestHash, Timestamp, TransactionId};

pub(crate) use action::{Action, Forged};
pub(crate) use coordinator::Coordinator;
pub(crate) use event::Event;
pub(crate) use message::{Address, Envelope, Message, Told};
pub(crate) use names::{Names, Seat, participant, request, transaction, transaction_name};
pub(crate) use participant::{Participant, Presence};
pub(crate) use raft::Raft;
pub(crate) use resource::{Finished, Work};

/// Everything there is.
#[derive(Clone, Debug)]
pub(crate) struct World {
    coordinators: Vec<Coordinator>,
    participants: BTreeMap<ParticipantId, Participant>,
    network: Vec<Envelope>,
    raft: Raft,
    held: Vec<String>,
    names: Names,
    events: Vec<Event>,
}

impl World {
    /// A world in which every node runs and nothing has happened.
    pub(crate) fn new(coordinators: usize, participants: usize) -> Self {
        #[cfg(feature = "mutants")]
        plant_what_is_asked_for();
        Self {
            coordinators: (1..=coordinators).map(Coordinator::new).collect(),
            participants: (1..=participants)
                .map(|number| (participant(number), Participant::new()))
                .collect(),
            network: Vec::new(),
            raft: Raft::default(),
            held: Vec::new(),
            names: Names::default(),
            events: Vec::new(),
        }
    }

    /// Everything that has happened, oldest first.
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    /// How to write what has happened.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// The table and the proposals on their way.
    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The nodes, the first of them `c1`.
    pub(crate) fn coordinators(&self) -> &[Coordinator] {
        &self.coordinators
    }

    /// The participants by name.
    pub(crate) fn participants(&self) -> &BTreeMap<ParticipantId, Participant> {
        &self.participants
    }

    /// Does one thing. An error says why it cannot be done now; then nothing has changed.
    pub(crate) fn perform(&mut self, action: &Action) -> Result<(), String> {
        self.check(action)?;
        self.happened(Event::Performed(action.to_string()));
        match action {
            Action::Submit {
                node,
                transaction: id,
                branches,
                blind,
            } => self.submit(*node, transaction(*id), &request(branches), *blind),
            Action::Join {
                participant: number,
                transaction: id,
                operation,
            } => self.join(&participant(*number), transaction(*id), operation),
            Action::Expire {
                participant: number,
                transaction: id,
            } => self.expire(&participant(*number), transaction(*id)),
            Action::Commit {
                node,
                transaction: id,
                participants,
            } => {
                let members = participants.iter().copied().map(participant).collect();
                self.commit(*node, transaction(*id), members);
            }
            Action::AskForAbort {
                node,
                transaction: id,
            } => self.ask_for_abort(*node, transaction(*id)),
            Action::Deadline {
                node,
                transaction: id,
            } => self.deadline(*node, transaction(*id)),
            Action::Resend {
                node,
                transaction: id,
            } => self.resend(*node, transaction(*id)),
            Action::Read {
                node,
                transaction: id,
            } => self.read(*node, transaction(*id)),
            Action::TakeOver { node } => self.take_over(*node),
            Action::Ask {
                participant: number,
                transaction: id,
                node,
            } => self.ask(&participant(*number), transaction(*id), *node),
            Action::Do(words) => self.do_oldest(words)?,
            Action::Repeat(words) => self.repeat(words)?,
            Action::Lose(words) => self.lose(words)?,
            Action::Hold(words) => self.held.push(words.clone()),
            Action::Release => self.held.clear(),
            Action::Run => self.run(),
            Action::CrashParticipant {
                participant: number,
                keep,
            } => self.crash_participant(&participant(*number), *keep),
            Action::RestartParticipant { participant: number } => {
                self.restart_participant(&participant(*number))
            }
            Action::CrashCoordinator { node } => self.crash_coordinator(*node),
            Action::RestartCoordinator { node } => self.restart_coordinator(*node),
            Action::SetParticipantClock {
                participant: number,
                at_ms,
            } => self.participant_mut(&participant(*number)).now = Timestamp::from_unix_ms(*at_ms),
            Action::SetCoordinatorClock { node, at_ms } => {
                self.coordinator_mut(*node).now = Timestamp::from_unix_ms(*at_ms);
            }
            Action::Register {
                participant: number,
                node,
                address,
            } => self.register(*number, *node, address.clone()),
            Action::FallBack {
                participant: number,
                records,
            } => self.fall_back(&participant(*number), *records),
            Action::Forge {
                node,
                participant: number,
                what,
                transaction: id,
            } => self.forge(*node, *number, *what, transaction(*id)),
        }
        Ok(())
    }

    /// Refuses what cannot happen to nodes in their present state.
    fn check(&self, action: &Action) -> Result<(), String> {
        let presence = |number: &usize| self.participant(&participant(*number)).presence;
        let (allowed, why) = match action {
            Action::Submit { node, .. }
            | Action::Commit { node, .. }
            | Action::AskForAbort { node, .. }
            | Action::Deadline { node, .. }
            | Action::Resend { node, .. }
            | Action::Read { node, .. }
            | Action::TakeOver { node }
            | Action::CrashCoordinator { node } => (self.coordinator(*node).up, "the node is down"),
            Action::RestartCoordinator { node } => (!self.coordinator(*node).up, "the node runs"),
            Action::Ask { participant, .. }
            | Action::Join { participant, .. }
            | Action::Expire { participant, .. }
            | Action::Register { participant, .. } => (
                presence(participant) == Presence::Serving,
                "the participant does not serve",
            ),
            Action::CrashParticipant { participant, .. } => {
                (presence(participant) != Presence::Down, "the participant is down")
            }
            Action::RestartParticipant { participant } | Action::FallBack { participant, .. } => {
                (presence(participant) == Presence::Down, "the participant runs")
            }
            Action::Do(_)
            | Action::Repeat(_)
            | Action::Lose(_)
            | Action::Hold(_)
            | Action::Release
            | Action::Run
            | Action::SetParticipantClock { .. }
            | Action::SetCoordinatorClock { .. }
            | Action::Forge { .. } => (true, ""),
        };
        if allowed {
            Ok(())
        } else {
            Err(format!("{action}: {why}"))
        }
    }

    /// The messages on their way.
    pub(crate) fn network(&self) -> &[Envelope] {
        &self.network
    }

    /// Whether this node still is in this life.
    pub(crate) fn lives(&self, seat: Seat) -> bool {
        let coordinator = self.coordinator(seat.node);
        coordinator.up && coordinator.seat == seat
    }

    fn send(&mut self, envelope: Envelope) {
        self.happened(Event::Sent(envelope.clone()));
        self.network.push(envelope);
    }

    fn forge(&mut self, node: usize, number: usize, what: Forged, id: TransactionId) {
        let unknown = RequestHash::from_bytes([0; 32]);
        let entry = self.participant(&participant(number)).branches.get(&id);
        let known = entry
            .and_then(|entry| known_request(&entry.branch))
            .unwrap_or(unknown);
        let message = match what {
            Forged::Commit => Message::Commit { request_hash: known },
            Forged::CommitOther => Message::Commit {
                request_hash: unknown,
            },
            Forged::Abort => Message::Abort { request_hash: known },
        };
        self.send(Envelope {
            from: Address::Coordinator(self.coordinator(node).seat),
            to: Address::Participant(participant(number)),
            transaction: id,
            message,
        });
    }

    fn crash_coordinator(&mut self, node: usize) {
        let coordinator = self.coordinator_mut(node);
        coordinator.up = false;
        coordinator.running.clear();
        let seat = coordinator.seat;
        self.happened(Event::CoordinatorCrashed(seat));
    }

    fn restart_coordinator(&mut self, node: usize) {
        let coordinator = self.coordinator_mut(node);
        coordinator.up = true;
        coordinator.seat.life += 1;
        let seat = coordinator.seat;
        self.happened(Event::CoordinatorStarted(seat));
    }

    fn happened(&mut self, event: Event) {
        self.events.push(event);
    }

    fn remark(&mut self, text: String) {
        self.happened(Event::Remark(text));
    }

    pub(crate) fn coordinator(&self, node: usize) -> &Coordinator {
        &self.coordinators[node - 1]
    }

    fn coordinator_mut(&mut self, node: usize) -> &mut Coordinator {
        &mut self.coordinators[node - 1]
    }

    pub(crate) fn participant(&self, id: &ParticipantId) -> &Participant {
        &self.participants[id]
    }

    fn participant_mut(&mut self, id: &ParticipantId) -> &mut Participant {
        self.participants
            .get_mut(id)
            .expect("scripts name participants that exist")
    }
}

/// Gives this process the planted bug that its environment asks for.
#[cfg(feature = "mutants")]
fn plant_what_is_asked_for() {
    use unanimo_core::mutants::{Mutant, plant};
    if let Ok(name) = std::env::var("UNANIMO_MUTANT") {
        plant(Mutant::named(&name).expect("there is such a mutant"));
    }
}

/// The request that a branch acts for, where it remembers.
fn known_request(branch: &unanimo_core::Branch) -> Option<RequestHash> {
    use unanimo_core::{BranchPhase as Phase, Finish};
    match branch.phase() {
        Phase::Preparing(request) => Some(request.request_hash),
        Phase::Promising(prepared) | Phase::Prepared(prepared) | Phase::Committing(prepared) => {
            Some(prepared.request_hash)
        }
        Phase::Recording { request_hash }
        | Phase::Finished(Finish::Committed { request_hash } | Finish::ReadOnly { request_hash }) => {
            Some(*request_hash)
        }
        Phase::Unknown
        | Phase::Joining { .. }
        | Phase::Joined { .. }
        | Phase::Interrupted { .. }
        | Phase::Cancelling
        | Phase::Aborting { .. }
        | Phase::Finished(Finish::Aborted { .. }) => None,
    }
}
