//! Whatever goes out comes back the same, and what is no message is refused, never guessed.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use unanimo_core::table::{Binding, Command, DecisionRecord, Horizon, Proposal, Registration, Witness};
use unanimo_core::{
    AbortReason, Branch, ClusterId, Decision, Finish, Generation, IdempotencyKey, Members, Operation,
    ParticipantId, Position, Prepared, Record, RequestHash, Timestamp, TransactionId, Vote,
};
use unanimo_proto::storage::{
    decode_commands, decode_decision_record, decode_finished_branch, decode_participant_record,
    decode_registration, encode_commands, encode_decision_record, encode_finished_branch,
    encode_participant_record, encode_registration,
};
use unanimo_proto::{
    ErrorReason, Inquiry, InquiryAnswer, Outcome, PrepareMessage, PrepareVote, Registering, v1,
};

fn participant() -> impl Strategy<Value = ParticipantId> {
    "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|name| ParticipantId::new(&name).unwrap())
}

fn members() -> impl Strategy<Value = Members> {
    prop::collection::btree_set(participant(), 1..5)
}

fn transaction() -> impl Strategy<Value = TransactionId> {
    (any::<u64>(), any::<u128>())
        .prop_map(|(at, random)| TransactionId::new(Timestamp::from_unix_ms(at), random))
}

fn hash() -> impl Strategy<Value = RequestHash> {
    any::<[u8; 32]>().prop_map(RequestHash::from_bytes)
}

fn reason() -> impl Strategy<Value = AbortReason> {
    prop_oneof![
        (participant(), ".{0,20}")
            .prop_map(|(participant, reason)| AbortReason::VotedNo { participant, reason }),
        members().prop_map(|missing| AbortReason::DeadlinePassed { missing }),
        Just(AbortReason::Requested),
        Just(AbortReason::Presumed),
    ]
}

fn decision() -> impl Strategy<Value = Decision> {
    prop_oneof![Just(Decision::Commit), reason().prop_map(Decision::Abort)]
}

fn witness() -> impl Strategy<Value = Witness> {
    (any::<u64>(), any::<u64>()).prop_map(|(generation, position)| Witness {
        generation: Generation(generation),
        position: Position(position),
    })
}

fn registration() -> impl Strategy<Value = Registration> {
    ("[a-z.]{1,20}:[0-9]{1,5}", witness()).prop_map(|(address, witness)| Registration { address, witness })
}

fn command() -> impl Strategy<Value = Command> {
    let decide = (
        transaction(),
        decision(),
        hash(),
        members(),
        members(),
        participant(),
        witness(),
        any::<u64>(),
    )
        .prop_map(
            |(transaction, decision, request_hash, members, unacknowledged, voter, witness, at)| {
                Command::Decide(Proposal {
                    transaction,
                    decision,
                    request_hash,
                    members,
                    unacknowledged,
                    witnesses: [(voter, witness)].into(),
                    decided_at: Timestamp::from_unix_ms(at),
                })
            },
        );
    let acknowledge = (
        transaction(),
        members(),
        prop::option::of((participant(), witness())),
    )
        .prop_map(|(transaction, participants, reached)| Command::Acknowledge {
            transaction,
            participants,
            witnesses: reached.into_iter().collect(),
        });
    let register =
        (participant(), registration()).prop_map(|(participant, registration)| Command::Register {
            participant,
            registration,
        });
    let horizon = (any::<u64>(), transaction()).prop_map(|(time, watermark)| Horizon {
        time: Timestamp::from_unix_ms(time),
        watermark,
    });
    let forget =
        prop::collection::vec(transaction(), 0..4).prop_map(|transactions| Command::Forget { transactions });
    let bind = (key(), transaction(), hash()).prop_map(|(key, transaction, request_hash)| Command::Bind {
        key,
        binding: Binding {
            transaction,
            request_hash,
        },
    });
    let release =
        prop::collection::vec((key(), transaction()), 0..4).prop_map(|keys| Command::Release { keys });
    prop_oneof![
        decide,
        acknowledge,
        register,
        horizon.prop_map(Command::Advance),
        forget,
        bind,
        release
    ]
}

fn key() -> impl Strategy<Value = IdempotencyKey> {
    "[ -~]{1,128}".prop_map(|key| IdempotencyKey::new(&key).unwrap())
}

