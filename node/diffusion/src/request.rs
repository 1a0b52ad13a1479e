//! What is asked for, and what is refused before anything is computed.
//!
//! Owns the limits of a request. Each tells what happens at its brim: the request is refused, with the
//! nearest value that would not be.

use crate::config::PipelineConfig;
use crate::image::Image;
use crate::plan::gigabytes;
use crate::run::Guidance;

/// Bytes of a prompt at most; a longer one is refused.
///
/// 512 tokens, of which more are cut off anyway, are about 2,000 bytes of English.
pub const PROMPT_BYTES_MAX: usize = 8192;

/// Steps of a run at most; more is refused. Turbo needs 8, the base model 28 to 50.
pub const STEPS_MAX: u32 = 50;

/// Pixels of an edge at most; more is refused. The memory of one picture grows with the square of
/// it.
pub const EDGE_PIXELS_MAX: u32 = 2048;

/// Guidance at most; more is refused. The base model is used with 3 to 5.
pub const GUIDANCE_MAX: f32 = 30.0;

/// Strength of an image-to-image run at least; less would leave no step to run.
pub const STRENGTH_MIN: f64 = 0.001;

/// What to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What the picture shows; all of it is text, special tokens included.
    pub prompt: String,
    /// Pixels in a row; a multiple of 16.
    pub width: u32,
    /// Rows; a multiple of 16.
    pub height: u32,
    /// Passes through the transformer. What older guides call 9 is 8 here.
    pub steps: u32,
    /// The noise is a function of this and of `image_index`.
    pub seed: u64,
    /// Which image of a job this is.
    pub image_index: u32,
    /// Guidance by a negative prompt, for the base model; Turbo was distilled to need none.
    pub guidance: Option<GuidanceRequest>,
    /// A picture to begin from.
    pub source: Option<Source>,
}

impl Request {
    /// What Turbo draws of a prompt in 8 steps, of seed 0, without guidance and from noise alone.
    #[must_use]
    pub fn new(prompt: impl Into<String>, width: u32, height: u32) -> Self {
        Self {
            prompt: prompt.into(),
            width,
            height,
            steps: 8,
            seed: 0,
            image_index: 0,
            guidance: None,
            source: None,
        }
    }
}

/// Classifier-free guidance as it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct GuidanceRequest {
    /// As [`Guidance::scale`]; diffusers' `guidance_scale`, ComfyUI's `cfg` less 1.
    pub scale: f32,
    /// What the picture is led away from; may be empty.
    pub negative_prompt: String,
    /// As [`Guidance::truncation`]; 1 is the default.
    pub truncation: f32,
    /// As [`Guidance::normalization`]; 0 is the default.
    pub normalization: f32,
}

impl GuidanceRequest {
    pub(crate) fn guidance(&self) -> Guidance {
        let Self { scale, truncation, normalization, .. } = *self;
        Guidance { scale, truncation, normalization }
    }
}

/// A picture to begin from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The picture, of the size that is drawn.
    pub image: Image,
    /// How much of it is drawn anew, 0.001 to 1; the reference's default is 0.6.
    pub strength: f64,
    /// Where it is drawn anew; none is everywhere.
    pub mask: Option<Mask>,
}

/// Where a picture is drawn anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Pixels in a row; those of the picture.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// One for each pixel, row by row: true is drawn anew.
    pub repaint: Vec<bool>,
}

impl Mask {
    /// The mask of a black and white picture: what is lighter than half is drawn anew.
    #[must_use]
    pub fn from_image(image: &Image) -> Self {
        let light = |pixel: &[u8]| pixel.iter().map(|v| u32::from(*v)).sum::<u32>() > 3 * 127;
        let repaint = image.rgb.chunks_exact(3).map(light).collect();
        Self { width: image.width, height: image.height, repaint }
    }

