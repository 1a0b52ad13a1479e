//! How much memory a model and a picture take, told before anything is loaded.
//!
//! Owns the arithmetic and the judgement whether it fits. Weights are exact: their names and shapes
//! are known. What a step and a decode need beside them is an upper estimate by the shapes of what
//! lives at the same time; `GPU.md` has the column in which a card's own figures stand beside it.
//!
//! A picture that does not fit at once is decoded in tiles, which the plan decides and tells.

use std::fmt;
use std::str::FromStr;

use crate::config::PipelineConfig;
use crate::layout::Layout;
use crate::tokenizer::PROMPT_TOKENS_MAX;
use crate::transformer::SEQ_MULTI_OF;
use crate::weights::{Precision, Wanted};

/// What a CUDA context with its kernels takes, and what fragments.
const RUNTIME_BYTES: u64 = 600_000_000;

/// Edge of a tile in latent pixels, where the decoder works in tiles: 512 picture pixels.
pub const TILE_LATENTS: usize = 64;

/// Where the text encoder lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Placement {
    /// Beside the transformer.
    #[default]
    Device,
    /// In the host's memory, computed by the CPU.
    Host,
}

impl FromStr for Placement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "device" => Ok(Self::Device),
            "host" => Ok(Self::Host),
            other => Err(format!("text encoder is on {other}, expected device or host")),
        }
    }
}

/// Why a model is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model needs {} on a device with {}; {advice}",
    gigabytes(*needed),
    gigabytes(*available)
)]
pub struct PlanError {
    /// Bytes that the least demanding way takes.
    pub needed: u64,
    /// Bytes that the device has.
    pub available: u64,
    /// What would help.
    pub advice: &'static str,
}

/// What lies where, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights of the text encoder, without those that are never used.
    pub text_encoder: u64,
    /// Where they lie.
    pub placement: Placement,
    /// Weights of the transformer.
    pub transformer: u64,
    /// Weights of the autoencoder.
    pub vae: u64,
    /// The largest tensor of all, which the host holds while it is sent to the device.
    pub staging: u64,
    /// Beside the weights, for one picture of [`Self::size`].
    pub work: u64,
    /// Height and width of that picture in pixels.
    pub size: [u32; 2],
    /// Whether the picture is decoded in tiles.
    pub is_tiled: bool,
}

impl MemoryPlan {
    /// Plans for one picture of a size, decoded at once.
    #[must_use]
    pub fn new(
        config: &PipelineConfig,
        layout: &Layout,
        precision: Precision,
        placement: Placement,
        size: [u32; 2],
    ) -> Self {
        let bytes = |wanted: &[Wanted]| wanted.iter().map(|w| tensor_bytes(w, precision)).sum();
        let all = layout.text_encoder.iter().chain(&layout.transformer).chain(&layout.vae);
        Self {
            text_encoder: bytes(&layout.text_encoder),
            placement,
            transformer: bytes(&layout.transformer),
            vae: bytes(&layout.vae),
            staging: all.map(|w| tensor_bytes(w, precision)).max().unwrap_or(0),
            work: work_bytes(config, precision, size, false),
            size,
            is_tiled: false,
        }
    }

    /// The same with the decoder in tiles.
    #[must_use]
    pub fn tiled(self, config: &PipelineConfig, precision: Precision) -> Self {
        Self { work: work_bytes(config, precision, self.size, true), is_tiled: true, ..self }
    }

    /// Plans for a device with so much memory: at once where that fits, else in tiles.
    ///
    /// Where no place is named, the text encoder lives on the device if it fits there, else on the
    /// host.
    ///
    /// # Errors
    /// Neither fits. The text tells what would.
    pub fn fit(
        config: &PipelineConfig,
        layout: &Layout,
        precision: Precision,
        placement: Option<Placement>,
        available: u64,
    ) -> Result<Self, PlanError> {
        let edge = config.autoencoder.sample_size;
        let first = placement.unwrap_or_default();
        let whole = Self::new(config, layout, precision, first, [edge; 2]);
        let plan = whole.clone().tiled(config, precision);
        let on_host = |plan: &Self| Self { placement: Placement::Host, ..plan.clone() };
        let mut ways = vec![whole.clone(), plan.clone()];
        if placement.is_none() {
            ways.extend([on_host(&whole), on_host(&plan)]);
        }
        if let Some(fits) = ways.into_iter().find(|way| way.device_bytes() <= available) {
            return Ok(fits);
        }
        let host_would_fit = on_host(&plan).device_bytes() <= available;
        let advice = if host_would_fit {
            "keep the text encoder on the host (--text-encoder host)"
        } else {
            "use a device with more memory"
        };
        let least = if placement.is_none() { on_host(&plan) } else { plan };
        Err(PlanError { needed: least.device_bytes(), available, advice })
    }

