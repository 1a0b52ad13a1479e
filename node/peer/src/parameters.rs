//! What a `text_to_image` job asks for.
//!
//! Owns the bounds, the defaults and the bytes of the parameters; shared by the gateway, which
//! refuses what an engine would refuse, and by the engine's link. Everything between them sees
//! bytes.

use crate::ports::engine::EngineInfo;
use atelier_proto::client::v1 as wire;
use atelier_state::Digest;
use bytes::Bytes;
use prost::Message;

/// The kind of jobs that begin from noise and have no guidance.
pub const TEXT_TO_IMAGE_KIND: &str = "text_to_image/v1";
/// The kind of those with guidance or a picture to begin from. Another one, since an engine of an earlier version would
/// leave both out and draw something else; it refuses a kind that it does not know.
pub const TEXT_TO_IMAGE_2_KIND: &str = "text_to_image/v2";
/// The feature level from which on a cluster takes the second kind.
pub const PICTURES_LEVEL: u32 = 4;
/// Bytes of a prompt; longer ones are refused. The model reads 512 tokens and ignores the rest,
/// which no text of this length stays below in any script.
pub const PROMPT_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a negative prompt; longer ones are refused.
pub const NEGATIVE_BYTES_MAX: usize = 4 * 1024;
/// Guidance at most; the base model is used with 3 to 5.
pub const GUIDANCE_MAX: f32 = 30.0;
/// Share of a picture that is drawn anew, at least: less leaves no step to run.
pub const STRENGTH_MIN: f64 = 0.001;
/// Where a job leaves it open; the reference's default.
pub const STRENGTH_DEFAULT: f64 = 0.6;
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
// Both prompts with all numbers and digests fit into a job's parameters.
const _: () = assert!(
    PROMPT_BYTES_MAX + NEGATIVE_BYTES_MAX + 512 <= atelier_state::limits::PARAMETERS_BYTES_MAX
);

/// A request for pictures; 0 leaves width, height and steps to the model, and means one picture.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// None: as Turbo is drawn.
    pub guidance: Option<Guidance>,
    /// None: from noise alone.
    pub source: Option<Source>,
}

/// Classifier-free guidance, for models that were not distilled.
#[derive(Clone, Debug, PartialEq)]
pub struct Guidance {
    /// Above 0, at most [`GUIDANCE_MAX`].
    pub scale: f32,
    /// What the picture is led away from.
    pub negative_prompt: String,
}

/// A picture to begin from. Its bytes go round the log, as those of results do.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// A PNG of the size that is drawn.
    pub image: Digest,
    /// How much is drawn anew: [`STRENGTH_MIN`] to 1; 0: [`STRENGTH_DEFAULT`].
    pub strength: f64,
    /// A PNG of the same size: what is light is drawn anew; none: all is.
    pub mask: Option<Digest>,
}

/// Why parameters are refused. Mend the request; another attempt would fail in the same way.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ParametersError {
    /// Another kind of job.
    #[error(
        "kind {0:?} is not known; this engine draws {TEXT_TO_IMAGE_KIND:?} and \
         {TEXT_TO_IMAGE_2_KIND:?}"
    )]
    Kind(String),
    /// Not the bytes of these parameters.
    #[error("parameters are no text_to_image message: {0}")]
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
    /// Too long.
    #[error("negative_prompt has {0} bytes, at most {NEGATIVE_BYTES_MAX} are allowed")]
    Negative(usize),
    /// Too strong, or none.
    #[error("guidance {0}: expected more than 0 and at most {GUIDANCE_MAX}; leave it out for none")]
    Guidance(f32),
    /// Out of range.
    #[error("strength {0}: expected {STRENGTH_MIN} to 1, or 0 for {STRENGTH_DEFAULT}")]
    Strength(f64),
}

