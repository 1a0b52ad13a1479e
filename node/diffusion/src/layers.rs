//! The layers that every component is made of.
//!
//! Owns the smallest pieces with weights: linear, convolution and the norms. A layer holds plain
//! tensors and no burn `Param`: this crate only infers, so nothing is ever tracked, recorded or
//! visited. Each layer loads itself by the reference's names and knows nothing of the model around
//! it.

use burn::tensor::backend::Backend;
use burn::tensor::module::conv2d;
use burn::tensor::ops::{ConvOptions, PadMode};
use burn::tensor::{DType, Tensor};

use crate::kernels::{Kernels, Then};
use crate::weights::{Weights, WeightsError};

/// `x W^T + b`, as `torch.nn.Linear`.
#[derive(Debug, Clone)]
pub struct Linear<B: Backend> {
    /// `[in, out]`: burn multiplies from the right, the file has `[out, in]`.
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
}

impl<B: Backend> Linear<B> {
    /// Loads `{name}.weight`, and `{name}.bias` when `bias`.
    ///
    /// The transposition is a view: matrix products on every backend read either order at the same
    /// speed, and the checkpoint is not shuffled in memory.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub fn load(
        weights: &mut Weights<B>,
        name: &str,
        [d_in, d_out]: [usize; 2],
        bias: bool,
    ) -> Result<Self, WeightsError> {
        let weight = weights.take(&format!("{name}.weight"), [d_out, d_in])?.transpose();
        let bias = bias.then(|| weights.take(&format!("{name}.bias"), [d_out])).transpose()?;
        Ok(Self { weight, bias })
    }

    /// Applies the layer to the last axis.
    ///
    /// # Shapes
    /// - x: `[.., in]`
    /// - output: `[.., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let mut dims = x.dims();
        let [d_in, d_out] = self.weight.dims();
        let rows = dims[..D - 1].iter().product();
        // One flat product: a batched one would treat the weight as repeated.
        let mut y = x.reshape([rows, d_in]).matmul(self.weight.clone());
        if let Some(bias) = &self.bias {
            y = y + bias.clone().unsqueeze();
        }
        dims[D - 1] = d_out;
        y.reshape(dims)
    }
}

/// Root-mean-square norm over the last axis.
#[derive(Debug, Clone)]
pub struct RmsNorm<B: Backend> {
    weight: Tensor<B, 1>,
    eps: f64,
}

impl<B: Kernels> RmsNorm<B> {
    /// Loads `{name}.weight`.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub fn load(
        weights: &mut Weights<B>,
        name: &str,
        dim: usize,
        eps: f64,
    ) -> Result<Self, WeightsError> {
        Ok(Self { weight: weights.take(&format!("{name}.weight"), [dim])?, eps })
    }

    /// Normalises in f32, casts back, then multiplies by the weight: the order that the reference
    /// rounds in.
    ///
    /// # Shapes
    /// - x, output: `[.., dim]`
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        B::rms_norm(x, self.weight.clone(), self.eps)
    }
}

/// Group norm with weight and bias, and optionally SiLU behind it.
#[derive(Debug, Clone)]
pub struct GroupNorm<B: Backend> {
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    groups: usize,
}

impl<B: Kernels> GroupNorm<B> {
    /// Epsilon of every group norm of the autoencoder; torch's default, 1e-5, is not it.
    pub const EPS: f64 = 1e-6;

    /// Loads `{name}.weight` and `{name}.bias`.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub fn load(
        weights: &mut Weights<B>,
        name: &str,
        channels: usize,
        groups: usize,
    ) -> Result<Self, WeightsError> {
        let weight = weights.take(&format!("{name}.weight"), [channels])?;
        let bias = weights.take(&format!("{name}.bias"), [channels])?;
        Ok(Self { weight, bias, groups })
    }

    /// Normalises each group of channels over all pixels.
    ///
    /// # Shapes
    /// - x, output: `[batch, channels, height, width]`
    pub fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        self.apply(x, Then::Nothing)
    }

    /// Normalises, then applies SiLU.
    ///
    /// # Shapes
    /// - x, output: `[batch, channels, height, width]`
    pub fn forward_silu(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        self.apply(x, Then::Silu)
    }

    fn apply(&self, x: Tensor<B, 4>, then: Then) -> Tensor<B, 4> {
        let affine = [self.weight.clone(), self.bias.clone()];
        B::group_norm(x, affine, self.groups, Self::EPS, then)
    }
}

/// How a convolution treats the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvKind {
    /// 3×3, one zero on every side: keeps the size.
    Same,
    /// 3×3, stride 2, one zero at the right and at the bottom only: halves the size.
    Down,
    /// 1×1.
    Point,
}

/// A two-dimensional convolution with bias.
#[derive(Debug, Clone)]
pub struct Conv2d<B: Backend> {
    weight: Tensor<B, 4>,
    bias: Tensor<B, 1>,
    kind: ConvKind,
}

impl<B: Backend> Conv2d<B> {
    /// Loads `{name}.weight` and `{name}.bias`.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub fn load(
        weights: &mut Weights<B>,
        name: &str,
        [c_in, c_out]: [usize; 2],
        kind: ConvKind,
    ) -> Result<Self, WeightsError> {
        let edge = if kind == ConvKind::Point { 1 } else { 3 };
        let weight = weights.take(&format!("{name}.weight"), [c_out, c_in, edge, edge])?;
        let bias = weights.take(&format!("{name}.bias"), [c_out])?;
        Ok(Self { weight, bias, kind })
    }

    /// Applies the convolution.
    ///
    /// # Shapes
    /// - x: `[batch, in, height, width]`
    /// - output: `[batch, out, height, width]`, or half the height and width for [`ConvKind::Down`]
    pub fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let (x, stride, padding) = match self.kind {
            ConvKind::Same => (x, 1, 1),
            ConvKind::Down => (pad_down(x), 2, 0),
            ConvKind::Point => (x, 1, 0),
        };
        let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
        conv2d(x, self.weight.clone(), Some(self.bias.clone()), options)
    }
}

/// Puts zeros below and to the right. By way of F32, which changes no value: the CPU backend pads
/// with zeros of its own type, and does not write those into BF16.
fn pad_down<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    let dtype = x.dtype();
    x.cast(DType::F32).pad([(0, 1), (0, 1)], PadMode::Constant(0.0)).cast(dtype)
}

/// Layer norm without weights over the last axis, in f32, cast back.
///
/// # Shapes
/// - x, output: `[batch, tokens, dim]`
pub fn layer_norm<B: Backend>(x: Tensor<B, 3>, eps: f64) -> Tensor<B, 3> {
    let dtype = x.dtype();
    let x = x.cast(DType::F32);
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    (centred / (variance + eps).sqrt()).cast(dtype)
}
