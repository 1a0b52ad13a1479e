//! The peer's side of the pipe: a child process that is started again when it dies or hangs.
//!
//! Owns the child, its restarts and the work that it carries. It must not know whose work it is.
//! Drawing is one at a time: one more request waits in the queue, others wait for the queue.

use super::patience::Patience;
use super::process::{Crash, Process};
use crate::model_files::{FILES_MAX, FileStamp, ModelFile, ModelFiles};
use crate::parameters::{Guidance, Source, TextToImage};
use crate::ports::engine::{
    DrawRequest, Engine, EngineCheckpoint, EngineError, EngineEvent, EngineInfo, EngineState,
    EngineStep, Picture, Pictures, Point, Preview, Resume, StageTimes,
};
use atelier_proto::engine::v1::{
    self as wire, EngineReply, EngineRequest, engine_reply::Reply, engine_request::Request,
};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Requests that wait while one is drawn. Filled by the supervisor; at the brim it waits.
const WORKS_WAITING_MAX: usize = 1;

/// Makes the command of each start; standard streams are set by the link.
pub type ChildCommand = Box<dyn FnMut() -> Command + Send>;

/// How patient the link is.
#[derive(Clone, Debug)]
pub struct ChildSettings {
    /// While drawing: without any frame for this long, the child is killed. Default 120 s, since
    /// one step of a large picture on a CPU takes its time.
    pub silence: Duration,
    /// Between two steps of denoising, the same after so many times the slowest step of the
    /// drawing. Default 30.
    pub silence_steps: u32,
    /// But never sooner than after this, unless `silence` is less. Default 10 s: a busy machine.
    pub silence_floor: Duration,
    /// The same before it is ready. Default 600 s: kernels are compiled without a word.
    pub start_silence: Duration,
    /// Before the first restart; doubles. Default 0.2 s.
    pub backoff_first: Duration,
    /// Before any restart. Default 10 s.
    pub backoff_max: Duration,
    /// Starts that may fail in a row, before the engine is unfit. Default 5.
    pub start_failures_max: u32,
    /// A child that lived this long, or finished any work, is worth a quick restart. Default 30 s.
    pub healthy_after: Duration,
    /// From the closing of its pipe to the kill. Default 2 s.
    pub end_grace: Duration,
}

impl Default for ChildSettings {
    fn default() -> ChildSettings {
        ChildSettings {
            silence: Duration::from_secs(120),
            silence_steps: 30,
            silence_floor: Duration::from_secs(10),
            start_silence: Duration::from_secs(600),
            backoff_first: Duration::from_millis(200),
            backoff_max: Duration::from_secs(10),
            start_failures_max: 5,
            healthy_after: Duration::from_secs(30),
            end_grace: Duration::from_secs(2),
        }
    }
}

/// The engine in a process of its own.
#[derive(Debug)]
pub struct ChildEngine {
    works: mpsc::Sender<Work>,
    state: watch::Receiver<EngineState>,
}

impl ChildEngine {
    /// Starts the child and keeps it alive until `shutdown`; join the handle afterwards.
    pub fn spawn(
        command: ChildCommand,
        settings: ChildSettings,
        shutdown: CancellationToken,
    ) -> (Arc<ChildEngine>, JoinHandle<()>) {
        let (works, waiting) = mpsc::channel(WORKS_WAITING_MAX);
        let (state_writer, state) = watch::channel(LOADING);
        let keeper = Keeper { command, settings, shutdown, waiting, state: state_writer };
        let task = tokio::spawn(keeper.run());
        (Arc::new(ChildEngine { works, state }), task)
    }

