//! What a `text_to_image/v1` job asks for.
//!
//! Owns the bounds, the defaults and the bytes of the parameters; shared by the gateway, which
//! refuses what an engine would refuse, and by the engine's link. Everything between them sees
//! bytes.

use crate::ports::engine::EngineInfo;
use atelier_proto::client::v1 as wire;
use bytes::Bytes;
use prost::Message;

/// The kind of these jobs.
pub const TEXT_TO_IMAGE_KIND: &str = "text_to_image/v1";
/// Bytes of a prompt; longer ones are refused. The model reads 512 tokens and ignores the rest,
/// which no text of this length stays below in any script.
pub const PROMPT_BYTES_MAX: usize = 8 * 1024;
/// Pixels of one side, at least.
pub const SIDE_MIN: u32 = 64;
/// Pixels of one side, at most; the model was trained up to this.
pub const SIDE_MAX: u32 = 2048;
/// Sides are a multiple of this: the autoencoder's 8 times the transformer's patch of 2.
pub const SIDE_MULTIPLE: u32 = 16;
/// Forwards of the transformer, at most.
pub const STEPS_MAX: u32 = 100;
/// Pictures of one job, at most.
pub const IMAGES_MAX: u32 = 16;

const _: () = assert!(IMAGES_MAX as usize <= atelier_state::limits::ARTIFACTS_MAX);
// A prompt with all its numbers fits into a job's parameters.
const _: () = assert!(PROMPT_BYTES_MAX + 64 <= atelier_state::limits::PARAMETERS_BYTES_MAX);

/// A request for pictures; 0 leaves width, height and steps to the model, and means one picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextToImage {
    /// What to draw.
    pub prompt: String,
    /// Pixels, a multiple of 16.
    pub width: u32,
    /// Pixels, a multiple of 16.
    pub height: u32,
    /// Forwards of the transformer.
    pub steps: u32,
    /// Of image 0; image i is drawn from seed + i.
    pub seed: u64,
    /// How many.
    pub images: u32,
}

/// Why parameters are refused. Mend the request; another attempt would fail in the same way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParametersError {
    /// Another kind of job.
    #[error("kind {0:?} is not known; this engine draws {TEXT_TO_IMAGE_KIND:?}")]
    Kind(String),
    /// Not the bytes of these parameters.
    #[error("parameters are no {TEXT_TO_IMAGE_KIND} message: {0}")]
    Malformed(String),
    /// Too long.
    #[error("prompt has {0} bytes, at most {PROMPT_BYTES_MAX} are allowed")]
    Prompt(usize),
    /// Too small, too large, or no multiple.
    #[error(
        "{name} {got} is not a multiple of {SIDE_MULTIPLE} from {SIDE_MIN} to {SIDE_MAX}; \
         use {near}"
    )]
    Side {
        /// `width` or `height`.
        name: &'static str,
        /// What came.
        got: u32,
        /// The nearest that is allowed.
        near: u32,
    },
    /// Too many.
    #[error("{0} steps, at most {STEPS_MAX} are allowed")]
    Steps(u32),
    /// Too many.
    #[error("{0} images, at most {IMAGES_MAX} are allowed")]
    Images(u32),
}

impl TextToImage {
    /// Makes the bytes that a job carries.
    pub fn encode(&self) -> Bytes {
        let TextToImage { prompt, width, height, steps, seed, images } = self.clone();
        wire::TextToImage { prompt, width, height, steps, seed, images }.encode_to_vec().into()
    }

    /// Reads the bytes that a job carries. Bounds are not checked: see [`TextToImage::validate`].
    ///
    /// # Errors
    /// [`ParametersError::Kind`] and [`ParametersError::Malformed`].
    pub fn decode(kind: &str, parameters: &[u8]) -> Result<TextToImage, ParametersError> {
        if kind != TEXT_TO_IMAGE_KIND {
            return Err(ParametersError::Kind(kind.to_owned()));
        }
        let message = wire::TextToImage::decode(parameters)
            .map_err(|error| ParametersError::Malformed(error.to_string()))?;
        let wire::TextToImage { prompt, width, height, steps, seed, images } = message;
        Ok(TextToImage { prompt, width, height, steps, seed, images })
    }

    /// Checks every bound. What was left open is within them.
    ///
    /// # Errors
    /// The first bound that is broken, in the order of the fields.
    pub fn validate(&self) -> Result<(), ParametersError> {
        if self.prompt.len() > PROMPT_BYTES_MAX {
            return Err(ParametersError::Prompt(self.prompt.len()));
        }
        check_side("width", self.width)?;
        check_side("height", self.height)?;
        if self.steps > STEPS_MAX {
            return Err(ParametersError::Steps(self.steps));
        }
        if self.images > IMAGES_MAX {
            return Err(ParametersError::Images(self.images));
        }
        Ok(())
    }

    /// Fills in what was left open, from the model that will draw.
    pub fn resolve(self, engine: &EngineInfo) -> TextToImage {
        let or = |value, default| if value == 0 { default } else { value };
        TextToImage {
            width: or(self.width, engine.default_width),
            height: or(self.height, engine.default_height),
            steps: or(self.steps, engine.default_steps),
            images: or(self.images, 1),
            ..self
        }
    }
}

fn check_side(name: &'static str, got: u32) -> Result<(), ParametersError> {
    if got == 0 || (SIDE_MIN..=SIDE_MAX).contains(&got) && got.is_multiple_of(SIDE_MULTIPLE) {
        return Ok(());
    }
    let clamped = got.clamp(SIDE_MIN, SIDE_MAX);
    let near = (clamped + SIDE_MULTIPLE / 2) / SIDE_MULTIPLE * SIDE_MULTIPLE;
    Err(ParametersError::Side { name, got, near })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cat() -> TextToImage {
        TextToImage { prompt: "a cat".to_owned(), width: 512, height: 512, ..Default::default() }
    }

    #[test]
    fn a_refused_side_names_the_nearest_allowed_one() {
        let check = |width, near| {
            let error = TextToImage { width, ..cat() }.validate().expect_err("refused");
            assert_eq!(error, ParametersError::Side { name: "width", got: width, near });
        };
        check(1000, 1008);
        check(999, 992);
        check(8, 64);
        check(u32::MAX, 2048);
        assert_eq!(TextToImage { width: 0, ..cat() }.validate(), Ok(()));
    }

    #[test]
    fn defaults_fill_only_what_was_left_open() {
        let engine = EngineInfo {
            class: String::new(),
            model: String::new(),
            default_width: 1024,
            default_height: 768,
            default_steps: 8,
            files: Default::default(),
        };
        let open = TextToImage { height: 0, ..cat() }.resolve(&engine);
        assert_eq!((open.width, open.height, open.steps, open.images), (512, 768, 8, 1));
    }

    proptest! {
        #[test]
        fn parameters_survive_their_bytes(
            prompt in ".{0,40}", width: u32, steps: u32, seed: u64, images: u32,
        ) {
            let asked = TextToImage { prompt, width, height: 64, steps, seed, images };
            let read = TextToImage::decode(TEXT_TO_IMAGE_KIND, &asked.encode());
            prop_assert_eq!(read, Ok(asked));
        }

        #[test]
        fn the_nearest_side_is_allowed(width: u32) {
            if let Err(ParametersError::Side { near, .. }) =
                (TextToImage { width, ..cat() }).validate()
            {
                prop_assert_eq!(TextToImage { width: near, ..cat() }.validate(), Ok(()));
            }
        }
    }
}
