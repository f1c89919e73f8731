use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use unanimo_core::{Branch, BranchPhase, Finish, JoinAnswer, Timestamp};
use unanimo_journal::Sequence;
use unanimo_proto::{Inquiry, PrepareVote};

use crate::error::Refusal;

/// A branch in memory, and who waits for it.
pub(crate) struct Entry {
    pub(crate) branch: Branch,
    /// Where its Prepared record stands, if it has one that this life knows of.
    pub(crate) promised_at: Option<Sequence>,
    /// The branch table has it, so it need not stay here.
    pub(crate) remembered: bool,
    pub(crate) votes: Vec<oneshot::Sender<Result<PrepareVote, Refusal>>>,
    pub(crate) acknowledgements: Vec<oneshot::Sender<Result<(), Refusal>>>,
    /// Who brought the operation that is under way.
    pub(crate) joiner: Option<oneshot::Sender<Result<JoinAnswer, Refusal>>>,
    /// Lets go of what was joined when its time is over. Dropped as soon as there is nothing to let go.
    pub(crate) timer: Option<AbortOnDropHandle<()>>,
}

impl Entry {
    pub(crate) fn new(branch: Branch, remembered: bool) -> Self {
        Self {
            branch,
            promised_at: None,
            remembered,
            votes: Vec::new(),
            acknowledgements: Vec::new(),
            joiner: None,
            timer: None,
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.branch.phase(), BranchPhase::Finished(_))
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        !matches!(
            self.branch.phase(),
            BranchPhase::Unknown | BranchPhase::Finished(_)
        )
    }

    /// Whether nothing is lost if it is dropped from memory.
    pub(crate) fn is_forgettable(&self) -> bool {
        match self.branch.phase() {
            BranchPhase::Unknown => true,
            BranchPhase::Finished(_) => self.remembered,
            BranchPhase::Joining { .. }
            | BranchPhase::Joined { .. }
            | BranchPhase::Interrupted { .. }
            | BranchPhase::Preparing(_)
            | BranchPhase::Cancelling
            | BranchPhase::Promising(_)
            | BranchPhase::Prepared(_)
            | BranchPhase::Committing(_)
            | BranchPhase::Aborting { .. }
            | BranchPhase::Recording { .. } => false,
        }
    }

    pub(crate) fn prepared_at(&self) -> Option<Timestamp> {
        self.branch.in_doubt().map(|promise| promise.prepared_at)
    }

    pub(crate) fn has_only_read(&self) -> bool {
        matches!(
            self.branch.phase(),
            BranchPhase::Finished(Finish::ReadOnly { .. })
        )
    }

    /// When what was joined is let go, if anything is.
    pub(crate) fn joined_until(&self) -> Option<Timestamp> {
        match self.branch.phase() {
            BranchPhase::Joining { request, .. } => Some(request.deadline),
            BranchPhase::Joined { deadline, .. } => Some(*deadline),
            BranchPhase::Unknown
            | BranchPhase::Interrupted { .. }
            | BranchPhase::Preparing(_)
            | BranchPhase::Cancelling
            | BranchPhase::Promising(_)
            | BranchPhase::Prepared(_)
            | BranchPhase::Committing(_)
            | BranchPhase::Aborting { .. }
            | BranchPhase::Recording { .. }
            | BranchPhase::Finished(_) => None,
        }
    }

    /// The question of a branch in doubt.
    pub(crate) fn inquiry(&self) -> Inquiry {
        let Some(promise) = self.branch.in_doubt() else {
            unreachable!(
                "only a branch in doubt asks, not one in {:?}",
                self.branch.phase()
            );
        };
        Inquiry {
            transaction: self.branch.transaction(),
            request_hash: promise.request_hash,
            members: promise.members.clone(),
        }
    }

    /// Callers that wait together with this one. Those that have gone away are dropped.
    pub(crate) fn waiting_with(&mut self, asker: &Asker) -> usize {
        self.votes.retain(|waiting| !waiting.is_closed());
        self.acknowledgements.retain(|waiting| !waiting.is_closed());
        match asker {
            Asker::Vote(_) => self.votes.len(),
            Asker::Acknowledgement(_) => self.acknowledgements.len(),
            Asker::Join(_) | Asker::Nobody => 0,
        }
    }

    /// Keeps whoever has not been told yet: they are told with the others, once there is something to tell.
    pub(crate) fn keep(&mut self, asker: Asker) {
        match asker {
            Asker::Vote(waiting) => self.votes.push(waiting),
            Asker::Acknowledgement(waiting) => self.acknowledgements.push(waiting),
            // Whoever comes while another operation is under way is turned away, so there is only one.
            Asker::Join(waiting) => self.joiner = Some(waiting),
            Asker::Nobody => {}
        }
    }
}

/// Who gave an input, and how they are told what comes of it. Whoever goes away takes nothing back.
pub(crate) enum Asker {
    Vote(oneshot::Sender<Result<PrepareVote, Refusal>>),
    Acknowledgement(oneshot::Sender<Result<(), Refusal>>),
    Join(oneshot::Sender<Result<JoinAnswer, Refusal>>),
    Nobody,
}

impl Asker {
    pub(crate) fn refuse(self, refused: Refusal) {
        // Whoever has gone away hears nothing.
        match self {
            Self::Vote(waiting) => _ = waiting.send(Err(refused)),
            Self::Acknowledgement(waiting) => _ = waiting.send(Err(refused)),
            Self::Join(waiting) => _ = waiting.send(Err(refused)),
            Self::Nobody => {}
        }
    }

    /// Tells a vote to whoever asked for one.
    pub(crate) fn vote(self, answer: &PrepareVote) -> Self {
        match self {
            Self::Vote(waiting) => {
                let _ = waiting.send(Ok(answer.clone()));
                Self::Nobody
            }
            Self::Acknowledgement(_) | Self::Join(_) | Self::Nobody => self,
        }
    }

    pub(crate) fn acknowledge(self) -> Self {
        match self {
            Self::Acknowledgement(waiting) => {
                let _ = waiting.send(Ok(()));
                Self::Nobody
            }
            Self::Vote(_) | Self::Join(_) | Self::Nobody => self,
        }
    }

    pub(crate) fn join(self, answer: JoinAnswer) -> Self {
        match self {
            Self::Join(waiting) => {
                let _ = waiting.send(Ok(answer));
                Self::Nobody
            }
            Self::Vote(_) | Self::Acknowledgement(_) | Self::Nobody => self,
        }
    }
}
