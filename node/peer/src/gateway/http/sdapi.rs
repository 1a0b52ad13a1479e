//! `/sdapi/v1`: what tools of stable-diffusion-webui speak.
//!
//! Their calls carry no job id, so a caller's jobs are found by their idempotency key, which begins
//! with the caller: progress, interrupt and skip concern the caller's own jobs, at any peer, and
//! never those of others. The model has one sampler, and Turbo no guidance: `steps` is honoured, what
//! the model cannot do is left out and said in `extra_generation_params`.

mod facts;
mod progress;

use super::call::{Call, PICTURE_BODY_BYTES_MAX, digits};
use super::error::Problem;
use super::fields::Fields;
use super::infotext::{self, MODEL, SAMPLER};
use super::job::{picture_of, strength_of};
use super::order::Order;
use super::source::{self, Given, Picture};
use super::{Front, api, ok};
use crate::gateway::convert::{STEPS_ASKED_MAX, TENANT_DEFAULT};
use crate::gateway::pictures;
use crate::parameters::{IMAGES_MAX, STRENGTH_MIN};
use atelier_proto::client::v1 as wire;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// What the idempotency keys of these calls begin with.
const KEY: &str = "sdapi:";
/// How much of a picture is drawn anew where the client does not say; the webui's own default.
const DENOISING_DEFAULT: f64 = 0.75;

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/sdapi/v1/txt2img", post(txt2img))
        .route("/sdapi/v1/img2img", post(img2img))
        .route("/sdapi/v1/extra-single-image", post(unsupported))
        .route("/sdapi/v1/extra-batch-images", post(unsupported))
        .route("/sdapi/v1/interrogate", post(unsupported))
        .route("/sdapi/v1/png-info", post(png_info))
        .merge(progress::router())
        .merge(facts::router())
}

/// The calls of one caller.
fn keys_of(call: &Call) -> String {
    format!("{KEY}{}:", call.caller)
}

/// The key of a task that the client named.
fn key_of_task(call: &Call, task: &str) -> String {
    format!("{}task-{}", keys_of(call), digits(task.as_bytes()))
}

/// The key of a call: by the task that the client named, by its proxy's id, else a new one.
fn key(front: &Front, call: &Call, fields: &mut Fields, body: &[u8]) -> String {
    let task = fields.text("force_task_id").filter(|task| !task.is_empty());
    match task {
        Some(task) => key_of_task(call, &task),
        None => {
            let new = || front.gateway.new_job_id().to_string();
            format!("{}{}", keys_of(call), call.request_name(body).unwrap_or_else(new))
        }
    }
}

/// A call, and what of it the model cannot do.
struct Asked {
    order: Order,
    sends_images: bool,
    negative_prompt: String,
    /// How many pictures there are to a batch, as the client counts.
    batch_size: u32,
    notes: Map<String, Value>,
}

async fn txt2img(State(front): State<Front>, request: Request) -> Response {
    match draw(&front, request).await {
        Ok(response) => response,
        Err(problem) => problem.sdapi(),
    }
}

async fn draw(front: &Front, request: Request) -> Result<Response, Problem> {
    let (call, mut fields, body) = Call::fields(front, request).await?;
    let echo = fields.echo();
    let mut asked = asked(front, &mut fields);
    asked.order.key = Some(key(front, &call, &mut fields, &body));
    fields.end()?;
    finish(front, &call, &asked, echo).await
}

async fn finish(
    front: &Front,
    call: &Call,
    asked: &Asked,
    echo: Value,
) -> Result<Response, Problem> {
    let accepted = front.submit_held(call, asked.order.clone()).await?;
    let job = front.wait(&accepted, true).await?;
    let pictures = front.pictures(&job).await?;
    let body = answer(front, &job, asked, &pictures, echo);
    let mut response = ok(&body);
    api::tell_job(front, &job, &mut response);
    Ok(response)
}

async fn img2img(State(front): State<Front>, request: Request) -> Response {
    match redraw(&front, request).await {
        Ok(response) => response,
        Err(problem) => problem.sdapi(),
    }
}

