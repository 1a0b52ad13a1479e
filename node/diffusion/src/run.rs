//! A picture on its way, step by step.
//!
//! Owns the latents between steps, guidance, and the account of time. It must not know where a run
//! comes from: [`crate::pipeline::Pipeline`] makes it, of a request or of parts.
//!
//! Latents are f32 whatever the transformer computes in, and so is the arithmetic of guidance and
//! steps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::flow_match::Schedule;
use crate::image::Image;
use crate::kernels::Kernels;
use crate::pipeline::{Pipeline, Start};
use crate::tap::{Tap, values};
use crate::transformer::{RefinedCaption, Sequence};

/// Why a run could not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A value is no finite number; nothing is drawn, since it would be a black picture.
    #[error(
        "{what} hold a value that is no finite number; check the weights, and never compute in F16"
    )]
    NotFinite {
        /// What holds it.
        what: String,
    },
    /// A checkpoint does not belong to this run.
    #[error(
        "the checkpoint has {got} values after step {step}, expected {expected} and a step up to {steps}; start anew"
    )]
    Checkpoint {
        /// Values in the checkpoint.
        got: usize,
        /// Values of this run's latents.
        expected: usize,
        /// The step that it was taken after.
        step: usize,
        /// Steps of this run.
        steps: usize,
    },
}

/// What one step tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: usize,
    /// Steps of the run.
    pub steps: usize,
    /// The share of noise that is left.
    pub sigma: f32,
    /// How long this step took.
    pub elapsed: Duration,
}

/// How long each stage of a run took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Tokens, features and refined caption; nearly nothing for a prompt that is cached.
    pub encode: Duration,
    /// All steps so far.
    pub denoise: Duration,
    /// The decoder, if it has run.
    pub decode: Duration,
}

/// Classifier-free guidance, for models that were not distilled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// How far to go beyond the prompt's prediction; 0 is none. ComfyUI's number is larger by 1.
    pub scale: f32,
    /// The time, 0 to 1, after which there is no guidance; 1 is never.
    pub truncation: f32,
    /// The prediction's norm at most, in norms of the prompt's own; 0 is no bound.
    pub normalization: f32,
}

/// What inpainting keeps of a given picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The given picture's latents, scaled. `[channels, height / 8, width / 8]`
    pub clean: Vec<f32>,
    /// The noise that the run starts from; the same shape.
    pub noise: Vec<f32>,
    /// 1 where the picture is drawn anew, 0 where it is kept. `[height / 8, width / 8]`
    pub repaint: Vec<f32>,
}

impl Known {
    /// Puts what is kept back after a step, with as much noise as the step left.
    ///
    /// x → `(1 - repaint) · (sigma · noise + (1 - sigma) · clean) + repaint · x`
    ///
    /// Source: diffusers `pipelines/z_image/pipeline_z_image_inpaint.py`.
    fn put_back(&self, latents: &mut [f32], sigma: f32) {
        let kept = self.clean.iter().zip(&self.noise);
        let repaint = self.repaint.iter().cycle();
        for ((x, (clean, noise)), m) in latents.iter_mut().zip(kept).zip(repaint) {
            let known = sigma * noise + (1.0 - sigma) * clean;
            *x = (1.0 - m) * known + m * *x;
        }
    }
}

/// A picture, or a batch of them, on its way.
pub struct Run<'a, B: Backend> {
    pipeline: &'a Pipeline<B>,
    captions: Vec<Arc<RefinedCaption<B>>>,
    sequence: Sequence<B>,
    guided: Option<Guided<B>>,
    /// On the host between steps: a checkpoint then costs nothing, and every step is checked.
    latents: Vec<f32>,
    /// The latents before the last step; none where this run has not done it.
    before: Option<Vec<f32>>,
    shape: [usize; 4],
    schedule: Schedule,
    known: Option<Known>,
    done: usize,
    pub(crate) times: StageTimes,
}