    async fn draw_one(
        &self,
        request: DrawRequest,
        events: mpsc::Sender<EngineEvent>,
        stop: CancellationToken,
    ) -> Result<Vec<Picture>, EngineError> {
        let refuse =
            |error: crate::parameters::ParametersError| EngineError::Refused(error.to_string());
        let parameters = TextToImage::decode(&request.kind, &request.parameters).map_err(refuse)?;
        parameters.validate().map_err(refuse)?;
        let source = parameters.source.as_ref().map(|source| begin_from(source, &request.pictures));
        let source = source.transpose()?;
        // A dropped future cancels the child token, and with it the work.
        let stop = stop.child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let begun = Arc::new(AtomicBool::new(false));
        let (answer, answered) = oneshot::channel();
        let work = Work {
            work: request.work,
            parameters,
            source,
            checkpoint_steps: request.checkpoint_steps,
            resume: request.resume,
            events,
            stop: stop.clone(),
            begun: begun.clone(),
            answer,
        };
        let carried = async {
            if self.works.send(work).await.is_err() {
                return Err(self.gone());
            }
            answered.await.unwrap_or_else(|_| Err(self.gone()))
        };
        let never_begun = async {
            stop.cancelled().await;
            if begun.load(Ordering::SeqCst) {
                // The child answers at its next step boundary; until then it is busy.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            result = carried => result,
            () = never_begun => Err(EngineError::Stopped),
        }
    }

    fn gone(&self) -> EngineError {
        match &*self.state.borrow() {
            EngineState::Unfit(error) => EngineError::Unfit(error.clone()),
            _ => EngineError::Stopped,
        }
    }
}

impl Engine for ChildEngine {
    fn draw(
        &self,
        request: DrawRequest,
        events: mpsc::Sender<EngineEvent>,
        stop: CancellationToken,
    ) -> BoxFuture<'_, Result<Vec<Picture>, EngineError>> {
        Box::pin(self.draw_one(request, events, stop))
    }

    fn ready(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }
}

const LOADING: EngineState = EngineState::Loading { bytes: 0, total: 0 };

type Answer = oneshot::Sender<Result<Vec<Picture>, EngineError>>;

#[derive(Debug)]
struct Work {
    work: u64,
    parameters: TextToImage,
    source: Option<wire::Source>,
    checkpoint_steps: u32,
    resume: Option<Resume>,
    events: mpsc::Sender<EngineEvent>,
    stop: CancellationToken,
    begun: Arc<AtomicBool>,
    answer: Answer,
}

/// The event loop: one child after another.
struct Keeper {
    command: ChildCommand,
    settings: ChildSettings,
    shutdown: CancellationToken,
    waiting: mpsc::Receiver<Work>,
    state: watch::Sender<EngineState>,
}

/// How the life of one child ended.
enum End {
    Shutdown,
    /// Before it was ready.
    StartFailed(Crash),
    Died {
        crash: Crash,
        healthy: bool,
        // To the work that it carried.
        owed: Option<Answer>,
    },
}

impl Keeper {
    async fn run(mut self) {
        let mut backoff = self.settings.backoff_first;
        let mut start_failures = 0;
        loop {
            match self.live().await {
                End::Shutdown => return,
                End::StartFailed(crash) => {
                    start_failures += 1;
                    tracing::warn!(error = %crash, start_failures, "engine did not start");
                    if start_failures >= self.settings.start_failures_max {
                        tracing::error!(error = %crash, start_failures, "engine is unfit");
                        // Dropping the queue answers whoever waits, after the state tells why.
                        self.state.send_replace(EngineState::Unfit(crash.to_string()));
                        return;
                    }
                }
                End::Died { crash, healthy, owed } => {
                    tracing::warn!(error = %crash, "engine died");
                    start_failures = 0;
                    if healthy {
                        backoff = self.settings.backoff_first;
                    }
                    self.state.send_replace(LOADING);
                    // The child is gone by now, and whoever hears of the crash sees that. The asker
                    // may be gone as well.
                    if let Some(answer) = owed {
                        let _ = answer.send(Err(EngineError::Crashed(crash.to_string())));
                    }
                }
            }
            self.state.send_replace(LOADING);
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(self.settings.backoff_max);
        }
    }

