use super::quiet::{MS, moves_clocks};
use super::told::{Fate, Transaction, Transactions, Way};
use super::{Case, Checker, Findings, needs};
use crate::evidence::{Evidence, ParticipantEvidence};
use crate::history::Tx;

/// V3: every member of a transaction that committed had promised it, for this request and with these members, before
/// anybody was told.
pub(super) struct Validity;

/// How much later than the commit was told a promise may be dated: two readings of the same clock, in milliseconds.
const SAME_CLOCK_MS: u64 = 20;

impl Checker for Validity {
    fn name(&self) -> &'static str {
        "validity"
    }

    fn checks(&self) -> &'static str {
        "V3: a commit has an earlier promise of every member in its journal, for the same request and members"
    }

    fn check(&self, case: &Case<'_>) -> Findings {
        let mut findings = Findings::new(self);
        let journals = needs::journals(case, &mut findings);
        for (name, found) in &journals {
            for tx in &found.committed_unpromised {
                let what = format!("{tx}: the journal of {name} commits it and had not promised it");
                findings.violate("committed_unpromised", what, None);
            }
        }
        let clocks_moved = case.faults.iter().any(moves_clocks);
        if case.evidence.began_unix_ms.is_none() {
            findings.miss("when the history began");
        }
        for (tx, transaction) in &Transactions::of(case).known {
            if transaction.fate() != Fate::Committed {
                continue;
            }
            findings.count("committed", 1);
            let promises = judge(*tx, transaction, &journals, &mut findings);
            if !clocks_moved {
                for (name, found) in promises {
                    in_time(*tx, transaction, name, found, case.evidence, &mut findings);
                }
            }
        }
        needs::something(&mut findings, "committed");
        findings
    }
}

/// The promises of one transaction that committed: all of them, and alike. Returns whose there are.
fn judge<'a>(
    tx: Tx,
    transaction: &Transaction<'_>,
    journals: &'a [(String, &'a ParticipantEvidence)],
    findings: &mut Findings,
) -> Vec<(&'a str, &'a ParticipantEvidence)> {
    let line = transaction.attempts.first().map(|attempt| attempt.line());
    let promised: Vec<_> = journals
        .iter()
        .filter(|(_, found)| found.promised.contains_key(&tx))
        .map(|(name, found)| (name.as_str(), *found))
        .collect();
    findings.count("promises", promised.len() as u64);
    let mut alike: Vec<_> = promised
        .iter()
        .filter_map(|(_, found)| found.promises.get(&tx))
        .collect();
    alike.dedup();
    if alike.len() > 1 {
        let what = format!("{tx} committed on promises of different requests or members: {alike:?}");
        findings.violate("promises_differ", what, line);
    }
    let asked = transaction.members().unwrap_or_default();
    for promise in alike {
        let named: std::collections::BTreeSet<&str> = promise.members.iter().map(String::as_str).collect();
        if !asked.is_empty() && named != asked {
            let what = format!("{tx} was asked of {asked:?} and promised as one of {named:?}");
            findings.violate("members_differ", what, line);
        }
    }
    for (name, _) in journals {
        if asked.contains(name.as_str()) && !promised.iter().any(|(promised, _)| promised == name) {
            let what = format!("{tx} committed, and the journal of {name} has no promise");
            findings.violate("promise_missing", what, line);
        }
    }
    promised
}

/// Whether a promise was made before anybody was told of the commit.
fn in_time(
    tx: Tx,
    transaction: &Transaction<'_>,
    name: &str,
    found: &ParticipantEvidence,
    evidence: &Evidence,
    findings: &mut Findings,
) {
    let (Some(began), Some(told)) = (evidence.began_unix_ms, transaction.told(Way::Commit)) else {
        return;
    };
    let told_at = began.saturating_add(told.time_ns / MS);
    if let Some(promised) = found.promised.get(&tx)
        && *promised > told_at.saturating_add(SAME_CLOCK_MS)
    {
        let late = promised - told_at;
        let what = format!(
            "{tx}: {name} promised it {late} ms after line {} told that it committed",
            told.index
        );
        findings.violate("promised_late", what, Some(told.index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::checker::made::{Made, tx};

    #[test]
    fn promises_of_all_before_the_commit_are_right() {
        let findings = Made::with_transfers().assert(&Validity, &[]);
        assert_eq!(findings.counted["promises"], 12);
    }

    #[test]
    fn a_promise_that_is_not_there_is_found() {
        let mut made = Made::with_transfers();
        made.participant("p2").promised.remove(&tx(1));
        made.assert(&Validity, &["promise_missing"]);
    }

    #[test]
    fn a_commit_in_a_journal_without_promise_before_is_found() {
        let mut made = Made::with_transfers();
        made.participant("p2").committed_unpromised.insert(tx(1));
        made.assert(&Validity, &["committed_unpromised"]);
    }

    #[test]
    fn promises_of_another_request_or_other_members_are_found() {
        let mut made = Made::with_transfers();
        made.participant("p2").promises.get_mut(&tx(1)).unwrap().request = "another".to_owned();
        made.assert(&Validity, &["promises_differ"]);
        let mut made = Made::with_transfers();
        for name in ["p1", "p2"] {
            made.participant(name)
                .promises
                .get_mut(&tx(1))
                .unwrap()
                .members
                .pop();
        }
        made.assert(&Validity, &["members_differ"]);
    }

    #[test]
    fn a_promise_after_the_commit_was_told_is_found_unless_clocks_were_moved() {
        let mut made = Made::with_transfers();
        *made.participant("p2").promised.get_mut(&tx(1)).unwrap() += 1000;
        made.assert(&Validity, &["promised_late"]);
        made.fault("clock-jump", 0, 1, Some("it jumped"));
        made.assert(&Validity, &[]);
    }

    #[test]
    fn a_journal_that_is_not_whole_is_no_pass() {
        let mut made = Made::with_transfers();
        made.participant("p2").journal_whole = false;
        assert_eq!(made.check(&Validity).verdict, Verdict::Unknown);
    }
}
