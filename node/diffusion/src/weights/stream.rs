//! The one pass over the files of a component.
//!
//! Owns the order of reading: file by file, each from its begin to its end. Every byte meets its
//! digest and whoever watches at the moment in which it is read; what a tensor needs of it is
//! widened at the same time.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use half::bf16;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::files::{Files, Shard};
use super::{LoadProgress, Precision, Weights, WeightsError};
use crate::lora::Lora;

/// Values that are widened at a time; a multiple of every block of a quantised type.
const PIECE_VALUES: usize = 1 << 22;
/// Bytes that are read at a time where no tensor is made of them.
const PIECE_BYTES: usize = 16 << 20;

/// Who sees the bytes of files: the file, and a piece of it.
pub type Watching<'a, 'b> = &'a mut (dyn FnMut(&Path, &[u8]) + Send + 'b);

/// Who hears of a load while it goes on.
pub struct Watch<'a> {
    /// Hears how far it has come, after each piece.
    pub progress: &'a mut dyn FnMut(LoadProgress),
    /// Sees every byte of every file of weights, in order, file by file.
    pub bytes: Option<Watching<'a, 'a>>,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedFile {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of all of it, as `sha256sum` and the places that offer checkpoints tell it.
    pub sha256: [u8; 32],
}

/// A tensor, or a part of one that is stored fused.
struct Segment {
    name: String,
    shape: Vec<usize>,
    first: usize,
    scale: f32,
}

impl<B: Backend> Weights<B> {
    /// Reads all files once and sends what was expected to the device.
    ///
    /// A LoRA is added to each tensor that it names before the tensor goes there.
    ///
    /// # Errors
    /// A value is no finite number, or the LoRA does not fit.
    pub fn stream(
        &mut self,
        watch: &mut Watch,
        mut lora: Option<&mut Lora>,
    ) -> Result<Vec<LoadedFile>, WeightsError> {
        let Some(files) = self.files.take() else { return Ok(Vec::new()) };
        let mut segments = self.segments(&files);
        let mut progress = LoadProgress {
            component: self.component,
            tensors_total: segments.iter().map(Vec::len).sum(),
            bytes_total: files.shards.iter().map(|shard| shard.bytes().len() as u64).sum(),
            ..LoadProgress::default()
        };
        let mut loaded = Vec::new();
        let begun = Instant::now();
        for (number, shard) in files.shards.iter().enumerate() {
            let mut pass = Pass { shard, at: 0, sha256: Sha256::new(), watch, progress, begun };
            for (at, stored) in files.stored.iter().enumerate().filter(|(_, s)| s.shard == number) {
                for segment in std::mem::take(&mut segments[at]) {
                    let tensor = self.read(&mut pass, stored, &segment, lora.as_deref_mut())?;
                    self.loaded.insert(segment.name, tensor);
                    pass.progress.tensors += 1;
                    pass.tell();
                }
            }
            pass.pass_to(shard.bytes().len());
            progress = pass.progress;
            loaded.push(LoadedFile {
                path: shard.path.clone(),
                bytes: shard.bytes().len() as u64,
                sha256: pass.sha256.finalize().into(),
            });
        }
        self.files = Some(files);
        Ok(loaded)
    }

    /// What each stored tensor is used for, in the order in which it lies there.
    fn segments(&self, files: &Files) -> Vec<Vec<Segment>> {
        let mut segments: Vec<Vec<Segment>> = files.stored.iter().map(|_| Vec::new()).collect();
        for wanted in self.layout.iter().filter(|wanted| wanted.is_used) {
            let Some(entry) = self.entries.get(&wanted.name) else { continue };
            segments[entry.stored].push(Segment {
                name: wanted.name.clone(),
                shape: entry.shape.clone(),
                first: entry.first,
                scale: entry.scale,
            });
        }
        for parts in &mut segments {
            parts.sort_by_key(|segment| segment.first);
        }
        segments
    }

