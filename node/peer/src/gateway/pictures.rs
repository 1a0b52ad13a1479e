//! Pictures that jobs begin from: taken from clients, made fit, kept.
//!
//! Owns the reading of pictures that strangers send, and its bounds. What is kept is a PNG of eight-bit RGB without a
//! word of metadata, so an engine meets nothing else. The log names digests; the bytes go round it, as those of results.

use super::error::unavailable;
use super::submit::level_needed;
use super::{Gateway, convert};
use crate::artifacts::{ARTIFACT_BYTES_MAX, FetchError, KeepError};
use crate::parameters::{PICTURES_LEVEL, SIDE_MAX, SIDE_MIN, SIDE_MULTIPLE};
use crate::tasks;
use atelier_proto::client::v1 as wire;
use atelier_state::Digest;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::imageops::{self, FilterType as Kernel};
use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageReader, Limits, Rgb, RgbImage};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// Bytes of a picture as it is sent; a longer one is refused.
pub(crate) const PICTURE_BYTES_MAX: usize = ARTIFACT_BYTES_MAX;
/// Pixels of a side; a larger picture is refused. With eight-bit RGB that is 48 MiB of memory.
const PICTURE_SIDE_MAX: u32 = 4096;
/// Pixels of a side, at least: less is no picture to begin from.
const PICTURE_SIDE_MIN: u32 = 16;
/// Bytes that a decoder may take: the largest picture with 16 bits a channel, and as much again.
const DECODER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Pictures that are taken at the same time; others wait for their turn, so that memory has a bound whatever is sent.
const AT_ONCE_MAX: usize = 4;
/// For a turn; then the call is refused with Retry-After.
const TURN_MAX: Duration = Duration::from_secs(30);
/// What transparent pixels lie on.
const PAPER: u8 = 255;

type Format = image::ImageFormat;

/// What pictures are taken under.
pub(crate) struct Turns(Arc<Semaphore>);

/// A turn: leave to hold the bytes of one picture.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns(Arc::new(Semaphore::new(AT_ONCE_MAX)))
    }
}

/// Why bytes are no picture to begin from; the text is for whoever sent them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(String);

impl Gateway {
    /// Waits for a turn.
    ///
    /// # Errors
    /// UNAVAILABLE where others take long.
    pub(super) async fn turn(&self) -> Result<Turn, Status> {
        let semaphore = self.turns.0.clone();
        tokio::select! {
            permit = semaphore.acquire_owned() => {
                Ok(Turn { _permit: permit.expect("the semaphore is never closed") })
            }
            () = self.clock.sleep(TURN_MAX) => {
                let text = format!("{AT_ONCE_MAX} pictures are being taken; send yours again in a moment");
                Err(unavailable(text, None))
            }
        }
    }

