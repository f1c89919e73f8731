//! The faults stop: everything runs again, and whatever is unfinished is repeated. Then everything must end.

use unanimo_core::{BranchPhase, TransactionPhase};

use super::Run;
use crate::world::{Action, Presence, participant, transaction_name};

/// More rounds than any run needs; a world that is not at rest by then never will be.
const ROUNDS: usize = 12;

impl Run<'_> {
    /// Stops the faults and checks that everything comes to rest.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.start_everybody()?;
        for _ in 0..ROUNDS {
            self.perform(&Action::Run)?;
            if self.unfinished().is_none() {
                return self.answer_everybody();
            }
            self.repeat_what_is_unfinished()?;
        }
        Err(format!(
            "the faults have stopped and still {}",
            self.unfinished().unwrap_or_default()
        ))
    }

    fn start_everybody(&mut self) -> Result<(), String> {
        for node in 1..=self.schedule.coordinators {
            self.perform(&Action::RestartCoordinator { node })?;
        }
        for number in 1..=self.schedule.participants {
            self.perform(&Action::RestartParticipant { participant: number })?;
        }
        Ok(())
    }

    /// What drivers do by their timers, with `c1` as the leader.
    fn repeat_what_is_unfinished(&mut self) -> Result<(), String> {
        self.perform(&Action::TakeOver { node: 1 })?;
        for transaction in 1..=self.schedule.transactions.len() as u64 {
            let id = crate::world::transaction(transaction);
            for node in 1..=self.schedule.coordinators {
                if self.world.coordinator(node).running.contains_key(&id) {
                    self.perform(&Action::Resend { node, transaction })?;
                    self.perform(&Action::Read { node, transaction })?;
                }
            }
            for number in 1..=self.schedule.participants {
                self.let_go_of_what_nobody_commits(number, transaction)?;
                let entry = self.world.participant(&participant(number)).branches.get(&id);
                if entry.is_some_and(|entry| entry.branch.in_doubt().is_some()) {
                    self.perform(&Action::Ask {
                        participant: number,
                        transaction,
                        node: 1,
                    })?;
                }
            }
        }
        Ok(())
    }

    /// What was joined is let go at its deadline.
    fn let_go_of_what_nobody_commits(&mut self, number: usize, transaction: u64) -> Result<(), String> {
        let id = crate::world::transaction(transaction);
        let entry = self.world.participant(&participant(number)).branches.get(&id);
        let joined = entry.is_some_and(|entry| {
            let phase = entry.branch.phase();
            matches!(phase, BranchPhase::Joining { .. } | BranchPhase::Joined { .. })
        });
        if joined {
            self.perform(&Action::Expire {
                participant: number,
                transaction,
            })?;
        }
        Ok(())
    }

    /// The first thing that is not at rest.
    fn unfinished(&self) -> Option<String> {
        for (at, participant) in self.world.participants() {
            if participant.presence != Presence::Serving {
                return Some(format!("{at} does not serve"));
            }
            if let Some(id) = participant.resource.holds().first() {
                return Some(format!("{at} holds something for {}", transaction_name(*id)));
            }
            for (id, entry) in &participant.branches {
                let phase = entry.branch.phase();
                if !matches!(phase, BranchPhase::Unknown | BranchPhase::Finished(_)) {
                    return Some(format!("{at} {} is {phase}", transaction_name(*id)));
                }
            }
        }
        for (id, record) in self.world.raft().table().records() {
            if !record.is_ended() {
                return Some(format!("{} is not acknowledged", transaction_name(*id)));
            }
        }
        for coordinator in self.world.coordinators() {
            for (id, running) in &coordinator.running {
                let phase = running.transaction.phase();
                if !matches!(phase, TransactionPhase::Ended { .. }) {
                    let (at, id) = (coordinator.seat, transaction_name(*id));
                    return Some(format!("{at} {id} is {phase}"));
                }
            }
        }
        None
    }

    /// Every initiator asks once more and is answered; what was decided stays.
    fn answer_everybody(&mut self) -> Result<(), String> {
        for (place, requests) in self.schedule.transactions.iter().enumerate() {
            for branches in requests {
                self.perform(&Action::Submit {
                    node: 1,
                    transaction: place as u64 + 1,
                    branches: branches.clone(),
                    blind: false,
                })?;
                self.perform(&Action::Run)?;
            }
            let id = crate::world::transaction(place as u64 + 1);
            if !self.world.raft().table().records().contains_key(&id) {
                return Err(format!(
                    "{} is undecided after a submit without faults",
                    transaction_name(id)
                ));
            }
        }
        match self.unfinished() {
            None => Ok(()),
            Some(what) => Err(format!("every initiator is answered and still {what}")),
        }
    }
}
