//! `/api/v1`, the operator's part: settings and their history, members, the trail, what a peer finds about itself.
//!
//! Each act is one that `atelier` does by gRPC too, and stands in the trail. Its body has to be sent as JSON, which a
//! page of another site cannot do without asking first, and it is told no.

use super::call::Call;
use super::error::{Fault, Problem};
use super::fields::Fields;
use super::query::Query;
use super::{Front, job, ok};
use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::atelier_server::Atelier;
use axum::Router;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tonic::transport::server::TcpConnectInfo;

type Answer = Result<Response, Problem>;

const PAUSED: &str = "queue.paused";
/// Records of the trail that are told where no limit is asked for.
const TRAIL_DEFAULT: u32 = 100;

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/api/v1/config", get(config).patch(set_config))
        .route("/api/v1/config/history", get(history))
        .route("/api/v1/trail", get(trail))
        .route("/api/v1/findings", get(findings))
        .route("/api/v1/queue/pause", post(pause))
        .route("/api/v1/queue/resume", post(unpause))
        .route("/api/v1/members/{node}/drain", post(drain))
        .route("/api/v1/members/{node}/resume", post(resume))
        .route("/api/v1/cluster/transfer-leader", post(transfer_leader))
        .method_not_allowed_fallback(super::api::wrong_method)
}

/// The body of an act, and who asks for it: as it says, else from which address.
async fn act(front: &Front, request: Request) -> Result<(Fields, wire::Author), Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
        let got = kind.unwrap_or("none");
        let text = format!(
            "Content-Type: expected application/json, got {got}; send a JSON body, {{}} at least"
        );
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "unsupported_media_type", text));
    }
    let address = address(&request);
    let (_, mut fields, _) = Call::fields(front, request).await?;
    let who = fields.text("who").or_else(|| address.map(|address| address.to_string()));
    let why = fields.text("why").unwrap_or_default();
    Ok((fields, wire::Author { who: who.unwrap_or_default(), why, at_ms: 0 }))
}

fn address(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0)
}

async fn config(State(front): State<Front>, uri: Uri) -> Answer {
    let request = super::api::asked(wire::GetSettingsRequest {}, &Query::of(&uri)?);
    Ok(ok(&job::config(front.gateway.get_settings(request).await?.get_ref())))
}

async fn set_config(State(front): State<Front>, request: Request) -> Answer {
    let (mut fields, author) = act(&front, request).await?;
    let changes = changes(&mut fields);
    let expected_version = fields.number("expect_version");
    fields.end()?;
    let settings =
        set(&front, wire::SetSettingsRequest { expected_version, changes, author: Some(author) });
    Ok(ok(&job::config(&settings.await?)))
}

async fn set(
    front: &Front,
    request: wire::SetSettingsRequest,
) -> Result<wire::SettingsReply, Problem> {
    Ok(front.gateway.set_settings(tonic::Request::new(request)).await?.into_inner())
}

/// What `set` asks to change: a number or a flag for each key, and null for its default.
fn changes(fields: &mut Fields) -> Vec<wire::SettingChange> {
    use wire::setting_value::Value::{Flag, Number};
    let Some(Value::Object(asked)) = fields.value("set").cloned() else {
        let message =
            "set: expected an object of keys and values, such as {\"queue.jobs_max\": 5000}"
                .to_owned();
        fields.fault("set", message, "missing");
        return Vec::new();
    };
    let mut changes = Vec::new();
    for (key, value) in asked {
        let value = match value {
            Value::Null => None,
            Value::Bool(flag) => Some(Flag(flag)),
            Value::Number(ref number) if number.is_u64() => number.as_u64().map(Number),
            other => {
                let expected =
                    "expected a whole number from 0 on, true, false, or null for the default";
                fields.fault("set", format!("set: {key}: {expected}, got {other}"), "value_error");
                continue;
            }
        };
        let value = value.map(|value| wire::SettingValue { value: Some(value) });
        changes.push(wire::SettingChange { key, value });
    }
    changes
}

async fn history(State(front): State<Front>, uri: Uri) -> Answer {
    let request = super::api::asked(wire::SettingsHistoryRequest {}, &Query::of(&uri)?);
    let history = front.gateway.settings_history(request).await?.into_inner();
    let versions: Vec<Value> = history.versions.iter().map(version).collect();
    Ok(ok(&json!({ "versions": versions })))
}

