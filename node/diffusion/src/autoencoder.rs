//! Between pictures and latents: `AutoencoderKL`.
//!
//! Owns decoder and encoder. It must not know the scaling of latents for the denoiser: who calls it
//! does `latents / scaling_factor + shift_factor` before decoding, and the inverse after encoding.
//!
//! ```text
//! decode:  z ─ conv_in ─ mid_block ─ up_blocks ─ norm, SiLU ─ conv_out ─ picture
//! encode:  picture ─ conv_in ─ down_blocks ─ mid_block ─ norm, SiLU ─ conv_out ─ mean, logvar
//! ```
//!
//! Every up block but the last doubles the size, every down block but the last halves it.
//!
//! Source: diffusers `models/autoencoders/{autoencoder_kl,vae}.py`.

use burn::tensor::backend::Backend;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{DType, Tensor};

use crate::config::AutoencoderConfig;
use crate::kernels::{Kernels, Mask};
use crate::layers::{Conv2d, ConvKind, GroupNorm, Linear};
use crate::tap::Tap;
use crate::weights::{Weights, WeightsError};

/// The decoder and the encoder.
#[derive(Debug)]
pub struct AutoencoderKL<B: Backend> {
    encoder: Encoder<B>,
    decoder: Decoder<B>,
    dtype: DType,
}

/// What the encoder says of a picture: a normal distribution for each latent.
#[derive(Debug, Clone)]
pub struct Posterior<B: Backend> {
    /// Means. `[batch, latent_channels, height / 8, width / 8]`, f32
    pub mean: Tensor<B, 4>,
    /// Logarithms of the variances, clamped to -30..20; the same shape.
    pub logvar: Tensor<B, 4>,
}

impl<B: Backend> Posterior<B> {
    /// Standard deviations.
    #[must_use]
    pub fn std(&self) -> Tensor<B, 4> {
        self.logvar.clone().mul_scalar(0.5).exp()
    }
}

impl<B: Kernels> AutoencoderKL<B> {
    /// Walks over all weights of the autoencoder.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub fn load(
        weights: &mut Weights<B>,
        config: &AutoencoderConfig,
    ) -> Result<Self, WeightsError> {
        Ok(Self {
            encoder: Encoder::load(weights, config)?,
            decoder: Decoder::load(weights, config)?,
            dtype: weights.precision().dtype(),
        })
    }

    /// Decodes latents that have been unscaled.
    ///
    /// # Shapes
    /// - z: `[batch, latent_channels, height / 8, width / 8]`, f32
    /// - output: `[batch, 3, height, width]`, f32, about -1..1
    pub fn decode(&self, z: Tensor<B, 4>, tap: &mut Tap) -> Tensor<B, 4> {
        self.decoder.forward(z.cast(self.dtype), tap).cast(DType::F32)
    }

    /// Encodes pictures.
    ///
    /// # Shapes
    /// - x: `[batch, 3, height, width]`, f32, -1..1
    pub fn encode(&self, x: Tensor<B, 4>, tap: &mut Tap) -> Posterior<B> {
        let moments = self.encoder.forward(x.cast(self.dtype), tap).cast(DType::F32);
        let halves: [_; 2] = moments.chunk(2, 1).try_into().expect("two chunks were asked for");
        let [mean, logvar] = halves;
        Posterior { mean, logvar: logvar.clamp(-30.0, 20.0) }
    }

    /// `decoder.mid_block.resnets.0.norm1` alone, for the parity check.
    pub fn group_norm(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        self.decoder.mid_block.resnets[0].norm1.forward(x)
    }
}

#[derive(Debug)]
struct Decoder<B: Backend> {
    conv_in: Conv2d<B>,
    mid_block: MidBlock<B>,
    up_blocks: Vec<Block<B>>,
    conv_norm_out: GroupNorm<B>,
    conv_out: Conv2d<B>,
}

impl<B: Kernels> Decoder<B> {
    fn load(weights: &mut Weights<B>, config: &AutoencoderConfig) -> Result<Self, WeightsError> {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (deepest, finest) = (channels[0], channels[channels.len() - 1]);
        let groups = config.norm_num_groups;
        let latents = [config.latent_channels, deepest];
        let conv_in = Conv2d::load(weights, "decoder.conv_in", latents, ConvKind::Same)?;
        let mid_block = MidBlock::load(weights, "decoder.mid_block", deepest, groups)?;
        let resnets = config.layers_per_block + 1;
        let mut up_blocks = Vec::new();
        for (i, &c_out) in channels.iter().enumerate() {
            let widths = [channels[i.saturating_sub(1)], c_out];
            let last = i + 1 == channels.len();
            let name = format!("decoder.up_blocks.{i}");
            let mut block = Block::load(weights, &name, widths, resnets, groups)?;
            if !last {
                let name = format!("{name}.upsamplers.0.conv");
                let conv = Conv2d::load(weights, &name, [c_out; 2], ConvKind::Same)?;
                block.resample = Resample::Up(conv);
            }
            up_blocks.push(block);
        }
        let picture = [finest, config.out_channels];
        Ok(Self {
            conv_in,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::load(weights, "decoder.conv_norm_out", finest, groups)?,
            conv_out: Conv2d::load(weights, "decoder.conv_out", picture, ConvKind::Same)?,
        })
    }