async fn redraw(front: &Front, request: Request) -> Result<Response, Problem> {
    let (mut call, mut fields, body) = Call::fields_with_pictures(front, request).await?;
    let key = key(front, &call, &mut fields, &body);
    drop(body);
    let (given, notes) = given(&mut fields).await?;
    // Without the pictures, as the webui leaves them out.
    let echo = fields.echo();
    let has_size = ["width", "height"].map(|side| fields.value(side).is_some());
    let mut asked = asked(front, &mut fields);
    asked.notes.extend(notes);
    fields.end()?;
    // What is left open is the picture's own, not the model's.
    let [has_width, has_height] = has_size;
    asked.order.width = if has_width { asked.order.width } else { 0 };
    asked.order.height = if has_height { asked.order.height } else { 0 };
    asked.order.key = Some(key);
    asked.order.source = front.source(&mut call, given).await?;
    finish(front, &call, &asked, echo).await
}

/// The picture to begin from, its mask, and what of the call the model cannot do.
async fn given(fields: &mut Fields) -> Result<(Given, Map<String, Value>), Problem> {
    let mut notes = Map::new();
    let sent = match fields.take("init_images") {
        Some(Value::Array(images)) => images,
        _ => Vec::new(),
    };
    if sent.len() > 1 {
        notes.insert("init_images".to_owned(), json!(format!("the first of {} used", sent.len())));
    }
    let Some(first) = sent.into_iter().next() else {
        return Err(Problem::not_found("Init image not found"));
    };
    let image = first.as_str().and_then(source::in_base64);
    if image.is_none() {
        let message = "init_images: expected pictures in base64, got something else".to_owned();
        fields.fault("init_images", message, "value_error");
    }
    let mut mask = source::picture(fields, "mask");
    if fields.flag_or_number("inpainting_mask_invert")
        && let Some(Picture::Sent(sent)) = mask
    {
        let inverted = source::changed("mask", sent, pictures::inverted).await?;
        mask = Some(Picture::Sent(inverted));
    }
    if fields.small("resize_mode").unwrap_or(0) != 0 {
        notes.insert("resize_mode".to_owned(), json!("0 used: the picture is scaled to the size"));
    }
    if mask.is_some() && fields.flag_or_number("inpaint_full_res") {
        notes.insert("inpaint_full_res".to_owned(), json!("not used: the whole picture is drawn"));
    }
    let strength = fields.float("denoising_strength").unwrap_or(DENOISING_DEFAULT);
    // The webui takes 0, and draws as good as nothing anew.
    let strength = if strength == 0.0 { STRENGTH_MIN } else { strength };
    Ok((Given { image, mask, strength }, notes))
}

fn asked(front: &Front, fields: &mut Fields) -> Asked {
    let mut notes = Map::new();
    let mut note = |name: &str, text: String| {
        notes.insert(name.to_owned(), Value::String(text));
    };
    let engine = front.engine();
    let default = |of: fn(&crate::ports::engine::EngineInfo) -> u32| engine.as_ref().map_or(0, of);
    let steps = match fields.small("steps") {
        Some(steps) if steps > STEPS_ASKED_MAX => {
            note(
                "steps",
                format!("{steps} asked for, {STEPS_ASKED_MAX} drawn, which is the bound"),
            );
            STEPS_ASKED_MAX
        }
        Some(steps) if steps > 0 => steps,
        _ => default(|info| info.default_steps),
    };
    let side = |asked: Option<u32>, default| asked.filter(|side| *side > 0).unwrap_or(default);
    let width = side(fields.small("width"), default(|info| info.default_width));
    let height = side(fields.small("height"), default(|info| info.default_height));
    let batch_size = fields.small("batch_size").unwrap_or(1).max(1);
    let images = batch_size.saturating_mul(fields.small("n_iter").unwrap_or(1).max(1));
    if images > IMAGES_MAX {
        let message = format!(
            "batch_size times n_iter is {images}, expected at most {IMAGES_MAX}; make several calls"
        );
        fields.fault("batch_size", message, "value_error");
    }
    let negative_prompt = fields.text("negative_prompt").unwrap_or_default();
    let scale = fields.value("cfg_scale").and_then(Value::as_f64).unwrap_or(0.0);
    // The webui's number counts the prompt's own prediction.
    let guidance = front.guidance(scale - 1.0, &negative_prompt);
    if guidance.is_none() && !negative_prompt.is_empty() {
        note("negative_prompt", "not used: this model is distilled without guidance".to_owned());
    }
    if guidance.is_none() && scale > 1.0 {
        note("cfg_scale", format!("{scale} asked for, not used: the model has no guidance"));
    }
    let sampler = fields.text("sampler_name").or_else(|| fields.text("sampler_index"));
    if let Some(sampler) = sampler.filter(|sampler| sampler != SAMPLER) {
        note("sampler", format!("{sampler} asked for, {SAMPLER} used, the model's own"));
    }
    let prompt = fields.text("prompt").unwrap_or_default();
    let order = Order {
        prompt,
        width,
        height,
        steps,
        seed: fields.seed("seed"),
        images,
        guidance,
        ..Order::default()
    };
    let sends_images = fields.flag("send_images").unwrap_or(true);
    Asked { order, sends_images, negative_prompt, batch_size, notes }
}

