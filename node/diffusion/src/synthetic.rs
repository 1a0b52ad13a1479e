//! Checkpoints of the real layout with random values.
//!
//! Owns the writing of a model directory as it is published — files, names, types, shapes, shards,
//! index files — at any size, so that loading, memory and speed can be tried where the real weights
//! are not. A picture of such a model shows nothing.
//!
//! The configurations are the published ones, byte for byte: their MD5 is that of the manifest in
//! the model's repository. Shards are cut where the reference cuts them. Only the values, and the
//! tokenizer's merges, are not the real ones: the tokenizer has the real number of tokens with
//! their special ones at the real ids, and knows bytes alone.
//!
//! Values are a function of seed, tensor name and place, so they do not depend on type or shards;
//! they are made and written piece by piece.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use half::bf16;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::config::{ConfigError, PipelineConfig};
use crate::layout::Layout;
use crate::weights::{Precision, Wanted};

/// Values that are made at a time.
const PIECE_VALUES: usize = 1 << 20;
/// Bytes of a shard at most, as the published ones were cut.
const TRANSFORMER_SHARD_BYTES: u64 = 10_000_000_000;
const TEXT_ENCODER_SHARD_BYTES: u64 = 4_000_000_000;

/// Each configuration: what a setting calls it, its file, its published text.
const CONFIGS: [(&str, &str, &str); 5] = [
    ("model_index", "model_index.json", include_str!("synthetic/model_index.json")),
    (
        "scheduler",
        "scheduler/scheduler_config.json",
        include_str!("synthetic/scheduler_config.json"),
    ),
    ("text_encoder", "text_encoder/config.json", include_str!("synthetic/text_encoder.json")),
    ("transformer", "transformer/config.json", include_str!("synthetic/transformer.json")),
    ("vae", "vae/config.json", include_str!("synthetic/vae.json")),
];

/// Why no checkpoint was written.
#[derive(Debug, thiserror::Error)]
pub enum SyntheticError {
    /// A file cannot be written.
    #[error("cannot write {path}: {source}; name a directory with enough space")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is something already.
    #[error("{0} is not empty; name a new directory")]
    NotEmpty(PathBuf),
    /// A setting names no key of a configuration.
    #[error("{0} is no setting; expected component.key=value, as transformer.n_layers=4")]
    Setting(String),
    /// The configuration is none that can be run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The vocabulary has no place for the bytes and the special tokens.
    #[error("vocab_size is {got}, expected {least} or more")]
    Vocabulary {
        /// What was asked for.
        got: usize,
        /// 256 bytes and the special tokens.
        least: usize,
    },
}

/// One changed number of a configuration, `component.key=value`; the value is JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    component: String,
    key: String,
    value: String,
}

impl FromStr for Setting {
    type Err = SyntheticError;

    fn from_str(text: &str) -> Result<Self, SyntheticError> {
        let wrong = || SyntheticError::Setting(text.to_owned());
        let (path, value) = text.split_once('=').ok_or_else(wrong)?;
        let (component, key) = path.split_once('.').ok_or_else(wrong)?;
        serde_json::from_str::<Value>(value).map_err(|_| wrong())?;
        let [component, key, value] = [component, key, value].map(str::to_owned);
        Ok(Self { component, key, value })
    }
}

/// The size of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Z-Image-Turbo's own: 10.3 billion parameters, 32.8 GB.
    Full,
    /// A transformer of width 384 with 8 layers for 256×256, and the rest in proportion: 40 million.
    Medium,
}

impl Scale {
    /// What differs from the published configurations.
    #[must_use]
    pub fn settings(self) -> Vec<Setting> {
        let medium = [
            "transformer.dim=384",
            "transformer.n_heads=6",
            "transformer.n_kv_heads=6",
            "transformer.axes_dims=[16, 24, 24]",
            "transformer.n_layers=8",
            "transformer.n_refiner_layers=1",
            "transformer.cap_feat_dim=384",
            "text_encoder.hidden_size=384",
            "text_encoder.intermediate_size=1024",
            "text_encoder.num_hidden_layers=7",
            "text_encoder.max_window_layers=7",
            "text_encoder.num_attention_heads=6",
            "text_encoder.num_key_value_heads=2",
            "text_encoder.head_dim=64",
            "text_encoder.vocab_size=4096",
            "text_encoder.bos_token_id=4070",
            "text_encoder.eos_token_id=4072",
            "vae.block_out_channels=[32, 64, 128, 128]",
            "vae.sample_size=256",
        ];
        let parse = |text: &&str| text.parse().expect("the settings of a scale are settings");
        match self {
            Self::Full => Vec::new(),
            Self::Medium => medium.iter().map(parse).collect(),
        }
    }
}

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "medium" => Ok(Self::Medium),
            other => Err(format!("scale is {other}, expected full or medium")),
        }
    }
}

