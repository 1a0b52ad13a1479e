//! What every handler reads off a request: who calls, for which trace, and the body.

use super::error::{Fault, Problem};
use super::fields::Fields;
use super::{Front, Open};
use crate::gateway::pictures::Turn;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of a body that describes a picture. A longer one is refused with 413: the longest prompt is
/// a hundredth of it.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a body that may carry a picture, in base64; a longer one is refused with 413.
pub(super) const PICTURE_BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// For a body to arrive; then the call is refused with 408.
const BODY_MAX: Duration = Duration::from_secs(60);
/// Digits of a caller's name: enough that two callers do not meet.
const CALLER_DIGITS: usize = 16;

/// A request without its body.
pub(super) struct Call {
    pub(super) headers: HeaderMap,
    /// Who calls, as digits of a hash: by the key that it shows, else by its address.
    pub(super) caller: String,
    /// Keeps the call counted; a stream takes it along.
    pub(super) open: Option<Open>,
    /// Held for a body that is longer than a description; to be given back with it.
    pub(super) turn: Option<Turn>,
}

impl Call {
    /// Takes a request apart, the body unread.
    pub(super) fn split(request: Request) -> (Call, Body) {
        let (parts, body) = request.into_parts();
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        let open = parts.extensions.get::<Open>().cloned();
        let caller = caller(&parts.headers, address);
        (Call { headers: parts.headers, caller, open, turn: None }, body)
    }

    /// Reads the body as well.
    ///
    /// # Errors
    /// 413 for a body that is too long, 408 for one that does not come, 503 where too many long ones come at once.
    pub(super) async fn read(
        front: &Front,
        request: Request,
        bytes_max: usize,
    ) -> Result<(Call, Bytes), Problem> {
        let (mut call, body) = Call::split(request);
        let read = tokio::select! {
            read = gather(front, body, bytes_max) => read,
            () = front.gateway.clock.sleep(BODY_MAX) => {
                let text = format!("the body did not come within {} s", BODY_MAX.as_secs());
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", text));
            }
        };
        let (body, turn) = read?;
        call.turn = turn;
        Ok((call, body))
    }

    /// Reads the body as the fields of a picture's description.
    ///
    /// # Errors
    /// As [`Call::read`], and for what is no JSON object.
    pub(super) async fn fields(
        front: &Front,
        request: Request,
    ) -> Result<(Call, Fields, Bytes), Problem> {
        let (call, body) = Call::read(front, request, BODY_BYTES_MAX).await?;
        let fields = Fields::read(&body)?;
        Ok((call, fields, body))
    }

