//! Counting votes: whatever the order in which they come, and however often.

#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;
use unanimo_core::{Members, ParticipantId, Tally, Verdict, Vote};

const MEMBERS: usize = 3;

fn member(number: usize) -> ParticipantId {
    ParticipantId::new(&format!("p{number}")).unwrap()
}

fn votes() -> impl Strategy<Value = Vec<(usize, Vote)>> {
    let reason = || "no".to_owned();
    let vote = prop_oneof![
        6 => Just(Vote::Yes),
        2 => Just(Vote::ReadOnly),
        1 => Just(Vote::No { reason: reason() }),
    ];
    vec((0..MEMBERS, vote), 0..12)
}

proptest! {
    /// R3, R4: a Yes is no use to a member that says No before or after it.
    #[test]
    fn all_are_for_it_only_if_every_member_is_and_none_was_ever_against_it(votes in votes()) {
        #[cfg(feature = "mutants")]
        if let Ok(name) = std::env::var("UNANIMO_MUTANT") {
            unanimo_core::mutants::plant(unanimo_core::mutants::Mutant::named(&name).unwrap());
        }
        let members: Members = (0..MEMBERS).map(member).collect();
        let mut tally = Tally::new(&members);
        for (number, vote) in &votes {
            tally.count(&member(*number), vote.clone());
        }
        let heard = (0..MEMBERS).all(|number| votes.iter().any(|(who, _)| *who == number));
        let against = votes.iter().any(|(_, vote)| matches!(vote, Vote::No { .. }));
        match tally.verdict() {
            Verdict::Unanimous => prop_assert!(heard && !against),
            Verdict::Refused { .. } => prop_assert!(against),
            Verdict::Pending => prop_assert!(!heard && !against),
        }
    }
}
