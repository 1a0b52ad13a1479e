//! Pictures in the formats that clients ask for. What is kept is a PNG; the others are made of it when it is sent.

use super::Front;
use super::error::Problem;
use super::fields::Fields;
use crate::gateway::pictures;
use bytes::Bytes;

/// Quality of a JPEG where the client does not say.
const QUALITY_DEFAULT: u8 = 90;

/// How a picture is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    /// Its quality, 1 to 100.
    Jpeg(u8),
    /// Without loss.
    Webp,
}

impl Format {
    /// The format of a name; none where it is another one.
    pub(super) fn named(name: &str, quality: Option<u8>) -> Option<Format> {
        match name {
            "png" => Some(Format::Png),
            "jpeg" | "jpg" => Some(Format::Jpeg(quality.unwrap_or(QUALITY_DEFAULT))),
            "webp" => Some(Format::Webp),
            _ => None,
        }
    }

    /// Reads `output_format` and `output_compression`, as OpenAI names them.
    pub(super) fn read(fields: &mut Fields) -> Format {
        let quality = fields.small("output_compression");
        let in_range = quality.and_then(|quality| u8::try_from(quality).ok());
        let in_range = in_range.filter(|quality| *quality <= 100).map(|quality| quality.max(1));
        if let Some(got) = quality.filter(|_| in_range.is_none()) {
            let message = format!("output_compression {got}: expected 0 to 100");
            fields.fault("output_compression", message, "value_error");
        }
        let Some(name) = fields.text("output_format") else { return Format::Png };
        Format::named(&name, in_range).unwrap_or_else(|| {
            let message = format!("output_format: expected one of png, webp, jpeg, got {name:?}");
            fields.fault("output_format", message, "value_error");
            Format::Png
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg(_) => "jpeg",
            Format::Webp => "webp",
        }
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Jpeg(_) => "image/jpeg",
            Format::Webp => "image/webp",
        }
    }

    /// Makes the bytes of a kept picture.
    ///
    /// # Errors
    /// Where too many pictures are read at a time, and for what is no PNG.
    pub(super) async fn of(self, front: &Front, png: Bytes) -> Result<Bytes, Problem> {
        if self == Format::Png {
            return Ok(png);
        }
        let _turn = front.gateway.turn().await?;
        let written = pictures::beside(move || {
            let picture = pictures::read(&png)?;
            Ok(match self {
                Format::Jpeg(quality) => pictures::to_jpeg(&picture, quality),
                Format::Png | Format::Webp => pictures::to_webp(&picture),
            })
        });
        Ok(written.await?)
    }
}
