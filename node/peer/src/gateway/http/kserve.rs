//! `/v2`: the Open Inference Protocol of KServe and Triton.
//!
//! Inputs are `prompt` (BYTES), and where they are given `seed`, `steps`, `width`, `height` and
//! `images`; outputs are `image` (BYTES, a PNG each, base64 in JSON) and `seed`. The binary extension
//! is spoken both ways, because Triton's client uses it unless it is told not to.

mod tensors;

use super::call::{BODY_BYTES_MAX, Call};
use super::error::{Fault, Problem};
use super::fields::Fields;
use super::infotext::MODEL;
use super::job::picture_of;
use super::order::Order;
use super::{Front, api, ok, reply};
use atelier_proto::client::v1 as wire;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tensors::{Tensors, bytes_tensor};

/// Bytes of the JSON before binary tensors.
const HEADER_LENGTH: &str = "inference-header-content-length";

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(model))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}", get(version))
        .route("/v2/models/{model}/versions/{version}/ready", get(version_ready))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer_version))
}

async fn server() -> Response {
    let extensions = ["binary_tensor_data"];
    ok(
        &json!({ "name": "atelier", "version": env!("CARGO_PKG_VERSION"), "extensions": extensions }),
    )
}

async fn live() -> Response {
    ok(&json!({ "live": true }))
}

async fn ready(State(front): State<Front>) -> Response {
    let reasons = front.probes.health.reasons();
    let status = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    reply(status, &json!({ "ready": reasons.is_empty(), "reasons": reasons }))
}

/// The version of the model: the hash of its files.
fn version_of(front: &Front) -> String {
    let model = front.model(0);
    model.rsplit_once('@').map_or("1", |(_, hash)| hash).to_owned()
}

/// Refuses a model, or a version of it, that is not here.
fn check(front: &Front, model: &str, version: Option<&str>) -> Result<(), Problem> {
    let own = front.model(0);
    if model != MODEL && model != own {
        let text = format!("no model {model:?}; there is {MODEL:?}");
        return Err(Problem::not_found(text));
    }
    let known = version_of(front);
    // "1" is what clients write who know of no versions.
    if version.is_some_and(|version| version != known && version != "1") {
        let text = format!("no version {version:?} of {model:?}; there is {known:?}");
        return Err(Problem::not_found(text));
    }
    Ok(())
}

fn described(front: &Front, model: &str, version: Option<&str>) -> Response {
    if let Err(problem) = check(front, model, version) {
        return problem.kserve();
    }
    let tensor = |name: &str, datatype: &str, shape: i64| {
        json!({
            "name": name,
            "datatype": datatype,
            "shape": [shape],
        })
    };
    ok(&json!({
        "name": model,
        "versions": [version_of(front)],
        "platform": "atelier",
        "inputs": [
            tensor("prompt", "BYTES", 1),
            tensor("seed", "INT64", 1),
            tensor("steps", "INT32", 1),
            tensor("width", "INT32", 1),
            tensor("height", "INT32", 1),
            tensor("images", "INT32", 1),
        ],
        "outputs": [tensor("image", "BYTES", -1), tensor("seed", "INT64", -1)],
    }))
}

async fn model(State(front): State<Front>, Path(model): Path<String>) -> Response {
    described(&front, &model, None)
}

async fn version(
    State(front): State<Front>,
    Path((model, version)): Path<(String, String)>,
) -> Response {
    described(&front, &model, Some(&version))
}

async fn model_ready(front: State<Front>, Path(model): Path<String>) -> Response {
    match check(&front, &model, None) {
        Ok(()) => ready(front).await,
        Err(problem) => problem.kserve(),
    }
}

async fn version_ready(
    front: State<Front>,
    Path((model, version)): Path<(String, String)>,
) -> Response {
    match check(&front, &model, Some(&version)) {
        Ok(()) => ready(front).await,
        Err(problem) => problem.kserve(),
    }
}

async fn infer(
    State(front): State<Front>,
    Path(model): Path<String>,
    request: Request,
) -> Response {
    let drawn = draw(&front, &model, None, request).await;
    drawn.unwrap_or_else(|problem| problem.kserve())
}

