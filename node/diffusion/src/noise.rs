//! The noise that a picture starts from.
//!
//! Owns one function of (seed, image index) that gives the same values on every machine, in every
//! process and for every backend: a job that moves to another peer must start from the same noise.
//! So the values are made here and sent to the device, never drawn there, and nothing of them
//! depends on the platform:
//!
//! - the bits are Philox 4×32-10, a counter-based generator: element `4 k ..` comes from counter `k`,
//!   so there is no state to carry, and any part can be made alone;
//! - the normal values are Box–Muller in f64 with the functions of the crate `libm`, which is plain
//!   Rust over IEEE arithmetic. The platform's `ln` and `cos` are not: glibc and macOS differ in
//!   last bits.
//!
//! torch's generators are not imitated here: their values differ between its own CPU and CUDA
//! anyway.
//!
//! Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

/// Standard normal values for one picture.
///
/// The high words of the counter hold the image index and the purpose, so neither two images of a
/// job nor two purposes share a value.
///
/// # Shapes
/// - output: `[count]`
#[must_use]
pub fn normal(seed: u64, image_index: u32, purpose: Purpose, count: usize) -> Vec<f32> {
    let key = [seed as u32, (seed >> 32) as u32];
    let mut values = Vec::with_capacity(count + 3);
    for block in 0..count.div_ceil(4) as u64 {
        let counter = [block as u32, (block >> 32) as u32, image_index, purpose as u32];
        let [a, b, c, d] = philox(counter, key);
        values.extend(box_muller(a, b));
        values.extend(box_muller(c, d));
    }
    values.truncate(count);
    values
}

/// What noise is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// The latents that a run starts from.
    Latents = 0,
    /// The sample of the encoder's distribution in an image-to-image run.
    Posterior = 1,
}

/// Two uniform words to two normal values.
fn box_muller(a: u32, b: u32) -> [f32; 2] {
    // In (0, 1]: the logarithm of 0 never occurs, and the largest value is sqrt(2 ln 2^33), 6.8.
    let radius_of = (f64::from(a) + 0.5) / 4_294_967_296.0;
    let radius = libm::sqrt(-2.0 * libm::log(radius_of));
    let angle = std::f64::consts::TAU * (f64::from(b) + 0.5) / 4_294_967_296.0;
    [(radius * libm::cos(angle)) as f32, (radius * libm::sin(angle)) as f32]
}

/// Philox 4×32 with 10 rounds.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let low = u64::from(counter[0]) * 0xD251_1F53;
        let high = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (high >> 32) as u32 ^ counter[1] ^ key[0],
            high as u32,
            (low >> 32) as u32 ^ counter[3] ^ key[1],
            low as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_words() {
        // From kat_vectors of the authors' Random123 library.
        let zeros = philox([0; 4], [0; 2]);
        assert_eq!(zeros, [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
        let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]);
        let pi = philox(
            [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344],
            [0xA409_3822, 0x299F_31D0],
        );
        assert_eq!(pi, [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]);
    }

    #[test]
    fn values_are_standard_normal() {
        let values = normal(7, 0, Purpose::Latents, 200_000);
        let count = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let moment = |p: i32| values.iter().map(|&v| f64::from(v).powi(p)).sum::<f64>() / count;
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((moment(2) - 1.0).abs() < 0.01, "variance {}", moment(2));
        assert!(moment(3).abs() < 0.03, "skew {}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.1, "fourth moment {}", moment(4));
    }

    #[test]
    fn seed_index_and_purpose_each_change_all_values() {
        let base = normal(1, 0, Purpose::Latents, 64);
        for other in [
            normal(2, 0, Purpose::Latents, 64),
            normal(1 << 32 | 1, 0, Purpose::Latents, 64),
            normal(1, 1, Purpose::Latents, 64),
            normal(1, 0, Purpose::Posterior, 64),
        ] {
            assert!(base.iter().zip(&other).all(|(a, b)| a != b));
        }
    }

    #[test]
    fn a_shorter_draw_is_the_beginning_of_a_longer_one() {
        let long = normal(3, 1, Purpose::Latents, 103);
        assert_eq!(normal(3, 1, Purpose::Latents, 50), long[..50]);
    }
}
