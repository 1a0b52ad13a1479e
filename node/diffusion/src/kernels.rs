//! The computations that are worth a path of their own on a backend.
//!
//! Owns the trait [`Kernels`]: every burn backend can have it for nothing, since each method falls
//! back to [`plain`] burn operations, which are also its meaning. A backend overrides a method where
//! its own operations are slow; [`flex`] does so for the CPU. A kernel must not know the model, only
//! shapes.

pub mod flex;
pub mod plain;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};

/// Cosines and sines of the rotary angles of each token.
#[derive(Debug, Clone)]
pub struct Rope<B: Backend> {
    /// `[batch, tokens, head_dim / 2]`, f32
    pub cos: Tensor<B, 3>,
    /// `[batch, tokens, head_dim / 2]`, f32
    pub sin: Tensor<B, 3>,
}

/// Which channels a rotary embedding turns together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Channel `2 j` with `2 j + 1`: the transformer.
    Adjacent,
    /// Channel `j` with `j + head_dim / 2`: the text encoder.
    Halves,
}

/// Which keys a query may see.
#[derive(Debug, Clone)]
pub enum Mask<B: Backend> {
    /// All.
    None,
    /// Its own and earlier ones.
    Causal,
    /// Those of its batch item that are not marked true. `[batch, tokens]`
    Keys(Tensor<B, 2, Bool>),
}

/// A burn backend with the computations of this crate.
pub trait Kernels: Backend {
    /// Root-mean-square norm over the last axis, times a weight.
    ///
    /// x → f32 → `x / sqrt(mean(x²) + eps)` → back → `· weight`
    ///
    /// # Shapes
    /// - x, output: `[.., dim]`; weight: `[dim]`
    fn rms_norm<const D: usize>(
        x: Tensor<Self, D>,
        weight: Tensor<Self, 1>,
        eps: f64,
    ) -> Tensor<Self, D> {
        plain::rms_norm(x, weight, eps)
    }

    /// Turns pairs of channels by the angle of their token, in f32.
    ///
    /// (a, b) → `(a cos - b sin, a sin + b cos)`
    ///
    /// # Shapes
    /// - x, output: `[batch, tokens, heads, head_dim]`
    fn rotate(x: Tensor<Self, 4>, rope: &Rope<Self>, pairs: Pairs) -> Tensor<Self, 4> {
        plain::rotate(x, rope, pairs)
    }

    /// Scaled dot-product attention.
    ///
    /// q, k, v → `softmax(q kᵀ / sqrt(head_dim)) v`
    ///
    /// # Shapes
    /// - q: `[batch, tokens, heads, head_dim]`
    /// - k, v: `[batch, keys, kv_heads, head_dim]`; query head `j` reads `j / (heads / kv_heads)`
    /// - output: `[batch, tokens, heads * head_dim]`
    fn attend(
        q: Tensor<Self, 4>,
        k: Tensor<Self, 4>,
        v: Tensor<Self, 4>,
        mask: &Mask<Self>,
    ) -> Tensor<Self, 3> {
        plain::attend(q, k, v, mask)
    }

    /// `x · sigmoid(x)`, in f32, rounded once.
    ///
    /// # Shapes
    /// - x, output: the same
    fn silu<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
        plain::silu(x)
    }

    /// The gated activation of a feed-forward layer: `silu(gate) · up`.
    ///
    /// # Shapes
    /// - gate, up, output: the same
    fn swiglu<const D: usize>(gate: Tensor<Self, D>, up: Tensor<Self, D>) -> Tensor<Self, D> {
        plain::silu(gate) * up
    }

    /// Group norm over the pixels of each group of channels, in f32, and SiLU behind it if asked.
    ///
    /// # Shapes
    /// - x, output: `[batch, channels, height, width]`; weight, bias: `[channels]`
    fn group_norm(
        x: Tensor<Self, 4>,
        affine: [Tensor<Self, 1>; 2],
        groups: usize,
        eps: f64,
        then: Then,
    ) -> Tensor<Self, 4> {
        plain::group_norm(x, affine, groups, eps, then)
    }
}

/// What follows a norm in the same pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// SiLU.
    Silu,
}

#[cfg(feature = "cuda")]
impl Kernels for burn_cuda::Cuda<f32, i32> {}