/// What to write.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What differs from the published configurations, later ones outranking earlier ones.
    pub settings: Vec<Setting>,
    /// How the transformer is stored: Turbo's is F32, the base model's BF16.
    pub transformer: Precision,
    /// Chooses the values.
    pub seed: u64,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Parameters of all components.
    pub parameters: u64,
    /// Bytes of all weights.
    pub bytes: u64,
}

/// One file of weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlan {
    /// Its name in the folder.
    pub file: String,
    /// What lies in it.
    pub tensors: Vec<Wanted>,
    /// Bytes of the tensors.
    pub bytes: u64,
}

/// Writes a checkpoint into a directory that is empty or not there; tells bytes written of all.
///
/// # Errors
/// The directory holds something, a setting fits no configuration, or the disk is full.
pub fn write(
    directory: &Path,
    recipe: &Recipe,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written, SyntheticError> {
    if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(SyntheticError::NotEmpty(directory.to_path_buf()));
    }
    let configs = configs(&recipe.settings)?;
    for (file, text) in &configs {
        put(&directory.join(file), text.as_bytes())?;
    }
    let config = PipelineConfig::read(directory);
    if config.is_err() {
        // Nothing is left that could be taken for a model.
        let _ = fs::remove_file(directory.join("model_index.json"));
    }
    let config = config?;
    write_tokenizer(&directory.join("tokenizer"), config.text_encoder.vocab_size)?;
    let layout = Layout::of(&config);
    let components = components(&layout, recipe.transformer);
    let shards = components.iter().flat_map(|(_, _, _, shards)| shards);
    let total = shards.map(|shard| shard.bytes).sum();
    let mut written = Written { parameters: 0, bytes: 0 };
    for (folder, stem, precision, shards) in &components {
        let folder = directory.join(folder);
        if shards.len() > 1 {
            put(&folder.join(format!("{stem}.safetensors.index.json")), &index(shards))?;
        }
        for shard in shards {
            let path = folder.join(&shard.file);
            let write = write_shard(&path, shard, *precision, recipe.seed, &mut |bytes| {
                written.bytes += bytes;
                progress(written.bytes, total);
            });
            write.map_err(|source| SyntheticError::Write { path, source })?;
            written.parameters += shard.tensors.iter().map(count).sum::<u64>();
        }
    }
    Ok(written)
}

type Component = (&'static str, &'static str, Precision, Vec<ShardPlan>);

/// Each component's folder, stem, type and files.
#[must_use]
pub fn components(layout: &Layout, transformer: Precision) -> [Component; 3] {
    let bf16 = Precision::Bf16;
    let (model, diffusers) = ("model", "diffusion_pytorch_model");
    let text_encoder = shards(&layout.text_encoder, bf16, model, TEXT_ENCODER_SHARD_BYTES);
    let shards_of_transformer =
        shards(&layout.transformer, transformer, diffusers, TRANSFORMER_SHARD_BYTES);
    let vae = shards(&layout.vae, bf16, diffusers, TRANSFORMER_SHARD_BYTES);
    [
        ("text_encoder", model, bf16, text_encoder),
        ("transformer", diffusers, transformer, shards_of_transformer),
        ("vae", diffusers, bf16, vae),
    ]
}

/// Cuts a component into files: in the reference's order, a new one where the next tensor would
/// not fit.
fn shards(wanted: &[Wanted], precision: Precision, stem: &str, most: u64) -> Vec<ShardPlan> {
    let mut ordered: Vec<&Wanted> = wanted.iter().collect();
    ordered.sort_by_key(|wanted| rank(&wanted.name));
    let mut plans: Vec<ShardPlan> = Vec::new();
    for wanted in ordered {
        let bytes = count(wanted) * precision.bytes();
        if plans.last().is_none_or(|plan| plan.bytes + bytes > most && plan.bytes > 0) {
            plans.push(ShardPlan { file: String::new(), tensors: Vec::new(), bytes: 0 });
        }
        let plan = plans.last_mut().expect("one was pushed");
        plan.tensors.push(wanted.clone());
        plan.bytes += bytes;
    }
    let of = plans.len();
    for (i, plan) in (1..).zip(&mut plans) {
        plan.file = match of {
            1 => format!("{stem}.safetensors"),
            _ => format!("{stem}-{i:05}-of-{of:05}.safetensors"),
        };
        plan.tensors.sort_by(|a, b| a.name.cmp(&b.name));
    }
    plans
}

