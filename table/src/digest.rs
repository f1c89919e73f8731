/// The fingerprint of everything in a table: how many batches made it, how many entries it has, and a sum
/// over all of them in which the order plays no part, so that a batch changes it without reading the rest.
///
/// It is written in the same batch as the entries. A table whose entries do not give the digest that lies
/// among them has lost or mixed up something that sled did not notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Digest {
    pub(crate) batches: u64,
    pub(crate) entries: u64,
    pub(crate) sum: u64,
}

impl Digest {
    pub(crate) const BYTES: usize = 24;

    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.sum = self.sum.wrapping_add(fingerprint(key, value));
    }

    /// Takes an entry out. The caller has read it from the table, so it was added before.
    pub(crate) fn subtract(&mut self, key: &[u8], value: &[u8]) {
        assert!(
            self.entries > 0,
            "an entry can only be taken out after it was added"
        );
        self.entries -= 1;
        self.sum = self.sum.wrapping_sub(fingerprint(key, value));
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (part, number) in bytes
            .chunks_exact_mut(8)
            .zip([self.batches, self.entries, self.sum])
        {
            part.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// The digest in these bytes, or `None` if they have another length.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let mut numbers = [0; 3];
        for (number, part) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
            *number = word(part);
        }
        let [batches, entries, sum] = numbers;
        Some(Self {
            batches,
            entries,
            sum,
        })
    }
}

fn fingerprint(key: &[u8], value: &[u8]) -> u64 {
    // Both lengths go in, so that a byte cannot wander from the key to the value unnoticed.
    let mut hash = mix(((key.len() as u64) << 32) ^ value.len() as u64);
    for part in key.chunks(8).chain(value.chunks(8)) {
        hash = mix(hash ^ word(part));
    }
    hash
}

/// Up to eight bytes as a little-endian number.
fn word(bytes: &[u8]) -> u64 {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

/// The mixing step of SplitMix64: every bit of the input changes about half the bits of the output.
pub(crate) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_plays_no_part_and_taking_out_undoes_adding() {
        let mut one = Digest::default();
        one.add(b"a", b"1");
        one.add(b"b", b"2");
        let mut other = Digest::default();
        other.add(b"b", b"2");
        other.add(b"c", b"3");
        other.add(b"a", b"1");
        assert_ne!(one, other);
        other.subtract(b"c", b"3");
        assert_eq!(one, other);
    }

    #[test]
    fn a_byte_that_wanders_or_changes_is_noticed() {
        let digest = |key: &[u8], value: &[u8]| {
            let mut digest = Digest::default();
            digest.add(key, value);
            digest
        };
        assert_ne!(digest(b"ab", b"c"), digest(b"a", b"bc"));
        assert_ne!(digest(b"ab", b"c"), digest(b"ab", b"d"));
        assert_ne!(digest(b"ab", b"c"), digest(b"ab", b"c\0"));
    }

    #[test]
    fn it_survives_the_way_through_bytes() {
        let digest = Digest {
            batches: 1,
            entries: 2,
            sum: u64::MAX - 3,
        };
        assert_eq!(Digest::from_bytes(&digest.to_bytes()), Some(digest));
        assert_eq!(Digest::from_bytes(&digest.to_bytes()[1..]), None);
    }
}
