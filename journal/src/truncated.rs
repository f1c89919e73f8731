//! Which positions ceased to exist by truncation.

use std::collections::VecDeque;
use std::ops::Range;

use crate::sequence::Sequence;

/// Ranges of positions, in order, without overlap.
#[derive(Debug, Default)]
pub(crate) struct Truncated {
    ranges: VecDeque<Range<Sequence>>,
}

impl Truncated {
    /// A truncation at position `by` ends everything from `from` on. Truncations come in the order of `by`.
    pub(crate) fn cut(&mut self, from: Sequence, by: Sequence) {
        assert!(from <= by, "a truncation at {by} keeps nothing from {from} on");
        let mut start = from;
        while let Some(last) = self.ranges.back()
            && last.end >= from
        {
            start = start.min(last.start);
            self.ranges.pop_back();
        }
        if start < by {
            self.ranges.push_back(start..by);
        }
    }

    pub(crate) fn contains(&self, sequence: Sequence) -> bool {
        let after = self.ranges.partition_point(|range| range.start <= sequence);
        after > 0 && sequence < self.ranges[after - 1].end
    }

    /// Forgets what precedes `first`: nobody can ask for it any more.
    pub(crate) fn forget_before(&mut self, first: Sequence) {
        let forgotten = self.ranges.partition_point(|range| range.end <= first);
        self.ranges.drain(..forgotten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivors(cuts: &[(u64, u64)], until: u64) -> Vec<u64> {
        let mut truncated = Truncated::default();
        for (after, by) in cuts {
            truncated.cut(Sequence::new(after + 1), Sequence::new(*by));
        }
        (1..=until)
            .filter(|number| !truncated.contains(Sequence::new(*number)))
            .collect()
    }

    #[test]
    fn what_lies_between_a_truncation_and_what_it_keeps_is_gone() {
        assert_eq!(survivors(&[(2, 5)], 6), [1, 2, 5, 6]);
        assert_eq!(survivors(&[(4, 5)], 6), [1, 2, 3, 4, 5, 6], "nothing lay between");
        assert_eq!(survivors(&[(0, 5)], 6), [5, 6]);
    }

    #[test]
    fn later_truncations_reach_over_earlier_ones() {
        assert_eq!(survivors(&[(4, 6), (2, 8)], 9), [1, 2, 8, 9], "wholly over it");
        assert_eq!(survivors(&[(2, 6), (4, 8)], 9), [1, 2, 8, 9], "from within it");
        assert_eq!(
            survivors(&[(2, 5), (5, 8)], 9),
            [1, 2, 5, 8, 9],
            "right behind it"
        );
        assert_eq!(
            survivors(&[(1, 4), (5, 7)], 9),
            [1, 4, 5, 7, 8, 9],
            "apart from it"
        );
    }

    #[test]
    fn forgetting_keeps_what_is_still_in_reach() {
        let mut truncated = Truncated::default();
        truncated.cut(Sequence::new(2), Sequence::new(4));
        truncated.cut(Sequence::new(6), Sequence::new(9));
        truncated.forget_before(Sequence::new(7));
        assert!(!truncated.contains(Sequence::new(3)), "forgotten");
        assert!(truncated.contains(Sequence::new(8)));
    }
}
