//! The parts of a `multipart/form-data` body: texts as fields, pictures as they are.

use super::Front;
use super::call::{Call, PICTURE_BODY_BYTES_MAX, digits};
use super::error::{Fault, Problem};
use super::fields::Fields;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Map, Value};
use std::convert::Infallible;
use std::future::ready;

/// Parts of one body; more is refused.
const PARTS_MAX: usize = 64;
/// Parts that are pictures, whatever the client calls them.
const PICTURES: [&str; 2] = ["image", "mask"];
/// Texts that mean yes or no.
const FLAGS: [&str; 2] = ["stream", "async"];

/// A body, read.
pub(super) struct Parts {
    pub(super) fields: Fields,
    /// By their names, in order; lists have the name of their first part.
    pub(super) pictures: Vec<(String, Bytes)>,
    /// A name for what came. The same for a repeat, whose body is cut into parts by other words.
    pub(super) name: String,
}

impl Parts {
    /// Reads a body.
    ///
    /// # Errors
    /// As [`Call::read`], and for one of another kind.
    pub(super) async fn read(front: &Front, request: Request) -> Result<(Call, Parts), Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        let Ok(boundary) = multer::parse_boundary(&kind) else {
            let text = format!("content-type: expected multipart/form-data, got {kind:?}");
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::new(status, "unsupported_media_type", text));
        };
        let (call, body) = Call::read(front, request, PICTURE_BODY_BYTES_MAX).await?;
        Ok((call, parts(body, boundary).await?))
    }

    /// The one picture of a name; none where there is none.
    ///
    /// # Errors
    /// For several.
    pub(super) fn picture(&mut self, name: &'static str) -> Result<Option<Bytes>, Problem> {
        let (own, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pictures).into_iter().partition(|(of, _)| of == name);
        self.pictures = rest;
        match own.len() {
            0 => Ok(None),
            1 => Ok(own.into_iter().next().map(|(_, bytes)| bytes)),
            several => {
                Err(fault(name, format!("{name}: expected one picture, got {several}; send one")))
            }
        }
    }
}

async fn parts(body: Bytes, boundary: String) -> Result<Parts, Problem> {
    let whole = stream::once(ready(Ok::<_, Infallible>(body)));
    let mut multipart = multer::Multipart::new(whole, boundary);
    let (mut texts, mut pictures, mut heard) = (Map::new(), Vec::new(), blake3::Hasher::new());
    let broken = |error: multer::Error| {
        fault(
            "",
            format!("body: expected parts of multipart/form-data, got one that breaks: {error}"),
        )
    };
    let mut count = 0;
    while let Some(part) = multipart.next_field().await.map_err(broken)? {
        count += 1;
        if count > PARTS_MAX {
            let text = format!("body: expected at most {PARTS_MAX} parts, got more; send fewer");
            return Err(fault("", text));
        }
        let name = part.name().unwrap_or_default().trim_end_matches("[]").to_owned();
        let bytes = part.bytes().await.map_err(broken)?;
        for piece in [name.as_bytes(), &bytes] {
            heard.update(&(piece.len() as u64).to_be_bytes());
            heard.update(piece);
        }
        if PICTURES.contains(&name.as_str()) {
            pictures.push((name, bytes));
            continue;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let value = match text.as_str() {
            "true" | "True" if FLAGS.contains(&name.as_str()) => Value::Bool(true),
            "false" | "False" if FLAGS.contains(&name.as_str()) => Value::Bool(false),
            _ => Value::String(text),
        };
        texts.insert(name, value);
    }
    let name = digits(heard.finalize().as_bytes());
    Ok(Parts { fields: Fields::of(texts), pictures, name })
}

fn fault(field: &str, message: String) -> Problem {
    Problem::invalid(vec![Fault { field: field.to_owned(), message, kind: "value_error" }])
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(boundary: &str) -> Parts {
        let part = |name: &str, value: &str| {
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
        };
        let texts = [("image[]", "PNG"), ("prompt", "true"), ("stream", "true"), ("n", "2")];
        let body: String = texts.iter().map(|(name, value)| part(name, value)).collect();
        let body = Bytes::from(format!("{body}--{boundary}--\r\n"));
        parts(body, boundary.to_owned()).await.expect("parts")
    }

    #[tokio::test]
    async fn a_repeat_has_the_same_name_whatever_cuts_its_parts() {
        let (mut one, other) = (read("first").await, read("second").await);
        assert_eq!(one.name, other.name);
        assert_eq!(one.picture("image").expect("one"), Some(Bytes::from_static(b"PNG")));
        assert_eq!(one.picture("mask").expect("none"), None);
        assert_eq!(one.fields.text("prompt").as_deref(), Some("true"));
        assert_eq!((one.fields.flag("stream"), one.fields.small("n")), (Some(true), Some(2)));
        assert!(one.fields.end().is_ok());
    }

    #[tokio::test]
    async fn a_torn_body_is_refused() {
        let torn =
            Bytes::from_static(b"--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx");
        let problem = parts(torn, "b".to_owned()).await.err().expect("refused");
        assert!(problem.message.contains("multipart/form-data"), "{}", problem.message);
    }
}
