//! Weights on disk, as tensors on a device.
//!
//! Owns the reading of safetensors, single or sharded: each shard is mapped, each tensor is read,
//! cast and sent to the device on its own, so that the host never holds more than one. It must not
//! know what a tensor means; the components ask for what they need by the reference's names and
//! shapes.
//!
//! Everything is judged before a tensor is made: burn's own record loading panics on a wrong shape,
//! and inside a module visitor such a panic ends the process. For the same reason a component is
//! built by a plain walk over [`Weights::take`] and not by burn's records. The same walk over
//! [`Weights::imagined`] lists every name and shape of a configuration without allocating one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::lora::Lora;

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
        "{folder} holds {found} safetensors files and no {index}; expected an index or exactly one file"
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
    /// A file is no safetensors file.
    #[error(
        "{path} is no valid safetensors file: {reason}; copy the file from the checkpoint again"
    )]
    Header {
        /// The file.
        path: PathBuf,
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
        "tensor {name} of {component} has type {got}, expected F32, BF16 or F16; convert the checkpoint"
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
}

/// How far loading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// The component that is being loaded: `text_encoder`, `transformer` or `vae`.
    pub component: &'static str,
    /// Tensors of it that have been loaded.
    pub tensors: usize,
    /// Tensors in its files.
    pub tensors_total: usize,
    /// Bytes of it that have been read.
    pub bytes: u64,
    /// Bytes of its tensors in the files.
    pub bytes_total: u64,
}

struct Shard {
    map: Mmap,
    /// Where the tensors begin, after the header.
    body: usize,
}

struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    offsets: (usize, usize),
}

/// The tensors of one component, handed out by name.
pub struct Weights<'a, B: Backend> {
    component: &'static str,
    device: B::Device,
    precision: Precision,
    shards: Vec<Shard>,
    /// `None`: the weights are imagined.
    entries: Option<BTreeMap<String, Entry>>,
    /// What an absent prefix of all names is replaced by; see [`Weights::with_optional_prefix`].
    optional_prefix: Option<&'static str>,
    lora: Option<&'a mut Lora>,
    progress: Option<&'a mut dyn FnMut(LoadProgress)>,
    done: LoadProgress,
    asked: BTreeSet<String>,
    layout: Vec<(String, Vec<usize>)>,
}

impl<'a, B: Backend> Weights<'a, B> {
    /// Maps the files of one component and reads their headers.
    ///
    /// `stem` is what the files are called before `.safetensors`: `diffusion_pytorch_model` or
    /// `model`.
    ///
    /// # Errors
    /// A file that is missing, cut off or no safetensors; no tensor has been read yet.
    pub fn open(
        folder: &Path,
        component: &'static str,
        stem: &str,
        device: &B::Device,
        precision: Precision,
    ) -> Result<Self, WeightsError> {
        let mut weights = Self::imagined(component, device);
        let mut entries = BTreeMap::new();
        for (path, listed) in shard_files(folder, stem)? {
            weights.map_shard(path, listed.as_ref(), &mut entries)?;
        }
        weights.precision = precision;
        weights.done.tensors_total = entries.len();
        weights.done.bytes_total =
            entries.values().map(|e| (e.offsets.1 - e.offsets.0) as u64).sum();
        weights.entries = Some(entries);
        Ok(weights)
    }

    /// Weights that are only names and shapes: whatever is asked for is there and is empty.
    #[must_use]
    pub fn imagined(component: &'static str, device: &B::Device) -> Self {
        Self {
            component,
            device: device.clone(),
            precision: Precision::F32,
            shards: Vec::new(),
            entries: None,
            optional_prefix: None,
            lora: None,
            progress: None,
            done: LoadProgress {
                component,
                tensors: 0,
                tensors_total: 0,
                bytes: 0,
                bytes_total: 0,
            },
            asked: BTreeSet::new(),
            layout: Vec::new(),
        }
    }

