//! Randomness that a seed decides.

use std::ops::RangeInclusive;

/// A stream of numbers: xoshiro256**, its state filled by SplitMix64.
///
/// Source: <https://prng.di.unimi.it/xoshiro256starstar.c> and
/// <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// Makes the stream of a seed.
    pub fn new(seed: u64) -> Rng {
        let mut filler = seed;
        Rng { state: std::array::from_fn(|_| split_mix(&mut filler)) }
    }

    /// Makes a stream of its own for a purpose, so that one purpose draws more without disturbing
    /// another.
    pub fn of(seed: u64, purpose: &str) -> Rng {
        let hash = blake3::hash(purpose.as_bytes());
        let (head, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        Rng::new(seed ^ u64::from_le_bytes(*head))
    }

    /// Returns the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Returns a number below a bound, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        // The high half of the product; its bias is below bound / 2^64.
        let product = u128::from(self.bits()) * u128::from(bound);
        (product >> 64) as u64
    }

    /// Returns a number of a range.
    pub fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        assert!(range.start() <= range.end());
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// Says yes so often in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Picks one.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        let count = u64::try_from(among.len()).expect("a usize fits");
        &among[self.below(count) as usize]
    }

    /// Fills a buffer.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generators_give_the_numbers_of_their_authors() {
        let mut state = 1_234_567;
        assert_eq!(split_mix(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(&mut state), 3_203_168_211_198_807_973);

        let mut rng = Rng { state: [1, 2, 3, 4] };
        let first: [u64; 4] = std::array::from_fn(|_| rng.bits());
        assert_eq!(first, [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn a_range_is_reached_to_both_ends_and_never_left() {
        let mut rng = Rng::new(1);
        let mut seen = [0; 4];
        for _ in 0..400 {
            seen[(rng.between(7..=10) - 7) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (60..140).contains(count)), "{seen:?}");
    }

    #[test]
    fn purposes_have_streams_of_their_own() {
        assert_ne!(Rng::of(1, "plan").bits(), Rng::of(1, "run").bits());
        assert_eq!(Rng::of(1, "plan").bits(), Rng::of(1, "plan").bits());
    }
}
