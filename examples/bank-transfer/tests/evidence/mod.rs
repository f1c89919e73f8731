//! Evidence in which everything fits, for tests that plant what does not. Each test program uses a part of it.

#![allow(dead_code)]

use std::collections::BTreeMap;

use bank_transfer::audit::{Evidence, Violation, audit};
use bank_transfer::auditor::SubmittedAudit;
use bank_transfer::load::{Submitted, Told};
use bank_transfer::operation::operations;
use bank_transfer::{AccountId, BankName, Cents, Operation, Transfer};
use unanimo_core::{AbortReason, Decision, Timestamp, TransactionId};

pub(crate) fn tx(number: u64) -> TransactionId {
    TransactionId::new(Timestamp::from_unix_ms(1_000 + number), 0)
}

pub(crate) fn id(text: &str) -> AccountId {
    text.parse().unwrap()
}

pub(crate) fn cents(cents: u64) -> Cents {
    Cents::new(cents).unwrap()
}

pub(crate) fn no_funds() -> Decision {
    Decision::Abort(AbortReason::VotedNo {
        participant: BankName::North.participant(),
        reason: "insufficient funds: …".to_owned(),
    })
}

pub(crate) fn busy() -> Decision {
    Decision::Abort(AbortReason::VotedNo {
        participant: BankName::South.participant(),
        reason: "busy: transfers are under way".to_owned(),
    })
}

/// Two accounts at each bank with 100 cents, and three transfers of 10 cents: between the banks, committed; within the
/// north, committed; between the banks, aborted. One audit that saw 400 cents, and one that was refused after the north
/// had promised. Everything fits.
pub(crate) fn evidence() -> Evidence {
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
pub(crate) fn happen(
    evidence: &mut Evidence,
    bank: BankName,
    transaction: TransactionId,
    operation: Operation,
) {
    evidence
        .ledgers
        .get_mut(&bank)
        .unwrap()
        .insert(transaction, operation);
    apply(evidence, operation);
}

pub(crate) fn apply(evidence: &mut Evidence, operation: Operation) {
    if let Some(account) = operation.debited() {
        change(evidence, account, -(operation.amount().get() as i64));
    }
    if let Some(account) = operation.credited() {
        change(evidence, account, operation.amount().get() as i64);
    }
}

pub(crate) fn change(evidence: &mut Evidence, account: AccountId, by: i64) {
    let balance = evidence.closing.get_mut(&account).unwrap();
    *balance = cents(balance.get().checked_add_signed(by).unwrap());
}

/// What the audit says once this is planted.
pub(crate) fn planted(plant: impl FnOnce(&mut Evidence)) -> Vec<String> {
    let mut evidence = evidence();
    plant(&mut evidence);
    audit(&evidence)
        .violations
        .iter()
        .map(Violation::to_string)
        .collect()
}

#[track_caller]
pub(crate) fn assert_found(found: &[String], expected: &[&str]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found}\nshould say\n{expected}");
    }
}