    async fn live(&mut self) -> End {
        let mut process = match Process::start((self.command)()) {
            Ok(process) => process,
            Err(crash) => return End::StartFailed(crash),
        };
        let shutdown = self.shutdown.clone();
        let end = tokio::select! {
            biased;
            () = shutdown.cancelled() => End::Shutdown,
            end = self.serve(&mut process) => end,
        };
        let last_words = match &end {
            End::Shutdown => process.end(self.settings.end_grace).await,
            End::StartFailed(_) | End::Died { .. } => process.kill().await,
        };
        match end {
            End::Shutdown => End::Shutdown,
            End::StartFailed(crash) => End::StartFailed(crash.with(last_words)),
            End::Died { crash, healthy, owed } => {
                End::Died { crash: crash.with(last_words), healthy, owed }
            }
        }
    }

    async fn serve(&mut self, process: &mut Process) -> End {
        let info = match self.wait_until_ready(process).await {
            Ok(info) => info,
            Err(crash) => return End::StartFailed(crash),
        };
        tracing::info!(class = info.class, model = info.model, "engine is ready");
        self.state.send_replace(EngineState::Ready(info.clone()));
        let ready_at = Instant::now();
        let mut worked = false;
        let (crash, owed) = loop {
            let work = tokio::select! {
                biased;
                frame = process.next() => break (idle_frame(frame), None),
                work = self.waiting.recv() => work,
            };
            // Without handles nobody can ask again; the owner's shutdown ends the child.
            let Some(work) = work else { return std::future::pending().await };
            match carry(process, &info, work, &self.settings).await {
                Ok(()) => worked = true,
                Err((crash, answer)) => break (crash, Some(answer)),
            }
        };
        let healthy = worked || ready_at.elapsed() >= self.settings.healthy_after;
        End::Died { crash, healthy, owed }
    }

    async fn wait_until_ready(&mut self, process: &mut Process) -> Result<EngineInfo, Crash> {
        loop {
            match process.next_within(self.settings.start_silence).await? {
                Reply::Loading(wire::Loading { bytes, bytes_total: total }) => {
                    self.state.send_replace(EngineState::Loading { bytes, total });
                }
                Reply::Ready(ready) => return Ok(info_from_wire(ready)),
                other => return Err(Crash::unexpected(&other)),
            }
        }
    }
}

/// Carries one piece of work to its answer. An error means that the child is of no use any more;
/// its answer is owed until the child has been ended.
async fn carry(
    process: &mut Process,
    info: &EngineInfo,
    work: Work,
    settings: &ChildSettings,
) -> Result<(), (Crash, Answer)> {
    work.begun.store(true, Ordering::SeqCst);
    let Work { work, parameters, source, checkpoint_steps, resume, events, stop, answer, .. } =
        work;
    let result = if stop.is_cancelled() {
        Err(EngineError::Stopped)
    } else {
        let parameters = parameters.resolve(info);
        let resume = resume.and_then(|resume| usable(resume, info, &parameters));
        let mut drawing = Drawing {
            work,
            class: info.class.clone(),
            model: info.model.clone(),
            next: resume.as_ref().map_or(0, |point| point.image),
            images: parameters.images,
            pictures: Vec::new(),
            events,
            patience: Patience::new(settings),
        };
        let request = draw_request(work, parameters, source, checkpoint_steps, resume);
        match drawing.run(process, request, &stop).await {
            Ok(result) => result,
            Err(crash) => return Err((crash, answer)),
        }
    };
    // The asker may be gone; then nobody wants the pictures.
    let _ = answer.send(result);
    Ok(())
}

/// Returns where to go on, unless that was told of another engine or lies outside of the work.
fn usable(resume: Resume, info: &EngineInfo, parameters: &TextToImage) -> Option<Point> {
    let Resume { class, model, point } = resume;
    let ours = class == info.class && model == info.model;
    let within = point.image < parameters.images && point.step <= parameters.steps;
    (ours && within).then_some(point)
}

