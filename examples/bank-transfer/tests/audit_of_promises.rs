//! The audit finds what was aborted although it was promised, and audits that saw something else than there is.

#![allow(clippy::unwrap_used)]

mod evidence;

use bank_transfer::BankName;
use bank_transfer::audit::{Violation, audit};
use bank_transfer::load::Told;
use unanimo_core::{AbortReason, Decision};

use evidence::{assert_found, evidence, no_funds, planted, tx};

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
