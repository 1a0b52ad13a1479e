//! A large picture decoded in tiles that lie over each other.
//!
//! Owns where tiles lie and how their edges are blended. Norms and attention of the decoder see one
//! tile at a time, so a tiled picture differs a little from one decoded at once; whether to tile is
//! the memory plan's decision and fixed for as long as a model is loaded.
//!
//! Source: diffusers `models/autoencoders/autoencoder_kl.py`, `_tiled_decode`: neighbours share a
//! quarter of a tile, and are blended linearly over it.

/// Planes of a picture or of latents.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planes {
    /// `[channels, height, width]`
    pub(crate) values: Vec<f32>,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Planes {
    fn channels(&self) -> usize {
        self.values.len() / (self.height * self.width)
    }

    fn row(&self, channel: usize, y: usize) -> &[f32] {
        &self.values[(channel * self.height + y) * self.width..][..self.width]
    }

    fn row_mut(&mut self, channel: usize, y: usize) -> &mut [f32] {
        &mut self.values[(channel * self.height + y) * self.width..][..self.width]
    }

    /// A part, cut off at the right and lower edges.
    fn cut(&self, [top, left]: [usize; 2], edge: usize) -> Self {
        let (height, width) = (edge.min(self.height - top), edge.min(self.width - left));
        let rows = (0..self.channels()).flat_map(|c| (top..top + height).map(move |y| (c, y)));
        let values = rows.flat_map(|(c, y)| &self.row(c, y)[left..left + width]).copied().collect();
        Self { values, height, width }
    }
}

/// Decodes latents tile by tile; `decode` makes of `edge`² latents at most a picture `scale` times
/// as large in each direction.
pub(crate) fn decode<E>(
    latents: &Planes,
    edge: usize,
    scale: usize,
    mut decode: impl FnMut(Planes) -> Result<Planes, E>,
) -> Result<Planes, E> {
    let stride = edge * 3 / 4;
    let (overlap, kept) = ((edge - stride) * scale, stride * scale);
    let (height, width) = (latents.height * scale, latents.width * scale);
    let mut whole = Planes { values: Vec::new(), height, width };
    let mut above: Vec<Planes> = Vec::new();
    for top in (0..latents.height).step_by(stride) {
        let mut row: Vec<Planes> = Vec::new();
        for left in (0..latents.width).step_by(stride) {
            row.push(decode(latents.cut([top, left], edge))?);
        }
        // As the reference: blended with the unblended tile above, then with the blended one at the left.
        for x in 0..row.len() {
            if let Some(above) = above.get(x) {
                blend_down(above, &mut row[x], overlap);
            }
            if x > 0 {
                let (before, rest) = row.split_at_mut(x);
                blend_right(&before[x - 1], &mut rest[0], overlap);
            }
        }
        if whole.values.is_empty() {
            whole.values = vec![0.0; row[0].channels() * height * width];
        }
        for (x, tile) in row.iter().enumerate() {
            paste(&mut whole, tile, [top * scale, x * kept], kept);
        }
        above = row;
    }
    Ok(whole)
}

fn blend_down(above: &Planes, tile: &mut Planes, overlap: usize) {
    let overlap = overlap.min(above.height).min(tile.height);
    for channel in 0..tile.channels() {
        for y in 0..overlap {
            let share = y as f32 / overlap as f32;
            let upper = above.row(channel, above.height - overlap + y);
            for (value, upper) in tile.row_mut(channel, y).iter_mut().zip(upper) {
                *value = upper * (1.0 - share) + *value * share;
            }
        }
    }
}

fn blend_right(left: &Planes, tile: &mut Planes, overlap: usize) {
    let overlap = overlap.min(left.width).min(tile.width);
    for channel in 0..tile.channels() {
        for y in 0..tile.height.min(left.height) {
            let before = &left.row(channel, y)[left.width - overlap..];
            for (x, (value, before)) in tile.row_mut(channel, y).iter_mut().zip(before).enumerate()
            {
                let share = x as f32 / overlap as f32;
                *value = before * (1.0 - share) + *value * share;
            }
        }
    }
}

fn paste(whole: &mut Planes, tile: &Planes, [top, left]: [usize; 2], kept: usize) {
    let (height, width) = (kept.min(tile.height), kept.min(tile.width));
    for channel in 0..tile.channels() {
        for y in 0..height.min(whole.height - top) {
            let width = width.min(whole.width - left);
            let from = &tile.row(channel, y)[..width];
            whole.row_mut(channel, top + y)[left..left + width].copy_from_slice(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A decoder that repeats each latent pixel, and knows nothing of its neighbours.
    fn repeat(latents: Planes, scale: usize) -> Result<Planes, Infallible> {
        let (height, width) = (latents.height * scale, latents.width * scale);
        let pixels = (0..latents.channels())
            .flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| (c, y, x))));
        let values = pixels.map(|(c, y, x)| latents.row(c, y / scale)[x / scale]).collect();
        Ok(Planes { values, height, width })
    }

    #[test]
    fn tiles_of_a_decoder_without_context_are_the_whole() {
        for (height, width) in [(8, 8), (9, 20), (23, 6), (17, 31), (1, 40)] {
            let values = (0..2 * height * width).map(|i| (i * 7 % 31) as f32).collect();
            let latents = Planes { values, height, width };
            let whole = repeat(latents.clone(), 4).expect("it never fails");
            let tiled = decode(&latents, 8, 4, |tile| repeat(tile, 4)).expect("it never fails");
            assert_eq!((tiled.height, tiled.width), (whole.height, whole.width));
            for (tiled, whole) in tiled.values.iter().zip(&whole.values) {
                assert!((tiled - whole).abs() < 1e-4, "{tiled} is not {whole}");
            }
        }
    }

    #[test]
    fn edges_are_blended_over_a_quarter_of_a_tile() {
        let latents = Planes { values: vec![0.0; 14], height: 1, width: 14 };
        let mut number = 0.0;
        let tiled = decode(&latents, 8, 1, |tile| {
            number += 1.0;
            Ok::<_, Infallible>(Planes { values: vec![number; tile.values.len()], ..tile })
        });
        let told = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.5];
        assert_eq!(tiled.expect("it never fails").values, told);
    }
}
