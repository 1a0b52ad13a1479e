//! Refusals as HTTP tells them: one judgement, and the body of each dialect.
//!
//! | gRPC | HTTP | what a client may do |
//! |---|---|---|
//! | INVALID_ARGUMENT | 400 | mend the request |
//! | NOT_FOUND | 404 | look for the id |
//! | FAILED_PRECONDITION | 409 | look at the state; a repeat is refused again |
//! | ALREADY_EXISTS | 422 | the idempotency key belongs to another body: use a new one |
//! | RESOURCE_EXHAUSTED | 429 where the tenant's bound is reached, else 503 | wait for `Retry-After` |
//! | UNAVAILABLE | 503 | wait for `Retry-After`, or ask another peer |
//! | DEADLINE_EXCEEDED | 504 | the outcome is not known: repeat under the same key |

use crate::gateway::error::{BOUND_KEY, LEADER_KEY, RETRY_AFTER_KEY};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tonic::{Code, Status};

/// Seconds to wait where every call that may be open is.
const RETRY_BUSY_S: u32 = 1;

/// What was wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Its name; empty for the body as a whole.
    pub(super) field: String,
    /// What was expected, what came, what to do.
    pub(super) message: String,
    /// A word for programs, as pydantic has them.
    pub(super) kind: &'static str,
}

/// Why a call is refused or failed.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// A word for programs.
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) faults: Vec<Fault>,
    pub(super) retry_after_s: Option<u32>,
    /// Whose bound is reached.
    pub(super) bound: Option<&'static str>,
    leader: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        let faults = Vec::new();
        Self { status, code, message, faults, retry_after_s: None, bound: None, leader: None }
    }

    /// A request that cannot be served as it is, with every fault.
    pub(super) fn invalid(faults: Vec<Fault>) -> Self {
        let words: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
        let problem = Self::new(StatusCode::BAD_REQUEST, "invalid_argument", words.join("; "));
        Self { faults, ..problem }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// Every call that may be open is.
    pub(super) fn busy(open: usize) -> Self {
        let text = format!("{open} calls are open at this peer, its bound; try another, or later");
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text);
        Self { retry_after_s: Some(RETRY_BUSY_S), bound: Some("calls"), ..problem }
    }

    /// The job came to an end without a picture; drawing it again is for its client to decide.
    pub(super) fn ended(status: StatusCode, code: &'static str, message: String) -> Self {
        Self::new(status, code, message)
    }

    /// In our own words.
    pub(super) fn own(&self) -> Response {
        self.answer(&json!({ "error": { "code": self.code, "message": self.message } }))
    }

    /// As OpenAI's library reads it; `x-should-retry` tells it what a repeat would do.
    pub(super) fn openai(&self) -> Response {
        let mut response = self.answer(&self.openai_body());
        let retries = HeaderValue::from_static(if self.is_passing() { "true" } else { "false" });
        response.headers_mut().insert(HeaderName::from_static("x-should-retry"), retries);
        response
    }

    pub(super) fn openai_body(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let field = self.faults.first().map(|fault| fault.field.as_str());
        let param = field.filter(|field| !field.is_empty());
        json!({ "error": {
            "message": self.message, "type": kind, "param": param, "code": self.code,
        } })
    }

    /// As stable-diffusion-webui answers: FastAPI's shapes.
    pub(super) fn sdapi(&self) -> Response {
        if self.status == StatusCode::BAD_REQUEST {
            let detail = |fault: &Fault| {
                json!({
                    "loc": ["body", fault.field],
                    "msg": fault.message,
                    "type": fault.kind,
                })
            };
            let mut details: Vec<Value> = self.faults.iter().map(detail).collect();
            if details.is_empty() {
                details
                    .push(json!({ "loc": ["body"], "msg": self.message, "type": "value_error" }));
            }
            let problem = Problem { status: StatusCode::UNPROCESSABLE_ENTITY, ..self.clone() };
            return problem.answer(&json!({ "detail": details }));
        }
        if self.status.is_server_error() {
            let body = json!({
                "error": self.code, "detail": self.message, "body": "", "errors": self.message,
            });
            return self.answer(&body);
        }
        self.answer(&json!({ "detail": self.message }))
    }

    /// As the Open Inference Protocol has it.
    pub(super) fn kserve(&self) -> Response {
        self.answer(&json!({ "error": self.message }))
    }

    /// Whether the same call may succeed in a moment.
    fn is_passing(&self) -> bool {
        self.retry_after_s.is_some() || self.status == StatusCode::GATEWAY_TIMEOUT
    }

    fn answer(&self, body: &Value) -> Response {
        let mut response = super::reply(self.status, body);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            if let Some(bound) = self.bound {
                let text = format!("\"{bound}\";r=0;t={seconds}");
                let text = HeaderValue::try_from(text).ok();
                headers.extend(text.map(|text| (HeaderName::from_static("ratelimit"), text)));
            }
        }
        let leader = self.leader.as_deref().and_then(|leader| HeaderValue::from_str(leader).ok());
        headers.extend(leader.map(|leader| (HeaderName::from_static("x-leader"), leader)));
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.own()
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let text = |key| status.metadata().get(key).and_then(|value| value.to_str().ok());
        let bound = match text(BOUND_KEY) {
            Some("tenant") => Some("tenant"),
            Some(_) => Some("queue"),
            None => None,
        };
        let (http, code) = match status.code() {
            Code::InvalidArgument => (StatusCode::BAD_REQUEST, "invalid_argument"),
            Code::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Code::FailedPrecondition => (StatusCode::CONFLICT, "failed_precondition"),
            Code::AlreadyExists => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_conflict"),
            Code::ResourceExhausted if bound == Some("tenant") => {
                (StatusCode::TOO_MANY_REQUESTS, "tenant_full")
            }
            Code::ResourceExhausted => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let retry_after_s = text(RETRY_AFTER_KEY).and_then(|seconds| seconds.parse().ok());
        let leader = text(LEADER_KEY).map(str::to_owned);
        Self { retry_after_s, bound, leader, ..Self::new(http, code, status.message()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::error::refused;
    use atelier_state::{JobId, Refusal};

    fn told(refusal: Refusal) -> (u16, Option<u32>) {
        let problem = Problem::from(refused(&refusal));
        (problem.status.as_u16(), problem.retry_after_s)
    }

    #[test]
    fn a_refusal_says_who_has_to_act_and_when() {
        assert_eq!(told(Refusal::TenantFull(3)), (429, Some(5)));
        assert_eq!(told(Refusal::QueueFull(3)), (503, Some(5)));
        assert_eq!(told(Refusal::IdempotencyConflict(JobId(7))), (422, None));
        assert_eq!(told(Refusal::Terminal), (409, None));
        assert_eq!(told(Refusal::UnknownJob), (404, None));
    }

    #[test]
    fn a_full_bound_is_told_in_the_headers_of_the_draft() {
        let response = Problem::from(refused(&Refusal::TenantFull(3))).own();
        assert_eq!(response.headers()["ratelimit"], "\"tenant\";r=0;t=5");
        assert_eq!(response.headers()["retry-after"], "5");
    }
}