/// One piece of work on its way.
struct Drawing {
    work: u64,
    class: String,
    model: String,
    /// The image whose picture comes next.
    next: u32,
    images: u32,
    pictures: Vec<Picture>,
    events: mpsc::Sender<EngineEvent>,
    patience: Patience,
}

impl Drawing {
    async fn run(
        &mut self,
        process: &mut Process,
        request: EngineRequest,
        stop: &CancellationToken,
    ) -> Result<Result<Vec<Picture>, EngineError>, Crash> {
        process.send(request, self.patience.silence()).await?;
        let mut stop_sent = false;
        loop {
            // A stopped child gets the time of one silence, from its last frame on.
            let silence = self.patience.silence();
            let reply = tokio::select! {
                biased;
                reply = process.next_within(silence) => reply?,
                () = stop.cancelled(), if !stop_sent => {
                    process.send(stop_request(self.work), silence).await?;
                    stop_sent = true;
                    continue;
                }
            };
            if let Some(result) = self.take(reply)? {
                return Ok(result);
            }
        }
    }

    /// Takes one reply; the last one is an answer.
    fn take(&mut self, reply: Reply) -> Result<Option<Result<Vec<Picture>, EngineError>>, Crash> {
        let result = match reply {
            Reply::Step(step) if step.work == self.work => {
                self.patience.told(&step, Instant::now());
                // A listener that is slow loses steps.
                let _ = self.events.try_send(EngineEvent::Step(step_from_wire(step)));
                return Ok(None);
            }
            Reply::Checkpoint(checkpoint) if checkpoint.work == self.work => {
                self.tell_checkpoint(checkpoint)?;
                return Ok(None);
            }
            Reply::Picture(picture) if picture.work == self.work => {
                self.keep(picture)?;
                return Ok(None);
            }
            Reply::Done(done) if done.work == self.work => {
                if self.next != self.images {
                    let (got, images) = (self.next, self.images);
                    return Err(Crash::new(format!("{got} pictures of {images} came")));
                }
                Ok(std::mem::take(&mut self.pictures))
            }
            Reply::Failed(failed) if failed.work == self.work => Err(match failed.permanent {
                true => EngineError::Refused(failed.error),
                false => EngineError::Failed(failed.error),
            }),
            Reply::Stopped(stopped) if stopped.work == self.work => Err(EngineError::Stopped),
            other => return Err(Crash::unexpected(&other)),
        };
        Ok(Some(result))
    }

    fn tell_checkpoint(&mut self, checkpoint: wire::Checkpoint) -> Result<(), Crash> {
        let wire::Point { image, step, latents } = checkpoint.point.unwrap_or_default();
        if image != self.next {
            let next = self.next;
            return Err(Crash::new(format!("a checkpoint of image {image} came, not of {next}")));
        }
        let checkpoint = EngineCheckpoint {
            class: self.class.clone(),
            model: self.model.clone(),
            point: Point { image, step, latents },
            pictures: self.pictures.clone(),
        };
        // A listener that is slow loses it, and the next one serves as well.
        let _ = self.events.try_send(EngineEvent::Checkpoint(checkpoint));
        Ok(())
    }

    fn keep(&mut self, picture: wire::Picture) -> Result<(), Crash> {
        let wire::Picture { work: _, image, media_type, data } = picture;
        if image != self.next || image >= self.images {
            return Err(Crash::new(format!(
                "picture {image} came, but {} of {} was expected",
                self.next, self.images
            )));
        }
        self.next += 1;
        self.pictures.push(Picture { image, media_type, data });
        Ok(())
    }
}

fn idle_frame(frame: Result<Reply, Crash>) -> Crash {
    match frame {
        Ok(reply) => Crash::unexpected(&reply),
        Err(crash) => crash,
    }
}