fn answer(front: &Front, job: &wire::Job, asked: &Asked, pictures: &[Bytes], echo: Value) -> Value {
    let drawn = picture_of(job);
    let texts: Vec<String> =
        (0..).zip(pictures).map(|(at, png)| infotext::infotext(&drawn, at, png)).collect();
    let told = |(png, text): (&Bytes, &String)| STANDARD.encode(infotext::with_text(png, text));
    let images: Vec<String> = match asked.sends_images {
        true => pictures.iter().zip(&texts).map(told).collect(),
        false => Vec::new(),
    };
    let size = pictures.first().and_then(|png| infotext::size_of(png));
    let info = info(front, job, asked, &texts, size);
    // Text within text: so the clients read it.
    json!({ "images": images, "parameters": echo, "info": info.to_string() })
}

fn info(
    front: &Front,
    job: &wire::Job,
    asked: &Asked,
    texts: &[String],
    size: Option<(u32, u32)>,
) -> Value {
    let drawn = picture_of(job);
    let count = texts.len();
    let seeds: Vec<u64> = (0..count as u64).map(|at| drawn.seed.saturating_add(at)).collect();
    let (width, height) = size.unwrap_or((drawn.width, drawn.height));
    json!({
        "prompt": drawn.prompt,
        "all_prompts": vec![&drawn.prompt; count],
        "negative_prompt": asked.negative_prompt,
        "all_negative_prompts": vec![&asked.negative_prompt; count],
        "seed": drawn.seed,
        "all_seeds": seeds,
        "subseed": drawn.seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": width,
        "height": height,
        "sampler_name": SAMPLER,
        "cfg_scale": infotext::cfg_scale(&drawn),
        "steps": drawn.steps,
        "batch_size": asked.batch_size,
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": MODEL,
        "sd_model_hash": hash_of(&front.model(job.node)),
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "seed_resize_from_w": 0,
        "seed_resize_from_h": 0,
        "denoising_strength": drawn.source.as_ref().map(strength_of),
        "extra_generation_params": asked.notes,
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "job_timestamp": job.submitted_ms.to_string(),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": false,
        "job_id": job.job_id,
    })
}

/// The short hash of a model called `name@hash`.
fn hash_of(model: &str) -> String {
    let hash = model.rsplit_once('@').map_or("", |(_, hash)| hash);
    hash.chars().take(10).collect()
}

/// What this model cannot do. The body is read, so that its client hears the answer.
async fn unsupported(State(front): State<Front>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let read = Call::read(&front, request, PICTURE_BODY_BYTES_MAX).await;
    let problem = match read {
        Err(problem) => problem,
        Ok(_) => {
            let text = format!(
                "{path}: this model draws pictures, it neither enlarges nor describes them; use /sdapi/v1/txt2img or \
                 /sdapi/v1/img2img"
            );
            Problem::new(StatusCode::NOT_IMPLEMENTED, "NotImplementedError", text)
        }
    };
    problem.sdapi()
}

async fn png_info(State(front): State<Front>, request: Request) -> Response {
    match read_info(&front, request).await {
        Ok(response) => response,
        Err(problem) => problem.sdapi(),
    }
}

async fn read_info(front: &Front, request: Request) -> Result<Response, Problem> {
    let (_, body) = Call::read(front, request, PICTURE_BODY_BYTES_MAX).await?;
    let mut fields = Fields::read(&body)?;
    let image = fields.text("image").unwrap_or_default();
    let base64 = image.rsplit_once("base64,").map_or(image.as_str(), |(_, base64)| base64);
    let png = STANDARD.decode(base64.trim()).ok().filter(|png| !png.is_empty());
    if png.is_none() {
        let message = "image: expected a PNG in base64, got something else".to_owned();
        fields.fault("image", message, "value_error");
    }
    fields.end()?;
    let text = infotext::text_of(&png.unwrap_or_default()).unwrap_or_default();
    let parameters = facts::parameters_of(&text);
    let items = match text.is_empty() {
        true => json!({}),
        false => json!({ "parameters": text }),
    };
    Ok(ok(&json!({ "info": text, "items": items, "parameters": parameters })).into_response())
}
