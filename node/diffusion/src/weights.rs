//! Weights on disk, as tensors on a device.
//!
//! Owns the reading of checkpoints. It must not know what a tensor means; the components ask for
//! what they need by the reference's names and shapes.
//!
//! ```text
//! open ── headers ──▶ expect ── names and shapes judged ──▶ stream ── file by file ──▶ take
//!  files, names         against the walk over `imagined`       read once: digest, widen,
//!                                                              add the LoRA, narrow, to the device
//! ```
//!
//! Each file is mapped and read once, from its begin to its end. A tensor is widened, cast and sent
//! to the device on its own, and the pages behind it are given back: beside the model the host
//! holds no more than one tensor in the device's type. Tensors keep the order of the file, `[out,
//! in]`; [`crate::layers::Linear`] turns them by a view, so nothing is shuffled in memory.
//!
//! Everything is judged before a tensor is made: burn's own record loading panics on a wrong shape,
//! and inside a module visitor such a panic ends the process. For the same reason a component is
//! built by a plain walk over [`Weights::take`] and not by burn's records. The same walk over
//! [`Weights::imagined`] lists every name and shape of a configuration without allocating one.

mod encoding;
mod files;
mod gguf;
mod names;
mod stream;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

use files::{Files, Stored};
use names::Dialect;

pub use stream::{LoadedFile, Watch, Watching};

/// Why weights were refused.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file is not there or cannot be read.
    #[error("cannot read {path}: {source}; copy the file from the checkpoint again")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder holds no weights, or several files and no index that tells them apart.
    #[error(
        "{folder} holds {found} safetensors files and no {index}; expected an index or exactly one file, safetensors or GGUF"
    )]
    NoIndex {
        /// The folder.
        folder: PathBuf,
        /// The index that was looked for.
        index: String,
        /// Files that end in `.safetensors`.
        found: usize,
    },
    /// The index of the shards is broken.
    #[error("cannot understand {path}: {reason}; copy the file from the checkpoint again")]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A file is of no container that is known.
    #[error("{path} is no valid {format} file: {reason}; copy the file from the checkpoint again")]
    Header {
        /// The file.
        path: PathBuf,
        /// `safetensors` or `GGUF`.
        format: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// A file is shorter or longer than its header says.
    #[error(
        "{path} has {got} bytes, expected {expected} by its header; it was cut off or damaged, copy it again"
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that the header accounts for.
        expected: usize,
        /// Bytes that are there.
        got: usize,
    },
    /// A tensor that the configuration needs is not in the files.
    #[error(
        "{component} lacks the tensor {name} of shape {expected:?}; weights and config.json do not belong together"
    )]
    Missing {
        /// The component.
        component: &'static str,
        /// The tensor.
        name: String,
        /// The shape that it should have.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the configuration gives it.
    #[error(
        "tensor {name} of {component} has shape {got:?}, expected {expected:?}; weights and config.json do not belong together"
    )]
    Shape {
        /// The component.
        component: &'static str,
        /// The tensor.
        name: String,
        /// The shape that the configuration gives it.
        expected: Vec<usize>,
        /// The shape in the file.
        got: Vec<usize>,
    },
    /// A tensor is of a type that is not supported.
    #[error(
        "tensor {name} of {component} has type {got}, expected F32, BF16 or F16, or F8_E4M3, F8_E5M2, Q8_0 or Q4_0 to be widened; convert the checkpoint"
    )]
    Type {
        /// The component.
        component: &'static str,
        /// The tensor.
        name: String,
        /// The type in the file.
        got: String,
    },
    /// A tensor holds a value that is no finite number.
    #[error(
        "tensor {name} of {component} holds {got} at element {at}, expected finite numbers; the file is damaged, copy it again"
    )]
    NotFinite {
        /// The component.
        component: &'static str,
        /// The tensor.
        name: String,
        /// Where, counted in the order of the file.
        at: usize,
        /// The value.
        got: f32,
    },
    /// A LoRA does not fit a tensor.
    #[error("cannot apply the LoRA to {name}: {reason}; it was made for another model")]
    Lora {
        /// The tensor.
        name: String,
        /// What does not fit.
        reason: String,
    },
}

