//! How far a caller's own jobs are, and calling them off.

use super::{KEY, TENANT_DEFAULT, key_of_task, keys_of};
use crate::gateway::grpc::beside;
use crate::gateway::http::call::Call;
use crate::gateway::http::error::Problem;
use crate::gateway::http::job::is_terminal;
use crate::gateway::http::query::Query;
use crate::gateway::http::{Front, ok};
use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::atelier_server::Atelier;
use atelier_state::{JobId, State as Replicated};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;

/// For a worker to tell the step of a job; a poll that hears none tells what it knows.
const LOOK_MAX: Duration = Duration::from_millis(400);
/// Jobs of one caller that are called off by one call; of more the next call takes the rest.
const CANCELS_MAX: usize = 256;

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/sdapi/v1/progress", get(progress))
        .route("/sdapi/v1/interrupt", post(interrupt))
        .route("/sdapi/v1/skip", post(skip))
        .route("/internal/progress", post(task_progress))
        .route("/internal/pendingTasks", get(pending))
        .route("/internal/ping", get(ping))
}

async fn ping() -> Response {
    ok(&json!({}))
}

/// The caller's jobs that have not ended, those that are drawn first.
async fn unfinished(front: &Front, call: &Call) -> Result<Vec<JobId>, Problem> {
    let (state, keys) = (front.gateway.view().state, keys_of(call));
    Ok(beside(move || unfinished_of(&state, &keys)).await?)
}

fn unfinished_of(state: &Replicated, keys: &str) -> Vec<JobId> {
    debug_assert!(keys.starts_with(KEY));
    let is_own = |id: &JobId| {
        let key = state.job(*id).and_then(|job| job.submit.idempotency_key.as_deref());
        key.is_some_and(|key| key.starts_with(keys))
    };
    let leased = state.leases().map(|(id, _)| id);
    leased.chain(state.queued().map(|(id, _)| *id)).filter(is_own).take(CANCELS_MAX).collect()
}

/// The job of a task that the caller named.
fn job_of_task(front: &Front, call: &Call, task: &str) -> Option<JobId> {
    let state = front.gateway.view().state;
    state.key_owner(TENANT_DEFAULT, &key_of_task(call, task))
}

/// A job with its newest step, as far as it can be told at once.
async fn look(front: &Front, job: JobId, previews: bool) -> Result<wire::JobEvent, Problem> {
    let request = wire::WatchRequest { job_id: job.to_string(), after_index: 0, previews };
    let mut events = front.gateway.watch(tonic::Request::new(request)).await?.into_inner();
    let mut last: Option<wire::JobEvent> = None;
    let late = front.gateway.clock.sleep(LOOK_MAX);
    tokio::pin!(late);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = &mut late => None,
        };
        match event {
            Some(event) => last = Some(event?),
            None => break,
        }
        let is_told = last.as_ref().is_some_and(|event| {
            let phase = event.job.as_ref().map(wire::Job::phase);
            event.progress.is_some() || phase != Some(wire::Phase::Leased)
        });
        if is_told {
            break;
        }
    }
    Ok(last.unwrap_or_default())
}

async fn progress(State(front): State<Front>, request: Request) -> Response {
    let result = async {
        let query = Query::of(request.uri())?;
        let (call, _) = Call::split(request);
        let jobs = match query.get("task_id") {
            Some(task) => job_of_task(&front, &call, task).into_iter().collect(),
            None => unfinished(&front, &call).await?,
        };
        let previews = !query.says("skip_current_image");
        let event = match jobs.first() {
            Some(job) => look(&front, *job, previews).await?,
            None => wire::JobEvent::default(),
        };
        Ok::<_, Problem>(ok(&told(&event, jobs.len())))
    };
    result.await.unwrap_or_else(|problem| problem.sdapi())
}

/// How much of a job is done, from 0 to 1.
fn share(event: &wire::JobEvent) -> f64 {
    let phase = event.job.as_ref().map_or(wire::Phase::Unspecified, wire::Job::phase);
    if is_terminal(phase) {
        return 1.0;
    }
    let Some(step) = event.progress.as_ref().filter(|step| step.steps > 0) else { return 0.0 };
    let images = event.job.as_ref().map_or(1, |job| super::picture_of(job).images.max(1));
    let of_image = match step.stage.as_str() {
        "denoise" => f64::from(step.step) / f64::from(step.steps),
        "decode" => 1.0,
        _ => 0.0,
    };
    // Done is told by the job's end alone.
    ((f64::from(step.image) + of_image) / f64::from(images)).min(0.99)
}

