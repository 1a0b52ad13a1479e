//! `/v1`: what OpenAI's libraries speak, as far as pictures go.
//!
//! The libraries repeat a call that failed, with `x-stainless-retry-count` and no idempotency key.
//! So the key of each job begins with its caller and its body, and a repeat looks, at any peer, for the
//! newest job with such a key, and waits for that one instead of drawing twice.

mod stream;

use super::call::{Call, digits};
use super::error::Problem;
use super::fields::Fields;
use super::format::Format;
use super::infotext::{self, MODEL};
use super::order::Order;
use super::parts::Parts;
use super::source::{self, Given, Picture};
use super::{Front, api, ok, reply};
use crate::gateway::DEADLINE_DEFAULT;
use crate::gateway::grpc::beside;
use atelier_proto::client::v1 as wire;
use atelier_state::{Job, State as Replicated};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// What the idempotency keys of these calls begin with.
const KEY: &str = "openai:";
/// A job that ended longer ago is not what a repeated call asks for.
const ENDED_MS: u64 = 120_000;
/// Pictures of one call.
const IMAGES_MAX: u32 = 10;
/// Partial pictures of one call.
const PARTIALS_MAX: u32 = 3;
/// How the events of a call's stream are named.
const GENERATION: &str = "image_generation";
const EDIT: &str = "image_edit";

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/v1/images/generations", post(generations))
        .route("/v1/images/edits", post(edits))
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(model))
}

/// A call, read.
struct Asked {
    order: Order,
    /// Addresses instead of bytes.
    urls: bool,
    format: Format,
    is_async: bool,
    streams: bool,
    partials: u32,
    /// The first word of its events.
    events: &'static str,
}

/// What a call's pictures are sent as.
#[derive(Clone)]
struct Form {
    urls: bool,
    format: Format,
    /// Where the client believes this peer to be.
    base: String,
    begun: std::time::Duration,
    /// The first word of its events.
    events: &'static str,
}

async fn generations(State(front): State<Front>, request: Request) -> Response {
    match draw(&front, request).await {
        Ok(response) => response,
        Err(problem) => problem.openai(),
    }
}

async fn draw(front: &Front, request: Request) -> Result<Response, Problem> {
    let begun = front.gateway.clock.now();
    let (call, mut fields, body) = Call::fields(front, request).await?;
    let asked = asked(front, &mut fields, &call)?;
    fields.end()?;
    run(front, call, asked, &body, begun).await
}

async fn edits(State(front): State<Front>, request: Request) -> Response {
    match edit(&front, request).await {
        Ok(response) => response,
        Err(problem) => problem.openai(),
    }
}

/// Draws a picture anew, all of it, or where its mask is transparent.
async fn edit(front: &Front, request: Request) -> Result<Response, Problem> {
    let begun = front.gateway.clock.now();
    let (mut call, mut parts) = Parts::read(front, request).await?;
    let (image, mask) = (parts.picture("image")?, parts.picture("mask")?);
    let Parts { mut fields, name, .. } = parts;
    let mut asked = asked(front, &mut fields, &call)?;
    if image.is_none() {
        let message = "image: expected a picture to begin from, got none; send it as a file";
        fields.fault("image", message.to_owned(), "missing");
    }
    // The parts of a picture that are drawn anew are drawn whole: their mask says where.
    let strength = fields.float("strength").unwrap_or(if mask.is_some() { 1.0 } else { 0.0 });
    fields.end()?;
    let mask = match mask {
        Some(mask) => source::mask_of("mask", mask).await?,
        None => None,
    };
    let given = Given { image: image.map(Picture::Sent), mask, strength };
    asked.order.source = front.source(&mut call, given).await?;
    asked.events = EDIT;
    run(front, call, asked, name.as_bytes(), begun).await
}