    fn forward(&self, z: Tensor<B, 4>, tap: &mut Tap) -> Tensor<B, 4> {
        let mut x = self.conv_in.forward(z);
        tap.see(|| "conv_in".into(), &x);
        x = self.mid_block.forward(x, tap);
        tap.see(|| "mid_block".into(), &x);
        for (i, block) in self.up_blocks.iter().enumerate() {
            x = block.forward(x);
            tap.see(|| format!("up_blocks.{i}"), &x);
        }
        if tap.is_open() {
            tap.see(|| "conv_norm_out".into(), &self.conv_norm_out.forward(x.clone()));
        }
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }
}

#[derive(Debug)]
struct Encoder<B: Backend> {
    conv_in: Conv2d<B>,
    down_blocks: Vec<Block<B>>,
    mid_block: MidBlock<B>,
    conv_norm_out: GroupNorm<B>,
    conv_out: Conv2d<B>,
}

impl<B: Kernels> Encoder<B> {
    fn load(weights: &mut Weights<B>, config: &AutoencoderConfig) -> Result<Self, WeightsError> {
        let channels = &config.block_out_channels;
        let (finest, deepest) = (channels[0], channels[channels.len() - 1]);
        let groups = config.norm_num_groups;
        let picture = [config.in_channels, finest];
        let conv_in = Conv2d::load(weights, "encoder.conv_in", picture, ConvKind::Same)?;
        let mut down_blocks = Vec::new();
        for (i, &c_out) in channels.iter().enumerate() {
            let widths = [channels[i.saturating_sub(1)], c_out];
            let last = i + 1 == channels.len();
            let name = format!("encoder.down_blocks.{i}");
            let mut block = Block::load(weights, &name, widths, config.layers_per_block, groups)?;
            if !last {
                let name = format!("{name}.downsamplers.0.conv");
                let conv = Conv2d::load(weights, &name, [c_out; 2], ConvKind::Down)?;
                block.resample = Resample::Down(conv);
            }
            down_blocks.push(block);
        }
        // Mean and logarithm of the variance stand one behind the other.
        let moments = [deepest, 2 * config.latent_channels];
        Ok(Self {
            conv_in,
            down_blocks,
            mid_block: MidBlock::load(weights, "encoder.mid_block", deepest, groups)?,
            conv_norm_out: GroupNorm::load(weights, "encoder.conv_norm_out", deepest, groups)?,
            conv_out: Conv2d::load(weights, "encoder.conv_out", moments, ConvKind::Same)?,
        })
    }

    fn forward(&self, x: Tensor<B, 4>, tap: &mut Tap) -> Tensor<B, 4> {
        let mut x = self.conv_in.forward(x);
        tap.see(|| "conv_in".into(), &x);
        for (i, block) in self.down_blocks.iter().enumerate() {
            x = block.forward(x);
            tap.see(|| format!("down_blocks.{i}"), &x);
        }
        x = self.mid_block.forward(x, &mut Tap::closed());
        tap.see(|| "mid_block".into(), &x);
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }
}

/// What a block does to the size at its end.
#[derive(Debug)]
enum Resample<B: Backend> {
    Keep,
    Up(Conv2d<B>),
    Down(Conv2d<B>),
}

/// `UpDecoderBlock2D` or `DownEncoderBlock2D`.
#[derive(Debug)]
struct Block<B: Backend> {
    resnets: Vec<ResnetBlock2D<B>>,
    resample: Resample<B>,
}

