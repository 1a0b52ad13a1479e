//! What users of the model expect beside a prompt: guidance, a picture to begin from, a mask.

mod support;

use atelier_diffusion::flow_match::Schedule;
use atelier_diffusion::noise::{Purpose, normal};
use atelier_diffusion::pipeline::Start;
use atelier_diffusion::run::Guidance;
use atelier_diffusion::{GuidanceRequest, Image, Mask, Pipeline, Request, RequestError, Source};
use burn_flex::Flex;
use support::{draw, golden, golden_model, request};

const STEPS: u32 = 5;

fn fox() -> Request {
    Request { steps: STEPS, ..request("a fox") }
}

fn guided(scale: f32, negative_prompt: &str) -> Request {
    let negative_prompt = negative_prompt.to_owned();
    let guidance = GuidanceRequest { scale, negative_prompt, truncation: 1.0, normalization: 0.0 };
    Request { guidance: Some(guidance), ..fox() }
}

#[test]
fn guidance_is_that_of_the_golden_runs() {
    let model = golden_model();
    let asked = draw(&model, &guided(4.0, "a dog"));
    let caption = |prompt| model.caption(&model.tokenizer.encode(prompt)).expect("a caption");
    let request = fox();
    let [height, width] = model.latents_size(request.height, request.width);
    let guidance = Guidance { scale: 4.0, truncation: 1.0, normalization: 0.0 };
    let start = Start {
        captions: vec![caption("a fox")],
        guidance: Some((guidance, vec![caption("a dog")])),
        width: request.width,
        height: request.height,
        latents: normal(request.seed, 0, Purpose::Latents, 16 * height * width),
        schedule: Schedule::new(&model.config.scheduler, STEPS as usize, height * width / 4),
        first_step: 0,
        known: None,
    };
    let mut run = model.start(start).expect("a valid start");
    while run.step().expect("a finite step").is_some() {}
    assert!(run.decode().expect("a finite picture").to_png() == asked);
}

#[test]
fn guidance_changes_the_picture_and_none_does_not() {
    let model = golden_model();
    let plain = draw(&model, &fox());
    assert!(draw(&model, &guided(0.0, "a dog")) == plain);
    let strong = draw(&model, &guided(4.0, "a dog"));
    assert!(strong != plain);
    assert!(draw(&model, &guided(4.0, "")) != strong, "the negative prompt counts");
    let mut early = guided(4.0, "a dog");
    early.guidance.as_mut().expect("guidance").truncation = 0.0;
    assert!(draw(&model, &early) != strong);
}

/// The golden picture, cut to the size of the request.
fn source(request: &Request) -> Image {
    let png = std::fs::read(golden().join("images/img2img_input.png")).expect("a picture");
    let image = Image::from_png(&png).expect("a PNG");
    let (width, height) = (request.width as usize, request.height as usize);
    assert!(image.width as usize >= width && image.height as usize >= height);
    let rows = image.rgb.chunks_exact(3 * image.width as usize).take(height);
    let rgb = rows.flat_map(|row| &row[..3 * width]).copied().collect();
    Image { width: request.width, height: request.height, rgb }
}

fn from_picture(strength: f64, mask: Option<Mask>) -> Request {
    let source = Source { image: source(&fox()), strength, mask };
    Request { source: Some(source), ..fox() }
}

fn last_latents(model: &Pipeline<Flex>, request: &Request) -> Vec<f32> {
    let mut run = model.begin(request).expect("a valid request");
    while run.step().expect("a finite step").is_some() {}
    run.latents()
}

/// What the encoder makes of the source for a request.
fn clean(model: &Pipeline<Flex>, request: &Request) -> Vec<f32> {
    let [height, width] = model.latents_size(request.height, request.width);
    let noise = normal(request.seed, request.image_index, Purpose::Posterior, 16 * height * width);
    model.encode(&source(request), &noise).expect("the picture's size")
}