    /// Takes a picture that comes in pieces.
    ///
    /// # Errors
    /// As [`Gateway::put_picture`], and for one that is too long.
    pub(super) async fn do_put_artifact(
        &self,
        mut chunks: impl Stream<Item = Result<wire::ArtifactChunk, Status>> + Unpin,
    ) -> Result<wire::Artifact, Status> {
        let _turn = self.turn().await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?.data);
            if bytes.len() > PICTURE_BYTES_MAX {
                let text = format!("picture: expected at most {PICTURE_BYTES_MAX} bytes, got more");
                return Err(Status::invalid_argument(text));
            }
        }
        Ok(self.put_picture(bytes.freeze()).await?.0)
    }

    /// Keeps a picture, as a PNG, here and on as many other peers as a result is kept; its width and height besides.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for what is no picture; UNAVAILABLE where this machine cannot keep it.
    pub(super) async fn put_picture(
        &self,
        bytes: Bytes,
    ) -> Result<(wire::Artifact, (u32, u32)), Status> {
        let kept = move || read(&bytes).map(|picture| (to_png(&picture), picture.dimensions()));
        let (png, size) = beside(kept).await?;
        Ok((self.keep(png).await?, size))
    }

    async fn keep(&self, png: Bytes) -> Result<wire::Artifact, Status> {
        let bytes = png.len() as u64;
        let kept = self.artifacts.keep(png).await.map_err(|error| match error {
            KeepError::TooLarge(_) | KeepError::Digest { .. } => {
                Status::invalid_argument(format!("picture: {error}; send a smaller one"))
            }
            KeepError::Shelf(_) => unavailable(format!("{error}; send it to another peer"), None),
        })?;
        let digest = kept.digest.to_string();
        Ok(wire::Artifact { digest, bytes, media_type: "image/png".to_owned() })
    }

    /// Makes what a job begins from fit for it: fetched, of the size that is drawn, kept by that name. What a request leaves
    /// open of its size is filled in.
    ///
    /// # Errors
    /// FAILED_PRECONDITION in a cluster that is not upgraded yet, NOT_FOUND for a picture that nobody has.
    pub(super) async fn fit(&self, asked: &mut wire::TextToImage) -> Result<(), Status> {
        if asked.guidance.is_none() && asked.source.is_none() {
            return Ok(());
        }
        level_needed(&self.view().state, PICTURES_LEVEL, "guidance, or a picture to begin from,")?;
        let Some(mut source) = asked.source.take() else { return Ok(()) };
        let _turn = self.turn().await?;
        let image = self.fetch_picture("source.image", &source.image).await?;
        let own = size_of(&image)?;
        (asked.width, asked.height) = size_asked((asked.width, asked.height), own);
        let size = (asked.width, asked.height);
        source.image = self.fitted(image, size, Kernel::Lanczos3).await?;
        if !source.mask.is_empty() {
            let mask = self.fetch_picture("source.mask", &source.mask).await?;
            source.mask = self.fitted(mask, size, Kernel::Nearest).await?;
        }
        asked.source = Some(source);
        Ok(())
    }

    async fn fetch_picture(&self, name: &str, digest: &str) -> Result<Bytes, Status> {
        let digest: Digest = convert::digest(digest)?;
        self.artifacts.fetch(digest).await.map_err(|error| match error {
            FetchError::NotFound(_) => {
                let text = format!("{name}: {error}; send it by PutArtifact first");
                Status::not_found(text)
            }
            FetchError::Unavailable { .. } => unavailable(format!("{name}: {error}"), None),
        })
    }

    /// Keeps a picture at a size. One that has it already is kept again all the same: that makes it young, so that it is
    /// not collected before the log names it.
    async fn fitted(&self, png: Bytes, size: (u32, u32), kernel: Kernel) -> Result<String, Status> {
        // A size that is refused later needs no pixels.
        let is_drawn = |side: u32| (SIDE_MIN..=SIDE_MAX).contains(&side);
        let png = match size_of(&png)? == size || !is_drawn(size.0) || !is_drawn(size.1) {
            true => png,
            false => beside(move || Ok(to_png(&scaled(&read(&png)?, size, kernel)))).await?,
        };
        Ok(self.keep(png).await?.digest)
    }
}

/// Runs what takes long beside the runtime.
pub(super) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Unreadable> + Send + 'static,
) -> Result<T, Status> {
    let done = tasks::blocking(work).await;
    let done =
        done.map_err(|error| Status::internal(format!("a picture was not read: {error}")))?;
    done.map_err(|unreadable| Status::invalid_argument(unreadable.to_string()))
}

/// Width and height of a PNG that is kept.
fn size_of(png: &Bytes) -> Result<(u32, u32), Status> {
    let reader = ImageReader::with_format(Cursor::new(png), Format::Png);
    let size = reader.into_dimensions();
    size.map_err(|error| Status::invalid_argument(format!("picture: {error}; send a picture")))
}

/// The size that is drawn: as asked for; what was left open is near the picture's own, or keeps its shape.
fn size_asked(asked: (u32, u32), own: (u32, u32)) -> (u32, u32) {
    let near = |side: f64| {
        let multiple = f64::from(SIDE_MULTIPLE);
        let side = ((side / multiple).round() * multiple) as u32;
        side.clamp(SIDE_MIN, SIDE_MAX)
    };
    let (width, height) = (f64::from(own.0), f64::from(own.1));
    match asked {
        (0, 0) => {
            let shrunk = (f64::from(SIDE_MAX) / width.max(height)).min(1.0);
            (near(width * shrunk), near(height * shrunk))
        }
        (w, 0) => (w, near(f64::from(w) * height / width)),
        (0, h) => (near(f64::from(h) * width / height), h),
        both => both,
    }
}