    fn read(
        &self,
        pass: &mut Pass,
        stored: &super::Stored,
        segment: &Segment,
        lora: Option<&mut Lora>,
    ) -> Result<Tensor<B, 1>, WeightsError> {
        let count: usize = segment.shape.iter().product();
        let lora = lora.filter(|lora| lora.changes(&segment.name));
        let narrow_at_once = self.precision == Precision::Bf16 && lora.is_none();
        let mut wide = vec![0.0; if narrow_at_once { count.min(PIECE_VALUES) } else { count }];
        let mut narrow: Vec<bf16> = Vec::new();
        if narrow_at_once {
            narrow.reserve_exact(count);
        }
        for start in (0..count).step_by(PIECE_VALUES) {
            let length = PIECE_VALUES.min(count - start);
            let place = if narrow_at_once { 0 } else { start };
            let out = &mut wide[place..place + length];
            let bad = pass.widen(stored, segment.first + start, segment.scale, out);
            if let Some(at) = bad {
                return Err(WeightsError::NotFinite {
                    component: self.component,
                    name: segment.name.clone(),
                    at: start + at,
                    got: out[at],
                });
            }
            if narrow_at_once {
                narrow.par_extend(out.par_iter().with_min_len(1 << 14).map(|v| bf16::from_f32(*v)));
            }
        }
        if let Some(lora) = lora {
            lora.add_to(&segment.name, &mut wide, &segment.shape)
                .map_err(|reason| WeightsError::Lora { name: segment.name.clone(), reason })?;
        }
        let data = match self.precision {
            Precision::F32 => TensorData::new(wide, [count]),
            Precision::Bf16 if narrow_at_once => TensorData::new(narrow, [count]),
            Precision::Bf16 => {
                let narrow: Vec<bf16> = wide.par_iter().map(|v| bf16::from_f32(*v)).collect();
                TensorData::new(narrow, [count])
            }
        };
        Ok(Tensor::from_data(data, (&self.device, self.precision.dtype())))
    }
}

/// The way through one file.
struct Pass<'a, 'b> {
    shard: &'a Shard,
    /// Everything before it has been read.
    at: usize,
    sha256: Sha256,
    watch: &'a mut Watch<'b>,
    progress: LoadProgress,
    begun: Instant,
}

impl Pass<'_, '_> {
    /// Widens values of a stored tensor; tells the first that is not finite.
    fn widen(
        &mut self,
        stored: &super::Stored,
        first: usize,
        scale: f32,
        out: &mut [f32],
    ) -> Option<usize> {
        let (values, size) = stored.encoding.block().expect("expect() refused other types");
        let start = stored.bytes.start + first / values * size;
        let end = start + out.len() / values * size;
        self.pass_to(start);
        let bytes = &self.shard.bytes()[start..end];
        let (sha256, watching) = (&mut self.sha256, self.watch.bytes.as_deref_mut());
        let (_, bad) = rayon::join(
            || see(sha256, watching, &self.shard.path, bytes),
            || {
                stored.encoding.widen(bytes, scale, out);
                out.par_iter().with_min_len(1 << 14).position_first(|value| !value.is_finite())
            },
        );
        self.read_up_to(start..end);
        bad
    }

    /// Reads on to a place without making anything of what lies before it.
    fn pass_to(&mut self, place: usize) {
        while self.at < place {
            let range = self.at..place.min(self.at + PIECE_BYTES);
            let (bytes, watching) = (&self.shard.bytes()[range.clone()], &mut self.watch.bytes);
            see(&mut self.sha256, watching.as_deref_mut(), &self.shard.path, bytes);
            self.read_up_to(range);
        }
    }

    fn read_up_to(&mut self, range: Range<usize>) {
        self.at = range.end;
        self.progress.bytes += range.len() as u64;
        self.shard.release(range);
        self.tell();
    }

    fn tell(&mut self) {
        self.progress.elapsed = self.begun.elapsed();
        (self.watch.progress)(self.progress);
    }
}

fn see(sha256: &mut Sha256, watching: Option<Watching>, path: &Path, bytes: &[u8]) {
    sha256.update(bytes);
    if let Some(watching) = watching {
        watching(path, bytes);
    }
}
