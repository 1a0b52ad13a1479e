//! The denoiser: `ZImageTransformer2DModel`, a single-stream diffusion transformer.
//!
//! Owns the forward pass and nothing of time: it knows neither the noise schedule nor the loop, and
//! it gives the model's raw output, `x0 - noise`; who steps negates it. Names are the reference's,
//! down to the checkpoint keys, so that weights load and the two texts can be read side by side.
//!
//! ```text
//! latents ─ patchify ─ all_x_embedder ─ noise_refiner ─┐
//!                                                      ├─ layers ─ all_final_layer ─ unpatchify ─ velocity
//! caption ─ cap_embedder ───────────── context_refiner ┘
//!              time ─ t_embedder ─ c ──▶ scales and gates of noise_refiner, layers and all_final_layer
//! ```
//!
//! The caption's branch sees neither time nor latents: [`ZImageTransformer2DModel::embed_caption`]
//! runs once a prompt. Positions, rotary angles and the mask depend on sizes only:
//! [`ZImageTransformer2DModel::sequence`] runs once a picture.
//!
//! Source: diffusers `models/transformers/transformer_z_image.py`; Tongyi-MAI/Z-Image
//! `src/zimage/transformer.py`.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, DType, Tensor, TensorData};

use crate::config::TransformerConfig;
use crate::kernels::{Kernels, Mask, Pairs, Rope};
use crate::layers::{Linear, RmsNorm, layer_norm};
use crate::tap::Tap;
use crate::weights::{Weights, WeightsError};

/// Image and caption are each padded to a multiple of this many tokens.
pub const SEQ_MULTI_OF: usize = 32;

/// Epsilon of the query and key norms; fixed in the reference, whatever `norm_eps` says.
const QK_NORM_EPS: f64 = 1e-5;

/// Epsilon of the final layer norm; not that of the block norms.
const FINAL_NORM_EPS: f64 = 1e-6;

/// Width of the sinusoids that the time is embedded by.
const FREQUENCY_EMBEDDING_SIZE: usize = 256;

/// Width inside the time embedder.
const T_EMBEDDER_MID_SIZE: usize = 1024;

/// A prompt as the transformer's main layers take it.
#[derive(Debug, Clone)]
pub struct RefinedCaption<B: Backend> {
    /// `[1, tokens, dim]`, padded with the pad token to a multiple of 32.
    tokens: Tensor<B, 3>,
}

impl<B: Backend> RefinedCaption<B> {
    /// Tokens with the padding.
    #[must_use]
    pub fn tokens_padded(&self) -> usize {
        self.tokens.dims()[1]
    }
}

/// What follows from the sizes of a batch alone.
#[derive(Debug, Clone)]
pub struct Sequence<B: Backend> {
    /// Rows and columns of patches.
    patches: [usize; 2],
    /// Tokens of each caption with padding.
    captions: Vec<usize>,
    image_rope: Rope<B>,
    unified_rope: Rope<B>,
    mask: Mask<B>,
}

impl<B: Backend> Sequence<B> {
    /// Image tokens with padding.
    #[must_use]
    pub fn image_tokens_padded(&self) -> usize {
        pad(self.patches[0] * self.patches[1])
    }
}

/// The next multiple of 32.
fn pad(tokens: usize) -> usize {
    tokens.next_multiple_of(SEQ_MULTI_OF)
}

/// The denoiser.
#[derive(Debug)]
pub struct ZImageTransformer2DModel<B: Backend> {
    config: TransformerConfig,
    /// The layer norm of main block 0 and the others are reachable for the parity check of single
    /// norms.
    layers: Vec<ZImageTransformerBlock<B>>,
    noise_refiner: Vec<ZImageTransformerBlock<B>>,
    context_refiner: Vec<ZImageTransformerBlock<B>>,
    all_x_embedder: Linear<B>,
    all_final_layer: FinalLayer<B>,
    t_embedder: TimestepEmbedder<B>,
    cap_embedder: (RmsNorm<B>, Linear<B>),
    x_pad_token: Tensor<B, 2>,
    cap_pad_token: Tensor<B, 2>,
    rope_embedder: RopeEmbedder,
    dtype: DType,
}