/// Where a tensor stands in the reference's state: stack, block, part. What has no part keeps the
/// order of our own walk, which is the same there.
fn rank(name: &str) -> (usize, usize, usize) {
    const STACKS: [&str; 12] = [
        "x_pad_token",
        "cap_pad_token",
        "all_x_embedder",
        "all_final_layer",
        "noise_refiner",
        "context_refiner",
        "t_embedder",
        "cap_embedder",
        "layers",
        "model.embed_tokens",
        "model.layers",
        "model.norm",
    ];
    const PARTS: [&str; 25] = [
        "attention.norm_q",
        "attention.norm_k",
        "attention.to_q",
        "attention.to_k",
        "attention.to_v",
        "attention.to_out",
        "feed_forward.w1",
        "feed_forward.w2",
        "feed_forward.w3",
        "attention_norm1",
        "ffn_norm1",
        "attention_norm2",
        "ffn_norm2",
        "adaLN_modulation",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "self_attn.q_norm",
        "self_attn.k_norm",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
        "input_layernorm",
        "post_attention_layernorm",
    ];
    let stack = STACKS.iter().position(|stack| name.starts_with(stack)).unwrap_or(STACKS.len());
    let rest = STACKS.get(stack).map_or("", |stack| name[stack.len()..].trim_start_matches('.'));
    let block = rest.split_once('.').and_then(|(i, part)| Some((i.parse().ok()?, part)));
    let Some((block, part)) = block else { return (stack, 0, 0) };
    let part = PARTS.iter().position(|known| part.starts_with(known)).unwrap_or(0);
    (stack, block, part)
}

fn count(wanted: &Wanted) -> u64 {
    wanted.shape.iter().map(|&axis| axis as u64).product()
}

fn index(shards: &[ShardPlan]) -> Vec<u8> {
    let total: u64 = shards.iter().map(|shard| shard.bytes).sum();
    let names =
        shards.iter().flat_map(|s| s.tensors.iter().map(|t| (t.name.clone(), json!(s.file))));
    let map: Map<String, Value> = names.collect();
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    format!("{index:#}\n").into_bytes()
}

/// The configurations with what was set.
fn configs(settings: &[Setting]) -> Result<Vec<(&'static str, String)>, SyntheticError> {
    let mut texts = CONFIGS.map(|(_, file, text)| (file, text.to_owned()));
    for setting in settings {
        let at = CONFIGS.iter().position(|(component, ..)| *component == setting.component);
        let changed = at.and_then(|at| with_value(&texts[at].1, &setting.key, &setting.value));
        let (Some(at), Some(changed)) = (at, changed) else {
            let Setting { component, key, value } = setting;
            return Err(SyntheticError::Setting(format!("{component}.{key}={value}")));
        };
        texts[at].1 = changed;
    }
    Ok(texts.to_vec())
}

/// Puts another value behind a key of the outermost object, and leaves the rest as it stands.
fn with_value(text: &str, key: &str, value: &str) -> Option<String> {
    let mark = format!("\"{key}\": ");
    let start = text.find(&mark)? + mark.len();
    let mut depth = 0;
    let end = text[start..].char_indices().find_map(|(i, c)| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' if depth > 0 => depth -= 1,
            ',' | '\n' | '}' if depth == 0 => return Some(start + i),
            _ => {}
        }
        None
    })?;
    Some(format!("{}{value}{}", &text[..start], &text[end..]))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), SyntheticError> {
    let write = || {
        fs::create_dir_all(path.parent().expect("a file lies in a folder"))?;
        fs::write(path, bytes)
    };
    write().map_err(|source| SyntheticError::Write { path: path.to_path_buf(), source })
}

fn write_shard(
    path: &Path,
    shard: &ShardPlan,
    precision: Precision,
    seed: u64,
    wrote: &mut dyn FnMut(u64),
) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let header = header(shard, precision);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let (mut wide, mut narrow) = (Vec::new(), Vec::new());
    for tensor in &shard.tensors {
        let values = Values::of(tensor, seed);
        let total = count(tensor) as usize;
        for start in (0..total).step_by(PIECE_VALUES) {
            let places = (start..(start + PIECE_VALUES).min(total)).into_par_iter();
            let drawn = places.with_min_len(1 << 14).map(|i| values.at(i as u64));
            let bytes = match precision {
                Precision::F32 => {
                    drawn.map(f32::to_le_bytes).collect_into_vec(&mut wide);
                    wide.as_flattened()
                }
                Precision::Bf16 => {
                    let narrowed = drawn.map(|value| bf16::from_f32(value).to_le_bytes());
                    narrowed.collect_into_vec(&mut narrow);
                    narrow.as_flattened()
                }
            };
            file.write_all(bytes)?;
            wrote(bytes.len() as u64);
        }
    }
    file.flush()
}