    /// Bytes on the device at the peak.
    #[must_use]
    pub fn device_bytes(&self) -> u64 {
        let text_encoder = if self.placement == Placement::Device { self.text_encoder } else { 0 };
        text_encoder + self.transformer + self.vae + self.work + RUNTIME_BYTES
    }

    /// Bytes on the host at the peak, when the device is not the host.
    #[must_use]
    pub fn host_bytes(&self) -> u64 {
        let text_encoder = if self.placement == Placement::Host { self.text_encoder } else { 0 };
        // A tensor lies there once as it was narrowed and once more on its way.
        text_encoder + 2 * self.staging
    }

    /// What is left for pictures on a device with so much memory.
    #[must_use]
    pub fn left_for_work(&self, available: u64) -> u64 {
        (available + self.work).saturating_sub(self.device_bytes())
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let place = if self.placement == Placement::Device { "device" } else { "host" };
        let [height, width] = self.size;
        let decoded = if self.is_tiled { "decoded in tiles" } else { "decoded at once" };
        writeln!(f, "text encoder  {:>10}  {place}", gigabytes(self.text_encoder))?;
        writeln!(f, "transformer   {:>10}  device", gigabytes(self.transformer))?;
        writeln!(f, "autoencoder   {:>10}  device", gigabytes(self.vae))?;
        writeln!(
            f,
            "work          {:>10}  device, {width}x{height}, {decoded}",
            gigabytes(self.work)
        )?;
        writeln!(f, "runtime       {:>10}  device", gigabytes(RUNTIME_BYTES))?;
        writeln!(f, "device        {:>10}", gigabytes(self.device_bytes()))?;
        write!(f, "host          {:>10}  while loading", gigabytes(self.host_bytes()))
    }
}

/// Bytes that one picture needs beside the weights, at most, and as far as shapes tell.
#[must_use]
pub fn work_bytes(
    config: &PipelineConfig,
    precision: Precision,
    [height, width]: [u32; 2],
    is_tiled: bool,
) -> u64 {
    let unit = precision.bytes();
    let multiple = config.size_multiple().max(1);
    let patches = (height as usize / multiple) * (width as usize / multiple);
    let tokens = (patches.next_multiple_of(SEQ_MULTI_OF) + PROMPT_TOKENS_MAX) as u64;
    let (dim, inner) =
        (config.transformer.dim as u64, config.transformer.feed_forward_dim() as u64);
    // The stream, its norm, queries, keys, values, their turned forms, the answer; gate, up and
    // their product; and a norm's own copies in F32.
    let step = tokens * ((8 * dim + 3 * inner) * unit + 2 * dim * 4);

    let vae = &config.autoencoder;
    let tile = (TILE_LATENTS * vae.scale()) as u64;
    let edge = |pixels: u32| if is_tiled { u64::from(pixels).min(tile) } else { u64::from(pixels) };
    let channels = *vae.block_out_channels.get(1).unwrap_or(&vae.block_out_channels[0]) as u64;
    // The finest block takes the channels of the one before: input, norm, result; and three F32
    // forms of the norm.
    let decode = edge(height) * edge(width) * channels * (3 * unit + 3 * 4);
    step.max(decode)
}

fn tensor_bytes(wanted: &Wanted, precision: Precision) -> u64 {
    let count: usize = wanted.shape.iter().product();
    if wanted.is_used { count as u64 * precision.bytes() } else { 0 }
}

/// A number of bytes in GB, 10⁹.
#[must_use]
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}
