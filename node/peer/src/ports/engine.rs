//! What a peer asks of the process that owns a device.
//!
//! Owns the port alone: a job's kind and parameters pass through it as bytes, because only whoever
//! implements it understands them. It must not know jobs, leases, tokens or the log.
//!
//! The contract that the real engine and the simulated one both keep:
//! - one answer a request; after `stop` is cancelled the answer comes at the next step boundary;
//! - a drawing that is stopped after its first step tells a checkpoint before it answers;
//! - pictures come in the order of their index, from the one on at which the work was resumed;
//! - events are told with `try_send`: a listener that is slow loses steps, never delays them.

use crate::model_files::ModelFiles;
use atelier_state::Digest;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Events that wait for their reader. Filled by the engine; at the brim the newest is dropped, for
/// progress is for display only, and a lost checkpoint costs some steps.
pub const ENGINE_EVENTS_MAX: usize = 64;

/// Bytes of a preview. Filled by the engine, whose previews of 128 x 128 pixels are below it whatever
/// they show; a longer one is dropped where it enters, and its step is told without.
pub const PREVIEW_BYTES_MAX: usize = 64 * 1024;

/// Draws pictures, one piece of work at a time.
pub trait Engine: Send + Sync + 'static {
    /// Draws one piece of work.
    ///
    /// # Errors
    /// - [`EngineError::Refused`]: another attempt would fail in the same way.
    /// - [`EngineError::Crashed`], [`EngineError::Failed`]: another attempt may succeed.
    /// - [`EngineError::Stopped`]: `stop` was cancelled.
    /// - [`EngineError::Unfit`]: the work was never begun, and never will be here.
    ///
    /// # Cancel safety
    /// A dropped future stops the work at the next step boundary, as `stop` does.
    fn draw(
        &self,
        request: DrawRequest,
        events: mpsc::Sender<EngineEvent>,
        stop: CancellationToken,
    ) -> BoxFuture<'_, Result<Vec<Picture>, EngineError>>;

    /// Tells whether it can draw, now and at each change.
    fn ready(&self) -> watch::Receiver<EngineState>;
}

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrawRequest {
    /// The caller's name for it, unique while its process lives.
    pub work: u64,
    /// For example `text_to_image/v1`; says how to read the parameters.
    pub kind: String,
    /// As the job carries them.
    pub parameters: Bytes,
    /// What the parameters name by digest.
    pub pictures: Pictures,
    /// Steps between checkpoints; 0: after each step that costs more than a quarter of a second.
    pub checkpoint_steps: u32,
    /// Where an earlier attempt stood; none: from the beginning.
    pub resume: Option<Resume>,
}

/// Pictures that a piece of work begins from, by digest.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pictures(pub BTreeMap<Digest, Bytes>);

impl fmt::Debug for Pictures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Pixels do not belong into logs.
        write!(f, "{} pictures", self.0.len())
    }
}

/// Where to go on. An engine of another class or model, and one that cannot use the latents, begins
/// anew instead: with the first image, or with the one that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Determinism class of the engine that was there.
    pub class: String,
    /// Its model.
    pub model: String,
    /// Where it stood.
    pub point: Point,
}

/// A place in a piece of work: all images before `image` are finished, and `step` steps of that
/// one.
#[derive(Clone, PartialEq, Eq)]
pub struct Point {
    /// The image that is next, or begun.
    pub image: u32,
    /// Its steps that are done.
    pub step: u32,
    /// Its latents, f32, little-endian; empty where no step is done.
    pub latents: Bytes,
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Latents do not belong into logs.
        let Point { image, step, latents } = self;
        write!(f, "image {image} step {step} ({} bytes)", latents.len())
    }
}

/// What an engine tells while it draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// A step was finished, or resumed at.
    Step(EngineStep),
    /// Where another engine could go on.
    Checkpoint(EngineCheckpoint),
}

