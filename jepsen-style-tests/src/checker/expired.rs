//! Whether a node may say of a transaction that it is too old to be known.

use super::quiet::MS;
use super::{Case, Findings};
use crate::history::Tx;

/// Clocks of one machine that are read one after the other.
const SLACK_MS: u64 = 1_000;

/// Judges the answer `Expired`, given before this moment (Unix milliseconds).
///
/// What is over is remembered for a window from the time in the transaction's id, whoever made the id. The time that the
/// cluster goes by is not ahead of the right one while at most one of its clocks is wrong.
pub(super) fn judge(
    tx: Tx,
    whose: &str,
    at: Option<u64>,
    line: Option<u64>,
    case: &Case<'_>,
    findings: &mut Findings,
) {
    let (Some(at), Some(window)) = (at, case.evidence.retention_ms) else {
        findings.miss("how long nodes remember, or when they were asked");
        return;
    };
    let age = at.saturating_sub(tx.0.timestamp().unix_ms());
    if age.saturating_add(SLACK_MS) >= window {
        findings.count("expired", 1);
        return;
    }
    let what = format!("{whose} says that {tx} is too old to be known, {age} ms after its beginning");
    findings.violate("expired_too_early", what, line);
}

/// A moment of the history in Unix milliseconds.
pub(super) fn unix_ms(case: &Case<'_>, time_ns: u64) -> Option<u64> {
    Some(case.evidence.began_unix_ms?.saturating_add(time_ns / MS))
}