impl<'a, B: Kernels> Run<'a, B> {
    /// Prepares a run; the latents have been checked to be of `shape`.
    pub(crate) fn new(pipeline: &'a Pipeline<B>, start: Start<B>, shape: [usize; 4]) -> Self {
        let [_, _, height, width] = shape;
        let guided = start.guidance.map(|(guidance, negatives)| {
            let captions: Vec<_> = start.captions.iter().cloned().chain(negatives).collect();
            Guided { guidance, sequence: pipeline.sequence([height, width], &captions), captions }
        });
        Self {
            sequence: pipeline.sequence([height, width], &start.captions),
            guided,
            captions: start.captions,
            latents: start.latents,
            before: None,
            shape,
            schedule: start.schedule,
            known: start.known,
            done: start.first_step,
            times: StageTimes::default(),
            pipeline,
        }
    }
}

impl<B: Kernels> Run<'_, B> {
    /// Does the next step; `None` when all are done.
    ///
    /// # Errors
    /// The latents are no longer finite. The run is of no use then.
    pub fn step(&mut self) -> Result<Option<StepReport>, StepError> {
        if self.done >= self.schedule.steps() {
            return Ok(None);
        }
        let begun = Instant::now();
        let latents = self.pipeline.tensor(self.latents.clone(), self.shape);
        let velocity = self.velocity(&latents);
        let mut next = values(self.schedule.step(self.done, latents, velocity));
        if let Some(known) = &self.known {
            known.put_back(&mut next, self.schedule.sigmas()[self.done + 1]);
        }
        check_finite(&next, || format!("the latents after step {}", self.done + 1))?;
        self.before = Some(std::mem::replace(&mut self.latents, next));
        self.done += 1;
        let elapsed = begun.elapsed();
        self.times.denoise += elapsed;
        let sigma = self.schedule.sigmas()[self.done];
        Ok(Some(StepReport { step: self.done, steps: self.schedule.steps(), sigma, elapsed }))
    }

    /// The velocity at the current step: the transformer's output, guided and negated.
    ///
    /// # Shapes
    /// - latents, output: `[batch, channels, height / 8, width / 8]`
    pub fn velocity(&self, latents: &Tensor<B, 4>) -> Tensor<B, 4> {
        let t = self.schedule.t_model(self.done);
        // The reference goes without guidance after `truncation` of the time.
        let guided = self.guided.as_ref().filter(|g| g.guidance.scale > 0.0);
        let guided = guided.filter(|g| g.guidance.truncation > 1.0 || t <= g.guidance.truncation);
        let output = match guided {
            None => self.forward(latents.clone(), t, &self.captions, &self.sequence),
            Some(guided) => {
                let both = latents.clone().repeat_dim(0, 2);
                let output = self.forward(both, t, &guided.captions, &guided.sequence);
                guide(output, guided.guidance)
            }
        };
        output.neg()
    }

    fn forward(
        &self,
        latents: Tensor<B, 4>,
        t: f32,
        captions: &[Arc<RefinedCaption<B>>],
        sequence: &Sequence<B>,
    ) -> Tensor<B, 4> {
        let captions: Vec<_> = captions.iter().map(AsRef::as_ref).collect();
        let t = vec![t; captions.len()];
        let transformer = &self.pipeline.transformer;
        transformer.forward(latents, &t, &captions, sequence, &mut Tap::closed())
    }

    /// Steps done so far, skipped ones included.
    #[must_use]
    pub fn steps_done(&self) -> usize {
        self.done
    }

    /// Steps of the run.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.schedule.steps()
    }

    /// The latents as they are now: with the seed and [`Self::steps_done`], a checkpoint.
    ///
    /// # Shapes
    /// - output: `[batch, channels, height / 8, width / 8]`
    #[must_use]
    pub fn latents(&self) -> Vec<f32> {
        self.latents.clone()
    }

    /// Goes on from a checkpoint that was taken after `step` steps.
    ///
    /// On a device of the same determinism class the picture is that of an undisturbed run, byte
    /// for byte.
    ///
    /// # Errors
    /// The checkpoint is of another size, of a later step than there are, or not finite.
    pub fn resume_from(&mut self, latents: Vec<f32>, step: usize) -> Result<(), StepError> {
        let (got, expected, steps) = (latents.len(), self.latents.len(), self.schedule.steps());
        if got != expected || step > steps {
            return Err(StepError::Checkpoint { got, expected, step, steps });
        }
        check_finite(&latents, || "the latents of the checkpoint".into())?;
        self.latents = latents;
        self.before = None;
        self.done = step;
        Ok(())
    }

    /// Shows roughly what the first picture of the batch will be, small and without the
    /// autoencoder; none before the first step.
    ///
    /// x_t, x_{t-1} → v → `x_0 = x_t - sigma · v` → a linear map of the channels to colours
    ///
    /// Only reads: the picture's bytes are the same with it and without it.
    #[must_use]
    pub fn preview(&self) -> Option<Image> {
        let before = self.before.as_ref()?;
        let sigmas = &self.schedule.sigmas()[self.done - 1..=self.done];
        // The velocity of the last step, as the latents tell it: they are on the host already.
        let ahead = sigmas[1] / (sigmas[0] - sigmas[1]);
        let [_, channels, height, width] = self.shape;
        let first = self.latents.iter().zip(before).take(channels * height * width);
        let clean: Vec<f32> = first.map(|(now, before)| now + ahead * (now - before)).collect();
        Some(self.pipeline.preview(&clean, [height, width]))
    }

    /// Decodes the first picture of the batch as it is now.
    ///
    /// # Errors
    /// The picture is not finite.
    pub fn decode(&mut self) -> Result<Image, StepError> {
        let begun = Instant::now();
        let [_, channels, height, width] = self.shape;
        let count = channels * height * width;
        let first = &self.latents[..count];
        let planes = self.pipeline.decode(first.to_vec(), [1, channels, height, width])?;
        self.pipeline.learn(first, &planes, [height, width]);
        let scale = self.pipeline.config.autoencoder.scale();
        let image = Image::from_planes(&planes, (width * scale) as u32, (height * scale) as u32);
        self.times.decode = begun.elapsed();
        Ok(image)
    }

    /// How long each stage has taken so far.
    #[must_use]
    pub fn times(&self) -> StageTimes {
        self.times
    }
}