fn version(version: &wire::SettingsVersion) -> Value {
    let before: BTreeMap<&str, Value> = version
        .before
        .iter()
        .map(|change| (change.key.as_str(), job::value(change.value)))
        .collect();
    let change = |change: &wire::SettingChange| {
        json!({
            "key": change.key,
            "before": before.get(change.key.as_str()),
            "after": job::value(change.value),
        })
    };
    let changes: Vec<Value> = version.after.iter().map(change).collect();
    let author = version.author.clone().unwrap_or_default();
    json!({
        "version": version.version,
        "at_ms": author.at_ms,
        "who": author.who,
        "why": author.why,
        "changes": changes,
    })
}

async fn trail(State(front): State<Front>, uri: Uri) -> Answer {
    let query = Query::of(&uri)?;
    let limit = match query.get("limit").map(str::parse) {
        None => TRAIL_DEFAULT,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => {
            let message = "limit: expected a number; 0 is for all that are kept".to_owned();
            let fault = Fault { field: "limit".to_owned(), message, kind: "value_error" };
            return Err(Problem::invalid(vec![fault]));
        }
    };
    let request = super::api::asked(wire::TrailRequest { limit }, &query);
    let trail = front.gateway.trail(request).await?.into_inner();
    let record = |record: &wire::TrailRecord| {
        let author = record.author.clone().unwrap_or_default();
        json!({
            "log_index": record.log_index,
            "act": record.act,
            "at_ms": author.at_ms,
            "who": author.who,
            "why": author.why,
        })
    };
    Ok(ok(&json!({ "records": trail.records.iter().map(record).collect::<Vec<_>>() })))
}

async fn findings(State(front): State<Front>) -> Answer {
    let examined = front.gateway.examine(tonic::Request::new(wire::ExamineRequest {})).await?;
    let examined = examined.into_inner();
    let level = |finding: &wire::Finding| match finding.level() {
        wire::FindingLevel::Unspecified => "unknown",
        wire::FindingLevel::Ok => "ok",
        wire::FindingLevel::Warn => "warn",
        wire::FindingLevel::Fail => "fail",
    };
    let finding = |finding: &wire::Finding| {
        json!({
            "check": finding.check,
            "level": level(finding),
            "found": finding.found,
            "fix": finding.fix,
        })
    };
    let findings: Vec<Value> = examined.findings.iter().map(finding).collect();
    Ok(ok(&json!({ "node": examined.node, "wall_ms": examined.wall_ms, "findings": findings })))
}

async fn pause(State(front): State<Front>, request: Request) -> Answer {
    set_paused(&front, request, true).await
}

async fn unpause(State(front): State<Front>, request: Request) -> Answer {
    set_paused(&front, request, false).await
}

async fn set_paused(front: &Front, request: Request, paused: bool) -> Answer {
    let (fields, author) = act(front, request).await?;
    fields.end()?;
    let value = wire::SettingValue { value: Some(wire::setting_value::Value::Flag(paused)) };
    let changes = vec![wire::SettingChange { key: PAUSED.to_owned(), value: Some(value) }];
    let author = Some(author);
    set(front, wire::SetSettingsRequest { expected_version: None, changes, author }).await?;
    let stats = front.gateway.queue_stats(tonic::Request::new(wire::QueueStatsRequest {})).await?;
    Ok(ok(&job::queue(stats.get_ref())))
}

async fn drain(State(front): State<Front>, node: Path<String>, request: Request) -> Answer {
    set_draining(&front, &node, request, true).await
}

async fn resume(State(front): State<Front>, node: Path<String>, request: Request) -> Answer {
    set_draining(&front, &node, request, false).await
}

async fn set_draining(front: &Front, node: &str, request: Request, draining: bool) -> Answer {
    let (mut fields, author) = act(front, request).await?;
    let node = node.parse().unwrap_or_else(|_| {
        let message = format!("node: expected the id of a member in the path, got {node:?}");
        fields.fault("node", message, "int_type");
        0
    });
    fields.end()?;
    let request = wire::SetMemberRequest {
        node,
        draining: Some(draining),
        author: Some(author),
        ..wire::SetMemberRequest::default()
    };
    let member = front.gateway.set_member(tonic::Request::new(request)).await?;
    Ok(ok(&job::member(member.get_ref())))
}

async fn transfer_leader(State(front): State<Front>, request: Request) -> Answer {
    let caller = TcpConnectInfo { local_addr: None, remote_addr: address(&request) };
    let (mut fields, _) = act(&front, request).await?;
    let node = fields.number("to").unwrap_or(0);
    fields.end()?;
    let mut request = tonic::Request::new(wire::TransferLeaderRequest { node });
    // The message names no author, so the trail has the caller's address.
    request.extensions_mut().insert(caller);
    let moved = front.gateway.transfer_leader(request).await?;
    Ok(ok(&json!({ "leader": moved.get_ref().leader })))
}
