//! What could happen next: messages on their way, work of resource managers, syncs, proposals. A script names one of
//! them by some of its words.

use unanimo_core::ParticipantId;

use super::World;
use super::event::{Event, command_line};
use super::message::{Address, Envelope};
use super::participant::Presence;

/// Where something pending is, in the order in which `run` prefers them: messages first, the table last, oldest first within each.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Message(usize),
    Work(ParticipantId, usize),
    Sync(ParticipantId),
    Proposal(usize),
}

impl World {
    /// What could happen next without anybody's doing, as a script would name it.
    pub(crate) fn pending(&self) -> Vec<String> {
        self.places().iter().map(|place| self.describe(place)).collect()
    }

    /// Proposals that nobody waits for any more, and that may be lost.
    pub(crate) fn orphaned_proposals(&self) -> Vec<String> {
        let pending = self.raft.pending().iter().enumerate();
        let orphaned = pending.filter(|(_, proposal)| !self.lives(proposal.by));
        orphaned
            .map(|(place, _)| self.describe(&Place::Proposal(place)))
            .collect()
    }

    /// Everything happens that is pending and not held.
    pub(crate) fn run(&mut self) {
        let free = |world: &Self, place: &Place| {
            let text = world.describe(place);
            !world.held.iter().any(|words| text.contains(words))
        };
        while let Some(place) = self.places().into_iter().find(|place| free(self, place)) {
            self.happen(place);
        }
    }

    fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = (0..self.network.len()).map(Place::Message).collect();
        for (id, participant) in &self.participants {
            let working = participant.resource.working().len();
            places.extend((0..working).map(|place| Place::Work(id.clone(), place)));
        }
        for (id, participant) in &self.participants {
            if !participant.journal.tail().is_empty() {
                places.push(Place::Sync(id.clone()));
            }
        }
        places.extend((0..self.raft.pending().len()).map(Place::Proposal));
        places
    }

    fn describe(&self, place: &Place) -> String {
        match place {
            Place::Message(place) => self.network[*place].line(&self.names),
            Place::Work(id, place) => format!("{id} rm {}", self.participant(id).resource.working()[*place]),
            Place::Sync(id) => format!("{id} sync"),
            Place::Proposal(place) => {
                let proposal = &self.raft.pending()[*place];
                format!(
                    "table {} of {}",
                    command_line(&proposal.command, &self.names),
                    proposal.by
                )
            }
        }
    }

    fn happen(&mut self, place: Place) {
        match place {
            Place::Message(place) => {
                let envelope = self.network.remove(place);
                self.deliver(envelope);
            }
            Place::Work(id, place) => self.finish_work(&id, place),
            Place::Sync(id) => self.sync(&id),
            Place::Proposal(place) => {
                let (proposal, applied) = self.raft.apply(place);
                self.happened(Event::Applied {
                    by: proposal.by,
                    command: proposal.command.clone(),
                    applied: applied.clone(),
                });
                self.hear_from_table(proposal.by, &proposal.command, applied);
            }
        }
    }

    fn find(&self, words: &str) -> Result<Place, String> {
        let place = self
            .places()
            .into_iter()
            .find(|place| self.describe(place).contains(words));
        place.ok_or_else(|| {
            format!(
                "nothing pending contains {words:?}; pending are {:#?}",
                self.pending()
            )
        })
    }

    /// The oldest pending thing that contains these words happens.
    pub(super) fn do_oldest(&mut self, words: &str) -> Result<(), String> {
        let place = self.find(words)?;
        self.happen(place);
        Ok(())
    }

    /// The message is delivered, and stays on its way.
    pub(super) fn repeat(&mut self, words: &str) -> Result<(), String> {
        match self.find(words)? {
            Place::Message(place) => {
                let envelope = self.network[place].clone();
                self.deliver(envelope);
                Ok(())
            }
            Place::Work(..) | Place::Sync(_) | Place::Proposal(_) => {
                Err("only messages are repeated".to_owned())
            }
        }
    }

    /// The message is lost, or the proposal of a leader that is gone.
    pub(super) fn lose(&mut self, words: &str) -> Result<(), String> {
        match self.find(words)? {
            Place::Message(place) => {
                let envelope = self.network.remove(place);
                self.happened(Event::Lost(envelope));
                Ok(())
            }
            Place::Proposal(place) if !self.lives(self.raft.pending()[place].by) => {
                let proposal = self.raft.lose(place);
                self.happened(Event::ProposalLost {
                    by: proposal.by,
                    command: proposal.command,
                });
                Ok(())
            }
            Place::Proposal(_) => Err("a proposal is lost only with the leader that made it".to_owned()),
            Place::Work(..) | Place::Sync(_) => Err("only messages and proposals are lost".to_owned()),
        }
    }

    fn deliver(&mut self, envelope: Envelope) {
        let unheard = match &envelope.to {
            Address::Coordinator(seat) if !self.lives(*seat) => Some("that life of the node is over"),
            Address::Coordinator(_) => None,
            Address::Participant(id) => match self.participant(id).presence {
                Presence::Serving => None,
                Presence::Recovering => Some("it is recovering"),
                Presence::Down => Some("it is down"),
            },
        };
        if let Some(why) = unheard {
            return self.happened(Event::Unheard(envelope, why));
        }
        self.happened(Event::Delivered(envelope.clone()));
        match envelope.to.clone() {
            Address::Coordinator(seat) => self.hear_as_coordinator(seat.node, envelope),
            Address::Participant(id) => self.hear_as_participant(id, envelope),
        }
    }
}
