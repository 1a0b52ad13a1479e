//! What a checkpoint says about itself: the JSON files beside its weights.
//!
//! Owns the typed form of every configuration file of the diffusers layout and the judgement
//! whether this crate can run it. It must not know how a component computes. Nothing here has a
//! default that the reference does not have, since a wrong default gives a wrong picture and no
//! error: Turbo and the base model differ in one number of one file (`shift`).

mod autoencoder;
mod scheduler;
mod text_encoder;
mod transformer;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use autoencoder::AutoencoderConfig;
pub use scheduler::SchedulerConfig;
pub use text_encoder::TextEncoderConfig;
pub use transformer::TransformerConfig;

/// Why a configuration file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or cannot be read: point to a complete model directory.
    #[error(
        "cannot read {path}: {source}; a model directory needs model_index.json and the folders \
         scheduler, text_encoder, tokenizer, transformer and vae"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no JSON or lacks a key.
    #[error("cannot understand {path}: {source}; copy the file from the checkpoint again")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The file asks for something that this crate does not do.
    #[error("{path}: {key} is {got}, expected {expected}; {advice}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key in it.
        key: &'static str,
        /// What the file says.
        got: String,
        /// What would be accepted.
        expected: String,
        /// What to do about it.
        advice: &'static str,
    },
}

const OTHER_MODEL: &str = "use a Z-Image or Z-Image-Turbo checkpoint";
const BROKEN_FILE: &str = "copy the file from the checkpoint again";

/// Collects what one file is called, so that every refusal names it.
struct Check<'a> {
    path: &'a Path,
}

impl Check<'_> {
    /// Refuses `key` unless `holds`.
    fn that(
        &self,
        holds: bool,
        key: &'static str,
        got: impl std::fmt::Display,
        expected: impl Into<String>,
        advice: &'static str,
    ) -> Result<(), ConfigError> {
        if holds {
            return Ok(());
        }
        let path = self.path.to_path_buf();
        Err(ConfigError::Unsupported {
            path,
            key,
            got: got.to_string(),
            expected: expected.into(),
            advice,
        })
    }

    fn class(&self, got: &str, expected: &str) -> Result<(), ConfigError> {
        self.that(got == expected, "_class_name", got, expected, OTHER_MODEL)
    }

    fn positive(&self, key: &'static str, value: usize) -> Result<(), ConfigError> {
        let range = format!("1 to {DIMENSION_MAX}");
        self.that((1..=DIMENSION_MAX).contains(&value), key, value, range, BROKEN_FILE)
    }

    fn finite(&self, key: &'static str, value: f64) -> Result<(), ConfigError> {
        self.that(value.is_finite() && value > 0.0, key, value, "a positive number", BROKEN_FILE)
    }
}

/// The largest width, count or length that a configuration may name.
///
/// The real checkpoint's largest is its vocabulary, 151,936. Far above that, products of two of
/// them still fit 64 bits, so no shape computed from a configuration can overflow.
pub const DIMENSION_MAX: usize = 1 << 24;

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read(path)
        .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
    serde_json::from_slice(&text)
        .map_err(|source| ConfigError::Parse { path: path.to_path_buf(), source })
}

/// `model_index.json`: which class each folder holds.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelIndex {
    #[serde(rename = "_class_name")]
    class_name: String,
    scheduler: [String; 2],
    text_encoder: [String; 2],
    tokenizer: [String; 2],
    transformer: [String; 2],
    vae: [String; 2],
}

impl ModelIndex {
    /// Reads `model_index.json` and refuses a pipeline of other classes.
    ///
    /// # Errors
    /// Any [`ConfigError`]; the model directory is not one of ours.
    pub fn read(directory: &Path) -> Result<Self, ConfigError> {
        let path = directory.join("model_index.json");
        let index: Self = read_json(&path)?;
        let check = Check { path: &path };
        check.class(&index.class_name, "ZImagePipeline")?;
        let fast_or_slow = index.tokenizer[1].replace("TokenizerFast", "Tokenizer");
        for (key, got, expected) in [
            ("scheduler", &index.scheduler[1], "FlowMatchEulerDiscreteScheduler"),
            ("tokenizer", &fast_or_slow, "Qwen2Tokenizer"),
            ("transformer", &index.transformer[1], "ZImageTransformer2DModel"),
            ("vae", &index.vae[1], "AutoencoderKL"),
        ] {
            check.that(got == expected, key, got, expected, OTHER_MODEL)?;
        }
        let encoder = index.text_encoder[1].as_str();
        let known = matches!(encoder, "Qwen3Model" | "Qwen3ForCausalLM");
        check.that(known, "text_encoder", encoder, "Qwen3Model", OTHER_MODEL)?;
        Ok(index)
    }
}

/// The configurations of all components.
#[derive(Debug, Clone)]
pub struct PipelineConfig {
    /// `transformer/config.json`.
    pub transformer: TransformerConfig,
    /// `text_encoder/config.json`.
    pub text_encoder: TextEncoderConfig,
    /// `vae/config.json`.
    pub autoencoder: AutoencoderConfig,
    /// `scheduler/scheduler_config.json`.
    pub scheduler: SchedulerConfig,
}

impl PipelineConfig {
    /// Reads every configuration of a model directory and checks that the components fit together.
    ///
    /// # Errors
    /// Any [`ConfigError`]; the first file that is missing, broken or unsupported.
    pub fn read(directory: &Path) -> Result<Self, ConfigError> {
        ModelIndex::read(directory)?;
        let config = Self {
            transformer: TransformerConfig::read(directory)?,
            text_encoder: TextEncoderConfig::read(directory)?,
            autoencoder: AutoencoderConfig::read(directory)?,
            scheduler: SchedulerConfig::read(directory)?,
        };
        let path = directory.join("transformer/config.json");
        let check = Check { path: &path };
        let (features, hidden) = (config.transformer.cap_feat_dim, config.text_encoder.hidden_size);
        check.that(
            features == hidden,
            "cap_feat_dim",
            features,
            format!("{hidden}, as hidden_size of the text encoder"),
            BROKEN_FILE,
        )?;
        let (channels, latent) =
            (config.transformer.in_channels, config.autoencoder.latent_channels);
        check.that(
            channels == latent,
            "in_channels",
            channels,
            format!("{latent}, as latent_channels of the vae"),
            BROKEN_FILE,
        )?;
        Ok(config)
    }

    /// What width and height must be multiples of, in pixels.
    #[must_use]
    pub fn size_multiple(&self) -> usize {
        self.autoencoder.scale() * self.transformer.patch_size()
    }
}
