//! What a picture will be, seen without decoding it.
//!
//! latents → a linear map of each pixel's channels → red, green, blue
//!
//! Owns the map, how it is learnt, and the size of a preview. An autoencoder's channels are nearly
//! linear in the colours of its pictures, each autoencoder's in a way of its own. So the map is
//! learnt from the model at hand: from a test card that its encoder is shown while it is loaded,
//! and then from each picture that it draws. Refused: the factors that others have published for
//! one autoencoder; another one they would give wrong colours without a word.
//!
//! A preview is for the eye alone: latents and pixels are read here, never changed.

use crate::image::Image;
use crate::noise::{Purpose, normal};

/// Pixels of a preview's longer edge at most; a longer one is divided by a whole number.
pub const PREVIEW_EDGE_MAX: usize = 128;

/// Latent pixels of one picture that are learnt from; of more, every second, third … is.
const ROWS_MAX: usize = 1024;
/// What holds the map still where no picture has shown anything, as a share of one picture.
const RIDGE: f64 = 1e-4;

/// Latent pixels in a row of the test card, and its rows.
pub(crate) const CARD_EDGE: usize = 16;
/// Levels of each primary: 64 colours, each on 2 x 2 latent pixels.
const CARD_LEVELS: usize = 4;
/// Spread of the card's texture: channels that tell of texture must not pass for colours.
const CARD_TEXTURE: f32 = 0.08;

/// The map from channels to colours, with what it was learnt from.
#[derive(Debug)]
pub(crate) struct Projection {
    /// The channels, and one more for the constant.
    columns: usize,
    /// Sums of the products of column with column; `[columns, columns]`.
    products: Vec<f64>,
    /// Sums of the products of column with colour; `[columns, 3]`.
    moments: Vec<[f64; 3]>,
    /// `[columns, 3]`, to 0..1
    factors: Vec<[f64; 3]>,
}

impl Projection {
    /// Shows grey until it has learnt.
    pub(crate) fn new(channels: usize) -> Self {
        let columns = channels + 1;
        let (products, moments) = (vec![0.0; columns * columns], vec![[0.0; 3]; columns]);
        let mut factors = moments.clone();
        factors[channels] = [0.5; 3];
        Self { columns, products, moments, factors }
    }

    /// Learns from a picture: least squares over all that were shown, each of the same weight.
    ///
    /// # Shapes
    /// - latents: `[channels, height, width]`
    /// - planes: `[3, height · scale, width · scale]`, in 0..1
    pub(crate) fn learn(&mut self, latents: &[f32], planes: &[f32], [height, width]: [usize; 2]) {
        if !latents.iter().chain(planes).all(|value| value.is_finite()) {
            return;
        }
        let pixels = height * width;
        let scale = (planes.len() / 3 / pixels).isqrt();
        let planes = Planes { values: planes, width: width * scale };
        let stride = pixels.div_ceil(ROWS_MAX);
        let weight = 1.0 / pixels.div_ceil(stride) as f64;
        for at in (0..pixels).step_by(stride) {
            let row = self.row(latents, at, pixels);
            self.add(&row, planes.block_mean([at / width, at % width], [scale; 2]), weight);
        }
        self.factors = self.solved();
    }

    fn row(&self, latents: &[f32], at: usize, pixels: usize) -> Vec<f64> {
        let channel = |channel: usize| f64::from(latents[channel * pixels + at]);
        (0..self.columns - 1).map(channel).chain([1.0]).collect()
    }

    fn add(&mut self, row: &[f64], colour: [f64; 3], weight: f64) {
        let products = self.products.chunks_exact_mut(self.columns);
        for ((value, products), moments) in row.iter().zip(products).zip(&mut self.moments) {
            for (sum, other) in products.iter_mut().zip(row) {
                *sum += weight * value * other;
            }
            for (sum, level) in moments.iter_mut().zip(colour) {
                *sum += weight * value * level;
            }
        }
    }

    /// Solves the normal equations by elimination. The ridge makes them positive definite, so no
    /// pivot has to be looked for.
    fn solved(&self) -> Vec<[f64; 3]> {
        let n = self.columns;
        let (mut a, mut b) = (self.products.clone(), self.moments.clone());
        (0..n).for_each(|i| a[i * n + i] += RIDGE);
        for pivot in 0..n {
            for row in (0..n).filter(|row| *row != pivot) {
                let share = a[row * n + pivot] / a[pivot * n + pivot];
                (pivot..n).for_each(|column| a[row * n + column] -= share * a[pivot * n + column]);
                (0..3).for_each(|colour| b[row][colour] -= share * b[pivot][colour]);
            }
        }
        let diagonal = |i: usize| a[i * n + i];
        b.iter().enumerate().map(|(i, row)| row.map(|value| value / diagonal(i))).collect()
    }

    /// Maps latents to a small picture: one pixel for each of theirs, or for each block of them
    /// where an edge would be longer than [`PREVIEW_EDGE_MAX`].
    ///
    /// # Shapes
    /// - latents: `[channels, height, width]`
    pub(crate) fn project(&self, latents: &[f32], [height, width]: [usize; 2]) -> Image {
        let pixels = height * width;
        let colour = |colour: usize| self.plane(latents, colour, pixels);
        let values: Vec<f32> = (0..3).flat_map(colour).collect();
        let planes = Planes { values: &values, width };
        let edge = height.max(width).div_ceil(PREVIEW_EDGE_MAX);
        let block = [height, width].map(|length| edge.min(length));
        let [rows, columns] = [height / block[0], width / block[1]];
        let colours =
            (0..rows * columns).map(|at| planes.block_mean([at / columns, at % columns], block));
        let level = |value: f64| (value * 255.0).round_ties_even().clamp(0.0, 255.0) as u8;
        let rgb = colours.flat_map(|colour| colour.map(level)).collect();
        Image { width: columns as u32, height: rows as u32, rgb }
    }

