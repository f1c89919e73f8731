//! What initiators asked for and were told. The judge believes nothing else of what the system says of itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unanimo_core::{ParticipantId, TransactionId};

use crate::bank::Changes;
use crate::decided::Decided;
use crate::history::{History, Invoked};
use crate::notes::Notes;

/// Everything that was asked for. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Ledger {
    notes: Notes,
    decided: Decided,
    history: History,
    asked: Arc<Mutex<BTreeMap<TransactionId, Asked>>>,
}

/// One transaction.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) branches: BTreeMap<ParticipantId, Changes>,
    /// How often it was submitted, whatever came of it.
    pub(crate) submitted: u64,
    pub(crate) answers: Vec<Answer>,
}

/// What an initiator was told of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Committed,
    Aborted(String),
    /// The call was refused and has done nothing.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

impl Answer {
    /// Whether it says what became of the transaction.
    pub(crate) fn is_outcome(&self) -> bool {
        matches!(self, Self::Committed | Self::Aborted(_))
    }
}

impl Ledger {
    pub(crate) fn new(decided: Decided) -> Self {
        Self {
            notes: decided.notes(),
            decided,
            history: History::default(),
            asked: Arc::default(),
        }
    }

    /// Notes that a transaction is submitted, for the first time or again.
    pub(crate) fn submit(
        &self,
        who: &str,
        transaction: TransactionId,
        branches: &BTreeMap<ParticipantId, Changes>,
    ) -> Invoked {
        let mut asked = self.lock();
        let entry = asked.entry(transaction).or_insert_with(|| Asked {
            branches: branches.clone(),
            submitted: 0,
            answers: Vec::new(),
        });
        entry.submitted += 1;
        let times = entry.submitted;
        drop(asked);
        let writers = branches.iter().filter(|(_, changes)| !changes.0.is_empty());
        let writers = writers.map(|(participant, _)| participant.to_string());
        self.decided.expect(transaction, writers.collect());
        if times > 1 {
            self.notes.count("submitted_again");
        }
        self.notes.trace(
            who,
            format!("{transaction} is submitted ({times}): {}", Branches(branches)),
        );
        self.history.invoke(self.notes.now(), transaction, branches)
    }

    /// Notes what was told of a call.
    pub(crate) fn complete(&self, who: &str, transaction: TransactionId, invoked: &Invoked, answer: Answer) {
        self.history.complete(self.notes.now(), invoked, &answer);
        self.answer(who, transaction, answer);
    }

    /// The history.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Notes what was told of a transaction.
    pub(crate) fn answer(&self, who: &str, transaction: TransactionId, answer: Answer) {
        self.notes
            .trace(who, format!("{transaction} is answered: {answer:?}"));
        self.notes.count(match &answer {
            Answer::Committed => "told_committed",
            Answer::Aborted(_) => "told_aborted",
            Answer::Refused(_) => "told_refused",
            Answer::Unknown(_) => "told_unknown",
        });
        if answer.is_outcome() {
            self.decided
                .check_heard(who, transaction, answer == Answer::Committed);
        }
        if let Some(asked) = self.lock().get_mut(&transaction) {
            asked.answers.push(answer);
        }
    }

    /// Whether anybody was told what became of it.
    pub(crate) fn has_outcome(&self, transaction: TransactionId) -> bool {
        let asked = self.lock();
        let answers = asked.get(&transaction).map(|asked| asked.answers.as_slice());
        answers.unwrap_or_default().iter().any(Answer::is_outcome)
    }

    /// Everything that was asked for.
    pub(crate) fn all(&self) -> BTreeMap<TransactionId, Asked> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TransactionId, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Branches<'a>(&'a BTreeMap<ParticipantId, Changes>);

impl std::fmt::Display for Branches<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (participant, changes) in self.0 {
            write!(
                f,
                "{participant}[{}] ",
                String::from_utf8_lossy(&changes.encode())
            )?;
        }
        Ok(())
    }
}
