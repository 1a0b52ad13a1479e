//! `/openapi.json`: what all these paths take and answer, as OpenAPI 3.1.
//!
//! Written down in one table; a test asks the router for each path of it, and compares the document
//! with its golden file, so that a change of the contract is seen.

use super::{Front, ok};
use axum::Router;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Map, Value, json};

/// Method, path, tag, what it does, and the schemas of body and answer; empty where there is none.
type Route = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

/// Every path that programs use.
pub(super) const ROUTES: &[Route] = &[
    (
        "post",
        "/api/v1/jobs",
        "jobs",
        "Submits a job; with wait it answers at its end",
        "Order",
        "Job",
    ),
    (
        "get",
        "/api/v1/jobs",
        "jobs",
        "Lists jobs, newest first: phase, limit, after, stale",
        "",
        "Jobs",
    ),
    ("get", "/api/v1/jobs/{id}", "jobs", "Reads a job", "", "Job"),
    ("delete", "/api/v1/jobs/{id}", "jobs", "Cancels a job", "", "Job"),
    ("post", "/api/v1/jobs/{id}/cancel", "jobs", "Cancels a job", "", "Job"),
    ("post", "/api/v1/jobs/{id}/retry", "jobs", "Submits a failed job again", "", "Accepted"),
    (
        "get",
        "/api/v1/jobs/{id}/events",
        "jobs",
        "Follows a job; resumes by Last-Event-ID",
        "",
        "Events",
    ),
    (
        "get",
        "/api/v1/jobs/{id}/images/{index}",
        "jobs",
        "A picture with its parameters",
        "",
        "Bytes",
    ),
    ("get", "/api/v1/events", "jobs", "Follows several jobs: jobs=ID,ID", "", "Events"),
    (
        "post",
        "/api/v1/artifacts",
        "jobs",
        "Takes a picture to begin from: PNG, JPEG or WebP as it is",
        "Bytes",
        "Kept",
    ),
    (
        "get",
        "/api/v1/artifacts/{digest}",
        "jobs",
        "The bytes of a digest; ranges; as jpeg or webp by format, quality",
        "",
        "Bytes",
    ),
    ("get", "/api/v1/cluster", "cluster", "Members and where this peer stands", "", "Object"),
    ("get", "/api/v1/queue", "cluster", "How full the queue is, and who fills it", "", "Object"),
    (
        "post",
        "/api/v1/queue/pause",
        "cluster",
        "Gives no job out until it is resumed: why",
        "Object",
        "Object",
    ),
    ("post", "/api/v1/queue/resume", "cluster", "Gives jobs out again: why", "Object", "Object"),
    ("get", "/api/v1/config", "cluster", "The settings of the cluster", "", "Object"),
    (
        "patch",
        "/api/v1/config",
        "cluster",
        "Changes settings by compare-and-set: set, expect_version, why",
        "Object",
        "Object",
    ),
    ("get", "/api/v1/config/history", "cluster", "Who changed what, and why", "", "Object"),
    ("get", "/api/v1/trail", "cluster", "What operators did, newest first: limit", "", "Object"),
    ("get", "/api/v1/findings", "cluster", "What this peer finds wrong, and the fix", "", "Object"),
    (
        "post",
        "/api/v1/members/{node}/drain",
        "cluster",
        "Gives a member no new jobs: why",
        "Object",
        "Object",
    ),
    (
        "post",
        "/api/v1/members/{node}/resume",
        "cluster",
        "Gives a member jobs again: why",
        "Object",
        "Object",
    ),
    (
        "post",
        "/api/v1/cluster/transfer-leader",
        "cluster",
        "Hands the lead over: to, or to whoever has come furthest",
        "Object",
        "Object",
    ),
    (
        "post",
        "/sdapi/v1/txt2img",
        "sdapi",
        "Draws, as stable-diffusion-webui does",
        "Txt2Img",
        "Object",
    ),
    (
        "post",
        "/sdapi/v1/img2img",
        "sdapi",
        "Draws a picture anew, as stable-diffusion-webui does",
        "Img2Img",
        "Object",
    ),
    ("get", "/sdapi/v1/progress", "sdapi", "The caller's own job: task_id", "", "Object"),
    ("post", "/sdapi/v1/interrupt", "sdapi", "Cancels the caller's own jobs", "", "Object"),
    ("post", "/sdapi/v1/skip", "sdapi", "Cancels the caller's own jobs", "", "Object"),
    ("get", "/sdapi/v1/options", "sdapi", "Which model draws", "", "Object"),
    ("post", "/sdapi/v1/options", "sdapi", "Takes what is so already", "Object", "Object"),
    ("get", "/sdapi/v1/sd-models", "sdapi", "The model", "", "List"),
    ("get", "/sdapi/v1/samplers", "sdapi", "The sampler", "", "List"),
    ("get", "/sdapi/v1/schedulers", "sdapi", "The noise schedule", "", "List"),
    ("get", "/sdapi/v1/scripts", "sdapi", "None", "", "Object"),
    ("post", "/sdapi/v1/png-info", "sdapi", "Reads a picture's parameters", "Object", "Object"),
    ("post", "/internal/progress", "sdapi", "The progress of a named task", "Object", "Object"),
    ("get", "/internal/pendingTasks", "sdapi", "The caller's own jobs", "", "Object"),
    ("post", "/v1/images/generations", "openai", "Draws, as OpenAI does", "Generation", "Object"),
    (
        "post",
        "/v1/images/edits",
        "openai",
        "Draws a picture anew, as OpenAI does",
        "Edit",
        "Object",
    ),
    ("get", "/v1/models", "openai", "The model", "", "Object"),
    ("get", "/v1/models/{model}", "openai", "The model", "", "Object"),
    ("get", "/v2", "kserve", "The server", "", "Object"),
    ("get", "/v2/health/live", "kserve", "Alive", "", "Object"),
    ("get", "/v2/health/ready", "kserve", "Ready", "", "Object"),
    ("get", "/v2/models/{model}", "kserve", "Inputs and outputs", "", "Object"),
    ("get", "/v2/models/{model}/ready", "kserve", "Ready", "", "Object"),
    ("post", "/v2/models/{model}/infer", "kserve", "Draws", "Object", "Object"),
    (
        "get",
        "/livez",
        "probes",
        "The process turns around; never depends on a quorum",
        "",
        "Object",
    ),
    ("get", "/readyz", "probes", "Whether a client is served here, and why not", "", "Object"),
    ("get", "/startupz", "probes", "Whether it was ready once", "", "Object"),
    ("get", "/health", "probes", "The same as a word", "", "Object"),
    ("get", "/metrics", "probes", "OpenMetrics", "", "Text"),
];

