//! A peer's services as the server has them: calls are answered where the peer's tasks run, and stamped with no real
//! date.
//!
//! tonic's own tasks, which carry bytes, belong to no group. What answers a call does: it must be killed and stand
//! still with its peer, and draw its randomness from the peer's seed.

use super::sockets::Trace;
use atelier_peer::tasks::Group;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::{DATE, HeaderMap, HeaderValue};
use tonic::codegen::http::{Request, Response};
use tonic::service::Routes;
use tower::{Service, service_fn};

/// The stamp of every answer. hyper would ask the system for the time where there is none, and so the bytes on the wire
/// would be others with each run.
const STAMP: HeaderValue = HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT");
/// Frames of an answer that wait for the connection; a further one waits where it is made.
const FRAMES_MAX: usize = 1;

/// Makes the service of a process.
pub(super) fn answering(
    routes: Routes,
    group: Group,
    trace: Trace,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    service_fn(move |request: Request<Body>| {
        trace.call(request.uri().path());
        let (mut routes, group) = (routes.clone(), group.clone());
        async move {
            let patience = patience(request.headers()).unwrap_or(Duration::MAX);
            let answer = group.spawn(async move { routes.call(request).await });
            let mut response = match timeout(patience, AbortOnDropHandle::new(answer)).await {
                Ok(Ok(answered)) => {
                    let answered = answered.unwrap_or_else(|never| match never {});
                    answered.map(|body| carried(&group, body))
                }
                // Its process was killed, and whoever waits is about to be.
                Ok(Err(_)) => return pending().await,
                Err(_) => Status::cancelled("Timeout expired").into_http(),
            };
            response.headers_mut().insert(DATE, STAMP);
            Ok(response)
        }
    })
}

/// How long the caller waits. tonic reads it too, and would answer the same in the same moment, but for the stamp:
/// what is within its own time limit is asked first.
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(3_600 * count)),
        "M" => Some(Duration::from_secs(60 * count)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Has a body read by the group that makes it.
fn carried(group: &Group, mut body: Body) -> Body {
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, Status>>(FRAMES_MAX);
    drop(group.spawn(async move {
        loop {
            let frame = tokio::select! {
                biased;
                () = sender.closed() => return,
                frame = body.frame() => frame,
            };
            let Some(frame) = frame else { return };
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    }));
    let frames = stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    Body::new(StreamBody::new(frames))
}