/// The header of a safetensors file, filled up with spaces to a multiple of eight.
fn header(shard: &ShardPlan, precision: Precision) -> Vec<u8> {
    let dtype = match precision {
        Precision::F32 => "F32",
        Precision::Bf16 => "BF16",
    };
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut at = 0;
    for tensor in &shard.tensors {
        let end = at + count(tensor) * precision.bytes();
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [at, end]});
        entries.insert(tensor.name.clone(), entry);
        at = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    text
}

/// The values of one tensor.
struct Values {
    key: u64,
    centre: f32,
    spread: f32,
}

impl Values {
    /// Spreads that keep activations near 1 in size at any width, as trained weights do.
    fn of(tensor: &Wanted, seed: u64) -> Self {
        let digest = blake3::hash(tensor.name.as_bytes());
        let word = digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes");
        let key = seed ^ u64::from_le_bytes(word);
        let is_matrix = tensor.shape.len() > 1;
        let (centre, spread) = match &*tensor.name {
            name if name.ends_with(".bias") => (0.0, 0.02),
            name if name.ends_with("_pad_token") => (0.0, 1.0),
            _ if is_matrix => {
                let inner: usize = tensor.shape[1..].iter().product();
                (0.0, 1.0 / (inner as f32).sqrt())
            }
            // What remains of one axis is the weight of a norm.
            _ => (1.0, 0.1),
        };
        Self { key, centre, spread }
    }

    /// SplitMix64 of key and place; four 16-bit words of it sum up to a bell of variance 1.
    fn at(&self, place: u64) -> f32 {
        let mut z = self.key.wrapping_add((place + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let sum = (z & 0xFFFF) + (z >> 16 & 0xFFFF) + (z >> 32 & 0xFFFF) + (z >> 48);
        let bell = (sum as f32 / 65_536.0 - 2.0) * 1.732_050_8;
        self.centre + self.spread * bell
    }
}

/// Qwen's special tokens, in the order of their ids.
const SPECIAL: [&str; 26] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
];

/// Ids before the special ones in the real vocabulary.
const ORDINARY: usize = 151_643;

/// The pre-tokenizer's pattern, as Qwen2's.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What the reference renders a prompt by.
const CHAT_TEMPLATE: &str = "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}";

/// Writes a tokenizer that knows bytes and special tokens, and no merges.
fn write_tokenizer(folder: &Path, vocab_size: usize) -> Result<(), SyntheticError> {
    let least = 256 + SPECIAL.len();
    if vocab_size < least {
        return Err(SyntheticError::Vocabulary { got: vocab_size, least });
    }
    let ordinary = ORDINARY.min(vocab_size - SPECIAL.len());
    let bytes = byte_alphabet().into_iter().map(String::from);
    let unused = (256..ordinary).map(|id| format!("unused{id}"));
    let vocab: Map<String, Value> =
        bytes.chain(unused).enumerate().map(|(id, token)| (token, json!(id))).collect();
    let added = |(i, content): (usize, &&str)| {
        // Tags that users may write stand between angle brackets alone.
        let special = content.starts_with("<|");
        json!({"id": ordinary + i, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": special})
    };
    let added: Vec<Value> = SPECIAL.iter().enumerate().map(added).collect();
    let byte_level = |prefix: bool, regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": prefix, "use_regex": regex});
    let split = json!({"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level(false, false)]},
        "post_processor": byte_level(false, false),
        "decoder": byte_level(true, true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": []},
    });
    let decoder: Map<String, Value> = added
        .iter()
        .map(|token| {
            let mut token = token.clone();
            let id = token.as_object_mut().and_then(|t| t.remove("id")).unwrap_or_default();
            (id.to_string(), token)
        })
        .collect();
    let config = json!({
        "add_bos_token": false, "add_prefix_space": false, "added_tokens_decoder": decoder,
        "bos_token": null, "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": false,
        "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 131_072,
        "pad_token": "<|endoftext|>", "split_special_tokens": false,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": null,
    });
    put(&folder.join("vocab.json"), tokenizer["model"]["vocab"].to_string().as_bytes())?;
    put(&folder.join("merges.txt"), b"#version: 0.2\n")?;
    put(&folder.join("tokenizer_config.json"), format!("{config:#}\n").as_bytes())?;
    put(&folder.join("tokenizer.json"), format!("{tokenizer:#}\n").as_bytes())
}

/// The characters that stand for the 256 bytes, in the order of their ids: printable ones for
/// themselves, the rest from U+0100 on.
fn byte_alphabet() -> Vec<char> {
    let is_plain = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let moved = (0..256).filter(|b| !is_plain(b)).enumerate().map(|(i, _)| 256 + i as u32);
    (0..256).filter(is_plain).chain(moved).filter_map(char::from_u32).collect()
}
