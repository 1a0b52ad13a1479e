//! Previews of the bundled model resemble what it draws, from the first picture on.

use std::path::Path;
use std::time::{Duration, Instant};

use atelier_diffusion::{Image, Pipeline, Request};
use burn_flex::{Flex, FlexDevice};

/// How far the mean colour of a preview may be from the picture's, in levels of 0..255.
/// A grey preview of the blue background is a hundred off.
const MEAN_OFF_MAX: f64 = 32.0;
/// The same of each pixel from its block of the picture, in the mean over all.
const PIXEL_OFF_MAX: f64 = 24.0;
/// From this step of eight on a preview is judged.
const LATE: usize = 4;
/// What a preview may cost of a step. On a quiet machine it is a hundredth; this only finds what
/// grows out of all proportion.
const SHARE_MAX: f64 = 0.25;

#[test]
fn a_preview_resembles_the_picture() {
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("toy/model");
    let model = Pipeline::<Flex>::load(&toy, &FlexDevice, &mut |_| {}).expect("the bundled model");
    for (prompt, seed) in [
        ("a cat on a blue background", 7),
        ("a dog on a red background", 8),
        ("黄色背景上的猫", 9),
        ("a penguin on the left on a black background", 10),
        ("a banana", 11),
    ] {
        let (mean, pixel) = off_late(&model, prompt, seed);
        assert!(mean <= MEAN_OFF_MAX, "{prompt}: mean colour is {mean:.1} off");
        assert!(pixel <= PIXEL_OFF_MAX, "{prompt}: pixels are {pixel:.1} off");
    }
}

/// How far the later previews of a picture are from it at most.
fn off_late(model: &Pipeline<Flex>, prompt: &str, seed: u64) -> (f64, f64) {
    let request = Request { seed, ..Request::new(prompt, 128, 128) };
    let mut run = model.begin(&request).expect("a valid request");
    let (mut previews, mut cost) = (Vec::new(), Duration::ZERO);
    while run.step().expect("a finite step").is_some() {
        let begun = Instant::now();
        let preview = run.preview().expect("a step was done");
        let png = preview.to_png();
        cost += begun.elapsed();
        assert!(png.len() < 1024, "{} bytes", png.len());
        previews.push(preview);
    }
    let drawn = run.decode().expect("a finite picture");
    let share = cost.as_secs_f64() / run.times().denoise.as_secs_f64();
    println!("{}: {:.2} % of the steps", request.prompt, 100.0 * share);
    assert!(share < SHARE_MAX, "previews cost {share} of the steps");
    let off: Vec<_> = previews.iter().map(|preview| off(preview, &drawn)).collect();
    for (step, (mean, pixel)) in (1..).zip(&off) {
        println!("  step {step}: mean colour {mean:.1} off, pixels {pixel:.1}");
    }
    off[LATE..].iter().copied().fold((0.0, 0.0), |a, b| (a.0.max(b.0), a.1.max(b.1)))
}

/// How far a preview is from a picture: in its mean colour, and in the mean of its pixels.
fn off(preview: &Image, drawn: &Image) -> (f64, f64) {
    assert_eq!((preview.width, preview.height), (drawn.width / 8, drawn.height / 8));
    let mut off: Vec<f64> = preview.rgb.iter().map(|level| -f64::from(*level)).collect();
    for (at, level) in drawn.rgb.iter().enumerate() {
        let (pixel, colour) = (at / 3, at % 3);
        let width = drawn.width as usize;
        let (x, y) = (pixel % width / 8, pixel / width / 8);
        off[(y * width / 8 + x) * 3 + colour] += f64::from(*level) / 64.0;
    }
    let count = off.len() as f64;
    let mean = |c: usize| off.iter().skip(c).step_by(3).sum::<f64>().abs() / (count / 3.0);
    let mean = (0..3).map(mean).fold(0.0, f64::max);
    (mean, off.iter().map(|off| off.abs()).sum::<f64>() / count)
}
