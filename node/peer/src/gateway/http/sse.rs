//! Server-sent events: what happens to jobs, told so that a stream can go on at another peer.
//!
//! An event's id is `<log index>-<number>`: whoever reconnects with `Last-Event-ID` to any peer is
//! answered from a state that is at least as new. Facts are told as they are then; a step that was
//! missed is not told again, for the newest is as good as all.

use super::call::Call;
use super::error::Problem;
use super::job::{self, is_terminal};
use super::{Front, Open};
use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::atelier_server::Atelier;
use axum::body::Body;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use std::convert::Infallible;
use tonic::{Request, Status};

/// Jobs that one stream follows; more are refused, since each follows a worker.
pub(super) const JOBS_MAX: usize = 64;
/// Milliseconds before a browser reconnects.
const RETRY_MS: u32 = 1_000;

/// What became of one job so far, to tell what is new.
struct Teller {
    phase: wire::Phase,
    token: u64,
    told: u64,
    position: u64,
    step: Option<(u64, String, u32, u32)>,
}

/// Where a client stood: the log index of the last event that it has seen.
pub(super) fn last_event(call: &Call) -> u64 {
    let id = call.header("last-event-id").unwrap_or_default();
    id.split('-').next().and_then(|index| index.parse().ok()).unwrap_or(0)
}

impl Front {
    /// Streams the events of jobs until each has ended.
    ///
    /// # Errors
    /// When a job is not known, or this peer lags behind what the client has seen elsewhere.
    pub(super) async fn events(
        &self,
        call: Call,
        job_ids: &[String],
        previews: bool,
    ) -> Result<Response, Problem> {
        let mut streams = Vec::new();
        for job_id in job_ids {
            let after_index = last_event(&call);
            let job_id = job_id.clone();
            let request = wire::WatchRequest { job_id, after_index, previews };
            let events = self.gateway.watch(Request::new(request)).await?.into_inner();
            streams.push(told(events));
        }
        let first = stream::iter([format!("retry: {RETRY_MS}\n\n")]);
        Ok(answer(first.chain(stream::select_all(streams)), call.open))
    }
}

