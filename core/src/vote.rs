//! Votes and their tally.

use std::collections::BTreeMap;
use std::fmt;

use crate::mutants::{self, Mutant};
use crate::{Members, ParticipantId};

/// A branch's answer to `Prepare`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vote {
    /// A promise: the Prepared record is durable, and only the decision releases it (R3).
    Yes,
    /// Nothing to commit: the branch only read, has let go, and takes no part in phase two.
    ReadOnly,
    /// Refused, for good (R4).
    No {
        /// What the resource manager said.
        reason: String,
    },
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("Yes"),
            Self::ReadOnly => f.write_str("ReadOnly"),
            Self::No { reason } => write!(f, "No({reason})"),
        }
    }
}

/// What the votes so far add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody has not voted yet, and nobody refused.
    Pending,
    /// Everybody voted Yes or ReadOnly.
    Unanimous,
    /// Somebody voted No; no later vote can change that.
    Refused {
        /// The first by name who refused.
        participant: ParticipantId,
        /// Its reason.
        reason: String,
    },
}

/// The votes of one transaction's members.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tally {
    votes: BTreeMap<ParticipantId, Option<Vote>>,
}

impl Tally {
    /// A tally in which nobody has voted yet.
    pub fn new(members: &Members) -> Self {
        assert!(!members.is_empty(), "a transaction has at least one member");
        Self {
            votes: members.iter().map(|member| (member.clone(), None)).collect(),
        }
    }

    /// Counts a vote; false if it changes nothing. A No is final: a Yes of the same member, earlier or later,
    /// never outweighs it. A Yes is a promise and does not turn into ReadOnly.
    pub fn count(&mut self, participant: &ParticipantId, vote: Vote) -> bool {
        let Some(counted) = self.votes.get_mut(participant) else {
            return false;
        };
        if mutants::is_on(Mutant::M23) && counted.is_some() {
            return false;
        }
        match (&*counted, &vote) {
            (None, _) | (Some(Vote::Yes | Vote::ReadOnly), Vote::No { .. }) => {
                *counted = Some(vote);
                true
            }
            (Some(Vote::Yes | Vote::ReadOnly), Vote::Yes | Vote::ReadOnly) | (Some(Vote::No { .. }), _) => {
                false
            }
        }
    }

    /// Takes back the votes of these members: what they promised in an earlier life may be lost (R11).
    pub fn withdraw(&mut self, participants: &Members) {
        for (member, vote) in &mut self.votes {
            if participants.contains(member) {
                *vote = None;
            }
        }
    }

    /// What the votes so far add up to.
    pub fn verdict(&self) -> Verdict {
        let mut pending = false;
        for (participant, vote) in &self.votes {
            match vote {
                Some(Vote::No { reason }) => {
                    return Verdict::Refused {
                        participant: participant.clone(),
                        reason: reason.clone(),
                    };
                }
                Some(Vote::Yes | Vote::ReadOnly) => {}
                None => pending = true,
            }
        }
        if pending {
            Verdict::Pending
        } else {
            Verdict::Unanimous
        }
    }

    /// Whether the participant is one of the members.
    pub fn has_member(&self, participant: &ParticipantId) -> bool {
        self.votes.contains_key(participant)
    }

    /// The members that have not voted.
    pub fn missing(&self) -> Members {
        self.votes
            .iter()
            .filter(|(_, vote)| vote.is_none())
            .map(|(member, _)| member.clone())
            .collect()
    }

    /// The members that may hold a promise and so have to hear the decision: all but those that voted No or
    /// ReadOnly. A member that has not been heard of may have promised.
    pub fn bound(&self) -> Members {
        let bound = |vote: &Option<Vote>| matches!(vote, None | Some(Vote::Yes));
        self.votes
            .iter()
            .filter(|(_, vote)| bound(vote))
            .map(|(member, _)| member.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn participant(name: &str) -> ParticipantId {
        ParticipantId::new(name).unwrap()
    }

    fn no(reason: &str) -> Vote {
        Vote::No {
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn the_verdict_follows_the_votes() {
        let refused = |who: &str| Verdict::Refused {
            participant: participant(who),
            reason: "x".to_owned(),
        };
        let cases: Vec<(Vec<(&str, Vote)>, Verdict)> = vec![
            (vec![], Verdict::Pending),
            (vec![("a", Vote::Yes)], Verdict::Pending),
            (vec![("a", Vote::Yes), ("b", Vote::Yes)], Verdict::Unanimous),
            (vec![("a", Vote::ReadOnly), ("b", Vote::Yes)], Verdict::Unanimous),
            (vec![("b", no("x"))], refused("b")),
            (vec![("a", Vote::Yes), ("b", no("x"))], refused("b")),
            // A No is final, whatever the same member says before or after.
            (
                vec![("b", no("x")), ("b", Vote::Yes), ("a", Vote::Yes)],
                refused("b"),
            ),
            (
                vec![("b", Vote::Yes), ("b", no("x")), ("a", Vote::Yes)],
                refused("b"),
            ),
            // Who is not a member has no vote.
            (
                vec![("c", no("x")), ("a", Vote::Yes), ("b", Vote::Yes)],
                Verdict::Unanimous,
            ),
            // One member's vote, however often, is one vote.
            (vec![("a", Vote::Yes), ("a", Vote::Yes)], Verdict::Pending),
        ];
        for (votes, verdict) in cases {
            let mut tally = Tally::new(&[participant("a"), participant("b")].into());
            for (who, vote) in &votes {
                tally.count(&participant(who), vote.clone());
            }
            assert_eq!(tally.verdict(), verdict, "{votes:?}");
        }
    }
}
