//! What tools ask before they draw: the model, samplers, options, and the lists that are empty here.

use super::hash_of;
use crate::gateway::http::call::Call;
use crate::gateway::http::error::{Fault, Problem};
use crate::gateway::http::infotext::{MODEL, SAMPLER};
use crate::gateway::http::{Front, ok};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use serde_json::{Map, Value, json};

/// Lists of what this model has none of.
const EMPTY_LISTS: [&str; 10] = [
    "sd-vae",
    "latent-upscale-modes",
    "loras",
    "hypernetworks",
    "face-restorers",
    "realesrgan-models",
    "prompt-styles",
    "script-info",
    "extensions",
    "sd-modules",
];

pub(super) fn router() -> Router<Front> {
    let mut router = Router::new()
        .route("/sdapi/v1/options", get(options).post(set_options))
        .route("/sdapi/v1/sd-models", get(models))
        .route("/sdapi/v1/samplers", get(samplers))
        .route("/sdapi/v1/schedulers", get(schedulers))
        .route("/sdapi/v1/upscalers", get(upscalers))
        .route("/sdapi/v1/scripts", fixed(json!({ "txt2img": [], "img2img": [] })))
        .route("/sdapi/v1/embeddings", fixed(json!({ "loaded": {}, "skipped": {} })))
        .route("/sdapi/v1/cmd-flags", fixed(json!({})))
        .route("/sdapi/v1/memory", get(memory))
        .route("/sdapi/v1/refresh-checkpoints", post(refreshed))
        .route("/sdapi/v1/refresh-vae", post(refreshed))
        .route("/sdapi/v1/refresh-loras", post(refreshed));
    for name in EMPTY_LISTS {
        router = router.route(&format!("/sdapi/v1/{name}"), fixed(json!([])));
    }
    router
}

fn fixed(body: Value) -> MethodRouter<Front> {
    get(async move || ok(&body))
}

/// What tools show for the model, and send back to choose it.
fn title(front: &Front) -> String {
    match hash_of(&front.model(0)).as_str() {
        "" => MODEL.to_owned(),
        hash => format!("{MODEL} [{hash}]"),
    }
}

async fn options(State(front): State<Front>) -> Response {
    ok(&json!({
        "sd_model_checkpoint": title(&front),
        "sd_checkpoint_hash": hash_of(&front.model(0)),
        "samples_format": "png",
        "CLIP_stop_at_last_layers": 1,
    }))
}

/// Takes what is so already. The model is the cluster's, not a caller's.
async fn set_options(State(front): State<Front>, request: Request) -> Response {
    let result = async {
        let (_, mut fields, _) = Call::fields(&front, request).await?;
        let asked = fields.text("sd_model_checkpoint").unwrap_or_default().to_lowercase();
        fields.end()?;
        let (title, model) = (title(&front), front.model(0));
        let is_known =
            [title.as_str(), MODEL, &model].iter().any(|name| name.to_lowercase() == asked);
        if !asked.is_empty() && !is_known {
            let message = format!(
                "sd_model_checkpoint: expected {title:?}, got {asked:?}; the model is the whole \
                 cluster's, and a caller cannot change it"
            );
            let field = "sd_model_checkpoint".to_owned();
            return Err(Problem::invalid(vec![Fault { field, message, kind: "value_error" }]));
        }
        Ok::<_, Problem>(ok(&Value::Null))
    };
    result.await.unwrap_or_else(|problem| problem.sdapi())
}

async fn models(State(front): State<Front>) -> Response {
    let model = front.model(0);
    ok(&json!([{
        "title": title(&front),
        "model_name": MODEL,
        "hash": hash_of(&model),
        "sha256": null,
        "filename": model,
        "config": null,
    }]))
}

async fn samplers() -> Response {
    // The second is the default of clients; the model's own is used in its stead.
    let sampler =
        |name: &str, alias: &str| json!({ "name": name, "aliases": [alias], "options": {} });
    ok(&json!([sampler(SAMPLER, "euler"), sampler("Euler a", "euler_a")]))
}

async fn schedulers() -> Response {
    ok(&json!([{
        "name": "automatic",
        "label": "Automatic",
        "aliases": null,
        "default_rho": -1.0,
        "need_inner_model": false,
    }]))
}

async fn upscalers() -> Response {
    ok(&json!([{
        "name": "None", "model_name": null, "model_path": null, "model_url": null, "scale": 4,
    }]))
}

/// This process's memory is the engine's affair; what is not measured is told as nothing.
async fn memory() -> Response {
    let nothing = json!({ "free": 0, "used": 0, "total": 0 });
    ok(&json!({ "ram": nothing, "cuda": { "system": nothing, "events": {} } }))
}

async fn refreshed() -> Response {
    ok(&Value::Null)
}

/// The pairs of an infotext's last line.
pub(super) fn parameters_of(text: &str) -> Value {
    let mut pairs = Map::new();
    let Some((prompt, line)) = text.rsplit_once('\n') else { return Value::Object(pairs) };
    pairs.insert("Prompt".to_owned(), json!(prompt));
    for pair in line.split(", ") {
        if let Some((key, value)) = pair.split_once(": ") {
            pairs.insert(key.to_owned(), json!(value));
        }
    }
    Value::Object(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_infotext_is_taken_apart() {
        let told = parameters_of("a cat,\non a mat\nSteps: 9, Seed: 42, Size: 64x64");
        let expect = json!({
            "Prompt": "a cat,\non a mat", "Steps": "9", "Seed": "42", "Size": "64x64",
        });
        assert_eq!(told, expect);
        assert_eq!(parameters_of(""), json!({}));
    }
}