struct Guided<B: Backend> {
    guidance: Guidance,
    /// The positive captions, then the negative ones.
    captions: Vec<Arc<RefinedCaption<B>>>,
    sequence: Sequence<B>,
}

/// Guides the first half of a batch away from the second.
///
/// pos, neg → `pos + scale · (pos - neg)` → no longer than `normalization` times pos
fn guide<B: Backend>(output: Tensor<B, 4>, guidance: Guidance) -> Tensor<B, 4> {
    let halves: [_; 2] = output.chunk(2, 0).try_into().expect("two chunks were asked for");
    let [pos, neg] = halves;
    let pred = pos.clone() + (pos.clone() - neg).mul_scalar(guidance.scale);
    if guidance.normalization <= 0.0 {
        return pred;
    }
    let norms = |x: &Tensor<B, 4>| {
        let batch = x.dims()[0];
        let rest = x.dims().iter().skip(1).product();
        x.clone().reshape([batch, rest]).square().sum_dim(1).sqrt()
    };
    // Where the prediction is short enough the factor is 1.
    let longest = norms(&pos).mul_scalar(guidance.normalization);
    let factor: Tensor<B, 4> = (longest / norms(&pred)).clamp_max(1.0).unsqueeze_dims(&[-1, -1]);
    pred * factor
}

/// Refuses values of which one is no finite number.
pub(crate) fn check_finite(values: &[f32], what: impl FnOnce() -> String) -> Result<(), StepError> {
    if values.iter().all(|v| v.is_finite()) {
        return Ok(());
    }
    Err(StepError::NotFinite { what: what() })
}