#[test]
fn a_picture_is_kept_the_more_the_weaker_the_strength() {
    let model = golden_model();
    assert!(
        draw(&model, &from_picture(1.0, None)) == draw(&model, &fox()),
        "nothing of it is left"
    );
    let clean = clean(&model, &fox());
    let off = |strength| {
        let latents = last_latents(&model, &from_picture(strength, None));
        latents.iter().zip(&clean).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>()
    };
    assert!(off(0.2) < off(0.6) && off(0.6) < off(1.0), "{} {} {}", off(0.2), off(0.6), off(1.0));
    let mut run = model.begin(&from_picture(0.6, None)).expect("a valid request");
    assert_eq!((run.steps_done(), run.steps()), (2, 5));
    let report = run.step().expect("a finite step").expect("a step is left");
    assert_eq!(report.step, 3);
}

fn mask(repaint: impl Fn(usize, usize) -> bool) -> Mask {
    let Request { width, height, .. } = fox();
    let (w, h) = (width as usize, height as usize);
    let repaint = (0..h).flat_map(|y| (0..w).map(move |x| (x, y))).map(|(x, y)| repaint(x, y));
    Mask { width, height, repaint: repaint.collect() }
}

#[test]
fn a_mask_keeps_the_rest_of_the_picture_exactly() {
    let model = golden_model();
    let everywhere = from_picture(0.8, Some(mask(|_, _| true)));
    assert!(draw(&model, &everywhere) == draw(&model, &from_picture(0.8, None)));
    let clean = clean(&model, &fox());
    let nowhere = from_picture(0.8, Some(mask(|_, _| false)));
    assert_eq!(last_latents(&model, &nowhere), clean);
    // The left half is drawn anew: of 8 latent pixels in a row, 4.
    let half = from_picture(0.8, Some(mask(|x, _| x < 32)));
    let latents = last_latents(&model, &half);
    let width = model.latents_size(fox().height, fox().width)[1];
    assert_eq!(width, 8);
    for (i, (got, kept)) in latents.iter().zip(&clean).enumerate() {
        let is_anew = i % width < 4;
        assert_eq!(is_anew, got.to_bits() != kept.to_bits(), "latent {i}: {got} and {kept}");
    }
}

#[test]
fn a_mask_is_read_from_a_black_and_white_picture() {
    let rgb = vec![0, 0, 0, 255, 255, 255, 127, 127, 127, 128, 128, 128];
    let mask = Mask::from_image(&Image { width: 2, height: 2, rgb });
    assert_eq!(mask.repaint, [false, true, false, true]);
}

#[test]
fn a_resumed_inpainting_gives_the_same_bytes() {
    let model = golden_model();
    let request = from_picture(0.8, Some(mask(|x, _| x < 32)));
    let undisturbed = draw(&model, &request);
    let mut run = model.begin(&request).expect("a valid request");
    run.step().expect("a finite step");
    let (latents, step) = (run.latents(), run.steps_done());
    let elsewhere = golden_model();
    let mut run = elsewhere.begin(&request).expect("a valid request");
    run.resume_from(latents, step).expect("a checkpoint of this run");
    while run.step().expect("a finite step").is_some() {}
    assert!(run.decode().expect("a finite picture").to_png() == undisturbed);
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    let model = golden_model();
    let refusal = |request: &Request| model.validate(request).expect_err("it is wrong").to_string();
    for scale in [-1.0, 31.0, f32::NAN, f32::INFINITY] {
        let text = refusal(&guided(scale, ""));
        assert!(text.contains("scale of the guidance") && text.contains("0 to 30"), "{text}");
    }
    let mut request = guided(3.0, "");
    request.guidance.as_mut().expect("guidance").truncation = 1.5;
    assert!(refusal(&request).contains("truncation"));
    let long = guided(3.0, &"x".repeat(9000));
    assert_eq!(model.validate(&long), Err(RequestError::PromptBytes { got: 9000 }));
    for strength in [0.0, -0.5, 1.01, f64::NAN] {
        let text = refusal(&from_picture(strength, None));
        assert!(text.contains("strength is") && text.contains("0.001 to 1"), "{text}");
    }
    let mut request = from_picture(0.5, None);
    request.width = 48;
    let text = refusal(&request);
    assert!(text.contains("source image has 64x48 pixels, expected 48x48"), "{text}");
    let mut request = from_picture(0.5, Some(mask(|_, _| true)));
    request.source.as_mut().and_then(|s| s.mask.as_mut()).expect("a mask").repaint.pop();
    assert!(refusal(&request).contains("mask has"));
}