/// What is left, by what the steps so far have taken.
fn seconds_left(event: &wire::JobEvent) -> f64 {
    let share = share(event);
    let spent_us = event.progress.as_ref().map_or(0, |p| p.encode_us + p.denoise_us + p.decode_us);
    if share <= 0.0 || share >= 1.0 { 0.0 } else { spent_us as f64 / 1e6 * (1.0 / share - 1.0) }
}

fn words(event: &wire::JobEvent) -> Value {
    let Some(job) = &event.job else { return Value::Null };
    match job.phase() {
        wire::Phase::Queued => json!(format!("queued, position {}", job.position)),
        wire::Phase::Leased => json!(format!("on node {}", job.node)),
        _ => Value::Null,
    }
}

fn told(event: &wire::JobEvent, jobs: usize) -> Value {
    let job = event.job.as_ref();
    let is_open = job.is_some_and(|job| !is_terminal(job.phase()));
    let count = if is_open { jobs } else { 0 };
    let step = event.progress.as_ref();
    let image = (!event.preview.is_empty()).then(|| STANDARD.encode(&event.preview));
    json!({
        // Clients wait for exactly 0 and no job.
        "progress": if is_open { share(event) } else { 0.0 },
        "eta_relative": seconds_left(event),
        "state": {
            "skipped": false,
            "interrupted": false,
            "stopping_generation": false,
            "job": job.map_or("", |job| job.job_id.as_str()),
            "job_count": count,
            "job_timestamp": "0",
            "job_no": step.map_or(0, |step| step.image),
            "sampling_step": step.map_or(0, |step| step.step),
            "sampling_steps": step.map_or(0, |step| step.steps),
        },
        "current_image": image,
        "textinfo": words(event),
    })
}

/// Calls off the caller's own jobs.
async fn called_off(front: &Front, request: Request, body: Value) -> Response {
    let (call, _) = Call::split(request);
    let result = async {
        for job in unfinished(front, &call).await? {
            let request = wire::CancelJobRequest { job_id: job.to_string() };
            match front.gateway.cancel_job(tonic::Request::new(request)).await {
                Ok(_) => {}
                // It ended meanwhile, which is what was asked for.
                Err(status) if status.code() == tonic::Code::FailedPrecondition => {}
                Err(status) => return Err(Problem::from(status)),
            }
        }
        Ok::<_, Problem>(ok(&body))
    };
    result.await.unwrap_or_else(|problem| problem.sdapi())
}

async fn interrupt(State(front): State<Front>, request: Request) -> Response {
    called_off(&front, request, json!({})).await
}

async fn skip(State(front): State<Front>, request: Request) -> Response {
    called_off(&front, request, Value::Null).await
}

async fn task_progress(State(front): State<Front>, request: Request) -> Response {
    let result = async {
        let (call, mut fields, _) = Call::fields(&front, request).await?;
        let task = fields.text("id_task").unwrap_or_default();
        let previews = fields.flag("live_preview").unwrap_or(true);
        fields.end()?;
        let event = match job_of_task(&front, &call, &task) {
            Some(job) => look(&front, job, previews).await?,
            None => wire::JobEvent::default(),
        };
        Ok::<_, Problem>(ok(&told_of_task(&event)))
    };
    result.await.unwrap_or_else(|problem| problem.sdapi())
}

fn told_of_task(event: &wire::JobEvent) -> Value {
    let phase = event.job.as_ref().map_or(wire::Phase::Unspecified, wire::Job::phase);
    let preview = |png: &Bytes| format!("data:image/png;base64,{}", STANDARD.encode(png));
    let step = event.progress.as_ref();
    json!({
        "active": phase == wire::Phase::Leased,
        "queued": phase == wire::Phase::Queued,
        "completed": is_terminal(phase),
        "progress": share(event),
        "eta": seconds_left(event),
        "live_preview": (!event.preview.is_empty()).then(|| preview(&event.preview)),
        "id_live_preview": step.map_or(-1, |step| i64::from(step.step)),
        "textinfo": words(event),
    })
}

async fn pending(State(front): State<Front>, request: Request) -> Response {
    let (call, _) = Call::split(request);
    match unfinished(&front, &call).await {
        Ok(jobs) => {
            let tasks: Vec<String> = jobs.iter().map(JobId::to_string).collect();
            ok(&json!({ "size": tasks.len(), "tasks": tasks }))
        }
        Err(problem) => problem.sdapi(),
    }
}
