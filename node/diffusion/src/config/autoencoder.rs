//! `vae/config.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{BROKEN_FILE, Check, ConfigError, OTHER_MODEL, read_json};

/// `vae/config.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct AutoencoderConfig {
    #[serde(rename = "_class_name")]
    class_name: String,
    act_fn: String,
    /// Channels of each resolution, finest first.
    pub block_out_channels: Vec<usize>,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    /// Channels of the picture to encode.
    pub in_channels: usize,
    /// Channels of the decoded picture.
    pub out_channels: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    #[serde(default)]
    latents_mean: Option<Value>,
    #[serde(default)]
    latents_std: Option<Value>,
    /// Resnets in a down block; an up block has one more.
    pub layers_per_block: usize,
    #[serde(default = "yes")]
    mid_block_add_attention: bool,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// The edge that the model was trained for, in pixels: what is drawn where nothing else is asked for.
    pub sample_size: u32,
    /// What latents are multiplied by after encoding.
    pub scaling_factor: f64,
    /// What is subtracted from them before.
    pub shift_factor: f64,
    #[serde(default = "yes")]
    use_quant_conv: bool,
    #[serde(default = "yes")]
    use_post_quant_conv: bool,
}

/// The default of several flags of `AutoencoderKL`.
fn yes() -> bool {
    true
}

impl AutoencoderConfig {
    /// Reads `vae/config.json`.
    ///
    /// # Errors
    /// Any [`ConfigError`]; for instance an autoencoder with quantisation convolutions.
    pub fn read(directory: &Path) -> Result<Self, ConfigError> {
        let path = directory.join("vae/config.json");
        let config: Self = read_json(&path)?;
        config.check(&Check { path: &path })?;
        Ok(config)
    }

    fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.class(&self.class_name, "AutoencoderKL")?;
        check.that(self.act_fn == "silu", "act_fn", &self.act_fn, "silu", OTHER_MODEL)?;
        check.that(!self.use_quant_conv, "use_quant_conv", true, "false", OTHER_MODEL)?;
        check.that(!self.use_post_quant_conv, "use_post_quant_conv", true, "false", OTHER_MODEL)?;
        let attention = self.mid_block_add_attention;
        check.that(attention, "mid_block_add_attention", attention, "true", OTHER_MODEL)?;
        for (key, value) in
            [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)]
        {
            if let Some(value) = value {
                check.that(value.is_null(), key, value, "null", OTHER_MODEL)?;
            }
        }
        for (key, types, expected) in [
            ("down_block_types", &self.down_block_types, "DownEncoderBlock2D"),
            ("up_block_types", &self.up_block_types, "UpDecoderBlock2D"),
        ] {
            let same =
                types.len() == self.block_out_channels.len() && types.iter().all(|t| t == expected);
            check.that(
                same,
                key,
                format!("{types:?}"),
                format!("{} of {expected}", self.block_out_channels.len()),
                OTHER_MODEL,
            )?;
        }
        self.check_numbers(check)
    }

    fn check_numbers(&self, check: &Check) -> Result<(), ConfigError> {
        let blocks = self.block_out_channels.len();
        check.that(
            (1..=6).contains(&blocks),
            "block_out_channels",
            format!("{blocks} numbers"),
            "1 to 6 numbers",
            OTHER_MODEL,
        )?;
        check.positive("norm_num_groups", self.norm_num_groups)?;
        for &channels in &self.block_out_channels {
            check.positive("block_out_channels", channels)?;
            let groups = self.norm_num_groups;
            check.that(
                channels % groups == 0,
                "block_out_channels",
                channels,
                format!("a multiple of norm_num_groups {groups}"),
                BROKEN_FILE,
            )?;
        }
        check.positive("latent_channels", self.latent_channels)?;
        check.positive("sample_size", self.sample_size as usize)?;
        check.that(
            (1..=64).contains(&self.layers_per_block),
            "layers_per_block",
            self.layers_per_block,
            "1 to 64",
            BROKEN_FILE,
        )?;
        for (key, value) in [("in_channels", self.in_channels), ("out_channels", self.out_channels)]
        {
            check.that(value == 3, key, value, "3, for red, green and blue", OTHER_MODEL)?;
        }
        check.finite("scaling_factor", self.scaling_factor)?;
        check.that(
            self.shift_factor.is_finite(),
            "shift_factor",
            self.shift_factor,
            "a number",
            BROKEN_FILE,
        )
    }

    /// Picture pixels for each latent pixel, in each direction.
    #[must_use]
    pub fn scale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}
