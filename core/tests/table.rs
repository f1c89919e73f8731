//! The decision table by itself: commands are idempotent and monotone, so that a snapshot may be taken while applying
//! goes on, and a replica that fell back to an older durable state simply applies again.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use unanimo_core::table::{
    Applied, Binding, Command, DecisionRecord, DecisionTable, Horizon, Proposal, Registration, View, Witness,
};
use unanimo_core::{
    AbortReason, Decision, Generation, IdempotencyKey, Members, ParticipantId, Position, RequestHash,
    Timestamp, TransactionId,
};

fn participant(number: u8) -> ParticipantId {
    ParticipantId::new(&format!("p{number}")).unwrap()
}

fn members(numbers: &[u8]) -> Members {
    numbers.iter().copied().map(participant).collect()
}

fn transaction(number: u8) -> TransactionId {
    TransactionId::new(Timestamp::from_unix_ms(1), number.into())
}

fn witness(generation: u64, position: u64) -> Witness {
    Witness {
        generation: Generation(generation),
        position: Position(position),
    }
}

fn hash(number: u8) -> RequestHash {
    RequestHash::from_bytes([number; 32])
}

fn decide(number: u8, decision: Decision) -> Proposal {
    Proposal {
        transaction: transaction(number),
        decision,
        request_hash: hash(0),
        members: members(&[1, 2]),
        unacknowledged: members(&[1, 2]),
        witnesses: BTreeMap::new(),
        decided_at: Timestamp::from_unix_ms(7),
    }
}

fn register(number: u8, address: &str, witness: Witness) -> Command {
    Command::Register {
        participant: participant(number),
        registration: Registration {
            address: address.to_owned(),
            witness,
        },
    }
}

fn bind(key: &str, number: u8, request: u8) -> Command {
    Command::Bind {
        key: IdempotencyKey::new(key).unwrap(),
        binding: binding(number, request),
    }
}

fn binding(number: u8, request: u8) -> Binding {
    Binding {
        transaction: transaction(number),
        request_hash: hash(request),
    }
}

/// What a key stands for, unless it may stand for something else by now.
fn bound(table: &DecisionTable, key: &IdempotencyKey) -> Option<Binding> {
    let (Ok(binding), Ok(horizon)) = (table.binding(key), table.horizon());
    binding.filter(|Binding { transaction, .. }| {
        !horizon.has_closed(*transaction) || table.records().contains_key(transaction)
    })
}

fn held(table: &DecisionTable, number: u8) -> Registration {
    let Ok(registration) = table.registration(&participant(number));
    registration.expect("it is registered")
}

#[test]
fn the_first_decision_applied_wins_and_everybody_gets_it_back() {
    let mut table = DecisionTable::new();
    let abort = Decision::Abort(AbortReason::Requested);
    let expected = DecisionRecord {
        decision: Decision::Commit,
        request_hash: hash(0),
        members: members(&[1, 2]),
        unacknowledged: members(&[1, 2]),
        decided_at: Timestamp::from_unix_ms(7),
    };
    let mut other_request = decide(1, abort.clone());
    other_request.request_hash = hash(9);
    other_request.members = members(&[2, 3]);
    for proposal in [decide(1, Decision::Commit), decide(1, abort), other_request] {
        let applied = table.apply(&Command::Decide(proposal));
        assert_eq!(applied, Applied::Decided(expected.clone()));
    }
    assert_eq!(table.records().get(&transaction(1)), Some(&expected));
}

#[test]
fn a_request_that_lost_its_id_to_another_is_aborted_and_never_committed() {
    let mut table = DecisionTable::new();
    table.apply(&Command::Decide(decide(1, Decision::Commit)));
    let record = &table.records()[&transaction(1)];
    assert_eq!(record.decision_for(hash(0)), Decision::Commit);
    assert_eq!(
        record.decision_for(hash(1)),
        Decision::Abort(AbortReason::Presumed)
    );
}

