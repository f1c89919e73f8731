//! One transaction at the coordinator.
//!
//! The driver runs one [`Transaction`] for each id on the leader only, and only to save time: whatever two
//! leaders do at once, the decision table lets one decision win (R1), and no member hears a decision that is not
//! in the table (R2). So a leader may die, wake up late or be deposed at any step.

use std::collections::BTreeMap;
use std::fmt;

use crate::mutants::{self, Mutant};
use crate::table::{DecisionRecord, Proposal, Witness};
use crate::{
    AbortReason, Decision, Ignored, Members, Operation, ParticipantId, Request, RequestHash, Tally,
    Timestamp, TransactionId, Verdict, Violation, Vote,
};

/// How far a transaction has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Members are asked to prepare.
    Preparing {
        /// The votes so far.
        tally: Tally,
        /// When the voting phase ends.
        deadline: Timestamp,
    },
    /// A decision has been proposed to the table and is not known to be recorded. Nobody has heard it (R2).
    Deciding {
        /// The decision wanted.
        proposed: Decision,
        /// The votes it rests on.
        tally: Tally,
        /// When the voting phase ends, if votes are wanted again.
        deadline: Timestamp,
    },
    /// The decision is recorded and on its way to the members.
    Completing {
        /// The decision that holds.
        decision: Decision,
        /// Who has yet to acknowledge it.
        unacknowledged: Members,
    },
    /// Every member that had to has acknowledged.
    Ended {
        /// The decision that holds.
        decision: Decision,
    },
}

/// In one word, with the decision if there is one.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preparing { .. } => f.write_str("Preparing"),
            Self::Deciding { proposed, .. } => write!(f, "Deciding {proposed}"),
            Self::Completing { decision, .. } => write!(f, "Completing {decision}"),
            Self::Ended { decision } => write!(f, "Ended {decision}"),
        }
    }
}

/// What may happen to a transaction at the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionInput {
    /// A member voted.
    Voted {
        /// Who.
        participant: ParticipantId,
        /// What.
        vote: Vote,
        /// Where the vote's record stands in the member's journal; absent for a vote without a record.
        witness: Option<Witness>,
    },
    /// The driver's timer for the voting phase fired.
    TimerFired,
    /// The initiator wants the transaction aborted.
    AbortRequested,
    /// The table holds a decision for this id: the one proposed, or one that was there first.
    DecisionRecorded(DecisionRecord),
    /// The table has not recorded the Commit that was proposed: these members have come up again since they voted, and
    /// have to say that they still know what they promised (R11).
    PromisesSuperseded {
        /// Who.
        participants: Members,
    },
    /// A member has made the decision durable.
    Acknowledged {
        /// Who.
        participant: ParticipantId,
        /// How far its journal reached then, if it says so.
        witness: Option<Witness>,
    },
}

/// What the driver has to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionEffect {
    /// Ask a member to prepare, again and again until it votes or the voting phase ends.
    Prepare {
        /// Whom.
        participant: ParticipantId,
        /// What it is to do; absent if it was told before, by the application or by an earlier leader.
        operation: Option<Operation>,
    },
    /// Record a decision in the table, and come back with what the table then holds. Until then nobody may
    /// hear of it.
    Decide(Proposal),
    /// Tell the initiator.
    Answer(Decision),
    /// Tell the initiator that the id belongs to another request; its own request had no effect and never will.
    AnswerMismatch {
        /// The hash of the request that owns the id.
        stored: RequestHash,
    },
    /// Tell a member the decision, again and again until it acknowledges.
    Deliver {
        /// Whom.
        participant: ParticipantId,
        /// The decision.
        decision: Decision,
    },
    /// Record in the table that these members have acknowledged. Losing it costs a repeated delivery.
    RecordAcknowledged {
        /// Who.
        participants: Members,
        /// How far their journals reached then, of those that say so (R11).
        witnesses: BTreeMap<ParticipantId, Witness>,
    },
    /// Nothing has to be done, and why.
    Ignored(Ignored),
    /// Something that cannot happen did; tell somebody (R9).
    Alarm(Violation),
}

/// One transaction at the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    id: TransactionId,
    request_hash: RequestHash,
    members: Members,
    /// Where the promises stand.
    witnesses: BTreeMap<ParticipantId, Witness>,
    /// How far the journals reached when the decision was acknowledged.
    acknowledged_at: BTreeMap<ParticipantId, Witness>,
    phase: Phase,
}

impl Transaction {
    /// Starts a one-shot request: every member is asked to prepare at once.
    pub fn submitted(
        id: TransactionId,
        request: &Request,
        deadline: Timestamp,
    ) -> (Self, Vec<TransactionEffect>) {
        let members: Members = request.branches().keys().cloned().collect();
        let effects = request
            .branches()
            .iter()
            .map(|(participant, operation)| TransactionEffect::Prepare {
                participant: participant.clone(),
                operation: Some(operation.clone()),
            });
        (
            Self::preparing(id, request.hash(), members, deadline),
            effects.collect(),
        )
    }