    /// The nearest value for each latent pixel.
    pub(crate) fn shrunk(&self, [height, width]: [usize; 2]) -> Vec<f32> {
        let (w, h) = (self.width as usize, self.height as usize);
        let places =
            (0..height).flat_map(|y| (0..width).map(move |x| (y * h / height, x * w / width)));
        places.map(|(y, x)| f32::from(u8::from(self.repaint[y * w + x]))).collect()
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// An edge is no multiple of what patches and autoencoder need.
    #[error("{edge} {got} is not a multiple of {multiple}; use {below} or {above}")]
    Multiple {
        /// `width` or `height`.
        edge: &'static str,
        /// What was asked for.
        got: u32,
        /// What it should be a multiple of.
        multiple: u32,
        /// The nearest size below.
        below: u32,
        /// The nearest size above.
        above: u32,
    },
    /// An edge is too short or too long.
    #[error("{edge} is {got}, expected {min} to {max}; use a size in that range")]
    Edge {
        /// `width` or `height`.
        edge: &'static str,
        /// What was asked for.
        got: u32,
        /// The least that is drawn.
        min: u32,
        /// The most that is drawn.
        max: u32,
    },
    /// Too few or too many steps.
    #[error("steps is {got}, expected 1 to {STEPS_MAX}; Turbo needs 8")]
    Steps {
        /// What was asked for.
        got: u32,
    },
    /// The prompt is too long.
    #[error("prompt has {got} bytes, expected at most {PROMPT_BYTES_MAX}; shorten it")]
    PromptBytes {
        /// Its length.
        got: usize,
    },
    /// The prompt has more tokens than the model knows positions.
    #[error("prompt has {got} tokens, this model takes at most {max}; shorten it")]
    PromptTokens {
        /// Its length.
        got: usize,
        /// What the model takes.
        max: usize,
    },
    /// The guidance is out of range.
    #[error("{what} of the guidance is {got}, expected {expected}; use a value in that range")]
    Guidance {
        /// Which number.
        what: &'static str,
        /// What was asked for.
        got: String,
        /// What would be accepted.
        expected: String,
    },
    /// The strength is out of range.
    #[error("strength is {got}, expected {STRENGTH_MIN} to 1; 0.6 is usual")]
    Strength {
        /// What was asked for.
        got: String,
    },
    /// The picture to begin from, or its mask, is of another size.
    #[error("{what} has {}x{} pixels, expected {}x{}; scale it first", got[0], got[1], expected[0], expected[1])]
    SourceSize {
        /// `source image` or `mask`.
        what: &'static str,
        /// Its width and height.
        got: [u32; 2],
        /// Those of the picture asked for.
        expected: [u32; 2],
    },
    /// The picture needs more memory than the device has beside the model.
    #[error(
        "a picture of this size needs {}, the device has {} beside the model; draw a smaller one",
        gigabytes(*needed),
        gigabytes(*available)
    )]
    Memory {
        /// Bytes that it would take.
        needed: u64,
        /// Bytes that there are.
        available: u64,
    },
    /// Latents of another size were handed in.
    #[error("latents have {got} values, expected {expected}; they belong to another size")]
    Latents {
        /// What came.
        got: usize,
        /// What the size needs.
        expected: usize,
    },
}

/// Judges a request by a configuration alone.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn validate(config: &PipelineConfig, request: &Request) -> Result<(), RequestError> {
    let multiple = config.size_multiple() as u32;
    let lens = &config.transformer.axes_lens;
    for (edge, got, patches) in
        [("height", request.height, lens[1]), ("width", request.width, lens[2])]
    {
        let max = u32::try_from(patches).unwrap_or(u32::MAX).saturating_mul(multiple);
        let (min, max) = (multiple, max.min(EDGE_PIXELS_MAX) / multiple * multiple);
        if !(min..=max).contains(&got) {
            return Err(RequestError::Edge { edge, got, min, max });
        }
        if got % multiple != 0 {
            let below = got / multiple * multiple;
            let above = below + multiple;
            return Err(RequestError::Multiple { edge, got, multiple, below, above });
        }
    }
    if !(1..=STEPS_MAX).contains(&request.steps) {
        return Err(RequestError::Steps { got: request.steps });
    }
    if request.prompt.len() > PROMPT_BYTES_MAX {
        return Err(RequestError::PromptBytes { got: request.prompt.len() });
    }
    request.guidance.as_ref().map_or(Ok(()), check_guidance)?;
    request.source.as_ref().map_or(Ok(()), |source| check_source(source, request))
}

fn check_guidance(asked: &GuidanceRequest) -> Result<(), RequestError> {
    for (what, got, most) in [
        ("scale", asked.scale, GUIDANCE_MAX),
        ("truncation", asked.truncation, 1.0),
        ("normalization", asked.normalization, GUIDANCE_MAX),
    ] {
        // A number that is none lies in no range.
        if !(0.0..=most).contains(&got) {
            let expected = format!("0 to {most}");
            return Err(RequestError::Guidance { what, got: got.to_string(), expected });
        }
    }
    let got = asked.negative_prompt.len();
    if got > PROMPT_BYTES_MAX {
        return Err(RequestError::PromptBytes { got });
    }
    Ok(())
}

fn check_source(source: &Source, request: &Request) -> Result<(), RequestError> {
    if !(STRENGTH_MIN..=1.0).contains(&source.strength) {
        return Err(RequestError::Strength { got: source.strength.to_string() });
    }
    let expected = [request.width, request.height];
    let image = [source.image.width, source.image.height];
    if image != expected || source.image.rgb.len() != 3 * pixels(expected) {
        return Err(RequestError::SourceSize { what: "source image", got: image, expected });
    }
    let Some(mask) = &source.mask else { return Ok(()) };
    let got = [mask.width, mask.height];
    if got != expected || mask.repaint.len() != pixels(expected) {
        return Err(RequestError::SourceSize { what: "mask", got, expected });
    }
    Ok(())
}

fn pixels([width, height]: [u32; 2]) -> usize {
    width as usize * height as usize
}
