//! The golden set on disk, and the account of what was compared with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use atelier_diffusion::Image;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A tensor of one of the types that golden files have.
#[derive(Debug, Clone)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    dtype: Dtype,
    /// Every type of a golden file fits: f32, and integers up to some thousands.
    values: Vec<f64>,
}

impl Array {
    pub(crate) fn f32(shape: &[usize], values: &[f32]) -> Self {
        let values = values.iter().map(|&v| f64::from(v)).collect();
        Self { shape: shape.to_vec(), dtype: Dtype::F32, values }
    }

    pub(crate) fn integers(
        shape: &[usize],
        dtype: Dtype,
        values: impl IntoIterator<Item = u32>,
    ) -> Self {
        let values = values.into_iter().map(f64::from).collect();
        Self { shape: shape.to_vec(), dtype, values }
    }

    /// Rows of several matrices, one behind the other.
    pub(crate) fn rows(parts: &[Self]) -> Self {
        let mut whole = parts[0].clone();
        whole.shape[0] = parts.iter().map(|part| part.shape[0]).sum();
        whole.values = parts.iter().flat_map(|part| part.values.iter().copied()).collect();
        whole
    }

    /// Sequences of unequal length, each filled up with zeros.
    pub(crate) fn stack(parts: &[Self]) -> Self {
        let mut whole = parts[0].clone();
        let longest = parts.iter().map(|part| part.shape[1]).max().unwrap_or(0);
        let width: usize = whole.shape[2..].iter().product();
        whole.shape[..2].copy_from_slice(&[parts.iter().map(|part| part.shape[0]).sum(), longest]);
        whole.values.clear();
        for item in parts.iter().flat_map(|part| part.values.chunks(part.shape[1] * width)) {
            whole.values.extend(item);
            whole.values.extend(std::iter::repeat_n(0.0, longest * width - item.len()));
        }
        whole
    }

    /// Sequences with zeros past the length of each.
    pub(crate) fn cut(mut self, lengths: &[usize]) -> Self {
        let width: usize = self.shape[2..].iter().product();
        for (item, length) in self.values.chunks_mut(self.shape[1] * width).zip(lengths) {
            item[length * width..].fill(0.0);
        }
        self
    }

    pub(crate) fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }

    pub(crate) fn to_u8(&self) -> Vec<u8> {
        self.values.iter().map(|&v| v as u8).collect()
    }

    fn read(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<Self> {
        let values = match dtype {
            Dtype::F32 => wide(bytes, |b| f64::from(f32::from_le_bytes(b))),
            Dtype::I32 => wide(bytes, |b| f64::from(i32::from_le_bytes(b))),
            Dtype::I64 => wide(bytes, |b| i64::from_le_bytes(b) as f64),
            Dtype::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
            other => bail!("golden tensors of type {other:?} are not known"),
        };
        Ok(Self { shape: shape.to_vec(), dtype, values })
    }

    fn bytes(&self) -> Vec<u8> {
        let values = self.values.iter();
        match self.dtype {
            Dtype::F32 => values.flat_map(|&v| (v as f32).to_le_bytes()).collect(),
            Dtype::I32 => values.flat_map(|&v| (v as i32).to_le_bytes()).collect(),
            Dtype::I64 => values.flat_map(|&v| (v as i64).to_le_bytes()).collect(),
            _ => values.map(|&v| v as u8).collect(),
        }
    }
}

fn wide<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.chunks_exact(N).map(|c| value(c.try_into().expect("chunks of N"))).collect()
}

/// A directory in the format of `golden/tiny`.
pub(crate) struct Set {
    pub(crate) directory: PathBuf,
    manifest: Value,
}