    /// One colour of all pixels. Channel by channel, so that the compiler can do many at a time.
    fn plane(&self, latents: &[f32], colour: usize, pixels: usize) -> Vec<f32> {
        let factor = |column: usize| self.factors[column][colour] as f32;
        let mut plane = vec![factor(self.columns - 1); pixels];
        for (channel, values) in latents.chunks_exact(pixels).enumerate() {
            let factor = factor(channel);
            for (sum, value) in plane.iter_mut().zip(values) {
                *sum += factor * value;
            }
        }
        plane
    }
}

/// Three planes of colour: red, green, blue.
struct Planes<'a> {
    values: &'a [f32],
    /// Of a row.
    width: usize,
}

impl Planes<'_> {
    /// The mean colour of one of the blocks of `height` x `width` pixels.
    fn block_mean(&self, [row, column]: [usize; 2], [height, width]: [usize; 2]) -> [f64; 3] {
        let plane = self.values.len() / 3;
        [0, 1, 2].map(|colour| {
            let line = |y: usize| {
                let start = colour * plane + y * self.width + column * width;
                &self.values[start..start + width]
            };
            let sum: f32 = (row * height..(row + 1) * height).flat_map(line).sum();
            f64::from(sum) / (height * width) as f64
        })
    }
}

/// A picture that shows an encoder colours of every kind, smooth and rough, side by side.
///
/// `scale` is the autoencoder's; the card has [`CARD_EDGE`] latent pixels in each direction.
pub(crate) fn test_card(scale: usize) -> Image {
    let (patch, edge) = (2 * scale, CARD_EDGE * scale);
    let patches = CARD_EDGE / 2;
    let texture = normal(0, 0, Purpose::Posterior, edge * edge * 3);
    let level = |at: usize, colour: usize| {
        let (y, x) = (at / edge / patch, at % edge / patch);
        // 37 and 64 have no common divisor, so each colour comes once, and never beside its like.
        let number = (y * patches + x) * 37 % CARD_LEVELS.pow(3);
        let flat = number / CARD_LEVELS.pow(colour as u32) % CARD_LEVELS;
        let rough = if (y + x) % 2 == 0 { 0.0 } else { CARD_TEXTURE };
        let value = flat as f32 / (CARD_LEVELS - 1) as f32 + rough * texture[at * 3 + colour];
        (value * 255.0).round_ties_even().clamp(0.0, 255.0) as u8
    };
    let rgb = (0..edge * edge).flat_map(|at| [0, 1, 2].map(|colour| level(at, colour))).collect();
    Image { width: edge as u32, height: edge as u32, rgb }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latents of four channels whose colours follow from three of them.
    fn made(height: usize, width: usize) -> (Vec<f32>, Vec<f32>) {
        let pixels = height * width;
        let latents = normal(5, 0, Purpose::Latents, 4 * pixels);
        let colour = |c: usize, at: usize| 0.5 + 0.1 * latents[c * pixels + at] - 0.02 * c as f32;
        let planes = (0..3).flat_map(|c| (0..pixels).map(move |at| (c, at)));
        let planes = planes.map(|(c, at)| colour(c, at)).collect();
        (latents, planes)
    }

    #[test]
    fn a_linear_autoencoder_is_learnt_to_the_last_level() {
        let (latents, planes) = made(12, 10);
        let mut projection = Projection::new(4);
        assert_eq!(projection.project(&latents, [12, 10]).rgb[..3], [128; 3], "grey at first");
        projection.learn(&latents, &planes, [12, 10]);
        let clamped: Vec<f32> = planes.iter().map(|value| value.clamp(0.0, 1.0)).collect();
        let (seen, shown) =
            (projection.project(&latents, [12, 10]), Image::from_planes(&clamped, 10, 12));
        assert_eq!((seen.width, seen.height), (10, 12));
        for (seen, shown) in seen.rgb.iter().zip(&shown.rgb) {
            assert!(seen.abs_diff(*shown) <= 1, "{seen} is not {shown}");
        }
    }

    #[test]
    fn broken_values_are_not_learnt() {
        let (latents, mut planes) = made(4, 4);
        planes[5] = f32::NAN;
        let mut projection = Projection::new(4);
        projection.learn(&latents, &planes, [4, 4]);
        assert_eq!(projection.project(&latents, [4, 4]).rgb, [128; 48]);
    }

    #[test]
    fn a_large_picture_has_a_small_preview() {
        let check = |height: usize, width: usize, small: (u32, u32)| {
            let image = Projection::new(2).project(&vec![0.0; 2 * height * width], [height, width]);
            assert_eq!((image.height, image.width), small);
        };
        check(16, 16, (16, 16));
        check(128, 72, (128, 72));
        check(256, 144, (128, 72));
        check(130, 128, (65, 64));
        check(256, 1, (128, 1));
        check(2048, 2, (128, 1));
    }

    #[test]
    fn the_test_card_shows_each_colour_once() {
        let card = test_card(8);
        assert_eq!((card.width, card.height), (128, 128));
        let smooth = |y: usize, x: usize| (y + x).is_multiple_of(2);
        let colour = |y: usize, x: usize| {
            let at = (y * 16 * 128 + x * 16) * 3;
            [0, 1, 2].map(|c| card.rgb[at + c])
        };
        let places = (0..8).flat_map(|y| (0..8).map(move |x| (y, x)));
        let colours: std::collections::BTreeSet<_> =
            places.filter(|(y, x)| smooth(*y, *x)).map(|(y, x)| colour(y, x)).collect();
        assert_eq!(colours.len(), 32);
    }
}