/// A place in a piece of work with all that was finished before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineCheckpoint {
    /// Who draws: only an engine of the same class and model may go on.
    pub class: String,
    /// Its model.
    pub model: String,
    /// Where it stands.
    pub point: Point,
    /// The pictures that were finished since this drawing began.
    pub pictures: Vec<Picture>,
}

/// One finished step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineStep {
    /// `encode`, `denoise` or `decode` for pictures.
    pub stage: String,
    /// Which picture.
    pub image: u32,
    /// 1..=steps.
    pub step: u32,
    /// How many this stage has.
    pub steps: u32,
    /// What this work has cost so far.
    pub spent: StageTimes,
    /// What the picture will be.
    pub preview: Option<Preview>,
}

/// A small picture of what a picture will be, as PNG. For display only: never kept, never logged,
/// and the newest is as good as all.
#[derive(Clone, PartialEq, Eq)]
pub struct Preview(Bytes);

impl Preview {
    /// Takes a PNG; none where it is empty or longer than [`PREVIEW_BYTES_MAX`].
    #[must_use]
    pub fn new(png: Bytes) -> Option<Preview> {
        (1..=PREVIEW_BYTES_MAX).contains(&png.len()).then_some(Preview(png))
    }

    /// Gives the PNG back; an absent preview is empty bytes.
    #[must_use]
    pub fn into_bytes(preview: Option<Preview>) -> Bytes {
        preview.map_or_else(Bytes::new, |preview| preview.0)
    }
}

impl fmt::Debug for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Pixels do not belong into logs.
        write!(f, "preview ({} bytes)", self.0.len())
    }
}

/// Time that a piece of work has spent in each stage, all its pictures together, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// From prompt to embeddings.
    pub encode_us: u64,
    /// From noise to latents.
    pub denoise_us: u64,
    /// From latents to a file's bytes.
    pub decode_us: u64,
}

/// A finished picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Which one of the work.
    pub image: u32,
    /// For example `image/png`.
    pub media_type: String,
    /// The encoded picture.
    pub data: Bytes,
}

/// Whether an engine can draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// It starts, or starts again.
    Loading {
        /// Read so far.
        bytes: u64,
        /// To be read; 0 while not known.
        total: u64,
    },
    /// It can draw.
    Ready(EngineInfo),
    /// It gave up; the text is the last error. Only a new process of the peer tries again.
    Unfit(String),
}

/// Who draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// Determinism class: engine build, backend, device kind.
    pub class: String,
    /// Name and digest of the model.
    pub model: String,
    /// Used where a job leaves the width open.
    pub default_width: u32,
    /// Used where a job leaves the height open.
    pub default_height: u32,
    /// Used where a job leaves the steps open.
    pub default_steps: u32,
    /// The model was not distilled: guidance means something to it.
    pub guided: bool,
    /// What the model was loaded from; empty where there are no files.
    pub files: Arc<ModelFiles>,
}

/// Why nothing was drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The request is at fault, so another attempt would fail in the same way.
    #[error("{0}")]
    Refused(String),
    /// The engine's process died or fell silent.
    #[error("engine crashed: {0}")]
    Crashed(String),
    /// This attempt failed; the engine lives.
    #[error("{0}")]
    Failed(String),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
    /// The engine has given up, so this work was never begun; give it to another.
    #[error("engine is unfit: {0}")]
    Unfit(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_neither_empty_nor_large() {
        let check = |bytes: usize| Preview::new(vec![7; bytes].into()).is_some();
        assert_eq!(
            [0, 1, PREVIEW_BYTES_MAX, PREVIEW_BYTES_MAX + 1].map(check),
            [false, true, true, false]
        );
        let preview = Preview::new(vec![7; 3].into());
        assert_eq!(format!("{preview:?}"), "Some(preview (3 bytes))");
        assert_eq!(Preview::into_bytes(preview), vec![7; 3]);
        assert_eq!(Preview::into_bytes(None), Bytes::new());
    }
}
