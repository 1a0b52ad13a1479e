//! Pictures to begin from, as bodies carry them: by digest, or in base64.

use super::Front;
use super::call::Call;
use super::error::{Fault, Problem};
use super::fields::Fields;
use crate::gateway::pictures::{self, Unreadable};
use atelier_proto::client::v1 as wire;
use atelier_state::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// One picture.
pub(super) enum Picture {
    /// One that was sent before.
    Kept(String),
    /// As it was sent.
    Sent(Bytes),
}

/// What a call gives to begin from.
#[derive(Default)]
pub(super) struct Given {
    pub(super) image: Option<Picture>,
    /// What is light is drawn anew.
    pub(super) mask: Option<Picture>,
    /// 0: the default.
    pub(super) strength: f64,
}

impl Given {
    /// Reads `image`, `mask` and `strength`.
    pub(super) fn read(fields: &mut Fields) -> Given {
        let image = picture(fields, "image");
        let mask = picture(fields, "mask");
        let strength = fields.float("strength");
        if image.is_none() && (mask.is_some() || strength.is_some()) {
            let message = "image: expected a picture beside mask and strength, got none".to_owned();
            fields.fault("image", message, "missing");
        }
        // 0 leaves it to the default on the wire, and here it is a number that somebody wrote.
        if strength == Some(0.0) {
            let message = "strength 0: expected 0.001 to 1; leave it out for the default";
            fields.fault("strength", message.to_owned(), "value_error");
        }
        Given { image, mask, strength: strength.unwrap_or(0.0) }
    }
}

/// Reads a picture: a digest, or base64, with the head of a `data:` address or without. The field is taken out, since it
/// is long.
pub(super) fn picture(fields: &mut Fields, name: &str) -> Option<Picture> {
    let text = fields.take_text(name).filter(|text| !text.is_empty())?;
    if text.parse::<Digest>().is_ok() {
        return Some(Picture::Kept(text));
    }
    let sent = in_base64(&text);
    if sent.is_none() {
        let message =
            format!("{name}: expected a picture in base64, or its digest, got something else");
        fields.fault(name, message, "value_error");
    }
    sent
}

/// A picture in base64; none where it is none.
pub(super) fn in_base64(text: &str) -> Option<Picture> {
    let base64 = text.split_once("base64,").map_or(text, |(_, base64)| base64);
    let bytes = STANDARD.decode(base64.trim()).ok().filter(|bytes| !bytes.is_empty())?;
    Some(Picture::Sent(bytes.into()))
}

/// Changes a picture that was sent, beside the runtime.
///
/// # Errors
/// For what is no picture.
pub(super) async fn changed<T: Send + 'static>(
    name: &'static str,
    sent: Bytes,
    change: impl FnOnce(&[u8]) -> Result<T, Unreadable> + Send + 'static,
) -> Result<T, Problem> {
    let done = pictures::beside(move || change(&sent)).await;
    done.map_err(|status| of_field(name, status))
}

/// A fault of a field, where a picture is at fault.
fn of_field(name: &str, status: tonic::Status) -> Problem {
    match status.code() {
        tonic::Code::InvalidArgument => refused(name, status.message()),
        _ => status.into(),
    }
}

fn refused(name: &str, message: &str) -> Problem {
    let (field, message) = (name.to_owned(), format!("{name}: {message}"));
    Problem::invalid(vec![Fault { field, message, kind: "value_error" }])
}

impl Front {
    /// Keeps the pictures of a call and names them. Its body is of no use afterwards, so it gives its turn back.
    ///
    /// # Errors
    /// For what is no picture, and where it cannot be kept.
    pub(super) async fn source(
        &self,
        call: &mut Call,
        given: Given,
    ) -> Result<Option<wire::Source>, Problem> {
        let Some(image) = given.image else {
            call.turn = None;
            return Ok(None);
        };
        let image = self.kept("image", image).await?;
        let mask = match given.mask {
            Some(mask) => self.kept("mask", mask).await?,
            None => String::new(),
        };
        call.turn = None;
        Ok(Some(wire::Source { image, strength: given.strength, mask }))
    }

    async fn kept(&self, name: &str, picture: Picture) -> Result<String, Problem> {
        let sent = match picture {
            Picture::Kept(digest) => return Ok(digest),
            Picture::Sent(bytes) => bytes,
        };
        let kept = self.gateway.put_picture(sent).await;
        kept.map(|(artifact, _)| artifact.digest).map_err(|status| of_field(name, status))
    }
}

/// The mask that a picture's transparent part is, as [`pictures::mask_of_alpha`].
///
/// # Errors
/// As [`changed`].
pub(super) async fn mask_of(name: &'static str, sent: Bytes) -> Result<Option<Picture>, Problem> {
    let mask = changed(name, sent, pictures::mask_of_alpha).await?;
    Ok(mask.map(Picture::Sent))
}
