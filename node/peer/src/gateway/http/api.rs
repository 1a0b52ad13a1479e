//! `/api/v1`: our own dialect. Jobs, their events and pictures, the cluster, the queue.

use super::artifact::{self, Entity};
use super::call::{Call, PICTURE_BODY_BYTES_MAX, digits};
use super::error::{Fault, Problem};
use super::fields::Fields;
use super::format::Format;
use super::infotext;
use super::job::{self, phase_of};
use super::order::Order;
use super::query::Query;
use super::source::Given;
use super::sse::JOBS_MAX;
use super::{Front, ok, reply};
use crate::gateway::STALE_KEY;
use crate::parameters::PICTURES_LEVEL;
use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::atelier_server::Atelier;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tonic::metadata::MetadataValue;

type Answer = Result<Response, Problem>;

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/api/v1/jobs", get(list).post(submit))
        .route("/api/v1/jobs/{id}", get(one).delete(cancel))
        .route("/api/v1/jobs/{id}/cancel", post(cancel))
        .route("/api/v1/jobs/{id}/retry", post(retry))
        .route("/api/v1/jobs/{id}/events", get(events))
        .route("/api/v1/jobs/{id}/images/{index}", get(image))
        .route("/api/v1/events", get(all_events))
        .route("/api/v1/artifacts", post(put))
        .route("/api/v1/artifacts/{digest}", get(bytes))
        .route("/api/v1/cluster", get(cluster))
        .route("/api/v1/queue", get(queue))
        .method_not_allowed_fallback(wrong_method)
}

pub(super) async fn wrong_method(request: Request) -> Response {
    let text = format!("{} is not for this path; GET /openapi.json says what is", request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text).own()
}