/// Reads a PNG, JPEG or WebP: turned as its camera was held, transparency on white.
///
/// # Errors
/// Says what came instead.
pub(crate) fn read(bytes: &[u8]) -> Result<RgbImage, Unreadable> {
    let picture = decode(bytes)?;
    if !picture.color().has_alpha() {
        return Ok(picture.into_rgb8());
    }
    let mut opaque = RgbImage::new(picture.width(), picture.height());
    for (pixel, from) in opaque.pixels_mut().zip(picture.into_rgba8().pixels()) {
        let [colours @ .., alpha] = from.0;
        *pixel = Rgb(colours.map(|colour| over_paper(colour, alpha)));
    }
    Ok(opaque)
}

fn over_paper(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u32::from(colour), u32::from(alpha));
    ((colour * alpha + u32::from(PAPER) * (255 - alpha) + 127) / 255) as u8
}

/// The mask of a picture whose transparent part is to be drawn anew, as a PNG; none where nothing is transparent.
///
/// # Errors
/// As [`read`].
pub(crate) fn mask_of_alpha(bytes: &[u8]) -> Result<Option<Bytes>, Unreadable> {
    let picture = decode(bytes)?;
    if !picture.color().has_alpha() {
        return Ok(None);
    }
    let mut mask = RgbImage::new(picture.width(), picture.height());
    let mut is_empty = true;
    for (pixel, from) in mask.pixels_mut().zip(picture.into_rgba8().pixels()) {
        if from.0[3] < 128 {
            *pixel = Rgb([255; 3]);
            is_empty = false;
        }
    }
    Ok((!is_empty).then(|| to_png(&mask)))
}

/// A mask with light and dark exchanged.
///
/// # Errors
/// As [`read`].
pub(crate) fn inverted(bytes: &[u8]) -> Result<Bytes, Unreadable> {
    let mut mask = read(bytes)?;
    imageops::invert(&mut mask);
    Ok(to_png(&mask))
}

fn decode(bytes: &[u8]) -> Result<DynamicImage, Unreadable> {
    let refuse = |got: &str| {
        let text = format!("picture: expected a PNG, JPEG or WebP, got {got}; send one of these");
        Unreadable(text)
    };
    let format = match image::guess_format(bytes) {
        Ok(format @ (Format::Png | Format::Jpeg | Format::WebP)) => format,
        Ok(other) => return Err(refuse(&format!("{other:?}"))),
        Err(_) if bytes.is_empty() => return Err(refuse("nothing")),
        Err(_) => return Err(refuse(&format!("{} bytes that are none", bytes.len()))),
    };
    let broken = |error: image::ImageError| refuse(&format!("one that cannot be read: {error}"));
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let sides = PICTURE_SIDE_MIN..=PICTURE_SIDE_MAX;
    if !sides.contains(&width) || !sides.contains(&height) {
        return Err(Unreadable(format!(
            "picture: {width}x{height} pixels, expected {PICTURE_SIDE_MIN} to {PICTURE_SIDE_MAX} a side; scale it first"
        )));
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    decoder.set_limits(limits).map_err(broken)?;
    // A picture that does not say it was held upright.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn scaled(picture: &RgbImage, (width, height): (u32, u32), kernel: Kernel) -> RgbImage {
    imageops::resize(picture, width, height, kernel)
}

/// The same pixels give the same bytes.
fn to_png(picture: &RgbImage) -> Bytes {
    let mut bytes = Vec::new();
    let encoder =
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Paeth);
    let (width, height) = picture.dimensions();
    let written =
        encoder.write_image(picture.as_raw(), width, height, image::ExtendedColorType::Rgb8);
    written.expect("writing to memory cannot fail, and the buffer has the length of its size");
    bytes.into()
}

/// A JPEG of a quality from 1 to 100.
pub(super) fn to_jpeg(picture: &RgbImage, quality: u8) -> Bytes {
    let mut bytes = Vec::new();
    let written = JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture);
    written.expect("writing to memory cannot fail, and JPEG takes sides of 16 bits");
    bytes.into()
}

