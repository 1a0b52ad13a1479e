//! Bytes of pictures over HTTP: entity tags, ranges, HEAD.

use super::error::Problem;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

/// What is served, and what it is called.
pub(super) struct Entity {
    pub(super) bytes: Bytes,
    pub(super) media_type: String,
    /// Strong: the same tag means the same bytes, on every peer.
    pub(super) tag: String,
}

/// What a `Range` header asks for, of so many bytes.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    /// From the first to behind the last.
    Part(usize, usize),
    Nothing,
}

/// Answers with all of it, a part, or that the client has it.
pub(super) fn serve(entity: Entity, headers: &HeaderMap) -> Response {
    let Entity { bytes, media_type, tag } = entity;
    let tag = format!("\"{tag}\"");
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let has = |known: &str| {
        known
            .split(',')
            .any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == tag)
    };
    if text(header::IF_NONE_MATCH).is_some_and(has) {
        return answer(StatusCode::NOT_MODIFIED, Bytes::new(), &tag, &media_type);
    }
    let unchanged = text(header::IF_RANGE).is_none_or(|known| known == tag);
    let asked = text(header::RANGE).filter(|_| unchanged);
    let total = bytes.len();
    match asked.map_or(Asked::All, |range| range_of(range, total)) {
        Asked::All => answer(StatusCode::OK, bytes, &tag, &media_type),
        Asked::Part(start, end) => {
            let part = bytes.slice(start..end);
            let mut response = answer(StatusCode::PARTIAL_CONTENT, part, &tag, &media_type);
            tell_range(&mut response, &format!("bytes {start}-{}/{total}", end - 1));
            response
        }
        Asked::Nothing => {
            let text = format!("Range: expected a part of {total} bytes, got {:?}", asked);
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let mut response = Problem::new(status, "range_not_satisfiable", text).own();
            tell_range(&mut response, &format!("bytes */{total}"));
            response
        }
    }
}

fn tell_range(response: &mut Response, range: &str) {
    let range = HeaderValue::from_str(range).ok();
    response.headers_mut().extend(range.map(|range| (header::CONTENT_RANGE, range)));
}

fn answer(status: StatusCode, bytes: Bytes, tag: &str, media_type: &str) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let known = |text: &str| HeaderValue::from_str(text).ok();
    headers.extend(known(tag).map(|tag| (header::ETAG, tag)));
    headers.extend(known(media_type).map(|kind| (header::CONTENT_TYPE, kind)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Bytes of one name never change.
    let forever = HeaderValue::from_static("private, max-age=31536000, immutable");
    headers.insert(header::CACHE_CONTROL, forever);
    let nosniff = HeaderName::from_static("x-content-type-options");
    headers.insert(nosniff, HeaderValue::from_static("nosniff"));
    response
}

/// Reads a range; several at once, and other units, count as none.
fn range_of(text: &str, total: usize) -> Asked {
    let Some((from, to)) = text.trim().strip_prefix("bytes=").and_then(|r| r.split_once('-'))
    else {
        return Asked::All;
    };
    if to.contains(',') {
        return Asked::All;
    }
    let part = match (from.trim().parse::<usize>().ok(), to.trim().parse::<usize>().ok()) {
        (Some(from), Some(to)) if to >= from => (from, to.saturating_add(1).min(total)),
        (Some(from), None) if to.trim().is_empty() => (from, total),
        (None, Some(last)) if from.trim().is_empty() => (total.saturating_sub(last), total),
        _ => return Asked::All,
    };
    if part.0 < part.1 { Asked::Part(part.0, part.1) } else { Asked::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        let check = |text, expect| assert_eq!(range_of(text, 100), expect, "{text}");
        check("bytes=0-9", Asked::Part(0, 10));
        check("bytes=90-", Asked::Part(90, 100));
        check("bytes=-5", Asked::Part(95, 100));
        check("bytes=0-999", Asked::Part(0, 100));
        check("bytes=100-", Asked::Nothing);
        check("bytes=-0", Asked::Nothing);
        for ignored in ["bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "bytes=x-y", ""] {
            check(ignored, Asked::All);
        }
    }
}
