//! The process that owns a device: the only place where cluster meets model.
//!
//! Owns `atelierd engine`, a child of the peer that speaks frames over standard input and output. It knows
//! orders and pictures, not jobs or leases. When it dies only this process dies; the peer starts another.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use atelier_diffusion::{
    AnyPipeline, AnyRun, GuidanceRequest, Image, LoadProgress, LoadSettings, Mask, Request, Source,
    StepError, Watch,
};
use atelier_peer::engine_link::{DrawFailure, DrawOrder, DrawSource, EngineServer, Teller, Told};
use atelier_peer::ports::engine::{EngineInfo, EngineStep, Picture, Point, Preview, StageTimes};
use bytes::Bytes;

use crate::model::{Account, Directory};

/// Denoise steps where a job leaves them open: what Z-Image-Turbo was distilled to.
const STEPS_DEFAULT: u32 = 8;
/// A loading message is sent no more often than after so many bytes; the peer only shows it.
const LOADING_BYTES: u64 = 4 << 20;
/// How far the engine steps back: where it draws on the peer's own cores, a heartbeat must not wait for a picture.
const NICENESS: i32 = 10;
/// Work that costs more than this is worth a checkpoint where the order leaves that open.
const CHECKPOINT_WORTH: Duration = Duration::from_millis(250);
const MEDIA_TYPE: &str = "image/png";
/// The static shift of the schedule of models that were distilled; the base model has 6.
const DISTILLED_SHIFT: f64 = 3.0;

/// Loads a model, then draws what the peer asks for until it closes the pipe.
///
/// # Errors
/// When the model cannot be loaded or the pipe fails; the text names the file and what to do.
pub(crate) fn run(model: &Path, settings: &LoadSettings) -> Result<()> {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "the engine keeps its priority");
    }
    let mut server = EngineServer::new(io::stdout().lock());
    let directory = Directory::look(model)?;
    let total = directory.bytes();
    let mut account = directory.begin();
    let pipeline = load(model, total, settings, &mut account, &mut server)?;
    let edge = pipeline.config().autoencoder.sample_size;
    let (name, files) = account.finish()?;
    let info = EngineInfo {
        class: pipeline.class().to_owned(),
        model: name,
        default_width: edge,
        default_height: edge,
        default_steps: STEPS_DEFAULT,
        guided: pipeline.config().scheduler.shift > DISTILLED_SHIFT,
        files: Arc::new(files),
    };
    tracing::info!(model = info.model, class = info.class, "engine ready");
    server.serve(io::stdin(), &info, |order, tell| draw(&pipeline, order, tell))?;
    Ok(())
}

fn load<W: Write>(
    model: &Path,
    total: u64,
    settings: &LoadSettings,
    account: &mut Account,
    server: &mut EngineServer<W>,
) -> Result<AnyPipeline> {
    let (mut before, mut told) = (0, 0);
    let mut component = LoadProgress::default();
    let begun = Instant::now();
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
    let mut see = |path: &Path, bytes: &[u8]| account.see(path, bytes);
    let mut watch = Watch { progress: &mut progress, bytes: Some(&mut see) };
    let pipeline = AnyPipeline::load_with(settings, model, &mut watch)
        .with_context(|| format!("cannot load the model in {}", model.display()))?;
    let (elapsed, bytes) = (begun.elapsed(), pipeline.files().iter().map(|f| f.bytes).sum::<u64>());
    let mb_per_second = bytes as f64 / 1e6 / elapsed.as_secs_f64();
    tracing::info!(bytes, elapsed_ms = elapsed.as_millis() as u64, mb_per_second, "weights loaded");
    for file in pipeline.files() {
        let sha256: String = file.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        tracing::info!(file = %file.path.display(), bytes = file.bytes, sha256, "file of weights");
    }
    Ok(pipeline)
}

/// Draws every image of an order that is not finished, telling each step.
fn draw(
    pipeline: &AnyPipeline,
    order: &DrawOrder,
    tell: &mut Teller<'_>,
) -> Result<(), DrawFailure> {
    let request = request(order)?;
    let mut drawing = Drawing { pipeline, order, request, spent: StageTimes::default(), tell };
    let first = order.resume.as_ref().map_or(0, |point| point.image);
    (first..order.images).try_for_each(|image| drawing.draw_one(image))
}

/// The request for the first image of an order.
fn request(order: &DrawOrder) -> Result<Request, DrawFailure> {
    let guidance = order.guidance.as_ref().map(|guidance| GuidanceRequest {
        scale: guidance.scale,
        negative_prompt: guidance.negative_prompt.clone(),
        truncation: 1.0,
        normalization: 0.0,
    });
    let source = order.source.as_ref().map(source).transpose()?;
    let plain = Request::new(&order.prompt, order.width, order.height);
    Ok(Request { steps: order.steps, seed: order.seed, guidance, source, ..plain })
}

