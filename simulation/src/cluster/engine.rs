//! An engine in virtual time: what it draws follows from the parameters, through any number of
//! attempts and from any checkpoint.

use atelier_peer::ports::engine::{
    DrawRequest, Engine, EngineCheckpoint, EngineError, EngineEvent, EngineInfo, EngineState,
    EngineStep, Picture, Point, StageTimes,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Denoise steps of a picture.
pub(crate) const STEPS: u32 = 8;

/// Draws one picture a job.
pub(crate) struct HostEngine {
    step: Duration,
    class: u64,
    is_forgetful: bool,
    state: watch::Receiver<EngineState>,
}

impl HostEngine {
    pub(crate) fn new(step: Duration, class: u64, is_forgetful: bool) -> HostEngine {
        let info = EngineInfo {
            class: name_of(class),
            model: "none".to_owned(),
            default_width: 64,
            default_height: 64,
            default_steps: STEPS,
            guided: false,
            files: Arc::default(),
        };
        HostEngine { step, class, is_forgetful, state: watch::channel(EngineState::Ready(info)).1 }
    }
}

fn name_of(class: u64) -> String {
    format!("simulated {class}")
}

/// The latents after one step more, as engines of a class compute them.
fn denoised(class: u64, latents: &[u8]) -> Bytes {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&class.to_le_bytes()).update(latents);
    Bytes::copy_from_slice(hasher.finalize().as_bytes())
}

/// The picture of parameters: noise, and all steps on one class of engines.
pub(crate) fn picture(class: u64, parameters: &[u8]) -> Bytes {
    (0..STEPS).fold(denoised(class, parameters), |latents, _| denoised(class, &latents))
}

impl Engine for HostEngine {
    fn draw(
        &self,
        request: DrawRequest,
        events: mpsc::Sender<EngineEvent>,
        stop: CancellationToken,
    ) -> BoxFuture<'_, Result<Vec<Picture>, EngineError>> {
        let (pace, class, is_forgetful) = (self.step, self.class, self.is_forgetful);
        Box::pin(async move {
            let resumed =
                request.resume.filter(|it| it.class == name_of(class) && it.point.step > 0);
            let (first, mut latents) = match resumed {
                Some(resume) if is_forgetful => (resume.point.step - 1, resume.point.latents),
                Some(resume) => (resume.point.step, resume.point.latents),
                None => (0, denoised(class, &request.parameters)),
            };
            for step in first + 1..=STEPS {
                sleep(pace).await;
                latents = denoised(class, &latents);
                let told = EngineStep {
                    stage: "denoise".to_owned(),
                    image: 0,
                    step,
                    steps: STEPS,
                    spent: StageTimes::default(),
                    preview: None,
                };
                let is_due = request.checkpoint_steps > 0
                    && step.is_multiple_of(request.checkpoint_steps)
                    && step < STEPS;
                // As the port says: a listener that is slow loses steps.
                let _ = events.try_send(EngineEvent::Step(told));
                if is_due || stop.is_cancelled() {
                    let point = Point { image: 0, step, latents: latents.clone() };
                    let (class, model) = (name_of(class), "none".to_owned());
                    let told = EngineCheckpoint { class, model, point, pictures: Vec::new() };
                    let _ = events.try_send(EngineEvent::Checkpoint(told));
                }
                if stop.is_cancelled() {
                    return Err(EngineError::Stopped);
                }
            }
            Ok(vec![Picture { image: 0, media_type: "image/png".to_owned(), data: latents }])
        })
    }

    fn ready(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }
}
