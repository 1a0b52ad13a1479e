//! The process that owns a device: the only place where cluster meets model.
//!
//! Owns `atelierd engine`, a child of the peer that speaks frames over standard input and output. It knows
//! orders and pictures, not jobs or leases. When it dies only this process dies; the peer starts another.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use atelier_diffusion::{AnyPipeline, BackendChoice, LoadProgress, Request, StepError};
use atelier_peer::engine_link::{DrawFailure, DrawOrder, EngineServer};
use atelier_peer::ports::engine::{EngineInfo, EngineStep, Picture, StageTimes};

/// Denoise steps where a job leaves them open: what Z-Image-Turbo was distilled to.
const STEPS_DEFAULT: u32 = 8;
/// A loading message is sent no more often than after so many bytes; the peer only shows it.
const LOADING_BYTES: u64 = 4 << 20;
/// How far the engine steps back: where it draws on the peer's own cores, a heartbeat must not wait for a picture.
const NICENESS: i32 = 10;
const MEDIA_TYPE: &str = "image/png";

/// Loads a model, then draws what the peer asks for until it closes the pipe.
///
/// # Errors
/// When the model cannot be loaded or the pipe fails; the text names the file and what to do.
pub(crate) fn run(model: &Path, backend: BackendChoice) -> Result<()> {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "the engine keeps its priority");
    }
    let mut server = EngineServer::new(io::stdout().lock());
    let pipeline = load(model, backend, &mut server)?;
    let edge = pipeline.config().autoencoder.sample_size;
    let info = EngineInfo {
        class: pipeline.class().to_owned(),
        model: name_of(model)?,
        default_width: edge,
        default_height: edge,
        default_steps: STEPS_DEFAULT,
    };
    tracing::info!(model = info.model, class = info.class, "engine ready");
    server.serve(io::stdin(), &info, |order, tell| draw(&pipeline, order, tell))?;
    Ok(())
}

fn load<W: Write>(
    model: &Path,
    backend: BackendChoice,
    server: &mut EngineServer<W>,
) -> Result<AnyPipeline> {
    let total = files_below(model)?.iter().map(|(_, bytes)| bytes).sum();
    let (mut before, mut told) = (0, 0);
    let mut component =
        LoadProgress { component: "", tensors: 0, tensors_total: 0, bytes: 0, bytes_total: 0 };
    let mut progress = |now: LoadProgress| {
        if now.component != component.component {
            before += component.bytes;
        }
        component = now;
        let bytes = (before + component.bytes).min(total);
        // A peer that is gone shows at the next read of the pipe; loading need not look.
        if bytes >= told + LOADING_BYTES && server.loading(bytes, total).is_ok() {
            told = bytes;
        }
    };
    AnyPipeline::load(backend, model, &mut progress)
        .with_context(|| format!("cannot load the model in {}", model.display()))
}

/// Draws every image of an order, telling each step.
fn draw(
    pipeline: &AnyPipeline,
    order: &DrawOrder,
    tell: &mut dyn FnMut(EngineStep) -> bool,
) -> Result<Vec<Picture>, DrawFailure> {
    let mut spent = StageTimes::default();
    (0..order.images).map(|image| draw_one(pipeline, order, image, &mut spent, tell)).collect()
}

fn draw_one(
    pipeline: &AnyPipeline,
    order: &DrawOrder,
    image: u32,
    spent: &mut StageTimes,
    tell: &mut dyn FnMut(EngineStep) -> bool,
) -> Result<Picture, DrawFailure> {
    let request = Request {
        prompt: order.prompt.clone(),
        width: order.width,
        height: order.height,
        steps: order.steps,
        // Image i of a job is image 0 of a job with the seed plus i, so that any one can be drawn again alone.
        seed: order.seed.wrapping_add(u64::from(image)),
        image_index: 0,
    };
    let mut go_on = |stage: &str, step, steps, spent: &StageTimes| {
        let (stage, spent) = (stage.to_owned(), *spent);
        let told = tell(EngineStep { stage, image, step, steps, spent });
        if told { Ok(()) } else { Err(DrawFailure::Stopped) }
    };
    let refused = |error: atelier_diffusion::RequestError| DrawFailure::Refused(error.to_string());
    let failed = |error: StepError| DrawFailure::Failed(error.to_string());

    let start = Instant::now();
    let mut run = pipeline.begin(&request).map_err(refused)?;
    spent.encode_us += micros(start);
    go_on("encode", 1, 1, spent)?;
    loop {
        let start = Instant::now();
        let Some(report) = run.step().map_err(failed)? else { break };
        spent.denoise_us += micros(start);
        go_on("denoise", report.step as u32, report.steps as u32, spent)?;
    }
    let start = Instant::now();
    let png = run.decode().map_err(failed)?.to_png();
    spent.decode_us += micros(start);
    go_on("decode", 1, 1, spent)?;
    Ok(Picture { media_type: MEDIA_TYPE.to_owned(), data: png.into() })
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A model's name: its directory's, and a digest of everything in it.
///
/// Peers whose names are equal draw from equal weights.
fn name_of(model: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for (path, bytes) in files_below(model)? {
        let name = path.strip_prefix(model).unwrap_or(&path).to_string_lossy().into_owned();
        hasher.update(name.as_bytes()).update(&[0]).update(&bytes.to_le_bytes());
        let file = fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
        hasher.update_reader(file).with_context(|| format!("read {}", path.display()))?;
    }
    let directory = model.canonicalize().unwrap_or_else(|_| model.to_owned());
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!("{name}@{}", &hasher.finalize().to_hex()[..12]))
}

/// Every file of a model directory with its length, in the order of their paths.
fn files_below(directory: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("read the model directory {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let metadata = fs::metadata(&path)?;
            if metadata.is_dir() {
                open.push(path);
            } else {
                found.push((path, metadata.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}
