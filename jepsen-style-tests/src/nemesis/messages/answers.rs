use std::collections::BTreeMap;

use crate::cluster::Member;
use crate::history::Tx;
use crate::late::{Came, Ended, LateAnswers, Reaction};

/// What is the same of answers that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    to: String,
    method: &'static str,
    about: About,
    answer: Reaction,
}

/// The situation that a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct About {
    pub(super) came: Came,
    pub(super) ended: Ended,
    pub(super) forgotten: bool,
}

impl About {
    /// It came like this, and nothing is known of its transaction, or there is none.
    pub(super) fn nothing(came: Came) -> Self {
        Self {
            came,
            ended: Ended::Open,
            forgotten: false,
        }
    }
}

/// One answer.
pub(super) struct Answer {
    pub(super) to: Member,
    pub(super) method: &'static str,
    pub(super) about: About,
    pub(super) transaction: Option<Tx>,
    pub(super) answer: Reaction,
}

/// Answers, counted.
#[derive(Debug, Default)]
pub(super) struct Answers {
    counted: BTreeMap<Group, (u64, Option<Tx>)>,
}

impl Answers {
    pub(super) fn add(&mut self, answers: impl IntoIterator<Item = Answer>) {
        for answer in answers {
            let group = Group {
                to: answer.to.to_string(),
                method: answer.method,
                about: answer.about,
                answer: answer.answer,
            };
            let (times, example) = self.counted.entry(group).or_default();
            *times += 1;
            *example = example.or(answer.transaction);
        }
    }

    /// As evidence of this fault.
    pub(super) fn of(&self, fault: &str) -> Vec<LateAnswers> {
        let counted = self.counted.iter();
        counted
            .map(|(group, (times, example))| LateAnswers {
                fault: fault.to_owned(),
                to: group.to.clone(),
                method: group.method.to_owned(),
                came: group.about.came,
                ended: group.about.ended,
                forgotten: group.about.forgotten,
                answer: group.answer.clone(),
                times: *times,
                example: *example,
            })
            .collect()
    }

    /// What was answered how often, for people. None if nobody answered anything.
    pub(super) fn summary(&self) -> Option<String> {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for (group, (times, _)) in &self.counted {
            *sums
                .entry(format!("{} {}", group.method, group.answer.word()))
                .or_default() += times;
        }
        let answered = self
            .counted
            .keys()
            .any(|group| !matches!(group.answer, Reaction::Nothing(_)));
        let words: Vec<String> = sums
            .iter()
            .map(|(what, times)| format!("{times} {what}"))
            .collect();
        answered.then(|| words.join(", "))
    }

    /// Whether anybody answered a kept call, and not only what was made up besides. With `forgotten`: one of a transaction
    /// that everybody may have forgotten.
    pub(super) fn to_kept(&self, forgotten: bool) -> bool {
        let mut counted = self.counted.iter();
        counted.any(|(group, (_, transaction))| {
            let answered = !matches!(group.answer, Reaction::Nothing(_));
            answered && transaction.is_some() && (group.about.forgotten || !forgotten)
        })
    }

    /// Takes over what others counted.
    pub(super) fn absorb(&mut self, other: Self) {
        for (group, (more, one)) in other.counted {
            let (times, example) = self.counted.entry(group).or_default();
            *times += more;
            *example = example.or(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use unanimo_core::{Timestamp, TransactionId};

    use super::*;

    #[test]
    fn only_answers_to_kept_calls_show_that_some_were_sent_again() {
        let answer = |forgotten, kept: bool, answer| Answer {
            to: Member::Participant(1),
            method: "Prepare",
            about: About {
                forgotten,
                ..About::nothing(Came::Again)
            },
            transaction: kept.then(|| Tx(TransactionId::new(Timestamp::from_unix_ms(1), 0))),
            answer,
        };
        let mut answers = Answers::default();
        // An old life that wants to register, and a kept call that nobody answered.
        answers.add([
            answer(false, false, Reaction::Refused("OUTDATED".to_owned())),
            answer(true, true, Reaction::Nothing("silence".to_owned())),
        ]);
        assert!(answers.summary().is_some());
        assert!(!answers.to_kept(false));
        answers.add([answer(false, true, Reaction::Yes)]);
        assert!(answers.to_kept(false) && !answers.to_kept(true));
        answers.add([answer(true, true, Reaction::Refused("EXPIRED".to_owned()))]);
        assert!(answers.to_kept(true));
    }

    #[test]
    fn the_same_answers_are_counted_together() {
        let answer = |answer: Reaction| Answer {
            to: Member::Participant(1),
            method: "Prepare",
            about: About::nothing(Came::Again),
            transaction: None,
            answer,
        };
        let mut answers = Answers::default();
        answers.add([answer(Reaction::Nothing("silence".to_owned()))]);
        assert_eq!(answers.summary(), None);
        answers.add([answer(Reaction::Yes), answer(Reaction::No), answer(Reaction::Yes)]);
        let mut all = Answers::default();
        all.absorb(answers);
        assert_eq!(
            all.summary().unwrap(),
            "1 Prepare no, 1 Prepare nothing (silence), 2 Prepare yes"
        );
        let counted = all.of("replay-messages");
        assert_eq!(counted.len(), 3);
        assert!(
            counted
                .iter()
                .any(|one| one.answer == Reaction::Yes && one.times == 2)
        );
    }
}
