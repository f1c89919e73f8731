use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use unanimo_client::{CallError, Client};
use unanimo_core::{BranchInput, TransactionId};
use unanimo_proto::{ErrorReason, Inquiry, InquiryAnswer};

use crate::ParticipantOptions;
use crate::branches::Branches;
use crate::doubts::Doubts;
use crate::entry::Asker;
use crate::gate::Gate;
use crate::pause::{Jitter, Pauses};
use crate::statistics::Counters;

/// The pause after the first round that brought no decision. A healthy cluster needs one quorum write to decide.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How long one call may take. The client tries all nodes within it, and the next round asks again anyway.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest pause before a branch asks again whose inquiry was refused. Somebody has to act first, and should not
/// wait for long then.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Asks the coordinators about branches in doubt, many at a time, until each has its decision (R5). A timeout
/// concludes nothing (R3).
pub(crate) struct Inquirer {
    pub(crate) client: Client,
    pub(crate) options: Arc<ParticipantOptions>,
    pub(crate) branches: Arc<Branches>,
    pub(crate) doubts: Arc<Doubts>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) jitter: Arc<Jitter>,
}

impl Inquirer {
    /// Asks until the participant stops.
    pub(crate) async fn run(self) {
        let mut pauses = Pauses::new(FIRST_PAUSE, self.options.inquiry_pause_max);
        let mut failing = false;
        let mut failures = 0;
        loop {
            // Both only wait.
            tokio::select! {
                () = self.gate.stopping() => return,
                () = self.doubts.some_due() => {}
            }
            let pause = pauses.next(&self.jitter);
            // A round that is cut off has told each branch what it has heard; the others ask at the next start.
            let asked = tokio::select! {
                () = self.gate.stopping() => return,
                asked = self.ask_round(pause, failures) => asked,
            };
            match asked {
                Ok(true) => pauses.reset(),
                Ok(false) => {}
                // Said once for each time that the coordinators are away, and not twice a second.
                Err(ref error) if !failing => {
                    let (branches, _) = self.doubts.survey();
                    tracing::warn!(participant = %self.options.name, branches, %error, "branches stay in doubt");
                }
                Err(ref error) => {
                    tracing::debug!(participant = %self.options.name, %error, "nobody answers yet")
                }
            }
            failing = asked.is_err();
            failures += usize::from(failing);
            // The next round gathers what becomes due meanwhile.
            tokio::select! {
                () = self.gate.stopping() => return,
                () = tokio::time::sleep(pause.min(FIRST_PAUSE)) => {}
            }
        }
    }

    /// Asks about every branch that is due. True if anything was decided.
    ///
    /// The first call that fails ends the round, for the others would most likely fail too. So after each failure
    /// another batch comes first, or one that nobody can answer would keep all behind it waiting for ever.
    async fn ask_round(&self, pause: Duration, failures: usize) -> Result<bool, CallError> {
        for transaction in self.doubts.take_due(Instant::now() + pause) {
            self.branches
                .step(transaction, BranchInput::TimerFired, Asker::Nobody);
        }
        let mut questions = self.doubts.questions();
        let batch = self.options.inquiry_batch.max(1);
        let batches = questions.len().div_ceil(batch).max(1);
        questions.rotate_left(failures % batches * batch);
        let mut decided = false;
        for batch in questions.chunks(batch) {
            decided |= self.ask(batch).await?;
        }
        Ok(decided)
    }

    async fn ask(&self, batch: &[Inquiry]) -> Result<bool, CallError> {
        self.counters.inquiry_calls.increment();
        self.counters.inquiries.add(batch.len() as u64);
        let answers = self
            .client
            .inquire(&self.options.name, batch.to_vec(), PATIENCE)
            .await?;
        let mut decided = false;
        for (transaction, answer) in answers {
            // An answer nobody asked for says nothing about which request it is for.
            let Some(question) = batch.iter().find(|asked| asked.transaction == transaction) else {
                continue;
            };
            let input = match answer {
                InquiryAnswer::Undecided => {
                    self.doubts.taken_up(transaction);
                    continue;
                }
                InquiryAnswer::Refused { reason, message } => {
                    self.refused(transaction, reason, &message);
                    continue;
                }
                InquiryAnswer::Decided(decision) => BranchInput::Answered {
                    request_hash: question.request_hash,
                    decision,
                },
            };
            decided = true;
            self.branches.step(transaction, input, Asker::Nobody);
        }
        Ok(decided)
    }

    /// The branch keeps its promise and goes on asking (R3), less and less often; the others are not concerned.
    fn refused(&self, transaction: TransactionId, reason: Option<ErrorReason>, message: &str) {
        self.counters.inquiries_refused.increment();
        let (tx, participant) = (transaction, &self.options.name);
        // Said once for each branch.
        if self
            .doubts
            .refused(transaction, self.jitter.of(REFUSED_PAUSE_MAX))
        {
            tracing::error!(%tx, %participant, ?reason, message, "the coordinators refuse to say what was decided; the branch stays in doubt, and somebody has to see why");
        } else {
            tracing::debug!(%tx, %participant, ?reason, message, "an inquiry is refused again");
        }
    }
}
