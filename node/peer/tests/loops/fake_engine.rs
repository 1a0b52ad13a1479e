//! An engine that draws by sleeping, for the tests of the loops.

use crate::support::ms;
use atelier_peer::model_files::{FileStamp, ModelFile, ModelFiles};
use atelier_peer::parameters::TextToImage;
use atelier_peer::ports::engine::{
    DrawRequest, Engine, EngineCheckpoint, EngineError, EngineEvent, EngineInfo, EngineState,
    EngineStep, Picture, Point, StageTimes,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Draws by sleeping; what it draws follows from the parameters alone.
pub struct FakeEngine {
    pub steps: u32,
    pub step: Duration,
    /// Answers of the first draws, instead of pictures; each after its first step.
    pub failures: Mutex<Vec<EngineError>>,
    pub begun: AtomicUsize,
    first_steps: Mutex<Vec<(u32, u32)>>,
    pub stopped: AtomicUsize,
    pub state: watch::Sender<EngineState>,
}

pub fn info() -> EngineInfo {
    EngineInfo {
        class: "fake".to_owned(),
        model: "none".to_owned(),
        default_width: 64,
        default_height: 64,
        default_steps: 4,
        guided: false,
        files: Arc::new(ModelFiles {
            directory: "/models/none".into(),
            files: vec![ModelFile {
                path: "vae/weights".into(),
                stamp: FileStamp { bytes: 1, inode: 2, modified_ns: 3, changed_ns: 4 },
                digest: [5; 32],
            }],
        }),
    }
}

impl FakeEngine {
    pub fn new(steps: u32, step: Duration) -> Arc<FakeEngine> {
        Arc::new(FakeEngine {
            steps,
            step,
            failures: Mutex::default(),
            begun: AtomicUsize::new(0),
            first_steps: Mutex::default(),
            stopped: AtomicUsize::new(0),
            state: watch::Sender::new(EngineState::Ready(info())),
        })
    }

    pub fn failing(failures: impl IntoIterator<Item = EngineError>) -> Arc<FakeEngine> {
        let engine = FakeEngine::new(4, ms(100));
        engine.failures.lock().expect("whole").extend(failures);
        engine
    }

    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// The image and step of the first step of each drawing.
    pub fn first_steps(&self) -> Vec<(u32, u32)> {
        self.first_steps.lock().expect("whole").clone()
    }

    async fn draw_all(
        &self,
        request: DrawRequest,
        events: mpsc::Sender<EngineEvent>,
        stop: CancellationToken,
    ) -> Result<Vec<Picture>, EngineError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let EngineState::Ready(EngineInfo { class, model, .. }) = self.state.borrow().clone()
        else {
            panic!("a test draws with an engine that is ready");
        };
        let asked = TextToImage::decode(&request.kind, &request.parameters).expect("whole");
        let resume = request.resume.filter(|resume| resume.class == class);
        let (first, done) = resume.map_or((0, 0), |resume| {
            let Point { image, step, latents } = resume.point;
            assert_eq!(latents, latents_of(&request.parameters, image, step), "of this very job");
            (image, step)
        });
        self.first_steps.lock().expect("whole").push((first, done + 1));
        let mut pictures = Vec::new();
        for image in first..asked.images.max(1) {
            let begin = if image == first { done } else { 0 };
            for step in begin + 1..=self.steps {
                tokio::time::sleep(self.step).await;
                let stopped = stop.is_cancelled();
                let every = request.checkpoint_steps;
                if stopped || every > 0 && step.is_multiple_of(every) {
                    let latents = latents_of(&request.parameters, image, step);
                    let point = Point { image, step, latents };
                    let (class, model) = (class.clone(), model.clone());
                    let pictures = pictures.clone();
                    let told = EngineCheckpoint { class, model, point, pictures };
                    let _ = events.try_send(EngineEvent::Checkpoint(told));
                }
                if stopped {
                    self.stopped.fetch_add(1, Ordering::SeqCst);
                    return Err(EngineError::Stopped);
                }
                if let Some(failure) = self.failure() {
                    return Err(failure);
                }
                let (stage, steps) = ("denoise".to_owned(), self.steps);
                let told = EngineStep {
                    stage,
                    image,
                    step,
                    steps,
                    spent: StageTimes::default(),
                    preview: None,
                };
                let _ = events.try_send(EngineEvent::Step(told));
            }
            let data = [b"picture of ", &request.parameters[..], &b"+".repeat(image as usize)];
            let (media_type, data) = ("image/png".to_owned(), data.concat().into());
            pictures.push(Picture { image, media_type, data });
        }
        Ok(pictures)
    }

    fn failure(&self) -> Option<EngineError> {
        let mut failures = self.failures.lock().expect("whole");
        (!failures.is_empty()).then(|| failures.remove(0))
    }
}

fn latents_of(parameters: &[u8], image: u32, step: u32) -> Bytes {
    format!("{parameters:?} {image} {step}").into_bytes().into()
}

impl Engine for FakeEngine {
    fn draw(
        &self,
        request: DrawRequest,
        events: mpsc::Sender<EngineEvent>,
        stop: CancellationToken,
    ) -> BoxFuture<'_, Result<Vec<Picture>, EngineError>> {
        Box::pin(self.draw_all(request, events, stop))
    }

    fn ready(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }
}