pub(super) fn router() -> Router<Front> {
    Router::new().route("/openapi.json", get(async || -> Response { ok(&document()) }))
}

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.1.to_owned()).or_insert_with(|| json!({}));
        path[route.0] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Atelier",
            "description": "Any peer answers any call. Refusals say what was expected and what came.",
            "version": "1",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

fn operation((method, path, tag, summary, body, answer): &Route) -> Value {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let parameter = |name: &str| {
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "schema": { "type": "string" },
        })
    };
    let mut parameters: Vec<Value> = names.map(parameter).collect();
    let is_sdapi = path.starts_with("/sdapi/v1/");
    let submits = *method == "post" && *tag != "cluster" && !is_sdapi && *body != "Bytes";
    if submits && !body.is_empty() {
        let schema = json!({ "type": "string", "maxLength": 128 });
        parameters.push(json!({ "name": "Idempotency-Key", "in": "header", "schema": schema }));
    }
    let content = |kind: &str, schema: &str| {
        let reference = format!("#/components/schemas/{schema}");
        json!({ (kind): { "schema": { "$ref": reference } } })
    };
    let kind = match *answer {
        "Events" => "text/event-stream",
        "Bytes" => "image/png",
        "Text" => "application/openmetrics-text",
        _ => "application/json",
    };
    let mut operation = json!({
        "tags": [tag],
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "2XX": { "description": "Done", "content": content(kind, answer) },
            "default": { "description": "Refused, in the dialect's own shape" },
        },
    });
    let kind = match *body {
        "Bytes" => "image/png",
        "Edit" => "multipart/form-data",
        _ => "application/json",
    };
    if !body.is_empty() {
        operation["requestBody"] = json!({ "content": content(kind, body) });
    }
    operation
}

