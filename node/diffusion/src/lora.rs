//! Low-rank changes to the transformer's weights.
//!
//! Owns the reading of LoRA files and their dialects of key names. A LoRA is added to each weight
//! while it is loaded, so the components never hear of it:
//!
//! `W' = W + strength · factor · up · down`, where factor is `alpha / rank`, or 1 without an alpha.
//!
//! The classic failure is silent: no key matches and nothing changes. [`Lora::unused`] tells what
//! was not applied, and the loader refuses a LoRA of which nothing was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};

use half::{bf16, f16};

/// Why a LoRA was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoraError {
    /// The file cannot be read.
    #[error("cannot read the LoRA: {0}; check the path")]
    Read(#[from] std::io::Error),
    /// The file is no safetensors file.
    #[error("the LoRA is no valid safetensors file: {0}; download it again")]
    Format(#[from] safetensors::SafeTensorError),
    /// A key is of a kind that is not supported.
    #[error(
        "the LoRA has the key {0}, expected lora_A and lora_B or lora_down and lora_up; convert it"
    )]
    Key(String),
    /// A pair of matrices does not fit together.
    #[error("the LoRA's matrices for {path} do not fit together: {reason}; download it again")]
    Pair {
        /// The path of the weight, with underscores.
        path: String,
        /// What does not fit.
        reason: String,
    },
}

/// One pair of matrices.
#[derive(Debug, Default, Clone)]
struct Delta {
    /// `[rank, in]`
    down: Vec<f32>,
    down_shape: Vec<usize>,
    /// `[out, rank]`
    up: Vec<f32>,
    up_shape: Vec<usize>,
    alpha: Option<f32>,
    /// The type that down has in the file.
    dtype: Option<Dtype>,
}

impl Delta {
    /// Multiplies down by `alpha / rank`, rounded to the type that the file has it in.
    ///
    /// The rounding is the reference's: diffusers converts such files by scaling the stored matrix,
    /// and where the factor is no power of two the difference passes the parity tolerance a
    /// hundredfold.
    fn scale_by_alpha(&mut self) {
        let Some(alpha) = self.alpha else { return };
        let factor = (f64::from(alpha) / self.up_shape[1] as f64) as f32;
        for value in &mut self.down {
            *value = match self.dtype {
                Some(Dtype::BF16) => bf16::from_f32(*value * factor).to_f32(),
                Some(Dtype::F16) => f16::from_f32(*value * factor).to_f32(),
                _ => *value * factor,
            };
        }
    }
}

/// A LoRA that is waiting for the weights it changes.
#[derive(Debug)]
pub struct Lora {
    /// By the path of the weight with every dot made an underscore, which all dialects agree on.
    deltas: BTreeMap<String, Delta>,
    strength: f32,
    applied: BTreeSet<String>,
}

impl Lora {
    /// Reads a LoRA file.
    ///
    /// # Errors
    /// The file is missing, broken, or of a kind that is not supported (LoKr, LoHa, DoRA).
    pub fn read(path: &Path, strength: f32) -> Result<Self, LoraError> {
        let bytes = std::fs::read(path)?;
        let file = SafeTensors::deserialize(&bytes)?;
        let mut deltas: BTreeMap<String, Delta> = BTreeMap::new();
        for (key, view) in file.tensors() {
            let (path, part) = split_key(&key).ok_or_else(|| LoraError::Key(key.clone()))?;
            let values =
                floats(view.dtype(), view.data()).ok_or_else(|| LoraError::Key(key.clone()))?;
            let delta = deltas.entry(path).or_default();
            let shape = view.shape().to_vec();
            match part {
                Part::Down => {
                    (delta.down, delta.down_shape, delta.dtype) =
                        (values, shape, Some(view.dtype()));
                }
                Part::Up => (delta.up, delta.up_shape) = (values, shape),
                Part::Alpha => delta.alpha = values.first().copied(),
            }
        }
        for (path, delta) in &mut deltas {
            check_pair(path, delta)?;
            delta.scale_by_alpha();
        }
        Ok(Self { deltas: split_fused(deltas), strength, applied: BTreeSet::new() })
    }

    /// Paths of the file that no weight has been found for.
    #[must_use]
    pub fn unused(&self) -> Vec<&str> {
        let paths = self.deltas.keys().filter(|path| !self.applied.contains(*path));
        paths.map(String::as_str).collect()
    }

    /// How many weights have been changed.
    #[must_use]
    pub fn applied(&self) -> usize {
        self.applied.len()
    }

    /// Whether it has a change of the weight called `name`.
    pub(crate) fn changes(&self, name: &str) -> bool {
        name.strip_suffix(".weight")
            .is_some_and(|path| self.deltas.contains_key(&path.replace('.', "_")))
    }

