//! Watches the peer's health and tells of each change: to gRPC health checks, the metrics, the log.

use super::Task;
use crate::gateway::health::Health;
use crate::gateway::metrics::Metrics;
use atelier_proto::client::v1::atelier_server;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The name under which gRPC health checks ask for the readiness; so does the service's own name.
const READY_NAME: &str = "ready";

struct Observer {
    health: Health,
    metrics: Arc<Metrics>,
    reporter: HealthReporter,
    /// Turns true with the first readiness.
    started: Arc<AtomicBool>,
}

pub(super) fn start(
    health: Health,
    metrics: Arc<Metrics>,
    reporter: HealthReporter,
    started: Arc<AtomicBool>,
) -> Task {
    let observer = Observer { health, metrics, reporter, started };
    Task::spawn("observer", |stop| observer.run(stop))
}

impl Observer {
    async fn run(mut self, stop: CancellationToken) {
        let mut told = None;
        loop {
            let reasons = self.health.reasons();
            if told.as_ref() != Some(&reasons) {
                let news = told.is_none_or(|told| kinds(&told) != kinds(&reasons));
                self.tell_readiness(&reasons, news).await;
                told = Some(reasons);
            }
            self.metrics.led_by(self.health.raft.borrow().leader);
            if let Some(engine) = &self.health.engine {
                self.metrics.engine_is(&engine.borrow());
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.health.changed() => {}
            }
        }
    }

    /// `news` is false where only a number in the reasons is another.
    async fn tell_readiness(&self, reasons: &[String], news: bool) {
        let ready = reasons.is_empty();
        let serving = |yes| if yes { ServingStatus::Serving } else { ServingStatus::NotServing };
        // The process itself serves until it leaves, whatever its peers do.
        let leaving = *self.health.draining.borrow();
        self.reporter.set_service_status("", serving(!leaving)).await;
        for name in [READY_NAME, atelier_server::SERVICE_NAME] {
            self.reporter.set_service_status(name, serving(ready)).await;
        }
        if ready {
            self.started.store(true, Ordering::Relaxed);
            self.metrics.count_from(self.health.raft.borrow().applied);
            tracing::info!("ready");
        } else if news {
            tracing::info!(reasons = reasons.join("; "), "not ready");
        }
    }
}

/// The reasons without their numbers.
fn kinds(reasons: &[String]) -> Vec<String> {
    reasons.iter().map(|reason| reason.replace(|c: char| c.is_ascii_digit(), "")).collect()
}