#[test]
fn acknowledgements_only_ever_take_away() {
    let mut table = DecisionTable::new();
    let acknowledge = |numbers: &[u8]| Command::Acknowledge {
        transaction: transaction(1),
        participants: members(numbers),
        witnesses: BTreeMap::new(),
    };
    assert_eq!(
        table.apply(&acknowledge(&[1])),
        Applied::Acknowledged,
        "of nothing known"
    );
    assert!(table.records().is_empty(), "an acknowledgement decides nothing");
    table.apply(&Command::Decide(decide(1, Decision::Commit)));
    table.apply(&acknowledge(&[1, 3]));
    assert_eq!(table.records()[&transaction(1)].unacknowledged, members(&[2]));
    table.apply(&Command::Decide(decide(1, Decision::Commit)));
    assert_eq!(
        table.records()[&transaction(1)].unacknowledged,
        members(&[2]),
        "not even by deciding again"
    );
    table.apply(&acknowledge(&[2]));
    assert!(table.records()[&transaction(1)].is_ended());
}

#[test]
fn a_registration_is_refused_when_it_knows_less_or_is_a_copy() {
    // (address, generation, position) after g2@20 at "a", and whether it is accepted.
    let cases = [
        (("a", 2, 20), true),
        (("a", 2, 21), true),
        (("a", 3, 20), true),
        (("b", 3, 21), true),
        (("a", 1, 30), false),
        (("a", 3, 19), false),
        (("a", 2, 19), false),
        (("b", 2, 20), false),
        (("b", 2, 99), false),
    ];
    for ((address, generation, position), accepted) in cases {
        let mut table = DecisionTable::new();
        table.apply(&register(1, "a", witness(2, 20)));
        let before = held(&table, 1);
        let applied = table.apply(&register(1, address, witness(generation, position)));
        if accepted {
            assert_eq!(applied, Applied::Registered, "{address} {generation} {position}");
            assert_eq!(held(&table, 1).witness, witness(generation, position));
        } else {
            assert_eq!(
                applied,
                Applied::Outdated {
                    known: before.clone()
                },
                "{address} {generation} {position}"
            );
            assert_eq!(held(&table, 1), before, "a refused registration changes nothing");
        }
    }
}

#[test]
fn a_decision_raises_what_is_known_of_its_voters_and_only_the_one_that_holds_does() {
    let mut table = DecisionTable::new();
    table.apply(&register(1, "a", witness(2, 20)));
    let mut first = decide(1, Decision::Commit);
    first.witnesses = [(participant(1), witness(2, 25)), (participant(2), witness(1, 1))].into();
    table.apply(&Command::Decide(first));
    assert_eq!(held(&table, 1).witness, witness(2, 25));
    let Ok(unknown) = table.registration(&participant(2));
    assert_eq!(unknown, None, "nobody is registered by voting");
    let mut second = decide(1, Decision::Commit);
    second.witnesses = [(participant(1), witness(2, 99))].into();
    table.apply(&Command::Decide(second));
    assert_eq!(held(&table, 1).witness, witness(2, 25));
}

#[test]
fn a_commit_that_rests_on_a_vote_of_an_earlier_life_is_not_recorded() {
    let mut table = DecisionTable::new();
    table.apply(&register(1, "a", witness(3, 20)));
    let mut proposal = decide(1, Decision::Commit);
    // Even one that stands where the later life's journal reaches to: it may be another record.
    proposal.witnesses = [(participant(1), witness(2, 15))].into();
    let before = table.clone();
    let refused = table.apply(&Command::Decide(proposal.clone()));
    assert_eq!(
        refused,
        Applied::Superseded {
            participants: members(&[1])
        }
    );
    assert_eq!(table, before);
    // An Abort rests on nobody's promise.
    proposal.decision = Decision::Abort(AbortReason::Requested);
    let recorded = table.apply(&Command::Decide(proposal));
    assert!(matches!(recorded, Applied::Decided(_)), "{recorded:?}");
}