impl Set {
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("manifest.json");
        let text =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest = serde_json::from_slice(&text).context("manifest.json is no JSON")?;
        Ok(Self { directory: directory.to_path_buf(), manifest })
    }

    /// What the set was made with.
    pub(crate) fn config(&self) -> &Value {
        &self.manifest["config"]
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let files = self.manifest["files"].as_object();
        files.map(|files| files.keys().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn json(&self, name: &str) -> Result<Value> {
        let text = std::fs::read(self.directory.join(name))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Reads one file of tensors; a file without tensors has none.
    pub(crate) fn file(&self, name: &str) -> Result<File> {
        let entry = self.manifest["files"][name].clone();
        let mut golden = BTreeMap::new();
        if entry["tensors"].is_object() {
            let bytes = std::fs::read(self.directory.join(name))
                .with_context(|| format!("cannot read {name}"))?;
            let tensors = SafeTensors::deserialize(&bytes).with_context(|| name.to_owned())?;
            for (key, view) in tensors.tensors() {
                let array = Array::read(view.dtype(), view.shape(), view.data())?;
                golden.insert(key, array);
            }
        }
        let stem = name.trim_end_matches(".safetensors").to_owned();
        Ok(File { stem, entry, golden, computed: BTreeMap::new(), image: None })
    }
}

/// One golden file, and what has been computed for it.
pub(crate) struct File {
    stem: String,
    /// The file's entry in the manifest.
    pub(crate) entry: Value,
    golden: BTreeMap<String, Array>,
    computed: BTreeMap<String, Array>,
    image: Option<Image>,
}

impl File {
    /// A tensor of the golden file.
    pub(crate) fn golden(&self, name: &str) -> Result<&Array> {
        self.golden.get(name).ok_or_else(|| anyhow!("{} has no tensor {name}", self.stem))
    }

    /// Whether the file has a tensor to compare by this name.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.golden.contains_key(name) && self.entry["tensors"][name]["role"] != "input"
    }

    /// Names that end in `suffix`, without it.
    pub(crate) fn stems_of(&self, suffix: &str) -> Vec<String> {
        self.golden.keys().filter_map(|name| name.strip_suffix(suffix)).map(str::to_owned).collect()
    }

    /// What the file's run was called with.
    pub(crate) fn call(&self, key: &str) -> &Value {
        &self.entry["call"][key]
    }

    /// Keeps a computed tensor, if the golden file has it.
    pub(crate) fn put(&mut self, name: &str, array: Array) {
        if self.wants(name) {
            self.computed.insert(name.to_owned(), array);
        }
    }

    /// Keeps a computed picture.
    pub(crate) fn put_image(&mut self, image: Image) {
        let shape = [image.height as usize, image.width as usize, 3];
        let pixels = image.rgb.iter().map(|&b| u32::from(b));
        self.put("image_u8", Array::integers(&shape, Dtype::U8, pixels));
        self.image = Some(image);
    }

    /// The largest and the mean error of a tensor, and whether they are within its tolerances.
    fn judge(&self, name: &str, got: &Array) -> (bool, String) {
        let (golden, meta) = (&self.golden[name], &self.entry["tensors"][name]);
        if golden.shape != got.shape {
            return (false, format!("shape {:?}, expected {:?}", got.shape, golden.shape));
        }
        let errors: Vec<f64> =
            got.values.iter().zip(&golden.values).map(|(a, b)| (a - b).abs()).collect();
        // A NaN is larger than everything here, where f64::max would drop it.
        let worst = errors.iter().fold(0.0, |m, &e| if e > m || e.is_nan() { e } else { m });
        let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        let top = golden.values.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let relative = if top > 0.0 { worst / top } else { worst };
        let limit = meta["atol"].as_f64().unwrap_or(0.0);
        let limit_mean = meta["atol_mean"].as_f64();
        let holds = worst <= limit && limit_mean.is_none_or(|limit| mean <= limit);
        let mut text = format!("max_abs {worst:.3e}  max_rel {relative:.3e}  tol {limit:.3e}");
        if let Some(limit) = limit_mean {
            text += &format!("  mean_abs {mean:.3e}  tol_mean {limit:.3e}");
        }
        (holds, text)
    }
}

/// What was compared, written to the output directory as it comes.
pub(crate) struct Report {
    out: PathBuf,
    passed: usize,
    over: Vec<String>,
    not_done: Vec<String>,
}

impl Report {
    pub(crate) fn new(out: &Path) -> Result<Self> {
        std::fs::create_dir_all(out.join("images"))?;
        let out = out.to_path_buf();
        Ok(Self { out, passed: 0, over: Vec::new(), not_done: Vec::new() })
    }

    pub(crate) fn compared(&self) -> usize {
        self.passed + self.over.len()
    }

    pub(crate) fn line(&mut self, holds: bool, name: String, text: &str) {
        println!("{}  {name:<46} {text}", if holds { "pass" } else { "OVER" });
        if holds {
            self.passed += 1;
        } else {
            self.over.push(name);
        }
    }

    pub(crate) fn not_done(&mut self, name: &str) {
        println!("not done  {name}");
        self.not_done.push(name.to_owned());
    }

    pub(crate) fn write_json(&self, name: &str, value: &Value) -> Result<()> {
        Ok(std::fs::write(self.out.join(name), serde_json::to_vec_pretty(value)?)?)
    }

    /// Compares and writes the computed tensors of one file.
    pub(crate) fn take(&mut self, file: File) -> Result<()> {
        for (name, got) in &file.computed {
            let (holds, text) = file.judge(name, got);
            let role = file.entry["tensors"][name]["role"].as_str().unwrap_or_default();
            let mark = if role == "debug" { " (debug)" } else { "" };
            self.line(holds, format!("{}/{name}{mark}", file.stem), &text);
        }
        for name in file.golden.keys() {
            let output = file.entry["tensors"][name]["role"] == "output";
            if output && !file.computed.contains_key(name) {
                self.not_done(&format!("{}/{name}", file.stem));
            }
        }
        let bytes: BTreeMap<_, _> = file.computed.iter().map(|(n, a)| (n, a.bytes())).collect();
        let views = file.computed.iter().map(|(name, array)| {
            TensorView::new(array.dtype, array.shape.clone(), &bytes[name]).map(|view| (name, view))
        });
        let views = views.collect::<Result<Vec<_>, _>>()?;
        let path = self.out.join(format!("{}.safetensors", file.stem));
        safetensors::serialize_to_file(views, None, &path)?;
        if let Some(image) = &file.image {
            std::fs::write(self.out.join(format!("images/{}.png", file.stem)), image.to_png())?;
        }
        ensure!(!file.computed.is_empty(), "nothing was computed for {}", file.stem);
        Ok(())
    }

    /// Prints the summary and gives the exit status.
    pub(crate) fn conclude(&self) -> ExitCode {
        let (over, not_done) = (self.over.len(), self.not_done.len());
        println!("{} passed, {over} over, {not_done} not done", self.passed);
        for name in &self.over {
            println!("over: {name}");
        }
        match (over, not_done) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(3),
            _ => ExitCode::from(1),
        }
    }
}
