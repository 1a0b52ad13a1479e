//! The HTTP front door: the dialects that image tools speak, probes, metrics, and a page.
//!
//! ```text
//!   api · sdapi · openai · kserve · page     translate, each one dialect
//!        └──► order ──► Gateway              submits, holds the call, fetches pictures
//!        └──► source ──► Gateway             keeps pictures to begin from
//!        └──► sse  ──► Gateway::watch        tells what happens meanwhile
//!   probes                                   answer from what this process knows
//! ```
//!
//! Owns paths, bodies and the shapes of errors. It must not decide anything: every call goes through
//! the functions of the gateway that gRPC calls, so a call that is held over an election by one is
//! by the other.

mod api;
mod artifact;
mod call;
mod error;
mod fields;
mod format;
mod infotext;
mod job;
mod kserve;
mod openai;
mod openapi;
mod operate;
mod order;
mod page;
mod parts;
mod probes;
mod query;
mod sdapi;
mod source;
mod sse;

pub(crate) use probes::Probes;

use super::Gateway;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use error::Problem;
use order::Holders;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls that are open at a time, streams included. Filled by clients that wait for pictures; further
/// ones are refused with 503 and Retry-After. Probes and metrics do not count.
const CALLS_MAX: usize = 1_024;

/// What the handlers work with.
#[derive(Clone)]
pub(crate) struct Front {
    gateway: Arc<Gateway>,
    probes: Probes,
    open: Arc<Semaphore>,
    holders: Arc<Holders>,
}

/// One open call; it counts until the last copy is dropped.
#[derive(Clone)]
struct Open(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

impl Front {
    pub(crate) fn new(gateway: Arc<Gateway>, probes: Probes) -> Front {
        let open = Arc::new(Semaphore::new(CALLS_MAX));
        Front { gateway, probes, open, holders: Arc::default() }
    }
}

/// Makes the router of all paths.
pub(crate) fn router(front: Front) -> Router {
    let probes = probes::router(front.probes.clone());
    let dialects = Router::new()
        .merge(api::router())
        .merge(operate::router())
        .merge(sdapi::router())
        .merge(openai::router())
        .merge(kserve::router())
        .merge(openapi::router())
        .merge(page::router())
        .layer(from_fn_with_state(front.clone(), bounded))
        .with_state(front);
    probes.merge(dialects).fallback(unknown_path)
}

/// Lets a call in where there is room, and says which peer answered it.
async fn bounded(State(front): State<Front>, mut request: Request, next: Next) -> Response {
    let Ok(permit) = front.open.clone().try_acquire_owned() else {
        return Problem::busy(CALLS_MAX).own();
    };
    request.extensions_mut().insert(Open(Arc::new(permit)));
    let mut response = next.run(request).await;
    let node = front.gateway.raft_status().node.0;
    response.headers_mut().insert(HeaderName::from_static("x-served-by"), HeaderValue::from(node));
    response
}

async fn unknown_path(uri: Uri) -> Response {
    let text = format!("no path {}; GET /openapi.json names every path there is", uri.path());
    Problem::not_found(text).own()
}

fn reply(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

fn ok(body: &Value) -> Response {
    reply(StatusCode::OK, body)
}

/// A picture for tests of the doors.
#[cfg(test)]
pub(crate) use infotext::tests::png as png_of_tests;

/// Every path and method of the contract, for tests that ask for each.
#[cfg(test)]
pub(crate) fn paths_of_tests() -> Vec<(&'static str, &'static str)> {
    openapi::ROUTES.iter().map(|route| (route.0, route.1)).collect()
}
