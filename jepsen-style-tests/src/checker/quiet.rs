//! When nothing was disturbed, and what kinds of disturbance there were.

use std::collections::BTreeSet;

use crate::nemesis::Injected;

/// Nanoseconds in a millisecond.
pub(super) const MS: u64 = 1_000_000;

/// Whether a fault's name has one of these words.
pub(super) fn is_one_of(fault: &Injected, words: &[&str]) -> bool {
    fault.fault.split(['-', '_']).any(|word| words.contains(&word))
}

/// Clocks of processes were moved.
pub(super) fn moves_clocks(fault: &Injected) -> bool {
    is_one_of(fault, &["clock", "clocks", "drift", "monotonic"])
}

/// Wall clocks of processes were moved, and not only monotonic ones.
pub(super) fn moves_wall_clocks(fault: &Injected) -> bool {
    is_one_of(fault, &["clock", "clocks", "drift"])
}

/// The processes that a fault says that it happened to: `c1`, `p2`.
pub(super) fn members_named(fault: &Injected) -> BTreeSet<&str> {
    let words = fault.what.split(|letter: char| !letter.is_ascii_alphanumeric());
    let is_name = |word: &&str| {
        let number = word.strip_prefix(['c', 'p']).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    };
    words.filter(is_name).collect()
}

/// Messages came late, or again.
pub(super) fn delays_messages(fault: &Injected) -> bool {
    is_one_of(fault, &["replay", "late", "hold", "held"])
}

/// An old data folder came back, or an empty one.
pub(super) fn restores(fault: &Injected) -> bool {
    is_one_of(fault, &["restore", "restored", "stale", "copy", "wiped"])
}

/// System calls to a disk returned errors.
pub(super) fn fails_calls(fault: &Injected) -> bool {
    is_one_of(fault, &["error", "errors"])
}

/// Files were damaged.
pub(super) fn damages(fault: &Injected) -> bool {
    is_one_of(
        fault,
        &[
            "flip",
            "flips",
            "truncate",
            "truncation",
            "corrupt",
            "corruption",
            "damage",
        ],
    )
}

/// The times in which something was disturbed: apart from each other, in order. Every fault counts for a while longer
/// than it lasted, because its consequences do.
pub(super) struct Disturbed {
    spans: Vec<(u64, u64)>,
}

impl Disturbed {
    /// By these faults, each with what follows it for so many nanoseconds.
    pub(super) fn by(faults: &[Injected], settle_ns: u64) -> Self {
        Self::during(faults.iter().map(|fault| {
            let ended_ns = fault.ended_ns.max(fault.begun_ns);
            (fault.begun_ns, ended_ns.saturating_add(settle_ns))
        }))
    }

    /// In these times, each from and until.
    pub(super) fn during(spans: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut spans: Vec<(u64, u64)> = spans.collect();
        spans.sort_unstable();
        let mut apart: Vec<(u64, u64)> = Vec::new();
        for (from, until) in spans {
            match apart.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                _ => apart.push((from, until)),
            }
        }
        Self { spans: apart }
    }

    /// For how long of this time something was disturbed.
    pub(super) fn within(&self, from: u64, until: u64) -> u64 {
        let first = self.spans.partition_point(|span| span.1 <= from);
        self.spans[first..]
            .iter()
            .take_while(|span| span.0 < until)
            .map(|span| span.1.min(until).saturating_sub(span.0.max(from)))
            .sum()
    }

    /// Whether nothing was disturbed between these moments, both included.
    pub(super) fn is_quiet(&self, from: u64, until: u64) -> bool {
        let first = self.spans.partition_point(|span| span.1 < from);
        self.spans.get(first).is_none_or(|span| span.0 > until)
    }
}

/// The middle, the 99th of a hundred, and the largest. Nothing of nothing.
pub(super) fn quantiles(mut values: Vec<u64>) -> Option<[u64; 3]> {
    values.sort_unstable();
    let at = |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1)));
    Some([*at(50)?, *at(99)?, *values.last()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str, begun_ns: u64, ended_ns: u64) -> Injected {
        Injected {
            fault: name.to_owned(),
            begun_ns,
            in_force_ns: Some(begun_ns),
            healed_ns: Some(ended_ns),
            ended_ns,
            what: String::new(),
            evidence: None,
        }
    }

    #[test]
    fn faults_that_touch_are_one_disturbance() {
        let disturbed = Disturbed::by(&[fault("a", 50, 60), fault("b", 10, 20), fault("c", 21, 30)], 5);
        assert_eq!(disturbed.within(0, 100), 25 + 15);
        assert_eq!(disturbed.within(12, 14), 2);
        assert_eq!(disturbed.within(33, 52), 2 + 2);
        assert_eq!(disturbed.within(70, 60), 0);
        assert_eq!(disturbed.within(12, 11), 0);
        assert!(disturbed.is_quiet(36, 49));
        assert!(!disturbed.is_quiet(35, 49));
        assert!(!disturbed.is_quiet(36, 50));
        assert!(disturbed.is_quiet(66, 1000));
    }

    #[test]
    fn kinds_are_whole_words_of_a_name() {
        assert!(moves_clocks(&fault("clock-jump", 0, 0)));
        assert!(!moves_clocks(&fault("o-clocked", 0, 0)));
        assert!(delays_messages(&fault("late-commit", 0, 0)) && !delays_messages(&fault("latency", 0, 0)));
        assert!(restores(&fault("restore-participant", 0, 0)) && damages(&fault("bit_flip", 0, 0)));
        assert!(
            restores(&fault("old-copy-participant", 0, 0)) && restores(&fault("wiped-participant", 0, 0))
        );
        assert!(fails_calls(&fault("fsync-error", 0, 0)) && !fails_calls(&fault("fsync-stall", 0, 0)));
    }

    #[test]
    fn members_are_named_in_what_a_fault_did() {
        let named = |what: &str| {
            let mut fault = fault("x", 0, 0);
            fault.what = what.to_owned();
            members_named(&fault)
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(named("kill -9 of p2 c1"), ["c1", "p2"]);
        assert_eq!(named("error=EIO:when=3 of fsync of c12 (process 123)"), ["c12"]);
        assert_eq!(named("c3, the leader, alone all the time"), ["c3"]);
        assert_eq!(named("p1: its clock jumps by -3.0 s, c or p"), ["p1"]);
    }

    #[test]
    fn quantiles_of_little_are_no_panic() {
        assert_eq!(quantiles(vec![]), None);
        assert_eq!(quantiles(vec![7]), Some([7, 7, 7]));
        assert_eq!(quantiles((1..=200).rev().collect()), Some([101, 199, 200]));
    }
}
