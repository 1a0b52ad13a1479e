//! The files of one component: which they are, mapped, with what their headers say.
//!
//! Owns the two containers, safetensors and GGUF. It must not know what a tensor means.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap, UncheckedAdvice};
use safetensors::{SafeTensorError, SafeTensors};

use super::WeightsError;
use super::encoding::Encoding;
use super::gguf;

/// One file.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    map: Mmap,
}

impl Shard {
    fn map(path: PathBuf) -> Result<Self, WeightsError> {
        let read = |source| WeightsError::Read { path: path.clone(), source };
        let file = File::open(&path).map_err(read)?;
        // SAFETY: the mapping is read-only and lives shorter than this load. Another process that
        // cuts the file off meanwhile could end ours with SIGBUS; the engine is a child process for
        // such reasons.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        // Only a hint: without it the system reads ahead less.
        let _ = map.advise(Advice::Sequential);
        Ok(Self { path, map })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Tells the system that these bytes will not be read again, so that a mapped file does not
    /// count as memory of this process.
    pub(crate) fn release(&self, range: Range<usize>) {
        // SAFETY: the mapping is of a file and read-only: a page that is dropped is read again from
        // the file when it is touched, so no value behind any reference changes.
        let dropped = unsafe {
            self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len())
        };
        // Only memory is lost where the system refuses.
        let _ = dropped;
    }
}

/// A tensor as it lies in a file.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) shard: usize,
    pub(crate) name: String,
    pub(crate) encoding: Encoding,
    pub(crate) shape: Vec<usize>,
    /// Where, counted from the begin of the file.
    pub(crate) bytes: Range<usize>,
}

/// The files of a component, in the order of their names, and the tensors in them, in the order in
/// which they lie there.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) shards: Vec<Shard>,
    pub(crate) stored: Vec<Stored>,
}

impl Files {
    /// Maps the files and reads their headers.
    pub(crate) fn open(folder: &Path, stem: &str) -> Result<Self, WeightsError> {
        let mut files = Self { shards: Vec::new(), stored: Vec::new() };
        for (path, listed) in shard_files(folder, stem)? {
            let shard = Shard::map(path)?;
            let mut stored = header(&shard, files.shards.len())?;
            stored.retain(|s| listed.as_ref().is_none_or(|names| names.contains(&s.name)));
            // An empty tensor stands before the one that begins at its place.
            stored.sort_by_key(|s| (s.bytes.start, s.bytes.end));
            check_order(&shard, &stored)?;
            files.stored.extend(stored);
            files.shards.push(shard);
        }
        Ok(files)
    }

    /// The value of a tensor that holds a single number.
    pub(crate) fn scalar(&self, stored: &Stored) -> Option<f32> {
        let bytes = self.shards[stored.shard].bytes().get(stored.bytes.clone())?;
        let mut value = [f32::NAN];
        let single = stored.encoding.block()? == (1, bytes.len());
        single.then(|| stored.encoding.widen(bytes, 1.0, &mut value))?;
        Some(value[0])
    }
}

/// Refuses tensors that lie over each other: a file is read once, from its begin to its end.
fn check_order(shard: &Shard, stored: &[Stored]) -> Result<(), WeightsError> {
    let over = stored.windows(2).find(|pair| pair[1].bytes.start < pair[0].bytes.end);
    let Some([first, second]) = over else { return Ok(()) };
    let reason = format!("{} and {} lie over each other", first.name, second.name);
    Err(WeightsError::Header { path: shard.path.clone(), format: "GGUF", reason })
}

fn header(shard: &Shard, number: usize) -> Result<Vec<Stored>, WeightsError> {
    let (path, map) = (&shard.path, shard.bytes());
    if gguf::is_gguf(map) {
        let refused = |reason| WeightsError::Header { path: path.clone(), format: "GGUF", reason };
        let found = gguf::read(map).map_err(refused)?;
        return found.into_iter().map(|info| from_gguf(info, number, shard)).collect();
    }
    let (length, metadata) =
        SafeTensors::read_metadata(map).map_err(|error| refusal(path, map, &error))?;
    let body = length + 8;
    let stored = metadata.tensors().into_iter().map(|(name, info)| Stored {
        shard: number,
        name,
        encoding: Encoding::of(info.dtype),
        shape: info.shape.clone(),
        bytes: body + info.data_offsets.0..body + info.data_offsets.1,
    });
    Ok(stored.collect())
}

fn from_gguf(info: gguf::Info, shard: usize, of: &Shard) -> Result<Stored, WeightsError> {
    let gguf::Info { name, encoding, shape, start } = info;
    let count = shape.iter().try_fold(1_usize, |all, axis| all.checked_mul(*axis));
    // What cannot be read takes no place: it is refused by name where somebody asks for it.
    let (values, size) = encoding.block().unwrap_or((1, 0));
    let length = count.and_then(|count| (count / values).checked_mul(size));
    let end = length.and_then(|length| start.checked_add(length)).unwrap_or(usize::MAX);
    let got = of.bytes().len();
    if end > got {
        return Err(WeightsError::Length { path: of.path.clone(), expected: end, got });
    }
    Ok(Stored { shard, name, encoding, shape, bytes: start..end })
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
        _ => {
            return WeightsError::Header { path, format: "safetensors", reason: error.to_string() };
        }
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

/// `<stem>.safetensors`, or the only safetensors or GGUF file of the folder.
fn single_file(folder: &Path, stem: &str) -> Result<PathBuf, WeightsError> {
    let usual = folder.join(format!("{stem}.safetensors"));
    if usual.exists() {
        return Ok(usual);
    }
    let read = |source| WeightsError::Read { path: folder.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.extension().is_some_and(|e| e == "safetensors" || e == "gguf") {
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
