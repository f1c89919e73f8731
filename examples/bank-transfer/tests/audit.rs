//! The audit finds whatever is planted, and names it.

#![allow(clippy::unwrap_used)]

mod evidence;

use bank_transfer::audit::{Audit, AuditCounts, audit};
use bank_transfer::load::Told;
use bank_transfer::operation::operations;
use bank_transfer::{BankName, Cents, Operation};
use unanimo_core::{AbortReason, Decision};

use evidence::{apply, assert_found, cents, change, evidence, happen, id, no_funds, planted, tx};

#[test]
fn what_fits_has_no_violations() {
    assert_eq!(
        audit(&evidence()),
        Audit {
            violations: vec![],
            total_before: 400,
            total_after: 400,
            aborted_fully_prepared: 0,
            audits: AuditCounts {
                committed: 1,
                refused: 1,
                unknown: 0,
                wrong: 0
            },
        }
    );
}

#[test]
fn an_unknown_outcome_is_no_violation_if_the_others_agree() {
    for row in 0..3 {
        let found =
            planted(|evidence| evidence.submitted[row].told = Told::Unknown("patience is over".to_owned()));
        assert_found(&found, &[]);
    }
}

#[test]
fn told_aborted_but_committed() {
    let found = planted(|evidence| evidence.submitted[0].told = Told::Decided(no_funds()));
    assert_found(
        &found,
        &[
            "outcome differs: row 2, key k2, transaction 00000000-03ea-7000-8000-000000000000: the initiator was told Abort(bank-north voted No: insufficient funds: …), the coordinators have Commit",
            "aborted fully prepared: 00000000-03ea-7000-8000-000000000000",
        ],
    );
}

#[test]
fn told_committed_but_aborted() {
    let found = planted(|evidence| evidence.submitted[2].told = Told::Decided(Decision::Commit));
    assert_found(&found, &["outcome differs: row 4, key k4", "not applied: row 4"]);
}

#[test]
fn told_another_reason() {
    let found = planted(|evidence| {
        evidence.submitted[2].told = Told::Decided(Decision::Abort(AbortReason::Presumed))
    });
    assert_found(&found, &["outcome differs: row 4"]);
}

#[test]
fn a_decision_that_was_told_and_is_not_recorded() {
    let found = planted(|evidence| {
        evidence.recorded.remove(&tx(2));
    });
    assert_found(
        &found,
        &[
            "outcome differs: row 2, key k2, transaction 00000000-03ea-7000-8000-000000000000: the initiator was told Commit, the coordinators have no decision",
        ],
    );
}

#[test]
fn a_decision_on_what_was_refused() {
    let found = planted(|evidence| evidence.submitted[2].told = Told::Refused("it was refused".to_owned()));
    assert_found(&found, &["outcome differs: row 4"]);
    let never_started = planted(|evidence| {
        evidence.submitted[2].told = Told::Refused("it was refused".to_owned());
        evidence.recorded.remove(&tx(4));
    });
    assert_found(&never_started, &[]);
}

#[test]
fn half_committed() {
    let found = planted(|evidence| {
        evidence.ledgers.get_mut(&BankName::South).unwrap().remove(&tx(2));
        change(evidence, id("south-000001"), -10);
    });
    assert_found(
        &found,
        &["half committed: row 2, key k2", "money destroyed: 10 cents less"],
    );
    assert!(found[0].contains("bank-south does not have it"), "{found:?}");
}

#[test]
fn committed_and_never_applied() {
    let found = planted(|evidence| {
        for (bank, account, by) in [
            (BankName::North, "north-000001", 10),
            (BankName::South, "south-000001", -10),
        ] {
            evidence.ledgers.get_mut(&bank).unwrap().remove(&tx(2));
            change(evidence, id(account), by);
        }
    });
    assert_found(&found, &["not applied: row 2"]);
}

