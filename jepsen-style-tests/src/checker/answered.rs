//! What checkers say to answers to messages that were late, or not from whom they seemed to be.

use super::Findings;
use crate::late::{LateAnswers, Reaction};

/// What answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// What holds anyway, once more.
    Same,
    /// A promise, where a crash had lost the memory that there must be none. It is safe, and holds something for a while.
    PromisedAgain,
    /// A refusal.
    Refused,
    /// No answer, of which nothing follows.
    Nothing,
    /// An answer that breaks a rule, in this way.
    Wrong(&'static str),
}

impl Judged {
    /// Of one that says nothing about what was asked for.
    pub(super) fn without_answer(answer: &Reaction) -> Option<Self> {
        match answer {
            Reaction::Refused(_) => Some(Self::Refused),
            Reaction::Nothing(_) | Reaction::Undecided => Some(Self::Nothing),
            Reaction::Yes
            | Reaction::ReadOnly
            | Reaction::No
            | Reaction::Acknowledged
            | Reaction::Committed
            | Reaction::Aborted
            | Reaction::Done
            | Reaction::Died => None,
        }
    }

    /// Writes it down.
    pub(super) fn note(self, answers: &LateAnswers, findings: &mut Findings) {
        let what = match self {
            Self::Same => "late answers: the same".to_owned(),
            Self::PromisedAgain => "late answers: promised again after a restart".to_owned(),
            Self::Refused => format!("late answers: {}", answers.answer.word()),
            Self::Nothing => "late answers: none".to_owned(),
            Self::Wrong(kind) => {
                let about = answers
                    .example
                    .map_or_else(String::new, |tx| format!(" about {tx}"));
                let what = format!(
                    "{} answered {} times {:?} to {}{about}, which came {:?}; it had ended: {:?}{} ({})",
                    answers.to,
                    answers.times,
                    answers.answer.word(),
                    answers.method,
                    answers.came,
                    answers.ended,
                    if answers.forgotten {
                        ", perhaps forgotten"
                    } else {
                        ""
                    },
                    answers.fault,
                );
                findings.violate(kind, what, None);
                "late answers: wrong".to_owned()
            }
        };
        findings.count(&what, answers.times);
    }
}