fn draw_request(
    work: u64,
    parameters: TextToImage,
    source: Option<wire::Source>,
    checkpoint_steps: u32,
    resume: Option<Point>,
) -> EngineRequest {
    let TextToImage { prompt, width, height, steps, seed, images, guidance, source: named } =
        parameters;
    let resume = resume.map(|Point { image, step, latents }| wire::Point { image, step, latents });
    let guidance = guidance
        .map(|Guidance { scale, negative_prompt }| wire::Guidance { scale, negative_prompt });
    // What was left open has been filled in since the bytes were found.
    let strength = named.map_or(0.0, |source| source.strength);
    let source = source.map(|source| wire::Source { strength, ..source });
    let draw = wire::Draw {
        work,
        prompt,
        width,
        height,
        steps,
        seed,
        images,
        checkpoint_steps,
        resume,
        guidance,
        source,
    };
    EngineRequest { request: Some(Request::Draw(draw)) }
}

/// The bytes of a picture to begin from.
///
/// # Errors
/// [`EngineError::Failed`] where they did not come with the request.
fn begin_from(source: &Source, pictures: &Pictures) -> Result<wire::Source, EngineError> {
    let bytes = |digest| {
        let missing = || EngineError::Failed(format!("the picture {digest} is not there"));
        pictures.0.get(digest).cloned().ok_or_else(missing)
    };
    let mask = source.mask.as_ref().map(bytes).transpose()?.unwrap_or_default();
    Ok(wire::Source { image: bytes(&source.image)?, strength: source.strength, mask })
}

fn step_from_wire(step: wire::Step) -> EngineStep {
    let wire::Step { stage, image, step: number, steps, .. } = step;
    let wire::Step { encode_us, denoise_us, decode_us, preview, .. } = step;
    let spent = StageTimes { encode_us, denoise_us, decode_us };
    EngineStep { stage, image, step: number, steps, spent, preview: Preview::new(preview) }
}

fn stop_request(work: u64) -> EngineRequest {
    EngineRequest { request: Some(Request::Stop(wire::Stop { work })) }
}

fn info_from_wire(ready: wire::Ready) -> EngineInfo {
    let wire::Ready { class, model, default_width, default_height, default_steps, .. } = ready;
    let guided = ready.guided;
    let files = ready.files.into_iter().take(FILES_MAX).filter_map(file_from_wire).collect();
    let files = Arc::new(ModelFiles { directory: ready.directory.into(), files });
    EngineInfo { class, model, default_width, default_height, default_steps, guided, files }
}

/// None for a file whose digest has another length; such a file is not looked after.
fn file_from_wire(file: wire::ModelFile) -> Option<ModelFile> {
    let wire::ModelFile { path, bytes, inode, modified_ns, changed_ns, digest } = file;
    let digest = digest.as_ref().try_into().ok()?;
    let stamp = FileStamp { bytes, inode, modified_ns, changed_ns };
    Some(ModelFile { path: path.into(), stamp, digest })
}

/// Returns the reply of a frame, for the process.
pub(super) fn reply_of(frame: EngineReply) -> Result<Reply, Crash> {
    frame.reply.ok_or_else(|| Crash::new("the engine sent an empty reply".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::engine::PREVIEW_BYTES_MAX;

    #[test]
    fn a_preview_that_is_too_long_is_dropped_and_its_step_is_not() {
        let check = |bytes: usize| {
            let step = wire::Step { step: 3, preview: vec![7; bytes].into(), ..Default::default() };
            let step = step_from_wire(step);
            (step.step, step.preview.is_some())
        };
        assert_eq!(check(0), (3, false));
        assert_eq!(check(PREVIEW_BYTES_MAX), (3, true));
        assert_eq!(check(PREVIEW_BYTES_MAX + 1), (3, false));
    }
}