async fn submit(State(front): State<Front>, request: Request) -> Answer {
    let (mut call, mut fields, body) = Call::fields_with_pictures(&front, request).await?;
    let given = Given::read(&mut fields);
    let mut order = order(&mut fields, call.key(&body)?);
    let waits = fields.flag("wait").unwrap_or(false);
    fields.end()?;
    drop(body);
    order.source = front.source(&mut call, given).await?;
    let accepted = front.submit(&call, order).await?;
    let id = accepted.job_id.clone();
    let (status, told) = if waits {
        // Whoever submits a job by its own name asked for the job, and waiting is a convenience.
        (StatusCode::OK, front.wait(&accepted, false).await?)
    } else {
        front.gateway.catch_up(atelier_state::LogIndex(accepted.log_index)).await;
        let request = tonic::Request::new(wire::GetJobRequest { job_id: id.clone() });
        let job = front.gateway.get_job(request).await;
        // The job is accepted, whether or not this peer knows it by now.
        let unseen = || wire::Job {
            job_id: id.clone(),
            phase: wire::Phase::Queued.into(),
            log_index: accepted.log_index,
            ..wire::Job::default()
        };
        (StatusCode::ACCEPTED, job.map_or_else(|_| unseen(), tonic::Response::into_inner))
    };
    let mut response = reply(status, &job::job(&told));
    tell_job(&front, &told, &mut response);
    let headers = response.headers_mut();
    let location = HeaderValue::try_from(format!("/api/v1/jobs/{id}")).ok();
    headers.extend(location.map(|location| (header::LOCATION, location)));
    if accepted.duplicate {
        let replayed = HeaderName::from_static("idempotent-replayed");
        headers.insert(replayed, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn order(fields: &mut Fields, key: Option<String>) -> Order {
    let prompt = fields.text("prompt");
    if prompt.as_deref().is_none_or(|prompt| prompt.trim().is_empty()) {
        let message = "prompt: expected a text, got nothing; say what to draw".to_owned();
        fields.fault("prompt", message, "missing");
    }
    Order {
        prompt: prompt.unwrap_or_default(),
        width: fields.small("width").unwrap_or(0),
        height: fields.small("height").unwrap_or(0),
        steps: fields.small("steps").unwrap_or(0),
        seed: fields.seed("seed"),
        images: fields.small("count").unwrap_or(1),
        job_id: fields.text("id").unwrap_or_default(),
        key,
        tenant: fields.text("tenant").unwrap_or_default(),
        priority: fields.number("priority"),
        deadline_s: fields.small("deadline_s").unwrap_or(0),
        max_runtime_s: fields.small("max_runtime_s").unwrap_or(0),
        guidance: guidance(fields),
        source: None,
    }
}

fn guidance(fields: &mut Fields) -> Option<wire::Guidance> {
    let scale = fields.float("guidance").filter(|scale| *scale != 0.0);
    let negative_prompt = fields.text("negative_prompt").unwrap_or_default();
    if scale.is_none() && !negative_prompt.is_empty() {
        let message = "negative_prompt: expected guidance beside it, got none; give guidance, such \
                       as 4, or leave both out";
        fields.fault("negative_prompt", message.to_owned(), "value_error");
    }
    scale.map(|scale| wire::Guidance { scale: scale as f32, negative_prompt })
}

/// Says in headers which job it was, and what became of it.
pub(super) fn tell_job(front: &Front, job: &wire::Job, response: &mut Response) {
    let pairs = [
        ("x-job-id", job.job_id.clone()),
        ("x-attempt", job.leases.to_string()),
        ("x-model-version", front.model(job.node)),
        ("x-queue-position", job.position.to_string()),
    ];
    for (name, value) in pairs {
        let value = HeaderValue::try_from(value).ok();
        response.headers_mut().extend(value.map(|value| (HeaderName::from_static(name), value)));
    }
}

/// A call of the gateway; where the query says so it is answered by what this peer knows, however old.
pub(super) fn asked<T>(message: T, query: &Query) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if query.says("stale") {
        request.metadata_mut().insert(STALE_KEY, MetadataValue::from_static("1"));
    }
    request
}

async fn list(State(front): State<Front>, uri: Uri) -> Answer {
    let query = Query::of(&uri)?;
    let mut faults = Vec::new();
    let mut fault = |field: &str, message: String| {
        faults.push(Fault { field: field.to_owned(), message, kind: "value_error" });
    };
    let mut phases = Vec::new();
    for name in query.all("phase").flat_map(|names| names.split(',')) {
        match phase_of(name) {
            Some(phase) => phases.push(i32::from(phase)),
            None => {
                let expected = "expected queued, running, succeeded, failed or cancelled";
                fault("phase", format!("phase: {expected}, got {name:?}"));
            }
        }
    }
    let limit = match query.get("limit").map(str::parse) {
        None => 0,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => {
            fault("limit", "limit: expected a number from 1 to 1000".to_owned());
            0
        }
    };
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    let after = query.get("after").unwrap_or_default().to_owned();
    let request = asked(wire::ListJobsRequest { phases, limit, after }, &query);
    let listed = front.gateway.list_jobs(request).await?.into_inner();
    let jobs: Vec<_> = listed.jobs.iter().map(job::job).collect();
    let next = Some(listed.next).filter(|next| !next.is_empty());
    Ok(ok(&json!({ "jobs": jobs, "total": listed.total, "next": next })))
}

async fn one(State(front): State<Front>, Path(job_id): Path<String>, uri: Uri) -> Answer {
    let request = asked(wire::GetJobRequest { job_id }, &Query::of(&uri)?);
    let found = front.gateway.get_job(request).await?.into_inner();
    let mut response = ok(&job::job(&found));
    tell_job(&front, &found, &mut response);
    Ok(response)
}

async fn cancel(State(front): State<Front>, Path(job_id): Path<String>) -> Answer {
    let request = tonic::Request::new(wire::CancelJobRequest { job_id });
    Ok(ok(&job::job(front.gateway.cancel_job(request).await?.get_ref())))
}

async fn retry(State(front): State<Front>, Path(job_id): Path<String>) -> Answer {
    let request = tonic::Request::new(wire::RetryJobRequest { job_id });
    let accepted = front.gateway.retry_job(request).await?.into_inner();
    let body = json!({ "id": accepted.job_id, "log_index": accepted.log_index });
    let mut response = reply(StatusCode::ACCEPTED, &body);
    let location = HeaderValue::try_from(format!("/api/v1/jobs/{}", accepted.job_id)).ok();
    response.headers_mut().extend(location.map(|location| (header::LOCATION, location)));
    Ok(response)
}

async fn events(
    State(front): State<Front>,
    Path(job_id): Path<String>,
    request: Request,
) -> Answer {
    let query = Query::of(request.uri())?;
    let (call, _) = Call::split(request);
    front.events(call, &[job_id], query.says("previews")).await
}

/// One stream for a page: browsers open six connections to a host.
async fn all_events(State(front): State<Front>, request: Request) -> Answer {
    let query = Query::of(request.uri())?;
    let jobs = query.all("jobs").flat_map(|ids| ids.split(',')).filter(|id| !id.is_empty());
    let jobs: Vec<String> = jobs.map(str::to_owned).collect();
    if !(1..=JOBS_MAX).contains(&jobs.len()) {
        let got = jobs.len();
        let message =
            format!("jobs: expected 1 to {JOBS_MAX} ids, got {got}; GET /api/v1/events?jobs=ID,ID");
        let fault = Fault { field: "jobs".to_owned(), message, kind: "value_error" };
        return Err(Problem::invalid(vec![fault]));
    }
    let (call, _) = Call::split(request);
    front.events(call, &jobs, query.says("previews")).await
}

/// Takes a picture to begin from.
async fn put(State(front): State<Front>, request: Request) -> Answer {
    let (_call, body) = Call::read(&front, request, PICTURE_BODY_BYTES_MAX).await?;
    let (kept, (width, height)) = front.gateway.put_picture(body).await?;
    let location = format!("/api/v1/artifacts/{}", kept.digest);
    let body = json!({
        "digest": kept.digest,
        "bytes": kept.bytes,
        "media_type": kept.media_type,
        "width": width,
        "height": height,
    });
    let mut response = reply(StatusCode::CREATED, &body);
    let location = HeaderValue::try_from(location).ok();
    response.headers_mut().extend(location.map(|location| (header::LOCATION, location)));
    Ok(response)
}

async fn bytes(
    State(front): State<Front>,
    Path(digest): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let format = format(&Query::of(&uri)?)?;
    let bytes = front.picture(&digest).await?;
    let Some(format) = format.filter(|format| *format != Format::Png) else {
        let media_type = front.media_type(&digest, &bytes);
        return Ok(artifact::serve(Entity { bytes, media_type, tag: digest }, &headers));
    };
    let tag = match format {
        Format::Jpeg(quality) => format!("{digest}-jpeg-{quality}"),
        other => format!("{digest}-{}", other.name()),
    };
    let bytes = format.of(&front, bytes).await?;
    let media_type = format.media_type().to_owned();
    Ok(artifact::serve(Entity { bytes, media_type, tag }, &headers))
}

/// The format that a query asks for.
fn format(query: &Query) -> Result<Option<Format>, Problem> {
    let Some(name) = query.get("format") else { return Ok(None) };
    let quality = query.get("quality").map(|text| {
        text.parse().ok().filter(|quality| (1..=100).contains(quality)).ok_or_else(|| {
            let message = format!("quality: expected 1 to 100, got {text:?}");
            let fault = Fault { field: "quality".to_owned(), message, kind: "value_error" };
            Problem::invalid(vec![fault])
        })
    });
    let format = Format::named(name, quality.transpose()?);
    format.map(Some).ok_or_else(|| {
        let message = format!("format: expected png, jpeg or webp, got {name:?}");
        let fault = Fault { field: "format".to_owned(), message, kind: "value_error" };
        Problem::invalid(vec![fault])
    })
}

/// A picture of a job by its number, with the text that says how to draw it again.
async fn image(
    State(front): State<Front>,
    Path((job_id, index)): Path<(String, usize)>,
    headers: HeaderMap,
) -> Answer {
    let request = tonic::Request::new(wire::GetJobRequest { job_id });
    let found = front.gateway.get_job(request).await?.into_inner();
    let Some(named) = found.artifacts.get(index) else {
        let (id, count) = (&found.job_id, found.artifacts.len());
        let phase = job::phase_name(found.phase());
        let text =
            format!("job {id} is {phase} and has {count} pictures, so none of index {index}");
        return Err(Problem::not_found(text));
    };
    let bytes = front.picture(&named.digest).await?;
    let asked = job::picture_of(&found);
    let text = infotext::infotext(&asked, u32::try_from(index).unwrap_or(u32::MAX), &bytes);
    let (bytes, media_type) = (infotext::with_text(&bytes, &text), named.media_type.clone());
    // The text follows from the job, so the two digests name these bytes.
    let tag = format!("{}-{}", named.digest, digits(text.as_bytes()));
    let mut response = artifact::serve(Entity { bytes, media_type, tag }, &headers);
    tell_job(&front, &found, &mut response);
    Ok(response)
}

async fn cluster(State(front): State<Front>) -> Answer {
    let status = front.gateway.status(tonic::Request::new(wire::StatusRequest {})).await?;
    let status = status.get_ref();
    let mut told = job::cluster(status);
    told["takes"] = json!({
        "image": status.features >= PICTURES_LEVEL,
        "guidance": front.engine().is_some_and(|info| info.guided),
    });
    Ok(ok(&told).into_response())
}

async fn queue(State(front): State<Front>, uri: Uri) -> Answer {
    let request = asked(wire::QueueStatsRequest {}, &Query::of(&uri)?);
    Ok(ok(&job::queue(front.gateway.queue_stats(request).await?.get_ref())))
}

impl Front {
    /// What the job that has it calls an artifact. One that no job has as its result is a picture to begin from.
    fn media_type(&self, digest: &str, bytes: &[u8]) -> String {
        let view = self.gateway.view();
        let known = digest.parse().ok().and_then(|digest| {
            view.state.artifact_holders(&digest).map(|artifact| artifact.media_type.clone())
        });
        let unnamed = match infotext::size_of(bytes) {
            Some(_) => "image/png",
            None => "application/octet-stream",
        };
        known.unwrap_or_else(|| unnamed.to_owned())
    }
}