/// Answers with a stream of events; the call counts as open until it ends.
pub(super) fn answer(
    events: impl Stream<Item = String> + Send + 'static,
    open: Option<Open>,
) -> Response {
    let body = events.map(move |text| {
        let _counted = &open;
        Ok::<_, Infallible>(Bytes::from(text))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (StatusCode::OK, headers, Body::from_stream(body)).into_response()
}

/// One event as the wire has it.
pub(super) fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn told(events: BoxStream<'static, Result<wire::JobEvent, Status>>) -> BoxStream<'static, String> {
    let teller =
        Teller { phase: wire::Phase::Unspecified, token: 0, told: 0, position: 0, step: None };
    let tell = |teller: &mut Teller, event: Result<wire::JobEvent, Status>| {
        let text = match event {
            Ok(event) => teller.tell(event),
            Err(status) => {
                let problem = Problem::from(status);
                let body = json!({ "code": problem.code, "message": problem.message });
                event_lost(&body)
            }
        };
        std::future::ready(Some(text))
    };
    events.scan(teller, tell).boxed()
}

/// The stream breaks off, the job does not: whoever reconnects hears the rest.
fn event_lost(body: &Value) -> String {
    event("lost", body)
}

impl Teller {
    fn tell(&mut self, happened: wire::JobEvent) -> String {
        let wire::JobEvent { job, log_index, progress, preview } = happened;
        let Some(job) = job else { return ": alive\n\n".to_owned() };
        let step = progress.as_ref().map(|p| (p.token, p.stage.clone(), p.image, p.step));
        let names = self.names(&job, step.as_ref());
        (self.phase, self.token) = (job.phase(), job.token);
        (self.position, self.step) = (job.position, step);
        let mut text = String::new();
        for name in names {
            self.told += 1;
            let mut data = json!({ "job": job::job(&job) });
            data["progress"] = progress.as_ref().map_or(Value::Null, job::progress);
            if name == "step" && !preview.is_empty() {
                let png = STANDARD.encode(&preview);
                data["preview"] = json!(format!("data:image/png;base64,{png}"));
            }
            text += &format!("id: {log_index}-{}\n{}", self.told, event(name, &data));
        }
        if text.is_empty() { ": alive\n\n".to_owned() } else { text }
    }

    /// What is new, oldest first.
    fn names(&self, job: &wire::Job, step: Option<&(u64, String, u32, u32)>) -> Vec<&'static str> {
        let phase = job.phase();
        let mut names = Vec::new();
        let moved = self.phase != phase || self.token != job.token;
        // A step that came with the job's end is of the attempt that ended.
        if step.is_some() && step != self.step.as_ref() && !moved {
            names.push("step");
        }
        if moved || (phase == wire::Phase::Queued && self.position != job.position) {
            names.push(match phase {
                wire::Phase::Queued if job.leases > 0 => "retrying",
                wire::Phase::Leased if job.leases > 1 && !is_terminal(self.phase) => "restarted",
                wire::Phase::Leased => "started",
                wire::Phase::Succeeded => "completed",
                wire::Phase::Failed => "failed",
                wire::Phase::Cancelled => "cancelled",
                wire::Phase::Queued | wire::Phase::Unspecified => "queued",
            });
        }
        if moved && phase == wire::Phase::Leased && step.is_some() {
            names.push("step");
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(phase: wire::Phase, leases: u32, token: u64) -> wire::Job {
        let job_id = "J".to_owned();
        wire::Job { job_id, phase: phase.into(), leases, token, ..wire::Job::default() }
    }

    fn teller() -> Teller {
        let step = None;
        Teller { phase: wire::Phase::Unspecified, token: 0, told: 0, position: 0, step }
    }

    fn happened(job: wire::Job, step: Option<u32>) -> wire::JobEvent {
        let progress = |step| wire::Progress {
            token: job.token,
            stage: "denoise".to_owned(),
            step,
            steps: 4,
            ..wire::Progress::default()
        };
        let progress = step.map(progress);
        wire::JobEvent { job: Some(job), log_index: 9, progress, ..wire::JobEvent::default() }
    }

    fn heads(text: &str) -> Vec<String> {
        text.lines()
            .filter(|l| l.starts_with("id") || l.starts_with("ev"))
            .map(Into::into)
            .collect()
    }

    #[test]
    fn a_jobs_life_is_told_in_words_with_ids_that_rise() {
        use wire::Phase::{Leased, Queued, Succeeded};
        let mut teller = teller();
        let mut told = |job, step| heads(&teller.tell(happened(job, step)));
        assert_eq!(told(job(Queued, 0, 0), None), ["id: 9-1", "event: queued"]);
        assert_eq!(told(job(Leased, 1, 5), None), ["id: 9-2", "event: started"]);
        assert_eq!(told(job(Leased, 1, 5), Some(1)), ["id: 9-3", "event: step"]);
        assert!(told(job(Leased, 1, 5), Some(1)).is_empty(), "nothing is new");
        assert_eq!(told(job(Queued, 1, 5), None), ["id: 9-4", "event: retrying"]);
        assert_eq!(told(job(Leased, 2, 8), None), ["id: 9-5", "event: restarted"]);
        assert_eq!(told(job(Succeeded, 2, 8), Some(4)), ["id: 9-6", "event: completed"]);
    }

    #[test]
    fn a_preview_comes_with_its_step_alone() {
        let mut teller = teller();
        teller.tell(happened(job(wire::Phase::Leased, 1, 5), None));
        let mut event = happened(job(wire::Phase::Leased, 1, 5), Some(2));
        event.preview = Bytes::from_static(b"png");
        assert!(teller.tell(event).contains("\"preview\":\"data:image/png;base64,cG5n\""));
    }
}
