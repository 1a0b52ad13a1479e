//! Pictures as they come: `stream: true`.
//!
//! What waits is told by comments, which the library passes over: the place in the queue, and that
//! the call lives. A failure after the head was sent is an event of its own.

use super::{Form, size_of};
use crate::gateway::http::Front;
use crate::gateway::http::call::Call;
use crate::gateway::http::error::Problem;
use crate::gateway::http::format::Format;
use crate::gateway::http::job::is_terminal;
use crate::gateway::http::order::{Holder, succeeded};
use crate::gateway::http::sse;
use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::atelier_server::Atelier;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde_json::{Value, json};
use tonic::{Request, Status};

/// The second word of an event of this stream; the first one says what the call was.
const COMPLETED: &str = "completed";
const PARTIAL: &str = "partial_image";

struct Streaming {
    front: Front,
    events: BoxStream<'static, Result<wire::JobEvent, Status>>,
    holder: Holder,
    form: Form,
    partials: u32,
    /// Partial pictures that were told.
    told: u32,
    ended: bool,
}

/// Answers with the events of an accepted job.
///
/// # Errors
/// When this peer does not come as far as the job's acceptance.
pub(super) async fn answer(
    front: &Front,
    call: Call,
    accepted: &wire::SubmitReply,
    form: Form,
    partials: u32,
) -> Result<Response, Problem> {
    let holder = front.holder(&accepted.job_id, true);
    let request = wire::WatchRequest {
        job_id: accepted.job_id.clone(),
        after_index: accepted.log_index,
        previews: partials > 0,
    };
    let events = front.gateway.watch(Request::new(request)).await?.into_inner();
    let streaming =
        Streaming { front: front.clone(), events, holder, form, partials, told: 0, ended: false };
    let mut response = sse::answer(stream::unfold(streaming, Streaming::next), call.open);
    for name in ["x-job-id", "x-request-id"] {
        let id = HeaderValue::try_from(&accepted.job_id).ok();
        response.headers_mut().extend(id.map(|id| (HeaderName::from_static(name), id)));
    }
    Ok(response)
}

impl Streaming {
    async fn next(mut self) -> Option<(String, Streaming)> {
        if self.ended {
            return None;
        }
        let text = match self.events.next().await? {
            Ok(event) => self.tell(event).await,
            Err(status) => self.fail(&status.into()),
        };
        Some((text, self))
    }

    async fn tell(&mut self, event: wire::JobEvent) -> String {
        let Some(job) = event.job else { return ": alive\n\n".to_owned() };
        if is_terminal(job.phase()) {
            self.end();
            return match self.completed(job).await {
                Ok(text) => text,
                Err(problem) => self.fail(&problem),
            };
        }
        if job.position > 0 {
            return format!(": queued position={}\n\n", job.position);
        }
        match event.progress {
            Some(progress) if self.is_due(&progress) && !event.preview.is_empty() => {
                self.partial(&job, &event.preview)
            }
            _ => ": alive\n\n".to_owned(),
        }
    }

    /// Partial pictures are spread over the steps.
    fn is_due(&self, progress: &wire::Progress) -> bool {
        let parts = u64::from(self.partials) + 1;
        let next = u64::from(self.told) + 1;
        next < parts && u64::from(progress.step) * parts >= next * u64::from(progress.steps)
    }

    fn partial(&mut self, job: &wire::Job, png: &Bytes) -> String {
        let name = self.name(PARTIAL);
        let mut data = common(&name, job, size_of(png), png, Format::Png);
        data["partial_image_index"] = json!(self.told);
        self.told += 1;
        sse::event(&name, &data)
    }

    async fn completed(&mut self, job: wire::Job) -> Result<String, Problem> {
        let job = succeeded(job)?;
        let mut text = String::new();
        for png in self.front.pictures(&job).await? {
            let (name, size, format) = (self.name(COMPLETED), size_of(&png), self.form.format);
            let sent = format.of(&self.front, png).await?;
            text += &sse::event(&name, &common(&name, &job, size, &sent, format));
        }
        let elapsed = self.front.gateway.clock.now().saturating_sub(self.form.begun);
        tracing::debug!(job = job.job_id, elapsed_ms = elapsed.as_millis(), "pictures streamed");
        Ok(text)
    }

    fn name(&self, event: &str) -> String {
        format!("{}.{event}", self.form.events)
    }

    fn fail(&mut self, problem: &Problem) -> String {
        self.end();
        sse::event("error", &problem.openai_body())
    }

    fn end(&mut self) {
        self.ended = true;
        self.holder.told();
    }
}

fn common(
    kind: &str,
    job: &wire::Job,
    size: Option<String>,
    picture: &Bytes,
    format: Format,
) -> Value {
    json!({
        "type": kind,
        "b64_json": STANDARD.encode(picture),
        "created_at": job.submitted_ms / 1_000,
        "size": size,
        "quality": "auto",
        "background": "opaque",
        "output_format": format.name(),
    })
}
