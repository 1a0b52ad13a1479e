//! The CPU's own paths, for `burn-flex` in f32; other types take the plain path.
//!
//! burn-flex composes norms, rotations and activations of several operations, each a pass over
//! memory and most of them on one thread. Here each is one pass.
//!
//! The result must not depend on the number of threads or on other load, or a job that is run again
//! on the same kind of machine would give other bytes. So work is cut at fixed places, and every sum
//! is taken inside one piece, in a fixed order. For the same reason the exponential is our own: the
//! system's differs between versions.

use burn::tensor::{Bytes, DType, Shape, Tensor, TensorPrimitive};
use burn_flex::{Flex, FlexTensor, Layout};
use rayon::prelude::*;

use super::{Kernels, Mask, Pairs, Rope, Then, plain};

/// Values that one task works on; fixed, so that nothing depends on the number of threads.
const TASK_VALUES: usize = 1 << 14;

/// Sums kept beside each other, which the compiler makes vectors of.
const LANES: usize = 16;

impl Kernels for Flex {
    fn rms_norm<const D: usize>(
        x: Tensor<Self, D>,
        weight: Tensor<Self, 1>,
        eps: f64,
    ) -> Tensor<Self, D> {
        if x.dtype() != DType::F32 {
            return plain::rms_norm(x, weight, eps);
        }
        let weight = Values::of(weight);
        let (weight, dim) = (weight.slice(), weight.slice().len());
        map_rows(x, dim, |row, out| {
            let square = sum(row, |v| v * v) / dim as f64;
            let factor = (1.0 / (square + eps).sqrt()) as f32;
            for ((y, x), w) in out.iter_mut().zip(row).zip(weight) {
                *y = x * factor * w;
            }
        })
    }

