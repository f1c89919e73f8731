use std::collections::{BTreeMap, BTreeSet};

use super::nameless::{Nameless, apart_ms};
use super::told::{Attempt, Fate, Transactions, Way, same_request};
use super::{Case, Checker, Findings, needs};
use crate::history::{Answer, Call, Step, Tx};

/// V19: the same idempotency key, or the same id, with the same request is one transaction with one effect; with another
/// request it has none.
pub(super) struct Keys;

impl Checker for Keys {
    fn name(&self) -> &'static str {
        "keys"
    }

    fn checks(&self) -> &'static str {
        "V19: one key is one transaction, with one outcome and one effect; another request under it has none"
    }

    /// Where something was asked for more than once.
    fn applies(&self, case: &Case<'_>) -> bool {
        let transactions = Transactions::of(case);
        let keyed = |event: &crate::history::Event| key(&event.call).is_some();
        case.history.events.iter().any(keyed)
            || transactions
                .known
                .values()
                .any(|transaction| transaction.attempts.len() > 1)
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let participants = needs::participants(case, &mut findings);
        let transactions = Transactions::of(case);
        let mut keys: BTreeMap<&str, Vec<Attempt<'_>>> = BTreeMap::new();
        let attempts = transactions
            .known
            .values()
            .flat_map(|transaction| &transaction.attempts);
        for attempt in attempts.chain(&transactions.nameless) {
            if let Some(key) = key(attempt.call()) {
                keys.entry(key).or_default().push(*attempt);
            }
        }
        let applied: BTreeSet<Tx> = participants
            .iter()
            .flat_map(|(_, found)| found.effects.iter().map(|effect| effect.transaction))
            .collect();
        for (key, attempts) in &keys {
            findings.count("keys", 1);
            findings.count("repetitions", attempts.len() as u64 - 1);
            for attempts in lives(attempts, case.evidence.retention_ms) {
                one_transaction(key, &attempts, &transactions, &applied, &mut findings);
                one_request(&format!("key {key}"), &attempts, &mut findings);
            }
        }
        for (tx, transaction) in &transactions.known {
            if transaction.attempts.len() > 1 {
                findings.count("repetitions", transaction.attempts.len() as u64 - 1);
                one_request(&format!("id {tx}"), &transaction.attempts, &mut findings);
                one_outcome(*tx, &transaction.attempts, &transaction.requests(), &mut findings);
            }
        }
        let nameless = Nameless::of(case, &transactions, &participants);
        for (tx, under) in &nameless.beside_keys {
            let what =
                format!("{tx} has effects; it was asked for under {under:?}, which do not stand for it");
            findings.violate("effects_beside_the_key", what, None);
        }
        if nameless.perhaps > 0 {
            findings.miss("how long keys were remembered");
        }
        needs::something(&mut findings, "repetitions");
        findings
    }
}

/// Those that were told an id, apart from each other if the key was forgotten in between and is another one since.
fn lives<'a>(attempts: &[Attempt<'a>], window_ms: Option<u64>) -> Vec<Vec<Attempt<'a>>> {
    let mut told: Vec<(Tx, Attempt<'a>)> = attempts
        .iter()
        .filter_map(|attempt| Some((attempt.call().transaction()?, *attempt)))
        .collect();
    told.sort_by_key(|(tx, _)| *tx);
    let together = |one: &(Tx, Attempt<'a>), next: &(Tx, Attempt<'a>)| {
        window_ms.is_none_or(|window_ms| apart_ms(one.0, next.0) < window_ms)
    };
    told.chunk_by(together)
        .map(|life| life.iter().map(|(_, attempt)| *attempt).collect())
        .collect()
}