/// Draws what a call asks for; `body` is what makes it this one.
async fn run(
    front: &Front,
    call: Call,
    asked: Asked,
    body: &[u8],
    begun: std::time::Duration,
) -> Result<Response, Problem> {
    let keys = format!("{KEY}{}:{}:", call.caller, digits(body));
    let unique = call.request_name(body);
    let new_key = || {
        let unique = unique.clone().unwrap_or_else(|| front.gateway.new_job_id().to_string());
        asked.order.key.clone().unwrap_or_else(|| format!("{keys}{unique}"))
    };
    let submit = async || {
        let order = Order { key: Some(new_key()), ..asked.order.clone() };
        match asked.is_async {
            true => front.submit(&call, order).await,
            false => front.submit_held(&call, order).await,
        }
    };
    let retries = call.header("x-stainless-retry-count").and_then(|count| count.parse().ok());
    let is_repeat = retries.unwrap_or(0_u32) > 0 && asked.order.key.is_none();
    let known = if is_repeat { attach(front, keys.clone()).await? } else { None };
    let accepted = match known.clone() {
        Some(known) => known,
        None => submit().await?,
    };
    if asked.is_async {
        return Ok(accepted_only(&accepted));
    }
    let Asked { urls, format, events, .. } = asked;
    let form = Form { urls, format, base: call.base(), begun, events };
    if asked.streams {
        return stream::answer(front, call, &accepted, form, asked.partials).await;
    }
    let job = match front.wait(&accepted, true).await {
        // The peer that had the first call gave it up a moment before this one took it over.
        Err(problem) if known.is_some() && problem.code == "cancelled" => {
            let again = submit().await?;
            front.wait(&again, true).await?
        }
        other => other?,
    };
    finished(front, &job, &form).await
}

fn asked(front: &Front, fields: &mut Fields, call: &Call) -> Result<Asked, Problem> {
    let prompt = fields.text("prompt");
    if prompt.as_deref().is_none_or(|prompt| prompt.trim().is_empty()) {
        let message = "prompt: expected a text, got nothing; say what to draw".to_owned();
        fields.fault("prompt", message, "missing");
    }
    let images = fields.small("n").unwrap_or(1);
    if !(1..=IMAGES_MAX).contains(&images) {
        let message =
            format!("n {images}: expected 1 to {IMAGES_MAX}; make several calls for more");
        fields.fault("n", message, "value_error");
    }
    let partials = fields.small("partial_images").unwrap_or(0);
    if partials > PARTIALS_MAX {
        let message = format!("partial_images {partials}: expected 0 to {PARTIALS_MAX}");
        fields.fault("partial_images", message, "value_error");
    }
    let (width, height) = size(fields);
    one_of(fields, "response_format", &["b64_json", "url"]);
    let format = Format::read(fields);
    one_of(fields, "background", &["auto", "opaque"]);
    let steps = fields.small("num_inference_steps").or_else(|| fields.small("steps"));
    let scale = fields.float("guidance_scale").unwrap_or(0.0);
    let negative_prompt = fields.text("negative_prompt").unwrap_or_default();
    let order = Order {
        prompt: prompt.unwrap_or_default(),
        width,
        height,
        steps: steps.unwrap_or(0),
        seed: fields.seed("seed"),
        images,
        key: call.idempotency_key()?,
        priority: fields.number("priority"),
        deadline_s: fields.small("deadline_s").unwrap_or(0),
        guidance: front.guidance(scale, &negative_prompt),
        ..Order::default()
    };
    Ok(Asked {
        order,
        urls: fields.text("response_format").as_deref() == Some("url"),
        format,
        is_async: fields.flag("async").unwrap_or(false),
        streams: fields.flag("stream").unwrap_or(false),
        partials,
        events: GENERATION,
    })
}

fn one_of(fields: &mut Fields, name: &str, known: &[&str]) {
    let Some(got) = fields.text(name) else { return };
    if !known.contains(&got.as_str()) {
        let message = format!("{name}: expected one of {}, got {got:?}", known.join(", "));
        fields.fault(name, message, "value_error");
    }
}

fn size(fields: &mut Fields) -> (u32, u32) {
    let text = fields.text("size").unwrap_or_default();
    if text.is_empty() || text == "auto" {
        return (0, 0);
    }
    let sides = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides.unwrap_or_else(|| {
        let message = format!("size: expected \"auto\" or such as \"512x512\", got {text:?}");
        fields.fault("size", message, "value_error");
        (0, 0)
    })
}

