//! Probes for orchestrators and load balancers, metrics for Prometheus.
//!
//! A probe answers from what this process knows already; none asks a peer, draws a picture, or can
//! be made slow by load.

use crate::gateway::exposition;
use crate::gateway::health::Health;
use crate::gateway::metrics::{Metrics, Observed};
use crate::ports::Clock;
use crate::tasks;
use crate::view::View;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;


/// What the handlers look at.
#[derive(Clone)]
pub(crate) struct Probes {
    pub(crate) health: Health,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Turns true with the first readiness, and stays so.
    pub(crate) started: Arc<AtomicBool>,
}

/// Makes the router of the probes.
pub(super) fn router(probes: Probes) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/livez", get(liveness))
        .route("/readyz", get(readiness))
        .route("/startupz", get(startup))
        .route("/metrics", get(metrics))
        .with_state(probes)
}

/// The process turns around; never depends on a quorum.
async fn liveness() -> Response {
    answer(StatusCode::OK, &json!({ "alive": true }))
}

/// Whether a client that comes here is served.
async fn readiness(State(probes): State<Probes>) -> Response {
    let reasons = probes.health.reasons();
    let body = json!({ "ready": reasons.is_empty(), "reasons": reasons });
    answer(ok_if(reasons.is_empty()), &body)
}

/// Whether the peer was ready once: a slow load of the model is no reason to restart it.
async fn startup(State(probes): State<Probes>) -> Response {
    let reasons = probes.health.reasons();
    let started = probes.started.load(Ordering::Relaxed) || reasons.is_empty();
    let reasons = if started { Vec::new() } else { reasons };
    answer(ok_if(started), &json!({ "started": started, "reasons": reasons }))
}

/// The readiness in the words that health scripts of this model look for.
async fn health(State(probes): State<Probes>) -> Response {
    let reasons = probes.health.reasons();
    if reasons.is_empty() {
        return answer(StatusCode::OK, &json!({ "status": "healthy" }));
    }
    let body = json!({ "status": "unhealthy", "reasons": reasons });
    answer(StatusCode::SERVICE_UNAVAILABLE, &body)
}

async fn metrics(State(probes): State<Probes>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let view = probes.view.borrow().clone();
    let raft = probes.health.raft.borrow().clone();
    let engine = probes.health.engine.as_ref().map(|engine| engine.borrow().clone());
    let (ready, now_ms) = (probes.health.reasons().is_empty(), probes.clock.wall_ms());
    // A scrape walks every job; on a thread of its own it holds up nobody.
    let rendered = tasks::blocking(move || {
        let (state, raft, engine) = (&view.state, &raft, engine.as_ref());
        probes.metrics.render(&Observed { state, raft, engine, ready, now_ms })
    });
    match rendered.await {
        Ok(text) => {
            let (media_type, text) = exposition::negotiate(accept, text);
            ([(header::CONTENT_TYPE, media_type)], text).into_response()
        }
        Err(error) => {
            let body = json!({ "error": error.to_string() });
            answer(StatusCode::INTERNAL_SERVER_ERROR, &body)
        }
    }
}

fn ok_if(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::RaftStatus;
    use crate::testing::StillClock;
    use atelier_state::NodeId;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use serde_json::Value;
    use tower::ServiceExt;

    struct World {
        raft: watch::Sender<RaftStatus>,
        draining: watch::Sender<bool>,
        _view: watch::Sender<View>,
        probes: Probes,
    }

    fn world(leader: Option<u64>) -> World {
        let applied = atelier_state::LogIndex(1);
        let status = RaftStatus { leader: leader.map(NodeId), applied, ..RaftStatus::default() };
        let (raft, raft_seen) = watch::channel(status);
        let (draining, draining_seen) = watch::channel(false);
        let (view, view_seen) = watch::channel(View::default());
        let health = Health { raft: raft_seen, engine: None, draining: draining_seen };
        let probes = Probes {
            health,
            view: view_seen,
            metrics: Arc::new(Metrics::new(std::path::Path::new("/"))),
            clock: Arc::new(StillClock),
            started: Arc::default(),
        };
        World { raft, draining, _view: view, probes }
    }

    async fn get(world: &World, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header(header::ACCEPT, "application/openmetrics-text");
        let request = request.body(Body::empty()).expect("a request");
        let response = router(world.probes.clone()).oneshot(request).await.expect("infallible");
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_led_peer_is_healthy_in_the_expected_words() {
        let world = world(Some(1));
        assert_eq!(
            get(&world, "/health").await,
            (StatusCode::OK, r#"{"status":"healthy"}"#.into())
        );
        let ready = r#"{"ready":true,"reasons":[]}"#.to_owned();
        assert_eq!(get(&world, "/readyz").await, (StatusCode::OK, ready));
    }

    #[tokio::test]
    async fn without_a_leader_it_is_alive_but_not_ready() {
        let world = world(None);
        assert_eq!(get(&world, "/livez").await.0, StatusCode::OK);
        for path in ["/readyz", "/startupz", "/health"] {
            let (status, body) = get(&world, path).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            let body: Value = serde_json::from_str(&body).expect("json");
            assert_eq!(body["reasons"], json!(["no leader is known"]), "{path}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_was_ready_stays_started() {
        let world = world(None);
        world.probes.started.store(true, Ordering::Relaxed);
        assert_eq!(get(&world, "/startupz").await.0, StatusCode::OK);
        assert_eq!(get(&world, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn readiness_follows_what_is_watched() {
        let world = world(Some(1));
        world.draining.send_replace(true);
        let (status, body) = get(&world, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, r#"{"ready":false,"reasons":["this peer is leaving"]}"#);
        world.draining.send_replace(false);
        world.raft.send_modify(|raft| raft.stopped = Some("disk full".to_owned()));
        assert!(get(&world, "/readyz").await.1.contains("storage stopped: disk full"));
    }

    #[tokio::test]
    async fn metrics_are_open_metrics() {
        let world = world(Some(1));
        let (status, text) = get(&world, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(crate::gateway::metrics::tests::families(&text).contains_key("atelier_jobs"));
        assert!(text.contains("\natelier_ready 1\n"), "{text}");
    }
}