    /// Reads the body as the fields of a picture's description that may hold pictures.
    ///
    /// # Errors
    /// As [`Call::fields`].
    pub(super) async fn fields_with_pictures(
        front: &Front,
        request: Request,
    ) -> Result<(Call, Fields, Bytes), Problem> {
        let (call, body) = Call::read(front, request, PICTURE_BODY_BYTES_MAX).await?;
        let fields = Fields::read(&body)?;
        Ok((call, fields, body))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The key under which a repeat is the same job; quotes of a structured string are dropped.
    ///
    /// # Errors
    /// For one that is empty.
    pub(super) fn idempotency_key(&self) -> Result<Option<String>, Problem> {
        let Some(key) = self.header("idempotency-key") else { return Ok(None) };
        let key = key.trim().trim_matches('"');
        if key.is_empty() {
            let message = "Idempotency-Key: expected 1 to 128 characters, got none; make a UUID, \
                           or leave the header out";
            let (field, kind) = (String::new(), "value_error");
            return Err(Problem::invalid(vec![Fault { field, message: message.to_owned(), kind }]));
        }
        Ok(Some(key.to_owned()))
    }

    /// A name for this call: by the id that a proxy gave it, which is the same at each peer that the proxy
    /// tries; none without such an id.
    pub(super) fn request_name(&self, body: &[u8]) -> Option<String> {
        let id = self.header("x-request-id").filter(|id| !id.is_empty())?;
        Some(digits(&[self.caller.as_bytes(), id.as_bytes(), body].join(&0)))
    }

    /// The key under which a repeat is the same job: the client's, else one of the proxy's id.
    ///
    /// # Errors
    /// As [`Call::idempotency_key`].
    pub(super) fn key(&self, body: &[u8]) -> Result<Option<String>, Problem> {
        let by_proxy = || self.request_name(body).map(|name| format!("request:{name}"));
        Ok(self.idempotency_key()?.or_else(by_proxy))
    }

    /// The trace that the call belongs to; one that is malformed counts as none, as W3C has it.
    pub(super) fn traceparent(&self) -> String {
        let text = self.header("traceparent").unwrap_or_default();
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        let is_hex = text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        if is_hex && lengths == [2, 32, 16, 2] { text.to_owned() } else { String::new() }
    }

    /// Where the client believes this peer to be, for addresses that it follows.
    pub(super) fn base(&self) -> String {
        let host = self.header("x-forwarded-host").or_else(|| self.header("host"));
        let scheme = self.header("x-forwarded-proto").filter(|scheme| *scheme == "https");
        let plain = |host: &&str| host.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
        match host.filter(plain) {
            Some(host) => format!("{}://{host}", scheme.unwrap_or("http")),
            None => String::new(),
        }
    }
}

/// Reads a body; beyond the length of a description it waits for its turn, so that memory has a bound.
async fn gather(
    front: &Front,
    body: Body,
    bytes_max: usize,
) -> Result<(Bytes, Option<Turn>), Problem> {
    let too_large = || {
        let text = format!(
            "body: expected at most {bytes_max} bytes, got more, or it broke off; send less"
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text)
    };
    let (mut frames, mut bytes, mut turn) = (body.into_data_stream(), BytesMut::new(), None);
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| too_large())?;
        let length = bytes.len() + frame.len();
        if length > bytes_max {
            return Err(too_large());
        }
        if length > BODY_BYTES_MAX && turn.is_none() {
            turn = Some(front.gateway.turn().await?);
        }
        bytes.extend_from_slice(&frame);
    }
    Ok((bytes.freeze(), turn))
}

fn caller(headers: &HeaderMap, address: Option<SocketAddr>) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // Some clients send an empty one; that is nobody's key.
    let key = text("authorization").map(str::trim).filter(|key| !key.is_empty());
    // The last address is what the nearest proxy saw; the others are hearsay.
    let forwarded = text("x-forwarded-for").and_then(|list| list.rsplit(',').next());
    let who = match (key, forwarded.map(str::trim), address) {
        (Some(key), _, _) => format!("key {key}"),
        (None, Some(forwarded), _) => format!("at {forwarded}"),
        (None, None, Some(address)) => format!("at {}", address.ip()),
        (None, None, None) => "somebody".to_owned(),
    };
    digits(who.as_bytes())
}

/// A short name of some bytes.
pub(super) fn digits(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..CALLER_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (axum::http::HeaderName::from_static(name), value.parse().expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    fn call(pairs: &[(&'static str, &'static str)]) -> Call {
        Call { headers: headers(pairs), caller: String::new(), open: None, turn: None }
    }

    #[test]
    fn callers_differ_by_key_then_by_the_address_that_the_nearest_proxy_saw() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            caller(&headers(pairs), Some(([10, 0, 0, 1], 999).into()))
        };
        let direct = of(&[]);
        assert_eq!(of(&[("authorization", "")]), direct, "an empty key is none");
        assert_ne!(of(&[("authorization", "Bearer a")]), direct);
        assert_ne!(of(&[("authorization", "Bearer a")]), of(&[("authorization", "Bearer b")]));
        let behind = of(&[("x-forwarded-for", "1.1.1.1, 10.0.0.7")]);
        assert_eq!(behind, of(&[("x-forwarded-for", "2.2.2.2,10.0.0.7")]));
        assert_ne!(behind, direct);
    }

    #[test]
    fn a_malformed_trace_is_none() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(call(&[("traceparent", good)]).traceparent(), good);
        assert_eq!(call(&[("traceparent", "00-1-2-3")]).traceparent(), "");
    }

    #[test]
    fn addresses_are_those_that_the_client_used() {
        assert_eq!(call(&[("host", "a:7860")]).base(), "http://a:7860");
        let behind =
            [("host", "a:7860"), ("x-forwarded-host", "draw.lan"), ("x-forwarded-proto", "https")];
        assert_eq!(call(&behind).base(), "https://draw.lan");
        assert_eq!(call(&[("host", "a\"b")]).base(), "");
    }
}