/// The job of the call that this one repeats, where it goes on, or has just ended well.
async fn attach(front: &Front, keys: String) -> Result<Option<wire::SubmitReply>, Problem> {
    // What another peer accepted may not be known here yet.
    if let Ok(last) = front.gateway.leader.last_index(DEADLINE_DEFAULT).await {
        front.gateway.catch_up(last).await;
    }
    let (state, now_ms) = (front.gateway.view().state, front.gateway.clock.wall_ms());
    Ok(beside(move || newest(&state, &keys, now_ms)).await?)
}

fn newest(state: &Replicated, keys: &str, now_ms: u64) -> Option<wire::SubmitReply> {
    let is_own =
        |job: &&Job| job.submit.idempotency_key.as_deref().is_some_and(|key| key.starts_with(keys));
    let leased = state.leases().filter_map(|(id, _)| state.job(id));
    let queued = state.queued().map(|(_, job)| job);
    let is_recent = |job: &&Job| now_ms.saturating_sub(job.finished_ms) <= ENDED_MS;
    let ended = state.succeeded().rev().map(|(_, job)| job).take_while(is_recent);
    let own = leased.chain(queued).chain(ended).filter(is_own);
    let job = own.max_by_key(|job| job.sequence)?;
    tracing::debug!(job = %job.id(), "a repeated call takes over its job");
    let (job_id, log_index) = (job.id().to_string(), job.accepted.0);
    Some(wire::SubmitReply { job_id, duplicate: true, log_index })
}

fn accepted_only(accepted: &wire::SubmitReply) -> Response {
    let id = &accepted.job_id;
    let body = json!({ "id": id, "object": "job", "url": format!("/api/v1/jobs/{id}") });
    let mut response = reply(StatusCode::ACCEPTED, &body);
    let id = HeaderValue::try_from(id).ok();
    response.headers_mut().extend(id.map(|id| (HeaderName::from_static("x-job-id"), id)));
    response
}

async fn finished(front: &Front, job: &wire::Job, form: &Form) -> Result<Response, Problem> {
    let mut data = Vec::new();
    let mut size = None;
    for artifact in &job.artifacts {
        if form.urls {
            let query = match form.format {
                Format::Png => String::new(),
                Format::Jpeg(quality) => format!("?format=jpeg&quality={quality}"),
                Format::Webp => "?format=webp".to_owned(),
            };
            let url = format!("{}/api/v1/artifacts/{}{query}", form.base, artifact.digest);
            data.push(json!({ "url": url }));
        } else {
            let png = front.picture(&artifact.digest).await?;
            size = size.or_else(|| size_of(&png));
            let sent = form.format.of(front, png).await?;
            data.push(json!({ "b64_json": STANDARD.encode(&sent) }));
        }
    }
    let created = job.submitted_ms / 1_000;
    let format = form.format.name();
    let body = json!({ "created": created, "data": data, "output_format": format, "size": size });
    let mut response = ok(&body);
    tell(front, job, form, &mut response);
    Ok(response)
}

fn size_of(png: &Bytes) -> Option<String> {
    infotext::size_of(png).map(|(width, height)| format!("{width}x{height}"))
}

/// Says in the library's headers what came of the call.
fn tell(front: &Front, job: &wire::Job, form: &Form, response: &mut Response) {
    api::tell_job(front, job, response);
    let took = front.gateway.clock.now().saturating_sub(form.begun).as_millis().to_string();
    for (name, value) in [("x-request-id", &job.job_id), ("openai-processing-ms", &took)] {
        let value = HeaderValue::try_from(value).ok();
        response.headers_mut().extend(value.map(|value| (HeaderName::from_static(name), value)));
    }
}

/// The names of what draws: the one for people, and the one with the hash of its files.
fn names(front: &Front) -> Vec<String> {
    let own = Some(front.model(0)).filter(|name| !name.is_empty());
    std::iter::once(MODEL.to_owned()).chain(own).collect()
}

fn told(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "atelier" })
}

async fn models(State(front): State<Front>) -> Response {
    let data: Vec<Value> = names(&front).iter().map(|name| told(name)).collect();
    ok(&json!({ "object": "list", "data": data }))
}

async fn model(State(front): State<Front>, Path(asked): Path<String>) -> Response {
    let names = names(&front);
    match names.iter().find(|name| **name == asked) {
        Some(name) => ok(&told(name)),
        None => {
            let text = format!("no model {asked:?}; there is {}", names.join(" and "));
            Problem::not_found(text).openai()
        }
    }
}