impl<B: Kernels> ZImageTransformer2DModel<B> {
    /// Walks over all weights of the transformer.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub fn load(
        weights: &mut Weights<B>,
        config: &TransformerConfig,
    ) -> Result<Self, WeightsError> {
        let (dim, patch) = (config.dim, config.patch_size());
        let patch_dim = patch * patch * config.in_channels;
        // The key of an embedder names its patch: "{patch_size}-{f_patch_size}".
        let key = format!("{patch}-1");
        let mut blocks = |stack: &str, count: usize, modulated: bool| {
            (0..count)
                .map(|i| {
                    let name = format!("{stack}.{i}");
                    ZImageTransformerBlock::load(weights, &name, config, modulated)
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let noise_refiner = blocks("noise_refiner", config.n_refiner_layers, true)?;
        let context_refiner = blocks("context_refiner", config.n_refiner_layers, false)?;
        let layers = blocks("layers", config.n_layers, true)?;
        let caption_norm =
            RmsNorm::load(weights, "cap_embedder.0", config.cap_feat_dim, config.norm_eps)?;
        let caption_linear =
            Linear::load(weights, "cap_embedder.1", [config.cap_feat_dim, dim], true)?;
        Ok(Self {
            layers,
            noise_refiner,
            context_refiner,
            all_x_embedder: Linear::load(
                weights,
                &format!("all_x_embedder.{key}"),
                [patch_dim, dim],
                true,
            )?,
            all_final_layer: FinalLayer::load(
                weights,
                &format!("all_final_layer.{key}"),
                config,
                patch_dim,
            )?,
            t_embedder: TimestepEmbedder::load(weights, "t_embedder", config.modulation_dim())?,
            cap_embedder: (caption_norm, caption_linear),
            x_pad_token: weights.take("x_pad_token", [1, dim])?,
            cap_pad_token: weights.take("cap_pad_token", [1, dim])?,
            rope_embedder: RopeEmbedder::new(config),
            dtype: weights.precision().dtype(),
            config: config.clone(),
        })
    }

    /// Embeds and refines caption features.
    ///
    /// cap_feats → `cap_embedder` → pad tokens → `context_refiner`
    ///
    /// # Shapes
    /// - cap_feats: `[tokens, cap_feat_dim]`, valid tokens only
    pub fn embed_caption(&self, cap_feats: Tensor<B, 2>, tap: &mut Tap) -> RefinedCaption<B> {
        let tokens = cap_feats.dims()[0];
        let (norm, linear) = &self.cap_embedder;
        let x = linear.forward(norm.forward(cap_feats.cast(self.dtype)));
        see_padded(tap, "cap_embedder", &x);
        let mut x = append_pad_tokens(x.unsqueeze(), &self.cap_pad_token);
        // Pad tokens go on counting, and they are attended to like any other token.
        let rope = self.rope_embedder.rope(&[caption_positions(pad(tokens))], &x.device());
        for (i, block) in self.context_refiner.iter().enumerate() {
            x = block.forward(x, None, &rope, &Mask::None, &mut Tap::closed());
            tap.see(|| format!("context_refiner.{i}"), &x);
        }
        RefinedCaption { tokens: x }
    }

    /// Prepares positions, rotary angles and mask for latents of one size and a caption for each.
    ///
    /// # Shapes
    /// - latents: `[batch, in_channels, height, width]` later on; here only `height` and `width`
    pub fn sequence(
        &self,
        [height, width]: [usize; 2],
        captions: &[&RefinedCaption<B>],
        device: &B::Device,
    ) -> Sequence<B> {
        let patch = self.config.patch_size();
        let patches = [height / patch, width / patch];
        let captions: Vec<usize> = captions.iter().map(|c| c.tokens_padded()).collect();
        let longest = captions.iter().copied().max().unwrap_or(0);
        let image: Vec<_> =
            captions.iter().map(|&length| image_positions(patches, length)).collect();
        let unified: Vec<_> = image
            .iter()
            .zip(&captions)
            .map(|(image, &length)| {
                let mut ids = image.clone();
                ids.extend(caption_positions(length));
                // Rows that only fill up the batch are masked: their place does not matter.
                ids.resize(image.len() + longest, [0; 3]);
                ids
            })
            .collect();
        Sequence {
            image_rope: self.rope_embedder.rope(&image, device),
            unified_rope: self.rope_embedder.rope(&unified, device),
            mask: batch_mask(image.first().map_or(0, Vec::len), &captions, longest, device),
            patches,
            captions,
        }
    }

    /// Predicts the velocity of a batch.
    ///
    /// latents → patchify → `all_x_embedder` → `noise_refiner` → with the captions → `layers` →
    /// `all_final_layer` → unpatchify
    ///
    /// # Shapes
    /// - latents, output: `[batch, in_channels, height, width]`, f32
    /// - t: one for each item, `1 - sigma`: 0 is noise, 1 is the picture
    ///
    /// The output is the raw one, `x0 - noise`.
    pub fn forward(
        &self,
        latents: Tensor<B, 4>,
        t: &[f32],
        captions: &[&RefinedCaption<B>],
        sequence: &Sequence<B>,
        tap: &mut Tap,
    ) -> Tensor<B, 4> {
        debug_assert_eq!(latents.dims()[0], t.len());
        debug_assert_eq!(captions.len(), t.len());
        let device = latents.device();
        let c = self.t_embedder.forward(t, self.config.t_scale as f32, self.dtype, &device);
        tap.see(|| "t_embedder".into(), &c);
        let x = self.refine_noise(latents, &c, sequence, tap);
        let x = Tensor::cat(vec![x, fill_up(captions, &sequence.captions)], 1);
        let x = self.run_layers(x, &c, sequence, tap);
        let x = self.all_final_layer.forward(x, c);
        tap.see(|| "final_layer".into(), &x);
        let [rows, columns] = sequence.patches;
        self.unpatchify(x.narrow(1, 0, rows * columns), sequence.patches).cast(DType::F32)
    }

    fn refine_noise(
        &self,
        latents: Tensor<B, 4>,
        c: &Tensor<B, 2>,
        sequence: &Sequence<B>,
        tap: &mut Tap,
    ) -> Tensor<B, 3> {
        let x = self.all_x_embedder.forward(self.patchify(latents.cast(self.dtype)));
        if tap.is_open() {
            let [batch, tokens, dim] = x.dims();
            for item in 0..batch {
                let rows = x.clone().narrow(0, item, 1).reshape([tokens, dim]);
                see_padded(tap, "x_embedder", &rows);
            }
        }
        let mut x = append_pad_tokens(x, &self.x_pad_token);
        for (i, block) in self.noise_refiner.iter().enumerate() {
            let rope = &sequence.image_rope;
            x = block.forward(x, Some(c), rope, &Mask::None, &mut Tap::closed());
            tap.see(|| format!("noise_refiner.{i}"), &x);
        }
        x
    }

    fn run_layers(
        &self,
        mut x: Tensor<B, 3>,
        c: &Tensor<B, 2>,
        sequence: &Sequence<B>,
        tap: &mut Tap,
    ) -> Tensor<B, 3> {
        let mut closed = Tap::closed();
        for (i, block) in self.layers.iter().enumerate() {
            let inner = if i == 0 { &mut *tap } else { &mut closed };
            x = block.forward(x, Some(c), &sequence.unified_rope, &sequence.mask, inner);
            tap.see(|| format!("layers.{i}"), &x);
        }
        x
    }

    /// Cuts latents into patches; the channel is the fastest axis inside a patch.
    ///
    /// # Shapes
    /// - latents: `[batch, in_channels, height, width]`
    /// - output: `[batch, height / p * width / p, p * p * in_channels]`
    fn patchify(&self, latents: Tensor<B, 4>) -> Tensor<B, 3> {
        let p = self.config.patch_size();
        let [batch, channels, height, width] = latents.dims();
        let (rows, columns) = (height / p, width / p);
        latents
            .reshape([batch, channels, rows, p, columns, p])
            .permute([0, 2, 4, 3, 5, 1])
            .reshape([batch, rows * columns, p * p * channels])
    }

    /// The inverse of [`Self::patchify`].
    fn unpatchify(&self, x: Tensor<B, 3>, [rows, columns]: [usize; 2]) -> Tensor<B, 4> {
        let (p, channels, batch) = (self.config.patch_size(), self.config.in_channels, x.dims()[0]);
        x.reshape([batch, rows, columns, p, p, channels]).permute([0, 5, 1, 3, 2, 4]).reshape([
            batch,
            channels,
            rows * p,
            columns * p,
        ])
    }

    /// `all_final_layer` alone, for the parity check.
    pub fn final_layer(&self, x: Tensor<B, 3>, c: Tensor<B, 2>) -> Tensor<B, 3> {
        self.all_final_layer.forward(x, c)
    }

    /// `layers.0.attention_norm1` alone, for the parity check.
    pub fn block_norm(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.layers[0].attention_norm1.forward(x)
    }

    /// `layers.0.attention.norm_q` alone, for the parity check.
    pub fn qk_norm(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        self.layers[0].attention.norm_q.forward(x)
    }

    /// `cap_embedder.0` alone, for the parity check.
    pub fn caption_norm(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.cap_embedder.0.forward(x)
    }

    /// The rotary angles of image and caption tokens of one item, for the parity check.
    ///
    /// # Shapes
    /// - positions: `[tokens][frame, row, column]`
    /// - output: `[tokens][head_dim / 2]` of (cosine, sine)
    #[must_use]
    pub fn rotary(&self, positions: &[[usize; 3]]) -> Vec<(f32, f32)> {
        positions.iter().flat_map(|position| self.rope_embedder.angles(position)).collect()
    }

    /// How many positions each axis knows: frames (captions count here), rows, columns.
    #[must_use]
    pub fn axes_lens(&self) -> &[usize] {
        &self.config.axes_lens
    }
}

/// Positions of the image tokens: real ones follow the padded caption, pad tokens are at the
/// origin.
///
/// # Shapes
/// - output: `[tokens padded][frame, row, column]`
#[must_use]
pub fn image_positions([rows, columns]: [usize; 2], caption_padded: usize) -> Vec<[usize; 3]> {
    let place = |i| [caption_padded + 1, i / columns, i % columns];
    let mut positions: Vec<_> = (0..rows * columns).map(place).collect();
    positions.resize(pad(rows * columns), [0; 3]);
    positions
}

/// Positions of caption tokens: frames 1, 2, 3 …, since frame 0 is where image pad tokens are.
#[must_use]
pub fn caption_positions(tokens: usize) -> Vec<[usize; 3]> {
    (0..tokens).map(|k| [k + 1, 0, 0]).collect()
}

/// Fills each item up to a multiple of 32 with the learned pad token.
fn append_pad_tokens<B: Backend>(x: Tensor<B, 3>, pad_token: &Tensor<B, 2>) -> Tensor<B, 3> {
    let [batch, tokens, dim] = x.dims();
    let missing = pad(tokens) - tokens;
    if missing == 0 {
        return x;
    }
    let pads = pad_token.clone().reshape([1, 1, dim]).expand([batch, missing, dim]);
    Tensor::cat(vec![x, pads], 1)
}

/// Stacks captions of unequal length; what fills up the shorter ones is masked.
fn fill_up<B: Backend>(captions: &[&RefinedCaption<B>], lengths: &[usize]) -> Tensor<B, 3> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let filled = captions.iter().map(|caption| {
        let [_, tokens, dim] = caption.tokens.dims();
        let x = caption.tokens.clone();
        if tokens == longest {
            return x;
        }
        let options = (&x.device(), x.dtype());
        let zeros = Tensor::zeros([1, longest - tokens, dim], options);
        Tensor::cat(vec![x, zeros], 1)
    });
    Tensor::cat(filled.collect(), 0)
}

/// Hides what fills up a batch, and only that: the pad tokens up to a multiple of 32 stay visible.
fn batch_mask<B: Backend>(
    image: usize,
    captions: &[usize],
    longest: usize,
    device: &B::Device,
) -> Mask<B> {
    if captions.iter().all(|&length| length == longest) {
        return Mask::None;
    }
    let hidden: Vec<bool> = captions
        .iter()
        .flat_map(|&length| (0..image + longest).map(move |i| i >= image + length))
        .collect();
    let data = TensorData::new(hidden, [captions.len(), image + longest]);
    Mask::Keys(Tensor::<B, 2, Bool>::from_data(data, device))
}

/// Shows rows as the reference embeds them: filled up to a multiple of 32 with copies of the last
/// row.
fn see_padded<B: Backend>(tap: &mut Tap, name: &str, rows: &Tensor<B, 2>) {
    if tap.is_open() {
        let tokens = rows.dims()[0];
        let mut parts = vec![rows.clone()];
        let missing = pad(tokens) - tokens;
        if missing > 0 {
            parts.push(rows.clone().narrow(0, tokens - 1, 1).repeat_dim(0, missing));
        }
        tap.see(|| name.into(), &Tensor::cat(parts, 0));
    }
}

/// Turns a time into the vector that scales and gates the blocks.
#[derive(Debug)]
struct TimestepEmbedder<B: Backend> {
    mlp_0: Linear<B>,
    mlp_2: Linear<B>,
}

impl<B: Kernels> TimestepEmbedder<B> {
    fn load(weights: &mut Weights<B>, name: &str, out: usize) -> Result<Self, WeightsError> {
        let mid = T_EMBEDDER_MID_SIZE;
        Ok(Self {
            mlp_0: Linear::load(
                weights,
                &format!("{name}.mlp.0"),
                [FREQUENCY_EMBEDDING_SIZE, mid],
                true,
            )?,
            mlp_2: Linear::load(weights, &format!("{name}.mlp.2"), [mid, out], true)?,
        })
    }

    /// t → sinusoids → `mlp.0` → SiLU → `mlp.2`
    ///
    /// # Shapes
    /// - t: `[batch]`
    /// - output: `[batch, min(dim, 256)]`
    fn forward(&self, t: &[f32], t_scale: f32, dtype: DType, device: &B::Device) -> Tensor<B, 2> {
        let values: Vec<f32> = t.iter().flat_map(|&t| timestep_embedding(t * t_scale)).collect();
        let data = TensorData::new(values, [t.len(), FREQUENCY_EMBEDDING_SIZE]);
        let x = Tensor::<B, 2>::from_data(data, (device, DType::F32)).cast(dtype);
        self.mlp_2.forward(B::silu(self.mlp_0.forward(x)))
    }
}

/// Cosines, then sines, of the time at 128 frequencies from 1 down to nearly 1/10000.
///
/// Rounded to f32 where the reference rounds, since a time of 1000 magnifies a frequency's last
/// bit; the functions are `libm`'s in f64, so that every machine gives the same bits.
fn timestep_embedding(t: f32) -> Vec<f32> {
    let half = FREQUENCY_EMBEDDING_SIZE / 2;
    let log = -libm::log(10000.0) as f32;
    let angles = (0..half).map(|i| {
        let frequency = libm::exp(f64::from(log * i as f32 / half as f32)) as f32;
        f64::from(t * frequency)
    });
    let angles: Vec<f64> = angles.collect();
    let cos = angles.iter().map(|&a| libm::cos(a) as f32);
    let sin = angles.iter().map(|&a| libm::sin(a) as f32);
    cos.chain(sin).collect()
}

/// Rotary angles for positions with three axes.
#[derive(Debug)]
struct RopeEmbedder {
    theta: f64,
    axes_dims: Vec<usize>,
}

impl RopeEmbedder {
    fn new(config: &TransformerConfig) -> Self {
        Self { theta: config.rope_theta, axes_dims: config.axes_dims.clone() }
    }

    /// Cosine and sine for each pair of channels of one token: frame pairs, row pairs, column
    /// pairs.
    ///
    /// The angle is computed in f64 and rounded to f32 before its cosine is taken, as in the
    /// reference.
    fn angles(&self, position: &[usize; 3]) -> Vec<(f32, f32)> {
        let mut angles = Vec::new();
        for (&place, &dim) in position.iter().zip(&self.axes_dims) {
            for k in 0..dim / 2 {
                let frequency = libm::pow(self.theta, -((2 * k) as f64) / dim as f64);
                let angle = f64::from((place as f64 * frequency) as f32);
                angles.push((libm::cos(angle) as f32, libm::sin(angle) as f32));
            }
        }
        angles
    }

    /// # Shapes
    /// - positions: `[batch][tokens]`
    fn rope<B: Backend>(&self, positions: &[Vec<[usize; 3]>], device: &B::Device) -> Rope<B> {
        let batch = positions.len();
        let tokens = positions.first().map_or(0, Vec::len);
        let half = self.axes_dims.iter().sum::<usize>() / 2;
        let all = positions.iter().flatten().flat_map(|position| self.angles(position));
        let (cos, sin): (Vec<f32>, Vec<f32>) = all.unzip();
        let tensor = |values| {
            let data = TensorData::new(values, [batch, tokens, half]);
            Tensor::<B, 3>::from_data(data, (device, DType::F32))
        };
        Rope { cos: tensor(cos), sin: tensor(sin) }
    }
}

/// One block; `adaLN_modulation` is absent in the context refiner.
#[derive(Debug)]
struct ZImageTransformerBlock<B: Backend> {
    attention: Attention<B>,
    feed_forward: FeedForward<B>,
    attention_norm1: RmsNorm<B>,
    attention_norm2: RmsNorm<B>,
    ffn_norm1: RmsNorm<B>,
    ffn_norm2: RmsNorm<B>,
    adaln_modulation: Option<Linear<B>>,
}

impl<B: Kernels> ZImageTransformerBlock<B> {
    fn load(
        weights: &mut Weights<B>,
        name: &str,
        config: &TransformerConfig,
        modulated: bool,
    ) -> Result<Self, WeightsError> {
        let dim = config.dim;
        let attention = Attention::load(weights, &format!("{name}.attention"), config)?;
        let feed_forward = FeedForward::load(weights, &format!("{name}.feed_forward"), config)?;
        let mut norm =
            |part: &str| RmsNorm::load(weights, &format!("{name}.{part}"), dim, config.norm_eps);
        let (attention_norm1, attention_norm2) =
            (norm("attention_norm1")?, norm("attention_norm2")?);
        let (ffn_norm1, ffn_norm2) = (norm("ffn_norm1")?, norm("ffn_norm2")?);
        let adaln = format!("{name}.adaLN_modulation.0");
        let widths = [config.modulation_dim(), 4 * dim];
        let adaln_modulation =
            modulated.then(|| Linear::load(weights, &adaln, widths, true)).transpose()?;
        Ok(Self {
            attention,
            feed_forward,
            attention_norm1,
            attention_norm2,
            ffn_norm1,
            ffn_norm2,
            adaln_modulation,
        })
    }

    /// x → `x + gate · norm2(attention(norm1(x) · scale))` → `x + gate ·
    /// norm2(feed_forward(norm1(x) · scale))`
    ///
    /// # Shapes
    /// - x, output: `[batch, tokens, dim]`
    /// - c: `[batch, min(dim, 256)]`; `None` for a block without modulation
    fn forward(
        &self,
        x: Tensor<B, 3>,
        c: Option<&Tensor<B, 2>>,
        rope: &Rope<B>,
        mask: &Mask<B>,
        tap: &mut Tap,
    ) -> Tensor<B, 3> {
        let modulation = self.modulation(c);
        let (msa, mlp) = modulation.as_ref().map_or((None, None), |m| (Some(&m.msa), Some(&m.mlp)));
        let y = scaled(self.attention_norm1.forward(x.clone()), msa);
        let y = self.attention.forward(y, rope, mask);
        tap.see(|| "layers.0.attention".into(), &y);
        let x = x + gated(self.attention_norm2.forward(y), msa);
        let y = scaled(self.ffn_norm1.forward(x.clone()), mlp);
        let y = self.feed_forward.forward(y);
        tap.see(|| "layers.0.feed_forward".into(), &y);
        x + gated(self.ffn_norm2.forward(y), mlp)
    }

    /// The block's scales and gates at one time; the linear layer takes `c` as it is, without SiLU.
    fn modulation(&self, c: Option<&Tensor<B, 2>>) -> Option<Modulation<B>> {
        let (linear, c) = (self.adaln_modulation.as_ref()?, c?);
        let m: Tensor<B, 3> = linear.forward(c.clone()).unsqueeze_dim(1);
        let chunks: [_; 4] = m.chunk(4, 2).try_into().expect("four chunks were asked for");
        let [scale_msa, gate_msa, scale_mlp, gate_mlp] = chunks;
        let branch = |scale: Tensor<B, 3>, gate: Tensor<B, 3>| Branch {
            scale: scale.add_scalar(1.0),
            gate: gate.tanh(),
        };
        Some(Modulation { msa: branch(scale_msa, gate_msa), mlp: branch(scale_mlp, gate_mlp) })
    }
}

/// `1 + scale` and `tanh(gate)`, each `[batch, 1, dim]`.
struct Branch<B: Backend> {
    scale: Tensor<B, 3>,
    gate: Tensor<B, 3>,
}

struct Modulation<B: Backend> {
    msa: Branch<B>,
    mlp: Branch<B>,
}

fn scaled<B: Backend>(x: Tensor<B, 3>, branch: Option<&Branch<B>>) -> Tensor<B, 3> {
    match branch {
        Some(branch) => x * branch.scale.clone(),
        None => x,
    }
}

fn gated<B: Backend>(x: Tensor<B, 3>, branch: Option<&Branch<B>>) -> Tensor<B, 3> {
    match branch {
        Some(branch) => x * branch.gate.clone(),
        None => x,
    }
}

/// Multi-head attention with normalised queries and keys.
#[derive(Debug)]
struct Attention<B: Backend> {
    to_q: Linear<B>,
    to_k: Linear<B>,
    to_v: Linear<B>,
    to_out_0: Linear<B>,
    norm_q: RmsNorm<B>,
    norm_k: RmsNorm<B>,
    heads: usize,
}

impl<B: Kernels> Attention<B> {
    fn load(
        weights: &mut Weights<B>,
        name: &str,
        config: &TransformerConfig,
    ) -> Result<Self, WeightsError> {
        let (dim, head_dim) = (config.dim, config.head_dim());
        let mut linear =
            |part: &str| Linear::load(weights, &format!("{name}.{part}"), [dim, dim], false);
        let (to_q, to_k, to_v) = (linear("to_q")?, linear("to_k")?, linear("to_v")?);
        let to_out_0 = linear("to_out.0")?;
        let mut norm =
            |part: &str| RmsNorm::load(weights, &format!("{name}.{part}"), head_dim, QK_NORM_EPS);
        let (norm_q, norm_k) = (norm("norm_q")?, norm("norm_k")?);
        Ok(Self { to_q, to_k, to_v, to_out_0, norm_q, norm_k, heads: config.n_heads })
    }

    /// # Shapes
    /// - x, output: `[batch, tokens, dim]`
    fn forward(&self, x: Tensor<B, 3>, rope: &Rope<B>, mask: &Mask<B>) -> Tensor<B, 3> {
        let [batch, tokens, dim] = x.dims();
        let split = |t: Tensor<B, 3>| t.reshape([batch, tokens, self.heads, dim / self.heads]);
        let q = self.norm_q.forward(split(self.to_q.forward(x.clone())));
        let k = self.norm_k.forward(split(self.to_k.forward(x.clone())));
        let v = split(self.to_v.forward(x));
        let q = B::rotate(q, rope, Pairs::Adjacent);
        let k = B::rotate(k, rope, Pairs::Adjacent);
        self.to_out_0.forward(B::attend(q, k, v, mask))
    }
}

/// The gated feed-forward layer.
#[derive(Debug)]
struct FeedForward<B: Backend> {
    w1: Linear<B>,
    w2: Linear<B>,
    w3: Linear<B>,
}

impl<B: Kernels> FeedForward<B> {
    fn load(
        weights: &mut Weights<B>,
        name: &str,
        config: &TransformerConfig,
    ) -> Result<Self, WeightsError> {
        let (dim, inner) = (config.dim, config.feed_forward_dim());
        let mut linear =
            |part: &str, widths| Linear::load(weights, &format!("{name}.{part}"), widths, false);
        Ok(Self {
            w1: linear("w1", [dim, inner])?,
            w2: linear("w2", [inner, dim])?,
            w3: linear("w3", [dim, inner])?,
        })
    }

    /// x → `w2(silu(w1 x) · w3 x)`
    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.w2.forward(B::swiglu(self.w1.forward(x.clone()), self.w3.forward(x)))
    }
}

