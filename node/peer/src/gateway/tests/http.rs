//! The HTTP dialects over the same log; a worker that draws at once where a test lets it.

mod api;
mod kserve;
mod openai;
mod operate;
mod pictures;
mod sdapi;

use super::*;
use crate::gateway::health::Health;
use crate::gateway::http::{Front, Probes, router};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request as Call, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

/// A peer whose front door is HTTP.
struct Door {
    log: Arc<MemoryLog>,
    board: Arc<ProgressBoard>,
    draining: channel::Sender<bool>,
    gateway: Arc<Gateway>,
    router: Router,
}

/// What came back.
struct Told {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

fn door() -> Door {
    door_of(world())
}

fn door_of(world: World) -> Door {
    let World { log, board, draining, gateway } = world;
    let gateway = Arc::new(gateway);
    let health = Health { raft: log.status(), engine: None, draining: gateway.draining.clone() };
    let probes = Probes {
        health,
        view: log.view(),
        metrics: gateway.metrics.clone(),
        clock: gateway.clock.clone(),
        started: Arc::default(),
    };
    let router = router(Front::new(gateway.clone(), probes));
    Door { log, board, draining, gateway, router }
}

impl Door {
    async fn send(&self, call: Call<Body>) -> Told {
        let response = self.router.clone().oneshot(call).await.expect("infallible");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), 64 << 20);
        // Of a clock that skips its waits: a stream that never ends is a fault.
        let body = tokio::time::timeout(Duration::from_secs(3_600), body).await;
        let body = body.expect("an end").expect("a body");
        Told { status, headers, body }
    }

    async fn get(&self, path: &str) -> Told {
        self.send(Call::get(path).body(Body::empty()).expect("a call")).await
    }

    async fn post(&self, path: &str, body: &Value) -> Told {
        self.send(post(path, body)).await
    }

    fn with_worker(&self) -> &Self {
        let register = RegisterNode {
            node: NodeId(1),
            address: "http://127.0.0.1:1".to_owned(),
            incarnation: 1,
            slots: 1,
            class: "flex".to_owned(),
            model: "toy@0123456789ab".to_owned(),
            witness: false,
        };
        self.log.apply(&[Command::RegisterNode(register)]);
        self
    }

    /// Leases the next job that waits.
    fn lease(&self) -> (JobId, FencingToken) {
        let state = self.log.view.borrow().state.clone();
        let (job, _) = state.queued().next().expect("a job waits");
        let assign = Assign { job: *job, node: NodeId(1), incarnation: 1 };
        match self.log.apply(&[Command::Assign(assign)]).replies.remove(0) {
            Reply::Assigned { token } => (*job, token),
            other => panic!("expected a lease, got {other:?}"),
        }
    }

    /// Ends a job with its pictures.
    async fn complete(&self, (job, token): (JobId, FencingToken)) {
        let images = self.images_of(job);
        let mut artifacts = Vec::new();
        for image in 0..images {
            let png = crate::gateway::http::png_of_tests(32 + 16 * image, 16);
            let (bytes, media_type) = (png.len() as u64, "image/png".to_owned());
            let digest = self.gateway.artifacts.put(png).await.expect("kept");
            artifacts.push(ArtifactRef { digest, bytes, media_type, holders: vec![NodeId(1)] });
        }
        let finished_ms = self.gateway.clock.wall_ms();
        let complete = Complete { job, token, artifacts, finished_ms };
        self.log.apply(&[Command::Complete(complete)]);
    }

    fn images_of(&self, job: JobId) -> u32 {
        let state = self.log.view.borrow().state.clone();
        let submit = &state.job(job).expect("known").submit;
        let asked = crate::parameters::TextToImage::decode(&submit.kind, &submit.parameters);
        asked.expect("parameters").images
    }

    /// Draws whatever comes, until it is dropped.
    async fn draw(&self) {
        self.with_worker();
        let mut view = self.log.view();
        loop {
            let waits = view.borrow_and_update().state.queued_count() > 0;
            if waits {
                let lease = self.lease();
                self.complete(lease).await;
            } else {
                view.changed().await.expect("the log lives");
            }
        }
    }

    /// Sends a call while a worker draws.
    async fn drawn(&self, call: Call<Body>) -> Told {
        tokio::select! {
            told = self.send(call) => told,
            () = self.draw() => panic!("the worker never ends"),
        }
    }

    /// A cluster of today's peers alone.
    fn risen(self) -> Door {
        let level = atelier_state::limits::FEATURES;
        self.log.apply(&[Command::RaiseFeatures(RaiseFeatures { level })]);
        self
    }

    fn jobs(&self) -> usize {
        self.log.view.borrow().state.jobs_count()
    }
}

fn post(path: &str, body: &Value) -> Call<Body> {
    let body = Body::from(body.to_string());
    Call::post(path).header("content-type", "application/json").body(body).expect("a call")
}

fn with(mut call: Call<Body>, name: &'static str, value: &str) -> Call<Body> {
    call.headers_mut().insert(name, value.parse().expect("a value"));
    call
}

#[tokio::test(start_paused = true)]
async fn an_unknown_path_and_a_wrong_method_are_told_what_there_is() {
    let door = door();
    let told = door.get("/nowhere").await;
    assert_eq!(told.status, StatusCode::NOT_FOUND);
    assert!(told.json()["error"]["message"].as_str().expect("text").contains("/openapi.json"));
    let wrong = Call::builder().method(Method::PUT).uri("/api/v1/jobs").body(Body::empty());
    let told = door.send(wrong.expect("a call")).await;
    assert_eq!(told.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(start_paused = true)]
async fn the_contract_is_the_golden_one_and_every_path_of_it_is_there() {
    let door = door();
    let told = format!("{:#}\n", door.get("/openapi.json").await.json());
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/openapi.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &told).expect("written");
    }
    let expect = std::fs::read_to_string(golden).expect("UPDATE_GOLDEN=1 writes it");
    assert!(told == expect, "the contract has changed: UPDATE_GOLDEN=1, and read the difference");
    for (method, path) in crate::gateway::http::paths_of_tests() {
        let path = path.replace("{id}", &JobId(9).to_string()).replace("{index}", "0");
        let path = path.replace("{digest}", &Digest([1; 32]).to_string());
        let path = path.replace("{model}", "z-image-turbo").replace("{node}", "1");
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
        let call = Call::builder().method(method.clone()).uri(&path).body(Body::from("[]"));
        let told = door.send(call.expect("a call")).await;
        assert_ne!(told.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        let text = String::from_utf8_lossy(&told.body).into_owned();
        assert!(!text.contains("no path "), "{method} {path}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_page_is_served_under_a_strict_policy() {
    let door = door();
    let page = door.get("/").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (StatusCode::OK, "text/html; charset=utf-8")
    );
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    let html = String::from_utf8_lossy(&page.body).into_owned();
    let named =
        html.split(['"', '\'']).filter(|path| path.ends_with(".css") || path.ends_with(".js"));
    let mut files = 0;
    for path in named {
        let told = door.get(path).await;
        assert_eq!(told.status, StatusCode::OK, "{path}");
        assert!(told.header("content-type").starts_with("text/"), "{path}");
        files += 1;
    }
    assert!(files >= 2, "a script and its styles: {html}");
    door.log.status.send_modify(|status| status.leader = None);
    let unready = door.get("/").await;
    assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE, "health scripts ask for it");
    assert_eq!(unready.body, page.body, "people can draw nothing, but see why");
}