    /// Starts a transaction whose members know their operations already: an interactive one at its commit, or one
    /// that an earlier leader left undecided (R6). Who never saw its operation votes No.
    pub fn adopted(
        id: TransactionId,
        request_hash: RequestHash,
        members: Members,
        deadline: Timestamp,
    ) -> (Self, Vec<TransactionEffect>) {
        let ask = |participant: &ParticipantId| TransactionEffect::Prepare {
            participant: participant.clone(),
            operation: None,
        };
        let effects = members.iter().map(ask).collect();
        (Self::preparing(id, request_hash, members, deadline), effects)
    }

    /// Resumes a transaction that the table holds a decision for.
    pub fn resumed(id: TransactionId, record: DecisionRecord) -> (Self, Vec<TransactionEffect>) {
        let decision = record.decision.clone();
        let mut transaction = Self {
            id,
            request_hash: record.request_hash,
            members: record.members,
            witnesses: BTreeMap::new(),
            acknowledged_at: BTreeMap::new(),
            phase: Phase::Ended {
                decision: decision.clone(),
            },
        };
        let effects = transaction.complete(decision, record.unacknowledged);
        (transaction, effects)
    }

    fn preparing(
        id: TransactionId,
        request_hash: RequestHash,
        members: Members,
        deadline: Timestamp,
    ) -> Self {
        let phase = Phase::Preparing {
            tally: Tally::new(&members),
            deadline,
        };
        Self {
            id,
            request_hash,
            members,
            witnesses: BTreeMap::new(),
            acknowledged_at: BTreeMap::new(),
            phase,
        }
    }

    /// The id.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// The request's fingerprint.
    pub fn request_hash(&self) -> RequestHash {
        self.request_hash
    }

    /// Every member.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// How far the journals of members reached that have acknowledged and said so.
    pub fn acknowledged_at(&self) -> &BTreeMap<ParticipantId, Witness> {
        &self.acknowledged_at
    }

    /// How far it has come.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Advances by one input. Does no IO; the driver carries out the effects in order.
    pub fn step(&mut self, input: TransactionInput, now: Timestamp) -> Vec<TransactionEffect> {
        match input {
            TransactionInput::Voted {
                participant,
                vote,
                witness,
            } => self.voted(participant, vote, witness, now),
            TransactionInput::TimerFired => self.timer_fired(now),
            TransactionInput::AbortRequested => self.abort_requested(now),
            TransactionInput::DecisionRecorded(record) => self.decision_recorded(record),
            TransactionInput::PromisesSuperseded { participants } => self.promises_superseded(&participants),
            TransactionInput::Acknowledged { participant, witness } => {
                self.acknowledged(participant, witness)
            }
        }
    }

    fn voted(
        &mut self,
        participant: ParticipantId,
        vote: Vote,
        witness: Option<Witness>,
        now: Timestamp,
    ) -> Vec<TransactionEffect> {
        if !self.members.contains(&participant) {
            return vec![TransactionEffect::Ignored(Ignored::NotAMember)];
        }
        let Phase::Preparing { tally, .. } = &mut self.phase else {
            return vec![TransactionEffect::Ignored(Ignored::LateVote)];
        };
        if !tally.count(&participant, vote) {
            return vec![TransactionEffect::Ignored(Ignored::RepeatedVote)];
        }
        if let Some(witness) = witness {
            self.witnesses.insert(participant, witness);
        }
        match tally.verdict() {
            Verdict::Pending => Vec::new(),
            Verdict::Unanimous if mutants::is_on(Mutant::M29) && self.members.len() > 1 => {
                self.decide(Decision::Abort(AbortReason::Requested), now)
            }
            Verdict::Unanimous => self.decide(Decision::Commit, now),
            Verdict::Refused { participant, reason } => {
                let reason = AbortReason::VotedNo { participant, reason };
                self.decide(Decision::Abort(reason), now)
            }
        }
    }

    fn timer_fired(&mut self, now: Timestamp) -> Vec<TransactionEffect> {
        match &self.phase {
            Phase::Preparing { tally, .. } => {
                let missing = tally.missing();
                self.decide(Decision::Abort(AbortReason::DeadlinePassed { missing }), now)
            }
            // The deadline bounds the voting phase only. What is proposed may be recorded, and what is recorded
            // is delivered however long it takes.
            Phase::Deciding { .. } | Phase::Completing { .. } | Phase::Ended { .. } => {
                vec![TransactionEffect::Ignored(Ignored::LateTimer)]
            }
        }
    }

    fn abort_requested(&mut self, now: Timestamp) -> Vec<TransactionEffect> {
        match &self.phase {
            Phase::Preparing { .. } => self.decide(Decision::Abort(AbortReason::Requested), now),
            Phase::Deciding { .. } => vec![TransactionEffect::Ignored(Ignored::AlreadyDeciding)],
            Phase::Completing { decision, .. } | Phase::Ended { decision } => {
                vec![TransactionEffect::Answer(decision.clone())]
            }
        }
    }