/// Otherwise the life that the cluster has confirmed would look like an old copy at its next start: found by the simulator
/// (`simulation/tests/scripts`, after a disk was replaced by a copy that nothing was missing in).
#[test]
fn an_abort_that_names_a_vote_of_an_earlier_life_says_nothing_of_the_registered_one() {
    let mut table = DecisionTable::new();
    table.apply(&register(1, "a", witness(2, 20)));
    table.apply(&register(1, "b", witness(3, 20)));
    let mut proposal = decide(1, Decision::Abort(AbortReason::Requested));
    proposal.witnesses = [(participant(1), witness(2, 25))].into();
    table.apply(&Command::Decide(proposal));
    assert_eq!(held(&table, 1).witness, witness(3, 20));
    let next_start = table.apply(&register(1, "b", witness(4, 22)));
    assert_eq!(next_start, Applied::Registered);
}

#[test]
fn an_acknowledgement_raises_what_is_known_of_its_members_and_one_of_an_earlier_life_is_none() {
    let mut table = DecisionTable::new();
    table.apply(&register(1, "a", witness(2, 20)));
    table.apply(&Command::Decide(decide(1, Decision::Commit)));
    let acknowledge = |known| Command::Acknowledge {
        transaction: transaction(1),
        participants: members(&[1]),
        witnesses: [(participant(1), known), (participant(2), witness(1, 1))].into(),
    };
    // Nobody says what the life that is registered now knows of it.
    let before = table.clone();
    table.apply(&acknowledge(witness(1, 30)));
    assert_eq!(table, before);
    table.apply(&acknowledge(witness(2, 25)));
    assert_eq!(table.records()[&transaction(1)].unacknowledged, members(&[2]));
    assert_eq!(held(&table, 1).witness, witness(2, 25));
    // A copy from before the commit knows less.
    let refused = table.apply(&register(1, "a", witness(3, 24)));
    assert!(matches!(refused, Applied::Outdated { .. }), "{refused:?}");
    // Repeated, it says nothing new.
    table.apply(&acknowledge(witness(2, 99)));
    assert_eq!(held(&table, 1).witness, witness(2, 25));
    let Ok(unknown) = table.registration(&participant(2));
    assert_eq!(unknown, None);
}

#[test]
fn what_is_closed_is_forgotten_once_no_member_needs_it_and_refused_for_ever() {
    let mut table = DecisionTable::new();
    for (number, decision) in [
        (1, Decision::Commit),
        (2, Decision::Commit),
        (3, Decision::Abort(AbortReason::Requested)),
        (4, Decision::Commit),
    ] {
        table.apply(&Command::Decide(decide(number, decision)));
    }
    let everybody = |number| Command::Acknowledge {
        transaction: transaction(number),
        participants: members(&[1, 2]),
        witnesses: BTreeMap::new(),
    };
    table.apply(&everybody(1));
    table.apply(&everybody(4));
    table.apply(&Command::Advance(closing_below(4)));
    table.apply(&Command::Forget {
        transactions: (1..=4).map(transaction).collect(),
    });
    let left = |table: &DecisionTable| table.records().keys().copied().collect::<Vec<_>>();
    // The commit that a member has yet to hear of stays, and so does what is not closed.
    assert_eq!(left(&table), [transaction(2), transaction(4)]);
    let again = table.apply(&Command::Decide(decide(
        1,
        Decision::Abort(AbortReason::Presumed),
    )));
    let watermark = transaction(4);
    assert_eq!(again, Applied::Expired { watermark });
    // Neither goes back.
    table.apply(&Command::Advance(closing_below(1)));
    let Ok(horizon) = table.horizon();
    assert_eq!(horizon, closing_below(4));
    // What is kept is told, however old.
    let kept = table.apply(&Command::Decide(decide(
        2,
        Decision::Abort(AbortReason::Presumed),
    )));
    assert!(matches!(kept, Applied::Decided(record) if record.decision.is_commit()));
    table.apply(&everybody(2));
    assert_eq!(left(&table), [transaction(4)]);
}