impl<B: Kernels> Block<B> {
    fn load(
        weights: &mut Weights<B>,
        name: &str,
        [c_in, c_out]: [usize; 2],
        resnets: usize,
        groups: usize,
    ) -> Result<Self, WeightsError> {
        let resnets = (0..resnets)
            .map(|i| {
                let widths = [if i == 0 { c_in } else { c_out }, c_out];
                ResnetBlock2D::load(weights, &format!("{name}.resnets.{i}"), widths, groups)
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { resnets, resample: Resample::Keep })
    }

    fn forward(&self, mut x: Tensor<B, 4>) -> Tensor<B, 4> {
        for resnet in &self.resnets {
            x = resnet.forward(x);
        }
        match &self.resample {
            Resample::Keep => x,
            Resample::Up(conv) => {
                let [_, _, height, width] = x.dims();
                let options = InterpolateOptions::new(InterpolateMode::Nearest);
                conv.forward(interpolate(x, [2 * height, 2 * width], options))
            }
            Resample::Down(conv) => conv.forward(x),
        }
    }
}

#[derive(Debug)]
struct MidBlock<B: Backend> {
    resnets: [ResnetBlock2D<B>; 2],
    attention: Attention<B>,
}

impl<B: Kernels> MidBlock<B> {
    fn load(
        weights: &mut Weights<B>,
        name: &str,
        channels: usize,
        groups: usize,
    ) -> Result<Self, WeightsError> {
        let mut resnet =
            |i| ResnetBlock2D::load(weights, &format!("{name}.resnets.{i}"), [channels; 2], groups);
        let resnets = [resnet(0)?, resnet(1)?];
        let attention =
            Attention::load(weights, &format!("{name}.attentions.0"), channels, groups)?;
        Ok(Self { resnets, attention })
    }

    fn forward(&self, x: Tensor<B, 4>, tap: &mut Tap) -> Tensor<B, 4> {
        let x = self.attention.forward(self.resnets[0].forward(x));
        tap.see(|| "mid_attention".into(), &x);
        self.resnets[1].forward(x)
    }
}

#[derive(Debug)]
struct ResnetBlock2D<B: Backend> {
    norm1: GroupNorm<B>,
    conv1: Conv2d<B>,
    norm2: GroupNorm<B>,
    conv2: Conv2d<B>,
    conv_shortcut: Option<Conv2d<B>>,
}

impl<B: Kernels> ResnetBlock2D<B> {
    fn load(
        weights: &mut Weights<B>,
        name: &str,
        [c_in, c_out]: [usize; 2],
        groups: usize,
    ) -> Result<Self, WeightsError> {
        let same = ConvKind::Same;
        let shortcut = format!("{name}.conv_shortcut");
        Ok(Self {
            norm1: GroupNorm::load(weights, &format!("{name}.norm1"), c_in, groups)?,
            conv1: Conv2d::load(weights, &format!("{name}.conv1"), [c_in, c_out], same)?,
            norm2: GroupNorm::load(weights, &format!("{name}.norm2"), c_out, groups)?,
            conv2: Conv2d::load(weights, &format!("{name}.conv2"), [c_out; 2], same)?,
            conv_shortcut: (c_in != c_out)
                .then(|| Conv2d::load(weights, &shortcut, [c_in, c_out], ConvKind::Point))
                .transpose()?,
        })
    }

    /// x → `shortcut(x) + conv2(silu(norm2(conv1(silu(norm1 x)))))`
    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let h = self.conv1.forward(self.norm1.forward_silu(x.clone()));
        let h = self.conv2.forward(self.norm2.forward_silu(h));
        let x = match &self.conv_shortcut {
            Some(conv) => conv.forward(x),
            None => x,
        };
        x + h
    }
}

/// Attention over all pixels, with one head as wide as the channels.
#[derive(Debug)]
struct Attention<B: Backend> {
    group_norm: GroupNorm<B>,
    to_q: Linear<B>,
    to_k: Linear<B>,
    to_v: Linear<B>,
    to_out_0: Linear<B>,
}

impl<B: Kernels> Attention<B> {
    fn load(
        weights: &mut Weights<B>,
        name: &str,
        channels: usize,
        groups: usize,
    ) -> Result<Self, WeightsError> {
        let group_norm = GroupNorm::load(weights, &format!("{name}.group_norm"), channels, groups)?;
        let mut linear =
            |part: &str| Linear::load(weights, &format!("{name}.{part}"), [channels; 2], true);
        Ok(Self {
            group_norm,
            to_q: linear("to_q")?,
            to_k: linear("to_k")?,
            to_v: linear("to_v")?,
            to_out_0: linear("to_out.0")?,
        })
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, channels, height, width] = x.dims();
        let pixels = height * width;
        let tokens =
            self.group_norm.forward(x.clone()).reshape([batch, channels, pixels]).swap_dims(1, 2);
        let head = |linear: &Linear<B>| {
            linear.forward(tokens.clone()).reshape([batch, pixels, 1, channels])
        };
        let y = B::attend(head(&self.to_q), head(&self.to_k), head(&self.to_v), &Mask::None);
        let y = self.to_out_0.forward(y).swap_dims(1, 2).reshape([batch, channels, height, width]);
        x + y
    }
}
