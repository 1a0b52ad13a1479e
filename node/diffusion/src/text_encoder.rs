//! The prompt's features: `Qwen3Model` up to its last layer but one.
//!
//! Owns the forward pass of a Qwen3 decoder over one unpadded sequence. It knows ids, not text: the
//! chat template and the limit of 512 are the tokenizer's.
//!
//! The reference pads to 512 and takes the rows where the mask is 1. Padding stands at the right
//! and attention is causal, so the same rows come out of a run over the valid ids alone, which is
//! what we do.
//!
//! Source: transformers `models/qwen3/modeling_qwen3.py`.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};

use crate::config::TextEncoderConfig;
use crate::kernels::{Kernels, Mask, Pairs, Rope};
use crate::layers::{Linear, RmsNorm};
use crate::tap::{Tap, values};
use crate::weights::{Weights, WeightsError};

/// The text encoder, without the layer and the norm that nobody reads.
#[derive(Debug)]
pub struct Qwen3Model<B: Backend> {
    embed_tokens: Tensor<B, 2>,
    layers: Vec<Qwen3DecoderLayer<B>>,
    head_dim: usize,
    rope_theta: f64,
}

impl<B: Kernels> Qwen3Model<B> {
    /// Walks over all weights of the encoder; the last layer and the final norm are only looked at.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub fn load(
        weights: &mut Weights<B>,
        config: &TextEncoderConfig,
    ) -> Result<Self, WeightsError> {
        let embedding = [config.vocab_size, config.hidden_size];
        let embed_tokens = weights.take("model.embed_tokens.weight", embedding)?;
        // hidden_states[-2] is what layer `count - 2` gave: one layer and the norm remain unused.
        let used = config.num_hidden_layers - 1;
        let layers = (0..used)
            .map(|i| Qwen3DecoderLayer::load(weights, &format!("model.layers.{i}"), config))
            .collect::<Result<Vec<_>, _>>()?;
        Qwen3DecoderLayer::<B>::pass_over(weights, &format!("model.layers.{used}"), config);
        weights.pass_over("model.norm.weight", &[config.hidden_size]);
        Ok(Self {
            embed_tokens,
            layers,
            head_dim: config.head_dim,
            rope_theta: config.rope_theta(),
        })
    }

    /// Computes the caption features, `hidden_states[-2]`: no final norm.
    ///
    /// ids → `embed_tokens` → all layers but the last
    ///
    /// # Shapes
    /// - output: `[tokens, hidden_size]`
    pub fn forward(&self, ids: &[u32], tap: &mut Tap) -> Tensor<B, 2> {
        let device = self.embed_tokens.device();
        let wide: Vec<i32> = ids.iter().map(|&id| id.cast_signed()).collect();
        let indices = TensorData::new(wide, [ids.len()]);
        let indices = Tensor::<B, 1, Int>::from_data(indices, (&device, DType::I32));
        let rope = self.rope(ids.len(), &device);
        let mut x = self.embed_tokens.clone().select(0, indices);
        tap.see(|| "hidden_states.0".into(), &x);
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, &rope);
            tap.see(|| format!("hidden_states.{}", i + 1), &x);
        }
        x
    }

    /// `layers.0.input_layernorm` alone, for the parity check.
    pub fn text_norm(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.layers[0].input_layernorm.forward(x)
    }

    /// Rotary angles of positions 0, 1, 2 …; frequencies and angles are rounded to f32 as the
    /// reference does.
    fn rope(&self, tokens: usize, device: &B::Device) -> Rope<B> {
        let half = self.head_dim / 2;
        let frequency = |k: usize| {
            let power = ((2 * k) as f32 / self.head_dim as f32) as f64;
            1.0 / (libm::pow(self.rope_theta, power) as f32)
        };
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let angles = (0..tokens).flat_map(|position| {
            frequencies.iter().map(move |frequency| f64::from(position as f32 * frequency))
        });
        let (cos, sin): (Vec<f32>, Vec<f32>) =
            angles.map(|a| (libm::cos(a) as f32, libm::sin(a) as f32)).unzip();
        let dtype = self.embed_tokens.dtype();
        // The reference rounds cosines and sines to the activations' type, then turns in that type.
        let tensor = |values| {
            let data = TensorData::new(values, [1, tokens, half]);
            Tensor::<B, 3>::from_data(data, (device, DType::F32)).cast(dtype).cast(DType::F32)
        };
        Rope { cos: tensor(cos), sin: tensor(sin) }
    }
}

