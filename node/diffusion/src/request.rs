//! What is asked for, and what is refused before anything is computed.
//!
//! Owns the limits of a request. Each tells what happens at its brim: the request is refused, with the
//! nearest value that would not be.

use crate::config::PipelineConfig;

/// Bytes of a prompt at most; a longer one is refused.
///
/// 512 tokens, of which more are cut off anyway, are about 2,000 bytes of English.
pub const PROMPT_BYTES_MAX: usize = 8192;

/// Steps of a run at most; more is refused. Turbo needs 8, the base model 28 to 50.
pub const STEPS_MAX: u32 = 50;

/// Pixels of an edge at most; more is refused. The memory of one picture grows with the square of
/// it.
pub const EDGE_PIXELS_MAX: u32 = 2048;

/// What to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    Ok(())
}
