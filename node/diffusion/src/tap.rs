//! A window on values in the middle of a computation.
//!
//! Owns nothing but the way to look. The parity check opens a tap to compare each stage with the
//! reference's; the product runs with the tap closed, which costs one test of a pointer.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

/// What a tap shows: a name, the shape and the values as f32.
type Look<'a> = dyn FnMut(&str, Vec<usize>, Vec<f32>) + 'a;

/// A window that may be open.
pub struct Tap<'a> {
    look: Option<&'a mut Look<'a>>,
}

impl<'a> Tap<'a> {
    /// Shows nothing.
    #[must_use]
    pub fn closed() -> Self {
        Self { look: None }
    }

    /// Shows every named value to `look`.
    pub fn open(look: &'a mut Look<'a>) -> Self {
        Self { look: Some(look) }
    }

    /// Whether somebody looks.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.look.is_some()
    }

    /// Shows one value; `name` and the copy are made only when the tap is open.
    pub fn see<B: Backend, const D: usize>(
        &mut self,
        name: impl FnOnce() -> String,
        tensor: &Tensor<B, D>,
    ) {
        if let Some(look) = &mut self.look {
            look(&name(), tensor.dims().to_vec(), values(tensor.clone()));
        }
    }
}

/// Copies a tensor to the host as f32.
///
/// # Panics
/// When the device fails; the engine process then ends and its supervisor starts another.
#[must_use]
pub fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    let data = tensor.cast(DType::F32).into_data();
    data.into_vec().expect("the cast made the values f32")
}
