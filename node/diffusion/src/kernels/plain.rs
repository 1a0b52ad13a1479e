//! Each kernel in plain burn operations: what it means, and what a backend without its own does.

use burn::tensor::backend::Backend;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Tensor, activation};

use super::{Mask, Pairs, Rope, Then};

/// As [`super::Kernels::rms_norm`].
pub fn rms_norm<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    weight: Tensor<B, 1>,
    eps: f64,
) -> Tensor<B, D> {
    let dtype = x.dtype();
    let x = x.cast(DType::F32);
    let square = x.clone().square().mean_dim(D - 1);
    (x / (square + eps).sqrt()).cast(dtype) * weight.unsqueeze()
}

/// As [`super::Kernels::rotate`].
pub fn rotate<B: Backend>(x: Tensor<B, 4>, rope: &Rope<B>, pairs: Pairs) -> Tensor<B, 4> {
    let (dtype, dims) = (x.dtype(), x.dims());
    let [batch, tokens, heads, head_dim] = dims;
    let half = head_dim / 2;
    let (shape, axis) = match pairs {
        Pairs::Adjacent => ([batch, tokens, heads, half, 2], 4),
        Pairs::Halves => ([batch, tokens, heads, 2, half], 3),
    };
    let x = x.cast(DType::F32).reshape(shape);
    let a = x.clone().narrow(axis, 0, 1).reshape([batch, tokens, heads, half]);
    let b = x.narrow(axis, 1, 1).reshape([batch, tokens, heads, half]);
    let cos: Tensor<B, 4> = rope.cos.clone().unsqueeze_dim(2);
    let sin: Tensor<B, 4> = rope.sin.clone().unsqueeze_dim(2);
    let turned_a = a.clone() * cos.clone() - b.clone() * sin.clone();
    let turned_b = a * sin + b * cos;
    Tensor::stack::<5>(vec![turned_a, turned_b], axis).reshape(dims).cast(dtype)
}

/// As [`super::Kernels::attend`].
pub fn attend<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    mask: &Mask<B>,
) -> Tensor<B, 3> {
    let [batch, tokens, heads, head_dim] = q.dims();
    let k = repeat_heads(k, heads).swap_dims(1, 2);
    let v = repeat_heads(v, heads).swap_dims(1, 2);
    let keys = k.dims()[2];
    let is_causal = matches!(mask, Mask::Causal);
    // The scale is left to its default: naming it sends burn-cuda to a kernel that keeps all scores.
    let options = AttentionModuleOptions { scale: None, softcap: None, is_causal };
    let hidden = match mask {
        Mask::Keys(hidden) => Some(hidden.clone().reshape([batch, 1, 1, keys])),
        Mask::None | Mask::Causal => None,
    };
    let rows = if is_causal { tokens } else { QUERY_ROWS_MAX };
    let mut parts = Vec::new();
    for start in (0..tokens).step_by(rows) {
        let length = rows.min(tokens - start);
        let part = q.clone().narrow(1, start, length).swap_dims(1, 2);
        let hidden = hidden.clone().map(|m| m.expand([batch, heads, length, keys]));
        parts.push(attention(part, k.clone(), v.clone(), hidden, None, options));
    }
    Tensor::cat(parts, 2).swap_dims(1, 2).reshape([batch, tokens, heads * head_dim])
}

/// Queries that are answered at once.
///
/// Bounds the score matrix where a backend keeps it: the autoencoder's one head of 65,536 tokens
/// would need 17 GB at 2048×2048. Queries are independent, so the answer does not change.
const QUERY_ROWS_MAX: usize = 8192;

/// Repeats each key or value head for the query heads that share it.
pub(super) fn repeat_heads<B: Backend>(x: Tensor<B, 4>, heads: usize) -> Tensor<B, 4> {
    let [batch, tokens, kv_heads, head_dim] = x.dims();
    if kv_heads == heads {
        return x;
    }
    let shared = heads / kv_heads;
    let x: Tensor<B, 5> = x.unsqueeze_dim(3);
    x.repeat_dim(3, shared).reshape([batch, tokens, heads, head_dim])
}

/// As [`super::Kernels::silu`].
pub fn silu<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let dtype = x.dtype();
    activation::silu(x.cast(DType::F32)).cast(dtype)
}

/// As [`super::Kernels::group_norm`].
pub fn group_norm<B: Backend>(
    x: Tensor<B, 4>,
    [weight, bias]: [Tensor<B, 1>; 2],
    groups: usize,
    eps: f64,
    then: Then,
) -> Tensor<B, 4> {
    let (dtype, dims) = (x.dtype(), x.dims());
    let [batch, channels, height, width] = dims;
    let members = channels / groups * height * width;
    let x = x.cast(DType::F32).reshape([batch, groups, members]);
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let normal = (centred / (variance + eps).sqrt()).reshape(dims);
    let per_channel = |t: Tensor<B, 1>| t.cast(DType::F32).reshape([1, channels, 1, 1]);
    let y = (normal * per_channel(weight) + per_channel(bias)).cast(dtype);
    match then {
        Then::Nothing => y,
        Then::Silu => silu(y),
    }
}