fn record() -> impl Strategy<Value = Record> {
    let started = any::<u64>().prop_map(|generation| Record::Started {
        cluster: ClusterId::new("demo").unwrap(),
        generation: Generation(generation),
    });
    let prepared = (
        transaction(),
        members(),
        hash(),
        any::<Vec<u8>>(),
        any::<u64>(),
        any::<u64>(),
    )
        .prop_map(
            |(transaction, members, request_hash, redo, deadline, prepared_at)| {
                let prepared = Prepared {
                    cluster: ClusterId::new("demo").unwrap(),
                    members,
                    request_hash,
                    redo: Bytes::from(redo),
                    deadline: Timestamp::from_unix_ms(deadline),
                    prepared_at: Timestamp::from_unix_ms(prepared_at),
                };
                Record::Prepared(transaction, prepared)
            },
        );
    let committed = (transaction(), hash()).prop_map(|(transaction, request_hash)| Record::Committed {
        transaction,
        request_hash,
    });
    let aborted =
        (transaction(), ".{0,20}").prop_map(|(transaction, reason)| Record::Aborted { transaction, reason });
    let registered = any::<u64>().prop_map(|generation| Record::Registered {
        generation: Generation(generation),
    });
    let closed = (any::<u64>(), transaction()).prop_map(|(generation, below)| Record::Closed {
        cluster: ClusterId::new("demo").unwrap(),
        generation: Generation(generation),
        below,
    });
    prop_oneof![started, registered, closed, prepared, committed, aborted]
}

proptest! {
    #[test]
    fn commands_survive_the_log(commands in prop::collection::vec(command(), 0..8)) {
        prop_assert_eq!(decode_commands(encode_commands(&commands)).unwrap(), commands);
    }

    #[test]
    fn decision_records_survive_the_table(
        decision in decision(), request_hash in hash(), members in members(), at in any::<u64>()
    ) {
        let decided_at = Timestamp::from_unix_ms(at);
        let unacknowledged = members.iter().skip(1).cloned().collect();
        let record = DecisionRecord { decision, request_hash, members, unacknowledged, decided_at };
        prop_assert_eq!(decode_decision_record(&encode_decision_record(&record)).unwrap(), record);
    }

    #[test]
    fn registrations_survive_the_table(registration in registration()) {
        prop_assert_eq!(decode_registration(&encode_registration(&registration)).unwrap(), registration);
    }

    #[test]
    fn participant_records_survive_the_journal(record in record(), owner in participant()) {
        let (found, read) = decode_participant_record(&encode_participant_record(&owner, &record)).unwrap();
        prop_assert_eq!(found, matches!(record, Record::Started { .. } | Record::Closed { .. }).then_some(owner));
        prop_assert_eq!(read, record);
    }

    #[test]
    fn finished_branches_survive_the_table(transaction in transaction(), request_hash in hash(), reason in ".{0,20}") {
        for finish in [Finish::Committed { request_hash }, Finish::Aborted { reason }] {
            let branch = Branch::finished(transaction, finish);
            let bytes = encode_finished_branch(&branch).unwrap();
            prop_assert_eq!(decode_finished_branch(transaction, &bytes).unwrap(), branch);
        }
        let read_only = Branch::finished(transaction, Finish::ReadOnly { request_hash });
        for unrecorded in [read_only, Branch::unknown(transaction)] {
            prop_assert!(encode_finished_branch(&unrecorded).is_none());
        }
    }

    #[test]
    fn prepares_and_votes_survive_the_wire(
        transaction in transaction(), members in members(), request_hash in hash(),
        operation in prop::option::of(any::<Vec<u8>>()), remaining in any::<u32>(), epoch in any::<u64>(),
        witness in witness(), reason in ".{0,20}", watermark in prop::option::of(transaction())
    ) {
        let cluster = ClusterId::new("demo").unwrap();
        let participant = members.first().unwrap().clone();
        let remaining = std::time::Duration::from_millis(u64::from(remaining));
        let operation = operation.map(Operation::new);
        let message = PrepareMessage { transaction, participant, members, request_hash, operation, remaining, epoch, watermark };
        prop_assert_eq!(&PrepareMessage::try_from(message.to_wire(&cluster)).unwrap(), &message);
        for (vote, witness) in [(Vote::Yes, Some(witness)), (Vote::ReadOnly, None), (Vote::No { reason }, None)] {
            let vote = PrepareVote { vote, witness };
            let wire = vote.to_wire(&cluster, &message.participant, transaction);
            let read = PrepareVote::from_wire(wire.clone(), &cluster, &message.participant, transaction).unwrap();
            prop_assert_eq!(&read, &vote);
            // A reply about somebody else is no vote.
            let other = ParticipantId::new("somebody-else").unwrap();
            prop_assert!(PrepareVote::from_wire(wire, &cluster, &other, transaction).is_err());
        }
    }

    #[test]
    fn outcomes_and_answers_survive_the_wire(decision in decision(), transaction in transaction()) {
        let outcome = Outcome(decision.clone());
        prop_assert_eq!(Outcome::try_from(Some(v1::Outcome::from(outcome.clone()))).unwrap(), outcome);
        let refused = |reason| InquiryAnswer::Refused { reason, message: "ghost never registered".to_owned() };
        for answer in [
            InquiryAnswer::Decided(decision),
            InquiryAnswer::Undecided,
            refused(Some(ErrorReason::UnknownParticipant)),
            refused(None),
        ] {
            let read: (TransactionId, InquiryAnswer) = answer.clone().to_wire(transaction).try_into().unwrap();
            prop_assert_eq!(read, (transaction, answer));
        }
    }

    #[test]
    fn inquiries_and_registrations_survive_the_wire(
        transaction in transaction(), request_hash in hash(), members in members(), registration in registration()
    ) {
        let cluster = ClusterId::new("demo").unwrap();
        let asker = members.last().unwrap().clone();
        let inquiry = Inquiry { transaction, request_hash, members };
        prop_assert_eq!(Inquiry::from_wire(inquiry.clone().into(), &asker).unwrap(), inquiry);
        let registering = Registering { participant: asker, registration };
        prop_assert_eq!(Registering::try_from(registering.to_wire(&cluster)).unwrap(), registering);
    }

    #[test]
    fn noise_is_refused_or_read_and_never_a_panic(noise in any::<Vec<u8>>()) {
        let _ = decode_commands(Bytes::from(noise.clone()));
        let _ = decode_decision_record(&noise);
        let _ = decode_registration(&noise);
        let _ = decode_participant_record(&noise);
    }
}