async fn infer_version(
    State(front): State<Front>,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Response {
    let drawn = draw(&front, &model, Some(&version), request).await;
    drawn.unwrap_or_else(|problem| problem.kserve())
}

async fn draw(
    front: &Front,
    model: &str,
    version: Option<&str>,
    request: Request,
) -> Result<Response, Problem> {
    check(front, model, version)?;
    let (call, body) = Call::read(front, request, BODY_BYTES_MAX).await?;
    let (json, binary) = parts(&call, &body)?;
    let mut fields = Fields::read(json)?;
    let id = fields.text("id").unwrap_or_default();
    let is_binary = asks_for_binary(&fields);
    let mut tensors = Tensors::read(fields.value("inputs"), binary)?;
    let order = Order {
        prompt: tensors.text("prompt")?.unwrap_or_default(),
        seed: tensors.number("seed")?,
        steps: tensors.small("steps")?.unwrap_or(0),
        width: tensors.small("width")?.unwrap_or(0),
        height: tensors.small("height")?.unwrap_or(0),
        images: tensors.small("images")?.unwrap_or(1),
        key: call.key(&body)?,
        ..Order::default()
    };
    if order.prompt.trim().is_empty() {
        let message = "inputs: expected a tensor \"prompt\" of BYTES, got none; say what to draw";
        fields.fault("inputs", message.to_owned(), "missing");
    }
    fields.end()?;
    let accepted = front.submit_held(&call, order).await?;
    let job = front.wait(&accepted, true).await?;
    let pictures = front.pictures(&job).await?;
    let head = json!({ "model_name": model, "model_version": version_of(front), "id": id });
    let mut response = match is_binary {
        true => binary_answer(head, &job, &pictures),
        false => json_answer(head, &job, &pictures),
    };
    api::tell_job(front, &job, &mut response);
    Ok(response)
}

/// The JSON of a body, and the binary tensors behind it.
fn parts<'a>(call: &Call, body: &'a Bytes) -> Result<(&'a [u8], &'a [u8]), Problem> {
    let Some(length) = call.header(HEADER_LENGTH) else { return Ok((body, &[])) };
    let split = length.parse().ok().and_then(|length: usize| body.split_at_checked(length));
    split.ok_or_else(|| {
        let got = body.len();
        let message = format!(
            "Inference-Header-Content-Length: expected the bytes of the JSON within the body's {got}, \
             got {length:?}"
        );
        let (field, kind) = (String::new(), "value_error");
        Problem::invalid(vec![Fault { field, message, kind }])
    })
}

fn asks_for_binary(fields: &Fields) -> bool {
    let says = |parameters: Option<&Value>, name: &str| {
        parameters.and_then(|all| all.get(name)).and_then(Value::as_bool).unwrap_or(false)
    };
    let outputs = fields.value("outputs").and_then(Value::as_array);
    let mut named = outputs.into_iter().flatten();
    named.any(|output| says(output.get("parameters"), "binary_data"))
        || says(fields.value("parameters"), "binary_data_output")
}

fn seeds(job: &wire::Job, count: usize) -> Value {
    let first = picture_of(job).seed;
    let seeds: Vec<u64> = (0..count as u64).map(|at| first.saturating_add(at)).collect();
    json!({ "name": "seed", "datatype": "INT64", "shape": [count], "data": seeds })
}

fn json_answer(mut head: Value, job: &wire::Job, pictures: &[Bytes]) -> Response {
    let data: Vec<String> = pictures.iter().map(|png| STANDARD.encode(png)).collect();
    let parameters = json!({ "content_type": "image/png", "encoding": "base64" });
    let image = json!({
        "name": "image", "datatype": "BYTES", "shape": [data.len()], "data": data,
        "parameters": parameters,
    });
    head["outputs"] = json!([image, seeds(job, pictures.len())]);
    ok(&head)
}

fn binary_answer(mut head: Value, job: &wire::Job, pictures: &[Bytes]) -> Response {
    let tensor = bytes_tensor(pictures);
    let image = json!({
        "name": "image", "datatype": "BYTES", "shape": [pictures.len()],
        "parameters": { "binary_data_size": tensor.len(), "content_type": "image/png" },
    });
    head["outputs"] = json!([image, seeds(job, pictures.len())]);
    let mut body = head.to_string().into_bytes();
    let length = HeaderValue::from(body.len());
    body.extend_from_slice(&tensor);
    let mut response = Bytes::from(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(HeaderName::from_static(HEADER_LENGTH), length);
    response
}