impl TextToImage {
    /// The kind of a job with these parameters.
    pub fn kind(&self) -> &'static str {
        match (&self.guidance, &self.source) {
            (None, None) => TEXT_TO_IMAGE_KIND,
            _ => TEXT_TO_IMAGE_2_KIND,
        }
    }

    /// Makes the bytes that a job carries.
    pub fn encode(&self) -> Bytes {
        self.to_wire().encode_to_vec().into()
    }

    /// As clients see them.
    pub fn to_wire(&self) -> wire::TextToImage {
        let TextToImage { prompt, width, height, steps, seed, images, guidance, source } =
            self.clone();
        let guidance = guidance.map(|guidance| {
            let Guidance { scale, negative_prompt } = guidance;
            wire::Guidance { scale, negative_prompt }
        });
        let source = source.map(|Source { image, strength, mask }| wire::Source {
            image: image.to_string(),
            strength,
            mask: mask.map_or_else(String::new, |mask| mask.to_string()),
        });
        wire::TextToImage { prompt, width, height, steps, seed, images, guidance, source }
    }

    /// Reads what clients write. Bounds are not checked: see [`TextToImage::validate`].
    ///
    /// # Errors
    /// [`ParametersError::Malformed`] for a digest that is none.
    pub fn from_wire(message: wire::TextToImage) -> Result<TextToImage, ParametersError> {
        let wire::TextToImage { prompt, width, height, steps, seed, images, guidance, source } =
            message;
        let guidance = guidance.map(|guidance| {
            let wire::Guidance { scale, negative_prompt } = guidance;
            Guidance { scale, negative_prompt }
        });
        let source = source.map(source_from_wire).transpose()?;
        Ok(TextToImage { prompt, width, height, steps, seed, images, guidance, source })
    }

    /// Reads the bytes that a job carries. Bounds are not checked: see [`TextToImage::validate`].
    ///
    /// # Errors
    /// [`ParametersError::Kind`] and [`ParametersError::Malformed`].
    pub fn decode(kind: &str, parameters: &[u8]) -> Result<TextToImage, ParametersError> {
        if ![TEXT_TO_IMAGE_KIND, TEXT_TO_IMAGE_2_KIND].contains(&kind) {
            return Err(ParametersError::Kind(kind.to_owned()));
        }
        let message = wire::TextToImage::decode(parameters)
            .map_err(|error| ParametersError::Malformed(error.to_string()))?;
        TextToImage::from_wire(message)
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
        if let Some(Guidance { scale, negative_prompt }) = &self.guidance {
            if negative_prompt.len() > NEGATIVE_BYTES_MAX {
                return Err(ParametersError::Negative(negative_prompt.len()));
            }
            // A number that is none is refused as well.
            if !(*scale > 0.0 && *scale <= GUIDANCE_MAX) {
                return Err(ParametersError::Guidance(*scale));
            }
        }
        match self.source.as_ref().map(|source| source.strength) {
            Some(strength) if strength != 0.0 && !(STRENGTH_MIN..=1.0).contains(&strength) => {
                Err(ParametersError::Strength(strength))
            }
            _ => Ok(()),
        }
    }

    /// Fills in what was left open, from the model that will draw.
    pub fn resolve(self, engine: &EngineInfo) -> TextToImage {
        let or = |value, default| if value == 0 { default } else { value };
        TextToImage {
            width: or(self.width, engine.default_width),
            height: or(self.height, engine.default_height),
            steps: or(self.steps, engine.default_steps),
            images: or(self.images, 1),
            source: self.source.map(|source| Source {
                strength: if source.strength == 0.0 { STRENGTH_DEFAULT } else { source.strength },
                ..source
            }),
            ..self
        }
    }
}

fn source_from_wire(source: wire::Source) -> Result<Source, ParametersError> {
    let digest = |name: &str, text: &str| {
        text.parse::<Digest>().map_err(|error| {
            let hint = "expected the digest that PutArtifact answered";
            ParametersError::Malformed(format!("{name}: {error}; {hint}"))
        })
    };
    let image = digest("source.image", &source.image)?;
    let mask = match source.mask.as_str() {
        "" => None,
        mask => Some(digest("source.mask", mask)?),
    };
    Ok(Source { image, strength: source.strength, mask })
}

/// The pictures that a job's parameters name: who draws it needs them, and they are kept as long as it is remembered.
pub fn pictures_of(kind: &str, parameters: &[u8]) -> Vec<Digest> {
    if kind != TEXT_TO_IMAGE_2_KIND {
        return Vec::new();
    }
    let source = TextToImage::decode(kind, parameters).ok().and_then(|asked| asked.source);
    source
        .map_or_else(Vec::new, |source| std::iter::once(source.image).chain(source.mask).collect())
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
            guided: false,
            files: Default::default(),
        };
        let open = TextToImage { height: 0, ..cat() }.resolve(&engine);
        assert_eq!((open.width, open.height, open.steps, open.images), (512, 768, 8, 1));
    }

    #[test]
    fn guidance_and_strength_have_bounds() {
        let guided = |scale| {
            let guidance = Some(Guidance { scale, negative_prompt: String::new() });
            TextToImage { guidance, ..cat() }.validate().is_ok()
        };
        assert_eq!(
            [0.0, f32::NAN, -1.0, 30.1, 0.5, 30.0].map(guided),
            [false, false, false, false, true, true]
        );
        let begun = |strength| {
            let source = Some(Source { image: Digest([1; 32]), strength, mask: None });
            TextToImage { source, ..cat() }.validate().is_ok()
        };
        assert_eq!(
            [0.0, 0.001, 1.0, 0.0001, 1.1, f64::NAN, -0.5].map(begun),
            [true, true, true, false, false, false, false]
        );
        let long = Guidance { scale: 1.0, negative_prompt: "x".repeat(NEGATIVE_BYTES_MAX + 1) };
        let refused = TextToImage { guidance: Some(long), ..cat() }.validate();
        assert_eq!(refused, Err(ParametersError::Negative(NEGATIVE_BYTES_MAX + 1)));
    }

    proptest! {
        #[test]
        fn parameters_survive_their_bytes(
            prompt in ".{0,40}", width: u32, steps: u32, seed: u64, images: u32,
            negative in ".{0,40}", scale in 0.1_f32..30.0, strength in 0.001..1.0, mask: bool,
            guides: bool, begins: bool,
        ) {
            let guidance = Guidance { scale, negative_prompt: negative };
            let mask = mask.then_some(Digest([2; 32]));
            let source = Source { image: Digest([1; 32]), strength, mask };
            let asked = TextToImage {
                prompt, width, height: 64, steps, seed, images,
                guidance: guides.then_some(guidance),
                source: begins.then_some(source),
            };
            let read = TextToImage::decode(asked.kind(), &asked.encode());
            let named = pictures_of(asked.kind(), &asked.encode());
            prop_assert_eq!(named.len(), usize::from(begins) * (1 + usize::from(mask.is_some())));
            prop_assert_eq!(asked.kind() == TEXT_TO_IMAGE_KIND, !guides && !begins);
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