    fn rotate(x: Tensor<Self, 4>, rope: &Rope<Self>, pairs: Pairs) -> Tensor<Self, 4> {
        if x.dtype() != DType::F32 {
            return plain::rotate(x, rope, pairs);
        }
        let dims = x.dims();
        let [_, tokens, heads, head_dim] = dims;
        let half = head_dim / 2;
        let (cos, sin) = (Values::of(rope.cos.clone()), Values::of(rope.sin.clone()));
        let (cos, sin) = (cos.slice(), sin.slice());
        // The angles of one item serve a whole batch.
        let rows = cos.len() / half;
        debug_assert!(rows == tokens || rows == dims[0] * tokens);
        map_indexed(x, heads * head_dim, |token, row, out| {
            let at = token % rows * half;
            let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
            for (row, out) in row.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
                for j in 0..half {
                    let (i, k) = match pairs {
                        Pairs::Adjacent => (2 * j, 2 * j + 1),
                        Pairs::Halves => (j, j + half),
                    };
                    out[i] = row[i] * cos[j] - row[k] * sin[j];
                    out[k] = row[i] * sin[j] + row[k] * cos[j];
                }
            }
        })
    }

    fn attend(
        q: Tensor<Self, 4>,
        k: Tensor<Self, 4>,
        v: Tensor<Self, 4>,
        mask: &Mask<Self>,
    ) -> Tensor<Self, 3> {
        if q.dtype() != DType::F32 {
            return plain::attend(q, k, v, mask);
        }
        let [batch, tokens, heads, head_dim] = q.dims();
        let k = plain::repeat_heads(k, heads).permute([0, 2, 3, 1]);
        let v = plain::repeat_heads(v, heads).swap_dims(1, 2);
        let keys = k.dims()[3];
        let scale = (1.0 / (head_dim as f64).sqrt()) as f32;
        // By the shapes alone, so that no answer depends on threads or memory.
        let rows = (SCORES_MAX / (batch * heads * keys)).clamp(1, tokens);
        let mut parts = Vec::new();
        for start in (0..tokens).step_by(rows) {
            let length = rows.min(tokens - start);
            let part = q.clone().narrow(1, start, length).swap_dims(1, 2);
            let sight = Sight { mask: Hidden::of(mask), start, length, heads };
            let shares = softmax(part.matmul(k.clone()), scale, &sight);
            parts.push(shares.matmul(v.clone()));
        }
        Tensor::cat(parts, 2).swap_dims(1, 2).reshape([batch, tokens, heads * head_dim])
    }

    fn silu<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
        if x.dtype() != DType::F32 {
            return plain::silu(x);
        }
        map_rows(x, 1, |x, y| y.iter_mut().zip(x).for_each(|(y, x)| *y = silu(*x)))
    }

    fn swiglu<const D: usize>(gate: Tensor<Self, D>, up: Tensor<Self, D>) -> Tensor<Self, D> {
        if gate.dtype() != DType::F32 {
            return plain::silu(gate) * up;
        }
        let up = Values::of(up);
        let up = up.slice();
        map_indexed(gate, 1, |start, gate, out| {
            for ((y, gate), up) in out.iter_mut().zip(gate).zip(&up[start..]) {
                *y = silu(*gate) * up;
            }
        })
    }

    fn group_norm(
        x: Tensor<Self, 4>,
        [weight, bias]: [Tensor<Self, 1>; 2],
        groups: usize,
        eps: f64,
        then: Then,
    ) -> Tensor<Self, 4> {
        if x.dtype() != DType::F32 {
            return plain::group_norm(x, [weight, bias], groups, eps, then);
        }
        let [_, channels, height, width] = x.dims();
        let (pixels, members) = (height * width, channels / groups);
        let (weight, bias) = (Values::of(weight), Values::of(bias));
        let (weight, bias) = (weight.slice(), bias.slice());
        let input = Values::of(x);
        let mut output = vec![0.0; input.slice().len()];
        let pieces = input.slice().par_chunks(members * pixels);
        pieces.zip(output.par_chunks_mut(members * pixels)).enumerate().for_each(|(i, (x, y))| {
            let count = (members * pixels) as f64;
            let mean = sum(x, |v| v) / count;
            let centre = mean as f32;
            let variance = sum(x, |v| (v - centre) * (v - centre)) / count;
            let factor = (1.0 / (variance + eps).sqrt()) as f32;
            let first = i % groups * members;
            let channel_pieces = x.chunks_exact(pixels).zip(y.chunks_exact_mut(pixels));
            for (channel, (x, y)) in (first..).zip(channel_pieces) {
                let (scale, shift) = (factor * weight[channel], bias[channel]);
                let normal = |x: &f32| (x - centre) * scale + shift;
                match then {
                    Then::Nothing => y.iter_mut().zip(x).for_each(|(y, x)| *y = normal(x)),
                    Then::Silu => y.iter_mut().zip(x).for_each(|(y, x)| *y = silu(normal(x))),
                }
            }
        });
        tensor(output, input.shape)
    }
}

/// Scores that are held at once: 16 MB, whatever the size of the picture.
const SCORES_MAX: usize = 1 << 22;

/// Keys that are not seen, on the host.
enum Hidden {
    None,
    Later,
    /// `[batch * keys]`
    Marked(Vec<bool>),
}

impl Hidden {
    fn of(mask: &Mask<Flex>) -> Self {
        match mask {
            Mask::None => Self::None,
            Mask::Causal => Self::Later,
            Mask::Keys(marks) => Self::Marked(marks.clone().into_data().iter::<bool>().collect()),
        }
    }
}

/// What the rows of a matrix of scores, `[batch, heads, length, keys]`, see.
struct Sight {
    mask: Hidden,
    /// The query of the first row.
    start: usize,
    length: usize,
    heads: usize,
}

