//! Chance that can be asked again: what is drawn depends on the seed and on what it is drawn for, and on nothing that
//! was drawn before. So a schedule with one transaction or fault less draws the rest as before, and can be shrunk.

/// One answer of chance, and as many as are wanted after it.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    state: u64,
}

/// The finalizer of splitmix64: every bit of the input changes half of the output.
const fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl Chance {
    /// What a seed says about a purpose, and the n-th time that it is asked.
    pub(crate) const fn of(seed: u64, purpose: &str, count: u64) -> Self {
        let mut state = mixed(seed ^ 0x9e37_79b9_7f4a_7c15);
        let bytes = purpose.as_bytes();
        let mut place = 0;
        while place < bytes.len() {
            state = mixed(state ^ bytes[place] as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
            place += 1;
        }
        Self {
            state: mixed(state ^ mixed(count.wrapping_add(1))),
        }
    }

    pub(crate) const fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.state)
    }

    /// A number below `end`, which must not be zero.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        (((self.bits() as u128) * (end as u128)) >> 64) as u64
    }

    /// A number from `first` to `last`.
    pub(crate) const fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// Whether something happens that happens so often in a thousand times.
    pub(crate) const fn permille(&mut self, often: u64) -> bool {
        self.below(1000) < often
    }

    /// One of these.
    pub(crate) fn of_these<'a, T>(&mut self, these: &'a [T]) -> &'a T {
        &these[self.below(these.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_depends_on_what_it_is_asked_for_only() {
        let first = Chance::of(7, "loss", 3).bits();
        assert_eq!(first, Chance::of(7, "loss", 3).bits());
        for other in [
            Chance::of(8, "loss", 3),
            Chance::of(7, "delay", 3),
            Chance::of(7, "loss", 4),
        ] {
            assert_ne!(first, other.clone().bits());
        }
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut counts = [0_u32; 10];
        for count in 0..10_000 {
            counts[Chance::of(1, "spread", count).below(10) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (900..1100).contains(count)),
            "{counts:?}"
        );
    }
}
