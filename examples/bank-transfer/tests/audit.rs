//! The audit finds whatever is planted, and names it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bank_transfer::audit::{Audit, AuditCounts, Evidence, Violation, audit};
use bank_transfer::auditor::SubmittedAudit;
use bank_transfer::load::{Submitted, Told};
use bank_transfer::operation::operations;
use bank_transfer::{AccountId, BankName, Cents, Operation, Transfer};
use unanimo_core::{AbortReason, Decision, Timestamp, TransactionId};

fn tx(number: u64) -> TransactionId {
    TransactionId::new(Timestamp::from_unix_ms(1_000 + number), 0)
}

fn id(text: &str) -> AccountId {
    text.parse().unwrap()
}

fn cents(cents: u64) -> Cents {
    Cents::new(cents).unwrap()
}

fn no_funds() -> Decision {
    Decision::Abort(AbortReason::VotedNo {
        participant: BankName::North.participant(),
        reason: "insufficient funds: …".to_owned(),
    })
}

fn busy() -> Decision {
    Decision::Abort(AbortReason::VotedNo {
        participant: BankName::South.participant(),
        reason: "busy: transfers are under way".to_owned(),
    })
}

/// Two accounts at each bank with 100 cents, and three transfers of 10 cents: between the banks, committed; within the
/// north, committed; between the banks, aborted. One audit that saw 400 cents, and one that was refused after the north
/// had promised. Everything fits.
fn evidence() -> Evidence {
    let accounts = ["north-000001", "north-000002", "south-000001", "south-000002"].map(id);
    let opening: BTreeMap<AccountId, Cents> = accounts
        .into_iter()
        .map(|account| (account, cents(100)))
        .collect();
    let mut evidence = Evidence {
        closing: opening.clone(),
        opening,
        ledgers: BankName::ALL
            .into_iter()
            .map(|bank| (bank, BTreeMap::new()))
            .collect(),
        refused_messages: BankName::ALL.into_iter().map(|bank| (bank, 0)).collect(),
        ..Evidence::default()
    };
    let rows = [
        ("north-000001", "south-000001", Decision::Commit),
        ("north-000001", "north-000002", Decision::Commit),
        ("north-000002", "south-000002", no_funds()),
    ];
    for (row, (from, to, decision)) in rows.into_iter().enumerate() {
        let row = row as u64 + 2;
        let transfer = Transfer {
            row,
            from: id(from),
            to: id(to),
            amount: cents(10),
            key: format!("k{row}"),
        };
        let transaction = tx(row);
        if decision.is_commit() {
            for (bank, operation) in operations(transfer.from, transfer.to, transfer.amount) {
                happen(&mut evidence, bank, transaction, operation);
            }
        }
        evidence.recorded.insert(transaction, decision.clone());
        evidence.submitted.push(Submitted {
            transfer,
            transaction,
            told: Told::Decided(decision),
        });
    }
    for (bank, sum) in [(BankName::North, 190), (BankName::South, 210)] {
        evidence.sums.entry(bank).or_default().insert(tx(50), sum);
        evidence.promised.entry(bank).or_default().extend([tx(2), tx(50)]);
    }
    let north = evidence.promised.get_mut(&BankName::North).unwrap();
    north.extend([tx(3), tx(4), tx(51)]);
    for (audit, decision) in [(tx(50), Decision::Commit), (tx(51), busy())] {
        evidence.recorded.insert(audit, decision.clone());
        evidence.audits.push(SubmittedAudit {
            transaction: audit,
            told: Told::Decided(decision),
        });
    }
    evidence
}

/// A bank applies an operation and writes its ledger.
fn happen(evidence: &mut Evidence, bank: BankName, transaction: TransactionId, operation: Operation) {
    evidence
        .ledgers
        .get_mut(&bank)
        .unwrap()
        .insert(transaction, operation);
    apply(evidence, operation);
}

fn apply(evidence: &mut Evidence, operation: Operation) {
    if let Some(account) = operation.debited() {
        change(evidence, account, -(operation.amount().get() as i64));
    }
    if let Some(account) = operation.credited() {
        change(evidence, account, operation.amount().get() as i64);
    }
}

fn change(evidence: &mut Evidence, account: AccountId, by: i64) {
    let balance = evidence.closing.get_mut(&account).unwrap();
    *balance = cents(balance.get().checked_add_signed(by).unwrap());
}

/// What the audit says once this is planted.
fn planted(plant: impl FnOnce(&mut Evidence)) -> Vec<String> {
    let mut evidence = evidence();
    plant(&mut evidence);
    audit(&evidence)
        .violations
        .iter()
        .map(Violation::to_string)
        .collect()
}

#[track_caller]
fn assert_found(found: &[String], expected: &[&str]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found}\nshould say\n{expected}");
    }
}

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
fn aborted_although_every_bank_had_promised() {
    let mut evidence = evidence();
    // The south has promised too, and yet the third transfer was aborted; and so was the second audit.
    let south = evidence.promised.get_mut(&BankName::South).unwrap();
    south.extend([tx(4), tx(51)]);
    let found = audit(&evidence);
    assert_eq!(found.aborted_fully_prepared, 2);
    let texts: Vec<String> = found.violations.iter().map(Violation::to_string).collect();
    assert_found(
        &texts,
        &[
            "aborted fully prepared: 00000000-03ec-7000-8000-000000000000: every bank concerned has the promise",
            "aborted fully prepared: 00000000-041b-7000-8000-000000000000: every bank concerned has the promise",
        ],
    );
    // A transfer within one bank concerns that bank alone.
    let within = planted(|evidence| {
        evidence.submitted[1].told = Told::Decided(no_funds());
        evidence.recorded.insert(tx(3), no_funds());
    });
    assert!(
        within
            .iter()
            .any(|text| text.starts_with("aborted fully prepared")),
        "{within:?}"
    );
}

#[test]
fn an_audit_that_saw_another_total() {
    for (by, found) in [(-10, 390), (10, 410)] {
        let mut evidence = evidence();
        let sum = evidence
            .sums
            .get_mut(&BankName::South)
            .unwrap()
            .get_mut(&tx(50))
            .unwrap();
        *sum = sum.checked_add_signed(by).unwrap();
        let audited = audit(&evidence);
        assert_eq!(audited.audits.wrong, 1);
        let texts: Vec<String> = audited.violations.iter().map(Violation::to_string).collect();
        assert_found(
            &texts,
            &[&format!("saw {found} cents in total, but there are 400")],
        );
    }
}

#[test]
fn half_an_audit() {
    let lost = planted(|evidence| {
        evidence.sums.get_mut(&BankName::North).unwrap().remove(&tx(50));
    });
    assert_found(
        &lost,
        &[
            "half an audit: the outcome of audit 00000000-041a-7000-8000-000000000000 is Commit, but bank-north has no sum",
        ],
    );
    let left = planted(|evidence| {
        evidence
            .sums
            .get_mut(&BankName::North)
            .unwrap()
            .insert(tx(51), 190);
    });
    assert_found(&left, &["but bank-north has a sum for it"]);
}

#[test]
fn an_audit_whose_outcome_differs() {
    let found = planted(|evidence| {
        drop(
            evidence
                .recorded
                .insert(tx(51), Decision::Abort(AbortReason::Presumed)),
        )
    });
    assert_found(&found, &["outcome differs: audit 00000000-041b"]);
    let mut unknown = evidence();
    unknown.audits[0].told = Told::Unknown("patience is over".to_owned());
    let audited = audit(&unknown);
    assert_eq!((audited.violations.len(), audited.audits.unknown), (0, 1));
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
