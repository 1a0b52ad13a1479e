//! From a prompt and a seed to a picture.
//!
//! Owns the components of one model and the order in which they are called. It must not know jobs,
//! peers or files of pictures. A run is an iterator of steps, so that whoever drives it can report,
//! preview, take a checkpoint, cancel or stop between two steps:
//!
//! ```text
//! Pipeline::begin ─ encode (cached) ─ noise ─▶ Run ─ step ─ step ─ … ─ step ─ decode ─▶ Image
//!                                               │                          ▲
//!                                               └─ latents ─ checkpoint ─ resume_from
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};

use crate::autoencoder::AutoencoderKL;
use crate::config::PipelineConfig;
use crate::flow_match::Schedule;
use crate::image::Image;
use crate::kernels::Kernels;
use crate::noise::{self, Purpose};
use crate::plan::{MemoryPlan, TILE_LATENTS, work_bytes};
use crate::preview::{CARD_EDGE, Projection, test_card};
use crate::request::{self, Request, RequestError, Source};
use crate::run::{Guidance, Known, Run, StepError, check_finite};
use crate::tap::{Tap, values};
use crate::text_encoder::PlacedTextEncoder;
use crate::tiles::{self, Planes};
use crate::tokenizer::{Tokenizer, Tokens};
use crate::transformer::{RefinedCaption, Sequence, ZImageTransformer2DModel};
use crate::weights::{LoadedFile, Precision};

/// Prompts whose captions are kept; the oldest is dropped. At full size one is at most 4 MB.
const CAPTIONS_MAX: usize = 32;