/// In what the components compute.
///
/// F16 is not offered: activations of this model pass its range, and the picture turns black.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits; what the parity tolerances are stated for.
    F32,
    /// The upper 16 bits of an f32; the checkpoint's own precision, for devices that are fast in
    /// it.
    Bf16,
}

impl Precision {
    /// The type of weights and activations.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Bytes of one value.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(format!("precision is {other}, expected f32 or bf16")),
        }
    }
}

/// How far loading has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadProgress {
    /// The component that is being loaded: `text_encoder`, `transformer` or `vae`.
    pub component: &'static str,
    /// Tensors of it that have been loaded.
    pub tensors: usize,
    /// Tensors of it that will be.
    pub tensors_total: usize,
    /// Bytes of its files that have been read.
    pub bytes: u64,
    /// Bytes of its files.
    pub bytes_total: u64,
    /// Since its first byte was read.
    pub elapsed: Duration,
}

impl LoadProgress {
    /// The rate so far; 0 before any time has passed.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.bytes as f64 / seconds } else { 0.0 }
    }
}

/// A tensor that a component needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The reference's name.
    pub name: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Whether it is computed with; the text encoder's last layer is only looked at.
    pub is_used: bool,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Entry {
    /// In [`Files::stored`].
    stored: usize,
    shape: Vec<usize>,
    /// The first value of it there; not 0 in what other programs store fused.
    first: usize,
    /// What FP8 files divide their values by.
    scale: f32,
}

/// The tensors of one component, handed out by name.
#[derive(Debug)]
pub struct Weights<B: Backend> {
    component: &'static str,
    device: B::Device,
    precision: Precision,
    /// `None`: the weights are imagined.
    files: Option<Files>,
    entries: BTreeMap<String, Entry>,
    loaded: HashMap<String, Tensor<B, 1>>,
    layout: Vec<Wanted>,
}

impl<B: Backend> Weights<B> {
    /// Maps the files of one component and reads their headers.
    ///
    /// `stem` is what the files are called before `.safetensors`: `diffusion_pytorch_model` or
    /// `model`. Without such files the only safetensors or GGUF file of the folder is taken.
    ///
    /// # Errors
    /// A file that is missing, cut off or of no known container; no tensor has been read yet.
    pub fn open(
        folder: &Path,
        component: &'static str,
        stem: &str,
        device: &B::Device,
        precision: Precision,
    ) -> Result<Self, WeightsError> {
        let files = Files::open(folder, stem)?;
        let mut weights = Self::imagined(component, device);
        weights.precision = precision;
        weights.entries = entries(component, &files);
        weights.files = Some(files);
        Ok(weights)
    }

    /// Weights that are only names and shapes: whatever is asked for is there and is empty.
    #[must_use]
    pub fn imagined(component: &'static str, device: &B::Device) -> Self {
        Self {
            component,
            device: device.clone(),
            precision: Precision::F32,
            files: None,
            entries: BTreeMap::new(),
            loaded: HashMap::new(),
            layout: Vec::new(),
        }
    }

    /// The device that the tensors go to.
    #[must_use]
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// In what the component computes.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Every tensor asked for so far, in order.
    #[must_use]
    pub fn layout(&self) -> &[Wanted] {
        &self.layout
    }

    /// Judges the files against what a component will ask for.
    ///
    /// # Errors
    /// A tensor that is computed with is missing, or one that is there has another shape or a type
    /// that cannot be read. Nothing has been read yet.
    pub fn expect(&mut self, wanted: &[Wanted]) -> Result<(), WeightsError> {
        let Some(files) = &self.files else { return Ok(()) };
        let component = self.component;
        for Wanted { name, shape, is_used } in wanted {
            let Some(entry) = self.entries.get(name) else {
                if !is_used {
                    continue;
                }
                let (name, expected) = (name.clone(), shape.clone());
                return Err(WeightsError::Missing { component, name, expected });
            };
            if entry.shape != *shape {
                let (name, expected) = (name.clone(), shape.clone());
                let got = entry.shape.clone();
                return Err(WeightsError::Shape { component, name, expected, got });
            }
            let encoding = &files.stored[entry.stored].encoding;
            let count: usize = shape.iter().product();
            let whole =
                |(values, _)| entry.first.is_multiple_of(values) && count.is_multiple_of(values);
            if *is_used && !encoding.block().is_some_and(whole) {
                let (name, got) = (name.clone(), encoding.to_string());
                return Err(WeightsError::Type { component, name, got });
            }
        }
        self.layout = wanted.to_vec();
        Ok(())
    }

