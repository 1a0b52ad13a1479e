//! The text that tools of stable-diffusion-webui keep in a picture: how to draw it again.
//!
//! It is made of the job's parameters and the picture's own head alone, so every peer at any time
//! puts the same bytes in: no node, no time, no version of a program.

use super::job::strength_of;
use atelier_proto::client::v1 as wire;
use bytes::Bytes;
use std::io::Cursor;

/// The key of the text in the PNG.
const KEYWORD: &str = "parameters";
/// What a PNG begins with, and the bytes of its first chunk, `IHDR`.
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const HEAD_BYTES: usize = 8 + 4 + 4 + 13 + 4;
/// Bytes that reading a picture's texts may take; with more it is told to have none.
const READ_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The sampler that this model has, whatever was asked for.
pub(super) const SAMPLER: &str = "Euler";
/// The model's name for people.
pub(super) const MODEL: &str = "z-image-turbo";

/// The text for picture `index` of a job.
pub(super) fn infotext(asked: &wire::TextToImage, index: u32, png: &[u8]) -> String {
    let (width, height) = size_of(png).unwrap_or((asked.width, asked.height));
    let mut pairs = Vec::new();
    if asked.steps > 0 {
        pairs.push(("Steps", asked.steps.to_string()));
    }
    pairs.push(("Sampler", SAMPLER.to_owned()));
    pairs.push(("CFG scale", cfg_scale(asked).to_string()));
    pairs.push(("Seed", asked.seed.saturating_add(u64::from(index)).to_string()));
    pairs.push(("Size", format!("{width}x{height}")));
    pairs.push(("Model", MODEL.to_owned()));
    if let Some(source) = &asked.source {
        pairs.push(("Denoising strength", strength_of(source).to_string()));
    }
    let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}: {}", quoted(v))).collect();
    let negative = asked.guidance.as_ref().map(|guidance| guidance.negative_prompt.as_str());
    let negative = negative.filter(|negative| !negative.is_empty());
    let negative = negative.map_or_else(String::new, |text| format!("Negative prompt: {text}\n"));
    format!("{}\n{negative}{}", asked.prompt, pairs.join(", "))
}

/// Guidance as the webui counts it, where 1 is none; 0 stands for a model that has none.
pub(super) fn cfg_scale(asked: &wire::TextToImage) -> f32 {
    asked.guidance.as_ref().map_or(0.0, |guidance| guidance.scale + 1.0)
}

/// A value that holds what separates pairs is written as JSON writes texts.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) { format!("{value:?}") } else { value.to_owned() }
}

/// Width and height of a PNG.
pub(super) fn size_of(png: &[u8]) -> Option<(u32, u32)> {
    let head = png.get(..HEAD_BYTES).filter(|head| head.starts_with(SIGNATURE))?;
    let number = |at: usize| head.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    Some((number(16)?, number(20)?))
}

/// Puts a text behind a PNG's head; what is no PNG stays as it is.
pub(super) fn with_text(png: &Bytes, text: &str) -> Bytes {
    if size_of(png).is_none() {
        return png.clone();
    }
    let chunk = chunk(text);
    let mut bytes = Vec::with_capacity(png.len() + chunk.len());
    bytes.extend_from_slice(&png[..HEAD_BYTES]);
    bytes.extend_from_slice(&chunk);
    bytes.extend_from_slice(&png[HEAD_BYTES..]);
    bytes.into()
}

/// `tEXt` for what Latin-1 can write, else `iTXt`, uncompressed.
fn chunk(text: &str) -> Vec<u8> {
    let latin: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    let mut data = KEYWORD.as_bytes().to_vec();
    let kind = match latin.filter(|latin| !latin.contains(&0)) {
        Some(latin) => {
            data.push(0);
            data.extend_from_slice(&latin);
            b"tEXt"
        }
        None => {
            // Behind the keyword: not compressed, by no method, no language, no translated keyword.
            data.extend_from_slice(&[0, 0, 0, 0, 0]);
            data.extend_from_slice(text.as_bytes());
            b"iTXt"
        }
    };
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(kind);
    checksum.update(&data);
    let length = u32::try_from(data.len()).expect("a prompt is bounded far below");
    let mut chunk = length.to_be_bytes().to_vec();
    chunk.extend_from_slice(kind);
    chunk.extend_from_slice(&data);
    chunk.extend_from_slice(&checksum.finalize().to_be_bytes());
    chunk
}

/// Reads the text out of a PNG; none where it is no PNG, or has none.
pub(super) fn text_of(png: &[u8]) -> Option<String> {
    let limits = png::Limits { bytes: READ_BYTES_MAX };
    let reader = png::Decoder::new_with_limits(Cursor::new(png), limits).read_info().ok()?;
    let info = reader.info();
    let latin = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == KEYWORD);
    if let Some(latin) = latin {
        return Some(latin.text.clone());
    }
    let utf8 = info.utf8_text.iter().find(|chunk| chunk.keyword == KEYWORD)?;
    utf8.get_text().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A picture of one colour.
    pub(crate) fn png(width: u32, height: u32) -> Bytes {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().expect("a head");
        writer.write_image_data(&vec![7; (width * height) as usize]).expect("pixels");
        writer.finish().expect("an end");
        bytes.into()
    }

    fn asked(prompt: &str) -> wire::TextToImage {
        wire::TextToImage { prompt: prompt.to_owned(), steps: 9, seed: 42, ..Default::default() }
    }

    #[test]
    fn a_text_is_read_back_in_any_script_and_the_picture_stays() {
        for prompt in ["a cat", "a café, at night", "蓝色背景上的猫"] {
            let plain = png(32, 16);
            let text = infotext(&asked(prompt), 1, &plain);
            let told = with_text(&plain, &text);
            assert_eq!(text_of(&told).as_deref(), Some(text.as_str()));
            assert_eq!(told, with_text(&plain, &text), "the same bytes each time");
            let decode = |png: &Bytes| {
                let mut reader = png::Decoder::new(Cursor::new(png)).read_info().expect("a PNG");
                let mut pixels = vec![0; 32 * 16];
                reader.next_frame(&mut pixels).expect("pixels");
                pixels
            };
            assert_eq!(decode(&plain), decode(&told));
        }
    }

    #[test]
    fn the_text_is_as_the_webui_writes_it() {
        let text = infotext(&asked("a cat"), 1, &png(32, 16));
        let expect = "a cat\nSteps: 9, Sampler: Euler, CFG scale: 0, Seed: 43, Size: 32x16, \
                      Model: z-image-turbo";
        assert_eq!(text, expect);
        assert_eq!(quoted("a: b, c"), "\"a: b, c\"");
    }

    #[test]
    fn what_is_no_picture_is_left_alone() {
        let bytes = Bytes::from_static(b"a picture");
        assert_eq!(with_text(&bytes, "text"), bytes);
        assert_eq!(text_of(&bytes), None);
        assert_eq!(text_of(&png(16, 16)), None);
    }
}
