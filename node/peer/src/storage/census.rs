//! What a database holds, in three numbers that change with each batch and lie in it.
//!
//! Damage inside a database may lose a page, or bring an older one back, and leave all others whole. So the keys are
//! counted and the checksums of all pairs are added up; at open the pairs are walked and must come to the same.

/// How many batches there were, and what they left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// Batches, ever.
    pub(super) sequence: u64,
    /// Pairs that there are.
    pub(super) pairs: u64,
    /// The sum of their checksums, wrapping.
    pub(super) sum: u64,
}

impl Census {
    /// Bytes of a census with its own checksum.
    const BYTES: usize = 28;

    /// Counts a pair in.
    pub(super) fn add(&mut self, checksum: u32) {
        self.pairs += 1;
        self.sum = self.sum.wrapping_add(checksum.into());
    }

    /// Counts a pair out.
    pub(super) fn remove(&mut self, checksum: u32) {
        self.pairs = self.pairs.saturating_sub(1);
        self.sum = self.sum.wrapping_sub(checksum.into());
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let numbers = [self.sequence, self.pairs, self.sum].map(u64::to_be_bytes).concat();
        let checksum = crc32c::crc32c(&numbers).to_be_bytes();
        [&numbers[..], &checksum].concat()
    }

    /// Reads what [`Census::encode`] made; none for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Census> {
        if bytes.len() != Census::BYTES {
            return None;
        }
        let number = |at| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        let (sequence, pairs, sum) = (number(0)?, number(8)?, number(16)?);
        let census = Census { sequence, pairs, sum };
        (census.encode() == bytes).then_some(census)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_census_comes_back_and_damage_is_found() {
        let mut census = Census { sequence: 7, ..Census::default() };
        census.add(9);
        census.add(u32::MAX);
        census.remove(9);
        assert_eq!((census.pairs, census.sum), (1, u32::MAX.into()));
        let bytes = census.encode();
        assert_eq!(Census::decode(&bytes), Some(census));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Census::decode(&damaged), None, "bit {bit}");
        }
        assert_eq!(Census::decode(&bytes[1..]), None);
    }
}