/// A text encoder on the pipeline's device or on the host.
///
/// On the host it leaves 8 GB of a card to the rest; a prompt then takes longer, once.
#[derive(Debug)]
pub enum PlacedTextEncoder<B: Backend> {
    /// Beside the transformer.
    Device(Qwen3Model<B>),
    /// On the CPU; features are copied to the device.
    Host(Qwen3Model<Flex>, B::Device),
}

impl<B: Kernels> PlacedTextEncoder<B> {
    /// As [`Qwen3Model::forward`], wherever it is.
    pub fn forward(&self, ids: &[u32], tap: &mut Tap) -> Tensor<B, 2> {
        match self {
            Self::Device(model) => model.forward(ids, tap),
            Self::Host(model, device) => {
                let features = model.forward(ids, tap);
                let (dims, dtype) = (features.dims(), features.dtype());
                let data = TensorData::new(values(features), dims);
                Tensor::<B, 2>::from_data(data, (device, DType::F32)).cast(dtype)
            }
        }
    }

    /// As [`Qwen3Model::text_norm`], for the parity check.
    pub fn text_norm(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        match self {
            Self::Device(model) => model.text_norm(x),
            Self::Host(model, device) => {
                let (dims, dtype) = (x.dims(), x.dtype());
                let host = TensorData::new(values(x), dims);
                let host = Tensor::<Flex, 3>::from_data(host, (&FlexDevice, DType::F32));
                let y = TensorData::new(values(model.text_norm(host.cast(dtype))), dims);
                Tensor::<B, 3>::from_data(y, (device, DType::F32)).cast(dtype)
            }
        }
    }
}

/// One decoder layer.
#[derive(Debug)]
struct Qwen3DecoderLayer<B: Backend> {
    input_layernorm: RmsNorm<B>,
    self_attn: Qwen3Attention<B>,
    post_attention_layernorm: RmsNorm<B>,
    mlp: Qwen3MLP<B>,
}

impl<B: Kernels> Qwen3DecoderLayer<B> {
    fn load(
        weights: &mut Weights<B>,
        name: &str,
        config: &TextEncoderConfig,
    ) -> Result<Self, WeightsError> {
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        let mut norm = |part: &str| RmsNorm::load(weights, &format!("{name}.{part}"), hidden, eps);
        let input_layernorm = norm("input_layernorm")?;
        let post_attention_layernorm = norm("post_attention_layernorm")?;
        Ok(Self {
            input_layernorm,
            self_attn: Qwen3Attention::load(weights, &format!("{name}.self_attn"), config)?,
            post_attention_layernorm,
            mlp: Qwen3MLP::load(weights, &format!("{name}.mlp"), config)?,
        })
    }