#[test]
fn what_is_not_said_is_refused_and_named() {
    let nothing_said = [
        decode_decision_record(&[]).unwrap_err().to_string(),
        decode_participant_record(&[]).unwrap_err().to_string(),
        Outcome::try_from(None).unwrap_err().to_string(),
        Outcome::try_from(Some(v1::Outcome { outcome: None }))
            .unwrap_err()
            .to_string(),
        <(TransactionId, InquiryAnswer)>::try_from(v1::InquiryAnswer {
            transaction: "018bcfe5-687b-7fff-bfff-ffffffffffff".to_owned(),
            answer: None,
        })
        .unwrap_err()
        .to_string(),
    ];
    for text in nothing_said {
        assert!(text.contains("is missing"), "{text}");
    }
    // No commands at all are no mistake: a batch may be empty.
    assert_eq!(decode_commands(Bytes::new()).unwrap(), []);
}

#[test]
fn a_prepare_for_somebody_who_is_no_member_is_refused() {
    let cluster = ClusterId::new("demo").unwrap();
    let names = |names: &[&str]| -> BTreeSet<ParticipantId> {
        names
            .iter()
            .map(|name| ParticipantId::new(name).unwrap())
            .collect()
    };
    let message = PrepareMessage {
        transaction: TransactionId::new(Timestamp::from_unix_ms(1), 2),
        participant: ParticipantId::new("c").unwrap(),
        members: names(&["a", "b"]),
        request_hash: RequestHash::from_bytes([0; 32]),
        operation: None,
        remaining: std::time::Duration::ZERO,
        epoch: 1,
        watermark: None,
    };
    let error = PrepareMessage::try_from(message.to_wire(&cluster)).unwrap_err();
    assert!(
        error.to_string().contains("c is not among the members"),
        "{error}"
    );
    let mut repeated = message.to_wire(&cluster);
    repeated.members = vec!["c".to_owned(), "c".to_owned()];
    assert!(
        PrepareMessage::try_from(repeated)
            .unwrap_err()
            .to_string()
            .contains("named twice")
    );
    let mut short = message.to_wire(&cluster);
    short.members.push("c".to_owned());
    short.request_hash = vec![1; 31].into();
    assert!(
        PrepareMessage::try_from(short)
            .unwrap_err()
            .to_string()
            .contains("31 bytes")
    );
}