    /// Reports each tensor to `progress`, and adds a LoRA to each tensor that it names before the
    /// tensor goes to the device.
    pub fn observed<'b>(
        self,
        progress: &'b mut dyn FnMut(LoadProgress),
        lora: Option<&'b mut Lora>,
    ) -> Weights<'b, B> {
        Weights { progress: Some(progress), lora, ..self }
    }

    /// Accepts files whose names lack `prefix`, which the components always ask for.
    #[must_use]
    pub fn with_optional_prefix(mut self, prefix: &'static str) -> Self {
        let prefixed =
            |names: &BTreeMap<String, Entry>| names.keys().any(|n| n.starts_with(prefix));
        if self.entries.as_ref().is_some_and(|names| !prefixed(names)) {
            self.optional_prefix = Some(prefix);
        }
        self
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

    /// Every name asked for so far, in order, with its shape.
    #[must_use]
    pub fn layout(&self) -> &[(String, Vec<usize>)] {
        &self.layout
    }

    /// Hands out one tensor.
    ///
    /// # Shapes
    /// - output: `shape`, as in the file; `[0; D]` when the weights are imagined.
    ///
    /// # Errors
    /// The tensor is missing, of another shape or type, or not finite.
    pub fn take<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Tensor<B, D>, WeightsError> {
        self.layout.push((name.to_owned(), shape.to_vec()));
        let dtype = self.precision.dtype();
        if self.entries.is_none() {
            return Ok(Tensor::empty([0; D], (&self.device, dtype)));
        }
        let mut values = self.read(name, &shape)?;
        if let Some(lora) = self.lora.as_deref_mut() {
            lora.add_to(name, &mut values, &shape)
                .map_err(|reason| WeightsError::Lora { name: name.to_owned(), reason })?;
        }
        let data = match self.precision {
            Precision::F32 => TensorData::new(values, shape),
            Precision::Bf16 => {
                let narrow: Vec<bf16> = values.par_iter().map(|v| bf16::from_f32(*v)).collect();
                TensorData::new(narrow, shape)
            }
        };
        Ok(Tensor::from_data(data, (&self.device, dtype)))
    }

    /// Accepts a tensor that the checkpoint has and the computation never needs.
    ///
    /// # Errors
    /// The tensor is there with another shape.
    pub fn pass_over(&mut self, name: &str, shape: &[usize]) -> Result<(), WeightsError> {
        self.layout.push((name.to_owned(), shape.to_vec()));
        let key = self.key(name);
        self.asked.insert(key.clone());
        match self.entries.as_ref().and_then(|entries| entries.get(&key)) {
            Some(entry) => self.check_shape(name, shape, entry),
            None => Ok(()),
        }
    }

    /// Ends the walk; warns of tensors that nobody asked for.
    pub fn finish(self) {
        let Some(entries) = &self.entries else { return };
        let unknown: Vec<&String> = entries.keys().filter(|k| !self.asked.contains(*k)).collect();
        if let Some(first) = unknown.first() {
            tracing::warn!(
                component = self.component,
                count = unknown.len(),
                first = first.as_str(),
                "unknown tensors were left out"
            );
        }
    }

    /// The name in the files for the name that a component asks for.
    fn key(&self, name: &str) -> String {
        let stripped = self.optional_prefix.and_then(|prefix| name.strip_prefix(prefix));
        stripped.unwrap_or(name).to_owned()
    }

    fn check_shape(&self, name: &str, shape: &[usize], entry: &Entry) -> Result<(), WeightsError> {
        if entry.shape == shape {
            return Ok(());
        }
        Err(WeightsError::Shape {
            component: self.component,
            name: name.to_owned(),
            expected: shape.to_vec(),
            got: entry.shape.clone(),
        })
    }

    /// Reads one tensor as f32.
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let (component, key) = (self.component, self.key(name));
        let entries = self.entries.as_ref().expect("take() has handled imagined weights");
        let entry = entries.get(&key).ok_or_else(|| WeightsError::Missing {
            component,
            name: name.to_owned(),
            expected: shape.to_vec(),
        })?;
        self.check_shape(name, shape, entry)?;
        let shard = &self.shards[entry.shard];
        let bytes = &shard.map[shard.body + entry.offsets.0..shard.body + entry.offsets.1];
        let values = as_f32(entry.dtype, bytes).ok_or_else(|| WeightsError::Type {
            component,
            name: name.to_owned(),
            got: format!("{:?}", entry.dtype),
        })?;
        if let Some(at) = values.par_iter().position_first(|v| !v.is_finite()) {
            let (name, got) = (name.to_owned(), values[at]);
            return Err(WeightsError::NotFinite { component, name, at, got });
        }
        self.done.bytes += bytes.len() as u64;
        self.done.tensors += 1;
        self.asked.insert(key);
        if let Some(progress) = self.progress.as_deref_mut() {
            progress(self.done);
        }
        Ok(values)
    }

    /// Maps one shard; `listed` are the names that the index promises in it.
    fn map_shard(
        &mut self,
        path: PathBuf,
        listed: Option<&BTreeSet<String>>,
        entries: &mut BTreeMap<String, Entry>,
    ) -> Result<(), WeightsError> {
        let read = |source| WeightsError::Read { path: path.clone(), source };
        let file = File::open(&path).map_err(read)?;
        // SAFETY: the mapping is read-only and lives shorter than this load. Another process that
        // cuts the file off meanwhile could end ours with SIGBUS; the engine is a child process for
        // such reasons.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        let (length, metadata) =
            SafeTensors::read_metadata(&map).map_err(|error| refusal(&path, &map, &error))?;
        let (body, tensors) = (length + 8, metadata.tensors());
        let shard = self.shards.len();
        for (name, info) in tensors {
            if listed.is_none_or(|names| names.contains(&name)) {
                let (shape, offsets) = (info.shape.clone(), info.data_offsets);
                entries.insert(name, Entry { shard, dtype: info.dtype, shape, offsets });
            }
        }
        self.shards.push(Shard { map, body });
        Ok(())
    }
}