    /// Decide before you speak (R2): nothing but the proposal leaves this node.
    fn decide(&mut self, decision: Decision, now: Timestamp) -> Vec<TransactionEffect> {
        let Phase::Preparing { tally, deadline } = &self.phase else {
            unreachable!("only who collects votes decides, not {:?}", self.phase)
        };
        let unacknowledged = tally.bound();
        self.phase = Phase::Deciding {
            proposed: decision.clone(),
            tally: tally.clone(),
            deadline: *deadline,
        };
        vec![TransactionEffect::Decide(Proposal {
            transaction: self.id,
            decision,
            request_hash: self.request_hash,
            members: self.members.clone(),
            unacknowledged,
            witnesses: self.witnesses.clone(),
            decided_at: now,
        })]
    }

    fn decision_recorded(&mut self, record: DecisionRecord) -> Vec<TransactionEffect> {
        match &self.phase {
            // A decision may be found while members still vote: another leader decided, or the initiator asked
            // for an abort through another node. The table's word holds.
            Phase::Preparing { .. } | Phase::Deciding { .. } => self.adopt_record(record),
            Phase::Completing { decision, .. } | Phase::Ended { decision } => {
                let told = record.decision_for(self.request_hash);
                if told.is_commit() == decision.is_commit() {
                    vec![TransactionEffect::Ignored(Ignored::RepeatedDecision)]
                } else {
                    let known = decision.clone();
                    vec![TransactionEffect::Alarm(Violation::DecisionChanged {
                        known,
                        other: told,
                    })]
                }
            }
        }
    }

    /// Asks those members again. They know their operations, or lost them with their promises and vote No.
    fn promises_superseded(&mut self, participants: &Members) -> Vec<TransactionEffect> {
        let Phase::Deciding {
            proposed: Decision::Commit,
            tally,
            deadline,
        } = &mut self.phase
        else {
            return vec![TransactionEffect::Ignored(Ignored::LateSupersession)];
        };
        tally.withdraw(participants);
        let asked = tally.missing();
        self.witnesses.retain(|member, _| !asked.contains(member));
        self.phase = Phase::Preparing {
            tally: tally.clone(),
            deadline: *deadline,
        };
        let ask = |participant| TransactionEffect::Prepare {
            participant,
            operation: None,
        };
        asked.into_iter().map(ask).collect()
    }

    fn adopt_record(&mut self, record: DecisionRecord) -> Vec<TransactionEffect> {
        if !record.is_for(self.request_hash) {
            // The id is another request's, so ours can never commit. Nothing is delivered: an Abort names only the
            // id, and would reach members that promised for the request that won. Who promised for ours asks, and
            // its inquiry says for which request.
            self.phase = Phase::Ended {
                decision: record.decision_for(self.request_hash),
            };
            return vec![TransactionEffect::AnswerMismatch {
                stored: record.request_hash,
            }];
        }
        let unacknowledged = if record.request_hash == self.request_hash {
            record.unacknowledged
        } else {
            // An abort that was made for no request names whom its initiator knew of. Ours may have promised all the
            // same; nothing else was decided under this id, so nobody hears an Abort that is not theirs.
            self.members.clone()
        };
        let mut effects = vec![TransactionEffect::Answer(record.decision.clone())];
        effects.extend(self.complete(record.decision, unacknowledged));
        effects
    }

    fn complete(&mut self, decision: Decision, unacknowledged: Members) -> Vec<TransactionEffect> {
        assert!(
            unacknowledged.is_subset(&self.members),
            "only members acknowledge"
        );
        if unacknowledged.is_empty() {
            self.phase = Phase::Ended { decision };
            return Vec::new();
        }
        let deliver = |participant: &ParticipantId| TransactionEffect::Deliver {
            participant: participant.clone(),
            decision: decision.clone(),
        };
        let effects = unacknowledged.iter().map(deliver).collect();
        self.phase = Phase::Completing {
            decision,
            unacknowledged,
        };
        effects
    }

    fn acknowledged(
        &mut self,
        participant: ParticipantId,
        witness: Option<Witness>,
    ) -> Vec<TransactionEffect> {
        if !self.members.contains(&participant) {
            return vec![TransactionEffect::Ignored(Ignored::NotAMember)];
        }
        let Phase::Completing {
            decision,
            unacknowledged,
        } = &mut self.phase
        else {
            return vec![TransactionEffect::Ignored(Ignored::RepeatedAcknowledgement)];
        };
        if !unacknowledged.remove(&participant) {
            return vec![TransactionEffect::Ignored(Ignored::RepeatedAcknowledgement)];
        }
        if let Some(witness) = witness {
            self.acknowledged_at.insert(participant, witness);
        }
        let enough = mutants::is_on(Mutant::M13) && unacknowledged.len() * 2 < self.members.len();
        if !unacknowledged.is_empty() && !enough {
            return Vec::new();
        }
        // Recorded once for all: a leader that dies before only delivers again what its members know.
        self.phase = Phase::Ended {
            decision: decision.clone(),
        };
        vec![TransactionEffect::RecordAcknowledged {
            participants: self.members.clone(),
            witnesses: self.acknowledged_at.clone(),
        }]
    }
}
