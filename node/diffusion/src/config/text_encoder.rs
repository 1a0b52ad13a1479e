//! `text_encoder/config.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{BROKEN_FILE, Check, ConfigError, DIMENSION_MAX, OTHER_MODEL, read_json};

/// `text_encoder/config.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct TextEncoderConfig {
    #[serde(default)]
    architectures: Vec<String>,
    model_type: String,
    #[serde(default)]
    attention_bias: bool,
    hidden_act: String,
    /// Channels of one head; independent of the hidden size.
    pub head_dim: usize,
    /// Width of the stream.
    pub hidden_size: usize,
    /// Width of the gated layer.
    pub intermediate_size: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Layers in the file; the last one is never run.
    pub num_hidden_layers: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Epsilon of every norm.
    pub rms_norm_eps: f64,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_parameters: Option<Value>,
    #[serde(default)]
    rope_scaling: Option<Value>,
    #[serde(default)]
    use_sliding_window: bool,
    /// Rows of the embedding.
    pub vocab_size: usize,
}

impl TextEncoderConfig {
    /// Reads `text_encoder/config.json`.
    ///
    /// # Errors
    /// Any [`ConfigError`]; the encoder is no Qwen3, or one with scaled rotary positions.
    pub fn read(directory: &Path) -> Result<Self, ConfigError> {
        let path = directory.join("text_encoder/config.json");
        let config: Self = read_json(&path)?;
        config.check(&Check { path: &path })?;
        Ok(config)
    }

    fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.that(
            self.model_type == "qwen3",
            "model_type",
            &self.model_type,
            "qwen3",
            OTHER_MODEL,
        )?;
        for class in &self.architectures {
            let known = matches!(class.as_str(), "Qwen3ForCausalLM" | "Qwen3Model");
            check.that(known, "architectures", class, "Qwen3ForCausalLM", OTHER_MODEL)?;
        }
        check.that(!self.attention_bias, "attention_bias", true, "false", OTHER_MODEL)?;
        check.that(
            self.hidden_act == "silu",
            "hidden_act",
            &self.hidden_act,
            "silu",
            OTHER_MODEL,
        )?;
        check.that(!self.use_sliding_window, "use_sliding_window", true, "false", OTHER_MODEL)?;
        if let Some(scaling) = &self.rope_scaling {
            check.that(scaling.is_null(), "rope_scaling", scaling, "null", OTHER_MODEL)?;
        }
        if let Some(kind) = self.rope_parameters.as_ref().and_then(|p| p.get("rope_type")) {
            let plain = kind == "default";
            check.that(plain, "rope_parameters.rope_type", kind, "\"default\"", OTHER_MODEL)?;
        }
        self.check_numbers(check)
    }

    fn check_numbers(&self, check: &Check) -> Result<(), ConfigError> {
        let theta = self.rope_theta_given().unwrap_or(0.0);
        check.finite("rope_theta", theta)?;
        check.finite("rms_norm_eps", self.rms_norm_eps)?;
        for (key, value) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("vocab_size", self.vocab_size),
            ("head_dim", self.head_dim),
        ] {
            check.positive(key, value)?;
        }
        check.that(
            self.head_dim.is_multiple_of(2),
            "head_dim",
            self.head_dim,
            "an even number",
            BROKEN_FILE,
        )?;
        let layers = self.num_hidden_layers;
        check.that(
            (2..=DIMENSION_MAX).contains(&layers),
            "num_hidden_layers",
            layers,
            "2 or more, since the last but one is read",
            BROKEN_FILE,
        )?;
        let (heads, shared) = (self.num_attention_heads, self.num_key_value_heads);
        check.that(
            heads % shared == 0,
            "num_key_value_heads",
            shared,
            format!("a divisor of num_attention_heads {heads}"),
            BROKEN_FILE,
        )
    }

    /// Newer transformers nest the value in `rope_parameters`.
    fn rope_theta_given(&self) -> Option<f64> {
        let nested = || self.rope_parameters.as_ref()?.get("rope_theta")?.as_f64();
        self.rope_theta.or_else(nested)
    }

    /// Base of the rotary frequencies.
    #[must_use]
    pub fn rope_theta(&self) -> f64 {
        self.rope_theta_given().expect("read() refused a configuration without rope_theta")
    }
}
