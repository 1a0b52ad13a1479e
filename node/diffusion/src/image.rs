//! A finished picture.
//!
//! Owns eight-bit pixels and their PNG form. The same pixels always give the same bytes: filter and
//! compression are fixed, no time or text is written, and the crate `png` is pinned.

use std::io::Cursor;

/// A picture of eight bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Red, green, blue of each pixel, row by row from the top.
    pub rgb: Vec<u8>,
}

/// Why bytes are no picture that can be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the PNG: {0}; expected 8-bit RGB or RGBA")]
pub struct ImageError(String);

impl Image {
    /// Makes a picture of channel planes in 0..1.
    ///
    /// # Shapes
    /// - planes: `[3, height, width]`, values already clamped to 0..1
    #[must_use]
    pub fn from_planes(planes: &[f32], width: u32, height: u32) -> Self {
        let pixels = width as usize * height as usize;
        assert_eq!(planes.len(), 3 * pixels, "three planes of width times height");
        // Half to even, as numpy rounds.
        let level = |v: f32| (v * 255.0).round_ties_even() as u8;
        let rgb = (0..pixels)
            .flat_map(|i| [0, 1, 2].map(|channel| level(planes[channel * pixels + i])))
            .collect();
        Self { width, height, rgb }
    }

    /// The picture's channel planes in -1..1, as the autoencoder takes them.
    ///
    /// # Shapes
    /// - output: `[3, height, width]`
    #[must_use]
    pub fn to_planes(&self) -> Vec<f32> {
        let value = |byte: u8| f32::from(byte) / 255.0 * 2.0 - 1.0;
        let plane =
            |channel: usize| self.rgb.iter().skip(channel).step_by(3).map(move |b| value(*b));
        (0..3).flat_map(plane).collect()
    }

    /// Encodes the picture; the same pixels give the same bytes.
    #[must_use]
    pub fn to_png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Balanced);
        encoder.set_filter(png::Filter::Paeth);
        let write = encoder.write_header().and_then(|mut writer| {
            writer.write_image_data(&self.rgb)?;
            writer.finish()
        });
        write.expect("writing to memory cannot fail and rgb has the length of its size");
        bytes
    }

    /// Decodes a PNG of eight bits, dropping transparency.
    ///
    /// # Errors
    /// The bytes are no PNG, or one of another kind.
    pub fn from_png(bytes: &[u8]) -> Result<Self, ImageError> {
        let fail = |e: png::DecodingError| ImageError(e.to_string());
        let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().map_err(fail)?;
        let size =
            reader.output_buffer_size().ok_or_else(|| ImageError("it is too large".into()))?;
        let mut pixels = vec![0; size];
        let frame = reader.next_frame(&mut pixels).map_err(fail)?;
        pixels.truncate(frame.buffer_size());
        let rgb = match (frame.color_type, frame.bit_depth) {
            (png::ColorType::Rgb, png::BitDepth::Eight) => pixels,
            (png::ColorType::Rgba, png::BitDepth::Eight) => {
                pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect()
            }
            (color, depth) => return Err(ImageError(format!("it is {color:?} of {depth:?} bits"))),
        };
        Ok(Self { width: frame.width, height: frame.height, rgb })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn png_keeps_every_pixel() {
        let rgb = (0..5 * 4 * 3_u32).map(|i| (i * 37 % 256) as u8).collect();
        let image = Image { width: 5, height: 4, rgb };
        assert_eq!(Image::from_png(&image.to_png()).expect("our own PNG"), image);
    }

    #[test]
    fn planes_are_rounded_half_to_even() {
        let half = [0.5 / 255.0, 1.5 / 255.0, 1.0];
        assert_eq!(Image::from_planes(&half, 1, 1).rgb, [0, 2, 255]);
    }

    #[test]
    fn noise_is_no_png() {
        assert!(Image::from_png(b"not a picture").is_err());
    }
}
