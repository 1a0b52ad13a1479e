//! `torch.randn` on the CPU generator, for sets that have its numbers.
//!
//! Not part of the product: torch's own CUDA generator gives other numbers for the same seed.
//!
//! Source: pytorch `aten/src/ATen/core/{MT19937RNGEngine,DistributionsHelper}.h`,
//! `native/cpu/DistributionTemplates.h`.

use anyhow::{Context, Result};

use crate::golden::{Array, File};

/// Tensors are called `seed{S}.n{N}`.
pub(crate) fn check(file: &mut File) -> Result<()> {
    for name in file.stems_of("") {
        let parts = name.strip_prefix("seed").and_then(|rest| rest.split_once(".n"));
        let (seed, count) = parts.with_context(|| format!("{name} names no seed and count"))?;
        let (seed, count) = (seed.parse()?, count.parse()?);
        file.put(&name, Array::f32(&[count], &randn(seed, count)));
    }
    Ok(())
}

fn randn(seed: u32, count: usize) -> Vec<f32> {
    let mut engine = Mt19937::new(seed);
    if count < 16 {
        return scalars(&mut engine, count);
    }
    let mut values: Vec<f32> = (0..count).map(|_| engine.uniform_f32()).collect();
    for block in values.chunks_exact_mut(16) {
        box_muller(block);
    }
    if !count.is_multiple_of(16) {
        // The last 16 are drawn anew, over values that had been finished.
        let tail = &mut values[count - 16..];
        tail.fill_with(|| engine.uniform_f32());
        box_muller(tail);
    }
    values
}

/// Values in pairs, in f64; the second of a pair is kept for the next call.
fn scalars(engine: &mut Mt19937, count: usize) -> Vec<f32> {
    let mut values = Vec::new();
    while values.len() < count {
        let (u1, u2) = (engine.uniform_f64(), engine.uniform_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = std::f64::consts::TAU * u1;
        values.push((radius * theta.cos()) as f32);
        values.push((radius * theta.sin()) as f32);
    }
    values.truncate(count);
    values
}

fn box_muller(block: &mut [f32]) {
    for j in 0..8 {
        let (u1, u2) = (1.0 - block[j], block[j + 8]);
        let radius = (-2.0 * u1.ln()).sqrt();
        let theta = std::f32::consts::TAU * u2;
        block[j] = radius * theta.cos();
        block[j + 8] = radius * theta.sin();
    }
}

struct Mt19937 {
    state: [u32; 624],
    next: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = [0_u32; 624];
        state[0] = seed;
        for i in 1..624 {
            let last = state[i - 1];
            state[i] = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: 624 }
    }

    fn word(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7FFF_FFFF);
                let odd = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }

    fn uniform_f32(&mut self) -> f32 {
        (self.word() & 0x00FF_FFFF) as f32 / 16_777_216.0
    }

    fn uniform_f64(&mut self) -> f64 {
        let (high, low) = (u64::from(self.word()), u64::from(self.word()));
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
    }
}