    /// Looks at a layer without loading it.
    fn pass_over(weights: &mut Weights<B>, name: &str, config: &TextEncoderConfig) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let q = config.num_attention_heads * config.head_dim;
        let kv = config.num_key_value_heads * config.head_dim;
        for (part, shape) in [
            ("input_layernorm", &[hidden][..]),
            ("post_attention_layernorm", &[hidden]),
            ("self_attn.q_proj", &[q, hidden]),
            ("self_attn.k_proj", &[kv, hidden]),
            ("self_attn.v_proj", &[kv, hidden]),
            ("self_attn.o_proj", &[hidden, q]),
            ("self_attn.q_norm", &[config.head_dim]),
            ("self_attn.k_norm", &[config.head_dim]),
            ("mlp.gate_proj", &[inner, hidden]),
            ("mlp.up_proj", &[inner, hidden]),
            ("mlp.down_proj", &[hidden, inner]),
        ] {
            weights.pass_over(&format!("{name}.{part}.weight"), shape);
        }
    }

    /// x → `x + self_attn(norm(x))` → `x + mlp(norm(x))`
    fn forward(&self, x: Tensor<B, 2>, rope: &Rope<B>) -> Tensor<B, 2> {
        let x = x.clone() + self.self_attn.forward(self.input_layernorm.forward(x), rope);
        x.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x))
    }
}

/// Causal attention in which several query heads share a key and value head.
#[derive(Debug)]
struct Qwen3Attention<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    o_proj: Linear<B>,
    q_norm: RmsNorm<B>,
    k_norm: RmsNorm<B>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl<B: Kernels> Qwen3Attention<B> {
    fn load(
        weights: &mut Weights<B>,
        name: &str,
        config: &TextEncoderConfig,
    ) -> Result<Self, WeightsError> {
        let (hidden, head_dim, eps) = (config.hidden_size, config.head_dim, config.rms_norm_eps);
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let mut linear =
            |part: &str, widths| Linear::load(weights, &format!("{name}.{part}"), widths, false);
        let q_proj = linear("q_proj", [hidden, heads * head_dim])?;
        let k_proj = linear("k_proj", [hidden, kv_heads * head_dim])?;
        let v_proj = linear("v_proj", [hidden, kv_heads * head_dim])?;
        let o_proj = linear("o_proj", [heads * head_dim, hidden])?;
        let q_norm = RmsNorm::load(weights, &format!("{name}.q_norm"), head_dim, eps)?;
        let k_norm = RmsNorm::load(weights, &format!("{name}.k_norm"), head_dim, eps)?;
        Ok(Self { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm, heads, kv_heads, head_dim })
    }

    /// # Shapes
    /// - x, output: `[tokens, hidden_size]`
    fn forward(&self, x: Tensor<B, 2>, rope: &Rope<B>) -> Tensor<B, 2> {
        let tokens = x.dims()[0];
        let split = |t: Tensor<B, 2>, heads| t.reshape([1, tokens, heads, self.head_dim]);
        let q = self.q_norm.forward(split(self.q_proj.forward(x.clone()), self.heads));
        let k = self.k_norm.forward(split(self.k_proj.forward(x.clone()), self.kv_heads));
        let v = split(self.v_proj.forward(x), self.kv_heads);
        let q = B::rotate(q, rope, Pairs::Halves);
        let k = B::rotate(k, rope, Pairs::Halves);
        let y = B::attend(q, k, v, &Mask::Causal);
        self.o_proj.forward(y.reshape([tokens, self.heads * self.head_dim]))
    }
}

/// The gated feed-forward layer.
#[derive(Debug)]
struct Qwen3MLP<B: Backend> {
    gate_proj: Linear<B>,
    up_proj: Linear<B>,
    down_proj: Linear<B>,
}

impl<B: Kernels> Qwen3MLP<B> {
    fn load(
        weights: &mut Weights<B>,
        name: &str,
        config: &TextEncoderConfig,
    ) -> Result<Self, WeightsError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let mut linear =
            |part: &str, widths| Linear::load(weights, &format!("{name}.{part}"), widths, false);
        Ok(Self {
            gate_proj: linear("gate_proj", [hidden, inner])?,
            up_proj: linear("up_proj", [hidden, inner])?,
            down_proj: linear("down_proj", [inner, hidden])?,
        })
    }

    /// x → `down_proj(silu(gate_proj x) · up_proj x)`
    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let gate = self.gate_proj.forward(x.clone());
        self.down_proj.forward(B::swiglu(gate, self.up_proj.forward(x)))
    }
}
