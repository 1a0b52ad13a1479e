//! `transformer/config.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{BROKEN_FILE, Check, ConfigError, DIMENSION_MAX, OTHER_MODEL, read_json};

const NO_VISION: &str = "the Omni and Edit variants with a vision branch are not supported; use Z-Image or Z-Image-Turbo";

/// `transformer/config.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct TransformerConfig {
    #[serde(rename = "_class_name")]
    class_name: String,
    /// Patch edges in latent pixels; this crate takes exactly one.
    pub all_patch_size: Vec<usize>,
    /// Patch lengths in frames; this crate takes exactly one, of 1.
    pub all_f_patch_size: Vec<usize>,
    /// Channels of a head that each position axis (frame, row, column) turns.
    pub axes_dims: Vec<usize>,
    /// Positions that each axis knows.
    pub axes_lens: Vec<usize>,
    /// Width of the caption features.
    pub cap_feat_dim: usize,
    /// Width of the stream.
    pub dim: usize,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Key and value heads; the reference ignores it, and it is always `n_heads`.
    pub n_kv_heads: usize,
    /// Blocks of the main stack.
    pub n_layers: usize,
    /// Blocks of each refiner.
    pub n_refiner_layers: usize,
    /// Epsilon of the block norms.
    pub norm_eps: f64,
    qk_norm: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// What the time in 0..1 is multiplied by before it is embedded.
    pub t_scale: f64,
    #[serde(default)]
    siglip_feat_dim: Option<Value>,
}

impl TransformerConfig {
    /// Reads `transformer/config.json`.
    ///
    /// # Errors
    /// Any [`ConfigError`]; in particular the Omni variant (`siglip_feat_dim` set) is refused.
    pub fn read(directory: &Path) -> Result<Self, ConfigError> {
        let path = directory.join("transformer/config.json");
        let config: Self = read_json(&path)?;
        config.check(&Check { path: &path })?;
        Ok(config)
    }

    fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.class(&self.class_name, "ZImageTransformer2DModel")?;
        if let Some(siglip) = &self.siglip_feat_dim {
            check.that(siglip.is_null(), "siglip_feat_dim", siglip, "null", NO_VISION)?;
        }
        check.that(self.qk_norm, "qk_norm", self.qk_norm, "true", OTHER_MODEL)?;
        for (key, value) in [
            ("dim", self.dim),
            ("n_heads", self.n_heads),
            ("n_layers", self.n_layers),
            ("in_channels", self.in_channels),
            ("cap_feat_dim", self.cap_feat_dim),
        ] {
            check.positive(key, value)?;
        }
        for (key, value) in [
            ("norm_eps", self.norm_eps),
            ("rope_theta", self.rope_theta),
            ("t_scale", self.t_scale),
        ] {
            check.finite(key, value)?;
        }
        self.check_patches(check)?;
        self.check_heads(check)
    }

    fn check_patches(&self, check: &Check) -> Result<(), ConfigError> {
        let frames = format!("{:?}", self.all_f_patch_size);
        check.that(self.all_f_patch_size == [1], "all_f_patch_size", frames, "[1]", OTHER_MODEL)?;
        let edges = format!("{:?}", self.all_patch_size);
        let one = matches!(self.all_patch_size[..], [edge] if (1..=16).contains(&edge));
        check.that(one, "all_patch_size", edges, "one edge from 1 to 16, as [2]", OTHER_MODEL)
    }

    fn check_heads(&self, check: &Check) -> Result<(), ConfigError> {
        let (heads, dim) = (self.n_heads, self.dim);
        check.that(
            self.n_kv_heads == heads,
            "n_kv_heads",
            self.n_kv_heads,
            format!("{heads}, as n_heads"),
            OTHER_MODEL,
        )?;
        check.that(
            dim % heads == 0,
            "dim",
            dim,
            format!("a multiple of n_heads {heads}"),
            BROKEN_FILE,
        )?;
        let dims = format!("{:?}", self.axes_dims);
        let fits = self.axes_dims.len() == 3
            && self.axes_dims.iter().all(|d| d % 2 == 0 && (2..=DIMENSION_MAX).contains(d))
            && self.axes_dims.iter().sum::<usize>() == dim / heads;
        check.that(
            fits,
            "axes_dims",
            dims,
            format!("three even numbers with the sum {}", dim / heads),
            BROKEN_FILE,
        )?;
        let lens = format!("{:?}", self.axes_lens);
        let fits = self.axes_lens.len() == 3
            && self.axes_lens.iter().all(|l| (1..=DIMENSION_MAX).contains(l));
        check.that(fits, "axes_lens", lens, "three positive numbers", BROKEN_FILE)
    }

    /// Edge of a patch in latent pixels.
    #[must_use]
    pub fn patch_size(&self) -> usize {
        self.all_patch_size[0]
    }

    /// Channels of one head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.dim / self.n_heads
    }

    /// Width of the feed-forward layer: `int(dim / 3 * 8)`, in float maths, as the reference.
    #[must_use]
    pub fn feed_forward_dim(&self) -> usize {
        (self.dim as f64 / 3.0 * 8.0) as usize
    }

    /// Width of the time vector that modulates the blocks.
    #[must_use]
    pub fn modulation_dim(&self) -> usize {
        self.dim.min(256)
    }
}