/// Tells a file that was cut off from one that never was safetensors.
fn refusal(path: &Path, map: &[u8], error: &SafeTensorError) -> WeightsError {
    let path = path.to_path_buf();
    let length = map.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let body = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(8);
    let expected = match error {
        SafeTensorError::MetadataIncompleteBuffer => {
            let header: Option<HashMap<String, serde_json::Value>> =
                map.get(8..body).and_then(|json| serde_json::from_slice(json).ok());
            let end = |t: &serde_json::Value| t["data_offsets"][1].as_u64();
            let ends = header.iter().flat_map(HashMap::values).filter_map(end);
            body.saturating_add(usize::try_from(ends.max().unwrap_or(0)).unwrap_or(usize::MAX))
        }
        SafeTensorError::InvalidHeaderLength if body < HEADER_BYTES_MAX => body,
        SafeTensorError::HeaderTooSmall => 8,
        _ => return WeightsError::Header { path, reason: error.to_string() },
    };
    WeightsError::Length { path, expected, got: map.len() }
}

/// What a header may have at most, as the format's own reader has it; more is not a length but
/// noise.
const HEADER_BYTES_MAX: usize = 100_000_000;

/// A file, and the tensor names that the index promises in it, if there is an index.
type ShardFile = (PathBuf, Option<BTreeSet<String>>);

/// The files of a component.
fn shard_files(folder: &Path, stem: &str) -> Result<Vec<ShardFile>, WeightsError> {
    let index = folder.join(format!("{stem}.safetensors.index.json"));
    match std::fs::read(&index) {
        Ok(text) => indexed_files(folder, index, &text),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(vec![(single_file(folder, stem)?, None)])
        }
        Err(source) => Err(WeightsError::Read { path: index, source }),
    }
}

fn indexed_files(
    folder: &Path,
    index: PathBuf,
    text: &[u8],
) -> Result<Vec<ShardFile>, WeightsError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let parsed: Index = serde_json::from_slice(text)
        .map_err(|e| WeightsError::Index { path: index.clone(), reason: e.to_string() })?;
    let mut shards: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in parsed.weight_map {
        // An index comes from outside: a shard lies beside it and nowhere else.
        if file.contains(['/', '\\']) || file == ".." {
            let reason =
                format!("the shard of {tensor} is called {file:?}, expected a plain file name");
            return Err(WeightsError::Index { path: index, reason });
        }
        shards.entry(folder.join(file)).or_default().insert(tensor);
    }
    Ok(shards.into_iter().map(|(path, names)| (path, Some(names))).collect())
}

/// `<stem>.safetensors`, or the only safetensors file of the folder.
fn single_file(folder: &Path, stem: &str) -> Result<PathBuf, WeightsError> {
    let usual = folder.join(format!("{stem}.safetensors"));
    if usual.exists() {
        return Ok(usual);
    }
    let read = |source| WeightsError::Read { path: folder.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            found.push(path);
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        found => Err(WeightsError::NoIndex {
            folder: folder.to_path_buf(),
            index: format!("{stem}.safetensors.index.json"),
            found,
        }),
    }
}

/// Widens the bytes of a tensor; `None` for a type that is not supported.
fn as_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    fn halves(bytes: &[u8], widen: impl Fn([u8; 2]) -> f32 + Sync) -> Vec<f32> {
        let pair = |c: &[u8]| widen(c.try_into().expect("chunks of two"));
        bytes.par_chunks_exact(2).with_min_len(1 << 16).map(pair).collect()
    }
    match dtype {
        Dtype::F32 => {
            let four = |c: &[u8]| f32::from_le_bytes(c.try_into().expect("chunks of four"));
            Some(bytes.par_chunks_exact(4).with_min_len(1 << 16).map(four).collect())
        }
        Dtype::BF16 => Some(halves(bytes, |b| bf16::from_le_bytes(b).to_f32())),
        Dtype::F16 => Some(halves(bytes, |b| f16::from_le_bytes(b).to_f32())),
        _ => None,
    }
}