    /// Adds the change of the weight called `name`, if there is one.
    ///
    /// # Errors
    /// The matrices do not have the weight's shape; the text says how.
    pub(crate) fn add_to(
        &mut self,
        name: &str,
        values: &mut [f32],
        shape: &[usize],
    ) -> Result<(), String> {
        let Some(path) = name.strip_suffix(".weight").map(|path| path.replace('.', "_")) else {
            return Ok(());
        };
        let Some(delta) = self.deltas.get(&path) else { return Ok(()) };
        let [out, rank] = [delta.up_shape[0], delta.up_shape[1]];
        let inner = delta.down_shape[1];
        if shape != [out, inner] {
            return Err(format!(
                "the weight has shape {shape:?}, the LoRA gives {:?}",
                [out, inner]
            ));
        }
        let strength = self.strength;
        values.par_chunks_mut(inner).zip(delta.up.par_chunks(rank)).for_each(|(row, up)| {
            for (&u, down) in up.iter().zip(delta.down.chunks(inner)) {
                for (w, &d) in row.iter_mut().zip(down) {
                    *w += strength * u * d;
                }
            }
        });
        self.applied.insert(path);
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Down,
    Up,
    Alpha,
}

/// Splits a key of any dialect into the weight's path, with underscores, and the matrix.
///
/// `transformer.layers.0.attention.to_q.lora_A.weight`, `diffusion_model.….lora_B.weight`,
/// `lora_unet_layers_0_attention_to_q.lora_down.weight`, `….lora.up.weight`,
/// `….lora_A.default.weight`
fn split_key(key: &str) -> Option<(String, Part)> {
    let key = key.replace(".default.", ".").replace(".lora.", ".lora_");
    let suffixes = [
        (".lora_A.weight", Part::Down),
        (".lora_down.weight", Part::Down),
        (".lora_B.weight", Part::Up),
        (".lora_up.weight", Part::Up),
        (".alpha", Part::Alpha),
    ];
    let (path, part) =
        suffixes.iter().find_map(|&(suffix, part)| Some((key.strip_suffix(suffix)?, part)))?;
    let prefixes = ["base_model.model.", "transformer.", "diffusion_model.", "lora_unet_"];
    let path = prefixes.iter().fold(path, |path, prefix| path.strip_prefix(prefix).unwrap_or(path));
    let mut path = path.replace('.', "_");
    if path.ends_with("_attention_out") {
        path = path.replace("_attention_out", "_attention_to_out_0");
    }
    Some((path, part))
}

fn check_pair(path: &str, delta: &Delta) -> Result<(), LoraError> {
    let reason = match (&delta.down_shape[..], &delta.up_shape[..]) {
        ([rank, inner], [_, up_rank]) if rank == up_rank && *rank > 0 && *inner > 0 => {
            return Ok(());
        }
        ([], _) | (_, []) => "one of the two is missing".to_owned(),
        (down, up) => format!("down has shape {down:?}, up has shape {up:?}"),
    };
    Err(LoraError::Pair { path: path.to_owned(), reason })
}

/// Splits changes to a fused `attention.qkv`: the rows of up are those of q, k and v; down is
/// shared.
fn split_fused(deltas: BTreeMap<String, Delta>) -> BTreeMap<String, Delta> {
    let mut split = BTreeMap::new();
    for (path, delta) in deltas {
        let Some(stem) = path.strip_suffix("_qkv").filter(|_| delta.up_shape[0] % 3 == 0) else {
            split.insert(path, delta);
            continue;
        };
        let third = delta.up.len() / 3;
        for (i, part) in ["to_q", "to_k", "to_v"].iter().enumerate() {
            let up = delta.up[i * third..(i + 1) * third].to_vec();
            let up_shape = vec![delta.up_shape[0] / 3, delta.up_shape[1]];
            split.insert(format!("{stem}_{part}"), Delta { up, up_shape, ..delta.clone() });
        }
    }
    split
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let four = |c: &[u8]| f32::from_le_bytes(c.try_into().expect("chunks of four"));
    let two = |c: &[u8]| <[u8; 2]>::try_from(c).expect("chunks of two");
    match dtype {
        Dtype::F32 => Some(bytes.chunks_exact(4).map(four).collect()),
        Dtype::BF16 => {
            Some(bytes.chunks_exact(2).map(|c| bf16::from_le_bytes(two(c)).to_f32()).collect())
        }
        Dtype::F16 => {
            Some(bytes.chunks_exact(2).map(|c| f16::from_le_bytes(two(c)).to_f32()).collect())
        }
        _ => None,
    }
}