#[test]
fn aborted_and_applied() {
    let found = planted(|evidence| {
        let operation = Operation::Debit {
            account: id("north-000002"),
            amount: cents(10),
        };
        happen(evidence, BankName::North, tx(4), operation);
    });
    assert_found(
        &found,
        &[
            "effect without commit: row 4, key k4",
            "money destroyed: 10 cents",
        ],
    );
    assert!(
        found[0].contains("bank-north has it, but the outcome is Abort"),
        "{found:?}"
    );
}

#[test]
fn undecided_and_applied() {
    let found = planted(|evidence| {
        evidence.submitted[0].told = Told::Unknown("patience is over".to_owned());
        evidence.recorded.remove(&tx(2));
    });
    assert_found(
        &found,
        &["effect without commit: row 2", "effect without commit: row 2"],
    );
}

#[test]
fn applied_twice() {
    let found = planted(|evidence| {
        for operation in [
            Operation::Debit {
                account: id("north-000001"),
                amount: cents(10),
            },
            Operation::Credit {
                account: id("south-000001"),
                amount: cents(10),
            },
        ] {
            apply(evidence, operation);
        }
    });
    // The total still fits: only the ledger tells.
    assert_found(
        &found,
        &[
            "balance differs: north-000001 has 70 cents, but its ledger makes it 80 cents",
            "balance differs: south-000001 has 120 cents, but its ledger makes it 110 cents",
        ],
    );
}

#[test]
fn another_amount_than_was_asked_for() {
    let found = planted(|evidence| {
        change(evidence, id("north-000001"), 10);
        change(evidence, id("south-000001"), -10);
        for (bank, operation) in operations(id("north-000001"), id("south-000001"), cents(20)) {
            happen(evidence, bank, tx(2), operation);
        }
    });
    assert_found(
        &found,
        &["wrong effect: row 2, key k2", "wrong effect: row 2, key k2"],
    );
}

#[test]
fn an_effect_at_a_bank_that_was_not_asked() {
    let found = planted(|evidence| {
        let operation = Operation::Credit {
            account: id("south-000001"),
            amount: cents(10),
        };
        happen(evidence, BankName::South, tx(3), operation);
    });
    assert_found(
        &found,
        &["wrong effect: row 3, key k3", "money created: 10 cents"],
    );
    assert!(found[0].contains("bank-south did Credit"), "{found:?}");
}

#[test]
fn an_effect_of_a_transaction_that_nobody_submitted() {
    let found = planted(|evidence| {
        let operation = Operation::Transfer {
            from: id("south-000001"),
            to: id("south-000002"),
            amount: cents(10),
        };
        happen(evidence, BankName::South, tx(99), operation);
    });
    assert_found(&found, &["unasked effect: bank-south did Transfer"]);
}

#[test]
fn money_created_and_destroyed() {
    let created = planted(|evidence| change(evidence, id("north-000001"), 1));
    assert_found(
        &created,
        &[
            "balance differs: north-000001 has 81 cents",
            "money created: 1 cents",
        ],
    );
    let destroyed = planted(|evidence| change(evidence, id("south-000002"), -100));
    assert_found(
        &destroyed,
        &[
            "balance differs: south-000002 has 0 cents",
            "money destroyed: 100 cents",
        ],
    );
}

#[test]
fn accounts_that_are_new_or_gone() {
    let appeared = planted(|evidence| {
        evidence.closing.insert(id("north-000077"), Cents::ZERO);
    });
    assert_found(&appeared, &["accounts differ: north-000077 is new"]);
    let gone = planted(|evidence| {
        evidence.closing.remove(&id("south-000002"));
    });
    assert_found(
        &gone,
        &[
            "accounts differ: south-000002 is gone",
            "balance differs: south-000002 has 0 cents",
            "money destroyed",
        ],
    );
}

#[test]
fn messages_that_break_the_protocols_rules() {
    let found = planted(|evidence| {
        evidence.refused_messages.insert(BankName::South, 2);
    });
    assert_found(
        &found,
        &["refused messages: the participant of bank-south refused 2 messages"],
    );
}
