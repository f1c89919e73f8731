use std::sync::Arc;

use unanimo_core::table::Witness;
use unanimo_core::{BranchEffect, BranchInput, JoinAnswer, Position, Record, TransactionId, Violation, Vote};
use unanimo_proto::PrepareVote;

use crate::StopReason;
use crate::branches::{Branches, Completion};
use crate::entry::{Asker, Entry};
use crate::error::Refusal;
use crate::gate::watched;

impl Branches {
    /// Carries out the effects of one input in order. An error ends it: what comes after must not happen (R10).
    pub(crate) fn carry_out(
        self: &Arc<Self>,
        entry: &mut Entry,
        effects: Vec<BranchEffect>,
        mut asker: Asker,
    ) -> Result<(), StopReason> {
        let tx = entry.branch.transaction();
        for effect in effects {
            match effect {
                BranchEffect::Prepare(operation) => {
                    let calls = Arc::clone(&self.calls);
                    self.come_back(tx, async move {
                        let resolution = calls.prepare(tx, &operation).await?;
                        Some(BranchInput::Resolved(resolution))
                    });
                }
                BranchEffect::Extend { redo, operation } => {
                    let calls = Arc::clone(&self.calls);
                    self.come_back(tx, async move {
                        let resolution = calls.extend(tx, &redo, &operation).await?;
                        Some(BranchInput::Resolved(resolution))
                    });
                }
                BranchEffect::TellJoiner(answer) => {
                    self.count_join(&answer);
                    if let Some(waiting) = entry.joiner.take() {
                        let _ = waiting.send(Ok(answer));
                    }
                }
                BranchEffect::AnswerJoin(answer) => {
                    self.count_join(&answer);
                    asker = asker.join(answer);
                }
                BranchEffect::Commit { redo } => {
                    let calls = Arc::clone(&self.calls);
                    self.come_back(tx, async move {
                        calls.commit(tx, &redo).await?;
                        Some(BranchInput::Applied)
                    });
                }
                BranchEffect::Abort { redo } => {
                    let calls = Arc::clone(&self.calls);
                    self.come_back(tx, async move {
                        calls.abort(tx, Some(redo)).await?;
                        Some(BranchInput::Applied)
                    });
                }
                BranchEffect::Record(record) => self.record(entry, &record)?,
                BranchEffect::Note(record) => self.store.note(&record)?,
                BranchEffect::Vote(vote) => asker = self.tell_vote(entry, vote, asker),
                BranchEffect::Answer(vote) => {
                    self.counters.duplicates.increment();
                    asker = asker.vote(&self.answer(entry, vote));
                }
                BranchEffect::Acknowledge => {
                    asker = asker.acknowledge();
                    for waiting in entry.acknowledgements.drain(..) {
                        let _ = waiting.send(Ok(()));
                    }
                }
                BranchEffect::Inquire => self.doubts.ask(entry.inquiry()),
                BranchEffect::Refuse(violation) => {
                    self.raise_alarm(tx, &violation);
                    asker.refuse(Refusal::Violation(violation));
                    asker = Asker::Nobody;
                }
                BranchEffect::Ignored(why) => {
                    self.counters.duplicates.increment();
                    tracing::debug!(%tx, participant = %self.options.name, ?why, "ignored");
                }
            }
        }
        entry.keep(asker);
        Ok(())
    }

    fn count_join(&self, answer: &JoinAnswer) {
        match answer {
            JoinAnswer::Joined => self.counters.joined.increment(),
            JoinAnswer::Refused { .. } | JoinAnswer::Busy => self.counters.joins_refused.increment(),
        }
    }

    /// Lets a call of the resource manager run; what comes of it is the branch's next input. None comes if the
    /// participant stops.
    fn come_back(
        self: &Arc<Self>,
        transaction: TransactionId,
        call: impl Future<Output = Option<BranchInput>> + Send + 'static,
    ) {
        let this = Arc::clone(self);
        let calling = async move {
            if let Some(input) = call.await {
                this.step(transaction, input, Asker::Nobody);
            }
        };
        self.tasks.spawn(watched(&self.gate, calling));
    }

    fn record(&self, entry: &mut Entry, record: &Record) -> Result<(), StopReason> {
        let transaction = entry.branch.transaction();
        let completions = self.completions.clone();
        let sequence = self.store.record(record, move || {
            // Nobody listens any more once the participant has stopped.
            let _ = completions.send(Completion::Recorded(transaction));
        })?;
        if matches!(record, Record::Prepared(..)) {
            entry.promised_at = Some(sequence);
        }
        Ok(())
    }

    fn tell_vote(&self, entry: &mut Entry, vote: Vote, asker: Asker) -> Asker {
        let tx = entry.branch.transaction();
        tracing::debug!(%tx, participant = %self.options.name, %vote, "voted");
        match &vote {
            Vote::Yes => self.counters.voted_yes.increment(),
            Vote::ReadOnly => self.counters.voted_read_only.increment(),
            Vote::No { .. } => self.counters.voted_no.increment(),
        }
        let answer = self.answer(entry, vote);
        for waiting in entry.votes.drain(..) {
            let _ = waiting.send(Ok(answer.clone()));
        }
        asker.vote(&answer)
    }

    /// A vote, and of a Yes where its promise stands. Of a promise that has left memory the position is not known. That
    /// our journal reaches as far as the registration of this life says is as true.
    fn answer(&self, entry: &Entry, vote: Vote) -> PrepareVote {
        let witness = match vote {
            Vote::Yes => {
                let promised_at = entry.promised_at.map(|sequence| Position(sequence.get()));
                Some(Witness {
                    position: promised_at.unwrap_or(self.start.position),
                    ..self.start
                })
            }
            Vote::ReadOnly | Vote::No { .. } => None,
        };
        PrepareVote { vote, witness }
    }

    fn raise_alarm(&self, transaction: TransactionId, violation: &Violation) {
        self.counters.violations.increment();
        tracing::error!(tx = %transaction, participant = %self.options.name, %violation, "a message was refused");
    }
}
