use super::*;
use crate::BankFiles;
use crate::audit::{AuditCounts, Violation};
use crate::distribution::new_histogram;
use crate::generate::generate;
use unanimo_core::{Timestamp, TransactionId};

fn voted_no(reason: &str) -> Told {
    let participant = crate::BankName::North.participant();
    Told::Decided(Decision::Abort(AbortReason::VotedNo {
        participant,
        reason: reason.to_owned(),
    }))
}

fn report(told: Vec<Told>, audit: Audit) -> Report {
    let transfers = generate(told.len(), 1);
    let mut latencies = new_histogram();
    for _ in 0..told
        .iter()
        .filter(|told| matches!(told, Told::Decided(_)))
        .count()
    {
        latencies.record(2500).unwrap();
    }
    let submit = |(transfer, told): (crate::Transfer, Told)| Submitted {
        transaction: TransactionId::new(Timestamp::from_unix_ms(transfer.row), 0),
        transfer,
        told,
    };
    let mut injected = Injected {
        leader_kills: 1,
        participant_kills: 2,
        without_leader: vec![Duration::from_millis(1030), Duration::from_millis(900)],
        ..Injected::default()
    };
    let mut bank = BankFiles::default();
    for number in 0..100 {
        let transaction = TransactionId::new(Timestamp::from_unix_ms(number), 1);
        // The last is in doubt when the leader dies.
        let heard = if number == 99 { 1400 } else { 1003 };
        bank.promised.insert(transaction, Timestamp::from_unix_ms(1000));
        bank.heard.insert(transaction, Timestamp::from_unix_ms(heard));
    }
    let [from, to] = [1200, 1210].map(Timestamp::from_unix_ms);
    injected.leader_deaths.push((from, to));
    Report::new(Findings {
        input: "sample".to_owned(),
        seed: None,
        transfers: told.len(),
        load: Load {
            submitted: transfers.into_iter().zip(told).map(submit).collect(),
            latencies,
            elapsed: Duration::from_secs(2),
        },
        in_doubt: InDoubtTimes::new([&bank], &injected.leader_deaths, Timestamp::from_unix_ms(9999)),
        injected,
        audit,
    })
}

fn clean() -> Audit {
    Audit {
        violations: vec![],
        total_before: 123_456,
        total_after: 123_456,
        aborted_fully_prepared: 0,
        audits: AuditCounts {
            committed: 120,
            refused: 7,
            unknown: 0,
            wrong: 0,
        },
    }
}

fn outcomes() -> Vec<Told> {
    vec![
        Told::Decided(Decision::Commit),
        voted_no("insufficient funds: north-000001 has 1.00 available, 2.00 is needed"),
        voted_no("insufficient funds: north-000002 has 0.00 available, 2.00 is needed"),
        Told::Decided(Decision::Abort(AbortReason::Presumed)),
    ]
}

#[test]
fn the_json_has_what_programs_look_for() {
    let json: serde_json::Value =
        serde_json::from_str(&serde_json::to_string(&report(outcomes(), clean())).unwrap()).unwrap();
    let expected = serde_json::json!({
        "input": "sample", "seed": null, "transfers": 4,
        "submitted": 4, "committed": 1, "aborted": 3, "refused": 0, "unknown": 0,
        "aborted_by_reason": { "insufficient funds": 2, "presumed": 1 },
        "violations": 0, "first_violations": [],
        "total_before": 123_456, "total_after": 123_456,
        "leader_kills": 1, "participant_kills": 2, "without_leader_ms": 1030.0,
        "latency_ms": { "p50": 2.501, "p99": 2.501, "max": 2.501 },
        "in_doubt_ms": { "p50": 400.0, "p99": 400.0, "max": 400.0, "count": 1 },
        "in_doubt_all_ms": { "p50": 3.0, "p99": 3.0, "max": 400.0, "count": 100 },
        "election_timeout_ms": { "min": 300, "max": 600 },
        "aborted_fully_prepared": 0,
        "audits": 120, "audits_wrong": 0, "audits_refused": 7, "audits_unknown": 0,
        "transfers_per_second": 2.0, "load_seconds": 2.0,
    });
    assert_eq!(json, expected);
}

#[test]
fn people_are_told_the_same() {
    let text = report(outcomes(), clean()).to_string();
    for line in [
        "  committed                1\n",
        "  aborted                  3\n",
        "    insufficient funds       2\n",
        "  longest without leader   1030 ms\n",
        "  election timeouts        300 to 600 ms\n",
        "  in doubt at its death    p50 400.0 ms, p99 400.0 ms, max 400.0 ms, of 1 branches\n",
        "  in doubt                 p50 3.0 ms, p99 3.0 ms, max 400.0 ms\n",
        "  audits                   120 while transfers ran, 0 wrong, 7 more made way\n",
        "  aborted fully prepared   0\n",
        "  total after              1234.56\n",
        "  bank killed              2 times\n",
        "The audit holds",
    ] {
        assert!(text.contains(line), "{text}\nhas no\n{line}");
    }
}

#[test]
fn it_holds_only_if_everything_is_definite_and_nothing_was_found() {
    assert!(report(outcomes(), clean()).holds());
    let mut unknown = outcomes();
    unknown[1] = Told::Unknown("patience is over".to_owned());
    assert!(!report(unknown, clean()).holds());
    let mut refused = outcomes();
    refused[1] = Told::Refused("no such participant".to_owned());
    assert!(!report(refused, clean()).holds());
    let mut unfinished = report(outcomes(), clean());
    unfinished.transfers += 1;
    assert!(!unfinished.holds());
    let mut unknown_audit = clean();
    unknown_audit.audits.unknown = 1;
    assert!(!report(outcomes(), unknown_audit).holds());
    let violation = Violation::MoneyCreated { cents: 1 };
    let violated = report(
        outcomes(),
        Audit {
            violations: vec![violation.clone(); 23],
            ..clean()
        },
    );
    assert!(!violated.holds());
    assert_eq!((violated.violations, violated.first_violations.len()), (23, 20));
    let text = violated.to_string();
    assert!(
        text.contains("and 3 more") && text.ends_with("THE AUDIT DOES NOT HOLD."),
        "{text}"
    );
    assert!(
        !report(
            outcomes(),
            Audit {
                total_after: 123_457,
                ..clean()
            }
        )
        .holds()
    );
}
