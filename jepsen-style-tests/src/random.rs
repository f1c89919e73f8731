//! One seed, and a stream of its own for each purpose.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// The seed of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream for one purpose, such as "client-3" or "schedule". Streams do not depend on each other: drawing more
    /// from one changes nothing in another.
    pub fn stream(self, purpose: &str) -> StdRng {
        // FNV-1a, so that the streams stay the same whatever the standard library's hasher becomes.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.0.to_be_bytes().into_iter().chain(purpose.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        StdRng::seed_from_u64(hash)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;

    #[test]
    fn a_stream_depends_on_seed_and_purpose_alone() {
        let draw = |seed: u64, purpose| Seed(seed).stream(purpose).random::<u64>();
        assert_eq!(draw(7, "schedule"), draw(7, "schedule"));
        assert_ne!(draw(7, "schedule"), draw(8, "schedule"));
        assert_ne!(draw(7, "schedule"), draw(7, "client-1"));
    }
}