#[test]
fn a_key_stands_for_the_first_transaction_bound_until_that_is_forgotten() {
    let mut table = DecisionTable::new();
    assert_eq!(table.apply(&bind("k", 1, 0)), Applied::Bound(binding(1, 0)));
    for other in [bind("k", 1, 0), bind("k", 2, 0), bind("k", 2, 1)] {
        assert_eq!(table.apply(&other), Applied::Bound(binding(1, 0)));
    }
    assert_eq!(table.apply(&bind("other", 2, 1)), Applied::Bound(binding(2, 1)));
    let keys = || Command::Release {
        keys: [("k", 1), ("other", 2), ("none", 3)]
            .map(|(key, number)| (IdempotencyKey::new(key).unwrap(), transaction(number)))
            .into(),
    };
    table.apply(&Command::Decide(decide(1, Decision::Commit)));
    table.apply(&Command::Advance(closing_below(4)));
    table.apply(&keys());
    // The commit is kept for a member that has yet to hear of it, and its key with it; the other was never decided.
    let key = |key| IdempotencyKey::new(key).unwrap();
    assert_eq!(table.apply(&bind("k", 4, 0)), Applied::Bound(binding(1, 0)));
    assert_eq!(table.binding(&key("other")), Ok(None));
    table.apply(&Command::Acknowledge {
        transaction: transaction(1),
        participants: members(&[1, 2]),
        witnesses: BTreeMap::new(),
    });
    assert!(table.records().is_empty());
    let watermark = transaction(4);
    assert_eq!(table.apply(&bind("k", 3, 0)), Applied::Expired { watermark });
    assert_eq!(
        table.apply(&bind("k", 4, 5)),
        Applied::Bound(binding(4, 5)),
        "it is free"
    );
    table.apply(&keys());
    assert_eq!(table.binding(&key("k")), Ok(Some(binding(4, 5))));
}

#[test]
fn a_release_that_is_applied_again_frees_nothing_that_was_bound_since() {
    let release = Command::Release {
        keys: vec![(IdempotencyKey::new("k").unwrap(), transaction(1))],
    };
    let log = [
        bind("k", 1, 0),
        Command::Advance(closing_below(2)),
        release,
        bind("k", 2, 0),
        Command::Advance(closing_below(3)),
    ];
    let table = applied(&DecisionTable::new(), &log);
    assert_eq!(applied(&table, &log), table);
}

fn commands() -> impl Strategy<Value = Command> {
    let someone = || (1u8..=3).prop_map(participant);
    let somewhen = || (0u64..4, 0u64..6).prop_map(|(generation, position)| witness(generation, position));
    let some_members = || btree_set(someone(), 1..=3);
    let decision = prop_oneof![
        Just(Decision::Commit),
        Just(Decision::Abort(AbortReason::Requested))
    ];
    let proposal = (
        1u8..=3,
        decision,
        0u8..2,
        some_members(),
        btree_map(someone(), somewhen(), 0..3),
    )
        .prop_map(|(number, decision, request, members, witnesses)| Proposal {
            transaction: transaction(number),
            decision,
            request_hash: hash(request),
            unacknowledged: members.clone(),
            members,
            witnesses,
            decided_at: Timestamp::from_unix_ms(7),
        });
    prop_oneof![
        proposal.prop_map(Command::Decide),
        (1u8..=3, some_members(), btree_map(someone(), somewhen(), 0..3)).prop_map(
            |(number, participants, witnesses)| Command::Acknowledge {
                transaction: transaction(number),
                participants,
                witnesses,
            }
        ),
        (1u8..=3, prop_oneof![Just("a"), Just("b")], somewhen())
            .prop_map(|(number, address, witness)| register(number, address, witness)),
        (1u8..=4).prop_map(|number| Command::Advance(closing_below(number))),
        btree_set(1u8..=3, 1..3).prop_map(|numbers| Command::Forget {
            transactions: numbers.into_iter().map(transaction).collect(),
        }),
        (prop_oneof![Just("k"), Just("l")], 1u8..=4, 0u8..2)
            .prop_map(|(key, number, request)| bind(key, number, request)),
        (prop_oneof![Just("k"), Just("l")], 1u8..=4).prop_map(|(key, number)| Command::Release {
            keys: vec![(IdempotencyKey::new(key).unwrap(), transaction(number))],
        }),
    ]
}