/// The transactions that a key became: one.
fn one_transaction(
    key: &str,
    attempts: &[Attempt<'_>],
    transactions: &Transactions<'_>,
    applied: &BTreeSet<Tx>,
    findings: &mut Findings,
) {
    let line = attempts.iter().map(Attempt::line).max();
    let ids: BTreeSet<Tx> = attempts
        .iter()
        .filter(|a| a.decision().is_some())
        .filter_map(|a| a.call().transaction())
        .collect();
    if ids.len() > 1 {
        let what = format!(
            "key {key} was answered for {} transactions: {}",
            ids.len(),
            listed(&ids)
        );
        findings.violate("two_transactions", what, line);
    }
    // Also those whose outcome nobody was told.
    let all: BTreeSet<Tx> = attempts.iter().filter_map(|a| a.call().transaction()).collect();
    let happened = |tx: &Tx| {
        let committed = transactions
            .known
            .get(tx)
            .is_some_and(|known| known.fate() == Fate::Committed);
        committed || applied.contains(tx)
    };
    let effects: BTreeSet<Tx> = all.into_iter().filter(happened).collect();
    if effects.len() > 1 {
        let what = format!(
            "key {key} has the effects of {} transactions: {}",
            effects.len(),
            listed(&effects)
        );
        findings.violate("two_effects", what, line);
    }
}

/// What the repetitions of a request hear: what the first one heard.
fn one_outcome(tx: Tx, attempts: &[Attempt<'_>], requests: &[&[Step]], findings: &mut Findings) {
    for request in requests {
        let same = attempts
            .iter()
            .filter(|attempt| same_request(attempt.call().steps(), request));
        let told: BTreeMap<Way, u64> = same
            .filter_map(Attempt::decision)
            .map(|(way, event)| (way, event.index))
            .collect();
        if told.len() > 1 {
            let what = format!("{tx} was told as {:?}", told.keys().collect::<Vec<_>>());
            findings.violate("two_outcomes", what, told.values().max().copied());
        }
    }
}

/// The requests that were told to be committed under one name: one.
fn one_request(name: &str, attempts: &[Attempt<'_>], findings: &mut Findings) {
    let mut requests: Vec<&[Step]> = Vec::new();
    for attempt in attempts
        .iter()
        .filter(|a| matches!(a.told(), Some((Answer::Committed, _))))
    {
        let steps = attempt.call().steps();
        if !requests.iter().any(|known| same_request(known, steps)) {
            requests.push(steps);
        }
        if requests.len() == 2 {
            let what = format!("{name} was told to be committed for two requests: {requests:?}");
            findings.violate("two_requests", what, Some(attempt.line()));
        }
    }
}

fn key(call: &Call) -> Option<&str> {
    match call {
        Call::Transact { key, .. } => key.as_deref(),
        Call::Query { .. } | Call::Abort { .. } => None,
    }
}

fn listed(ids: &BTreeSet<Tx>) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, transfer, tx};
    use crate::history::Style;

    fn keyed(transaction: Option<Tx>, cents: i64) -> Call {
        Call::Transact {
            transaction,
            style: Style::OneShot,
            key: Some("k".to_owned()),
            steps: transfer(cents),
        }
    }

    /// The same key twice at once, and once more later with another request, which was refused.
    fn made() -> Made {
        let mut made = Made::new();
        let [one, two] = [0, 1].map(|_| made.begin(keyed(Some(tx(1)), 5)));
        made.complete_ok(one, Answer::Committed);
        made.complete_ok(two, Answer::Committed);
        made.apply(tx(1), &transfer(5));
        let other = made.begin(keyed(None, 6));
        made.complete_fail(other, None);
        made
    }

    #[test]
    fn one_key_is_one_transaction() {
        let findings = made().assert(&Keys, &[]);
        assert_eq!(findings.counted["keys"], 1);
    }

    #[test]
    fn a_key_that_became_two_transactions_is_found() {
        let mut made = made();
        let again = made.begin(keyed(Some(tx(2)), 5));
        made.complete_ok(again, Answer::Committed);
        made.assert(&Keys, &["two_transactions", "two_effects"]);
    }

    #[test]
    fn a_key_that_was_forgotten_in_between_is_another_one() {
        let mut made = made();
        let again = made.begin(keyed(Some(tx(20_001)), 6));
        made.complete_ok(again, Answer::Committed);
        made.apply(tx(20_001), &transfer(6));
        made.assert(&Keys, &["two_transactions", "two_effects", "two_requests"]);
        made.evidence.retention_ms = Some(20_000);
        made.assert(&Keys, &[]);
    }

    #[test]
    fn the_effect_of_a_repetition_that_nobody_heard_of_is_found() {
        let mut made = made();
        let again = made.begin(keyed(None, 5));
        made.complete_info(again);
        made.assert(&Keys, &[]);
        // It stands under the id that the repetition had proposed, which only participants know.
        made.apply(tx(2), &transfer(5));
        made.assert(&Keys, &["effects_beside_the_key"]);
    }

    #[test]
    fn the_effect_of_another_request_that_was_refused_is_found() {
        let mut made = made();
        made.apply(tx(2), &transfer(6));
        made.assert(&Keys, &["effects_beside_the_key"]);
    }

    #[test]
    fn a_request_that_hears_two_things_beside_another_is_found() {
        let mut made = Made::with_transfers();
        let no = || Some(Answer::Aborted("no".to_owned()));
        made.fail(Some(tx(1)), transfer(6), no());
        made.assert(&Keys, &[]);
        made.fail(Some(tx(1)), transfer(5), no());
        made.assert(&Keys, &["two_outcomes"]);
    }

    #[test]
    fn another_request_that_was_accepted_is_found() {
        let mut made = made();
        let other = made.begin(keyed(Some(tx(1)), 6));
        made.complete_ok(other, Answer::Committed);
        made.assert(&Keys, &["two_requests"]);
    }

    #[test]
    fn another_request_under_the_same_id_that_was_accepted_is_found() {
        let mut made = Made::with_transfers();
        made.ok(Some(tx(1)), transfer(6), Answer::Committed);
        made.assert(&Keys, &["two_requests"]);
    }

    #[test]
    fn a_repetition_that_hears_something_else_is_found() {
        let mut made = Made::with_transfers();
        made.fail(Some(tx(1)), transfer(5), Some(Answer::Aborted("no".to_owned())));
        made.assert(&Keys, &["two_outcomes"]);
    }

    #[test]
    fn it_applies_where_something_was_repeated() {
        assert!(!Keys.applies(&Made::with_transfers().case()));
        assert!(Keys.applies(&made().case()));
        let mut alone = Made::new();
        let _ = alone.begin(keyed(None, 1));
        assert!(Keys.applies(&alone.case()));
        assert_eq!(alone.check(&Keys).verdict, Verdict::Unknown);
    }
}