    /// Names in the files, as the reference would call them, that [`Self::expect`] knew nothing of.
    #[must_use]
    pub fn unknown(&self) -> Vec<&str> {
        let known: BTreeSet<&str> = self.layout.iter().map(|wanted| wanted.name.as_str()).collect();
        self.entries.keys().map(String::as_str).filter(|name| !known.contains(name)).collect()
    }

    /// Hands out one tensor, once.
    ///
    /// # Shapes
    /// - output: `shape`, as in the file; `[0; D]` when the weights are imagined.
    ///
    /// # Errors
    /// The tensor was not among those that [`Self::expect`] judged and [`Self::stream`] read, or
    /// was handed out before.
    pub fn take<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Tensor<B, D>, WeightsError> {
        if self.files.is_none() {
            let wanted = Wanted { name: name.to_owned(), shape: shape.to_vec(), is_used: true };
            self.layout.push(wanted);
            return Ok(Tensor::empty([0; D], (&self.device, self.precision.dtype())));
        }
        let missing = || WeightsError::Missing {
            component: self.component,
            name: name.to_owned(),
            expected: shape.to_vec(),
        };
        let tensor = self.loaded.remove(name).ok_or_else(missing)?;
        Ok(tensor.reshape(shape))
    }

    /// Accepts a tensor that the checkpoint has and the computation never needs.
    pub fn pass_over(&mut self, name: &str, shape: &[usize]) {
        if self.files.is_none() {
            let wanted = Wanted { name: name.to_owned(), shape: shape.to_vec(), is_used: false };
            self.layout.push(wanted);
        }
    }
}

/// Where each tensor lies, by the reference's name.
fn entries(component: &'static str, files: &Files) -> BTreeMap<String, Entry> {
    let dialect = Dialect::new(component, files.stored.iter().map(|stored| stored.name.as_str()));
    let scales = scales(files);
    let mut entries = BTreeMap::new();
    for (at, stored) in files.stored.iter().enumerate() {
        if is_about_another(&stored.name) {
            continue;
        }
        let scale = scales.get(stored.name.as_str()).copied().unwrap_or(1.0);
        let names = dialect.meaning(&stored.name);
        let parts = names.len();
        for (part, name) in names.into_iter().enumerate() {
            let shape = part_shape(stored, parts, &name);
            let first = part * shape.iter().product::<usize>();
            // A tensor under its own name outranks one that another program calls so.
            if stored.name == name || !entries.contains_key(&name) {
                entries.insert(name, Entry { stored: at, shape, first, scale });
            }
        }
    }
    entries
}

/// The shape of one of several parts along the first axis, as the reference has it.
fn part_shape(stored: &Stored, parts: usize, name: &str) -> Vec<usize> {
    let mut shape = stored.shape.clone();
    if parts > 1 && shape.first().is_some_and(|rows| rows % parts == 0) {
        shape[0] /= parts;
    }
    // The original autoencoder attends by convolutions of one pixel.
    if name.contains(".attentions.") && shape.len() == 4 && shape[2..] == [1, 1] {
        shape.truncate(2);
    }
    if name.ends_with("_pad_token") && shape.len() == 1 {
        shape.insert(0, 1);
    }
    shape
}

/// What is stored beside a tensor and tells of it.
const SCALES: [&str; 2] = [".scale_weight", ".weight_scale"];
const NOTES: [&str; 4] = [".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8"];

fn is_about_another(name: &str) -> bool {
    SCALES.iter().chain(&NOTES).any(|suffix| name.ends_with(suffix))
}

/// What to multiply FP8 weights by, by the name of the weight.
fn scales(files: &Files) -> HashMap<String, f32> {
    let scale = |stored: &Stored| {
        let stem = SCALES.iter().find_map(|suffix| stored.name.strip_suffix(suffix))?;
        // A scale for each row is of another scheme; its weight then shows as not finite.
        let value = files.scalar(stored).unwrap_or(f32::NAN);
        Some((format!("{stem}.weight"), value))
    };
    files.stored.iter().filter_map(scale).collect()
}
