//! How numbers lie in files, and what they are as f32.
//!
//! Owns every storage type that a checkpoint may have, quantised ones included: those are widened
//! here, while they are read, and nothing behind this module knows of them.

use std::sync::LazyLock;

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

/// Values that one task widens; a multiple of every block.
const TASK_VALUES: usize = 1 << 16;

/// A storage type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// IEEE 754, 32 bits.
    F32,
    /// Its upper half.
    Bf16,
    /// IEEE 754, 16 bits.
    F16,
    /// Eight bits, four of exponent, no infinity: what `torch.float8_e4m3fn` is.
    F8E4M3,
    /// Eight bits, five of exponent: the upper half of [`Encoding::F16`].
    F8E5M2,
    /// GGUF: 32 whole numbers of eight bits and the factor of all, an F16.
    Q8_0,
    /// GGUF: 32 whole numbers of four bits and the factor of all, an F16.
    Q4_0,
    /// Whatever else; known by its name alone.
    Other(String),
}

impl Encoding {
    /// The encoding of a safetensors type.
    pub(crate) fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::BF16 => Self::Bf16,
            Dtype::F16 => Self::F16,
            Dtype::F8_E4M3 => Self::F8E4M3,
            Dtype::F8_E5M2 => Self::F8E5M2,
            other => Self::Other(format!("{other:?}")),
        }
    }

    /// Values and bytes of the smallest piece that can be read alone; `None` for what cannot be
    /// read.
    pub(crate) fn block(&self) -> Option<(usize, usize)> {
        match self {
            Self::F32 => Some((1, 4)),
            Self::Bf16 | Self::F16 => Some((1, 2)),
            Self::F8E4M3 | Self::F8E5M2 => Some((1, 1)),
            Self::Q8_0 => Some((32, 34)),
            Self::Q4_0 => Some((32, 18)),
            Self::Other(_) => None,
        }
    }

    /// Widens the bytes of whole blocks; `out` has one place for each value.
    pub(crate) fn widen(&self, bytes: &[u8], scale: f32, out: &mut [f32]) {
        let Some((values, size)) = self.block() else { return };
        let pieces = bytes.par_chunks(TASK_VALUES / values * size);
        out.par_chunks_mut(TASK_VALUES).zip(pieces).for_each(|(out, bytes)| {
            self.widen_piece(bytes, out);
            if scale != 1.0 {
                out.iter_mut().for_each(|value| *value *= scale);
            }
        });
    }

    fn widen_piece(&self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => each(bytes, out, f32::from_le_bytes),
            Self::Bf16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F16 => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Self::F8E4M3 => each(bytes, out, |[b]| E4M3[usize::from(b)]),
            Self::F8E5M2 => each(bytes, out, |[b]| f16::from_bits(u16::from(b) << 8).to_f32()),
            Self::Q8_0 => {
                blocks::<34>(bytes, out, |numbers, i| f32::from(numbers[i].cast_signed()))
            }
            // The lower halves of all bytes come first, then the upper ones.
            Self::Q4_0 => blocks::<18>(bytes, out, |numbers, i| {
                let shift = if i < 16 { 0 } else { 4 };
                f32::from(numbers[i % 16] >> shift & 15) - 8.0
            }),
            Self::Other(_) => {}
        }
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Other(name) => f.write_str(name),
            known => write!(f, "{known:?}"),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], widen: impl Fn([u8; N]) -> f32) {
    let (values, _) = bytes.as_chunks::<N>();
    for (out, value) in out.iter_mut().zip(values) {
        *out = widen(*value);
    }
}

/// Blocks of 32 values behind the factor of all.
fn blocks<const SIZE: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn(&[u8], usize) -> f32) {
    for (out, block) in out.chunks_mut(32).zip(bytes.as_chunks::<SIZE>().0) {
        let factor = f16::from_le_bytes([block[0], block[1]]).to_f32();
        for (i, out) in out.iter_mut().enumerate() {
            *out = factor * number(&block[2..], i);
        }
    }
}

static E4M3: LazyLock<[f32; 256]> = LazyLock::new(|| {
    std::array::from_fn(|code| {
        let (exponent, mantissa) = (code >> 3 & 15, code & 7);
        let size = match (exponent, mantissa) {
            (15, 7) => f32::NAN,
            (0, _) => mantissa as f32 / 512.0,
            _ => (1.0 + mantissa as f32 / 8.0) * 2.0_f32.powi(exponent as i32 - 7),
        };
        if code & 128 == 0 { size } else { -size }
    })
});

#[cfg(test)]
mod tests {
    use super::*;

    fn widened(encoding: Encoding, bytes: &[u8]) -> Vec<f32> {
        let (values, size) = encoding.block().expect("it can be read");
        let mut out = vec![0.0; bytes.len() / size * values];
        encoding.widen(bytes, 1.0, &mut out);
        out
    }

    /// The values that `torch.float8_e4m3fn` and `torch.float8_e5m2` have for these bits.
    #[test]
    fn eight_bits_mean_what_torch_means() {
        let bits = [0x00, 0x01, 0x07, 0x08, 0x38, 0x3C, 0x7E, 0xFE, 0xB8];
        let told = [0.0, 0.001_953_125, 0.013_671_875, 0.015_625, 1.0, 1.5, 448.0, -448.0, -1.0];
        assert_eq!(widened(Encoding::F8E4M3, &bits), told);
        assert!(widened(Encoding::F8E4M3, &[0x7F, 0xFF]).iter().all(|v| v.is_nan()));
        let bits = [0x00, 0x01, 0x3C, 0x3E, 0x7B, 0xBC];
        let told = [0.0, 1.525_878_9e-5, 1.0, 1.5, 57_344.0, -1.0];
        assert_eq!(widened(Encoding::F8E5M2, &bits), told);
    }

    #[test]
    fn quantised_blocks_are_factor_times_number() {
        let mut block = f16::from_f32(0.5).to_le_bytes().to_vec();
        block.extend((0..32_i8).map(|i| (i - 16).cast_unsigned()));
        let told: Vec<f32> = (0..32_i8).map(|i| 0.5 * f32::from(i - 16)).collect();
        assert_eq!(widened(Encoding::Q8_0, &block), told);

        let mut block = f16::from_f32(2.0).to_le_bytes().to_vec();
        block.extend((0..16_u8).map(|i| i | (15 - i) << 4));
        let low = (0..16_u8).map(|i| 2.0 * (f32::from(i) - 8.0));
        let high = (0..16_u8).map(|i| 2.0 * (f32::from(15 - i) - 8.0));
        assert_eq!(widened(Encoding::Q4_0, &block), low.chain(high).collect::<Vec<_>>());
    }

    #[test]
    fn a_scale_multiplies_every_value_of_every_task() {
        let bytes = vec![0x38; TASK_VALUES + 7];
        let mut out = vec![0.0; bytes.len()];
        Encoding::F8E4M3.widen(&bytes, 0.25, &mut out);
        assert!(out.iter().all(|v| v.to_bits() == 0.25_f32.to_bits()));
    }
}