/// A WebP without loss.
pub(super) fn to_webp(picture: &RgbImage) -> Bytes {
    let mut bytes = Vec::new();
    let (width, height) = picture.dimensions();
    let encoder = WebPEncoder::new_lossless(&mut bytes);
    let written =
        encoder.write_image(picture.as_raw(), width, height, image::ExtendedColorType::Rgb8);
    written.expect("writing to memory cannot fail, and WebP takes sides of 14 bits");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgba, RgbaImage};

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 3 % 256) as u8, (y * 5 % 256) as u8, 90]))
    }

    fn written(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("memory");
        bytes.into_inner()
    }

    #[test]
    fn each_format_is_read_and_png_keeps_every_pixel() {
        let picture = gradient(40, 24);
        let whole = DynamicImage::ImageRgb8(picture.clone());
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            assert_eq!(read(&written(&whole, format)), Ok(picture.clone()), "{format:?}");
        }
        let jpeg = read(&written(&whole, ImageFormat::Jpeg)).expect("a JPEG");
        let far = jpeg.iter().zip(picture.iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(far.is_some_and(|far| far < 60), "JPEG is near: {far:?}");
        assert_eq!(read(&to_png(&picture)), Ok(picture));
    }

    #[test]
    fn transparency_lies_on_white_and_is_the_mask_where_that_is_asked_for() {
        let mut picture = RgbaImage::from_pixel(32, 16, Rgba([10, 20, 30, 255]));
        picture.put_pixel(3, 4, Rgba([10, 20, 30, 0]));
        let png = written(&DynamicImage::ImageRgba8(picture), ImageFormat::Png);
        let opaque = read(&png).expect("a PNG");
        assert_eq!((opaque.get_pixel(3, 4).0, opaque.get_pixel(0, 0).0), ([255; 3], [10, 20, 30]));
        let mask = read(&mask_of_alpha(&png).expect("a PNG").expect("a hole")).expect("a mask");
        assert_eq!((mask.get_pixel(3, 4).0, mask.get_pixel(0, 0).0), ([255; 3], [0; 3]));
        let other = read(&inverted(&to_png(&mask)).expect("a mask")).expect("a mask");
        assert_eq!((other.get_pixel(3, 4).0, other.get_pixel(0, 0).0), ([0; 3], [255; 3]));
        let plain = to_png(&gradient(32, 16));
        assert_eq!(mask_of_alpha(&plain), Ok(None));
    }

    #[test]
    fn what_is_no_picture_is_refused_with_what_came() {
        let refused = |bytes: &[u8]| read(bytes).expect_err("refused").to_string();
        assert!(refused(b"").contains("got nothing"), "{}", refused(b""));
        assert!(refused(b"a cat").contains("got 5 bytes that are none"));
        assert!(refused(b"GIF89a.........").contains("got Gif"));
        let whole = to_png(&gradient(40, 24));
        assert!(refused(&whole[..whole.len() / 2]).contains("cannot be read"));
        let wide = to_png(&RgbImage::new(5000, 16));
        assert!(refused(&wide).contains("5000x16 pixels, expected 16 to 4096 a side"));
        assert!(refused(&to_png(&RgbImage::new(8, 16))).contains("8x16 pixels"));
    }

    #[test]
    fn an_open_size_is_near_the_pictures_own() {
        assert_eq!(size_asked((0, 0), (512, 384)), (512, 384));
        assert_eq!(size_asked((0, 0), (500, 380)), (496, 384));
        assert_eq!(size_asked((0, 0), (4096, 2048)), (2048, 1024));
        assert_eq!(size_asked((0, 0), (16, 16)), (64, 64));
        assert_eq!(size_asked((256, 0), (512, 384)), (256, 192));
        assert_eq!(size_asked((0, 192), (512, 384)), (256, 192));
        assert_eq!(size_asked((128, 128), (512, 384)), (128, 128));
    }

    #[test]
    fn scaling_keeps_a_mask_black_and_white() {
        let mask = RgbImage::from_fn(64, 64, |x, _| Rgb([if x < 32 { 0 } else { 255 }; 3]));
        let small = scaled(&mask, (16, 16), Kernel::Nearest);
        assert!(small.iter().all(|v| [0, 255].contains(v)));
        assert_eq!((small.get_pixel(0, 8).0, small.get_pixel(15, 8).0), ([0; 3], [255; 3]));
        assert_eq!(scaled(&gradient(64, 64), (16, 32), Kernel::Lanczos3).dimensions(), (16, 32));
    }
}
