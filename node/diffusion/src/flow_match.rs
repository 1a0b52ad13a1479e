//! The noise schedule and its step: `FlowMatchEulerDiscreteScheduler`.
//!
//! Owns which sigmas a run visits and how latents move from one to the next. It must not know the
//! model: it is handed a velocity. In prose it is the *noise schedule*; *scheduler* is the
//! cluster's.
//!
//! All arithmetic is f32 and in the reference's order, since a sigma that differs in its last bit
//! moves a guided run by an eighth of the parity tolerance.
//!
//! `steps` is the number of passes through the transformer. Older guides say "9 steps" for what is
//! 8 here: their last step had length 0 ([`Schedule::endpoint`]).
//!
//! Source: diffusers `schedulers/scheduling_flow_match_euler_discrete.py`, since its change #13730.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::config::SchedulerConfig;

/// The sigmas of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// One for each step, falling from 1, and a 0 at the end.
    sigmas: Vec<f32>,
    train_timesteps: f32,
}

impl Schedule {
    /// The schedule of `steps` passes.
    ///
    /// `image_tokens` counts for configurations with dynamic shifting only; others ignore it.
    #[must_use]
    pub fn new(config: &SchedulerConfig, steps: usize, image_tokens: usize) -> Self {
        let mut sigmas: Vec<f32> = linspace(steps);
        for sigma in &mut sigmas {
            *sigma = if config.use_dynamic_shifting {
                shift_dynamic(dynamic_mu(config, image_tokens), *sigma)
            } else {
                shift_static(config.shift as f32, *sigma)
            };
        }
        Self::ending_in_zero(sigmas, config)
    }

    /// The schedule that diffusers up to 0.38 made of `steps`: its last step has length 0.
    ///
    /// Not used to draw; it is here so that the parity check can show that its 9 are our 8.
    #[must_use]
    pub fn endpoint(config: &SchedulerConfig, steps: usize) -> Self {
        let (thousand, shift) = (config.num_train_timesteps as f64, config.shift);
        let step = if steps > 1 { thousand / (steps - 1) as f64 } else { 0.0 };
        let sigmas = (0..steps).map(|i| {
            let last = i > 0 && i + 1 == steps;
            let sigma = if last { 0.0 } else { (thousand - i as f64 * step) / thousand };
            (shift * sigma / (1.0 + (shift - 1.0) * sigma)) as f32
        });
        Self::ending_in_zero(sigmas.collect(), config)
    }

    fn ending_in_zero(mut sigmas: Vec<f32>, config: &SchedulerConfig) -> Self {
        sigmas.push(0.0);
        Self { sigmas, train_timesteps: config.num_train_timesteps as f32 }
    }

    /// Passes through the transformer.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.sigmas.len() - 1
    }

    /// The share of noise before each step, and the 0 after the last.
    #[must_use]
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// What the reference calls the sigmas of the steps: `1000 sigma`.
    #[must_use]
    pub fn timesteps(&self) -> Vec<f32> {
        self.sigmas[..self.steps()].iter().map(|sigma| sigma * self.train_timesteps).collect()
    }

    /// The time that the transformer gets at one step, `1 - sigma`: 0 is noise, 1 is the picture.
    ///
    /// By way of the timestep, as in the reference: its rounding is part of the value.
    #[must_use]
    pub fn t_model(&self, step: usize) -> f32 {
        (self.train_timesteps - self.sigmas[step] * self.train_timesteps) / self.train_timesteps
    }

    /// Advances latents by one Euler step of the flow.
    ///
    /// x, v → `x + (sigma_next - sigma) · v`
    ///
    /// # Shapes
    /// - latents, velocity, output: the same, f32; velocity is the negated output of the
    ///   transformer
    pub fn step<B: Backend>(
        &self,
        step: usize,
        latents: Tensor<B, 4>,
        velocity: Tensor<B, 4>,
    ) -> Tensor<B, 4> {
        let length = self.sigmas[step + 1] - self.sigmas[step];
        latents + velocity.mul_scalar(length)
    }

    /// Mixes a picture's latents with noise, for a run that begins at `step`.
    ///
    /// z, noise → `sigma · noise + (1 - sigma) · z`
    ///
    /// # Shapes
    /// - latents, noise, output: the same
    #[must_use]
    pub fn noised(&self, step: usize, latents: &[f32], noise: &[f32]) -> Vec<f32> {
        let sigma = self.sigmas[step];
        latents.iter().zip(noise).map(|(z, noise)| sigma * noise + (1.0 - sigma) * z).collect()
    }

    /// The first step of an image-to-image run: the higher `strength`, the earlier.
    #[must_use]
    pub fn first_step(&self, strength: f64) -> usize {
        let steps = self.steps() as f64;
        (steps - (steps * strength).min(steps)).max(0.0) as usize
    }
}