/// From the stream to patches.
#[derive(Debug)]
struct FinalLayer<B: Backend> {
    linear: Linear<B>,
    adaln_modulation_1: Linear<B>,
}

impl<B: Kernels> FinalLayer<B> {
    fn load(
        weights: &mut Weights<B>,
        name: &str,
        config: &TransformerConfig,
        patch_dim: usize,
    ) -> Result<Self, WeightsError> {
        let adaln = format!("{name}.adaLN_modulation.1");
        let widths = [config.modulation_dim(), config.dim];
        Ok(Self {
            linear: Linear::load(
                weights,
                &format!("{name}.linear"),
                [config.dim, patch_dim],
                true,
            )?,
            adaln_modulation_1: Linear::load(weights, &adaln, widths, true)?,
        })
    }

    /// x → `linear(layer_norm(x) · (1 + adaLN(silu(c))))`; here, and only here, SiLU stands before
    /// adaLN.
    fn forward(&self, x: Tensor<B, 3>, c: Tensor<B, 2>) -> Tensor<B, 3> {
        let scale: Tensor<B, 3> =
            self.adaln_modulation_1.forward(B::silu(c)).add_scalar(1.0).unsqueeze_dim(1);
        self.linear.forward(layer_norm(x, FINAL_NORM_EPS) * scale)
    }
}