impl Sight {
    /// Sets what a row does not see to nothing at all.
    fn hide(&self, row: usize, scores: &mut [f32]) {
        match &self.mask {
            Hidden::None => {}
            Hidden::Later => {
                let query = self.start + row % self.length;
                scores[query + 1..].fill(f32::NEG_INFINITY);
            }
            Hidden::Marked(marks) => {
                let item = row / self.length / self.heads;
                let marks = &marks[item * scores.len()..][..scores.len()];
                for (score, _) in scores.iter_mut().zip(marks).filter(|(_, hidden)| **hidden) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// Shares of each row: `softmax(scale · scores)` over what it sees.
fn softmax(scores: Tensor<Flex, 4>, scale: f32, sight: &Sight) -> Tensor<Flex, 4> {
    let keys = scores.dims()[3];
    map_indexed(scores, keys, |row, scores, shares| {
        shares.copy_from_slice(scores);
        sight.hide(row, shares);
        let most = largest(shares);
        for share in shares.iter_mut() {
            // What is hidden is infinitely far below, and the exponential stops short of nothing.
            let below = (*share - most) * scale;
            *share = if below < -87.0 { 0.0 } else { exp(below) };
        }
        let factor = (1.0 / sum(shares, |share| share)) as f32;
        shares.iter_mut().for_each(|share| *share *= factor);
    })
}

/// The largest value, in lanes.
fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *value);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// The values of a tensor, in order, shared where they already lie so.
struct Values {
    held: FlexTensor,
    shape: Shape,
}

impl Values {
    fn of<const D: usize>(tensor: Tensor<Flex, D>) -> Self {
        let shape = tensor.shape();
        Self { held: tensor.into_primitive().tensor().to_contiguous(), shape }
    }

    fn slice(&self) -> &[f32] {
        self.held.storage()
    }
}

fn tensor<const D: usize>(values: Vec<f32>, shape: Shape) -> Tensor<Flex, D> {
    let (bytes, layout) = (Bytes::from_elems(values), Layout::contiguous(shape));
    Tensor::from_primitive(TensorPrimitive::Float(FlexTensor::new(bytes, layout, DType::F32)))
}

/// Maps each row of `width` values; with a width of 1, whole pieces.
fn map_rows<const D: usize>(
    x: Tensor<Flex, D>,
    width: usize,
    map: impl Fn(&[f32], &mut [f32]) + Sync,
) -> Tensor<Flex, D> {
    map_indexed(x, width, |_, row, out| map(row, out))
}

/// Maps each row of `width` values by its index; with a width of 1, whole pieces by their start.
fn map_indexed<const D: usize>(
    x: Tensor<Flex, D>,
    width: usize,
    map: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) -> Tensor<Flex, D> {
    let input = Values::of(x);
    let mut output = vec![0.0; input.slice().len()];
    let rows = (TASK_VALUES / width).max(1);
    let pieces = input.slice().par_chunks(rows * width).zip(output.par_chunks_mut(rows * width));
    pieces.enumerate().for_each(|(i, (x, y))| {
        if width == 1 {
            map(i * rows, x, y);
            return;
        }
        for (j, (x, y)) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).enumerate() {
            map(i * rows + j, x, y);
        }
    });
    tensor(output, input.shape)
}

/// Sums `term` of all values: lanes of f32 over short stretches, those in f64.
fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    let mut total = 0.0;
    for stretch in values.chunks(64 * LANES) {
        let mut lanes = [0.0_f32; LANES];
        let whole = stretch.chunks_exact(LANES);
        let rest = whole.remainder();
        for chunk in whole {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += term(*value);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += term(*value);
        }
        total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
    }
    total
}

fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The exponential, within two units of the last place; finite for every finite value.
///
/// x = n ln 2 + r, and `e^r` is a polynomial: the one of Cephes' `expf`. No branch, so that loops
/// over it become vector code, and no fused multiplication, so that every machine gives these bits.
fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 · 2^23 rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = ((((1.987_569_1e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r
        + 0.166_666_65)
        * r
        + 0.5;
    // The low bits of `shifted` are n; moved up, they are the exponent of 2^n.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (p * r * r + r + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{Purpose, normal};
    use crate::tap::values;
    use burn::tensor::TensorData;
    use burn_flex::FlexDevice;

    fn random<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<Flex, D> {
        let drawn = normal(seed, 0, Purpose::Latents, shape.iter().product());
        Tensor::from_data(TensorData::new(drawn, shape), (&FlexDevice, DType::F32))
    }

    fn assert_near<const D: usize>(ours: Tensor<Flex, D>, plain: Tensor<Flex, D>) {
        assert_eq!(ours.dims(), plain.dims());
        for (a, b) in values(ours).into_iter().zip(values(plain)) {
            assert!((a - b).abs() <= 4e-6 * b.abs().max(1.0), "{a} is not {b}");
        }
    }

    #[test]
    fn exp_is_within_two_units_of_the_last_place() {
        let mut worst = 0.0_f64;
        for i in -870_000..880_000_i32 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(1e30).is_finite());
        assert!(exp(f32::NEG_INFINITY) < 1.3e-38);
    }

    #[test]
    fn each_kernel_means_what_the_plain_one_does() {
        let x = random(1, [2, 37, 6, 10]);
        let (w, b) = (random(2, [10]), random(3, [6]));
        assert_near(
            Flex::rms_norm(x.clone(), w.clone(), 1e-5),
            plain::rms_norm(x.clone(), w, 1e-5),
        );
        assert_near(Flex::silu(x.clone()), plain::silu(x.clone()));
        let up = random(4, [2, 37, 6, 10]);
        assert_near(Flex::swiglu(x.clone(), up.clone()), plain::silu(x.clone()) * up);
        for batch in [1, 2] {
            let rope = Rope { cos: random(5, [batch, 37, 5]), sin: random(6, [batch, 37, 5]) };
            for pairs in [Pairs::Adjacent, Pairs::Halves] {
                let plain = plain::rotate(x.clone(), &rope, pairs);
                assert_near(Flex::rotate(x.clone(), &rope, pairs), plain);
            }
        }
        let pixels = x.swap_dims(1, 2);
        for then in [Then::Nothing, Then::Silu] {
            let affine = [b.clone(), random(7, [6])];
            let plain = plain::group_norm(pixels.clone(), affine.clone(), 3, 1e-6, then);
            assert_near(Flex::group_norm(pixels.clone(), affine, 3, 1e-6, then), plain);
        }
    }

    #[test]
    fn attention_means_what_the_plain_one_does() {
        let key_marks = |batch: usize, keys: usize| {
            let marks: Vec<bool> = (0..batch * keys).map(|i| i % keys > 20 + i / keys).collect();
            Mask::Keys(Tensor::from_data(TensorData::new(marks, [batch, keys]), &FlexDevice))
        };
        for (batch, heads, kv_heads) in [(1, 4, 4), (2, 4, 2), (1, 1, 1)] {
            let [q, k, v] = [(9, heads), (10, kv_heads), (11, kv_heads)]
                .map(|(seed, heads)| random(seed, [batch, 37, heads, 16]).mul_scalar(3.0));
            for mask in [Mask::None, Mask::Causal, key_marks(batch, 37)] {
                let [ours, plain] = [Flex::attend, plain::attend::<Flex>]
                    .map(|attend| attend(q.clone(), k.clone(), v.clone(), &mask));
                assert_near(ours, plain);
            }
        }
    }

    #[test]
    fn attention_in_parts_is_the_whole() {
        // More scores than are held at once, and a last part that is shorter.
        let [q, k, v] = [12, 13, 14].map(|seed| random(seed, [1, 2100, 1, 8]));
        const { assert!(2100 * 2100 > SCORES_MAX) };
        for mask in [Mask::None, Mask::Causal] {
            let plain = plain::attend(q.clone(), k.clone(), v.clone(), &mask);
            assert_near(Flex::attend(q.clone(), k.clone(), v.clone(), &mask), plain);
        }
    }

    #[test]
    fn a_value_that_is_no_number_stays_one_through_attention() {
        let mut drawn = vec![0.5_f32; 32];
        drawn[5] = f32::NAN;
        let q = Tensor::<Flex, 4>::from_data(TensorData::new(drawn, [1, 8, 1, 4]), &FlexDevice);
        let out = values(Flex::attend(q.clone(), q.clone(), q, &Mask::None));
        assert!(out.iter().any(|value| value.is_nan()));
    }

    #[test]
    fn a_group_norm_of_many_values_is_exact() {
        // Far from zero, where a sum in f32 alone would lose the variance.
        let x = random(8, [1, 1, 256, 256]).mul_scalar(0.01).add_scalar(3.0);
        let affine = [Tensor::ones([1], &FlexDevice), Tensor::zeros([1], &FlexDevice)];
        let ours = values(Flex::group_norm(x.clone(), affine, 1, 1e-6, Then::Nothing));
        let x: Vec<f64> = values(x).into_iter().map(f64::from).collect();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let exact = x.iter().map(|v| (v - mean) / (variance + 1e-6).sqrt());
        let worst = exact.zip(ours).map(|(a, b)| (a - f64::from(b)).abs()).fold(0.0, f64::max);
        assert!(worst < 3e-5, "{worst}");
    }
}
