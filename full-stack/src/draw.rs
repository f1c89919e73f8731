//! Random numbers from a seed, for one purpose each, so that drawing more for one of them changes nothing for another.

/// A generator of numbers (splitmix64): the same seed and purpose draw the same.
#[derive(Clone, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    /// What is drawn for this purpose.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a, because the standard library's hash may change.
        let hash = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut draw = Self(seed ^ hash);
        // Neighbouring seeds are far apart from here on.
        draw.0 = draw.number();
        draw
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `least` to `most`.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        assert!(least <= most, "nothing lies between {least} and {most}");
        least + self.number() % (most - least + 1)
    }

    /// True so many times in a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.number() % 100 < percent
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.between(0, from.len() as u64 - 1) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_and_purpose_draws_its_own_and_always_the_same() {
        let drawn = |seed, purpose| Draw::new(seed, purpose).number();
        assert_eq!(drawn(1, "faults"), drawn(1, "faults"));
        assert_ne!(drawn(1, "faults"), drawn(2, "faults"));
        assert_ne!(drawn(1, "faults"), drawn(1, "work"));
    }

    #[test]
    fn a_range_is_drawn_with_both_of_its_ends() {
        let mut draw = Draw::new(1, "range");
        let drawn: std::collections::BTreeSet<u64> = (0..100).map(|_| draw.between(3, 5)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5]);
    }
}