fn fields(required: &[&str], fields: &[(&str, &str)]) -> Value {
    let mut properties = Map::new();
    for (name, kind) in fields {
        properties.insert((*name).to_owned(), json!({ "type": [kind, "null"] }));
    }
    json!({ "type": "object", "required": required, "properties": properties })
}

/// What the webui sends besides to draw a picture anew.
const BEGUN: &[(&str, &str)] = &[
    ("init_images", "array"),
    ("mask", "string"),
    ("inpainting_mask_invert", "integer"),
    ("denoising_strength", "number"),
];

/// What OpenAI's calls take.
const OPENAI: &[(&str, &str)] = &[
    ("prompt", "string"),
    ("model", "string"),
    ("n", "integer"),
    ("size", "string"),
    ("response_format", "string"),
    ("output_format", "string"),
    ("output_compression", "integer"),
    ("stream", "boolean"),
    ("partial_images", "integer"),
    ("seed", "integer"),
    ("num_inference_steps", "integer"),
    ("priority", "integer"),
    ("async", "boolean"),
    ("guidance_scale", "number"),
    ("negative_prompt", "string"),
];

/// What an edit takes besides.
const EDIT: &[(&str, &str)] = &[("image", "string"), ("mask", "string"), ("strength", "number")];

/// A picture that is kept.
const KEPT: &[(&str, &str)] = &[
    ("digest", "string"),
    ("bytes", "integer"),
    ("media_type", "string"),
    ("width", "integer"),
    ("height", "integer"),
];

fn schemas() -> Value {
    let picture = [
        ("prompt", "string"),
        ("width", "integer"),
        ("height", "integer"),
        ("steps", "integer"),
        ("seed", "integer"),
    ];
    let more = |extra: &[(&'static str, &'static str)]| [&picture[..], extra].concat();
    let order = more(&[
        ("count", "integer"),
        ("id", "string"),
        ("tenant", "string"),
        ("priority", "integer"),
        ("deadline_s", "integer"),
        ("max_runtime_s", "integer"),
        ("wait", "boolean"),
        ("image", "string"),
        ("mask", "string"),
        ("strength", "number"),
        ("guidance", "number"),
        ("negative_prompt", "string"),
    ]);
    let webui = more(&[
        ("batch_size", "integer"),
        ("n_iter", "integer"),
        ("sampler_name", "string"),
        ("send_images", "boolean"),
        ("force_task_id", "string"),
        ("cfg_scale", "number"),
        ("negative_prompt", "string"),
    ]);
    let webui_begun = [&webui[..], BEGUN].concat();
    let job = more(&[
        ("id", "string"),
        ("phase", "string"),
        ("count", "integer"),
        ("position", "integer"),
        ("attempt", "integer"),
        ("node", "integer"),
        ("log_index", "integer"),
        ("error", "string"),
        ("images", "array"),
        ("image", "string"),
        ("mask", "string"),
        ("strength", "number"),
        ("guidance", "number"),
        ("negative_prompt", "string"),
    ]);
    json!({
        "Order": fields(&["prompt"], &order),
        "Txt2Img": fields(&[], &webui),
        "Img2Img": fields(&["init_images"], &webui_begun),
        "Generation": fields(&["prompt"], OPENAI),
        "Edit": fields(&["prompt", "image"], &[OPENAI, EDIT].concat()),
        "Kept": fields(&["digest"], KEPT),
        "Job": fields(&["id", "phase"], &job),
        "Jobs": fields(&["jobs", "total"], &[("jobs", "array"), ("total", "integer"), ("next", "string")]),
        "Accepted": fields(&["id"], &[("id", "string"), ("log_index", "integer")]),
        "Object": { "type": ["object", "null"] },
        "List": { "type": "array" },
        "Events": { "type": "string" },
        "Text": { "type": "string" },
        "Bytes": { "type": "string", "contentMediaType": "image/png" },
    })
}
