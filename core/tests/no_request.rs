//! An abort that was asked for when nobody ran the transaction: it is recorded for no request, because nobody knew
//! which one it was, and is the outcome of every request under its id (R12).

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use unanimo_core::table::{Applied, Command, DecisionRecord, DecisionTable, Proposal};
use unanimo_core::{
    AbortReason, Decision, Members, Operation, ParticipantId, Request, RequestHash, Timestamp, Transaction,
    TransactionEffect, TransactionId, TransactionInput, Vote,
};

const NOW: Timestamp = Timestamp::from_unix_ms(7);

fn transaction() -> TransactionId {
    TransactionId::new(NOW, 1)
}

fn participant(name: &str) -> ParticipantId {
    ParticipantId::new(name).unwrap()
}

/// What the table holds after an abort for no request that names this member.
fn aborted(member: &str, table: &mut DecisionTable) -> DecisionRecord {
    let members = Members::from([participant(member)]);
    let applied = table.apply(&Command::Decide(Proposal {
        transaction: transaction(),
        decision: Decision::Abort(AbortReason::Requested),
        request_hash: RequestHash::NONE,
        unacknowledged: members.clone(),
        members,
        witnesses: BTreeMap::new(),
        decided_at: NOW,
    }));
    let Applied::Decided(record) = applied else {
        panic!("{applied:?}")
    };
    record
}

#[test]
fn it_is_the_outcome_of_every_request_and_a_commit_never_is() {
    let record = aborted("a", &mut DecisionTable::new());
    for asked in [RequestHash::NONE, RequestHash::from_bytes([9; 32])] {
        assert!(record.is_for(asked));
        assert_eq!(
            record.decision_for(asked),
            Decision::Abort(AbortReason::Requested)
        );
    }
    let commit = DecisionRecord {
        decision: Decision::Commit,
        ..record
    };
    assert!(!commit.is_for(RequestHash::from_bytes([9; 32])));
    assert!(!commit.decision_for(RequestHash::from_bytes([9; 32])).is_commit());
}

/// A leader that was cut off finds it when it wants to commit. The members that it names need not be those that
/// promised.
#[test]
fn a_run_that_loses_against_it_lets_its_own_members_go() {
    let operation = |name| (participant(name), Operation::default());
    let request = Request::new([operation("b"), operation("c")], Default::default()).unwrap();
    let (mut run, _) = Transaction::submitted(transaction(), &request, NOW);
    for name in ["b", "c"] {
        let vote = TransactionInput::Voted {
            participant: participant(name),
            vote: Vote::Yes,
            witness: None,
        };
        run.step(vote, NOW);
    }
    let mut table = DecisionTable::new();
    let record = aborted("a", &mut table);
    let effects = run.step(TransactionInput::DecisionRecorded(record), NOW);
    let decision = Decision::Abort(AbortReason::Requested);
    let deliver = |name| TransactionEffect::Deliver {
        participant: participant(name),
        decision: decision.clone(),
    };
    let expected = [
        TransactionEffect::Answer(decision.clone()),
        deliver("b"),
        deliver("c"),
    ];
    assert_eq!(effects, expected);
}
