//! An engine that counts: every step and stage of the engine behind it goes into the metrics.

use super::metrics::Metrics;
use crate::ports::Clock;
use crate::ports::engine::{
    DrawRequest, ENGINE_EVENTS_MAX, Engine, EngineError, EngineEvent, EngineState, EngineStep,
    Picture,
};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Measures an engine by what it tells while it draws.
pub(crate) struct MeteredEngine {
    pub(crate) inner: Arc<dyn Engine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Engine for MeteredEngine {
    fn draw(
        &self,
        request: DrawRequest,
        events: mpsc::Sender<EngineEvent>,
        stop: CancellationToken,
    ) -> BoxFuture<'_, Result<Vec<Picture>, EngineError>> {
        let (tap, mut tapped) = mpsc::channel(ENGINE_EVENTS_MAX);
        let resumed = request.resume.as_ref().map(|resume| (resume.point.image, resume.point.step));
        let mut stages = Stages::new(self.clock.now(), resumed);
        let mut drawn = self.inner.draw(request, tap, stop);
        Box::pin(async move {
            let mut pass_on = |event: EngineEvent| {
                if let EngineEvent::Step(step) = &event {
                    stages.step(step, self.clock.now(), &self.metrics);
                }
                // A listener that is slow loses events, as the port says.
                let _ = events.try_send(event);
            };
            let result = loop {
                tokio::select! {
                    biased;
                    Some(event) = tapped.recv() => pass_on(event),
                    result = &mut drawn => break result,
                }
            };
            // Those that came in the same breath as the result.
            while let Ok(event) = tapped.try_recv() {
                pass_on(event);
            }
            stages.end(&self.metrics);
            self.metrics.drew(result.as_ref().map_or(0, Vec::len));
            result
        })
    }

    fn ready(&self) -> watch::Receiver<EngineState> {
        self.inner.ready()
    }
}

/// The stage that runs, and for how long so far.
struct Stages {
    last: Duration,
    /// The image and the step at which the work is resumed; that one is told and not done.
    resumed: Option<(u32, u32)>,
    running: Option<(String, u32, Duration)>,
}

impl Stages {
    fn new(now: Duration, resumed: Option<(u32, u32)>) -> Self {
        Self { last: now, resumed, running: None }
    }

    /// Notes a finished step: it took since the one before.
    fn step(&mut self, step: &EngineStep, now: Duration, metrics: &Metrics) {
        let took = now.saturating_sub(self.last);
        self.last = now;
        if step.stage == "denoise" && self.resumed != Some((step.image, step.step)) {
            metrics.stepped(took);
        }
        match &mut self.running {
            Some((stage, image, so_far)) if *stage == step.stage && *image == step.image => {
                *so_far += took;
            }
            _ => {
                self.end(metrics);
                self.running = Some((step.stage.clone(), step.image, took));
            }
        }
    }

    fn end(&mut self, metrics: &Metrics) {
        if let Some((stage, _, took)) = self.running.take() {
            metrics.staged(&stage, took);
        }
    }
}