/// What a run starts from, spelt out.
///
/// [`Pipeline::begin`] makes it of a [`Request`]; image-to-image, guidance, batches and parity make
/// it themselves.
pub struct Start<B: Backend> {
    /// One for each picture.
    pub captions: Vec<Arc<RefinedCaption<B>>>,
    /// Guidance, with a negative caption for each picture.
    pub guidance: Option<(Guidance, Vec<Arc<RefinedCaption<B>>>)>,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[batch, channels, height / 8, width / 8]`
    pub latents: Vec<f32>,
    /// The sigmas.
    pub schedule: Schedule,
    /// The first step that is run; not 0 in image-to-image.
    pub first_step: usize,
    /// What is kept of a given picture, in inpainting.
    pub known: Option<Known>,
}

pub(crate) type Captions<B> = VecDeque<(Vec<u32>, Arc<RefinedCaption<B>>)>;

/// A model that is ready to draw.
pub struct Pipeline<B: Backend> {
    /// What the model's files say.
    pub config: PipelineConfig,
    /// Prompt to ids.
    pub tokenizer: Tokenizer,
    /// Ids to caption features.
    pub text_encoder: PlacedTextEncoder<B>,
    /// Latents, time and caption to velocity.
    pub transformer: ZImageTransformer2DModel<B>,
    /// Latents to picture and back.
    pub autoencoder: AutoencoderKL<B>,
    /// What lies where.
    pub plan: MemoryPlan,
    /// The files of weights that were read, with their digests.
    pub files: Vec<LoadedFile>,
    pub(crate) precision: Precision,
    /// What the device has left for one picture, where that is known.
    pub(crate) work_bytes_max: Option<u64>,
    pub(crate) device: B::Device,
    pub(crate) captions: Mutex<Captions<B>>,
    /// Latents to small pictures, roughly.
    pub(crate) preview: Mutex<Projection>,
}

impl<B: Kernels> Pipeline<B> {
    /// Lets previews have colours before the first picture is finished.
    pub(crate) fn show_test_card(&self) {
        let card = test_card(self.config.autoencoder.scale());
        let latents_max = self.config.autoencoder.latent_channels * CARD_EDGE * CARD_EDGE;
        let latents = self.encode(&card, &vec![0.0; latents_max]).expect("the card's own size");
        let planes: Vec<f32> = card.to_planes().iter().map(|value| value / 2.0 + 0.5).collect();
        self.learn(&latents, &planes, [CARD_EDGE; 2]);
    }

    fn projection(&self) -> MutexGuard<'_, Projection> {
        // A panic while learning leaves sums that show wrong colours, and nothing worse.
        self.preview.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets previews learn from a finished picture, as [`Projection::learn`].
    pub(crate) fn learn(&self, latents: &[f32], planes: &[f32], size: [usize; 2]) {
        self.projection().learn(latents, planes, size);
    }

    /// Shows roughly what latents would be decoded to, without the autoencoder.
    ///
    /// # Shapes
    /// - latents: `[channels, height, width]`, scaled
    pub(crate) fn preview(&self, latents: &[f32], size: [usize; 2]) -> Image {
        self.projection().project(latents, size)
    }

    /// Judges a request without computing anything.
    ///
    /// # Errors
    /// The first thing that is wrong with it. [`Self::begin`] refuses the same and no request that
    /// passes here, but for prompts that are too long for a model with few positions.
    pub fn validate(&self, request: &Request) -> Result<(), RequestError> {
        request::validate(&self.config, request)?;
        let Some(available) = self.work_bytes_max else { return Ok(()) };
        let size = [request.height, request.width];
        let needed = work_bytes(&self.config, self.precision, size, self.plan.is_tiled);
        if needed > available {
            return Err(RequestError::Memory { needed, available });
        }
        Ok(())
    }

    /// Encodes the prompts, or takes them from the cache, and draws the noise.
    ///
    /// # Errors
    /// The request is invalid.
    pub fn begin(&self, request: &Request) -> Result<Run<'_, B>, RequestError> {
        self.validate(request)?;
        let begun = Instant::now();
        let captions = vec![self.prompt(&request.prompt)?];
        let guidance = match &request.guidance {
            Some(asked) if asked.scale > 0.0 => {
                Some((asked.guidance(), vec![self.prompt(&asked.negative_prompt)?]))
            }
            _ => None,
        };
        let encode = begun.elapsed();
        let [height, width] = self.latents_size(request.height, request.width);
        let count = self.config.transformer.in_channels * height * width;
        let patch = self.config.transformer.patch_size();
        let image_tokens = height * width / (patch * patch);
        let schedule = Schedule::new(&self.config.scheduler, request.steps as usize, image_tokens);
        let mut start = Start {
            captions,
            guidance,
            width: request.width,
            height: request.height,
            latents: noise::normal(request.seed, request.image_index, Purpose::Latents, count),
            schedule,
            first_step: 0,
            known: None,
        };
        if let Some(source) = &request.source {
            self.begin_from(source, request, &mut start)?;
        }
        let mut run = self.start(start)?;
        run.times.encode = encode;
        Ok(run)
    }

    /// The caption of a prompt as a user wrote it.
    fn prompt(&self, prompt: &str) -> Result<Arc<RefinedCaption<B>>, RequestError> {
        let tokens = self.tokenizer.encode(prompt);
        if tokens.cut > 0 {
            tracing::warn!(cut = tokens.cut, "prompt is longer than 512 tokens and was cut off");
        }
        self.caption(&tokens)
    }

    /// Makes a run begin from a picture: image-to-image, and with a mask inpainting.
    fn begin_from(
        &self,
        source: &Source,
        request: &Request,
        start: &mut Start<B>,
    ) -> Result<(), RequestError> {
        let noise = std::mem::take(&mut start.latents);
        let (seed, index) = (request.seed, request.image_index);
        let posterior = noise::normal(seed, index, Purpose::Posterior, noise.len());
        let clean = self.encode(&source.image, &posterior)?;
        start.first_step = start.schedule.first_step(source.strength);
        start.latents = start.schedule.noised(start.first_step, &clean, &noise);
        if let Some(mask) = &source.mask {
            let size = self.latents_size(request.height, request.width);
            start.known = Some(Known { clean, noise, repaint: mask.shrunk(size) });
        }
        Ok(())
    }

    /// The refined caption of a prompt, computed once while the prompt is in the cache.
    ///
    /// # Errors
    /// The prompt has more tokens than the model knows positions.
    pub fn caption(&self, tokens: &Tokens) -> Result<Arc<RefinedCaption<B>>, RequestError> {
        // Frame positions 1 … are the padded caption's, and the next one is the picture's.
        let max = self.transformer.axes_lens()[0].saturating_sub(2) / 32 * 32;
        if tokens.ids.len() > max {
            return Err(RequestError::PromptTokens { got: tokens.ids.len(), max });
        }
        let mut cache = self.captions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = cache.iter().position(|(ids, _)| *ids == tokens.ids) {
            let hit = cache.remove(at).expect("position() found it");
            cache.push_back(hit.clone());
            return Ok(hit.1);
        }
        let features = self.text_encoder.forward(&tokens.ids, &mut Tap::closed());
        let caption = Arc::new(self.transformer.embed_caption(features, &mut Tap::closed()));
        while cache.len() >= CAPTIONS_MAX {
            cache.pop_front();
        }
        cache.push_back((tokens.ids.clone(), Arc::clone(&caption)));
        Ok(caption)
    }

    /// Starts a run from parts.
    ///
    /// # Errors
    /// The latents do not have the size of the pictures.
    pub fn start(&self, start: Start<B>) -> Result<Run<'_, B>, RequestError> {
        let [height, width] = self.latents_size(start.height, start.width);
        let shape = [start.captions.len(), self.config.transformer.in_channels, height, width];
        let (got, expected) = (start.latents.len(), shape.iter().product());
        if got != expected {
            return Err(RequestError::Latents { got, expected });
        }
        Ok(Run::new(self, start, shape))
    }

    /// What the sizes of a batch mean for the transformer.
    pub(crate) fn sequence(
        &self,
        size: [usize; 2],
        captions: &[Arc<RefinedCaption<B>>],
    ) -> Sequence<B> {
        let captions: Vec<_> = captions.iter().map(AsRef::as_ref).collect();
        self.transformer.sequence(size, &captions, &self.device)
    }

    /// Height and width of the latents of a picture.
    #[must_use]
    pub fn latents_size(&self, height: u32, width: u32) -> [usize; 2] {
        [height, width].map(|edge| edge as usize / self.config.autoencoder.scale())
    }

    /// Encodes a picture for an image-to-image run.
    ///
    /// picture → mean + std · noise → `(z - shift_factor) · scaling_factor`
    ///
    /// # Shapes
    /// - posterior_noise, output: `[channels, height / 8, width / 8]`
    ///
    /// # Errors
    /// The noise does not have the size of the latents.
    pub fn encode(&self, image: &Image, posterior_noise: &[f32]) -> Result<Vec<f32>, RequestError> {
        let [height, width] = self.latents_size(image.height, image.width);
        let channels = self.config.autoencoder.latent_channels;
        let (got, expected) = (posterior_noise.len(), channels * height * width);
        if got != expected {
            return Err(RequestError::Latents { got, expected });
        }
        let pixels = [1, 3, image.height as usize, image.width as usize];
        let x = self.tensor(image.to_planes(), pixels);
        let posterior = self.autoencoder.encode(x, &mut Tap::closed());
        let eps = self.tensor(posterior_noise.to_vec(), [1, channels, height, width]);
        let sample = posterior.mean.clone() + posterior.std() * eps;
        let config = &self.config.autoencoder;
        Ok(values(sample.sub_scalar(config.shift_factor).mul_scalar(config.scaling_factor)))
    }

    /// Decodes scaled latents to channel planes in 0..1.
    ///
    /// latents → `/ scaling_factor + shift_factor` → decoder → `/ 2 + 0.5` → clamp
    ///
    /// # Shapes
    /// - latents: `[batch, channels, height / 8, width / 8]`
    /// - output: `[batch, 3, height, width]`
    ///
    /// # Errors
    /// A value of the picture is no finite number.
    pub fn decode(&self, latents: Vec<f32>, shape: [usize; 4]) -> Result<Vec<f32>, StepError> {
        let [_, _, height, width] = shape;
        let mut planes = if self.plan.is_tiled && height.max(width) > TILE_LATENTS {
            self.decode_tiles(latents, shape)
        } else {
            self.decode_at_once(latents, shape)
        };
        // Before the clamp, which would make a NaN black.
        check_finite(&planes, || "the decoded pixels".into())?;
        for value in &mut planes {
            *value = (*value / 2.0 + 0.5).clamp(0.0, 1.0);
        }
        Ok(planes)
    }

    fn decode_at_once(&self, latents: Vec<f32>, shape: [usize; 4]) -> Vec<f32> {
        let config = &self.config.autoencoder;
        let z = self.tensor(latents, shape);
        let z = z.div_scalar(config.scaling_factor).add_scalar(config.shift_factor);
        values(self.autoencoder.decode(z, &mut Tap::closed()))
    }

    fn decode_tiles(&self, latents: Vec<f32>, shape: [usize; 4]) -> Vec<f32> {
        let [batch, channels, height, width] = shape;
        let scale = self.config.autoencoder.scale();
        let one = |tile: Planes| {
            let Planes { values, height, width } = tile;
            let values = self.decode_at_once(values, [1, channels, height, width]);
            Ok::<_, std::convert::Infallible>(Planes {
                values,
                height: height * scale,
                width: width * scale,
            })
        };
        let pictures = latents.chunks(latents.len() / batch.max(1)).flat_map(|item| {
            let item = Planes { values: item.to_vec(), height, width };
            let Ok(picture) = tiles::decode(&item, TILE_LATENTS, scale, one);
            picture.values
        });
        pictures.collect()
    }

    /// Makes a tensor of f32 on the pipeline's device.
    #[must_use]
    pub fn tensor<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Tensor<B, D> {
        Tensor::from_data(TensorData::new(values, shape), (&self.device, DType::F32))
    }
}