/// `torch.linspace(1, 1 / steps, steps)` in f32; it counts from both ends.
fn linspace(steps: usize) -> Vec<f32> {
    if steps == 1 {
        return vec![1.0];
    }
    let (start, end) = (1.0_f32, (1.0 / steps as f64) as f32);
    let step = (end - start) / (steps - 1) as f32;
    let value = |i: usize| {
        if i < steps / 2 { start + step * i as f32 } else { end - step * (steps - 1 - i) as f32 }
    };
    (0..steps).map(value).collect()
}

fn shift_static(shift: f32, sigma: f32) -> f32 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// The shift for a picture of a size, between those of a small and a large one.
///
/// Source: diffusers `pipelines/z_image/pipeline_z_image.py`, `calculate_shift`.
fn dynamic_mu(config: &SchedulerConfig, image_tokens: usize) -> f64 {
    let span = (config.max_image_seq_len - config.base_image_seq_len) as f64;
    let slope = (config.max_shift - config.base_shift) / span;
    let intercept = config.base_shift - slope * config.base_image_seq_len as f64;
    image_tokens as f64 * slope + intercept
}

fn shift_dynamic(mu: f64, sigma: f32) -> f32 {
    let e = libm::exp(mu);
    (e / (e + (1.0 / f64::from(sigma) - 1.0))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> SchedulerConfig {
        let text = format!(
            r#"{{"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000,
                "shift": 3.0, {more}}}"#
        );
        serde_json::from_str(&text).expect("a configuration")
    }

    #[test]
    fn nine_steps_of_the_old_rule_are_eight_and_a_dead_one() {
        let config = config(r#""use_dynamic_shifting": false"#);
        let (old, new) = (Schedule::endpoint(&config, 9), Schedule::new(&config, 8, 0));
        assert_eq!(old.sigmas()[8..], [0.0, 0.0], "the ninth step has no length");
        for (old, new) in old.sigmas().iter().zip(new.sigmas()) {
            assert!((old - new).abs() < 1e-6, "{old} is not {new}");
        }
    }

    #[test]
    fn the_shift_follows_the_size_only_where_the_file_says_so() {
        let dynamic = config(r#""use_dynamic_shifting": true"#);
        let fixed = config(r#""use_dynamic_shifting": false"#);
        for (tokens, mu) in [(256, 0.5_f64), (4096, 1.15)] {
            // Of two steps the second begins at a base of one half: e^mu / (e^mu + 1).
            let sigma = Schedule::new(&dynamic, 2, tokens).sigmas()[1];
            let expected = mu.exp() / (mu.exp() + 1.0);
            assert!((f64::from(sigma) - expected).abs() < 1e-6, "{sigma} is not {expected}");
            assert_eq!(Schedule::new(&fixed, 2, tokens).sigmas(), [1.0, 0.75, 0.0]);
        }
    }

    #[test]
    fn a_weaker_change_of_a_picture_begins_later() {
        let schedule = Schedule::new(&config(r#""use_dynamic_shifting": false"#), 8, 0);
        for (strength, first) in [(1.0, 0), (0.6, 3), (0.5, 4), (0.3, 5), (0.0, 8)] {
            assert_eq!(schedule.first_step(strength), first, "strength {strength}");
        }
    }
}