fn source(source: &DrawSource) -> Result<Source, DrawFailure> {
    let read = |bytes: &Bytes| {
        Image::from_png(bytes).map_err(|error| DrawFailure::Refused(error.to_string()))
    };
    let mask = source.mask.as_ref().map(read).transpose()?.as_ref().map(Mask::from_image);
    Ok(Source { image: read(&source.image)?, strength: source.strength, mask })
}

/// An order on its way.
struct Drawing<'a, 'b> {
    pipeline: &'a AnyPipeline,
    order: &'a DrawOrder,
    request: Request,
    spent: StageTimes,
    tell: &'a mut Teller<'b>,
}

impl Drawing<'_, '_> {
    fn draw_one(&mut self, image: u32) -> Result<(), DrawFailure> {
        let order = self.order;
        // Image i of a job is image 0 of a job with the seed plus i, so that any one can be drawn again alone.
        self.request.seed = order.seed.wrapping_add(u64::from(image));
        let refused =
            |error: atelier_diffusion::RequestError| DrawFailure::Refused(error.to_string());
        let failed = |error: StepError| DrawFailure::Failed(error.to_string());

        let begun = Instant::now();
        let mut run = self.pipeline.begin(&self.request).map_err(refused)?;
        self.spent.encode_us += micros(begun);
        let mut goes_on = self.step("encode", image, (1, 1), None);
        if goes_on && self.resume(image, &mut *run) {
            let done = (run.steps_done(), order.steps as usize);
            goes_on = self.step("denoise", image, done, None);
        }
        while goes_on {
            let start = Instant::now();
            let Some(report) = run.step().map_err(failed)? else { break };
            self.spent.denoise_us += micros(start);
            goes_on = self.step("denoise", image, (report.step, report.steps), preview(&*run));
            if goes_on && self.is_due(report.step, report.elapsed) {
                goes_on = (self.tell)(Told::Checkpoint(point(image, &*run)));
            }
        }
        if !goes_on {
            return self.stopped(point(image, &*run));
        }
        let start = Instant::now();
        let data = run.decode().map_err(failed)?.to_png().into();
        self.spent.decode_us += micros(start);
        self.step("decode", image, (1, 1), None);
        let picture = Picture { image, media_type: MEDIA_TYPE.to_owned(), data };
        let mut goes_on = (self.tell)(Told::Picture(picture));
        let next = Point { image: image + 1, step: 0, latents: Bytes::new() };
        if next.image == order.images {
            return Ok(());
        }
        if goes_on && begun.elapsed() > CHECKPOINT_WORTH {
            goes_on = (self.tell)(Told::Checkpoint(next.clone()));
        }
        if goes_on { Ok(()) } else { self.stopped(next) }
    }

    /// Goes on where an earlier attempt stood, if there was one and its latents are of use.
    fn resume(&self, image: u32, run: &mut dyn AnyRun) -> bool {
        let resume = self.order.resume.as_ref();
        let Some(point) = resume.filter(|point| point.image == image && point.step > 0) else {
            return false;
        };
        let (values, rest) = point.latents.as_chunks::<4>();
        let latents: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let resumed = match rest {
            [] => run.resume_from(latents, point.step as usize).map_err(|error| error.to_string()),
            _ => Err(format!("the checkpoint has {} bytes", point.latents.len())),
        };
        if let Err(error) = &resumed {
            tracing::warn!(image, step = point.step, error, "checkpoint is of no use, begins anew");
        }
        resumed.is_ok()
    }

    fn step(
        &mut self,
        stage: &str,
        image: u32,
        (step, steps): (usize, usize),
        preview: Option<Preview>,
    ) -> bool {
        let (stage, spent) = (stage.to_owned(), self.spent);
        let (step, steps) = (step as u32, steps as u32);
        (self.tell)(Told::Step(EngineStep { stage, image, step, steps, spent, preview }))
    }

    fn is_due(&self, step: usize, took: Duration) -> bool {
        match self.order.checkpoint_steps {
            0 => took > CHECKPOINT_WORTH,
            every => step.is_multiple_of(every as usize),
        }
    }

    /// Leaves what is there for whoever goes on.
    fn stopped(&mut self, at: Point) -> Result<(), DrawFailure> {
        if at.image > 0 || at.step > 0 {
            (self.tell)(Told::Checkpoint(at));
        }
        Err(DrawFailure::Stopped)
    }
}

/// Where a run stands between two steps.
fn point(image: u32, run: &dyn AnyRun) -> Point {
    let step = run.steps_done() as u32;
    let latents = if step == 0 { Vec::new() } else { run.latents() };
    let latents: Vec<u8> = latents.into_iter().flat_map(f32::to_le_bytes).collect();
    Point { image, step, latents: latents.into() }
}

/// What the picture will be. Made at each step, whether somebody looks or not: it costs less than
/// a hundredth of a step, and nobody has to tell an engine who is looking.
fn preview(run: &dyn AnyRun) -> Option<Preview> {
    Preview::new(run.preview()?.to_png().into())
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