/// A horizon below which the transactions with smaller numbers are closed.
fn closing_below(number: u8) -> Horizon {
    Horizon {
        time: Timestamp::from_unix_ms(number.into()),
        watermark: transaction(number),
    }
}

/// Logs as leaders write them: nobody acknowledges what is not decided, forgets what is not closed, binds a key that
/// is bound, or frees one that may not be free. (Applied again behind a later decision, such an acknowledgement would count.)
fn logs() -> impl Strategy<Value = Vec<Command>> {
    vec(commands(), 1..25).prop_map(|mut log| {
        let mut table = DecisionTable::new();
        log.retain(|command| {
            let Ok(horizon) = table.horizon();
            let too_early = match command {
                Command::Acknowledge { transaction, .. } => !table.records().contains_key(transaction),
                Command::Forget { transactions } => !transactions.iter().all(|id| horizon.has_closed(*id)),
                Command::Bind { key, .. } => bound(&table, key).is_some(),
                Command::Release { keys } => !keys.iter().all(|(key, transaction)| {
                    let Ok(binding) = table.binding(key);
                    let stands_for = |binding: Binding| binding.transaction == *transaction;
                    binding.is_some_and(stands_for) && bound(&table, key).is_none()
                }),
                Command::Decide(_) | Command::Register { .. } | Command::Advance(_) => false,
            };
            if !too_early {
                table.apply(command);
            }
            !too_early
        });
        log
    })
}

fn applied(table: &DecisionTable, commands: &[Command]) -> DecisionTable {
    let mut table = table.clone();
    for command in commands {
        table.apply(command);
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn applying_any_stretch_of_the_log_again_changes_nothing(
        log in logs(),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
    ) {
        let table = applied(&DecisionTable::new(), &log);
        let (from, to) = (from.index(log.len() + 1), to.index(log.len() + 1));
        let stretch = &log[from.min(to)..from.max(to)];
        prop_assert_eq!(applied(&table, stretch), table.clone());
        prop_assert_eq!(applied(&applied(&table, stretch), &log[from..]), table);
    }

    #[test]
    fn a_snapshot_taken_while_applying_goes_on_is_as_good(
        log in logs(),
        taken_at in any::<prop::sample::Index>(),
        ahead in any::<prop::sample::Index>(),
    ) {
        let (taken_at, ahead) = (taken_at.index(log.len() + 1), ahead.index(log.len() + 1));
        let snapshot = applied(&DecisionTable::new(), &log[..taken_at.max(ahead)]);
        let behind = taken_at.min(ahead);
        let table = applied(&DecisionTable::new(), &log);
        prop_assert_eq!(applied(&snapshot, &log[behind..]), table);
    }

    #[test]
    fn decisions_never_change_and_registrations_only_rise(log in logs()) {
        let mut table = DecisionTable::new();
        for command in &log {
            let before = table.clone();
            table.apply(command);
            let Ok(horizon) = table.horizon();
            for (id, record) in before.records() {
                let Some(after) = table.records().get(id) else {
                    prop_assert!(horizon.has_closed(*id), "{id} was forgotten before it was closed");
                    continue;
                };
                prop_assert_eq!(&after.decision, &record.decision);
                prop_assert_eq!(after.request_hash, record.request_hash);
                prop_assert!(after.unacknowledged.is_subset(&record.unacknowledged));
            }
            for number in 1..=3 {
                let (Ok(was), Ok(is)) = (
                    before.registration(&participant(number)),
                    table.registration(&participant(number)),
                );
                if let Some(was) = was {
                    let is = is.expect("nobody is forgotten");
                    prop_assert!(is.witness.generation >= was.witness.generation);
                    prop_assert!(is.witness.position >= was.witness.position);
                }
            }
        }
    }
}
