use rand::Rng as _;
use rand::rngs::StdRng;

/// A lot that decides which kind of work comes next: one of a hundred.
pub(super) struct Lot(Option<u32>);

impl Lot {
    pub(super) fn draw(random: &mut StdRng) -> Self {
        Self(Some(random.random_range(0..100)))
    }

    /// Whether it falls to the next kind, which has so many of the hundred. Once it has fallen, it falls to no other.
    pub(super) fn is(&mut self, share: u32) -> bool {
        let Some(drawn) = self.0 else { return false };
        self.0 = drawn.checked_sub(share);
        self.0.is_none()
    }
}

/// One of so many places, the first ones more often than the last ones.
pub(super) fn skewed(random: &mut StdRng, places: u64) -> u64 {
    let [one, other] = [0, 1].map(|_| random.random_range(0..places));
    one.min(other)
}
