//! From a prompt to ids.
//!
//! Owns the chat template and the limit of 512 ids. Special tokens are looked up by their text,
//! never by number: the numbers differ between the real checkpoint and the bundled model.
//!
//! Two ways in. [`Tokenizer::encode`] is for users: whatever they write is text, so `<|im_end|>` in
//! a prompt cannot end their turn. [`Tokenizer::encode_as_reference`] parses such strings as the
//! reference does and is for parity. For prompts without them both give the same ids.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::Tokenizer as Bpe;

/// Ids of a prompt at most; the rest is cut off at the right, the template's end included.
///
/// That is the reference's behaviour, kept for parity. [`Tokens::cut`] tells that it happened.
pub const PROMPT_TOKENS_MAX: usize = 512;

/// Why a tokenizer could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; copy tokenizer.json from the checkpoint")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no tokenizer.
    #[error("cannot understand {path}: {reason}; copy tokenizer.json from the checkpoint again")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The tokenizer lacks a token of the chat template.
    #[error("{path} has no token {token}; expected the Qwen2 tokenizer of the checkpoint")]
    NoSpecial {
        /// The file.
        path: PathBuf,
        /// The token.
        token: &'static str,
    },
    /// The tokenizer can give ids that the text encoder has no row for.
    #[error(
        "{path} has the id {id}, but the text encoder has {rows} rows; tokenizer and text_encoder do not belong together"
    )]
    Beyond {
        /// The file.
        path: PathBuf,
        /// The largest id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
}

/// The ids of one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The ids in the chat template, at most 512.
    pub ids: Vec<u32>,
    /// Ids that were cut off.
    pub cut: usize,
}

impl Tokens {
    fn cut_off(mut ids: Vec<u32>) -> Self {
        let cut = ids.len().saturating_sub(PROMPT_TOKENS_MAX);
        ids.truncate(PROMPT_TOKENS_MAX);
        Self { ids, cut }
    }
}

/// The byte-pair tokenizer with its chat template.
#[derive(Debug)]
pub struct Tokenizer {
    /// Knows the special tokens.
    full: Bpe,
    /// The same without them: everything is text.
    plain: Bpe,
    im_start: u32,
    im_end: u32,
    endoftext: u32,
}

impl Tokenizer {
    /// Reads `tokenizer/tokenizer.json` of a model directory.
    ///
    /// # Errors
    /// The file is missing, broken, or lacks a token of the template.
    pub fn load(directory: &Path) -> Result<Self, TokenizerError> {
        let path = directory.join("tokenizer/tokenizer.json");
        let text = std::fs::read(&path)
            .map_err(|source| TokenizerError::Read { path: path.clone(), source })?;
        let parse = |reason: String| TokenizerError::Parse { path: path.clone(), reason };
        let mut json: Value = serde_json::from_slice(&text).map_err(|e| parse(e.to_string()))?;
        let full = Bpe::from_bytes(&text).map_err(|e| parse(e.to_string()))?;
        json["added_tokens"] = Value::Array(Vec::new());
        let plain = Bpe::from_bytes(json.to_string()).map_err(|e| parse(e.to_string()))?;
        let id = |token: &'static str| {
            let found = full.token_to_id(token);
            found.ok_or_else(|| TokenizerError::NoSpecial { path: path.clone(), token })
        };
        let (im_start, im_end) = (id("<|im_start|>")?, id("<|im_end|>")?);
        let endoftext = id("<|endoftext|>")?;
        Ok(Self { full, plain, im_start, im_end, endoftext })
    }

    /// Refuses a tokenizer that can give an id without a row in the embedding.
    ///
    /// # Errors
    /// [`TokenizerError::Beyond`]
    pub fn check_rows(&self, directory: &Path, rows: usize) -> Result<(), TokenizerError> {
        let id = self.full.get_vocab(true).into_values().max().unwrap_or(0);
        if (id as usize) < rows {
            return Ok(());
        }
        Err(TokenizerError::Beyond { path: directory.join("tokenizer/tokenizer.json"), id, rows })
    }

    /// Encodes a prompt as the user's turn; all of it is text.
    ///
    /// The parts between special tokens are tokenised whole, since a merge may join the template's
    /// newline with one of the prompt.
    #[must_use]
    pub fn encode(&self, prompt: &str) -> Tokens {
        let mut ids = vec![self.im_start];
        ids.extend(ids_of(&self.plain, &format!("user\n{prompt}")));
        ids.push(self.im_end);
        ids.extend(ids_of(&self.plain, "\n"));
        ids.push(self.im_start);
        ids.extend(ids_of(&self.plain, "assistant\n"));
        Tokens::cut_off(ids)
    }

    /// Encodes a prompt as the user's turn; special tokens in it are parsed, as the reference does.
    ///
    /// Thinking is enabled in the reference, so its template adds no empty think block.
    #[must_use]
    pub fn encode_as_reference(&self, prompt: &str) -> Tokens {
        let chat = format!("<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n");
        Tokens::cut_off(ids_of(&self.full, &chat))
    }

    /// Encodes text alone, without the template, for parity.
    #[must_use]
    pub fn encode_text(&self, text: &str) -> Vec<u32> {
        ids_of(&self.full, text)
    }

    /// Turns ids back into text, for parity.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        self.full.decode(ids, false).expect("ids of this tokenizer")
    }

    /// The id that the reference pads with.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.endoftext
    }
}

fn ids_of(bpe: &Bpe, text: &str) -> Vec<u32> {
    let encoding = bpe.encode_fast(text, false);
    encoding.expect("a byte-level tokenizer encodes every text").get_ids().to_vec()
}
